# SPDX-License-Identifier: MIT
"""``fm-bench bench``: train, search, judge and record."""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from fm_bench.commands import EXIT_CHECK_FAILED, Commands, new_command
from fm_bench.errors import UserError

if TYPE_CHECKING:
    from fm_bench.campaign import Job
    from fm_bench.leaderboard.record import Record

LOGGERS = ("csv", "tensorboard", "wandb", "none")


def add(commands: Commands) -> None:
    """What can be asked of a run."""
    command = new_command(
        commands, "bench", _bench, "train, search, judge and record one or more methods", takes_options=True
    )
    command.add_argument(
        "methods",
        nargs="+",
        metavar="METHOD",
        help="name or name/variant, see `fm-bench list methods`, or all; or somebody's own: package.module:Class or "
        "path/to/file.py:Class",
    )
    command.add_argument("--data", nargs="+", default=["garments"], help="see `fm-bench list data` (default garments)")
    command.add_argument("--profile", default="quick", help="see `fm-bench list profiles` (default quick)")
    command.add_argument("--mode", default="common", help="common (the leaderboard's) or paper")
    command.add_argument(
        "--seed", "--seeds", dest="seeds", type=int, nargs="+", default=[0], help="of everything random (default 0)"
    )
    command.add_argument(
        "--folds", type=int, metavar="5", help="cross-validate: five runs on disjoint tests of a tenth of the data each"
    )
    command.add_argument(
        "--index",
        help="what the gallery is searched with: exact (default), a FAISS factory string such as HNSW32,Flat or "
        "'IVF256,PQ16;nprobe=16', or milvus:gallery.db; the same as --evaluation.index",
    )
    command.add_argument(
        "--tuned",
        type=Path,
        metavar="DIR",
        help="use the best settings that `fm-bench tune` found, and record its trials",
    )
    command.add_argument("--out", type=Path, help="the run's folder (default: one below --runs)")
    command.add_argument("--runs", type=Path, default=Path("runs"), help="where runs and the leaderboard page are kept")
    command.add_argument(
        "--logger",
        choices=LOGGERS,
        default="csv",
        help="where learning curves go besides CSV files (default csv: nowhere; none: not even there); wandb writes "
        "below the run's folder unless WANDB_MODE=online",
    )
    command.add_argument(
        "--log-pictures",
        type=int,
        metavar="N",
        help="requests that wandb (default 20, the most) or tensorboard (default 0) shows with what was found",
    )
    command.add_argument("--no-page", action="store_true", help="leave the leaderboard page as it is")
    command.add_argument(
        "--options", action="store_true", help="print every option of METHOD, data set and Trainer, and stop"
    )


def _bench(options: argparse.Namespace) -> int:
    from fm_bench.campaign import run_all, tell_failures
    from fm_bench.config import option_parser
    from fm_bench.launch import started
    from fm_bench.leaderboard.table import print_folds, print_table

    jobs = jobs_of(options)
    if options.options:
        for method, data in dict.fromkeys((job.configs[0].method, job.configs[0].data) for job in jobs):
            print(option_parser(method, data).format_help())
        return 0
    if options.out and len(jobs) > 1:
        raise UserError(
            f"--out {options.out} names one folder but {len(jobs)} runs were asked for: leave it out or ask for one."
        )
    console = Console(stderr=True)

    def say(line: str) -> None:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    if len(jobs) > 1 and started()[0] == 1:  # processes that were started together run everything together
        with nullcontext() if options.no_page else page_after(options.runs, say):
            records, failures = run_all(jobs, options.runs, say)
    else:
        records, failures = [record for job in jobs for record in _run(job, options, console)], {}
        if records and not options.no_page:
            build_page(options.out or options.runs, say)
    if records and options.folds:
        print_folds(records, Console())
    elif records:
        print_table(records, Console(), new=[record.fingerprint for record in records])
    tell_failures(failures, len(jobs), say)
    return EXIT_CHECK_FAILED if failures else 0


@contextmanager
def page_after(runs: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Builds the leaderboard of ``runs`` when the block is over, also where the user has interrupted it."""
    try:
        yield
    except KeyboardInterrupt:
        with suppress(UserError):  # it is the interruption that is told
            build_page(runs, say)
        raise
    build_page(runs, say)


def build_page(runs: Path, say: Callable[[str], None]) -> None:
    """Builds the leaderboard of ``runs`` and says where it is; does nothing while nothing is recorded there."""
    from fm_bench.leaderboard.links import METHODS
    from fm_bench.leaderboard.method_pages import build_pages
    from fm_bench.leaderboard.record import find
    from fm_bench.leaderboard.site import PAGE, refresh_page

    if runs.is_dir() and find(runs):
        build_pages(runs, runs / METHODS, f"../{PAGE}")  # before the page that links to them
        say(f"leaderboard: {refresh_page(runs)}")


def jobs_of(options: argparse.Namespace) -> "list[Job]":
    """Every method on every data set with every seed, each once. Raises UserError if one of them makes no sense."""
    from fm_bench.campaign import EVERY, Job, every_method, options_of
    from fm_bench.config import configure, cross_validation
    from fm_bench.data.folds import FOLDS
    from fm_bench.tuning import tuned_options

    if options.folds not in (None, FOLDS):
        raise UserError(
            f"--folds is {options.folds}, but the data are cut into {FOLDS} disjoint tests of a tenth each: "
            f"give --folds {FOLDS}, or leave it out for the data set's own split."
        )
    rest = [*options.rest, *(["--evaluation.index", options.index] if options.index is not None else [])]
    every = every_method() if EVERY in options.methods else []
    named = [given for given in options.methods if given != EVERY]
    shared = ["--profile", options.profile, "--mode", options.mode, "--runs", str(options.runs)]
    shared += ["--log-pictures", str(options.log_pictures)] if options.log_pictures is not None else []
    shared += ["--tuned", str(options.tuned)] if options.tuned else []
    shared += ["--no-page", "--logger", options.logger, *(["--folds", str(options.folds)] if options.folds else [])]
    jobs: dict[str, Job] = {}
    for seed in options.seeds:
        for data in options.data:
            fitting = options_of(data, options.data, rest) if len(options.data) > 1 else rest
            for spec in (*named, *every):
                config = configure(spec, data, options.profile, options.mode, seed, fitting)
                if options.tuned:
                    best, ledger = tuned_options(options.tuned, config.label, data)
                    config = configure(spec, data, options.profile, options.mode, seed, [*best, *fitting])
                    config = replace(config, tuned=ledger)
                configs = cross_validation(config) if options.folds else [config]
                command = ["bench", spec, "--data", data, "--seed", str(seed), *shared, *fitting]
                job = Job(tuple(configs), tuple(command), named=spec in named)
                jobs.setdefault(job.name, job)
    return list(jobs.values())


def _run(job: "Job", options: argparse.Namespace, console: Console) -> "list[Record]":
    """The records of one job, run here; none on processes that write none."""
    from fm_bench.bench import Bench
    from fm_bench.data.folds import FOLDS

    records = []
    for config in job.configs:
        out = options.out
        if config.fold is not None:
            console.print(f"{config.label}, fold {config.fold} of 0 to {FOLDS - 1}", highlight=False)
            out = out and out / f"fold{config.fold}"
        record = Bench(
            config, out, options.runs, options.logger, options.command_line, console, options.log_pictures
        ).run()
        if record:
            records.append(record)
    return records
