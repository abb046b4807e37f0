# SPDX-License-Identifier: MIT
"""What makes an item that item and a picture that picture, apart from the labels.

Every number has a fixed place in its stream, whatever the labels are: this is what keeps pose, light, background and
the item's own cut identical when an attribute is changed. Append new names at the end.
"""

ITEM: dict[str, tuple[float, float]] = {
    "width": (0.95, 1.06),  # cut: share of the fit's usual width
    "hem": (-0.014, 0.014),  # cut: length beside the usual one, share of the picture
    "sleeve": (-0.012, 0.012),  # cut: sleeve length beside the usual one
    "sleeve width": (0.92, 1.12),
    "neck": (0.92, 1.1),  # cut: neckline's size
    "red": (-9.0, 9.0),  # dye: beside the class's central colour
    "green": (-9.0, 9.0),
    "blue": (-9.0, 9.0),
    "depth": (0.92, 1.07),  # dye: darker or lighter
    "accent": (0.0, 1.0),  # which second colour a pattern has
    "accent 2": (0.0, 1.0),
    "pattern scale": (0.85, 1.2),
    "pattern x": (0.0, 1.0),
    "pattern y": (0.0, 1.0),
    "pattern angle": (-0.06, 0.06),
    "pattern kind": (0.0, 1.0),  # which motif a graphic print shows
    "fabric scale": (0.92, 1.12),
    "fabric x": (0.0, 1.0),
    "fabric y": (0.0, 1.0),
    "contrast sleeves": (0.0, 1.0),
    "contrast collar": (0.0, 1.0),
    "sleeve colour": (0.0, 1.0),
    "collar colour": (0.0, 1.0),
    "metal": (0.0, 1.0),  # buttons and zips
    "trim": (0.0, 1.0),  # bands, belt, lining
    "detail": (0.9, 1.12),  # size of collars, pockets and buttons
    "side": (0.0, 1.0),  # which side carries single pockets, flies and bows
    "buttons": (0.0, 1.0),
}
"""Continuous style of an item, name to range."""

VIEW: dict[str, tuple[float, float]] = {
    "x": (-0.025, 0.025),
    "y": (-0.015, 0.02),
    "scale": (0.95, 1.05),
    "turn": (0.93, 1.0),  # the body turned aside looks narrower
    "rotation": (-0.05, 0.05),  # radians
    "left arm": (0.26, 0.62),  # radians from the vertical
    "right arm": (0.26, 0.62),
    "left bend": (-0.05, 0.03),
    "right bend": (-0.05, 0.03),
    "light": (0.9, 1.08),
    "warmth": (-0.03, 0.03),
    "light x": (-0.14, 0.14),  # brightness difference across the picture
    "light y": (-0.1, 0.1),
    "folds": (0.5, 1.2),
    "fold x": (0.0, 1.0),
    "fold y": (0.0, 1.0),
    "noise x": (0.0, 1.0),
    "noise y": (0.0, 1.0),
    "noise": (0.5, 1.5),
    "background": (0.0, 1.0),
    "background 2": (0.0, 1.0),
    "shadow": (0.0, 1.0),
    "skin": (0.0, 1.0),
    "hair": (0.0, 1.0),
    "trousers": (0.0, 1.0),
    "occluder": (0.0, 1.0),
    "occluder x": (0.0, 1.0),
    "occluder y": (0.0, 1.0),
    "occluder colour": (0.0, 1.0),
    "clutter": (0.0, 1.0),  # seed of everything that stands around in a street picture
}
"""What differs between two pictures of one item."""

STREET: dict[str, tuple[float, float]] = {
    "x": (-0.07, 0.07),
    "y": (-0.02, 0.05),
    "scale": (0.8, 0.98),
    "turn": (0.82, 1.0),
    "rotation": (-0.13, 0.13),
    "left arm": (0.15, 0.85),
    "right arm": (0.15, 0.85),
    "left bend": (-0.1, 0.06),
    "right bend": (-0.1, 0.06),
    "light": (0.78, 1.1),
    "warmth": (-0.07, 0.07),
    "light x": (-0.3, 0.3),
    "light y": (-0.2, 0.2),
    "folds": (0.8, 1.6),
    "noise": (1.0, 3.0),
}
"""Wider ranges of the same numbers in street pictures."""
