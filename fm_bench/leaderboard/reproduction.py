# SPDX-License-Identifier: MIT
"""The papers' printed numbers beside ours, and whether the two may be compared at all."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from fm_bench.leaderboard.papers.reported import REPORTED, Reported
from fm_bench.leaderboard.rows import Cell, Key, Table
from fm_bench.leaderboard.shown import number, unit


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


def status(reported: Reported, key: Key, cell: Cell) -> str:
    """Whether our number is of the same data and question, and then how the printed one stands to its interval."""
    if key.data != reported.data:
        return "not comparable: other data"
    if key.protocol != reported.exact:
        return "not comparable: other requests"
    if key.mode != "paper":
        return "not comparable: common mode"
    if cell.low is None or cell.high is None:
        return "comparable, without an interval"
    if cell.low <= reported.value <= cell.high:
        return "reproduced: within our interval"
    return f"ours is {'higher' if reported.value < cell.low else 'lower'}"


def _ours(reported: Reported, tables: Sequence[Table]) -> Iterator[Ours]:
    """One number from each table that asks the paper's question, or ours that comes nearest.

    Of several rows of the method, the one with most seeds speaks for it, then the newest, as for claims.
    """
    for table in tables:
        if table.key.protocol not in (reported.exact, reported.protocol):
            continue
        rows = [row for row in table.rows if row.first.name == reported.method and row.cell(reported.metric)]
        if rows:
            row = max(rows, key=lambda row: (len(row.records), row.records[-1].finished))
            cell = row.cell(reported.metric)
            assert cell is not None
            yield Ours(table.key, cell, row.seeds, status(reported, table.key, cell))


def shown(ours: Ours, metric: str) -> str:
    """Our number as text, with its unit."""
    return number(metric, ours.cell.value) + (" ms" if unit(metric) == "ms" else "")
