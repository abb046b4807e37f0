# SPDX-License-Identifier: MIT
"""``fm-bench data``: fetches, decodes, checks, counts and shows a data set before anything is trained on it."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from fm_bench.commands import EXIT_CHECK_FAILED, Commands, new_command

if TYPE_CHECKING:
    from fm_bench.config import RunConfig


def add(commands: Commands) -> None:
    """Adds the command and its actions."""
    actions = commands.add_parser("data", help="look at a data set before training on it").add_subparsers(
        required=True, metavar="ACTION"
    )
    for name, run, text in (
        ("prepare", _prepare, "decode every picture once, as a run would; with --download, fetch the data before"),
        ("validate", _validate, "read every picture and report what is wrong; exit status 1 if anything is"),
        ("info", _info, "count images, values and missing labels"),
        ("preview", _preview, "write a contact sheet with labels"),
    ):
        command = new_command(actions, name, run, text, takes_options=True)
        command.add_argument(
            "data", metavar="DATA", help="see `fm-bench list data`; options of its reader follow as --data.NAME VALUE"
        )
        command.add_argument("--profile", default="quick", help="whose sizes to use (default quick)")
        if name == "prepare":
            command.add_argument(
                "--download", action="store_true", help="fetch what anyone may fetch of it to --data.root, or continue"
            )
        if name in ("validate", "info"):
            command.add_argument("--json", action="store_true", help="for programs")
        if name == "validate":
            command.add_argument(
                "--fix",
                action="store_true",
                help="list what can be mended by leaving it out, in our cache folder and never in the data's: pictures "
                "that cannot be read, and those of training and validation that belong to items or equal files of a "
                "later split or contradict each other. Commands with --data.on_error skip then leave them out, as "
                "long as the data are the same; exit status 1 if anything remains",
            )
        if name == "preview":
            command.add_argument(
                "--out", type=Path, default=Path("preview.png"), help="PNG to write (default preview.png)"
            )
            command.add_argument("--seed", type=int, default=0, help="which pictures are shown")


def _config(options: argparse.Namespace) -> "RunConfig":
    from fm_bench.config import configure

    return configure("random", options.data, options.profile, "common", 0, options.rest)


def _prepare(options: argparse.Namespace) -> int:
    from fm_bench import recipe
    from fm_bench.bench import prepare
    from fm_bench.data.downloads import download
    from fm_bench.files import user_path

    config = _config(options)
    console = Console(stderr=True)
    if options.download:
        download(recipe.reader_name(config.data), user_path(config.reader.get("root", "")), console)
    print(prepare(config, console))
    return 0


def _validate(options: argparse.Namespace) -> int:
    from fm_bench.data.validate import validate

    config = _config(options)
    return _show(options, validate(config.read(), on_error=config.reader.get("on_error", "fail"), fix=options.fix))


def _info(options: argparse.Namespace) -> int:
    from fm_bench.data.validate import info

    return _show(options, info(_config(options).read()))


def _show(options: argparse.Namespace, report: dict[str, Any]) -> int:
    from fm_bench.data.validate import print_report

    if options.json:
        print(json.dumps(report, indent=2))
    else:
        print_report(report, Console())
    return EXIT_CHECK_FAILED if report.get("problems") else 0


def _preview(options: argparse.Namespace) -> int:
    from fm_bench.data.preview import contact_sheet

    if options.data == "garments":  # show both domains, unless asked otherwise
        options.rest = ["--data.street", "0.4", *options.rest]
    config = _config(options)
    contact_sheet(config.read(), out=options.out, seed=options.seed)
    print(options.out)
    return 0
