# SPDX-License-Identifier: MIT
"""The leaderboard as one HTML file that needs nothing else: it opens from disk, without a network.

The same records give the same bytes. Everything that comes from a record is escaped, and the page's own policy lets
nothing run or load but the one script that is in it.
"""

import base64
import dataclasses
import functools
import hashlib
import itertools
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jinja2
from markupsafe import Markup

from fm_bench.evaluation.sweep import swept
from fm_bench.files import write_text
from fm_bench.leaderboard.claims import Verdict, judge
from fm_bench.leaderboard.columns import Column, Shown, columns_of, heading
from fm_bench.leaderboard.compare import load_runs
from fm_bench.leaderboard.curves import IMAGES, LOOKED_AT, Axes, Curve, Style, picture, styles
from fm_bench.leaderboard.record import Record, load_all
from fm_bench.leaderboard.rows import Cell, Key, Row, Table, hardware, tables
from fm_bench.leaderboard.shown import ABOUT, is_lower, number, unit, words, work
from fm_bench.leaderboard.table import MISSING, ends

PAGE = "leaderboard.html"
MODES = {
    "common": "common mode: same backbone, split, requests and training budget for every method",
    "paper": "paper mode: every method with its paper's own backbone, losses and protocol",
}


def build(folder: Path, out: Path) -> Path:
    """Builds the page ``out`` from every record in ``folder``, with verdicts where per-request results are there.

    Files that could not be taken are named on the page and logged as warnings.

    Returns:
        ``out``.

    Raises:
        UserError: if ``folder`` is not a folder or ``out`` cannot be written.
    """
    html, problems = _page_of(folder)
    for problem in problems:
        logging.getLogger(__name__).warning("%s", problem)
    write_text(Path(out), html)
    return Path(out)


def refresh_page(runs: Path) -> Path:
    """Builds ``leaderboard.html`` in the folder of the runs it shows, and returns its path; raises as ``build``."""
    return build(runs, Path(runs) / PAGE)


def is_stale(folder: Path, out: Path) -> bool:
    """Whether the page ``out`` is missing or is not what ``build`` would write now. Raises UserError as ``build``."""
    html, _ = _page_of(folder)
    return not Path(out).is_file() or Path(out).read_text(encoding="utf-8", errors="replace") != html


def _page_of(folder: Path) -> tuple[str, list[str]]:
    records, problems = load_all(folder)
    runs, _ = load_runs(folder)  # its problems are among those of load_all
    return render(records, problems, judge(runs)), problems


def build_page(
    records: Iterable[Record], out: Path, *, problems: Sequence[str] = (), verdicts: Sequence[Verdict] = ()
) -> None:
    """Writes the page.

    Args:
        records: everything to show, in any order.
        out: the HTML file.
        problems: sentences about files that could not be taken, shown at the top.
        verdicts: what the runs say about the papers' claims.

    Raises:
        UserError: if ``out`` cannot be written.
    """
    write_text(Path(out), render(list(records), problems, verdicts))


def render(records: Sequence[Record], problems: Sequence[str] = (), verdicts: Sequence[Verdict] = ()) -> str:
    """The page as text; see ``build_page``."""
    environment = _environment()
    script = _source(environment, "page.js")
    html = environment.get_template("page.html").render(
        style=Markup(_source(environment, "page.css")),  # noqa: S704 our own file
        script=Markup(script),  # noqa: S704 our own file
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        sections=_sections(tables(records), verdicts),
        records=len({record.fingerprint for record in records}),
        methods=len({record.name for record in records}),
        problems=problems,
        missing=MISSING,
        words=words,
        work=work,
        ends=ends,
        number=number,
        unit=unit,
    )
    return html.encode("utf-8", "backslashreplace").decode()  # JSON can hold halves of characters


@functools.cache
def _environment() -> jinja2.Environment:
    """Where templates come from; it keeps them compiled, which takes longer than to fill one in."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("fm_bench.leaderboard"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )


def _source(environment: jinja2.Environment, name: str) -> str:
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0].strip()


# What the template shows ------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Section:
    """All tables of one data set, profile and mode, and the claims judged there."""

    id: str
    data: str
    profile: str
    mode: str
    about_mode: str
    views: tuple["View", ...]
    papers: tuple["Paper", ...]
    untested: tuple["Judged", ...]


@dataclasses.dataclass(frozen=True)
class View:
    """One table with its picture, ready for the template."""

    id: str
    key: Key
    about: str
    requests: int
    digests: str
    groups: tuple[tuple[str, str, int], ...]
    columns: tuple[Column, ...]
    lines: tuple["Line", ...]
    chance: tuple[str, ...]
    chance_headline: float | None
    notes: tuple[tuple[int, str], ...]
    common: str
    headline: str
    order: str
    folded: bool
    axes: Axes
    picture: Markup | None
    legend: tuple[tuple[str, Style], ...]
    attributes: tuple[str, ...]
    machines: int


@dataclasses.dataclass(frozen=True)
class Line:
    """One row: its cells as (number to sort by, text, small print), and the numbers of its notes."""

    row: Row
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


@dataclasses.dataclass(frozen=True)
class Judged:
    """A verdict and its interval on an axis that all verdicts of the section and of its unit share."""

    verdict: Verdict
    bar: Bar | None


@dataclasses.dataclass(frozen=True)
class Paper:
    """The verdicts on the claims of one paper, and how many there are of each."""

    source: str
    tested: tuple[Judged, ...]

    @property
    def counts(self) -> str:
        """``9 preserved, 2 undecided``."""
        found = Counter(judged.verdict.outcome for judged in self.tested)
        return ", ".join(f"{found[name]} {name}" for name in ("preserved", "undecided", "violated") if found[name])


def _sections(all_tables: Sequence[Table], verdicts: Sequence[Verdict]) -> list[Section]:
    result: list[Section] = []
    numbers = itertools.count(1)
    for place, group in itertools.groupby(all_tables, key=lambda table: table.key[:3]):
        views = tuple(_view(table, f"t{next(numbers)}") for table in group)
        judged = [verdict for verdict in verdicts if (verdict.data, verdict.profile, verdict.mode) == place]
        data, profile, mode = place
        name = f"s{len(result) + 1}"
        result.append(Section(name, data, profile, mode, MODES[mode], views, *_papers(_on_axis(judged))))
    return result


def _papers(verdicts: Sequence[Judged]) -> tuple[tuple[Paper, ...], tuple[Judged, ...]]:
    """Verdicts by paper, in the order of their claims, and what was not tested."""
    by_paper: dict[str, list[Judged]] = {}
    for judged in verdicts:
        if judged.bar is not None:
            by_paper.setdefault(judged.verdict.claim.source, []).append(judged)
    papers = tuple(Paper(source, tuple(tested)) for source, tested in by_paper.items())
    return papers, tuple(judged for judged in verdicts if judged.bar is None)


def _view(table: Table, name: str) -> View:
    key = table.key
    columns = columns_of(table)
    groups = tuple(
        (*heading(family, key.protocol), len(list(members)))
        for family, members in itertools.groupby(columns, lambda column: column.group)
    )
    every = list(dict.fromkeys(note for row in table.rows for note in row.notes))
    # what holds for every row is said once beneath the table, without a number on each
    common = [note for note in every if len(table.rows) > 1 and all(note in row.notes for row in table.rows)]
    notes = {text: n for n, text in enumerate((note for note in every if note not in common), start=1)}
    attributes = tuple(table.attributes)
    headlines = [row.cell(table.headline) for row in table.rows]
    longest = max((cell.high or 0.0 for cell in headlines if cell), default=1.0)
    scale = longest if unit(table.headline) else 1.0
    lines = tuple(
        Line(
            row,
            tuple(column.cell(row) for column in columns),
            headline,
            _bar(headline, scale),
            tuple(notes[note] for note in row.notes if note in notes),
            tuple(row.attribute_cell(attribute) for attribute in attributes),
            tuple((run, hardware(run)) for run in row.records),
        )
        for row, headline in zip(table.rows, headlines, strict=True)
    )
    axes, drawing, legend = _picture(table, name, notes)
    digests = {"data": key.data_digest, "protocol": key.protocol_digest, "requests": key.request_digest}
    return View(
        id=name,
        key=key,
        about=ABOUT.get(key.protocol, ""),
        requests=table.requests,
        digests=", ".join(f"{what} {digest[:8]}" for what, digest in digests.items()),
        groups=groups,
        columns=columns,
        lines=lines,
        chance=tuple(_chance(table, column) for column in columns),
        chance_headline=table.chance.get(table.headline),
        notes=tuple((number, text) for text, number in notes.items()),
        common="; ".join(common),
        headline=table.headline,
        order="ascending" if is_lower(table.headline) else "descending",
        folded=any(row.folds for row in table.rows),
        axes=axes,
        picture=drawing,
        legend=legend,
        attributes=attributes,
        machines=len({hardware(run) for row in table.rows for run in row.records}),
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


def _picture(
    table: Table, name: str, notes: Mapping[str, int]
) -> tuple[Axes, Markup | None, tuple[tuple[str, Style], ...]]:
    """The table's curves, over gallery sizes where it has them and else over k, and the legend that belongs to them."""
    sizes = swept(table.metrics)
    shared = {label for label, rows in Counter(row.label for row in table.rows).items() if rows > 1}
    curves = [
        Curve(
            f"{row.label} (note {notes[row.notes[-1]]})" if row.label in shared and row.notes else row.label,
            *points,
            row.role == "method",
        )
        for row in table.rows
        if (points := row.sweep() if sizes else row.curve())
    ]
    axes = IMAGES if sizes else LOOKED_AT
    if not curves or max(len(curve.x) for curve in curves) < 2:
        return axes, None, ()
    ends = ((metric.partition("|" if sizes else "@")[2], value) for metric, value in table.chance.items())
    by_chance = sorted((float(end), value) for end, value in ends if end.isdecimal())
    if by_chance:
        curves.append(Curve("chance", [k for k, _ in by_chance], [value for _, value in by_chance], competes=False))
    chosen = styles(curves)
    svg = picture(curves, chosen, salt=name, axes=axes)
    return axes, Markup(svg), tuple((curve.label, style) for curve, style in zip(curves, chosen, strict=True))  # noqa: S704


def _on_axis(verdicts: Sequence[Verdict]) -> tuple[Judged, ...]:
    """Every interval on one axis for each unit, symmetric around 0."""
    reach: dict[str, float] = {}
    for verdict in verdicts:
        if (d := verdict.difference) is not None:
            kind = unit(verdict.claim.metric)
            reach[kind] = max(reach.get(kind, 0.0), 1.05 * max(abs(d.low), abs(d.high)))

    def bar(verdict: Verdict) -> Bar | None:
        if (d := verdict.difference) is None:
            return None
        low, value, high = (
            round(50 + 50 * end / (reach[unit(verdict.claim.metric)] or 1.0), 2) for end in (d.low, d.value, d.high)
        )
        return Bar(low, round(high - low, 2), value)

    return tuple(Judged(verdict, bar(verdict)) for verdict in verdicts)
