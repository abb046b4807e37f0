# SPDX-License-Identifier: MIT
"""A table with its ranks and pictures, as the page's template fills it in."""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from markupsafe import Markup

from fm_bench.evaluation.sweep import swept
from fm_bench.leaderboard import charts
from fm_bench.leaderboard.charts import Axes, Mark
from fm_bench.leaderboard.columns import Column, Shown, Times, columns_of, glossary, group_head
from fm_bench.leaderboard.compare import Run
from fm_bench.leaderboard.groups import Rank, ranks
from fm_bench.leaderboard.record import Record
from fm_bench.leaderboard.rows import Cell, Key, Row, Table, hardware, settings, speaker
from fm_bench.leaderboard.shown import ABOUT, TIMES, is_lower, like, unit, words

LOOKED_AT = Axes("Top-k accuracy", "k (images looked at)", "accuracy@k")
IMAGES = Axes("Accuracy in growing galleries", "gallery (images)", "accuracy@20")
_OF_DATA = ("reader.", "loader.crop")
_NO_SCATTER = frozenset({"latency", "detection"})


@dataclasses.dataclass(frozen=True)
class View:
    """One table with its pictures, ready for the template."""

    id: str
    key: Key
    heading: str
    about: str
    requests: int
    digests: str
    groups: tuple[tuple[str, str, int], ...]
    columns: tuple[Column, ...]
    glossary: dict[str, str]
    lines: tuple["Line", ...]
    ranked: bool
    chance: tuple[str, ...]
    chance_headline: float | None
    notes: tuple[tuple[int, str], ...]
    common: str
    searches: str
    searched: bool
    headline: str
    order: str
    folded: bool
    figures: tuple["Figure", ...]
    attributes: tuple[str, ...]
    machines: int
    versions: int


@dataclasses.dataclass(frozen=True)
class Line:
    """One row: its cells as (number to sort by, text, small print), and the numbers of its notes."""

    row: Row
    kind: str
    rank: Rank | None
    cells: tuple[Shown | None, ...]
    headline: Cell | None
    bar: "Bar | None"
    notes: tuple[int, ...]
    by_attribute: tuple[Cell | None, ...]
    runs: tuple[tuple[Record, str], ...]


class Bar(NamedTuple):
    """An interval on an axis, and its value, in percent of the axis."""

    left: float
    width: float
    point: float = 0.0


class Figure(NamedTuple):
    """A picture, what it is called, what it shows in words, and what it cannot show."""

    axes: Axes
    picture: Markup
    rows: tuple[str, ...]
    note: str
    absent: str = ""


def kind_of(row: Row) -> str:
    """``method``, ``variant``, ``floor`` or ``ceiling``: what the page filters rows by."""
    return "variant" if row.role == "method" and row.first.variant else row.role


def timed(tables: Sequence[Table]) -> Times:
    """The rows of the latency tables among ``tables``, all of one data set, profile and mode; see ``speaker``."""
    found: dict[tuple[str, int], list[Row]] = {}
    for table in tables:
        for row in table.rows if table.headline in TIMES else ():
            found.setdefault((row.label, row.first.dim), []).append(row)
    return {which: speaker(rows) for which, rows in found.items()}


def headings(tables: Sequence[Table]) -> dict[Key, str]:
    """What the tables of one data set, profile and mode are called: those of one protocol by what sets them apart."""
    shared = Counter(table.key.heading for table in tables)
    found = {}
    for key in (table.key for table in tables):
        others = [other.key for other in tables if other.key.heading == key.heading]
        own = [_digests(key)[what] for what in _digests(key) if len({_digests(other)[what] for other in others}) > 1]
        own += _data_options(key, [table for table in tables if table.key in others])
        found[key] = f"{key.heading} ({', '.join(own)})" if shared[key.heading] > 1 and own else key.heading
    return found


def _data_options(key: Key, tables: Sequence[Table]) -> list[str]:
    """How the data of the table of ``key`` were read, as far as the other ``tables`` read theirs otherwise."""
    options = {
        table.key: {name: value for name, value in settings(table.rows[0].first).items() if name.startswith(_OF_DATA)}
        for table in tables
    }
    return [
        f"{name.removeprefix('loader.')} {value}"
        for name, value in options[key].items()
        if any(other.get(name) != value for other in options.values())
    ]


def _digests(key: Key) -> dict[str, str]:
    """What was asked, by kind: ``data 1234abcd``."""
    each = {"data": key.data_digest, "protocol": key.protocol_digest, "requests": key.request_digest}
    return {what: f"{what} {digest[:8]}" for what, digest in each.items()}


def view(table: Table, name: str, heading: str, runs: Mapping[str, Run], times: Times) -> View:
    """The table as the template shows it.

    Args:
        table: the table.
        name: its id on the page.
        heading: what it is called there, see ``headings``.
        runs: fingerprint -> run with results for every request, for the ranks.
        times: of the latency table of the same data, profile and mode.
    """
    key = table.key
    columns = columns_of(table, times)
    groups = tuple(
        (*group_head(family, key.protocol), len(list(members)))
        for family, members in itertools.groupby(columns, lambda column: column.group)
    )
    every = list(dict.fromkeys(note for row in table.rows for note in row.notes))
    # what holds for every row is said once beneath the table, without a number on each
    common = [note for note in every if len(table.rows) > 1 and all(note in row.notes for row in table.rows)]
    notes = {text: n for n, text in enumerate((note for note in every if note not in common), start=1)}
    places = ranks(table, runs)
    folded = any(row.folds for row in table.rows)
    return View(
        id=name,
        key=key,
        heading=heading,
        about=ABOUT.get(key.protocol, ""),
        requests=table.requests,
        digests=", ".join(_digests(key).values()),
        groups=groups,
        columns=columns,
        glossary=glossary(columns, table.headline if any(places) else "", folded=folded),
        lines=_lines(table, columns, notes, places),
        ranked=any(places),
        chance=tuple(_chance(table, column) for column in columns),
        chance_headline=table.chance.get(table.headline),
        notes=tuple((number, text) for text, number in notes.items()),
        common="; ".join(common),
        searches=table.searches,
        searched=any(run.tuning for row in table.rows for run in row.records),
        headline=table.headline,
        order="ascending" if is_lower(table.headline) else "descending",
        folded=folded,
        figures=tuple(figure for figure in (_curves(table, notes), _scatter(table, notes, times)) if figure),
        attributes=tuple(table.attributes),
        machines=len({hardware(run) for row in table.rows for run in row.records}),
        versions=len({run.code["digest"] for row in table.rows for run in row.records}),
    )


def _lines(
    table: Table, columns: Sequence[Column], notes: Mapping[str, int], places: Sequence[Rank | None]
) -> tuple[Line, ...]:
    headlines = [row.cell(table.headline) for row in table.rows]
    longest = max((cell.high or 0.0 for cell in headlines if cell), default=1.0)
    scale = longest if unit(table.headline) else 1.0
    return tuple(
        Line(
            row,
            kind_of(row),
            rank,
            tuple(column.cell(row) for column in columns),
            headline,
            _bar(headline, scale),
            tuple(sorted(notes[note] for note in row.notes if note in notes)),
            tuple(row.attribute_cell(attribute) for attribute in table.attributes),
            tuple((run, hardware(run)) for run in row.records),
        )
        for row, headline, rank in zip(table.rows, headlines, places, strict=True)
    )


def _bar(cell: Cell | None, scale: float) -> Bar | None:
    """The interval of ``cell`` on an axis from 0 to ``scale``, which that of few folds may leave."""
    if cell is None or cell.low is None or cell.high is None or not scale:
        return None
    low, high = (100 * min(max(end / scale, 0.0), 1.0) for end in (cell.low, cell.high))
    return Bar(low, high - low)


def _chance(table: Table, column: Column) -> str:
    value = table.chance.get(column.metric)
    return "" if value is None else f"{value:.3f}"


# Pictures -------------------------------------------------------------------------------------------------------------


def _curves(table: Table, notes: Mapping[str, int]) -> Figure | None:
    """The table's curves, over gallery sizes where it has them and else over k."""
    sizes = swept(table.metrics)
    marks = [
        Mark(_named(table, row, notes), *points, kind_of(row))
        for row in table.rows
        if (points := row.sweep() if sizes else row.curve())
    ]
    if not marks or max(len(mark.x) for mark in marks) < 2:
        return None
    ends = ((metric.partition("|" if sizes else "@")[2], value) for metric, value in table.chance.items())
    by_chance = sorted((float(end), value) for end, value in ends if end.isdecimal())
    if by_chance:
        marks.append(Mark("chance", [x for x, _ in by_chance], [value for _, value in by_chance], "floor"))
    axes = IMAGES if sizes else LOOKED_AT
    return Figure(axes, charts.lines(marks, axes), tuple(mark.label for mark in marks), _unlabelled(marks))


class _Clock(NamedTuple):
    """Where the times of a picture are from."""

    axis: str
    source: str
    lacking: str


_BATCH = _Clock(
    "milliseconds from a query's picture to its ranked list", "mean over a batch of queries", "a time of its queries"
)
_ALONE = _Clock(
    "T_sum, milliseconds for one query alone", "from the latency table of the same data", "a latency run of its size"
)


def _scatter(table: Table, notes: Mapping[str, int], times: Times) -> Figure | None:
    """What the table is ranked by over the time of a query, where two or more methods have both."""
    if like(table.key.protocol) in _NO_SCATTER or unit(table.headline):
        return None
    rows = [row for row in table.rows if row.role == "method" and row.cell(table.headline)]
    clock, took = _ALONE, [_alone(times.get((row.label, row.first.dim))) for row in rows]
    if sum(map(bool, took)) < 2:  # one clock for all: times of single queries and of batches do not compare
        clock, took = _BATCH, [row.mean("query_ms") for row in rows]
    marks = [
        Mark(_named(table, row, notes), [time], [cell.value], kind_of(row), cell.low, cell.high)
        for row, time in zip(rows, took, strict=True)
        if time and (cell := row.cell(table.headline))
    ]
    if len(marks) < 2:
        return None
    axes = Axes("Accuracy against latency", clock.axis, words(table.headline))
    absent = [_named(table, row, notes) for row, time in zip(rows, took, strict=True) if not time]
    without = f"Without {clock.lacking}, and so not in the picture: {', '.join(absent)} ({len(absent)})."
    note = f"Upper left is best; lines are 95 % intervals; times: {clock.source}. {_unlabelled(marks)}".strip()
    labels = tuple(mark.label for mark in marks)
    return Figure(axes, charts.scatter(marks, axes), labels, note, without if absent else "")


def _alone(row: Row | None) -> float | None:
    """The milliseconds of one query in a row of a latency table."""
    cell = None if row is None else row.cell(TIMES[0])
    return None if cell is None else cell.value


def _named(table: Table, row: Row, notes: Mapping[str, int]) -> str:
    """The row's label, with the number of its last note where several rows share it."""
    shared = Counter(other.label for other in table.rows)[row.label] > 1
    own = [notes[note] for note in row.notes if note in notes]
    return f"{row.label} (note {own[-1]})" if shared and own else row.label


def _unlabelled(marks: Sequence[Mark]) -> str:
    thin = len(marks) > charts.LABELLED and any(mark.kind == "variant" for mark in marks)
    return "Thin and without a label: variants, named when pointed at." if thin else ""
