# SPDX-License-Identifier: MIT
"""The commands of ``fm-bench``, one module each, with ``add(commands)`` that says what can be asked.

A module parses and calls, nothing else. What is slow to import is imported by the function that needs it.
"""

import argparse
from collections.abc import Callable
from typing import Any

EXIT_CHECK_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130
Command = Callable[[argparse.Namespace], int]
"""Does what was asked for; returns the exit status."""
Commands = Any  # argparse has no public name for what add_subparsers returns


def new_command(
    commands: Commands, name: str, run: Command, text: str, *, takes_options: bool = False
) -> argparse.ArgumentParser:
    """A parser for one more command.

    Args:
        commands: the group that it joins.
        name: as typed.
        run: what it does.
        text: what it does in words, for the list of commands.
        takes_options: whether options of methods, readers and Trainer may follow, which ``run`` finds in ``rest``.
    """
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=text[0].upper() + text[1:] + ".", allow_abbrev=False
    )
    command.set_defaults(run=run, takes_options=takes_options)
    return command
