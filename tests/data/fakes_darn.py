# SPDX-License-Identifier: MIT
"""A tiny DARN as ASEN++ repacks it.

Traps: a training line has one to nine pairs of attribute and value; the first number of a line counts the pictures of
that split's own list; a test picture is asked about for one attribute and searched for another; some are only asked
about; some pictures of a list have no label; the list of addresses lies beside it all.
"""

from pathlib import Path

import numpy as np
from fakes import COLOURS, jpeg, picture

SIZES = (20, 13, 55, 7, 28, 11, 26, 8, 17)
_USED = (3, 1, 4, 1, 3, 1, 1, 2, 1)  # values of each attribute that occur


def write(root: Path, train: int = 120, valid: int = 40, test: int = 80, seed: int = 0) -> Path:
    """Writes pictures to ``root/pic`` and lists to ``root``; returns ``root``."""
    rng = np.random.default_rng(seed)
    (root / "pic").mkdir(parents=True)
    number = 0
    for name, count in (("train", train), ("valid", valid), ("test", test)):
        labels = rng.integers(_USED, size=(count, len(SIZES)))
        names = []
        for row in labels:
            names.append(f"pic/{number:06d}_{number % 3}.jpg")
            (root / names[-1]).write_bytes(jpeg(picture(list(COLOURS.values())[row[2]], number)))
            number += 1
        (root / f"filenames_{name}.txt").write_text("\n".join(names) + "\n")
        if name == "train":
            _write_training_labels(root / "label_train.txt", labels, rng)
        else:
            _write_questions(root, name, labels)
    (root / "darn_url.txt").write_text("a.jpg http://example.invalid/a.jpg\nb.jpg http://example.invalid/b.jpg\n")
    return root


def _write_training_labels(path: Path, labels: np.ndarray, rng: np.random.Generator) -> None:
    lines = []
    for row, values in enumerate(labels.tolist()):
        missing = set(rng.choice(len(SIZES), size=rng.integers(3), replace=False).tolist())
        pairs = [f"{m} {value}" for m, value in enumerate(values) if m not in missing]
        lines.append(" ".join([str(row), *pairs]))
    path.write_text("\n".join(lines) + "\n")


def _write_questions(root: Path, name: str, labels: np.ndarray) -> None:
    """One line for each picture and attribute; every fifth picture is asked about, by some attributes of every one."""
    asked, searched = [], []
    for row, values in enumerate(labels.tolist()):
        if row == len(labels) - 1:
            continue  # without any label
        for m, value in enumerate(values):
            only_asked = row % 5 == 0
            (asked if only_asked or (row + m) % 11 == 0 else searched).append(f"{row} {m} {value}")
    (root / f"query_{name}.txt").write_text("\n".join(asked) + "\n")
    (root / f"candidate_{name}.txt").write_text("\n".join(searched) + "\n")
