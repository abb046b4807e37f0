# SPDX-License-Identifier: MIT
"""The leaderboard as one HTML file that needs nothing else: it opens from disk, without a network.

The same records give the same bytes. Everything that comes from a record is escaped, and the page's own policy lets
nothing run or load but the one script that is in it.
"""

import base64
import dataclasses
import hashlib
import itertools
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import jinja2
from markupsafe import Markup

from fm_bench.files import write_text
from fm_bench.leaderboard.claims import Verdict, judge
from fm_bench.leaderboard.compare import load_runs
from fm_bench.leaderboard.curves import Curve, Style, picture, styles
from fm_bench.leaderboard.record import Record, load_all
from fm_bench.leaderboard.rows import HEADLINE, Cell, Key, Row, Table, hardware, tables
from fm_bench.leaderboard.table import MISSING, count, duration, interval, span

PAGE = "leaderboard.html"
PROTOCOLS = {
    "search": "No change is asked for: find garments with the labels of the picture.",
    "manipulate-1": "One attribute of the pictured garment is to change, all others stay.",
    "manipulate-2": "Two attributes of the pictured garment are to change, all others stay.",
    "instance": "Find the very same item, photographed elsewhere.",
}
MODES = {
    "common": "common mode: same backbone, split, requests and training budget for every method",
    "paper": "paper mode: every method with its paper's own backbone, losses and protocol",
}


@dataclasses.dataclass(frozen=True)
class Column:
    """One column of a result table: its head, what it means, and what it shows of a row.

    Attributes:
        group: key of the column group it stands under.
        head, small: the head and the small print under it.
        title: the definition in full.
        cell: row -> (number to sort by, text, small print), or None where the row has no value.
    """

    group: str
    head: str
    small: str
    title: str
    cell: Callable[[Row], tuple[float, str, str] | None]


def _metric(metric: str, small: str, title: str) -> Column:
    family, _, at = metric.partition("@")

    def cell(row: Row) -> tuple[float, str, str] | None:
        found = row.cell(metric)
        return None if found is None else (found.value, f"{found.value:.3f}", interval(found))

    return Column(family, f"@{at}", small, f"{metric}: {title}", cell)


def _cost(
    head: str, small: str, title: str, value: Callable[[Row], float | None], text: Callable[[float], str]
) -> Column:
    def cell(row: Row) -> tuple[float, str, str] | None:
        found = value(row)
        return None if found is None else (found, text(found), "")

    return Column("cost", head, small, title, cell)


def _hits(k: int) -> Column:
    return _metric(f"accuracy@{k}", f"first {k}", f"share of requests with a hit among the first {k}")


GROUPS = {
    "accuracy": ("accuracy@k", "share of requests with a hit, an image with every wanted attribute, among the first k"),
    "ndcg": (
        "ndcg@k",
        "order of the first k, by the share of wanted attributes; 1 is the best order the gallery allows",
    ),
    "mrr": ("mrr@k", "mean of 1 / rank of the first hit"),
    "cost": ("size and cost", "of one run; means over seeds"),
}
COLUMNS = (
    *(_hits(k) for k in (1, 5, 10, 20, 50)),
    *(
        _metric(f"ndcg@{k}", f"first {k}", "discounted gain 2^relevance - 1, divided by the best in the gallery")
        for k in (10, 20)
    ),
    _metric("mrr@1000", "0 past 1000", "mean of 1 / rank of the first hit, 0 where it is beyond rank 1000"),
    _cost(
        "size", "numbers", "width of an embedding, in float32 numbers", lambda row: row.first.dim, lambda n: f"{n:.0f}"
    ),
    _cost(
        "weights", "parameters", "number of parameters, frozen ones included", lambda row: row.first.parameters, count
    ),
    _cost("training", "wall clock", "wall-clock time of all training stages", lambda row: row.mean("train"), duration),
    _cost(
        "query",
        "ms each",
        "milliseconds from a query's picture to its ranked list, per query",
        lambda row: row.mean("query_ms"),
        lambda ms: f"{ms:.2f}",
    ),
    _cost(
        "memory",
        "peak, GiB",
        "highest resident memory of the run",
        lambda row: row.mean("peak_memory_mb"),
        lambda mb: f"{mb / 1024:.2f}",
    ),
)


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
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fm_bench.leaderboard"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
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
        span=span,
    )
    return html.encode("utf-8", "backslashreplace").decode()  # JSON can hold halves of characters


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
    verdicts: tuple["Judged", ...]


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
    picture: Markup | None
    legend: tuple[tuple[str, Style], ...]
    attributes: tuple[str, ...]
    machines: int


@dataclasses.dataclass(frozen=True)
class Line:
    """One row: its cells as (number to sort by, text, small print), and the numbers of its notes."""

    row: Row
    cells: tuple[tuple[float, str, str] | None, ...]
    headline: Cell | None
    notes: tuple[int, ...]
    by_attribute: tuple[Cell | None, ...]
    runs: tuple[tuple[Record, str], ...]


@dataclasses.dataclass(frozen=True)
class Judged:
    """A verdict and its interval on an axis that all verdicts of the section share, in percent of the axis."""

    verdict: Verdict
    left: float = 0.0
    width: float = 0.0
    point: float = 0.0


def _sections(all_tables: Sequence[Table], verdicts: Sequence[Verdict]) -> list[Section]:
    result: list[Section] = []
    numbers = itertools.count(1)
    for place, group in itertools.groupby(all_tables, key=lambda table: table.key[:3]):
        views = tuple(_view(table, f"t{next(numbers)}") for table in group)
        judged = [verdict for verdict in verdicts if (verdict.data, verdict.profile, verdict.mode) == place]
        data, profile, mode = place
        result.append(Section(f"s{len(result) + 1}", data, profile, mode, MODES[mode], views, _on_axis(judged)))
    return result


def _view(table: Table, name: str) -> View:
    columns = tuple(column for column in COLUMNS if any(column.cell(row) for row in table.rows))
    groups = tuple(
        (*GROUPS[group], len(list(members)))
        for group, members in itertools.groupby(columns, lambda column: column.group)
    )
    every = list(dict.fromkeys(note for row in table.rows for note in row.notes))
    # what holds for every row is said once beneath the table, without a number on each
    common = [note for note in every if len(table.rows) > 1 and all(note in row.notes for row in table.rows)]
    notes = {text: n for n, text in enumerate((note for note in every if note not in common), start=1)}
    attributes = tuple(table.attributes)
    lines = tuple(
        Line(
            row,
            tuple(column.cell(row) for column in columns),
            row.cell(HEADLINE),
            tuple(notes[note] for note in row.notes if note in notes),
            tuple(row.attribute_cell(attribute) for attribute in attributes),
            tuple((run, hardware(run)) for run in row.records),
        )
        for row in table.rows
    )
    drawing, legend = _picture(table, name, notes)
    key = table.key
    digests = {"data": key.data_digest, "protocol": key.protocol_digest, "requests": key.request_digest}
    return View(
        id=name,
        key=key,
        about=PROTOCOLS.get(key.protocol, ""),
        requests=table.requests,
        digests=", ".join(f"{what} {digest[:8]}" for what, digest in digests.items()),
        groups=groups,
        columns=columns,
        lines=lines,
        chance=tuple(_chance(table, column) for column in columns),
        chance_headline=table.chance.get(HEADLINE),
        notes=tuple((number, text) for text, number in notes.items()),
        common="; ".join(common),
        picture=drawing,
        legend=legend,
        attributes=attributes,
        machines=len({hardware(run) for row in table.rows for run in row.records}),
    )


def _chance(table: Table, column: Column) -> str:
    value = table.chance.get(f"{column.group}{column.head}")
    return "" if value is None else f"{value:.3f}"


def _picture(table: Table, name: str, notes: Mapping[str, int]) -> tuple[Markup | None, tuple[tuple[str, Style], ...]]:
    """The table's top-k curves and the legend that belongs to them."""
    shared = {label for label, rows in Counter(row.label for row in table.rows).items() if rows > 1}
    curves = [
        Curve(
            f"{row.label} (note {notes[row.notes[-1]]})" if row.label in shared and row.notes else row.label,
            *points,
            row.role == "method",
        )
        for row in table.rows
        if (points := row.curve())
    ]
    if not curves:
        return None, ()
    by_chance = sorted((float(metric.partition("@")[2]), value) for metric, value in table.chance.items())
    if by_chance:
        curves.append(Curve("chance", [k for k, _ in by_chance], [value for _, value in by_chance], competes=False))
    chosen = styles(curves)
    svg = picture(curves, chosen, salt=name)
    return Markup(svg), tuple((curve.label, style) for curve, style in zip(curves, chosen, strict=True))  # noqa: S704


def _on_axis(verdicts: Sequence[Verdict]) -> tuple[Judged, ...]:
    """Every interval on one axis, symmetric around 0."""
    known = [v.difference for v in verdicts if v.difference is not None]
    reach = max((max(abs(d.low), abs(d.high)) for d in known), default=1.0) * 1.05 or 1.0

    def at(value: float) -> float:
        return round(50 + 50 * value / reach, 2)

    return tuple(
        Judged(v)
        if (d := v.difference) is None
        else Judged(v, at(d.low), round(at(d.high) - at(d.low), 2), at(d.value))
        for v in verdicts
    )
