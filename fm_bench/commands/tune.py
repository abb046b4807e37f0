# SPDX-License-Identifier: MIT
"""``fm-bench tune``: search the settings of a method on validation requests."""

import argparse
from pathlib import Path

from rich.console import Console

from fm_bench.commands import Commands, new_command
from fm_bench.errors import UserError


def add(commands: Commands) -> None:
    """What can be asked of a search."""
    text = "search the settings of a method on validation requests, with the same budget for every method"
    command = new_command(commands, "tune", _tune, text, takes_options=True)
    command.add_argument("method", metavar="METHOD", help="one with a search space under benchmarks/tuning")
    command.add_argument("--trials", type=int, default=20, help="how many, those done before included (default 20)")
    command.add_argument("--data", default="garments", help="see `fm-bench list data` (default garments)")
    command.add_argument("--profile", default="quick", help="whose training images each trial uses (default quick)")
    command.add_argument("--seed", type=int, default=0, help="of every trial (default 0)")
    command.add_argument("--out", type=Path, help="folder of the ledger (default: one below runs/tuning)")


def _tune(options: argparse.Namespace) -> int:
    from fm_bench.tuning import Tuner

    if options.trials < 1:
        raise UserError(f"--trials is {options.trials}: give 1 or more.")
    name = f"{options.method.replace('/', '-')}-seed{options.seed}"
    out = options.out or Path("runs/tuning") / f"{options.data}-{options.profile}" / name
    console = Console(stderr=True)
    tuner = Tuner(options.method, options.data, options.profile, options.seed, options.rest, out, console)
    best = tuner.run(options.trials).best
    if best is None:
        raise UserError(f"no trial ended well: {out} says why of each.")
    print(" ".join(f"--{name} {value}" for name, value in best.parameters.items()))
    console.print(f"a run with these, and all trials in its record: fm-bench bench {options.method} --tuned {out}")
    return 0
