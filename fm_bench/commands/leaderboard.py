# SPDX-License-Identifier: MIT
"""``fm-bench leaderboard``: tables and pages from records."""

import argparse
import sys
from pathlib import Path

from fm_bench.commands import EXIT_CHECK_FAILED, Commands, new_command
from fm_bench.errors import UserError


def add(commands: Commands) -> None:
    """What can be asked of the leaderboard."""
    actions = commands.add_parser("leaderboard", help="tables and pages from records").add_subparsers(
        required=True, metavar="ACTION"
    )
    for name, run, text in (
        ("build", _build, "write the page of all records, one for each method, and the table in the README"),
        ("check", _check, "exit status 1 if a record was edited, records contradict each other, or a page is stale"),
    ):
        command = new_command(actions, name, run, text)
        command.add_argument("--records", type=Path, default=Path("leaderboards/records"))
        command.add_argument("--out", type=Path, default=Path("leaderboards/index.html"), help="the page")
        command.add_argument("--readme", type=Path, nargs="+", default=[], help="Markdown files with results markers")
    command = new_command(actions, "add", _add, "file the record of a run")
    command.add_argument("run_dir", type=Path, metavar="DIR")
    command.add_argument("--records", type=Path, default=Path("leaderboards/records"))
    command.add_argument("--replace", action="store_true", help="in the place of a filed record of the same run")
    command = new_command(actions, "extras", _extras, "prepare what the method's page shows of finished runs")
    command.add_argument("run_dirs", type=Path, metavar="DIR", nargs="*", help="folders of runs")
    command.add_argument(
        "--records",
        type=Path,
        help="file it beside the records in this folder, too; without DIR, note the SHA-256 of what was filed without",
    )


def _build(options: argparse.Namespace) -> int:
    from fm_bench.leaderboard.method_pages import build_pages
    from fm_bench.leaderboard.site import build

    pages = _method_pages(options)
    print(f"{pages}: {len(build_pages(options.records, pages, f'../{options.out.name}'))} pages")
    print(build(options.records, options.out))
    for path in _stale_readmes(options, check=False):
        print(path)
    return 0


def _check(options: argparse.Namespace) -> int:
    from fm_bench.leaderboard.extras import check_extras
    from fm_bench.leaderboard.filing import problems as problems_of
    from fm_bench.leaderboard.method_pages import stale_pages
    from fm_bench.leaderboard.site import is_stale

    stale = stale_pages(options.records, _method_pages(options), f"../{options.out.name}")
    stale += [options.out] if is_stale(options.records, options.out) else []
    stale += _stale_readmes(options, check=True)
    problems = problems_of(options.records) + check_extras(options.records)
    for problem in [*problems, *(f"{path} is stale: run `make leaderboard`." for path in stale)]:
        print(f"fm-bench: {problem}", file=sys.stderr)
    return EXIT_CHECK_FAILED if stale or problems else 0


def _method_pages(options: argparse.Namespace) -> Path:
    """The folder of the method pages, beside the page; they are written first, since it links to what is there."""
    from fm_bench.leaderboard.links import METHODS

    folder: Path = options.out.parent / METHODS
    return folder


def _stale_readmes(options: argparse.Namespace, *, check: bool) -> list[Path]:
    """The Markdown files that are not what the records say; unless it only checks, they now are."""
    if not options.readme:
        return []
    from fm_bench.leaderboard.claims import judge
    from fm_bench.leaderboard.compare import load_runs
    from fm_bench.leaderboard.readme import update_readme
    from fm_bench.leaderboard.record import load_all

    records, verdicts = load_all(options.records)[0], judge(load_runs(options.records)[0])
    return [path for path in options.readme if update_readme(path, records, verdicts, check=check)]


def _add(options: argparse.Namespace) -> int:
    from fm_bench.leaderboard.filing import add as file_record

    print(file_record(options.run_dir, options.records, replace=options.replace))
    return 0


def _extras(options: argparse.Namespace) -> int:
    from fm_bench.leaderboard.filing import file_extras, list_extras

    if not options.run_dirs:
        if options.records is None:
            raise UserError("leaderboard extras was given nothing to do: name folders of runs, or --records.")
        for path in list_extras(options.records):
            print(path)
        return 0
    from fm_bench.extras.collect import prepare  # imports torch

    for run in options.run_dirs:
        print(prepare(run))
        for path in file_extras(run, options.records) if options.records else ():
            print(path)
    return 0
