# SPDX-License-Identifier: MIT
"""Linear scores of proposals from their features: classification or regression on overlap, with hard-example mining.

scikit-learn is imported where something is learnt: that takes half a second, which every other method would wait for.
"""

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fm_bench.detection.boxes import Boxes, offsets
from fm_bench.errors import UserError

if TYPE_CHECKING:
    from sklearn.preprocessing import StandardScaler

F32 = NDArray[np.float32]
Floats = NDArray[np.floating[Any]]  # features may be kept as float16

BACKGROUND = 0.3
"""Proposals that overlap the garment by less are the classifier's negatives (Girshick et al. 2014, Sec. 2.3)."""

WRONG = 0.5
"""Proposals that overlap it by less are what the regression's mining looks among."""

NEAR = 0.5
"""Boxes that overlap it by at least this learn to move onto it (0.6 in R-CNN, whose proposals are more)."""

_ROWS = 1 << 14  # rows that are scored at once
_TOLERANCE = 1e-3  # of the solvers
_FREE = 30.0  # liblinear shrinks the intercept like a weight, of a feature with this value: large ones leave it free


class Linear(NamedTuple):
    """``x -> weight x + bias`` with ``k`` outputs."""

    weight: F32  # (k, D)
    bias: F32  # (k,)

    def __call__(self, features: Floats) -> F32:
        """``(n, k)`` from ``features (n, D)``."""
        parts = [np.empty((0, len(self.bias)), np.float32)]
        for begin in range(0, len(features), _ROWS):
            parts.append(features[begin : begin + _ROWS].astype(np.float32) @ self.weight.T + self.bias)
        return np.concatenate(parts)


class Mined(NamedTuple):
    """A scorer, and how it came about."""

    scorer: Linear
    used: NDArray[np.bool_]  # (n,) which regions it has learnt from in the end
    added: list[int]  # hard examples that each round added


def discretise(overlap: F32, steps: int) -> F32:
    """Overlaps in [0, 1] as the nearest of ``steps + 1`` evenly spaced levels; halves go up."""
    return np.asarray(np.floor(overlap * steps + 0.5) / steps, np.float32)


def learn_scorer(
    kind: Literal["svm", "svr"],
    features: Floats,
    overlap: F32,
    *,
    steps: int = 10,
    penalty: float = 1e-4,
    rounds: int = 3,
    first: int = 4000,
    hard: int = 2000,
    seed: int = 0,
) -> Mined:
    """Learns to score regions.

    ``svm`` separates true boxes from background, R-CNN's rule; regions in between teach nothing. ``svr`` predicts the
    discretised overlap. Both start with what overlaps the garment and a draw of the rest; then each round adds those
    wrong regions that the last one scored too high.

    Args:
        kind: which of the two.
        features: ``(n, D)``.
        overlap: ``(n,)`` with the true box of the region's picture; exactly 1 for true boxes.
        steps: levels of the regression's targets.
        penalty: ``C`` of the support vector machine, of standardised features.
        rounds: of mining, at most; it ends early when nothing is hard.
        first: wrong regions drawn for the beginning.
        hard: added per round, at most: the worst.
        seed: of the draw.

    Raises:
        UserError: if there is nothing to tell apart.
    """
    from sklearn.preprocessing import StandardScaler

    if kind == "svm":
        right, wrong = overlap >= 1, overlap < BACKGROUND
        target = np.where(right, 1, -1).astype(np.float32)
        margin = -1.0  # R-CNN: everything beyond its margin is easy
    else:
        right, wrong = overlap >= WRONG, overlap < WRONG
        target = discretise(overlap, steps)
        margin = 1 / steps
    if not right.any() or not wrong.any():
        raise UserError(
            f"of {len(overlap)} regions {int(right.sum())} show the garment and {int(wrong.sum())} do not: "
            "give the detector more pictures with boxes, as it needs both."
        )
    draw = np.random.default_rng(seed).permutation(np.flatnonzero(wrong))[:first]
    used = right.copy()
    used[draw] = True
    scaler = StandardScaler().fit(features[used].astype(np.float32))
    added: list[int] = []
    scorer = _fit(kind, features[used], target[used], scaler, penalty, steps)
    for _ in range(rounds):
        excess = scorer(features)[:, 0] - (0 if kind == "svm" else target)
        candidates = np.flatnonzero(wrong & ~used & (excess > margin))
        if not len(candidates):
            break
        worst = candidates[np.argsort(-excess[candidates], kind="stable")[:hard]]
        used[worst] = True
        added.append(len(worst))
        scorer = _fit(kind, features[used], target[used], scaler, penalty, steps)
    return Mined(scorer, used, added)


def learn_offsets(features: Floats, boxes: Boxes, truth: Boxes, overlap: F32, penalty: float = 10_000.0) -> Linear:
    """Ridge regression of ``offsets`` from the features of boxes near the garment (Girshick et al. 2014, App. C).

    Args:
        features: ``(n, D)``.
        boxes: ``(n, 4)`` regions.
        truth: ``(n, 4)`` the true box of each one's picture.
        overlap: ``(n,)`` of the two.
        penalty: of the squared weights, on standardised features; R-CNN has 1,000 and other features.
    """
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import StandardScaler

    near = overlap >= NEAR
    chosen = features[near].astype(np.float32)
    scaler = StandardScaler().fit(chosen)
    ridge = Ridge(alpha=penalty).fit(scaler.transform(chosen), offsets(boxes[near], truth[near]))
    return _unscaled(ridge.coef_, ridge.intercept_, scaler)


def _fit(kind: str, features: Floats, target: F32, scaler: "StandardScaler", penalty: float, steps: int) -> Linear:
    """A linear machine in the primal, whose squared loss has one solution whatever the order of the rows."""
    from sklearn.svm import LinearSVC, LinearSVR

    scaled = scaler.transform(features.astype(np.float32))
    shared = {"C": penalty, "dual": False, "tol": _TOLERANCE, "intercept_scaling": _FREE}
    if kind == "svm":
        machine = LinearSVC(class_weight="balanced", **shared)
    else:
        machine = LinearSVR(loss="squared_epsilon_insensitive", epsilon=1 / (2 * steps), **shared)
    machine.fit(scaled, target)
    return _unscaled(np.atleast_2d(machine.coef_), np.atleast_1d(machine.intercept_), scaler)


def _unscaled(weight: Floats, bias: Floats, scaler: "StandardScaler") -> Linear:
    """The same map on features that were not standardised."""
    plain = weight / scaler.scale_
    return Linear(plain.astype(np.float32), (bias - plain @ scaler.mean_).astype(np.float32))
