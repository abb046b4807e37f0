# SPDX-License-Identifier: MIT
"""``fm-bench regress``: whether runs do worse than the recorded ones."""

import argparse
import importlib.metadata
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from fm_bench.commands import EXIT_CHECK_FAILED, Commands, new_command
from fm_bench.commands.bench import jobs_of, page_after
from fm_bench.errors import UserError

if TYPE_CHECKING:
    from fm_bench.campaign import Job
    from fm_bench.leaderboard.regress import Measured

RECORDS = Path("leaderboards/records")
BASELINES = Path("benchmarks/baselines")
SEEDS = {False: [0], True: [0, 1, 2]}
"""Of a test, and of what is recorded for later ones."""
RUNS = {False: Path("runs/regress"), True: Path("runs/baseline")}
"""The same."""


def add(commands: Commands) -> None:
    """What can be asked of a regression test."""
    text = "run methods again; exit status 1 if one does worse than its records, beyond their noise"
    command = new_command(commands, "regress", _regress, text, takes_options=True)
    command.add_argument(
        "methods",
        nargs="+",
        metavar="METHOD",
        help="name or name/variant, or all: every one with a recorded score of a protocol that it would be asked",
    )
    command.add_argument("--data", nargs="+", default=["garments"], help="see `fm-bench list data` (default garments)")
    command.add_argument("--profile", default="smoke", help="smoke (default) or quick")
    command.add_argument(
        "--seed", "--seeds", dest="seeds", type=int, nargs="+", help="default 0; with --update 0, 1 and 2"
    )
    command.add_argument(
        "--baseline",
        type=Path,
        help=f"folder of records, or file that --update wrote (default: {BASELINES}/PROFILE.json if there is one, else "
        f"{RECORDS})",
    )
    command.add_argument(
        "--runs",
        type=Path,
        help=f"where the runs are kept (default {RUNS[False]}; with --update {RUNS[True]}, since none is to be "
        "compared with itself), below a folder for these libraries on this machine: with others they are run again",
    )
    command.add_argument("--summary", type=Path, default=Path("runs/regress/summary.md"), help="Markdown to write")
    command.add_argument("--update", action="store_true", help="record the runs in the baseline file, test nothing")
    command.set_defaults(mode="common", folds=None, index=None, logger="none", log_pictures=None, tuned=None)


def _regress(options: argparse.Namespace) -> int:
    from fm_bench.campaign import EVERY, run_all, tell_failures
    from fm_bench.leaderboard.regress import Measured, failed, judge, keep, summary

    baseline = _baseline(options)
    recorded = [] if options.update else _recorded(baseline, options)
    place = options.runs or RUNS[options.update]
    options.runs = place / surroundings()
    options.seeds = SEEDS[options.update] if options.seeds is None else options.seeds
    console = Console(stderr=True)

    def say(line: str) -> None:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    every = EVERY in options.methods and not options.update
    jobs = _jobs_of_all(options, recorded, say) if every else jobs_of(options)
    if not jobs:
        raise UserError(
            f"{baseline} has no score of profile {options.profile} on {' or '.join(options.data)}: record some with "
            "`fm-bench regress --update METHOD …`."
        )
    with page_after(place, say):
        records, failures = run_all(jobs, options.runs, say)
    fresh = [Measured.of(record) for record in records]
    if options.update:
        keep(fresh, baseline)
        print(baseline)
        tell_failures(failures, len(jobs), say)
        return EXIT_CHECK_FAILED if failures else 0
    findings, broken = judge(fresh, recorded), [f"{name}: {sentence}" for name, sentence in failures.items()]
    _publish(summary(findings, broken), options.summary)
    return EXIT_CHECK_FAILED if failed(findings, broken) else 0


def _jobs_of_all(
    options: argparse.Namespace, recorded: "Sequence[Measured]", say: Callable[[str], None]
) -> "list[Job]":
    """Every recorded method on the data of its records, but for those whose records leave nothing to compare."""
    from fm_bench.campaign import options_of

    jobs = []
    for data in options.data:
        names = sorted({run.name for run in recorded if run.data == data})
        fitting = options_of(data, options.data, options.rest)
        own = vars(options) | {"methods": names, "data": [data], "rest": fitting}
        for job in jobs_of(argparse.Namespace(**own)):
            config = job.configs[0]
            known = (run.scores.keys() for run in recorded if (run.name, run.data) == (config.label, data))
            if any(protocols & set(config.evaluation.every) for protocols in known):
                jobs.append(job)
            else:
                say(f"{job.name} is left out: no record has a score of what it would be asked")
    return jobs


def surroundings() -> str:
    """A digest of every installed package and of the machine: what can change a result beside settings, data and code.

    The fingerprint of a run knows neither, and without them a test after an upgrade would find the runs of before.
    """
    from fm_bench.environment import hardware, versions
    from fm_bench.files import digest

    installed = sorted({f"{package.name} {package.version}" for package in importlib.metadata.distributions()})
    return digest(installed, versions(), hardware())[:8]


def _baseline(options: argparse.Namespace) -> Path:
    """Where recorded runs are read from, or written to. Raises UserError if a folder would be overwritten."""
    own = BASELINES / f"{options.profile}.json"
    chosen: Path = options.baseline or (own if options.update or own.exists() else RECORDS)
    if options.update and chosen.is_dir():
        raise UserError(f"{chosen} is a folder of records, which `fm-bench leaderboard add` fills: give a file.")
    return chosen


def _recorded(baseline: Path, options: argparse.Namespace) -> "list[Measured]":
    from fm_bench.leaderboard.regress import recorded_in

    runs = recorded_in(baseline)
    return [run for run in runs if (run.profile, run.mode) == (options.profile, "common") and run.data in options.data]


def _publish(text: str, path: Path) -> None:
    """Shows the summary, writes it, and appends it to the page of a GitHub job where this runs in one."""
    from fm_bench.files import write_text

    print(text)
    write_text(path, text)
    if page := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(page).open("a", encoding="utf-8") as file:
            file.write(text)
