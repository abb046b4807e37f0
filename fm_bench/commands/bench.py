# SPDX-License-Identifier: MIT
"""``fm-bench bench``: train, search, judge and record."""

import argparse
from pathlib import Path

from rich.console import Console

from fm_bench.commands import Commands, new_command
from fm_bench.errors import UserError

LOGGERS = ("csv", "tensorboard", "wandb", "none")


def add(commands: Commands) -> None:
    """What can be asked of a run."""
    command = new_command(
        commands, "bench", _bench, "train, search, judge and record one or more methods", takes_options=True
    )
    command.add_argument(
        "methods", nargs="+", metavar="METHOD", help="name or name/variant, see `fm-bench list methods`"
    )
    command.add_argument("--data", default="garments", help="see `fm-bench list data` (default garments)")
    command.add_argument("--profile", default="quick", help="see `fm-bench list profiles` (default quick)")
    command.add_argument("--mode", default="common", help="common (the leaderboard's) or paper")
    command.add_argument("--seed", type=int, default=0, help="of everything random (default 0)")
    command.add_argument(
        "--folds", type=int, metavar="5", help="cross-validate: five runs on disjoint tests of a tenth of the data each"
    )
    command.add_argument(
        "--index",
        help="what the gallery is searched with: exact (default), a FAISS factory string such as HNSW32,Flat or "
        "'IVF256,PQ16;nprobe=16', or milvus:gallery.db; the same as --evaluation.index",
    )
    command.add_argument("--out", type=Path, help="the run's folder (default: one below --runs)")
    command.add_argument("--runs", type=Path, default=Path("runs"), help="where runs and the leaderboard page are kept")
    command.add_argument("--logger", choices=LOGGERS, default="csv", help="where learning curves go (default csv)")
    command.add_argument(
        "--options", action="store_true", help="print every option of METHOD, data set and Trainer, and stop"
    )


def _bench(options: argparse.Namespace) -> int:
    from fm_bench.bench import Bench
    from fm_bench.config import configure, cross_validation, option_parser
    from fm_bench.data.folds import FOLDS
    from fm_bench.leaderboard.site import refresh_page
    from fm_bench.leaderboard.table import print_folds, print_table

    rest = [*options.rest, *(["--evaluation.index", options.index] if options.index is not None else [])]
    configs = [
        configure(spec, options.data, options.profile, options.mode, options.seed, rest) for spec in options.methods
    ]
    if options.options:
        for config in configs:
            print(option_parser(config.method, config.data).format_help())
        return 0
    if options.out and len(configs) > 1:
        raise UserError(
            f"--out {options.out} names one folder but {len(configs)} methods were given: "
            "leave it out or give one method."
        )
    if options.folds not in (None, FOLDS):
        raise UserError(
            f"--folds is {options.folds}, but the data are cut into {FOLDS} disjoint tests of a tenth each: "
            f"give --folds {FOLDS}, or leave it out for the data set's own split."
        )
    if options.folds:
        configs = [fold for config in configs for fold in cross_validation(config)]
    console = Console(stderr=True)
    records = []
    for config in configs:
        out = options.out
        if options.folds:
            console.print(f"{config.label}, fold {config.fold} of 0 to {FOLDS - 1}", highlight=False)
            out = out and out / f"fold{config.fold}"
        record = Bench(config, out, options.runs, options.logger, options.command_line, console).run()
        if record:
            records.append(record)
    if records and options.folds:
        print_folds(records, Console())
    elif records:
        print_table(records, Console(), new=[record.fingerprint for record in records])
    if records:
        page = refresh_page(options.out or options.runs)
        console.print(f"leaderboard: {page}")
    return 0
