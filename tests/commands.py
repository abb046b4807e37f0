# SPDX-License-Identifier: MIT
"""Runs at profile ``smoke`` through the command line, for tests of every folder."""

import json
import sys
from pathlib import Path

from fm_bench import recipe
from fm_bench.cli import main

SPECS = [
    spec
    for name in recipe.names("methods")
    for spec in (name, *(f"{name}/{v}" for v in recipe.load("methods", name).get("variants", {})))
]
"""Every method and variant."""


def command(*arguments, out: Path) -> list[str]:
    return [
        sys.executable,
        "-m",
        "fm_bench.cli",
        "bench",
        *map(str, arguments),
        "--profile",
        "smoke",
        "--out",
        str(out),
    ]


def bench(*arguments: str, out: Path) -> int:
    """The command in this process, at smoke and without a progress bar."""
    quiet = ["--trainer.enable_progress_bar", "false"]
    return main(["bench", *arguments, "--profile", "smoke", "--out", str(out), *quiet])


def numbers(folder: Path) -> dict:
    """Everything in a record that must not depend on time or place."""
    record = json.loads((folder / "record.json").read_text())
    for name in ("seconds", "query_ms", "peak_memory_mb", "command", "finished", "notes"):
        record.pop(name)
    return record
