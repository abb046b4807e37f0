# SPDX-License-Identifier: MIT
"""The command line: parses and calls, nothing else. What is slow to import is imported by the command that needs it."""

import argparse
import errno
import logging
import os
import shlex
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fm_bench import __version__, recipe, third_party
from fm_bench.commands import (
    EXIT_BAD_INPUT,
    EXIT_INTERRUPTED,
    Command,
    bench,
    check_method,
    compare,
    data,
    leaderboard,
    new_command,
    regress,
    tune,
)
from fm_bench.errors import UserError


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command. Returns the exit status: 0 done, 1 a check did not hold, 2 bad input, 130 interrupted."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = _parser()
    options, rest = parser.parse_known_args(given)
    if rest and not options.takes_options:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    options.rest, options.command_line = rest, shlex.join(["fm-bench", *given])
    _quieten()
    try:
        run: Command = options.run
        return run(options)
    except UserError as error:
        print(f"fm-bench: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        print("fm-bench: interrupted; the same command continues where this one stopped.", file=sys.stderr)
        return EXIT_INTERRUPTED
    except OSError as error:
        if isinstance(error, BrokenPipeError):  # whoever reads our output has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise
        print(
            f"fm-bench: {error.filename or 'a file'} could not be written ({error.strerror}): make room.",
            file=sys.stderr,
        )
        return EXIT_BAD_INPUT


# ---------------------------------------------------------------------- what can be asked


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "fm-bench", description="The benchmark of fashion search with attribute manipulation.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"fm-bench {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = new_command(commands, "list", _list, "what there is: methods, data sets, profiles, protocols")
    command.add_argument("kind", nargs="?", choices=recipe.KINDS, help="only this kind")

    bench.add(commands)
    check_method.add(commands)

    command = new_command(commands, "evaluate", _evaluate, "judge a trained run again, by any protocol")
    command.add_argument("run_dir", type=Path, metavar="DIR", help="the run's folder")
    command.add_argument("--protocol", required=True, help="see `fm-bench list protocols`")
    command.add_argument("--index", help="what the gallery is searched with (default: as the run did)")

    command = new_command(commands, "explain", _explain, "a picture of requests and of what the run found for them")
    command.add_argument("run_dir", type=Path, metavar="DIR", help="the run's folder")
    command.add_argument("--protocol", help="whose requests are shown (default manipulate-1)")
    which = command.add_mutually_exclusive_group()
    which.add_argument("--maps", action="store_true", help="where fashionsearchnet looks, instead of what was found")
    which.add_argument("--prototypes", action="store_true", help="what amgan and cgan drew, beside what was found")
    which.add_argument("--embedding", metavar="ATTRIBUTE", help="an attribute's values before and after it was changed")
    command.add_argument("--attributes", nargs="+", default=[], help="with --maps: whose maps (default all)")
    command.add_argument("--requests", type=int, default=5, help="rows of the picture (default 5)")
    command.add_argument("--seed", type=int, default=0, help="which requests or pictures are shown")
    command.add_argument("--out", type=Path, required=True, help="PNG to write")

    command = new_command(commands, "score", _score, "judge anyone's embeddings from files")
    command.add_argument(
        "--gallery", type=Path, required=True, help=".npz: embeddings (N, D), labels (N, A), optional item_ids (N,)"
    )
    command.add_argument(
        "--queries",
        type=Path,
        required=True,
        help=".npz: embeddings (R, D), targets (R, A), optional item_ids, exclude (R,)",
    )
    command.add_argument(
        "--k", type=int, nargs="+", default=[1, 5, 10, 20, 30, 50], help="cut-offs of accuracy and NDCG"
    )
    command.add_argument("--mrr-at", type=int, default=1000, help="deepest rank that counts for MRR (default 1000)")
    command.add_argument("--out", type=Path, required=True, help="JSON report to write")

    data.add(commands)
    leaderboard.add(commands)
    compare.add(commands)
    regress.add(commands)
    tune.add(commands)
    return parser


# ---------------------------------------------------------------------- what is done


def _list(options: argparse.Namespace) -> int:
    console = Console()
    for problem in third_party.join_registered() if options.kind in (None, "methods") else ():
        print(f"fm-bench: {problem}", file=sys.stderr)
    for kind in [options.kind] if options.kind else recipe.KINDS:
        table = Table("name", "what it is", title=kind, title_justify="left", box=None, padding=(0, 2))
        for name in recipe.names(kind):
            content = recipe.load(kind, name)
            table.add_row(name, content.get("description", ""))
            if "paper" in content:
                from fm_bench.questions import needs

                table.add_row("", f"[dim]{escape(needs(name))}[/dim]")
            for variant, of in content.get("variants", {}).items():
                table.add_row(f"{name}/{variant}", of.get("description", ""))
        console.print(table)
        console.print()
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    from fm_bench.finished import reevaluate
    from fm_bench.leaderboard.table import print_report

    written = reevaluate(options.run_dir, options.protocol, Console(stderr=True), options.index)
    if written is None:  # another process of the run has written it
        return 0
    report, path = written
    print_report(report, options.protocol, Console())
    Console(stderr=True).print(f"written: {path}")
    return 0


def _explain(options: argparse.Namespace) -> int:
    from fm_bench.embedding_sheet import embedding_sheet
    from fm_bench.explain import maps_sheet, results_sheet
    from fm_bench.prototype_sheet import prototype_sheet

    folder, out, seed = options.run_dir, options.out, options.seed
    if options.protocol and (options.maps or options.embedding):
        raise UserError("--maps and --embedding choose pictures of their own: leave --protocol out.")
    if options.attributes and not options.maps:
        raise UserError("--attributes chooses among maps: add --maps.")
    if options.embedding:
        embedding_sheet(folder, options.embedding, out, seed=seed)
    elif not options.maps:
        sheet = prototype_sheet if options.prototypes else results_sheet
        sheet(folder, options.protocol or "manipulate-1", options.requests, out, seed=seed)
    else:
        overlaps = maps_sheet(folder, options.requests, out, attributes=options.attributes, seed=seed)
        for part, scores in overlaps.items():
            print(f"overlap with the true {part}: " + ", ".join(f"{name} {iou:.2f}" for name, iou in scores.items()))
    print(out)
    return 0


def _score(options: argparse.Namespace) -> int:
    from fm_bench.evaluation.score import score

    report = score(options.gallery, options.queries, options.k, options.mrr_at, options.out)
    for name, estimate in report["metrics"].items():
        interval = f"  [{estimate['low']:.4f}, {estimate['high']:.4f}]" if "low" in estimate else ""
        print(f"{name:24s} {estimate['value']:.4f}{interval}")
    return 0


def _is_serious(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


def _quieten() -> None:
    """Lightning's hints about accelerators and workers are for people who write loops; our users read a table."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it asks a server for its version when imported
    os.environ.setdefault("WANDB_SILENT", "true")
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).addFilter(_is_serious)  # a filter, since Lightning sets its levels anew when imported
    warnings.filterwarnings("ignore", module=r"lightning\.")
    warnings.filterwarnings("ignore", module=r"torch\.jit")


if __name__ == "__main__":
    sys.exit(main())
