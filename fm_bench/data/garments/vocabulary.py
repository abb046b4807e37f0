# SPDX-License-Identifier: MIT
"""What garments are called: attributes, values, colours, and which of them go together."""

import numpy as np
from numpy.typing import NDArray

from fm_bench.attributes import AttributeSchema

COLOURS: dict[str, tuple[int, int, int]] = {
    "black": (40, 40, 44),
    "white": (242, 242, 240),
    "navy": (34, 44, 98),
    "grey": (140, 142, 146),
    "blue": (42, 92, 196),
    "red": (206, 34, 44),
    "beige": (222, 202, 162),
    "green": (40, 138, 66),
    "pink": (240, 148, 182),
    "light blue": (152, 200, 238),
    "brown": (116, 74, 42),
    "burgundy": (112, 22, 50),
    "yellow": (244, 212, 56),
    "olive": (106, 108, 50),
    "orange": (238, 126, 34),
    "purple": (116, 56, 156),
    "turquoise": (36, 178, 176),
    "lilac": (192, 166, 222),
}
"""Central RGB of each colour class."""

SCHEMA = AttributeSchema.from_dict(
    {
        "category": (
            "t-shirt", "shirt", "dress", "sweater", "hoodie", "bomber jacket",
            "trench coat", "peplum top", "tunic", "jumpsuit", "waistcoat", "bodysuit",
        ),
        "colour": tuple(COLOURS),
        "pattern": (
            "plain", "horizontal stripes", "graphic print", "floral", "vertical stripes", "gingham", "polka dots",
            "grid", "colour block", "diagonal stripes", "camouflage", "leopard", "zigzag", "ombre", "argyle", "tie-dye",
        ),
        "fabric": (
            "jersey", "rib knit", "denim", "leather", "cable knit", "quilted", "pleated", "faux fur", "sequins", "mesh",
        ),
        "fit": ("regular", "slim", "boxy", "tailored", "A-line", "cocoon"),
        "length": ("hip", "waist", "thigh", "knee", "cropped", "ankle"),
        "sleeve length": ("long", "short", "sleeveless", "three-quarter", "elbow", "cap"),
        "sleeve shape": ("set-in", "raglan", "puff", "bell", "batwing", "ruffled", "cold shoulder"),
        "neckline": ("crew", "V-neck", "scoop", "square", "boat", "sweetheart", "keyhole", "asymmetric"),
        "collar": ("none", "shirt", "lapel", "band", "funnel", "shawl", "peter pan", "bow", "ruffle", "sailor"),
        "fastening": (
            "none", "buttons", "zip", "open", "half placket", "double-breasted", "biker zip", "toggles", "lacing",
        ),
        "pocket": ("none", "chest", "patch pair", "slanted", "kangaroo", "flap pair", "four pockets"),
    }
)  # fmt: skip
"""Twelve attributes and their values; the tail of every distribution follows the order of the values."""

FAVOURITES: dict[str, dict[str, str]] = {
    "t-shirt": {
        "colour": "white,black,grey,navy,red,yellow",
        "pattern": "plain,graphic print,horizontal stripes,tie-dye",
        "fabric": "jersey",
        "fit": "regular,slim,boxy",
        "length": "hip,waist,cropped",
        "sleeve length": "short,cap,sleeveless,long",
        "sleeve shape": "set-in,raglan",
        "neckline": "crew,V-neck,scoop",
        "collar": "none",
        "fastening": "none,half placket",
        "pocket": "none,chest",
    },
    "shirt": {
        "colour": "white,light blue,blue,navy,pink",
        "pattern": "plain,gingham,vertical stripes,grid,floral",
        "fabric": "jersey,denim",
        "fit": "regular,slim,tailored",
        "length": "hip,thigh",
        "sleeve length": "long,short,three-quarter",
        "sleeve shape": "set-in,puff",
        "neckline": "V-neck,crew",
        "collar": "shirt,band,peter pan,bow",
        "fastening": "buttons,half placket",
        "pocket": "chest,none,flap pair",
    },
    "dress": {
        "colour": "black,red,navy,pink,burgundy,turquoise",
        "pattern": "plain,floral,polka dots,leopard,ombre",
        "fabric": "jersey,pleated,sequins,mesh",
        "fit": "tailored,A-line,slim",
        "length": "knee,thigh,ankle",
        "sleeve length": "sleeveless,short,three-quarter,cap",
        "sleeve shape": "set-in,puff,bell,ruffled,cold shoulder",
        "neckline": "scoop,V-neck,sweetheart,square,boat",
        "collar": "none,peter pan,ruffle",
        "fastening": "none,zip",
        "pocket": "none",
    },
    "sweater": {
        "colour": "grey,navy,beige,burgundy,olive",
        "pattern": "plain,horizontal stripes,argyle,zigzag",
        "fabric": "rib knit,cable knit",
        "fit": "regular,boxy,cocoon",
        "length": "hip,waist",
        "sleeve length": "long,three-quarter",
        "sleeve shape": "set-in,raglan,batwing",
        "neckline": "crew,V-neck,boat",
        "collar": "none,funnel,shawl",
        "fastening": "none,buttons,open",
        "pocket": "none,patch pair",
    },
    "hoodie": {
        "colour": "grey,black,navy,green,red",
        "pattern": "plain,graphic print,colour block,camouflage",
        "fabric": "jersey,faux fur",
        "fit": "regular,boxy",
        "length": "hip,waist,thigh",
        "sleeve length": "long,elbow",
        "sleeve shape": "set-in,raglan",
        "neckline": "crew,V-neck",
        "collar": "none",
        "fastening": "none,zip,lacing",
        "pocket": "kangaroo,slanted",
    },
    "bomber jacket": {
        "colour": "black,olive,navy,burgundy,orange",
        "pattern": "plain,camouflage,colour block",
        "fabric": "leather,quilted,denim",
        "fit": "boxy,regular,cocoon",
        "length": "waist,hip",
        "sleeve length": "long,three-quarter",
        "sleeve shape": "set-in,raglan",
        "neckline": "V-neck,crew",
        "collar": "band,shirt,lapel,funnel",
        "fastening": "zip,biker zip,open,buttons",
        "pocket": "slanted,flap pair,four pockets",
    },
    "trench coat": {
        "colour": "beige,black,navy,brown,grey",
        "pattern": "plain,grid,diagonal stripes",
        "fabric": "jersey,quilted,faux fur,leather",
        "fit": "tailored,regular,A-line",
        "length": "knee,thigh,ankle",
        "sleeve length": "long",
        "sleeve shape": "set-in,raglan,bell",
        "neckline": "V-neck",
        "collar": "lapel,shawl,funnel",
        "fastening": "double-breasted,buttons,toggles,open",
        "pocket": "slanted,patch pair,flap pair",
    },
    "peplum top": {
        "colour": "pink,white,lilac,turquoise,red",
        "pattern": "plain,floral,polka dots",
        "fabric": "jersey,mesh,sequins",
        "fit": "slim,tailored",
        "length": "hip,waist",
        "sleeve length": "sleeveless,cap,short,elbow",
        "sleeve shape": "puff,ruffled,set-in,cold shoulder",
        "neckline": "square,sweetheart,keyhole,scoop",
        "collar": "none,bow,ruffle",
        "fastening": "none,lacing",
        "pocket": "none",
    },
    "tunic": {
        "colour": "turquoise,orange,purple,white,olive",
        "pattern": "plain,zigzag,tie-dye,floral,leopard",
        "fabric": "jersey,pleated",
        "fit": "A-line,boxy,cocoon",
        "length": "thigh,knee",
        "sleeve length": "three-quarter,long,elbow",
        "sleeve shape": "batwing,bell,set-in",
        "neckline": "keyhole,boat,V-neck,asymmetric",
        "collar": "none,band",
        "fastening": "none,lacing,half placket",
        "pocket": "none,patch pair",
    },
    "jumpsuit": {
        "colour": "black,blue,navy,green,purple",
        "pattern": "plain,vertical stripes,diagonal stripes",
        "fabric": "denim,jersey",
        "fit": "slim,tailored,regular",
        "length": "ankle,thigh,knee",
        "sleeve length": "sleeveless,short,elbow",
        "sleeve shape": "set-in,ruffled,cold shoulder",
        "neckline": "V-neck,asymmetric,square",
        "collar": "none,shirt,sailor",
        "fastening": "zip,buttons,none",
        "pocket": "patch pair,four pockets,slanted",
    },
    "waistcoat": {
        "colour": "grey,brown,navy,black,beige",
        "pattern": "plain,vertical stripes,argyle,grid",
        "fabric": "jersey,quilted,leather",
        "fit": "slim,tailored",
        "length": "waist,hip",
        "sleeve length": "sleeveless,cap",
        "sleeve shape": "set-in",
        "neckline": "V-neck,scoop",
        "collar": "none,lapel,shawl",
        "fastening": "buttons,double-breasted,toggles",
        "pocket": "slanted,flap pair,none",
    },
    "bodysuit": {
        "colour": "black,white,red,lilac,brown",
        "pattern": "plain,leopard,colour block,ombre",
        "fabric": "jersey,mesh,rib knit",
        "fit": "slim,regular",
        "length": "hip,thigh",
        "sleeve length": "long,sleeveless,cap",
        "sleeve shape": "set-in,cold shoulder,bell",
        "neckline": "scoop,sweetheart,asymmetric,square",
        "collar": "none,sailor",
        "fastening": "none,lacing,zip",
        "pocket": "none",
    },
}
"""What each category usually looks like, most usual first; everything else remains possible, but rare."""

ARCHETYPES = 240
"""Number of popular designs that most items are variations of."""

MUTATION: dict[str, float] = {
    "category": 0.04,
    "colour": 0.45,
    "pattern": 0.22,
    "fabric": 0.10,
    "fit": 0.10,
    "length": 0.11,
    "sleeve length": 0.13,
    "sleeve shape": 0.09,
    "neckline": 0.11,
    "collar": 0.09,
    "fastening": 0.10,
    "pocket": 0.10,
}
"""Share of an archetype's items that differ from it in each attribute."""

CATEGORY, COLOUR, PATTERN, FABRIC, FIT, LENGTH, SLEEVE, SHAPE, NECK, COLLAR, FASTENING, POCKET = range(12)
"""Columns of the label matrix."""

PALETTE: NDArray[np.float32] = np.array(list(COLOURS.values()), dtype=np.float32)
"""Central RGB by colour label, ``(18, 3)``."""


def usual(category: str, attribute: str) -> tuple[str, ...]:
    """Values that a category favours, most usual first."""
    return tuple(FAVOURITES[category][attribute].split(","))
