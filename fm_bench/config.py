# SPDX-License-Identifier: MIT
"""The resolved configuration of one run, and how the command line changes it.

The signatures of the reader, the method and ``Trainer`` are the schema: every argument of theirs is an option, typed
and checked, and an option that does not exist is an error.
"""

import argparse
import contextlib
import hashlib
import inspect
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import lightning as L
from jsonargparse import ArgumentParser, Namespace

from fm_bench import recipe, third_party
from fm_bench.catalog import Dataset
from fm_bench.data.crops import cropped
from fm_bench.data.folds import FOLDS, folded, whole_digest
from fm_bench.data.mending import mended
from fm_bench.data.readers import READERS
from fm_bench.data.sample import Room, sampled
from fm_bench.environment import computes_in_bfloat16, wants_gpu
from fm_bench.errors import UserError, unknown
from fm_bench.files import digest
from fm_bench.leaderboard import record as record_file
from fm_bench.methods import METHODS
from fm_bench.questions import alike, sample_of
from fm_bench.recipe import EXACT, EvaluationConfig, LoaderConfig, StageBudget

# Trainer settings that change what is printed or where it is kept, but no number.
SHOWN_ONLY = {
    "logger",
    "default_root_dir",
    "enable_progress_bar",
    "enable_model_summary",
    "log_every_n_steps",
    "profiler",
}
# Where the data lie changes no number.
_PLACES = {"root"}
MODES = ("common", "paper")
AUTO = "auto"
"""In a profile, the precision that the hardware is fast in."""
GIVEN_BY_DATA = {"attributes", "domains", "pairs", "image_size"}
"""Arguments of methods that are no settings: the schema, how many domains there are, what makes a pair, the pictures'
height and width."""


@dataclass(frozen=True)
class RunConfig:
    """Everything that a run is made of.

    Args:
        method: name under ``benchmarks/methods``, or of a method that is not the suite's own.
        variant: of the method, or empty.
        data: name under ``benchmarks/data``.
        profile: name under ``benchmarks/profiles``.
        mode: ``common`` or ``paper``.
        seed: of everything random.
        budget: training images; a triplet counts as three.
        reader: arguments of the data set's reader.
        hyper: arguments of the method, the schema apart.
        stages: per stage, its share of the budget.
        loader: how pictures reach the method.
        evaluation: what is asked of it.
        trainer: arguments of ``Trainer`` that are not its defaults.
        fold: of a 5-fold cross-validation, 0 to 4; None for the split that comes with the data.
        folded: digest of the data, whatever their split, that are cross-validated; empty without folds.
        source: where a method comes from that is not the suite's own, see ``fm_bench.third_party``.
        tuned: ledger of the search that its settings come from, see ``fm_bench.tuning``; empty without one.
    """

    method: str
    variant: str
    data: str
    profile: str
    mode: str
    seed: int
    budget: int
    reader: dict[str, Any]
    hyper: dict[str, Any]
    stages: dict[str, StageBudget]
    loader: LoaderConfig
    evaluation: EvaluationConfig
    trainer: dict[str, Any]
    fold: int | None = None
    folded: str = ""
    source: dict[str, str] = field(default_factory=dict)
    tuned: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """``method`` or ``method/variant``, as on the command line."""
        return f"{self.method}/{self.variant}" if self.variant else self.method

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width that pictures are shown at."""
        aspect, short = READERS[recipe.reader_name(self.data)].aspect, self.loader.image_size
        return (round(short * aspect), short) if aspect >= 1 else (short, round(short / aspect))

    @property
    def data_names(self) -> tuple[str, str]:
        """What its data are called: the name of the recipe, and that of the reader."""
        return self.data, recipe.reader_name(self.data)

    def read(self) -> Dataset:
        """Catalogue and pictures of the run. Raises UserError for everything a user can mend."""
        about = sample_of(self.evaluation.protocols, self.data_names)
        dataset = READERS[recipe.reader_name(self.data)](**self.reader).read()
        skips = self.reader.get("on_error") == "skip"
        dataset = mended(dataset) if skips else dataset
        if about is not None:
            room = Room(self.evaluation.gallery, self.evaluation.requests) if self.evaluation.shrink else None
            dataset = sampled(dataset, about[1], about[0], self.data, room)
            dataset = mended(dataset) if skips else dataset  # what was listed of this sample, whose splits are others
        dataset = dataset if self.fold is None else folded(dataset, self.fold)
        dataset = cropped(dataset) if self.loader.crop == "true" else dataset
        if self.folded and self.folded != whole_digest(dataset):
            raise UserError("the data have changed since their cross-validation began: restore them or begin again.")
        return dataset

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        plain = asdict(self)
        plain["trainer"] = {name: _plain(value) for name, value in self.trainer.items()}
        return plain

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "RunConfig":
        """The inverse of ``to_dict``, for plain Trainer settings.

        Raises:
            UserError: if a method that is not the suite's own cannot be loaded, or has changed.
        """
        third_party.rejoin(plain["method"], plain.get("source", {}))
        stages = {name: StageBudget(**budget) for name, budget in plain["stages"].items()}
        loader, evaluation = LoaderConfig(**plain["loader"]), EvaluationConfig(**plain["evaluation"])
        return cls(**dict(plain) | {"stages": stages, "loader": loader, "evaluation": evaluation})

    def numeric(self) -> dict[str, Any]:
        """The part that can change a number: all but where things lie and how many processes load them."""
        plain = self.to_dict()
        plain["reader"] = {name: value for name, value in plain["reader"].items() if name not in _PLACES}
        plain["hyper"] = {name: _content(name, value) for name, value in plain["hyper"].items()}
        plain["loader"].pop("num_workers")
        plain["trainer"] = {name: value for name, value in plain["trainer"].items() if name not in SHOWN_ONLY}
        if plain["loader"]["crop"] == "full":  # as before the option existed: older records stay comparable
            del plain["loader"]["crop"]
        if not plain["evaluation"]["also"]:
            del plain["evaluation"]["also"]
        plain["evaluation"]["index"] = self.evaluation.index_name
        if self.evaluation.index == EXACT:
            del plain["evaluation"]["index"]
        if not self.evaluation.shrink:
            del plain["evaluation"]["shrink"]
        for budget in plain["stages"].values():
            for name in [name for name in ("batch_size", "passes") if budget[name] == getattr(StageBudget(), name)]:
                del budget[name]
        if self.fold is None:
            del plain["fold"], plain["folded"]
        plain["source"].pop("reference", None)  # where it lies changes no number
        if not self.source:
            del plain["source"]
        plain["tuned"] = digest(self.tuned)  # the record has all of it
        if not self.tuned:
            del plain["tuned"]
        return plain


def configure(spec: str, data: str, profile: str, mode: str, seed: int, options: Sequence[str] = ()) -> RunConfig:
    """Merges the recipes of a run and the options of its command line.

    Args:
        spec: ``method`` or ``method/variant``; for methods that are not the suite's own see ``third_party.join``.
        data: name of the data set.
        profile: name of the profile.
        mode: ``common`` or ``paper``.
        seed: of everything random.
        options: what is left of the command line, e.g. ``["--trainer.max_epochs", "1"]``.

    Raises:
        UserError: on any unknown name, option or value.
    """
    if mode not in MODES:
        raise unknown("mode", mode, MODES)
    if seed < 0:
        raise UserError(f"--seed is {seed}: give 0 or more.")
    spec, source = third_party.join(spec)
    method, variant = recipe.split_method(spec)
    merged = recipe.defaults(method, variant, data, profile, mode)
    parser = option_parser(method, data)
    _set_defaults(parser, method, merged)
    given = _parse(parser, options)
    if merged["trainer"].get("precision") == AUTO and given.trainer.precision is None:
        given.trainer.precision = fast_precision(given.trainer.accelerator)
    if given.budget < 1:
        raise UserError(f"--budget is {given.budget}: give at least 1 training image.")
    trainer_defaults = {
        name: parameter.default for name, parameter in inspect.signature(L.Trainer.__init__).parameters.items()
    }
    values = parser.instantiate(given).as_dict()
    config = RunConfig(
        method=method,
        variant=variant,
        data=data,
        profile=profile,
        mode=mode,
        seed=seed,
        budget=given.budget,
        reader=given.data.as_dict() if "data" in given else {},
        hyper=given.method.as_dict() if "method" in given else {},
        stages={stage.name: StageBudget(**given.stages[stage.name].as_dict()) for stage in METHODS[method].stages},
        loader=LoaderConfig(**given.loader.as_dict()),
        evaluation=EvaluationConfig(**given.evaluation.as_dict()),
        trainer={name: value for name, value in values["trainer"].items() if value != trainer_defaults[name]},
        source=source,
    )
    if (about := sample_of(config.evaluation.protocols, config.data_names)) is None:
        return config
    also = [name for name in config.evaluation.also if alike(name, about[1], config.data_names)]
    return replace(config, evaluation=replace(config.evaluation, also=also))  # asked beside, of the same pictures


def cross_validation(config: RunConfig) -> list[RunConfig]:
    """The five runs of a cross-validation, in which nothing but the fold differs. Raises as ``RunConfig.read``."""
    whole = whole_digest(config.read())
    return [replace(config, fold=fold, folded=whole) for fold in range(FOLDS)]


def option_parser(method: str, data: str) -> ArgumentParser:
    """Every option that a run of ``method`` on ``data`` understands."""
    parser = ArgumentParser(prog="fm-bench bench", exit_on_error=False, add_help=False, allow_abbrev=False)
    parser.add_argument("--budget", type=int, help="training images of the run; a triplet counts as three")
    parser.add_class_arguments(READERS[recipe.reader_name(data)], "data", instantiate=False)
    parser.add_class_arguments(METHODS[method], "method", skip=GIVEN_BY_DATA, instantiate=False)
    for stage in METHODS[method].stages:
        parser.add_class_arguments(StageBudget, f"stages.{stage.name}", instantiate=False)
    parser.add_class_arguments(LoaderConfig, "loader", instantiate=False)
    parser.add_class_arguments(EvaluationConfig, "evaluation", instantiate=False)
    parser.add_class_arguments(L.Trainer, "trainer", instantiate=False)
    return parser


def _set_defaults(parser: ArgumentParser, method: str, merged: Mapping[str, Any]) -> None:
    """Recipes become the parser's defaults, so that the command line wins over them."""
    accepted = inspect.signature(METHODS[method].__init__).parameters
    stages = {stage.name for stage in METHODS[method].stages}
    defaults: dict[str, Any] = {"budget": merged["budget"]}
    for group in ("method", "loader", "evaluation", "trainer", "data"):
        for name, value in merged[group].items():
            if group == "method" and name not in accepted:
                continue  # a profile names the backbone for all methods; the bounds have none
            if (group, name, value) == ("trainer", "precision", AUTO):
                continue  # which one is fast depends on the accelerator, which the command line may name
            defaults[f"{group}.{name}"] = value
    for stage, budget in merged["stages"].items():
        if stage not in stages:
            raise UserError(
                f"the recipe of {method!r} names the stage {stage!r}, which the method does not have: {sorted(stages)}."
            )
        defaults |= {f"stages.{stage}.{name}": value for name, value in budget.items()}
    parser.set_defaults(defaults)


def fast_precision(accelerator: Any = None) -> str:
    """``bf16-mixed`` where the hardware computes in bfloat16, which nearly doubles training speed, else ``32-true``.

    Args:
        accelerator: where training runs, as ``Trainer`` understands it.
    """
    return "bf16-mixed" if computes_in_bfloat16(wants_gpu(accelerator)) else "32-true"


def _parse(parser: ArgumentParser, options: Sequence[str]) -> Namespace:
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            return parser.parse_args(list(options))
    except argparse.ArgumentError as error:
        raise _explain(parser, str(error.message if error.message else error)) from error


def _kinds(complaint: str) -> list[str]:
    """What the parser expected: names of types, and the values of a choice."""
    kinds = re.findall(r"Expected an? (?:<class '([\w.]+)'>|typing\.Literal\[([^\]]*)\])", complaint)
    return list(dict.fromkeys(value.strip("' ") for kind, choice in kinds for value in (kind or choice).split(",")))


def _explain(parser: ArgumentParser, message: str) -> UserError:
    """The parser's complaint as one sentence with the nearest option names."""
    known = sorted(option for action in parser._actions for option in action.option_strings if option.startswith("--"))
    first = " ".join(message.split())
    if surplus := re.search(r"[Uu]nrecognized arguments: (\S+)", first):
        return unknown("option", surplus.group(1).split("=")[0], known)
    if missing := re.search(r"arguments are required: ([\w.]+)", first):
        return UserError(
            f"--{missing.group(1)} is not given: add it to the command (with make: ARGS='--{missing.group(1)} …')."
        )
    if wrong := re.search(r'Parser key "([\w.]+)": (.*)', first):
        kinds = " or ".join(_kinds(wrong.group(2)))
        found = re.search(r"(?:Given value|value): (\S+)", wrong.group(2)) or re.search(r"'([^']*)'", wrong.group(2))
        value = f" {found.group(1).rstrip('.')!r}" if found else ""
        expected = f": give {kinds.replace('NoneType', 'null')}" if kinds else f" ({wrong.group(2).rstrip('.')})"
        return UserError(f"--{wrong.group(1)} cannot be{value}{expected}.")
    return UserError(f"an option could not be understood: {first.rstrip('.')}.")


def _content(option: str, value: Any) -> Any:
    """What an argument of a method stands for: of files and folders, what is in them and not where they lie."""
    if option == "weights" and value not in (None, "imagenet"):
        try:
            return f"file {hashlib.sha256(Path(value).read_bytes()).hexdigest()}"
        except OSError as error:
            raise UserError(f"no weights at {value} ({error.strerror}): give the path of a file.") from error
    if option == "retriever" and value is not None:
        return f"run {record_file.load(Path(value) / record_file.FILE).fingerprint}"
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, str | int | float | bool | None):
        return value
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, Sequence):
        return [_plain(item) for item in value]
    return type(value).__name__ if not hasattr(value, "to_dict") else str(value)
