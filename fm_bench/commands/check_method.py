# SPDX-License-Identifier: MIT
"""``fm-bench check-method``: whether a method holds what every method must."""

import argparse
import json

from rich.console import Console

from fm_bench.commands import EXIT_CHECK_FAILED, Commands, new_command

_MARKS = {True: "[green]holds[/]", False: "[red]FAILS[/]", None: "told"}


def add(commands: Commands) -> None:
    """What can be asked of a check."""
    command = new_command(
        commands,
        "check-method",
        _check_method,
        "try a method out in seconds; exit status 1 if it does not hold what every method must",
        takes_options=True,
    )
    command.add_argument(
        "method",
        metavar="METHOD",
        help="package.module:Class, path/to/file.py:Class or a name, with /VARIANT where wanted",
    )
    command.add_argument("--json", action="store_true", help="for programs")


def _check_method(options: argparse.Namespace) -> int:
    from rich.markup import escape
    from rich.table import Table

    from fm_bench.method_check import check_method

    progress = Console(stderr=True)
    with progress.status("checking") as status:
        checkup = check_method(options.method, options.rest, say=lambda name: status.update(f"checking: {name}"))
    if options.json:
        print(json.dumps(checkup.as_json(), indent=2))
    else:
        table = Table("check", "", "what was found", title=checkup.method, title_justify="left", box=None)
        for finding in checkup.findings:
            table.add_row(finding.name, _MARKS[finding.holds], escape(finding.detail))
        Console().print(table)
    return 0 if checkup.holds else EXIT_CHECK_FAILED
