# SPDX-License-Identifier: MIT
"""A page for every method and variant: settings, command, learning curves, results, how requests fail, examples.

Like the main page, each is one HTML file that needs nothing else, and the same records give the same bytes. Tables come
from records alone; curves, rates and examples from what runs left beside them, see ``extras.py``. Nothing runs on these
pages: their policy allows no script.
"""

import base64
import dataclasses
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup, escape

from fm_bench import recipe
from fm_bench.errors import UserError
from fm_bench.files import write_text
from fm_bench.leaderboard.charts import COLOURS
from fm_bench.leaderboard.columns import Column, Shown, Times, columns_of, glossary, group_head
from fm_bench.leaderboard.extras import RATES, Example, Extras, Look, Sheet, load_extras
from fm_bench.leaderboard.folds import fold_of
from fm_bench.leaderboard.learning import Stage, stages_of
from fm_bench.leaderboard.links import slug
from fm_bench.leaderboard.record import Record, find, load, load_all
from fm_bench.leaderboard.rows import Cell, Row, Table, flat, hardware, pool, settings, tables
from fm_bench.leaderboard.shown import ABOUT, number, words, work
from fm_bench.leaderboard.site import MODES, _environment, _source
from fm_bench.leaderboard.table import MISSING, ends
from fm_bench.leaderboard.views import headings, timed

GENERATOR = '<meta name="generator" content="fm-bench method page">'
TOLD = 4
"""What is wrong with a result, as far as it is told at once."""
_NOT_OF_TRAINING = ("evaluation.", "fold", "training_images")
"""Settings that say nothing of how a run was trained that is not said already: images follow from the budget."""

Kept = tuple[Extras, bytes | None]
"""The extras of a run, and the bytes of its pictures."""


def build_pages(records: Path, out: Path, home: str = "../index.html") -> list[Path]:
    """Writes a page for every method and variant that has a record, and removes pages of those that have none.

    What could not be taken is logged as a warning.

    Args:
        records: folder of the records.
        out: folder of the pages.
        home: address of the main page, as seen from these.

    Returns:
        The pages, sorted.

    Raises:
        UserError: if ``records`` is no folder or a page cannot be written.
    """
    pages, problems = _pages_of(records, home)
    for problem in problems:
        logging.getLogger(__name__).warning("%s", problem)
    for name, html in pages.items():
        write_text(out / name, html)
    for page in _ours(out):
        if page.name not in pages:
            page.unlink()
    return [out / name for name in pages]


def stale_pages(records: Path, out: Path, home: str = "../index.html") -> list[Path]:
    """The pages in ``out`` that are missing, out of date or too many. Raises UserError as ``build_pages``."""
    pages, _ = _pages_of(records, home)
    wrong = [
        out / name
        for name, html in pages.items()
        if not (out / name).is_file() or (out / name).read_text(encoding="utf-8", errors="replace") != html
    ]
    return wrong + [page for page in _ours(out) if page.name not in pages]


def _pages_of(records: Path, home: str) -> tuple[dict[str, str], list[str]]:
    """Every page by its file's name, and what is wrong with extras."""
    kept: dict[str, Kept] = {}
    problems = []
    for path in find(records):
        with suppress(UserError):  # damaged records are named on the main page
            fingerprint = load(path).fingerprint
            try:
                if (extras := load_extras(path)) is not None:
                    kept[fingerprint] = extras
            except UserError as error:
                problems.append(str(error))
    return render_pages(load_all(records)[0], kept, home), problems


def _ours(folder: Path) -> list[Path]:
    """Pages in ``folder`` that an earlier build wrote, sorted."""
    return [
        page
        for page in sorted(folder.glob("*.html"))
        if GENERATOR in page.read_text(encoding="utf-8", errors="replace")[:4000]
    ]


def render_pages(records: Sequence[Record], kept: Mapping[str, Kept], home: str) -> dict[str, str]:
    """Every page as text, by the name of its file.

    Args:
        records: all records, in any order.
        kept: fingerprint of a run -> what it left for its page.
        home: address of the main page, as seen from these.
    """
    every = tables(records)
    labels: dict[str, str] = {}
    for record in records:
        labels.setdefault(f"{slug(record.label)}.html", record.label)
    return {name: _render(labels[name], every, kept, home) for name in sorted(labels)}


# What the template shows ------------------------------------------------------------------------------------------


class Settings(NamedTuple):
    """The settings of runs that differ in their seeds alone: those unlike their defaults, then all."""

    changed: tuple[tuple[str, str, str], ...]
    known: bool  # whether the defaults are
    every: tuple[tuple[str, str], ...]


@dataclasses.dataclass(frozen=True)
class Detail:
    """How the requests of one own row fail, and what it reaches by attribute."""

    row: Row
    requests: int
    results: int
    rates: tuple[tuple[str, Cell], ...]
    attributes: tuple[tuple[str, Cell | None, tuple[float | None, ...]], ...]
    told: bool  # whether anything is known of failures


@dataclasses.dataclass(frozen=True)
class Standing:
    """The method's rows in one table, with its variants, the leading row and the yardsticks."""

    table: Table
    heading: str
    about: str
    place: str
    groups: tuple[tuple[str, str, int], ...]
    columns: tuple[Column, ...]
    lines: tuple[tuple[Row, bool, tuple[Shown | None, ...]], ...]
    details: tuple[Detail, ...]

    @property
    def folded(self) -> bool:
        """Whether its rows are cross-validations."""
        return any(row.folds for row, *_ in self.lines)


@dataclasses.dataclass(frozen=True)
class Shots:
    """Examples and looks of one run, with the sheet of their pictures."""

    id: str
    run: Record
    protocol: str
    results: int
    kinds: tuple[tuple[str, tuple[Example, ...]], ...]
    looks: tuple[Look, ...]
    sheet: Sheet | None
    address: Markup

    @property
    def draws(self) -> bool:
        """Whether the method draws what it searches with."""
        return any(example.prototype is not None for _, examples in self.kinds for example in examples)

    def place(self, cell: int) -> str:
        """Where a cell is on the sheet, as a CSS background position."""
        assert self.sheet is not None
        row, column = divmod(cell, self.sheet.columns)
        across = 100 * column / max(1, self.sheet.columns - 1)
        return f"{across:.3f}% {100 * row / max(1, self.sheet.rows - 1):.3f}%"


@dataclasses.dataclass(frozen=True)
class Part:
    """All that a page shows of one data set, profile and mode."""

    id: str
    data: str
    profile: str
    mode: str
    about_mode: str
    settings: Settings
    runs: tuple[tuple[str, Record, str], ...]
    notes: tuple[str, ...]
    standings: tuple[Standing, ...]
    glossary: dict[str, str]
    seeds: tuple[tuple[str, str], ...]
    stages: tuple[Stage, ...]
    shots: Shots | None
    without: tuple[str, ...]


def _render(label: str, every: Sequence[Table], kept: Mapping[str, Kept], home: str) -> str:
    places: dict[tuple[str, str, str], list[Table]] = {}
    for table in every:
        places.setdefault(table.key[:3], []).append(table)
    mine = [of for of in places.values() if any(row.label == label for table in of for row in table.rows)]
    parts = tuple(_part(f"p{n}", label, of, kept) for n, of in enumerate(mine, start=1))
    runs = [run for part in parts for _, run, _ in part.runs]
    extras = [kept[run.fingerprint][0] for run in runs if run.fingerprint in kept]
    pages = _environment()
    html = pages.get_template("method.html").render(
        generator=Markup(GENERATOR),  # noqa: S704 our own text
        style=Markup(_source(pages, "page.css") + "\n" + _source(pages, "method.css")),  # noqa: S704 our own files
        label=label,
        home=home,
        description=_description(runs[0], extras),
        about=next((one.about for one in extras if one.about), ()),
        chosen=_recipe(runs[0]).get("chosen", ""),
        parts=parts,
        rate_names=RATES,
        missing=MISSING,
        words=words,
        ends=ends,
        number=number,
        code_spans=code_spans,
        told=TOLD,
    )
    return html.encode("utf-8", "backslashreplace").decode()  # JSON can hold halves of characters


def code_spans(text: str) -> Markup:
    """``text`` with what stands between double backticks as code."""
    pieces = text.split("``")
    if len(pieces) % 2 == 0:  # the last backticks have no partner
        pieces[-2:] = ["``".join(pieces[-2:])]
    marked = (Markup("<code>%s</code>") % piece if i % 2 else escape(piece) for i, piece in enumerate(pieces))
    return Markup("").join(marked)


def _description(run: Record, extras: Sequence[Extras]) -> tuple[str, ...]:
    """What the run itself said it is; for older records, what the recipe says today."""
    if found := next((one.description for one in extras if one.description), ()):
        return found
    of = _recipe(run)
    lines = (of.get("description"), of.get("variants", {}).get(run.variant, {}).get("description"))
    return tuple(str(line) for line in lines if line)


def _recipe(run: Record) -> Mapping[str, Any]:
    """What the recipe of the method says today; empty for methods that are not known here."""
    with suppress(UserError):
        return recipe.load("methods", run.method)
    return {}


def _part(name: str, label: str, of: Sequence[Table], kept: Mapping[str, Kept]) -> Part:
    times, called = timed(of), headings(of)
    of = [table for table in of if any(row.label == label for row in table.rows)]
    own = [row for table in of for row in table.rows if row.label == label]
    runs = list({run.fingerprint: run for row in own for run in row.records}.values())
    with_extras = [run for run in runs if run.fingerprint in kept]
    names = _names(runs)
    colours = {run.fingerprint: f"var(--s{i % COLOURS})" for i, run in enumerate(runs)}
    data, profile, mode = of[0].key[:3]
    without = [names[run.fingerprint] for run in runs if run.fingerprint not in kept]
    standings = tuple(_standing(label, table, called[table.key], times, kept) for table in of)
    return Part(
        id=name,
        data=data,
        profile=profile,
        mode=mode,
        about_mode=MODES[mode],
        settings=_settings(runs[0], kept),
        runs=tuple((names[run.fingerprint], run, hardware(run)) for run in runs),
        notes=tuple(dict.fromkeys(note for row in own for note in row.notes)),
        standings=standings,
        glossary=glossary(
            [column for standing in standings for column in standing.columns],
            folded=any(standing.folded for standing in standings),
        ),
        seeds=tuple((names[run.fingerprint], colours[run.fingerprint]) for run in with_extras),
        stages=stages_of({run.fingerprint: (run, kept[run.fingerprint][0]) for run in with_extras}, names, colours),
        shots=_shots(f"{name}-sheet", with_extras, kept),
        without=tuple(without),
    )


def _names(runs: Sequence[Record]) -> dict[str, str]:
    """What runs are called: by seed, fold, and how their training differs from the first; if need be by fingerprint."""
    first, names = settings(runs[0]), {}
    for run in runs:
        fold, own = fold_of(run), settings(run)
        keys = [key for key in {**first, **own} if first.get(key) != own.get(key)]
        unlike = [f"{key} {own.get(key, 'unset')}" for key in keys if not key.startswith(_NOT_OF_TRAINING)]
        more = [f"{len(unlike) - 2} more settings"] if len(unlike) > 3 else unlike[2:]
        parts = [f"seed {run.seed}", *([] if fold is None else [f"fold {fold}"]), *unlike[:2], *more]
        names[run.fingerprint] = ", ".join(parts)
    shared = Counter(names.values())
    return {key: f"{name}, run {key[:8]}" if shared[name] > 1 else name for key, name in names.items()}


def _settings(run: Record, kept: Mapping[str, Kept]) -> Settings:
    extras = kept.get(run.fingerprint)
    changed = () if extras is None else tuple((key, *pair) for key, pair in extras[0].changed.items())
    every = tuple((key, str(value)) for key, value in flat(run.config).items())
    return Settings(changed, extras is not None, every)


def _standing(label: str, table: Table, heading: str, times: Times, kept: Mapping[str, Kept]) -> Standing:
    own = [row for row in table.rows if row.label == label]
    competing = [row for row in table.rows if row.role == "method"]
    shown = [
        row
        for row in table.rows
        if row.first.method == own[0].first.method or row.role != "method" or row is competing[0]
    ]
    columns = [column for column in columns_of(table, times) if any(column.cell(row) for row in shown)]
    groups = _groups(columns, table.key.protocol)
    return Standing(
        table=table,
        heading=heading,
        about=ABOUT.get(table.key.protocol, ""),
        place=work(table.key.protocol, table.requests, table.key.gallery),
        groups=groups,
        columns=tuple(columns),
        lines=tuple((row, row in own, tuple(column.cell(row) for column in columns)) for row in shown),
        details=tuple(_detail(row, table, kept) for row in own),
    )


def _groups(columns: Iterable[Column], protocol: str) -> tuple[tuple[str, str, int], ...]:
    widths: dict[str, int] = {}
    for column in columns:
        widths[column.group] = widths.get(column.group, 0) + 1
    return tuple((*group_head(group, protocol), width) for group, width in widths.items())


def _detail(row: Row, table: Table, kept: Mapping[str, Kept]) -> Detail:
    protocol = table.key.protocol
    of = [kept[run.fingerprint][0].rates.get(protocol) for run in row.records if run.fingerprint in kept]
    told = [one for one in of if one is not None]
    pooled = ((name, pool([one.total.get(name) for one in told])) for name in RATES)
    names = dict.fromkeys([*table.attributes, *(name for one in told for name in one.by_attribute)])
    attributes = []
    for name in names:
        parts = [one.by_attribute.get(name, {}) for one in told]
        means = (pool([{"value": part[rate]} if rate in part else None for part in parts]) for rate in RATES)
        attributes.append((name, row.attribute_cell(name), tuple(mean and mean.value for mean in means)))
    return Detail(
        row,
        told[0].requests if told else 0,
        told[0].results if told else 0,
        tuple((name, cell) for name, cell in pooled if cell is not None),
        tuple(attributes),
        bool(told),
    )


def _shots(name: str, runs: Sequence[Record], kept: Mapping[str, Kept]) -> Shots | None:
    """The examples of the first run that has some, or of the first that shows more: pictures, and prototypes."""

    def shows(run: Record) -> tuple[bool, bool]:
        extras = kept[run.fingerprint][0]
        return any(example.prototype is not None for example in extras.examples), extras.sheet is not None

    with_examples = [run for run in runs if kept[run.fingerprint][0].examples]
    if not with_examples:
        return None
    run = max(with_examples, key=shows)  # the first of those that show most
    extras, content = kept[run.fingerprint]
    by_kind: dict[str, list[Example]] = {}
    for example in extras.examples:
        by_kind.setdefault(example.kind, []).append(example)
    address = Markup("data:image/webp;base64,") + base64.b64encode(content or b"").decode()
    kinds = tuple((kind, tuple(of)) for kind, of in by_kind.items())
    rates = extras.rates.get(extras.examples_of)
    results = 0 if rates is None else rates.results
    return Shots(name, run, extras.examples_of, results, kinds, extras.looks, extras.sheet, address)
