# SPDX-License-Identifier: MIT
"""Whether the step ever waits: training and embedding from the DataModule against the same on tensors in memory.

python benchmarks/speed/training.py [--data garments] [--root FOLDER] [--batches 24] [--images 5000] [--json FILE]

Three questions, each a ratio of images per second, with the recipe's own batches, precision and network; both sides
take turns, and the median of the rounds' ratios counts:

* loading: training steps on batches of the DataModule (decoded pictures from the warm cache, augmented, normalised on
  the device) against the same steps on normalised batches that lie in memory;
* embedding: ``Trainer.predict`` with the store that it fills and completes against the bare forward pass on batches in
  memory, without keeping a vector;
* Lightning: the steps of ``Trainer.fit``, with the logger and callbacks of a run, against a bare loop with the same
  model, batches, optimiser and autocast. What a fit does once, before its first step, is not in it.

On a busy machine ``OMP_NUM_THREADS=1 … --clock processor`` tells what the work costs, by the processor's clock; there
nothing is gained by what happens at the same time, so these ratios are lower bounds.
"""

import contextlib
import itertools
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from common import Row, options, publish, taken
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor

from fm_bench.bench import build_method, computing_device, data_module
from fm_bench.config import RunConfig, configure
from fm_bench.data.datamodule import FashionDataModule
from fm_bench.embedding import embed_to_store
from fm_bench.methods import Method, Stage
from fm_bench.methods.base import weighted_sum
from fm_bench.training import FiniteLoss

Clock = Callable[[], float]
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "processor": time.process_time}
CASES = (("amnet", "attributes"), ("amnet", "manipulation"), ("flam", "instances"))
WANTED = 0.95


@dataclass(frozen=True)
class Case:
    """One stage of one method, ready to take steps.

    Args:
        config: of the run that it would belong to.
        datamodule: gives ``batches`` per epoch.
        method: in the stage, on the device.
        stage: which.
        device: where steps are taken.
    """

    config: RunConfig
    datamodule: FashionDataModule
    method: Method
    stage: Stage
    device: torch.device

    @classmethod
    def of(cls, spec: str, stage_name: str, given: Any) -> "Case":
        extra = ["--loader.num_workers", str(given.workers), "--evaluation.gallery", str(given.images)]
        extra += ["--data.root", str(given.root)] if given.root else []
        config = configure(spec, given.data, given.profile, "common", 0, extra)
        datamodule = data_module(config, config.read())
        datamodule.prepare_data()
        datamodule.setup("fit")
        method = build_method(config, datamodule)
        stage = next(stage for stage in method.stages if stage.name == stage_name)
        method.begin(stage, 0)
        count = given.batches * config.loader.batch_size
        datamodule.use(stage.batches, count=count, instances=method.instances)
        device = computing_device(config.trainer)
        return cls(config, datamodule, method.to(device), stage, device)

    def loaded(self, loader: Iterable[Any]) -> Iterator[Any]:
        """Batches as a step receives them."""
        for batch in loader:
            moved = self.datamodule.transfer_batch_to_device(batch, self.device, 0)
            yield self.datamodule.on_after_batch_transfer(moved, 0)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Of the run's precision."""
        if self.config.trainer.get("precision") == "bf16-mixed":
            return torch.autocast(self.device.type, torch.bfloat16)
        return contextlib.nullcontext()

    def train(self, batches: Iterable[Any], optimizer: torch.optim.Optimizer) -> None:
        """A bare loop of steps."""
        losses: Callable[[Any], Any] = getattr(self.method, f"{self.stage.name}_step")
        for batch in batches:
            optimizer.zero_grad()
            with self.autocast():
                total: Tensor = weighted_sum(losses(batch))
            total.backward()
            optimizer.step()
        self.wait()

    def wait(self) -> None:
        """Until the device has done what it was told."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()


class InMemory:
    """Batches as a loader of their own; Lightning would take a bare list for several loaders."""

    def __init__(self, batches: Sequence[Any]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def images(batch: Any) -> int:
    """Pictures in a batch, whatever their roles are."""
    return sum(len(field) for field in batch if isinstance(field, Tensor) and field.ndim == 4)


def row(what: str, count: int, seconds: dict[str, list[float]]) -> Row:
    """From the seconds of ``bench`` and ``memory`` in every round, both for ``count`` images.

    Images per second are those of each side's fastest round. The ratio is the median of the rounds' ratios: a machine
    that others slow down for minutes slows down both sides of a round.
    """
    pairs = zip(seconds["memory"], seconds["bench"], strict=True)
    return {
        "what": what,
        "images/s": count / min(seconds["bench"]),
        "in memory or bare, images/s": count / min(seconds["memory"]),
        "ratio": statistics.median(memory / bench for memory, bench in pairs),
        "wanted at least": WANTED,
    }


def training(case: Case, rounds: int, clock: Clock) -> Row:
    """Steps on loaded batches against steps on batches in memory."""
    loader = case.datamodule.train_dataloader()
    memory = list(case.loaded(loader))
    learning = [parameter for parameter in case.method.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(learning, lr=1e-4, momentum=0.9, nesterov=True)
    case.method.train()
    case.train(memory[:2], optimizer)
    works = {
        "memory": lambda: case.train(memory, optimizer),
        "bench": lambda: case.train(case.loaded(loader), optimizer),
    }
    what = f"training, {case.config.method}, stage {case.stage.name}, batches of {len(memory[0].index)}"
    return row(what, sum(map(images, memory)), taken(works, rounds, clock))


def embedding(case: Case, rounds: int, clock: Clock) -> Row:
    """The gallery into a store against the forward pass alone."""
    datamodule, method = case.datamodule, case.method.eval()
    datamodule.setup("predict")
    loader, n = datamodule.gallery_dataloader(), len(datamodule.gallery_rows)
    memory = list(case.loaded(loader))
    given = dict(case.config.trainer) | {"enable_progress_bar": False}
    with tempfile.TemporaryDirectory() as folder:
        names = (Path(folder) / str(number) for number in itertools.count())

        def bare() -> None:
            with torch.inference_mode(), case.autocast():
                for batch in memory:
                    method.embed(batch)
            case.wait()

        def bench() -> None:
            embed_to_store(method, datamodule, loader, n, next(names), "key", given)
            method.to(case.device)

        bare()
        seconds = taken({"memory": bare, "bench": bench}, rounds, clock)
    return row(f"embedding and storing, {case.config.method}, batches of {len(memory[0].index)}", n, seconds)


class StepsTimer(L.Callback):
    """Seconds from the first step of a fit to its last one."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.start = self.clock()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.seconds = self.clock() - self.start


def lightning(case: Case, rounds: int, clock: Clock) -> Row:
    """``Trainer.fit`` against a bare loop, both on batches in memory."""
    memory = list(case.loaded(case.datamodule.train_dataloader()))
    case.method.train()
    with tempfile.TemporaryDirectory() as folder:

        def fit() -> L.Trainer:
            watch = StepsTimer(clock)
            trainer = L.Trainer(
                max_epochs=1,
                logger=CSVLogger(folder, version=str(time.perf_counter_ns())),
                callbacks=[FiniteLoss(), Timer(interval="epoch"), watch],
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                log_every_n_steps=10,
                **case.config.trainer,
            )
            trainer.fit(case.method, train_dataloaders=InMemory(memory))
            case.method.to(case.device)
            seconds.append(watch.seconds)
            return trainer

        seconds: list[float] = []
        optimizer = fit().optimizers[0]

        def timed() -> float:
            fit()
            return seconds[-1]

        found = taken({"memory": lambda: case.train(memory, optimizer), "bench": timed}, rounds, clock)
    what = f"Trainer.fit, {case.config.method}, stage {case.stage.name}, batches of {len(memory[0].index)}"
    return row(what, sum(map(images, memory)), found)


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the table, and writes it where asked."""
    parser = options(__doc__, rounds=9)
    parser.add_argument("--data", default="garments")
    parser.add_argument("--root", type=Path, help="folder of the data, where they come from one")
    parser.add_argument("--profile", default="quick")
    parser.add_argument("--batches", type=int, default=24, help="per round")
    parser.add_argument("--images", type=int, default=5000, help="that are embedded")
    parser.add_argument("--workers", type=int, default=0, help="loader processes; 0 is a thread of this one")
    parser.add_argument("--only", choices=("loading", "embedding", "lightning"), help="one of the questions")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    given = parser.parse_args(argv)
    clock = CLOCKS[given.clock]
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    rows: list[Row] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number, (spec, stage) in enumerate(CASES):
            case = Case.of(spec, stage, given)
            if given.only in (None, "loading"):
                rows.append(training(case, given.rounds, clock))
            if number == 0 and given.only in (None, "embedding"):
                rows.append(embedding(case, given.rounds, clock))
            if number == 0 and given.only in (None, "lightning"):
                rows.append(lightning(case, given.rounds, clock))
    height, width = case.config.image_size
    title = f"{given.data}, profile {given.profile}: {width} x {height} pixels, {torch.get_num_threads()} threads"
    note = "Images per second are those of each side's fastest round, the ratio is the median of the rounds' ratios."
    publish("training", {title: rows}, argv, given.json, note)


if __name__ == "__main__":
    main()
