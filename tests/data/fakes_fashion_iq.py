# SPDX-License-Identifier: MIT
"""A tiny Fashion IQ: annotations as they are cloned, predicted attributes, images by ASIN.

Traps: the first list of tags is noise that the authors skip; lists are empty or hold several tags; a picture is in two
categories; some pictures of a split have no attributes; one image is a PNG; test captions have no target.
"""

import json
from pathlib import Path

import numpy as np
from fakes import COLOURS, jpeg, picture, png

CATEGORIES = ("dress", "shirt", "toptee")
PATTERNS = ("floral", "striped", "v neck")  # a tag may hold a space
LENGTHS = ("maxi", "mini")
REPEATED = "B000000001"
"""An ASIN of the category dress that is in shirt's training list as well."""


def write(root: Path, train: int = 40, val: int = 20, test: int = 20, *, test_tags: bool = True, seed: int = 0) -> Path:
    """Writes ``image_splits/``, ``captions/``, ``images/`` and the attribute files below ``root``; returns ``root``.

    Each category has so many pictures in each split; without ``test_tags`` the test split has no attributes.
    """
    rng = np.random.default_rng(seed)
    for folder in ("image_splits", "captions", "images"):
        (root / folder).mkdir(parents=True)
    number = 0
    for category in CATEGORIES:
        for split, count in (("train", train), ("val", val), ("test", test)):
            asins, tags = [], {}
            for _ in range(count):
                asin = f"B{number:09d}"
                colour = int(rng.integers(len(COLOURS)))
                image = picture(list(COLOURS.values())[colour], number)
                suffix, data = (".png", png(image)) if number == 7 else (".jpg", jpeg(image))
                (root / "images" / f"{asin}{suffix}").write_bytes(data)
                asins.append(asin)
                if number % 20 != 3:
                    tags[asin] = _tags(rng, list(COLOURS)[colour].lower(), number)
                number += 1
            if (category, split) == ("shirt", "train"):
                asins.append(REPEATED)
            _write(root / "image_splits" / f"split.{category}.{split}.json", asins)
            _write(root / "captions" / f"cap.{category}.{split}.json", _captions(asins, with_target=split != "test"))
            if split != "test" or test_tags:
                _write(root / f"asin2attr.{category}.{split}.json", tags)
    return root


def _tags(rng: np.random.Generator, colour: str, number: int) -> list[list[str]]:
    pattern, length = PATTERNS[rng.integers(3)], LENGTHS[rng.integers(2)]
    patterns = [pattern, "dotted"] if number % 10 == 4 else [] if number % 10 == 6 else [pattern]
    return [[f"noise {number % 2}"], patterns, [colour], [length]]


def _captions(asins: list[str], *, with_target: bool) -> list[dict[str, object]]:
    pairs = zip(asins[::2], asins[1::2], strict=False)
    captions = [{"candidate": a, "target": b, "captions": ["is longer", "has stripes"]} for a, b in pairs]
    return captions if with_target else [{k: v for k, v in c.items() if k != "target"} for c in captions]


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")
