# SPDX-License-Identifier: MIT
"""Fair search for settings: as many trials of as many training images for every method, judged on validation requests.

What a trial is given has no test image: it is taken out of the catalogue before anything else sees it. Every trial is
written into a ledger, whether it was good, bad or broke, and a run that uses the best one carries the ledger in its
record.
"""

import json
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
import yaml
from rich.console import Console

from fm_bench import recipe
from fm_bench.bench import Bench, build_method, data_module
from fm_bench.catalog import Dataset, Split
from fm_bench.config import RunConfig, configure
from fm_bench.data.datamodule import FashionDataModule
from fm_bench.environment import code_digest
from fm_bench.errors import UserError
from fm_bench.evaluation.validation import RetrievalValidation
from fm_bench.files import digest, write_json
from fm_bench.methods import Method
from fm_bench.run_folder import digest_of

LEDGER = "tuning.json"
SCHEMA = 1
OBJECTIVE = "val/accuracy@20"
_OF_METHOD = "method."
_KINDS = ("log", "between", "choice")
_REFUSED = "refused"  # in the place of options: why there is nothing to search
Space = Mapping[str, Mapping[str, Sequence[Any]]]
"""Option -> ``{"log": [low, high]}``, ``{"between": [low, high]}`` or ``{"choice": [...]}``."""


def spaces() -> list[str]:
    """Methods that say what may be searched."""
    return [name for name in recipe.names("tuning") if _REFUSED not in _read(name)]


def space_of(method: str) -> Space:
    """What may be searched for ``method``: ``benchmarks/tuning/METHOD.yaml``.

    Raises:
        UserError: if there is no such file, it says why there is nothing to search, or it holds something else, such
            as options of anything but the method: they could change how many images a trial uses, or on what.
    """
    path = _path(method)
    if not path.is_file():
        raise UserError(f"{method!r} has no search space {path}: write one, or tune one of {', '.join(spaces())}.")
    content = _read(method)
    if _REFUSED in content:
        raise UserError(f"{method} cannot be tuned, because {content[_REFUSED]}: tune one of {', '.join(spaces())}.")
    for option, how in content.items():
        if not option.startswith(_OF_METHOD):
            raise UserError(f"{path}: {option} is no option of the method: search only among those named method.….")
        kind, values = next(iter(how.items())) if isinstance(how, dict) and len(how) == 1 else ("", [])
        ends = kind in ("log", "between") and (len(values) != 2 or not values[0] < values[1])
        if kind not in _KINDS or ends or not values or (kind == "log" and values[0] <= 0):
            raise UserError(f"{path}: {option} is {how!r}, but {{log: [low, high]}}, between or choice is needed.")
    if not content:
        raise UserError(f"{path} names no option: give at least one, such as `method.lr: {{log: [0.001, 0.1]}}`.")
    return content


def _path(method: str) -> Path:
    return recipe.benchmarks_dir() / "tuning" / f"{method}.yaml"


def _read(method: str) -> dict[str, Any]:
    content = yaml.safe_load(_path(method).read_text(encoding="utf-8"))
    return content if isinstance(content, dict) else {}


@dataclass(frozen=True)
class Trial:
    """One trial; ``value`` is None if it broke, for the reason ``why``."""

    number: int
    parameters: dict[str, Any]
    value: float | None
    images: int
    seconds: float
    why: str = ""


@dataclass(frozen=True)
class Ledger:
    """Everything that was tried; tables tell what it cost, trials times ``images``, where rows differ in it.

    Attributes:
        method, data, profile, mode, seed: of every trial; ``method`` may name a variant.
        images: training images that each trial may use; a triplet counts as three.
        objective: what was maximised, and on how many requests.
        space: what could be chosen.
        data_digest: of the data without their test images.
        settings: digest of what all trials have in common, the options of the command line included.
        code: digest of the sources.
        trials: in order; the first one has the recipe's own settings.
    """

    method: str
    data: str
    profile: str
    mode: str
    seed: int
    images: int
    objective: str
    space: dict[str, Any]
    data_digest: str
    settings: str
    code: str
    trials: list[Trial] = field(default_factory=list)

    @property
    def best(self) -> Trial | None:
        """The trial with the highest value, the earliest of equal ones."""
        done = [trial for trial in self.trials if trial.value is not None]
        return max(done, key=lambda trial: (trial.value or 0.0, -trial.number), default=None)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, the schema version first."""
        return {"schema": SCHEMA, **asdict(self), "best": None if self.best is None else self.best.number}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Ledger":
        """The inverse of ``to_json``. Raises ValueError if ``value`` is nothing that ``tune`` writes."""
        try:
            trials = [Trial(**trial) for trial in value["trials"]]
            own = {name: each for name, each in value.items() if name not in ("schema", "best")}
            ledger = cls(**own | {"trials": trials})
            if value["schema"] != SCHEMA or [trial.number for trial in trials] != list(range(len(trials))):
                raise ValueError("another schema, or a trial is missing")
            if ledger.to_json() != dict(value):
                raise ValueError("its best trial is another one")
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(str(error)) from error
        return ledger

    @classmethod
    def load(cls, folder: Path) -> "Ledger":
        """What ``tune`` wrote into ``folder``. Raises UserError if there is none, or it is damaged."""
        path = Path(folder) / LEDGER
        try:
            return cls.from_json(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise UserError(f"{path} does not exist: give the folder that `fm-bench tune` wrote.") from None
        except (OSError, ValueError) as error:
            raise UserError(f"{path} is no ledger of trials ({error}): tune again in another folder.") from error


def without_test(dataset: Dataset) -> Dataset:
    """The data set without any row of the test split, and without what its authors ask of it."""
    rows = dataset.catalog.rows(Split.TRAIN, Split.VAL)
    regions = None if dataset.regions is None else dataset.regions.select(rows)
    return Dataset(dataset.catalog.select(rows), dataset.source, dataset.notes, regions)


def options_from(parameters: Mapping[str, Any]) -> list[str]:
    """Parameters of a trial as they are given on the command line."""
    return [word for name, value in parameters.items() for word in (f"--{name}", json.dumps(value))]


def tuned_options(folder: Path, spec: str, data: str) -> tuple[list[str], dict[str, Any]]:
    """The options of the best trial in ``folder``, and the ledger as a record carries it.

    Raises:
        UserError: if there is no ledger, it is of another method or other data, or no trial has ended well.
    """
    ledger = Ledger.load(folder)
    if (ledger.method, ledger.data) != (spec, data):
        raise UserError(f"{folder} tuned {ledger.method} on {ledger.data}, not {spec} on {data}: give another folder.")
    if ledger.best is None:
        raise UserError(f"{folder} holds no trial that ended well: tune with more trials, or another space.")
    return options_from(ledger.best.parameters), ledger.to_json()


def trial_folder(out: Path, number: int) -> Path:
    """Where a trial trains, until it has ended."""
    return out / f"trial-{number:03d}"


def run_trial(config: RunConfig, dataset: Dataset, folder: Path, console: Console) -> tuple[float, int]:
    """Trains as ``config`` says, and judges on the validation requests.

    Args:
        config: of the trial.
        dataset: without test images.
        folder: where it trains; an earlier attempt is continued.
        console: where progress is shown.

    Returns:
        ``val/accuracy@20`` and the training images that were used.

    Raises:
        UserError: if the settings cannot be trained with.
    """
    datamodule = data_module(config, dataset)
    datamodule.prepare_data()
    datamodule.setup("fit")
    method = build_method(config, datamodule)
    bench = Bench(config, folder, logger="none", console=console)
    stages = bench.train(folder, method, datamodule, digest_of(dataset))
    return validate(config, method, datamodule), sum(stage.images for stage in stages.values())


def validate(config: RunConfig, method: Method, datamodule: FashionDataModule) -> float:
    """``val/accuracy@20`` of trained weights, on the requests that are cut from the validation split."""
    datamodule.validate_by(method.validates)
    own: dict[str, Any] = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "use_distributed_sampler": False,
    }
    kept = {name: value for name, value in config.trainer.items() if name in ("accelerator", "devices", "precision")}
    trainer = L.Trainer(**own, **kept, callbacks=[RetrievalValidation()])
    trainer.validate(method, datamodule=datamodule, verbose=False)
    return float(trainer.callback_metrics[OBJECTIVE])


@dataclass
class Tuner:
    """Searches the settings of one method.

    Args:
        spec: ``method`` or ``method/variant``.
        data, profile, seed: as in a run; the mode is ``common``.
        options: of the command line, the same for every trial.
        out: folder of the ledger.
        console: where progress is shown.
        trial: what trains and judges, in the place of ``run_trial``.
    """

    spec: str
    data: str
    profile: str
    seed: int
    options: Sequence[str]
    out: Path
    console: Console
    trial: Callable[[RunConfig, Dataset, Path, Console], tuple[float, int]] | None = None

    def run(self, trials: int) -> Ledger:
        """Runs trials until there are ``trials``; those that the ledger has count.

        Raises:
            UserError: if the folder holds another search, or Optuna is not installed.
        """
        import_optuna()
        base = self._config({})
        dataset = without_test(base.read())
        ledger = self._begun(base, dataset)
        ranges = {option: _distribution(how) for option, how in ledger.space.items()}
        study = self._study(ledger, base, ranges)
        for number in range(len(ledger.trials), trials):
            ledger.trials.append(self._next(study, number, dataset, ranges))
            write_json(self.out / LEDGER, ledger.to_json())
            shutil.rmtree(trial_folder(self.out, number), ignore_errors=True)  # weights nobody will use
            self._say(ledger, trials)
        return ledger

    def _config(self, parameters: Mapping[str, Any]) -> RunConfig:
        options = [*self.options, *options_from(parameters)]
        return configure(self.spec, self.data, self.profile, "common", self.seed, options)

    def _begun(self, base: RunConfig, dataset: Dataset) -> Ledger:
        """The ledger in the folder, or a new one. Raises UserError if it is of another search."""
        new = Ledger(
            method=base.label,
            data=self.data,
            profile=self.profile,
            mode="common",
            seed=self.seed,
            images=base.budget,
            objective=f"{OBJECTIVE} on at most {base.loader.val_requests} validation requests",
            space=dict(space_of(base.method)),
            data_digest=digest_of(dataset),
            settings=digest(base.numeric()),
            code=code_digest(),
        )
        if not (self.out / LEDGER).exists():
            return new
        found = Ledger.load(self.out)
        if {**asdict(found), "trials": []} != asdict(new):
            raise UserError(f"{self.out} holds a search with other settings, data or code: give another --out.")
        return found

    def _study(self, ledger: Ledger, base: RunConfig, ranges: Mapping[str, Any]) -> Any:
        """An Optuna study that knows the trials of the ledger."""
        optuna = import_optuna()
        study = optuna.create_study(direction="maximize")
        for trial in ledger.trials:
            state = optuna.trial.TrialState.FAIL if trial.value is None else optuna.trial.TrialState.COMPLETE
            study.add_trial(
                optuna.trial.create_trial(
                    params=trial.parameters, distributions=dict(ranges), value=trial.value, state=state
                )
            )
        if not ledger.trials:
            study.enqueue_trial(_inside(base, ledger.space))
        return study

    def _next(self, study: Any, number: int, dataset: Dataset, ranges: Mapping[str, Any]) -> Trial:
        optuna = import_optuna()
        # seeded anew each time, so that a search that was interrupted goes on as if it had not been
        study.sampler = optuna.samplers.TPESampler(seed=int(digest(self.seed, number)[:8], 16))
        asked = study.ask(dict(ranges))
        parameters, began = dict(asked.params), time.perf_counter()
        self.console.print(f"trial {number}: {parameters}", highlight=False, markup=False, soft_wrap=True)
        try:
            trial = self.trial or run_trial
            value, images = trial(self._config(parameters), dataset, trial_folder(self.out, number), self.console)
            if not math.isfinite(value):
                raise ArithmeticError(f"{OBJECTIVE} is {value}")
        except (UserError, ArithmeticError, RuntimeError, ValueError) as error:
            # a learning rate at which the loss is no number, say: it is spent all the same, and would break again
            study.tell(asked, state=optuna.trial.TrialState.FAIL)
            return Trial(number, parameters, None, 0, round(time.perf_counter() - began, 1), str(error) or repr(error))
        study.tell(asked, value)
        return Trial(number, parameters, value, images, round(time.perf_counter() - began, 1))

    def _say(self, ledger: Ledger, trials: int) -> None:
        last, best = ledger.trials[-1], ledger.best
        value = last.why if last.value is None else f"{OBJECTIVE} {last.value:.3f}"
        left = (trials - len(ledger.trials)) * sum(trial.seconds for trial in ledger.trials) / len(ledger.trials)
        shown = "" if best is None else f"; best so far {best.value:.3f} (trial {best.number})"
        line = f"trial {last.number}, {len(ledger.trials)} of {trials}: {value}{shown}; about {left / 60:.0f} min left"
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)


def _distribution(how: Mapping[str, Sequence[Any]]) -> Any:
    optuna = import_optuna()
    ((kind, values),) = how.items()
    if kind == "choice":
        return optuna.distributions.CategoricalDistribution(list(values))
    if all(isinstance(value, int) for value in values):
        return optuna.distributions.IntDistribution(*values, log=kind == "log")
    return optuna.distributions.FloatDistribution(*map(float, values), log=kind == "log")


def _inside(base: RunConfig, space: Space) -> dict[str, Any]:
    """The recipe's own settings, the nearest ones that the space has."""
    inside = {}
    for option, how in space.items():
        ((kind, values),) = how.items()
        own = base.hyper.get(option.removeprefix(_OF_METHOD))
        if kind == "choice":
            inside[option] = own if own in values else values[0]
        else:
            inside[option] = min(max(own, values[0]), values[1]) if own is not None else values[0]
    return inside


def import_optuna() -> Any:
    """Optuna, told to be quiet. Raises UserError if it is not installed."""
    try:
        import optuna
    except ImportError:
        raise UserError("fm-bench tune needs Optuna: pip install 'fm-bench[tune]'.") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna
