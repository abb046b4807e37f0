# SPDX-License-Identifier: MIT
"""Which rows of a table can be told apart, and the ranks that follow: rows that cannot be told apart share them.

Every pair of methods is tested on the metric that ranks the table, as ``resampling`` says: requests are resampled, and
the noise of training is that of all methods of the table which have several seeds. The p-value is two-sided and that of
Student's t: a share of resamples could not be small enough to survive Holm's correction for all pairs of a table. Folds
of a cross-validation are compared by a paired t-test over folds.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from fm_bench.errors import UserError
from fm_bench.files import digest
from fm_bench.leaderboard.compare import Run, fold_test, scores
from fm_bench.leaderboard.folds import holm
from fm_bench.leaderboard.resampling import Noise, Scores, contrast, sample
from fm_bench.leaderboard.rows import Row, Table, hardware
from fm_bench.leaderboard.shown import TIMES, is_lower

LEVEL = 0.05
"""Chance of any wrong difference among all pairs of a table."""


class Rank(NamedTuple):
    """Where a row stands.

    Attributes:
        first: 1 and the number of rows that are better beyond doubt: the rank, which several rows may share.
        last: the number of rows that are not worse beyond doubt, itself included.
        groups: letters; rows with a letter in common cannot be told apart.
    """

    first: int
    last: int
    groups: str


class Pair(NamedTuple):
    """A tested pair of rows: the lead of the first (positive where it is better), and its two-sided p-value."""

    lead: float
    p: float


def ranks(table: Table, runs: Mapping[str, Run]) -> list[Rank | None]:
    """The rank of every row of ``table``.

    Floors, ceilings and rows without results for every request have none. Nor has any row where fewer than two can be
    compared, or where times were taken on several machines.

    Args:
        table: the table.
        runs: fingerprint -> the run with its results for every request.
    """
    key = digest([table.key, table.headline, [_stamp(row, runs) for row in table.rows]])
    if key not in _KNOWN:
        _KNOWN[key] = _ranks(table, runs)
    return list(_KNOWN[key])


_KNOWN: dict[str, list[Rank | None]] = {}
"""What was found already: a page is built again after every run, and most of its tables are as they were."""


def _stamp(row: Row, runs: Mapping[str, Run]) -> list[list[str | int]]:
    """What the rank of a row follows from: its records, and the files of their results as they are now."""
    stamps: list[list[str | int]] = []
    for record in row.records:
        stamp: list[str | int] = [record.fingerprint, row.label, hardware(record)]
        if record.fingerprint in runs:
            path = runs[record.fingerprint].path
            with suppress(OSError):
                stamp += [str(path), path.stat().st_mtime_ns, path.stat().st_size]
        stamps.append(stamp)
    return stamps


def _ranks(table: Table, runs: Mapping[str, Run]) -> list[Rank | None]:
    competing = [number for number, row in enumerate(table.rows) if row.role == "method"]
    if table.headline in TIMES and len({hardware(run) for i in competing for run in table.rows[i].records}) > 1:
        competing = []
    found = (
        _by_folds(table, competing) if any(row.folds for row in table.rows) else _by_requests(table, competing, runs)
    )
    tested = sorted({row for pair in found for row in pair})
    apart = _apart(found)
    letters = _letters(tested, apart)
    result: list[Rank | None] = [None] * len(table.rows)
    for row in tested:
        better, worse = (sum(side == row for side in sides) for sides in zip(*apart, strict=True)) if apart else (0, 0)
        result[row] = Rank(1 + worse, len(tested) - better, letters[row])
    return result


def _by_requests(table: Table, rows: Sequence[int], runs: Mapping[str, Run]) -> dict[tuple[int, int], Pair]:
    """Every pair of ``rows`` with results for every request; what training adds is pooled over all of these rows."""
    columns = {number: found for number in rows if (found := _scores(table, table.rows[number], runs))}
    if len(columns) < 2:
        return {}
    samples = sample(columns, table.key.request_digest)
    noise = Noise.pooled(one.runs for one in samples.values())
    sign = -1 if is_lower(table.headline) else 1
    contrasts = {(a, b): contrast(samples[a], samples[b], noise) for a, b in _pairs(list(columns))}
    return {pair: Pair(sign * between.value, between.p) for pair, between in contrasts.items()}


def _scores(table: Table, row: Row, runs: Mapping[str, Run]) -> Scores | None:
    """The headline of every request, seed by seed; None if the results of one seed are not there."""
    try:
        return scores([runs[run.fingerprint] for run in row.records], table.key.protocol, table.headline)
    except (KeyError, UserError):
        return None


def _by_folds(table: Table, rows: Sequence[int]) -> dict[tuple[int, int], Pair]:
    """Every pair of ``rows`` that ran on the same folds, by the paired t-test over folds."""
    sign = -1 if is_lower(table.headline) else 1
    found = {}
    for a, b in _pairs(rows):
        try:
            test = fold_test(table.rows[a].records, table.rows[b].records, table.key.protocol, table.headline)
        except UserError:
            return {}  # an unfinished cross-validation: ranks of some rows would not be ranks of the table
        found[a, b] = Pair(sign * test.value, test.p)
    return found


def _pairs(rows: Sequence[int]) -> list[tuple[int, int]]:
    return [(a, b) for i, a in enumerate(rows) for b in rows[i + 1 :]]


def _apart(found: Mapping[tuple[int, int], Pair]) -> list[tuple[int, int]]:
    """The pairs that can be told apart, the better row first."""
    adjusted = holm([pair.p for pair in found.values()])
    return [
        (a, b) if pair.lead > 0 else (b, a)
        for ((a, b), pair), p in zip(found.items(), adjusted, strict=True)
        if p < LEVEL
    ]


def _letters(rows: Sequence[int], apart: Iterable[tuple[int, int]]) -> dict[int, str]:
    """Letters such that two rows share one exactly if they cannot be told apart.

    Starting from one group of all rows, every pair that can be told apart splits the groups that hold both, and what
    lies within another group is dropped (insert and absorb: Piepho, J. Comput. Graph. Stat. 13, 2004).
    """
    groups = [frozenset(rows)]
    for a, b in apart:
        split = [group - {row} for group in groups for row in ((a, b) if {a, b} <= group else (None,))]
        groups = [g for i, g in enumerate(split) if not any(g < h or (g == h and j < i) for j, h in enumerate(split))]
    groups.sort(key=sorted)
    return {row: " ".join(_letter(n) for n, group in enumerate(groups) if row in group) for row in rows}


def _letter(number: int) -> str:
    """``a`` to ``z``, then ``aa``, ``ab``, and so on."""
    first, second = divmod(number, 26)
    return (chr(96 + first) if first else "") + chr(97 + second)
