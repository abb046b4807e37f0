# SPDX-License-Identifier: MIT
"""Tables as text: for the terminal after a run, and as Markdown for the README."""

import html
import math
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from fm_bench.leaderboard.compare import fold_test
from fm_bench.leaderboard.folds import holm
from fm_bench.leaderboard.record import Record
from fm_bench.leaderboard.rows import Cell, Key, Row, Table, hardware, tables
from fm_bench.leaderboard.shown import TEXT, columns, head, headline, narrow, number, words, work
from fm_bench.leaderboard.shown import unit as counted_in

if TYPE_CHECKING:  # only its fields are read
    from fm_bench.evaluation.evaluator import Report

WIDE = 96
"""Columns of a console that shows everything."""

MISSING = "\N{EN DASH}"


# Words for numbers, used by the page as well -------------------------------------------------------------------------


def span(low: float | None, high: float | None) -> str:
    """``.660–.704``, ``-.010 to .020``, or nothing where there are no ends."""
    if low is None or high is None:
        return ""
    return f"{_short(low)}{MISSING if low >= 0 else ' to '}{_short(high)}"


def ends(metric: str, low: float | None, high: float | None) -> str:
    """``.660–.704`` for shares, milliseconds as ``number`` writes them, nothing where there are no ends."""
    if counted_in(metric) != "ms" or low is None or high is None:
        return span(low, high)
    return MISSING.join(number(metric, end) for end in (low, high))


def interval(cell: Cell | None, metric: str = "") -> str:
    """The 95 % interval of a cell, as ``ends`` writes it."""
    return "" if cell is None else ends(metric, cell.low, cell.high)


def _short(value: float) -> str:
    return f"{value:.3f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.3f}"


def duration(seconds: float | None) -> str:
    """``8.4 s``, ``5.5 min`` or ``2.1 h``."""
    if seconds is None:
        return MISSING
    for size, unit in ((3600.0, "h"), (60.0, "min")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def count(value: float) -> str:
    """``850``, ``12.3 k``, ``11.2 M``."""
    for unit, size in (("G", 1e9), ("M", 1e6)):
        if value >= size:
            return f"{value / size:.1f} {unit}"
    return f"{value / 1e3:.1f} k" if value >= 1e4 else f"{value:.0f}"


def title(key: Key) -> str:
    """What was asked, of what, and how big: ``garments · quick · common · manipulate-1``."""
    return f"{key.data} · {key.profile} · {key.mode} · {key.heading}"


def about(table: Table) -> str:
    """How many requests and gallery images, and what guessing reaches."""
    text = work(table.key.protocol, table.requests, table.key.gallery)
    best = table.headline
    return text + (f", {words(best)} by chance {table.chance[best]:.3f}" if best in table.chance else "")


# Terminal ------------------------------------------------------------------------------------------------------------


def print_table(records: Iterable[Record] | Record, console: Console, new: Collection[str] = ()) -> None:
    """Prints every table that ``records`` fill, within 100 columns.

    Args:
        records: one record or several.
        console: where to.
        new: fingerprints of the runs whose rows are highlighted.
    """
    for table in tables([records] if isinstance(records, Record) else records):
        console.print(_rich(table, new, console.width))


def print_folds(records: Iterable[Record], console: Console) -> None:
    """Prints every fold and their mean for the main metrics of each protocol, within 80 columns.

    Of several methods, each is compared with the best one by a paired t-test over the folds.

    Args:
        records: of one or more cross-validations.
        console: where to.
    """
    for table in tables(records):
        console.print(_folds(table))
        best, others = _rivals(table)
        if best is not None and others:
            console.print(_differences(table, best, others))


def _folds(table: Table) -> RichTable:
    """One line per method and metric: every fold, their mean and its t-interval."""
    result = RichTable(
        title=Text(title(table.key)),
        caption=Text(f"{about(table)}; requests of all folds together, means over folds with 95 % t-interval"),
        box=SIMPLE_HEAD,
        title_justify="left",
        caption_justify="left",
        pad_edge=False,
    )
    result.add_column("metric", overflow="fold", max_width=24)
    folds = sorted({fold for row in table.rows for fold in row.folds})
    for name in (*(f"fold\n{fold}" for fold in folds), "mean", "95 %\ninterval"):
        result.add_column(Text(name), justify="right", no_wrap=True)
    for row in table.rows:
        style = "" if row.role == "method" else "dim"
        result.add_row(Text(_mark(row), style="bold"), style=style)
        for metric in columns(table.key.protocol, table.metrics, TEXT):
            each = dict(zip(row.folds, row.by_fold(metric), strict=True))
            texts = [_value(metric, cell) for cell in (*(each.get(fold) for fold in folds), row.cell(metric))]
            result.add_row(Text(f"  {words(metric)}"), *texts, interval(row.cell(metric), metric), style=style)
    return result


def _rivals(table: Table) -> tuple[Row | None, list[Row]]:
    """The best row by the headline, the ceiling apart, and every other one that can be compared with it."""
    able = [row for row in table.rows if row.role != "ceiling" and row.cell(table.headline) is not None]
    return (able[0] if able else None), able[1:]


def _differences(table: Table, best: Row, others: Sequence[Row]) -> RichTable:
    """What each row lacks to the best one, with the p-values of all methods adjusted for their number.

    Floors are shown but not counted: that a method beats guessing is no claim of the table.
    """
    metric = table.headline
    found = [fold_test(row.records, best.records, table.key.protocol, metric) for row in others]
    result = RichTable(
        title=Text(f"{words(metric)}, difference from the best row, {best.label}"),
        caption=Text(
            "paired t-test over folds against the best row, two-sided; "
            "Holm: p adjusted for all methods of this table, floors left out"
        ),
        box=SIMPLE_HEAD,
        title_justify="left",
        caption_justify="left",
        pad_edge=False,
    )
    for name in ("method", "difference", "95 % interval", "p", "p (Holm)"):
        result.add_column(name, justify="left" if name == "method" else "right", overflow="fold")
    adjusted = iter(holm([test.p for row, test in zip(others, found, strict=True) if row.role != "floor"]))
    for row, test in zip(others, found, strict=True):
        ends = f"{test.low:+.3f} to {test.high:+.3f}"
        corrected = MISSING if row.role == "floor" else _p(next(adjusted))
        result.add_row(Text(_mark(row)), f"{test.value:+.3f}", ends, _p(test.p), corrected)
    return result


def _p(value: float) -> str:
    return "<.001" if value < 0.001 else _short(value)


def print_report(report: "Report", protocol: str, console: Console) -> None:
    """Prints one evaluation: every metric with its interval, and the one that ranks rows by changed attribute."""
    result = RichTable(title=Text(f"{protocol}: {report.requests:,} requests, {report.gallery:,} gallery images"))
    result.box, result.title_justify = SIMPLE_HEAD, "left"
    for name in ("metric", "value", "95 % interval"):
        result.add_column(name, justify="left" if name == "metric" else "right")
    best = headline(protocol, report.metrics)
    parts = {name: metrics[best] for name, metrics in report.by_attribute.items() if best in metrics}
    named = report.metrics | {f"{best}, {name} changed": estimate for name, estimate in parts.items()}
    for name, estimate in named.items():
        known = estimate.low is not None and not math.isnan(estimate.low) and not name.startswith("chance@")
        result.add_row(Text(words(name)), f"{estimate.value:.3f}", span(estimate.low, estimate.high) if known else "")
    console.print(result)


def _rich(table: Table, new: Collection[str], width: int) -> RichTable:
    """The table for a console of ``width`` columns; a narrow one shows less rather than breaking names."""
    wide = width >= WIDE
    every = columns(table.key.protocol, table.metrics, TEXT)
    metrics = every if wide else narrow(every)
    how = "95 % interval over requests"
    if any(row.folds for row in table.rows):
        how = "mean over folds with 95 % t-interval over folds"
    elif any(len(row.records) > 1 for row in table.rows):
        how = f"mean over seeds with {how}"
    result = RichTable(
        title=Text(title(table.key)),
        caption=Text(f"{about(table)}; {how}{table.searches and f'. {table.searches}'}"),
        box=SIMPLE_HEAD,
        title_justify="left",
        caption_justify="left",
        pad_edge=False,
    )
    result.add_column("method", overflow="fold", min_width=16, max_width=26)
    if wide:
        result.add_column("seeds", justify="right")
    for metric in metrics:
        result.add_column(Text(head(metric)), justify="right", no_wrap=True)
    for row in table.rows:
        style = "bold green" if any(run.fingerprint in new for run in row.records) else ""
        style = style or ("dim" if row.role != "method" else "")
        seeds = [str(row.seeds)] if wide else []
        texts = (_text(row, metric, table.headline) for metric in metrics)
        result.add_row(Text(_mark(row)), *seeds, *texts, style=style)
    if table.chance:
        values = (f"{table.chance[metric]:.3f}" if metric in table.chance else "" for metric in metrics)
        result.add_row("chance", *([""] if wide else []), *values, style="dim")
    return result


def _text(row: Row, metric: str, best: str) -> str:
    cell = row.cell(metric)
    shown = _value(metric, cell)
    return f"{shown} {interval(cell, metric)}".rstrip() if metric == best else shown


def _value(metric: str, cell: Cell | None) -> str:
    return MISSING if cell is None else number(metric, cell.value)


def _mark(row: Row) -> str:
    marks = [*([] if row.role == "method" else [row.role]), *row.tags]
    return f"{row.label} ({', '.join(marks)})" if marks else row.label


# Markdown ------------------------------------------------------------------------------------------------------------


def markdown_table(records: Iterable[Record], protocol: str) -> str:
    """The results of ``protocol`` as Markdown, one table per data set, profile and mode, with commands and machine."""
    parts = [_markdown(table) for table in tables(records) if table.key.protocol == protocol]
    return "\n\n".join(parts)


def _markdown(table: Table) -> str:
    metrics = columns(table.key.protocol, table.metrics, TEXT)
    heads = ["method", "seeds", *map(words, metrics), "size", "training", "query"]
    lines = [f"**{escape(title(table.key))}** ({about(table)})", "", line(heads)]
    lines.append(line([":---", *(["---:"] * (len(heads) - 1))]))
    for row in table.rows:
        query = row.mean("query_ms")
        cost = [str(row.first.dim), duration(row.mean("train")), MISSING if query is None else f"{query:.2f} ms"]
        texts = (_text(row, metric, table.headline) for metric in metrics)
        lines.append(line([escape(_mark(row)), str(row.seeds), *texts, *cost]))
    if table.chance:
        values = (f"{table.chance[metric]:.3f}" if metric in table.chance else "" for metric in metrics)
        lines.append(line(["*chance*", "", *values, "", "", ""]))
    machines = dict.fromkeys(hardware(run) for row in table.rows for run in row.records)
    machine = "; ".join(filter(None, machines)) or "not recorded"
    lines += ["", escape(table.searches)] if table.searches else []
    command = next((row.first.command for row in table.rows if row.role == "method"), table.rows[0].first.command)
    lines += ["", f"Command of the best method: `{command.replace('`', '')}`. Machine: {escape(machine)}."]
    return "\n".join(lines)


def line(cells: Sequence[str]) -> str:
    """A row of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def escape(text: str) -> str:
    """Text that neither ends a table cell nor is read as HTML or emphasis."""
    text = html.escape(" ".join(text.split()), quote=False)
    for mark in "\\`*_|[]":
        text = text.replace(mark, f"\\{mark}")
    return text
