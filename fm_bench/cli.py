# SPDX-License-Identifier: MIT
"""The command line: parses and calls, nothing else. What is slow to import is imported by the command that needs it."""

import argparse
import errno
import json
import logging
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from fm_bench import __version__, recipe
from fm_bench.errors import UserError

if TYPE_CHECKING:
    from fm_bench.config import RunConfig

EXIT_CHECK_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130
SHOWN = ("manipulate-1", "region", "instance", "detection", "classification", "generation", "latency")
"""Protocols whose tables stand in the README."""
LOGGERS = ("csv", "tensorboard", "wandb", "none")
Command = Callable[[argparse.Namespace], int]
Commands = Any  # argparse has no public name for what add_subparsers returns


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

    command = _command(commands, "list", _list, "what there is: methods, data sets, profiles, protocols")
    command.add_argument("kind", nargs="?", choices=recipe.KINDS, help="only this kind")

    command = _command(
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

    command = _command(commands, "evaluate", _evaluate, "judge a trained run again, by any protocol")
    command.add_argument("run_dir", type=Path, metavar="DIR", help="the run's folder")
    command.add_argument("--protocol", required=True, help="see `fm-bench list protocols`")

    command = _command(commands, "explain", _explain, "a picture of requests and of what the run found for them")
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

    command = _command(commands, "score", _score, "judge anyone's embeddings from files")
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

    _data_commands(commands)
    _leaderboard_commands(commands)
    return parser


def _data_commands(commands: Commands) -> None:
    actions = commands.add_parser("data", help="look at a data set before training on it").add_subparsers(
        required=True, metavar="ACTION"
    )
    for name, run, text in (
        ("prepare", _data_prepare, "decode every picture once, as a run would"),
        ("validate", _data_validate, "read every picture and report what is wrong; exit status 1 if anything is"),
        ("info", _data_info, "count images, values and missing labels"),
        ("preview", _data_preview, "write a contact sheet with labels"),
    ):
        command = _command(actions, name, run, text, takes_options=True)
        command.add_argument(
            "data", metavar="DATA", help="see `fm-bench list data`; options of its reader follow as --data.NAME VALUE"
        )
        command.add_argument("--profile", default="quick", help="whose sizes to use (default quick)")
        if name in ("validate", "info"):
            command.add_argument("--json", action="store_true", help="for programs")
        if name == "preview":
            command.add_argument(
                "--out", type=Path, default=Path("preview.png"), help="PNG to write (default preview.png)"
            )
            command.add_argument("--seed", type=int, default=0, help="which pictures are shown")


def _leaderboard_commands(commands: Commands) -> None:
    actions = commands.add_parser("leaderboard", help="tables and pages from records").add_subparsers(
        required=True, metavar="ACTION"
    )
    for name, run, text in (
        ("build", _leaderboard_build, "write the page of all records in a folder, and the table in the README"),
        ("check", _leaderboard_check, "exit status 1 if the page or the table is not what the records say"),
    ):
        command = _command(actions, name, run, text)
        command.add_argument("--records", type=Path, default=Path("leaderboards/records"))
        command.add_argument("--out", type=Path, default=Path("leaderboards/index.html"), help="the page")
        command.add_argument("--readme", type=Path, help="Markdown file with the results markers")
    command = _command(actions, "add", _leaderboard_add, "file the record of a run")
    command.add_argument("run_dir", type=Path, metavar="DIR")
    command.add_argument("--records", type=Path, default=Path("leaderboards/records"))
    command = _command(actions, "compare", _leaderboard_compare, "paired difference of two runs on the same requests")
    command.add_argument("a", type=Path, metavar="DIR_A")
    command.add_argument("b", type=Path, metavar="DIR_B")


def _command(
    commands: Commands, name: str, run: Command, text: str, *, takes_options: bool = False
) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=text[0].upper() + text[1:] + ".", allow_abbrev=False
    )
    command.set_defaults(run=run, takes_options=takes_options)
    return command


# ---------------------------------------------------------------------- what is done


def _list(options: argparse.Namespace) -> int:
    console = Console()
    for kind in [options.kind] if options.kind else recipe.KINDS:
        table = Table("name", "what it is", title=kind, title_justify="left", box=None, padding=(0, 2))
        for name in recipe.names(kind):
            content = recipe.load(kind, name)
            table.add_row(name, content.get("description", ""))
            for variant, of in content.get("variants", {}).items():
                table.add_row(f"{name}/{variant}", of.get("description", ""))
        console.print(table)
        console.print()
    return 0


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


def _evaluate(options: argparse.Namespace) -> int:
    from fm_bench.finished import reevaluate
    from fm_bench.leaderboard.table import print_report

    written = reevaluate(options.run_dir, options.protocol, Console(stderr=True))
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


def _reader_config(options: argparse.Namespace) -> "RunConfig":
    from fm_bench.config import configure

    return configure("random", options.data, options.profile, "common", 0, options.rest)


def _data_prepare(options: argparse.Namespace) -> int:
    from fm_bench.bench import prepare

    print(prepare(_reader_config(options), Console(stderr=True)))
    return 0


def _data_validate(options: argparse.Namespace) -> int:
    from fm_bench.data.validate import validate

    return _data_report(options, validate)


def _data_info(options: argparse.Namespace) -> int:
    from fm_bench.data.validate import info

    return _data_report(options, info)


def _data_report(options: argparse.Namespace, inspect: Callable[..., dict[str, Any]]) -> int:
    from fm_bench.data.validate import print_report

    config = _reader_config(options)
    report = inspect(config.read())
    if options.json:
        print(json.dumps(report, indent=2))
    else:
        print_report(report, Console())
    return EXIT_CHECK_FAILED if report.get("problems") else 0


def _data_preview(options: argparse.Namespace) -> int:
    from fm_bench.data.preview import contact_sheet

    if options.data == "garments":  # show both domains, unless asked otherwise
        options.rest = ["--data.street", "0.4", *options.rest]
    config = _reader_config(options)
    contact_sheet(config.read(), out=options.out, seed=options.seed)
    print(options.out)
    return 0


def _leaderboard_build(options: argparse.Namespace) -> int:
    from fm_bench.leaderboard.site import build

    print(build(options.records, options.out))
    if options.readme and _update_readme(options):
        print(options.readme)
    return 0


def _leaderboard_check(options: argparse.Namespace) -> int:
    from fm_bench.leaderboard.record import load_all
    from fm_bench.leaderboard.site import is_stale

    stale = [options.out] if is_stale(options.records, options.out) else []
    if options.readme and _update_readme(options, check=True):
        stale.append(options.readme)
    problems = load_all(options.records)[1]
    for problem in [*problems, *(f"{path} is stale: run `make leaderboard`." for path in stale)]:
        print(f"fm-bench: {problem}", file=sys.stderr)
    return EXIT_CHECK_FAILED if stale or problems else 0


def _update_readme(options: argparse.Namespace, *, check: bool = False) -> bool:
    from fm_bench.leaderboard.claims import judge
    from fm_bench.leaderboard.compare import load_runs
    from fm_bench.leaderboard.readme import update_readme
    from fm_bench.leaderboard.record import load_all

    verdicts = judge(load_runs(options.records)[0])
    return update_readme(options.readme, load_all(options.records)[0], verdicts, SHOWN, check=check)


def _leaderboard_add(options: argparse.Namespace) -> int:
    from fm_bench.leaderboard.record import add

    print(add(options.run_dir, options.records))
    return 0


def _leaderboard_compare(options: argparse.Namespace) -> int:
    from fm_bench.leaderboard.compare import compare, print_comparison

    print_comparison(compare(options.a, options.b), Console())
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
