# SPDX-License-Identifier: MIT
"""Runs at profile ``smoke`` through the command line, for tests of every folder."""

import json
import os
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path
from unittest import mock

import ranks

from fm_bench import recipe
from fm_bench.cli import main

SPECS = [
    spec
    for name in recipe.names("methods")
    for spec in (name, *(f"{name}/{v}" for v in recipe.load("methods", name).get("variants", {})))
]
"""Every method and variant."""


BRIEF = {
    "flam": ["--stages.embedders.passes", "4", "--stages.manipulation.epochs", "2", "--stages.manipulation.passes", "1"]
}
"""Stages that read no picture are no shorter at smoke than elsewhere; here they are."""

SMALLER = {
    f"flam/{backbone}": ["--data.train", "200", "--data.val", "100", "--budget", "200"]
    for backbone in ("resnet50", "seresnet50", "seresnext50", "inception-resnet-v2", "densenet121")
}
"""Networks of the papers' sizes see fewer pictures than the recipe of smoke says, unless a test asks for more."""


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


def start(*arguments: str, out: Path, cache: Path) -> BaseProcess:
    """The command in a process of its own that says nothing and does not spend seconds on importing.

    ``cache`` is its FM_BENCH_CACHE.
    """
    process = ranks.forking().Process(target=_silently, args=(command(*arguments, out=out)[3:], cache))
    process.start()
    return process


def _silently(arguments: list[str], cache: Path) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.environ["FM_BENCH_CACHE"] = str(cache)
    sys.exit(main(arguments))


def bench(*arguments: str, out: Path) -> int:
    """The command in this process, at smoke, without a progress bar and without pictures for the method's page.

    ``test_run_extras.py`` draws them; a hundred after each run would take longer than some of the runs.
    """
    spec, *options = arguments
    options = [*SMALLER.get(spec, []), *options]
    quiet = ["--trainer.enable_progress_bar", "false", *BRIEF.get(spec.partition("/")[0], [])]
    with mock.patch("fm_bench.extras.collect.may_be_shown", return_value=False):
        return main(["bench", spec, *options, "--profile", "smoke", "--out", str(out), *quiet])


def numbers(folder: Path) -> dict:
    """Everything in a record that must not depend on time or place."""
    record = json.loads((folder / "record.json").read_text())
    for name in ("seconds", "query_ms", "peak_memory_mb", "command", "finished", "notes"):
        record.pop(name)
    record["search"].pop("peak_memory_mb", None)
    return record
