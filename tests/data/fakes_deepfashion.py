# SPDX-License-Identifier: MIT
"""Tiny benchmarks of DeepFashion with the layout, header lines and traps of the real ones."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import fakes
import numpy as np

CATEGORIES = (
    *(("Anorak", 1), ("Blazer", 1), ("Blouse", 1), ("Jeans", 2), ("Skirt", 2)),
    *(("Cape", 3), ("Nightdress", 3), ("Dress", 3), ("Shirtdress", 3), ("Sundress", 3)),
)
"""Four of them are listed and stand for Dress; numbers are places from 1."""

ATTRIBUTES = (
    *(("a-line", 3), ("abstract chevron print", 1), ("bell sleeve", 4), ("chiffon", 2), ("boxy", 3)),
    *(("floral", 1), ("denim", 2), ("striped", 1), ("v neck", 4), ("art deco", 5), ("maxi", 3), ("summer", 5)),
)
"""Names with spaces, types not in order, as in the real list."""

FINE = (
    *((name, 1) for name in ("floral", "graphic", "striped", "embroidered", "pleated", "solid", "lattice")),
    *((name, 2) for name in ("long_sleeve", "short_sleeve", "sleeveless")),
    *((name, 3) for name in ("maxi_length", "mini_length", "no_dress")),
    *((name, 4) for name in ("crew_neckline", "v_neckline", "square_neckline", "no_neckline")),
    *((name, 5) for name in ("denim", "chiffon", "cotton", "leather", "faux", "knit")),
    *((name, 6) for name in ("tight", "loose", "conventional")),
)
SHOP_ATTRIBUTES = ("floral print", "long sleeve", "machine wash cold", "v-neck")
COLOURS = tuple(fakes.COLOURS)
SIZE = (40, 30)  # height, width


def write_list(path: Path, rows: Iterable[str], header: str | None, count: bool = True) -> Path:
    """A list as the authors write them: a count, column names, and space after the last column."""
    rows = list(rows)
    lines = [*([f"{len(rows)} "] if count else []), *([header] if header else []), *rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _photo(path: Path, number: int, colour: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(fakes.jpeg(fakes.picture(fakes.COLOURS[colour], number, SIZE)))


def _signs(values: Sequence[int]) -> str:
    return " ".join(f"{value:2d}" for value in values) + " "


def write(root: Path, images: int = 300, seed: int = 0) -> Path:
    """Category and Attribute Prediction, coarse and fine: three quarters train, an eighth each validates and tests.

    Every tenth image has two textures, every seventh no shape, every ninth no style and every eleventh both; 0 and −1
    stand for what it has not.
    """
    rng = np.random.default_rng(seed)
    names = [f"img/Striped_Pleated-Front_Blouse_{i // 20}/img_{i % 20 + 1:08d}.jpg" for i in range(images)]
    for i, name in enumerate(names):
        _photo(root / name, i, COLOURS[i % 4])
    anno = root / "Anno_coarse"
    write_list(
        anno / "list_category_cloth.txt", (f"{n:<15} {t}" for n, t in CATEGORIES), "category_name  category_type"
    )
    write_list(anno / "list_attr_cloth.txt", (f"{n:<29}{t}" for n, t in ATTRIBUTES), "attribute_name  attribute_type")
    category = [(3, 4, 6, 8)[i % 4] for i in range(images)]  # Blouse, Jeans, Cape, Dress
    rows = (f"{name}        {number}" for name, number in zip(names, category, strict=True))
    write_list(anno / "list_category_img.txt", rows, "image_name  category_label")
    signs = np.array([_coarse_signs(i, rng) for i in range(images)])
    rows = (f"{name}    {_signs(sign)}" for name, sign in zip(names, signs.tolist(), strict=True))
    write_list(anno / "list_attr_img.txt", rows, "image_name  attribute_labels")
    write_list(anno / "list_bbox.txt", (f"{name} 003 010 021 030" for name in names), "image_name  x_1  y_1  x_2  y_2")
    status = [("train", "train", "train", "train", "test", "test", "test", "val")[i % 8] for i in range(images)]
    rows = (f"{name}    {part}" for name, part in zip(names, status, strict=True))
    write_list(root / "Eval/list_eval_partition.txt", rows, "image_name  evaluation_status")
    _write_fine(root / "Anno_fine", names, status, category, rng)
    return root


def _coarse_signs(i: int, rng: np.random.Generator) -> list[int]:
    sign = rng.choice([-1, 0], size=len(ATTRIBUTES), p=[0.9, 0.1])
    sign[(1, 5, 7)[i % 3]] = 1  # texture
    if i % 10 == 0:
        sign[(5, 7, 1)[i % 3]] = 1  # and another one
    if i % 7:
        sign[(0, 4, 10)[i // 2 % 3]] = 1  # shape
    sign[(2, 8)[i % 2]] = sign[(3, 6)[i // 3 % 2]] = 1
    if i % 9:
        sign[(9, 11)[i // 4 % 2]] = 1  # style
    if i % 11 == 0:
        sign[[9, 11]] = 1  # and both
    return sign.tolist()


def _write_fine(anno: Path, names: list[str], status: list[str], category: list[int], rng: np.random.Generator) -> None:
    write_list(anno / "list_attr_cloth.txt", (f"{n:<20}{t}" for n, t in FINE), "attribute_name   attribute_type")
    kinds = np.array([t for _, t in FINE])
    rows = (f"{n:<15} {t}" for n, t in CATEGORIES)
    write_list(anno / "list_category_cloth.txt", rows, "category_name  category_type")
    for part in ("train", "val", "test"):
        mine = [i for i, s in enumerate(status) if s == part and i % 5]
        signs = np.zeros((len(mine), len(FINE)), dtype=int)
        for t in range(1, 7):
            group = np.flatnonzero(kinds == t)
            signs[np.arange(len(mine)), rng.choice(group, len(mine))] = 1
        rest = {
            "": (names[i] for i in mine),
            "_attr": (" ".join(map(str, sign)) + " " for sign in signs.tolist()),
            "_cate": (str(category[i]) for i in mine),
            "_bbox": ("3 10 21 30" for _ in mine),
        }
        for kind, rows in rest.items():
            write_list(anno / f"{part}{kind}.txt", rows, None, count=False)


def write_repack(root: Path, images: int = 120) -> Path:
    """The repack of a part of the fine annotations: column names, six numbers from 0, no boxes, no categories."""
    sizes = (7, 3, 3, 4, 6, 3)
    names = [f"img/{i:05d}.jpg" for i in range(images)]
    for i, name in enumerate(names):
        _photo(root / name, i, COLOURS[i % 4])
    for part, start, stop in (("train", 0, 60), ("val", 60, 80), ("test", 80, images)):
        rows = range(start, stop)
        write_list(root / f"split/{part}.txt", (names[i] for i in rows), "picture_filename", count=False)
        values = (" ".join(str(i % size) for size in sizes) for i in rows)
        header = " ".join(f"category{g + 1}" for g in range(6))
        write_list(root / f"split/{part}_attr.txt", values, header, count=False)
    return root


def write_inshop(root: Path, items: int = 80, seed: int = 0) -> Path:
    """In-shop: four photos of each item; half of the items train, one photo of each other item asks.

    Pictures are unpacked beside the archive, in ``Img/``. Items are numbered from 1, padded to eight digits.
    """
    rng = np.random.default_rng(seed)
    places = (("MEN", "Denim"), ("WOMEN", "Dresses"), ("WOMEN", "Blouses_Shirts"))
    photos, listed, colours, entries = [], [], [], []
    for n in range(items):
        item, (gender, category) = f"id_{n + 1:08d}", places[n % 3]
        for pose, shot in enumerate(("1_front", "2_side", "3_back", "4_full")):
            name = f"img/{gender}/{category}/{item}/{n % 5 + 1:02d}_{shot}.jpg"
            _photo(root / "Img" / name, 4 * n + pose, COLOURS[n % 4])
            status = "train" if n % 2 else ("query" if pose == 1 else "gallery")
            photos.append(f"{name:<71} {item} {status:<11}")
            listed.append(f"{name}  {n % 3 + 1}  {pose + 1}  003  010  {21 + n % 3:03d}  030")
            colours.append(f"{name}    {COLOURS[n % 4]} {'' if n % 2 else '& White'}")
        entries.append({"item": item, "color": COLOURS[n % 4], "description": ["A garment.", "100% cotton"]})
    write_list(root / "Eval/list_eval_partition.txt", photos, "image_name item_id evaluation_status")
    anno = root / "Anno"
    write_list(anno / "list_bbox_inshop.txt", listed, "image_name  clothes_type  pose_type  x_1  y_1  x_2  y_2")
    write_list(anno / "list_item_inshop.txt", (f"id_{n + 1:08d}" for n in range(items)), None)
    write_list(anno / "attributes/list_color_cloth.txt", colours, "image_name    clothes_color")
    write_list(anno / "attributes/list_attr_cloth.txt", SHOP_ATTRIBUTES, "attribute_name")
    signs = rng.choice([1, -1, 0], size=(items, len(SHOP_ATTRIBUTES)))
    rows = (f"id_{n + 1:08d} {_signs(sign)}" for n, sign in enumerate(signs.tolist()))
    write_list(anno / "attributes/list_attr_items.txt", rows, "item_id attribute_labels")
    (anno / "list_description_inshop.json").write_text(json.dumps(entries))
    return root


C2S_TYPES = (("领型", "neckline"), ("颜色", "main color"))
C2S_ATTRIBUTES = (
    *(("圆领", "round neck", 1), ("V领 (深)", "deep v neck", 1), ("翻领", "lapel", 1)),
    *(("红色", "red", 2), ("蓝色", "blue", 2), ("绿色", "green", 2), ("黑色", "black", 2)),
)


def write_c2s(root: Path, items: int = 160, seed: int = 0) -> Path:
    """Consumer-to-shop: two photos of consumers and one or two of shops for each item, in all pairs.

    The real files spell consumer ``comsumer``; attributes have a Chinese name, too; every ninth item has two necklines.
    """
    rng = np.random.default_rng(seed)
    places = (("TOPS", "T_Shirt"), ("DRESSES", "Lace_Dress"), ("CLOTHING", "Blazer"))
    pairs, listed, signs = [], {}, []
    for n in range(items):
        item, place = f"id_{n + 1:08d}", "/".join(places[n % 3])
        consumers = [f"img/{place}/{item}/comsumer_{k + 1:02d}.jpg" for k in range(2)]
        shops = [f"img/{place}/{item}/shop_{k + 1:02d}.jpg" for k in range(1 + n % 2)]
        status = ("train", "train", "val", "test", "test")[n % 5]
        pairs += [f"{c:<60} {s:<60} {item}    {status}" for c in consumers for s in shops]
        for k, name in enumerate([*consumers, *shops]):
            _photo(root / name, 8 * n + k, COLOURS[n % 4])
            listed[name] = f"{name}    {n % 3 + 1}    {2 if k < 2 else 1}    003 010 021 030"
        sign = rng.choice([-1, 0], size=len(C2S_ATTRIBUTES))
        sign[n % 3] = sign[3 + n % 4] = 1
        if n % 9 == 0:
            sign[(n + 1) % 3] = 1
        signs.append(f"{item} {_signs(sign.tolist())}")
    write_list(
        root / "Eval/list_eval_partition.txt", pairs, "image_pair_name_1 image_pair_name_2 item_id evaluation_status"
    )
    anno = root / "Anno"
    header = "image_name    clothes_type    source_type    x_1 y_1 x_2 y_2"
    write_list(anno / "list_bbox_consumer2shop.txt", listed.values(), header)
    write_list(anno / "list_item_consumer2shop.txt", (f"id_{n + 1:08d}" for n in range(items)), None)
    rows = (f"{chinese} {english}     {kind}" for chinese, english, kind in C2S_ATTRIBUTES)
    write_list(anno / "list_attr_cloth.txt", rows, "attribute_name(Chinese) attribute_name(English) attribute_type")
    rows = (f"{chinese} {english}" for chinese, english in C2S_TYPES)
    write_list(anno / "list_attr_type.txt", rows, "attribute_type(Chinese) attribute_type(English)")
    write_list(anno / "list_attr_items.txt", signs, "item_id attribute_labels")
    return root
