# SPDX-License-Identifier: MIT
"""One stage, one ``Trainer.fit``: resumed where it stopped, skipped where it is done, shared where it is the same."""

import contextlib
import json
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, Timer
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor

from fm_bench.config import SHOWN_ONLY
from fm_bench.data.batches import (
    WITHOUT_PICTURES,
    CrossDomainBatch,
    InstanceBatch,
    LabelledBatch,
    QuadrupletBatch,
    TripletBatch,
)
from fm_bench.data.datamodule import FashionDataModule
from fm_bench.data.examples import per_step
from fm_bench.environment import made_with, versions
from fm_bench.errors import UserError
from fm_bench.evaluation.validation import RetrievalValidation
from fm_bench.extras.learned import CURVES, keep_curves
from fm_bench.files import cache_dir, digest, replacing, write_json, write_torch
from fm_bench.loggers import stage_loggers
from fm_bench.methods import Method, Stage
from fm_bench.processes import agreed, gather, is_rank_zero
from fm_bench.progress import Progress
from fm_bench.recipe import StageBudget
from fm_bench.reuse import recall, remember

FINAL = "final.pt"
LAST = "last.ckpt"
BEST = "best.ckpt"
DONE = "done.json"


@dataclass(frozen=True)
class StageResult:
    """What a finished stage reports: wall-clock seconds, epochs, images seen, best validation score if it has one."""

    fingerprint: str
    seconds: float
    epochs: int
    images: int
    best: float | None
    reused: bool = False


@dataclass(frozen=True)
class StageRunner:
    """Trains the stages of one run.

    Args:
        out: the run's folder.
        seed: of the run.
        budget: training images of the whole run; a triplet counts as three.
        budgets: per stage, which share of it and in how many epochs.
        trainer: keyword arguments for every ``Trainer``; they win over the stage's own.
        logger: see ``fm_bench.loggers.stage_loggers``.
        key: everything else that can change a trained weight (data, loader, code), as plain values.
        say: prints a line for the user.
        of_run: fingerprint of the run, which then takes stages from other runs that trained them; empty takes only what
            methods share.
        shares: whether a stage that several methods share is taken from the others and left for them.
    """

    out: Path
    seed: int
    budget: int
    budgets: Mapping[str, StageBudget]
    trainer: Mapping[str, Any]
    logger: str
    key: Mapping[str, Any]
    say: Callable[[str], None]
    of_run: str = ""
    shares: bool = True

    def run(self, method: Method, datamodule: FashionDataModule) -> dict[str, StageResult]:
        """Trains every stage of ``method`` in order; at the end it holds the trained weights."""
        results: dict[str, StageResult] = {}
        before = ""
        stages = [stage for stage in method.stages if not method.skips(stage)]
        if any(stage.manual for stage in stages):
            self._check_manual()
        for stage in stages:
            results[stage.name] = self._stage(method, datamodule, stage, before)
            before = results[stage.name].fingerprint
        return results

    def _check_manual(self) -> None:
        """Raises UserError for Trainer settings that mean nothing, or something else, where a stage steps itself."""
        for name, without in _AUTOMATIC.items():
            if self.trainer.get(name, without) not in (None, without):
                raise UserError(
                    f"--trainer.{name} is {self.trainer[name]}, but this method has networks that play against each "
                    "other, each with steps of its own: leave it out."
                )

    def _stage(self, method: Method, datamodule: FashionDataModule, stage: Stage, before: str) -> StageResult:
        budget = self.budgets.get(stage.name, StageBudget())
        method.begin(stage, int(digest(self.seed, stage.name)[:12], 16))
        epochs, images = self._plan(method, datamodule, stage, budget)  # later stages read what this one learns from
        fingerprint = self._fingerprint(method, stage, budget, before)
        folder = self.out / "stages" / stage.name
        elsewhere = digest(fingerprint, versions(), made_with(self.trainer.get("accelerator")))
        cached = cache_dir() / "stages" / elsewhere[:32]  # not what other libraries or processors have trained
        shared = stage.shared and self.shares
        with agreed("looking for trained weights"):  # all processes see the same folder before they choose what to do
            if is_rank_zero() and not (folder / DONE).exists():
                if shared and (cached / DONE).exists():
                    _copy_result(cached, folder, reused=True)
                elif self.of_run and (found := recall("stages", elsewhere, folder, self.of_run)):
                    _take(found, folder, fingerprint)
            finished = gather(_finished(folder))[0]  # as the first process sees it
        if finished is not None:
            result = finished
            if result.fingerprint != fingerprint:
                raise UserError(
                    f"{folder} holds this stage trained with other settings: give another --out or remove it."
                )
            with agreed("loading trained weights"):
                _load_final(method, folder)
            self.say(
                f"stage {stage.name}: trained {'by an equal run' if result.reused else 'before'} "
                f"in {result.seconds:.0f} s"
            )
            return result
        result = self._fit(method, datamodule, stage, (epochs, images), folder, fingerprint)
        with agreed("noting the trained weights"):
            if shared and is_rank_zero():
                with contextlib.suppress(UserError, OSError):  # without it, other runs train it once more
                    _copy_result(folder, cached)
            elif self.of_run:
                remember("stages", elsewhere, folder, self.of_run)
        return result

    def _fingerprint(self, method: Method, stage: Stage, budget: StageBudget, before: str) -> str:
        """Digest of everything that can change what the stage leaves behind, the stage before it included."""
        numerics = {name: str(value) for name, value in self.trainer.items() if name not in SHOWN_ONLY}
        return digest(
            method.stage_config(stage),
            stage.name,
            stage.monitor,
            before,
            self.seed,
            self.budget,
            asdict(budget),
            numerics,
            dict(self.key),
        )

    def _fit(
        self,
        method: Method,
        datamodule: FashionDataModule,
        stage: Stage,
        plan: tuple[int, int],
        folder: Path,
        fingerprint: str,
    ) -> StageResult:
        epochs, images = plan
        timer = Timer(interval="epoch")
        try:
            trainer = L.Trainer(**self._trainer_arguments(stage, folder, epochs, timer))
        except MisconfigurationException as error:
            raise UserError(f"Lightning refuses these --trainer settings: {' '.join(str(error).split())}") from error
        resume = folder / LAST if (folder / LAST).exists() else None
        work = f"{trainer.max_epochs} x {images:,} images" if images else "on features"
        self.say(f"stage {stage.name}: {work}" + (", resumed" if resume else ""))
        started = time.perf_counter()
        with interruptible(trainer), warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*this fit will run with no optimizer")  # stages without gradients
            trainer.fit(method, datamodule=datamodule, ckpt_path=resume, weights_only=True)
        # an untrained stage has no epochs for the timer, which outlives interruptions
        seconds = timer.time_elapsed("train") if stage.trained else time.perf_counter() - started
        best = _load_best(method, folder) if stage.monitor else None
        trainer.strategy.barrier("best weights loaded")  # the first process removes the file below
        result = StageResult(fingerprint, seconds, trainer.current_epoch, trainer.current_epoch * images, best)
        with agreed("keeping the trained weights"):
            if trainer.is_global_zero:
                state = {name: value.detach().cpu() for name, value in method.stage_state(stage).items()}
                write_torch(folder / FINAL, state)
                keep_curves(self.out / "logs", stage.name, folder)
                write_json(folder / DONE, asdict(result))
                for name in (LAST, BEST):
                    (folder / name).unlink(missing_ok=True)
        with agreed("loading trained weights"):
            if not trainer.is_global_zero:  # statistics of batches are each process's own: take those of the first
                _load_final(method, folder)
        score = "" if best is None else f", best {stage.monitor} {best:.3f}"
        work = f"{result.images:,} images" if result.images else "done"
        self.say(f"stage {stage.name}: {work} in {result.seconds:.0f} s{score}")
        return result

    def _plan(
        self, method: Method, datamodule: FashionDataModule, stage: Stage, budget: StageBudget
    ) -> tuple[int, int]:
        """Tells the DataModule what the stage learns from; returns its epochs and the images of each."""
        datamodule.setup("fit")
        datamodule.validate_by(method.validates)
        images, size = budget.share * self.budget, len(datamodule.train_labels)
        batches = stage.batches
        step = per_step(batches, budget.batch_size or datamodule.batch_size)
        if not stage.trained:
            return 0, 0
        if batches in WITHOUT_PICTURES:  # none is counted
            datamodule.use(batches, count=_whole(budget.passes * size, step), batch_size=budget.batch_size)
            return budget.epochs or 1, 0
        rows = method.stage_rows(stage, datamodule.train_labels) if batches is LabelledBatch else None
        passes = images / (size if rows is None else len(rows)) if batches in (LabelledBatch, InstanceBatch) else 1
        epochs = budget.epochs or max(1, round(passes))
        count = _whole(images / _PICTURES[batches] / epochs, step)
        datamodule.use(batches, rows=rows, count=count, batch_size=budget.batch_size, instances=method.instances)
        return epochs, _PICTURES[batches] * count

    def _trainer_arguments(self, stage: Stage, folder: Path, epochs: int, timer: Timer) -> dict[str, Any]:
        """The stage's own settings under the user's: what the user gave wins."""
        given = {name: value for name, value in self.trainer.items() if value is not None}
        callbacks: list[Callback] = [FiniteLoss(), timer]
        if given.get("enable_progress_bar", True) and not given.get("barebones"):
            callbacks.append(Progress(f"stage {stage.name}"))
        if stage.monitor:
            callbacks.append(RetrievalValidation())
        if given.get("enable_checkpointing", True):  # the newest last: a kill between the two repeats the epoch
            callbacks += [_checkpoint(folder, BEST, stage.monitor)] if stage.monitor else []
            callbacks.append(_checkpoint(folder, LAST, None))
        callbacks += given.pop("callbacks", [])
        given["plugins"] = [WholeCheckpoints(), *given.get("plugins", [])]
        own: dict[str, Any] = {
            "max_epochs": epochs,
            "logger": stage_loggers(self.logger, self.out, stage.name, self.say),
            "num_sanity_val_steps": 0,
            "limit_val_batches": None if stage.monitor else 0,
            "use_distributed_sampler": False,  # our loaders share whole batches out among processes themselves
            "enable_model_summary": False,
            "log_every_n_steps": 10,
            "default_root_dir": folder,
        }
        if stage.manual and _several_devices(given):  # players take turns, so that some always have no gradient
            own["strategy"] = "ddp_find_unused_parameters_true"
            if given.get("strategy") in ("auto", "ddp"):
                del given["strategy"]
        fixed: dict[str, Any] = {"callbacks": callbacks} | ({} if stage.trained else {"max_epochs": 0})
        return own | given | fixed


_AUTOMATIC: dict[str, Any] = {"gradient_clip_val": None, "accumulate_grad_batches": 1, "max_steps": -1}
"""Trainer settings that suppose one optimiser, and what leaves them off."""

_PICTURES = {LabelledBatch: 1, InstanceBatch: 2, TripletBatch: 3, CrossDomainBatch: 3, QuadrupletBatch: 4}
"""Pictures of a training example, by kind of batch."""


@contextlib.contextmanager
def interruptible(trainer: L.Trainer) -> Iterator[None]:
    """Lets Ctrl-C through as KeyboardInterrupt, which Lightning turns into an exit of its own."""
    try:
        yield
    except SystemExit as error:
        if trainer.interrupted:
            raise KeyboardInterrupt from error
        raise
    if trainer.interrupted:
        raise KeyboardInterrupt


def _several_devices(given: Mapping[str, Any]) -> bool:
    """Whether the user's Trainer settings mean more than one process."""
    devices, nodes = given.get("devices", "auto"), int(given.get("num_nodes", 1))
    if devices in ("auto", -1, "-1"):
        return nodes > 1 or (torch.cuda.device_count() > 1 and given.get("accelerator", "auto") != "cpu")
    if isinstance(devices, str):
        count = len(devices.split(",")) if "," in devices else int(devices)
    else:
        count = len(devices) if isinstance(devices, Sequence) else int(devices)
    return nodes * count > 1


class WholeCheckpoints(TorchCheckpointIO):
    """Checkpoints that are whole or absent, on every file system and at every moment of a kill."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Writes beside ``path`` and renames. Raises UserError if the file system refuses."""
        write_torch(Path(path), checkpoint)


class FiniteLoss(Callback):
    """Stops the run with one sentence as soon as the loss, or a weight at an epoch's end, is no longer a number."""

    def __init__(self, every: int = 20) -> None:
        self.every = every  # reading the loss waits for the GPU, so not after each step

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Looks at the loss of every ``every``-th step and of the last one of an epoch, then at the weights as well."""
        last = batch_idx + 1 == trainer.num_training_batches
        if batch_idx % self.every and not last:
            return
        loss = outputs["loss"]
        self._stop_unless(trainer, bool(torch.isfinite(loss)), "the training loss", f"{loss.item()}")
        if last:  # before they are kept: a finite loss can have a gradient that is not
            broken = (name for name, weight in pl_module.named_parameters() if not torch.isfinite(weight).all())
            name = next(broken, None)
            self._stop_unless(trainer, name is None, "a weight", f"infinite or NaN ({name})")

    def _stop_unless(self, trainer: L.Trainer, finite: bool, what: str, became: str) -> None:
        """Raises UserError on all processes if ``what`` is not ``finite`` on one."""
        if trainer.strategy.reduce_boolean_decision(finite):
            return
        if finite:
            became = "infinite or NaN on another process"
        kept = Path(trainer.default_root_dir)
        remains = f" (the last whole epoch is kept in {kept})" if (kept / LAST).exists() else ""
        raise UserError(f"{what} became {became} in epoch {trainer.current_epoch}: lower the learning rate{remains}.")


def _checkpoint(folder: Path, name: str, monitor: str | None) -> ModelCheckpoint:
    """Keeps one file ``name``: the best by ``monitor``, or the newest."""
    return ModelCheckpoint(
        dirpath=folder,
        filename=Path(name).stem,
        monitor=monitor,
        mode="max",
        save_top_k=1,
        auto_insert_metric_name=False,
        enable_version_counter=False,
        save_on_train_epoch_end=True,
    )


def _load_final(method: Method, folder: Path) -> None:
    """Puts what a finished stage left behind into the method. Raises UserError if it is not to be seen from here."""
    try:
        state = torch.load(folder / FINAL, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(
            f"{folder / FINAL} cannot be read ({error.strerror or error}): give the run a folder that all machines "
            "share, or remove the folder of this stage to train it again."
        ) from error
    method.load_state_dict(state, strict=False)


def _finished(folder: Path) -> StageResult | None:
    """What the stage reported whose result is in ``folder``; None if there is none."""
    return StageResult(**json.loads((folder / DONE).read_text())) if (folder / DONE).exists() else None


def _load_best(method: Method, folder: Path) -> float | None:
    """Puts the best checkpoint's weights into the method; returns the score it was chosen by."""
    if not (folder / BEST).exists():  # validation was switched off by the user: the last epoch stays
        return None
    checkpoint = torch.load(folder / BEST, map_location="cpu", weights_only=True)
    method.load_state_dict(checkpoint["state_dict"])
    scores: list[Tensor] = [
        state["best_model_score"] for state in checkpoint["callbacks"].values() if state.get("monitor")
    ]
    return float(scores[0])


def _copy_result(source: Path, target: Path, *, reused: bool = False) -> None:
    """Copies weights and learning curves first and the done-marker last, each whole or not at all."""
    result = StageResult(**json.loads((source / DONE).read_text()))
    for name in (FINAL, CURVES) if (source / CURVES).exists() else (FINAL,):
        with replacing(target / name) as temporary:
            shutil.copyfile(source / name, temporary)
    write_json(target / DONE, asdict(replace(result, reused=reused)))


def _take(source: Path, target: Path, fingerprint: str) -> None:
    """Copies another run's result, unless that run has been deleted or has something else there by now."""
    with contextlib.suppress(OSError, ValueError, TypeError, UserError):
        if json.loads((source / DONE).read_text())["fingerprint"] == fingerprint:
            _copy_result(source, target, reused=True)


def _whole(number: float, batch: int) -> int:
    """The nearest count that fills whole batches, so that what is budgeted is what is seen."""
    return max(1, round(number / batch)) * batch
