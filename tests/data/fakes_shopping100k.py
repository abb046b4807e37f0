# SPDX-License-Identifier: MIT
"""A tiny Shopping100k with the split files of ADDE-M, as both are laid out, and a DeepFashion in the same format.

Traps: labels are concatenated one-hot codes, a group of zeros where an attribute is missing; requests add a value that
their picture's attribute lacked; only the first test pictures are references; a target that only the reference's own
twin holds; no file has a header, and the last line of one has no end.
"""

from pathlib import Path

import numpy as np
from fakes import COLOURS, jpeg, picture

SHOPPING100K = (16, 17, 19, 14, 10, 15, 2, 11, 16, 7, 9, 15)
DEEPFASHION = (5, 4, 3)

_VARIED = {0: 2, 2: 4, 6: 2, 10: 3}  # attribute and how many of its values occur; the others are constant
_SPARSE = 6  # missing on every fifth picture


def write(root: Path, train: int = 120, test: int = 60, sizes: tuple[int, ...] = SHOPPING100K, seed: int = 0) -> Path:
    """Writes pictures to ``root/Images`` and split files to ``root/splits/Shopping100k``; returns ``root``."""
    rng = np.random.default_rng(seed)
    labels = np.stack([_labels(rng, sizes, i) for i in range(train + test)])
    names = [f"Female/{'Tops' if i % 2 else 'Dresses'}/{i:05d}.jpg" for i in range(train + test)]
    for i, name in enumerate(names):
        path = root / "Images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        colour = list(COLOURS.values())[int(labels[i, min(2, len(sizes) - 1)]) % len(COLOURS)]
        path.write_bytes(jpeg(picture(colour, i)))
    folder = splits(root)
    folder.mkdir(parents=True)
    (folder / "attr_num.txt").write_text("\n".join(map(str, sizes)) + "\n")
    for which, chosen in (("train", slice(0, train)), ("test", slice(train, None))):
        (folder / f"imgs_{which}.txt").write_text("\n".join(names[chosen]) + ("\n" if which == "train" else ""))
        matrix(folder / f"labels_{which}.txt", one_hot(labels[chosen], sizes))
    _write_requests(folder, labels[train:], sizes)
    _write_triplets(folder, rng, train, sizes)
    return root


def splits(root: Path) -> Path:
    return root / "splits" / "Shopping100k"


def one_hot(labels: np.ndarray, sizes: tuple[int, ...]) -> np.ndarray:
    blocks = [(labels[:, m, None] == np.arange(size)).astype(int) for m, size in enumerate(sizes)]
    return np.concatenate(blocks, axis=1)


def matrix(path: Path, values: np.ndarray) -> None:
    np.savetxt(path, values, fmt="%d")


def _labels(rng: np.random.Generator, sizes: tuple[int, ...], number: int) -> np.ndarray:
    varied = _VARIED if len(sizes) > 6 else {m: min(size, 3) for m, size in enumerate(sizes)}
    labels = np.array([rng.integers(varied[m]) if m in varied else size - 1 for m, size in enumerate(sizes)])
    if len(sizes) > _SPARSE and number % 5 == 0:
        labels[_SPARSE] = -1
    return labels


def _write_requests(folder: Path, test: np.ndarray, sizes: tuple[int, ...]) -> None:
    """Every change of one attribute of the first ten pictures whose target another picture holds."""
    known = {tuple(row) for row in test.tolist()}
    references, indicators, targets = [], [], []
    offsets = np.cumsum([0, *sizes])
    for reference in range(min(10, len(test))):
        before = test[reference]
        for m, size in enumerate(sizes):
            for value in range(size):
                target = before.copy()
                target[m] = value
                if value != before[m] and tuple(target.tolist()) in known:
                    indicator = np.zeros(offsets[-1], dtype=int)
                    indicator[offsets[m] + value] = 1
                    if before[m] >= 0:
                        indicator[offsets[m] + before[m]] = -1
                    references.append(reference)
                    indicators.append(indicator)
                    targets.append(target)
    matrix(folder / "ref_test.txt", np.array(references))
    matrix(folder / "indfull_test.txt", np.array(indicators))
    matrix(folder / "gt_test.txt", one_hot(np.array(targets), sizes))


def _write_triplets(folder: Path, rng: np.random.Generator, train: int, sizes: tuple[int, ...]) -> None:
    """Training triplets, which nothing reads: methods draw their own."""
    matrix(folder / "triplet_train.txt", rng.integers(train, size=(20, 3)))
    matrix(folder / "triplet_train_ind.txt", rng.integers(-1, 2, size=(20, sum(sizes))))
