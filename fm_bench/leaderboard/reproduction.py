# SPDX-License-Identifier: MIT
"""The papers' printed numbers beside ours, whether the two may be compared at all, and whether they order alike."""

import math
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from fm_bench.data.folds import FOLDS
from fm_bench.leaderboard.folds import extent
from fm_bench.leaderboard.papers.reported import REPORTED, Reported
from fm_bench.leaderboard.rows import Cell, Key, Table, speaker
from fm_bench.leaderboard.shown import number, unit

PAPER = "paper"
"""The mode and the profile whose runs may be compared: the papers' networks, losses and sizes."""
_ORDERED = 3  # methods; the order of two is a claim, and among the claims
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


class Order(NamedTuple):
    """One column of a paper's table, and how far ours in one table puts the same methods in its order."""

    reported: Reported  # one number of the column
    key: Key
    methods: tuple[str, ...]  # that have both numbers, as the paper orders them
    alike: int  # pairs of them in the same order in both
    pairs: int  # that neither number calls equal
    tau: float  # Kendall's tau-b


class Paper(NamedTuple):
    """The entries of one paper, how many of its numbers have which status, and the order of its methods."""

    source: str
    entries: tuple[Entry, ...]
    orders: tuple[Order, ...] = ()

    @property
    def run(self) -> int:
        """How many of its numbers stand beside a number of ours."""
        return sum(bool(entry.ours) for entry in self.entries)


def papers(tables: Sequence[Table], reported: Sequence[Reported] = REPORTED) -> list[Paper]:
    """Every printed number by paper, with our numbers for the same method and metric."""
    entries: dict[str, list[Entry]] = {}
    for one in reported:
        entries.setdefault(one.paper, []).append(Entry(one, tuple(_ours(one, tables))))
    return [Paper(source, tuple(found), tuple(_orders(found))) for source, found in entries.items()]


def kendall(one: Sequence[float], other: Sequence[float]) -> tuple[int, int, float]:
    """How two rankings of the same things agree.

    Args:
        one: a number for each thing.
        other: another for each.

    Returns:
        The pairs in the same order in both, the pairs that neither calls equal, and Kendall's tau-b, which is nan
        where one calls all equal.
    """
    steps = [(np.sign(a - b), np.sign(c - d)) for (a, c), (b, d) in combinations(zip(one, other, strict=True), 2)]
    products = [x * y for x, y in steps]
    moved = math.sqrt(sum(x != 0 for x, _ in steps) * sum(y != 0 for _, y in steps))
    return products.count(1), sum(map(bool, products)), float(sum(products)) / moved if moved else math.nan


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


def _orders(entries: Sequence[Entry]) -> Iterator[Order]:
    """For each column of a paper's tables and each table of ours that has three or more of its methods."""
    columns: dict[tuple[str, ...], list[Entry]] = {}
    for entry in entries:
        one = entry.reported
        columns.setdefault((one.source, one.data, one.exact, one.metric), []).append(entry)
    for column in columns.values():
        column.sort(key=lambda entry: -entry.reported.value)
        for key in dict.fromkeys(ours.key for entry in column for ours in entry.ours):
            both = [(entry.reported, ours.cell.value) for entry in column for ours in entry.ours if ours.key == key]
            if len(both) >= _ORDERED:
                printed, values = [one.value for one, _ in both], [value for _, value in both]
                methods = tuple(one.method for one, _ in both)
                yield Order(both[0][0], key, methods, *kendall(printed, values))


def shown(ours: Ours, metric: str) -> str:
    """Our number as text, with its unit."""
    return number(metric, ours.cell.value) + (" ms" if unit(metric) == "ms" else "")
