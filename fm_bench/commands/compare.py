# SPDX-License-Identifier: MIT
"""``fm-bench compare``: two methods on the same requests."""

import argparse
from pathlib import Path

from rich.console import Console

from fm_bench.commands import Commands, new_command


def add(commands: Commands) -> None:
    """What can be asked of two methods."""
    command = new_command(commands, "compare", _compare, "paired difference of two methods on the same requests")
    for name in ("A", "B"):
        command.add_argument(
            name.lower(), type=Path, metavar=name, help="a run's folder, a folder of its seeds, or a filed record"
        )


def _compare(options: argparse.Namespace) -> int:
    from fm_bench.leaderboard.versus import compare, print_comparison

    print_comparison(compare(options.a, options.b), Console())
    return 0
