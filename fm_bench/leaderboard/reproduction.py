# SPDX-License-Identifier: MIT
"""The papers' printed numbers beside ours, and whether the two may be compared at all."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from fm_bench.data.folds import FOLDS
from fm_bench.leaderboard.folds import extent
from fm_bench.leaderboard.papers.reported import REPORTED, Reported
from fm_bench.leaderboard.rows import Cell, Key, Table, speaker
from fm_bench.leaderboard.shown import number, unit

PAPER = "paper"
"""The mode and the profile whose runs may be compared: the papers' networks, losses and sizes."""
_SHRUNK = "shrunk: "  # how runs begin their note that the data had room for a part of a paper's sample only


class Ours(NamedTuple):
    """Our number beside a printed one: from which table, its value, and how the two stand to each other."""

    key: Key
    cell: Cell
    seeds: int
    status: str


class Entry(NamedTuple):
    """A printed number and ours."""

    reported: Reported
    ours: tuple[Ours, ...]

    @property
    def printed(self) -> str:
        """The printed number as text."""
        if unit(self.reported.metric) == "ms":
            return f"{self.reported.value:.3f} s"
        return f"{self.reported.value:.4f}".removesuffix("0")

    @property
    def status(self) -> str:
        """What stands of all of ours, each named where they differ."""
        found = list(dict.fromkeys(ours.status for ours in self.ours))
        if len(found) > 1:
            return "; ".join(f"{ours.key.data}: {ours.status}" for ours in self.ours)
        return found[0] if found else "not run"


class Paper(NamedTuple):
    """The entries of one paper, and how many of its numbers have which status."""

    source: str
    entries: tuple[Entry, ...]

    @property
    def run(self) -> int:
        """How many of its numbers stand beside a number of ours."""
        return sum(bool(entry.ours) for entry in self.entries)


def papers(tables: Sequence[Table], reported: Sequence[Reported] = REPORTED) -> list[Paper]:
    """Every printed number by paper, with our numbers for the same method and metric."""
    entries: dict[str, list[Entry]] = {}
    for one in reported:
        entries.setdefault(one.paper, []).append(Entry(one, tuple(_ours(one, tables))))
    return [Paper(source, tuple(found)) for source, found in entries.items()]


def status(reported: Reported, key: Key, cell: Cell, notes: Sequence[str] = ()) -> str:
    """Whether our number is of the same work, and then how the printed one stands to its interval.

    Args:
        reported: the printed number.
        key: the table of ours.
        cell: ours.
        notes: of the row that it is from.
    """
    if reason := _differs(reported, key, notes):
        return f"not comparable: {reason}"
    if cell.low is None or cell.high is None:
        return "comparable, without an interval"
    if cell.low <= reported.value <= cell.high:
        return "reproduced: within our interval"
    return f"ours is {'higher' if reported.value < cell.low else 'lower'}"


def _differs(reported: Reported, key: Key, notes: Sequence[str]) -> str:
    """The first thing that makes our work another than the paper's; empty if it is the same."""
    data, _, folds = key.data.partition(", ")
    reasons = {
        "other data": data != reported.data,
        "other requests": key.protocol != reported.exact,
        "folds are missing": folds not in ("", extent(FOLDS)),
        "fewer pictures": any(note.startswith(_SHRUNK) for note in notes),
        f"{key.mode} mode": key.mode != PAPER,
        f"profile {key.profile}": key.profile != PAPER,
    }
    return next((reason for reason, differs in reasons.items() if differs), "")


def _ours(reported: Reported, tables: Sequence[Table]) -> Iterator[Ours]:
    """One number from each table that asks the paper's question, or ours that comes nearest."""
    for table in tables:
        if table.key.protocol not in (reported.exact, reported.protocol):
            continue
        rows = [row for row in table.rows if row.first.name == reported.method and row.cell(reported.metric)]
        if rows:
            row = speaker(rows)
            cell = row.cell(reported.metric)
            assert cell is not None
            yield Ours(table.key, cell, row.seeds, status(reported, table.key, cell, row.notes))


def shown(ours: Ours, metric: str) -> str:
    """Our number as text, with its unit."""
    return number(metric, ours.cell.value) + (" ms" if unit(metric) == "ms" else "")
