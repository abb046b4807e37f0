# SPDX-License-Identifier: MIT
"""What the speed benchmarks share: a timer that other programs' load disturbs little, tables, and JSON."""

import argparse
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from fm_bench.environment import hardware, versions
from fm_bench.files import write_json

Row = Mapping[str, Any]
"""One line of a table: a value per column, text or number."""


def taken(
    works: Mapping[str, Callable[[], Any]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds of every round of each work.

    The works take turns, forwards and backwards, so that other programs' load meets all of them alike.

    Args:
        works: what to do, by name; a work that returns a ``float`` has measured the seconds that count itself.
        rounds: how often.
        clock: seconds since some moment; ``time.process_time`` for the processor's.
    """
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds):
        for name in reversed(works) if number % 2 else works:
            start = clock()
            measured = works[name]()
            seconds[name].append(measured if isinstance(measured, float) else clock() - start)
    return seconds


def best(
    works: Mapping[str, Callable[[], Any]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Seconds of each work's fastest round, the one that other programs' load met least; see ``taken``."""
    return {name: min(seconds) for name, seconds in taken(works, rounds, clock).items()}


def options(doc: str | None, rounds: int | None = None) -> argparse.ArgumentParser:
    """A parser with what every benchmark understands; its help is ``doc``, the script's docstring.

    Args:
        doc: what the benchmark does.
        rounds: by default; None if it has none.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    if rounds is not None:
        parser.add_argument("--rounds", type=int, default=rounds, help="how often each side is measured")
    parser.add_argument("--json", type=Path, help="also write the tables there")
    return parser


def publish(
    name: str, tables: Mapping[str, Sequence[Row]], argv: Sequence[str] | None, json: Path | None, note: str = ""
) -> None:
    """Prints tables, and writes them with the command and the machine that they came from.

    Args:
        name: of the script.
        tables: rows by title.
        argv: as ``main`` got it.
        json: where to; None writes nothing.
        note: what readers of the numbers must know.
    """
    console = Console(width=None if sys.stdout.isatty() else 140)
    for title, rows in tables.items():
        table = Table(title=title)
        for column in columns(rows):
            table.add_column(column, justify="left" if is_text(rows, column) else "right")
        for row in rows:
            table.add_row(*(cell(row.get(column)) for column in columns(rows)))
        console.print(table)
    if note:
        console.print(note, highlight=False)
    if json is not None:
        content = {
            "benchmark": name,
            "command": command(name, sys.argv[1:] if argv is None else argv),
            "machine": hardware(),
            "versions": versions(),
            "note": note,
            "tables": [{"title": title, "rows": [dict(row) for row in rows]} for title, rows in tables.items()],
        }
        write_json(json, content)


def to_first(rows: Sequence[Row], column: str) -> list[Row]:
    """The rows with one more column: ``column`` as a ratio to that of the first row."""
    return [{**row, "ratio to the first": row[column] / rows[0][column]} for row in rows]


def command(name: str, argv: Sequence[str]) -> str:
    """What gives these numbers again: the script with its arguments, but for where the numbers went."""
    kept, skip = [], False
    for argument in argv:
        if skip or argument == "--json" or argument.startswith("--json="):
            skip = argument == "--json"
            continue
        kept.append(argument)
    return shlex.join(["python", f"benchmarks/speed/{name}.py", *kept])


def columns(rows: Sequence[Row]) -> list[str]:
    """Every column that some row has, in the order in which they come up."""
    return list(dict.fromkeys(column for row in rows for column in row))


def is_text(rows: Iterable[Row], column: str) -> bool:
    """Whether a column holds text somewhere."""
    return any(isinstance(row.get(column), str) for row in rows)


def cell(value: Any) -> str:
    """A value for readers: whole numbers with separators, others with three digits or so."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or abs(value) >= 100:
        return f"{value:,.0f}"
    if value and abs(value) < 0.01:
        return f"{value:.2g}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
