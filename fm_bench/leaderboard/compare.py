# SPDX-License-Identifier: MIT
"""Paired comparison of runs, request by request.

The bench writes ``requests.npz`` beside each ``record.json``: arrays ``<protocol>/<metric>`` with one number per
request. Two runs that were asked the same requests can then be told apart far more finely than by their intervals.
"""

import dataclasses
import math
import statistics
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fm_bench.errors import UserError, unknown
from fm_bench.evaluation.sweep import swept
from fm_bench.leaderboard.folds import Paired, fold_of, paired_t
from fm_bench.leaderboard.record import FILE, Record, find, load, requests_file
from fm_bench.leaderboard.resampling import Comparison, Noise, Scores, contrast, paired, sample
from fm_bench.leaderboard.rows import key_of
from fm_bench.leaderboard.shown import is_lower

METRICS = (
    *(
        "accuracy@1",
        "accuracy@10",
        "accuracy@20",
        "accuracy@30",
        "ndcg@20",
        "mrr@1000",
        "success@5",
        "increment_ratio@20",
    ),
    *("ap@0.7 shop", "ap@0.7 street", "accuracy@20 detected boxes"),
    *("manipulated", "kept", "exact", "changed", "ssim", "l1", "t_sum_ms", "t_sea_ms", "t_repr_ms"),
)
CHANGES = "changes"
"""Beside its results, a run keeps ``changes ATTRIBUTE (R,)``: 1 for the requests that change it, else 0."""
_UNREADABLE = (OSError, EOFError, ValueError, TypeError, RuntimeError, zipfile.BadZipFile, zlib.error)  # of np.load


@dataclasses.dataclass(frozen=True)
class Run:
    """A record and the file of its per-request results."""

    record: Record
    path: Path

    def per_request(self, protocol: str, metric: str) -> NDArray[np.float64]:
        """The metric of every request, shape (R,); NaN where the metric is not defined for a request.

        Raises:
            UserError: if the file is missing or damaged, has no such array, or is not this record's: another number
                of requests, infinite numbers, or another mean than the record states.
        """
        name = f"{protocol}/{metric}"
        try:
            with np.load(self.path, allow_pickle=False) as arrays:
                if name not in arrays.files:
                    raise unknown(f"the per-request result in {self.path} named", name, arrays.files)
                values = np.asarray(arrays[name], dtype=np.float64)
        except FileNotFoundError:
            raise UserError(f"{self.path} is missing: run the benchmark again to compare this run.") from None
        except _UNREADABLE as error:
            raise UserError(f"{self.path} could not be read ({error}): run the benchmark again.") from error
        self._check(name, protocol, metric, values)
        return values

    def changes(self, protocol: str) -> dict[str, NDArray[np.bool_]]:
        """Attribute -> which requests change it, ``(R,)``. Raises UserError if the run does not tell."""
        prefix = f"{protocol}/{CHANGES} "
        try:
            with np.load(self.path, allow_pickle=False) as arrays:
                found = {
                    name.removeprefix(prefix): arrays[name] > 0 for name in arrays.files if name.startswith(prefix)
                }
        except _UNREADABLE as error:
            raise UserError(f"{self.path} could not be read ({error}): run the benchmark again.") from error
        if not found:
            raise UserError(f"{self.path} does not say what requests change: run the benchmark again.")
        return found

    def _check(self, name: str, protocol: str, metric: str, values: NDArray[np.float64]) -> None:
        requests = self.record.requests[protocol]
        if values.shape != (requests,):
            wrong = f"has shape {values.shape} and the record speaks of {requests} requests"
        elif np.isinf(values).any() or np.isnan(values).all():
            wrong = "has infinite numbers or none at all"
        else:
            stated = self.record.metrics[protocol].get(metric, {}).get("value", math.nan)
            if abs(np.nanmean(values) - stated) <= 1e-4:
                return
            wrong = f"has mean {np.nanmean(values):.4f} and the record states {stated:.4f}"
        raise UserError(f"{name} in {self.path} {wrong}: the two files are not of the same run, so run it again.")


def load_run(folder: Path) -> Run:
    """The run in ``folder`` (or whose ``record.json`` is given). Raises UserError if there is no record in it."""
    path = Path(folder)
    path = path / FILE if path.is_dir() else path
    return Run(load(path), requests_file(path))


def load_runs(folder: Path) -> tuple[list[Run], list[str]]:
    """Every run below ``folder`` whose per-request results are there, and one sentence for each that is damaged.

    Folds of cross-validations are left out: each was asked other requests, and ``fold_test`` compares them.

    Raises:
        UserError: if ``folder`` is not a folder.
    """
    runs: dict[str, Run] = {}
    problems = []
    for path in find(folder):
        if not requests_file(path).exists():
            continue
        try:
            run = load_run(path)
        except UserError as error:
            problems.append(str(error))
            continue
        if fold_of(run.record) is not None:
            continue
        known = runs.get(run.record.fingerprint)
        if known is None or known.record.finished < run.record.finished:
            runs[run.record.fingerprint] = run
    return list(runs.values()), problems


def scores(runs: Sequence[Run], protocol: str, metric: str) -> Scores:
    """The metric of every request, seed by seed.

    Seeds answer the same requests, so they are not put end to end: as separate requests they would make every interval
    too narrow. An increment ratio is no mean over requests but one of two means: its two columns, accuracy in the
    smallest and in the largest gallery, come as ``(R, 2)``.

    Raises:
        UserError: as ``Run.per_request`` does, if the runs are several folds of a cross-validation, or if the increment
            ratio is undefined.
    """
    if len({fold_of(run.record) for run in runs}) > 1:
        raise UserError(
            f"the folds of {runs[0].record.label} were asked different requests: give runs of one fold only."
        )
    parts = _parts(metric, runs[0].record.metrics[protocol])
    seeds = [[run.per_request(protocol, part) for part in parts] for run in runs]
    if len(parts) == 1:
        return Scores(runs[0].record.fingerprint, tuple(of for (of,) in seeds))
    found = Scores(runs[0].record.fingerprint, tuple(np.stack(of, axis=1) for of in seeds))
    if not np.nanmean(found.mean[:, 1]) > 0:
        raise UserError(
            f"{metric} of {runs[0].record.label} on {protocol} is undefined, because nothing was found in the whole "
            "gallery: train longer or ask a larger k."
        )
    return found


def _parts(metric: str, known: Iterable[str]) -> list[str]:
    """The per-request results that ``metric`` is made of."""
    family, _, k = metric.partition("@")
    if family != "increment_ratio":
        return [metric]
    sizes = swept(known, f"accuracy@{k}")
    return [sizes[0][1], sizes[-1][1]] if sizes else [metric]


def differences(x: Sequence[Run], y: Sequence[Run], protocol: str, metrics: Sequence[str]) -> dict[str, Comparison]:
    """Mean of ``x`` minus mean of ``y`` on the same requests, paired by request, with the noise of both sides' seeds.

    Args:
        x: runs of one method, one per seed.
        y: runs of the other method.
        protocol: where they are compared, e.g. ``"manipulate-1"``.
        metrics: what is compared, e.g. ``"accuracy@20"``; what one of the records does not have is left out.

    Raises:
        UserError: if the runs were not asked the same requests, or not of the same data, gallery, profile and mode.
    """
    _same([run.record for run in x], [run.record for run in y], protocol)
    known = [metric for metric in metrics if all(metric in run.record.metrics[protocol] for run in (*x, *y))]
    columns = {m: (scores(x, protocol, m), scores(y, protocol, m)) for m in known}
    return _contrasts(columns, x[0].record.request_digests[protocol], [m for m in known if is_lower(m)])


def attribute_differences(x: Sequence[Run], y: Sequence[Run], protocol: str, metric: str) -> dict[str, Comparison]:
    """As ``differences`` of one metric, for the requests that change each attribute; empty where none is changed.

    Raises:
        UserError: as ``differences`` does.
    """
    _same([run.record for run in x], [run.record for run in y], protocol)
    sides = scores(x, protocol, metric), scores(y, protocol, metric)
    shape = sides[0].seeds[0].shape
    if len(shape) > 1 or not x[0].record.by_attribute.get(protocol):
        return {}
    masks = {name: mask for name, mask in x[0].changes(protocol).items() if mask.shape == shape and mask.any()}
    columns = {name: (sides[0].of(mask), sides[1].of(mask)) for name, mask in masks.items()}
    return _contrasts(columns, x[0].record.request_digests[protocol], list(columns) if is_lower(metric) else [])


def _contrasts(
    columns: Mapping[str, tuple[Scores, Scores]], request_digest: str, lower: Sequence[str]
) -> dict[str, Comparison]:
    """First minus second of each pair of columns, resampled together; those in ``lower`` win by being lower."""
    samples = sample({(side, name): columns[name][side] for name in columns for side in (0, 1)}, request_digest)
    found = {}
    for name, sides in columns.items():
        both = samples[0, name], samples[1, name]
        noise = Noise.pooled([both[0].runs - both[1].runs] if paired(*both) else [side.runs for side in both])
        found[name] = contrast(*both, noise)
        a, b = (side.mean for side in sides)
        if a.ndim == 1:  # no request wins or loses a ratio of means
            more, less, same = (int(which.sum()) for which in (a > b, a < b, a == b))
            wins, losses = (less, more) if name in lower else (more, less)
            found[name] = found[name]._replace(wins=wins, ties=same, losses=losses)
    return found


def fold_test(x: Sequence[Record], y: Sequence[Record], protocol: str, metric: str) -> Paired:
    """Mean of ``x`` minus mean of ``y`` over the folds of a cross-validation, with a paired t-test on the folds.

    Args:
        x: runs of one method, at least one per fold; several seeds of a fold count as their mean.
        y: runs of the other method on the same folds.
        protocol: where they are compared, e.g. ``"manipulate-1"``.
        metric: what is compared, e.g. ``"accuracy@20"``.

    Raises:
        UserError: if there are fewer than two folds, the methods ran on different ones or on other work, or a fold has
            no such metric.
    """
    sides = [_by_fold(x), _by_fold(y)]
    names = [records[0].label for records in (x, y)]
    if sides[0].keys() != sides[1].keys() or len(sides[0]) < 2:
        shown = [", ".join(map(str, sorted(side))) or "none" for side in sides]
        raise UserError(
            f"{names[0]} ran on the folds {shown[0]} and {names[1]} on {shown[1]}: run all five folds of both."
        )
    values: list[list[float]] = [[], []]
    for fold in sorted(sides[0]):
        _same(sides[0][fold], sides[1][fold], protocol)
        for side, of_side in zip(sides, values, strict=True):
            found = [record.metrics[protocol].get(metric) for record in side[fold]]
            known = [estimate["value"] for estimate in found if estimate is not None]
            if len(known) < len(found):
                raise UserError(f"fold {fold} of {side[fold][0].label} has no {metric} on {protocol}: choose another.")
            of_side.append(statistics.fmean(known))
    return paired_t(*values)


def _by_fold(records: Sequence[Record]) -> dict[int, list[Record]]:
    by_fold: dict[int, list[Record]] = {}
    for record in records:
        if (fold := fold_of(record)) is not None:
            by_fold.setdefault(fold, []).append(record)
    return by_fold


def _same(x: Sequence[Record], y: Sequence[Record], protocol: str) -> None:
    reference = x[0]
    for record in (*x, *y):
        if protocol not in record.protocols:
            raise unknown(f"the protocol of {record.label} named", protocol, record.protocols)
        ours, theirs = key_of(reference, protocol)._asdict(), key_of(record, protocol)._asdict()
        if differing := [key.replace("_", " ") for key in ours if ours[key] != theirs[key]]:
            raise UserError(
                f"{reference.label} (seed {reference.seed}) and {record.label} (seed {record.seed}) cannot be "
                f"compared on {protocol} because they differ in {', '.join(differing)}: run both on the same work."
            )
