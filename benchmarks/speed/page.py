# SPDX-License-Identifier: MIT
"""Puts the numbers of ``results/`` into this folder's README, so that none is typed by hand.

python benchmarks/speed/page.py [--check] [--take FOLDER]

Every pair of lines ``<!-- speed:NAME:begin -->`` and ``<!-- speed:NAME:end -->`` receives the tables of
``results/NAME.json``, with the command and the machine that gave them; a NAME such as ``training_photos`` is another
measurement by ``training.py``. ``--take`` first copies what a ``make speed``
left in a folder; ``--check`` writes nothing and fails if the page is not what the files say.
"""

import argparse
import json
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common import cell, columns, is_text

from fm_bench.errors import UserError
from fm_bench.files import replacing, write_text
from fm_bench.leaderboard.table import escape, line

HERE = Path(__file__).resolve().parent
BLOCK = re.compile(r"(<!-- speed:(\w+):begin -->\n).*?(<!-- speed:\2:end -->)", re.DOTALL)


def update(page: Path, results: Path, *, check: bool = False) -> bool:
    """Rewrites the blocks of ``page``; returns whether they were out of date, and with ``check`` only that.

    Raises:
        UserError: if a file of results cannot be read.
    """
    text = page.read_text(encoding="utf-8")
    new = BLOCK.sub(lambda found: found[1] + block(found[2], results) + found[3], text)
    if new != text and not check:
        write_text(page, new)
    return new != text


def block(name: str, results: Path) -> str:
    """What stands between the markers of one benchmark."""
    path = results / f"{name}.json"
    if not path.exists():
        script = next((found for found in HERE.glob("*.py") if name.startswith(f"{found.stem}_")), Path(f"{name}.py"))
        options = "" if script.stem == name else " …"
        command = f"python benchmarks/speed/{script.name}{options} --json benchmarks/speed/results/{name}.json"
        return f"\nNot measured yet: `{command}`\n\n"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        tables = "\n\n".join(f"{escape(table['title'])}\n\n{markdown(table['rows'])}" for table in content["tables"])
        note = f"\n\n{content['note']}" if content["note"] else ""
        return f"\n`{content['command']}` on {machine(content)}\n\n{tables}{note}\n\n"
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} holds no tables of a speed benchmark ({error!r}): measure again.") from error


def machine(content: Mapping[str, Any]) -> str:
    """The processor, how much of it, and the GPU where one was there."""
    found, torch = content["machine"], content["versions"]["torch"]
    gpu = f", {', '.join(found['gpus'])}" if found["gpus"] else ", no GPU"
    return f"{found['cpu']}, {found['cores']} cores{gpu}; torch {torch}"


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table in Markdown, numbers to the right."""
    names = columns(rows)
    marks = [":---" if is_text(rows, name) else "---:" for name in names]
    body = [[escape(cell(row.get(name))) for name in names] for row in rows]
    return "\n".join(line(cells) for cells in ([escape(name) for name in names], marks, *body))


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 1 if ``--check`` finds a stale page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--take", type=Path, metavar="FOLDER", help="such as runs/speed")
    given = parser.parse_args(argv)
    results = HERE / "results"
    if given.take and not given.check:
        for path in sorted(given.take.glob("*.json")):
            with replacing(results / path.name) as temporary:
                shutil.copyfile(path, temporary)
    stale = update(HERE / "README.md", results, check=given.check)
    if given.check and stale:
        print("benchmarks/speed/README.md is not what its results say: run python benchmarks/speed/page.py")
    return int(given.check and stale)


if __name__ == "__main__":
    sys.exit(main())
