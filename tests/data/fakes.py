# SPDX-License-Identifier: MIT
"""Tiny data sets with the layout, and the traps, of the real ones."""

import csv
import io
import json
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d7a2146" * 8 + b"\nsize 12345\n"
HTML_PAGE = b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head><body>Not Found</body></html>\n"

COLOURS = {"Red": (210, 40, 40), "Blue": (40, 60, 200), "Green": (40, 160, 60), "Black": (25, 25, 25)}
STYLES_HEADER = "id,gender,masterCategory,subCategory,articleType,baseColour,season,year,usage,productDisplayName"


def picture(colour: tuple[int, int, int], number: int, size: tuple[int, int] = (80, 60)) -> np.ndarray:
    """A garment-like blot on white, its outline different for every number; RGB."""
    height, width = size
    rng = np.random.default_rng(number)
    image = np.full((height, width, 3), 255, np.uint8)
    corners = rng.uniform(0.05, 0.25, (4, 2)) * [width, height]
    box = np.array([[0, 0], [width, 0], [width, height], [0, height]]) + corners * [[1, 1], [-1, 1], [-1, -1], [1, -1]]
    cv2.fillPoly(image, [box.astype(np.int32)], colour)
    return image


def jpeg(image: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """A file of any kind that Pillow writes."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def fashion_product(root: Path, items: int = 240, seed: int = 0) -> Path:
    """Lays out ``styles.csv``, ``images/`` and ``styles/``: ``items`` topwear rows with all five required attributes.

    Beside those: a title with commas in every tenth row, and the traps of ``_TRAPS``. Neck is absent in every third
    item. Ids start at 1000 and the rows are shuffled.
    """
    rng = np.random.default_rng(seed)
    (root / "images").mkdir(parents=True)
    (root / "styles").mkdir()
    rows = [_item(1000 + i, rng) for i in range(items)]
    for i, changes in enumerate(_TRAPS):
        rows.append(_item(5000 + i, rng) | changes)
    lines = []
    for row in rows:
        number = int(row["id"])
        title = (
            "Shirt, blue, with, commas"
            if number % 10 == 0
            else 'A "quoted" title'
            if number % 10 == 5
            else "Plain title"
        )
        cells = [
            row["id"],
            row["gender"],
            "Apparel",
            row["part"],
            row["articleType"],
            row["baseColour"],
            row["season"],
            "2012",
            "Casual",
        ]
        lines.append(",".join([*cells, title]))
        details = {key: row[key] for key in ("Pattern", "Sleeve Length", "Neck", "Fit") if row.get(key)}
        document = {"notification": {}, "meta": {"code": 200}, "data": {"id": number, "articleAttributes": details}}
        (root / "styles" / f"{number}.json").write_text(json.dumps(document))
        (root / "images" / f"{number}.jpg").write_bytes(
            jpeg(picture(COLOURS.get(row["baseColour"], (90, 90, 90)), number))
        )
    rng.shuffle(lines)
    (root / "styles.csv").write_text("\n".join([STYLES_HEADER, *lines]) + "\n", encoding="utf-8")
    return root


_TRAPS: tuple[dict[str, str], ...] = (
    {"part": "Bottomwear", "articleType": "Jeans"},
    {"gender": "NA"},
    {"Pattern": "NA"},
    {"Sleeve Length": ""},  # written as an absent key
    {"baseColour": "Mauve"},  # a value that only one image has
)
TRAPS_KEPT = 1
"""How many of the traps are part of the default task all the same."""


def _item(number: int, rng: np.random.Generator) -> dict[str, str]:
    def pick(*values: str) -> str:
        return values[rng.integers(len(values))]

    return {
        "id": str(number),
        "gender": pick("Men", "Women", "Boys"),
        "part": "Topwear",
        "articleType": pick("Shirts", "Tshirts", "Tops"),
        "baseColour": pick(*COLOURS),
        "season": pick("Summer", "Fall"),
        "Pattern": pick("Solid", "Striped", "Checked"),
        "Sleeve Length": pick("Short Sleeves", "Long Sleeves"),
        "Neck": "" if number % 3 == 0 else pick("Round Neck", "V-Neck"),
        "Fit": pick("Regular Fit", "Slim Fit"),
    }


def pictures(root: Path, count: int) -> list[str]:
    """Writes ``count`` different pictures below ``root/img`` and returns their paths relative to ``root``."""
    (root / "img").mkdir(parents=True, exist_ok=True)
    names = [f"img/{i:04d}.jpg" for i in range(count)]
    for i, name in enumerate(names):
        (root / name).write_bytes(jpeg(picture(list(COLOURS.values())[i % 4], i)))
    return names


def table(root: Path, rows: Iterable[dict[str, object]], name: str = "catalogue.csv") -> Path:
    """Writes a CSV below ``root`` whose columns are the first row's keys."""
    rows = list(rows)
    with (root / name).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return root / name


def catalogue(root: Path, count: int = 120) -> Path:
    """A CSV of ``path, product, subset, colour, sleeve, price`` over ``count`` pictures, two of each product."""
    colours, sleeves = list(COLOURS), ["short", "long", "none"]
    rows = [
        {
            "path": name,
            "product": f"p{i // 2}",
            "subset": ("train", "train", "val", "test")[i // 2 % 4],
            "colour": colours[i % 4],
            "sleeve": sleeves[i // 4 % 3],
            "price": 100 + i,
        }
        for i, name in enumerate(pictures(root, count))
    ]
    return table(root, rows)
