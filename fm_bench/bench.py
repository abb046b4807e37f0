# SPDX-License-Identifier: MIT
"""One run from end to end: catalogue, requests, training, embedding, search, metrics, record."""

import inspect
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from fm_bench import third_party
from fm_bench.catalog import Dataset
from fm_bench.config import GIVEN_BY_DATA, RunConfig
from fm_bench.data.datamodule import FashionDataModule
from fm_bench.data.requests import exclusions
from fm_bench.embedding import Embedder, embedding_dim
from fm_bench.environment import code_digest, wants_gpu
from fm_bench.errors import UserError
from fm_bench.evaluation.evaluator import Report, evaluate
from fm_bench.evaluation.searching import Searching
from fm_bench.extras.collect import leave
from fm_bench.files import digest
from fm_bench.launch import join
from fm_bench.leaderboard import record as record_file
from fm_bench.leaderboard.record import Record
from fm_bench.loggers import log_results
from fm_bench.memory import Peak, peak_memory
from fm_bench.methods import METHODS, Method
from fm_bench.outcomes import Trained, other_outcomes, refusals
from fm_bench.outcomes import prepare as prepare_judges
from fm_bench.processes import agreed, gather, is_rank_zero, together
from fm_bench.questions import (
    Question,
    ask_all,
    check_folds,
    check_protocols,
    gallery_labels,
    gallery_size,
    wishes,
)
from fm_bench.recipe import EXACT
from fm_bench.results import MODEL, Facts, Outcome, make_record, save_model, save_requests, save_scores
from fm_bench.retrieval.openers import check_index
from fm_bench.retrieval.reduced import searching_apart_from_gpus
from fm_bench.run_folder import claim, default_out, digest_of, recorded, run_fingerprint
from fm_bench.training import StageResult, StageRunner

EMBEDDINGS = "embeddings"


@dataclass
class Clock:
    """Adds up wall-clock seconds per phase."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Times the block as part of ``phase``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(phase, time.perf_counter() - start)

    def add(self, phase: str, seconds: float) -> None:
        """Counts time that was measured elsewhere, or by an earlier attempt."""
        self.seconds[phase] = self.seconds.get(phase, 0.0) + seconds


def data_module(config: RunConfig, dataset: Dataset) -> FashionDataModule:
    """The DataModule of a run: sizes, seeds and batch sizes as the configuration says."""
    return FashionDataModule(
        dataset,
        image_size=config.image_size,
        batch_size=config.loader.batch_size,
        eval_batch_size=config.loader.eval_batch_size,
        num_workers=config.loader.num_workers,
        seed=config.seed,
        on_error=config.reader.get("on_error", "fail"),
        gallery=config.evaluation.gallery,
        val_requests=config.loader.val_requests,
        changes=config.loader.changes,
    )


@dataclass
class Bench:
    """One run.

    Args:
        config: what to run.
        out: the run's folder; None chooses one below ``runs``.
        runs: where runs are kept.
        logger: ``csv``, ``tensorboard``, ``wandb`` or ``none``.
        command: as the user gave it, for the record.
        console: where progress is shown.
        pictures: how many requests the logger shows with what was found, see ``fm_bench.loggers.log_results``.
    """

    config: RunConfig
    out: Path | None = None
    runs: Path = Path("runs")
    logger: str = "csv"
    command: str = ""
    console: Console = field(default_factory=lambda: Console(stderr=True))
    pictures: int | None = None

    def run(self) -> Record | None:
        """Trains, embeds, searches, judges and writes the record; continues where an earlier attempt stopped.

        Returns:
            The record, or None on the processes of a distributed run that do not write it.

        Raises:
            UserError: on bad input, or if the folder holds another run.
        """
        join(self.config.trainer)
        with together(), searching_apart_from_gpus(not wants_gpu(self.config.trainer.get("accelerator"))):
            return self._run(Clock())

    def _run(self, clock: Clock) -> Record | None:
        with agreed("preparing the run"):
            with clock("prepare"):
                dataset = self.config.read()
            data_digest = digest_of(dataset)
            fingerprint = run_fingerprint(self.config, data_digest)
            folder = self.out or default_out(self.config, fingerprint, self.runs)
            if gather((folder / record_file.FILE).exists())[0]:  # others may see the first one's files later
                return recorded(folder / record_file.FILE, fingerprint, self.say) if is_rank_zero() else None
            if is_rank_zero():
                claim(folder, fingerprint, self.config)
            self._introduce(dataset)
            check_folds(self.config.evaluation.protocols, self.config.data_names, self.config.fold is not None)
            check_protocols(self.config.evaluation, dataset)
            check_trainable(self.config, dataset)
            refused = refusals(self.config, dataset)
            with clock("prepare"):
                datamodule = data_module(self.config, dataset)
                datamodule.prepare_data()
                datamodule.setup("fit")
                method = build_method(self.config, datamodule)
            check_searchable(self.config, method, dataset)
        stages = self.train(folder, method, datamodule, data_digest, fingerprint)
        with agreed("preparing the requests"), clock("prepare"):
            datamodule.setup("predict")
            asked, notes = ask_all(dataset, datamodule.gallery_rows, self.config.evaluation, datamodule.readable)
        if not method.answers_regions:
            for name in [name for name, question in asked.items() if question.protocol.regions]:
                del asked[name]
                notes.append(f"{name}: {self.config.label} knows nothing of parts of garments.")
        notes += [f"{name}: {why}" for name, why in refused.items() if name in self.config.evaluation.protocols]
        for note in notes:
            self.say(note)
        method.to(computing_device(self.config.trainer))  # Lightning leaves it on the CPU
        vectors = self._embed(folder, fingerprint, method, datamodule, asked, clock) if asked else {}
        with clock("prepare_judges"):
            trained = prepare_judges(Trained(self.config, method.eval(), dataset, datamodule, asked, folder))
        with agreed("judging"), clock("search"), peak_memory() as peak:
            searching = Searching(self.config.evaluation.index, vectors.get("gallery"), peak.paused)
            reports = judge(method, vectors, datamodule, asked, searching)
        for phase, seconds in searching.seconds.items():
            clock.add(phase, seconds)
            clock.add("search", -seconds)
        with agreed("recording"):  # the others wait: a process that ends early may take the run with it
            if not is_rank_zero():
                return None
            notes += _stage_notes(stages) + third_party.notes(self.config.source)
            facts = Facts(self.config, fingerprint, data_digest, self.command, notes, _memory(peak, vectors))
            return self._record(facts, trained, vectors, reports, searching, stages, clock)

    def _record(
        self,
        facts: Facts,
        trained: Trained,
        vectors: dict[str, NDArray[np.float32]],
        reports: dict[str, Report],
        searching: Searching,
        stages: dict[str, StageResult],
        clock: Clock,
    ) -> Record:
        """What one process does alone: judges whatever is not searched for, and writes."""
        method, datamodule, asked, folder = trained.method, trained.datamodule, trained.asked, trained.folder
        outcomes = {
            name: Outcome.of_search(asked[name], report, searching.found(name)) for name, report in reports.items()
        }
        with clock("other_protocols"):
            found, problems = other_outcomes(trained)
        told = [*(note for outcome in found.values() for note in outcome.notes), *problems]
        told += searching.notes(self.config.evaluation.index_name)
        save_model(method, folder / MODEL)
        save_requests(folder, datamodule, asked, reports)
        save_scores(folder, outcomes | found)
        widths = [vectors[name].shape[1] for name in asked] or [
            embedding_dim(method, self.config.image_size, "queries")
        ]
        facts = replace(facts, notes=[*trained.dataset.notes, *method.row_notes, *told, *facts.notes])
        record = make_record(facts, method, datamodule, outcomes | found, stages, clock.seconds, max(widths))
        record_file.save(record, folder / record_file.FILE)
        self.say(f"record: {folder / record_file.FILE}")
        try:
            leave(folder, self.config, trained.dataset, method)
        except UserError as error:  # what only a page shows must not lose a run
            self.say(f"the method's page will be without this run's curves and examples: {error}")
        log_results(self.logger, folder, record, self.pictures, self.say)
        return record

    def say(self, line: str) -> None:
        """Shows a line, once however many processes there are."""
        if is_rank_zero():
            self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _introduce(self, dataset: Dataset) -> None:
        catalog = dataset.catalog
        self.say(
            f"{self.config.label} on {self.config.data}: {len(catalog):,} images, "
            f"{catalog.schema.num_attributes} attributes, {catalog.schema.num_values} values"
        )
        for note in dataset.notes:
            self.say(f"  {note}")

    def train(
        self, folder: Path, method: Method, datamodule: FashionDataModule, data_digest: str, run: str = ""
    ) -> dict[str, StageResult]:
        """Every stage, in order, each with the key of what its weights depend on besides the method.

        With its fingerprint, a ``run`` takes stages from runs that differ in what is asked after training alone.
        """
        numeric = self.config.numeric()
        key = {
            "data": data_digest,
            "loader": numeric["loader"],
            "image_size": self.config.image_size,
            "code": code_digest(),
            "weights": numeric["hyper"].get("weights"),
        }
        if self.config.source:
            key["source"] = self.config.source["digest"]
        config = self.config
        runner = StageRunner(
            folder, config.seed, config.budget, config.stages, config.trainer, self.logger, key, self.say, run
        )
        return runner.run(method, datamodule)

    def _embed(
        self,
        folder: Path,
        fingerprint: str,
        method: Method,
        datamodule: FashionDataModule,
        asked: dict[str, Question],
        clock: Clock,
    ) -> dict[str, NDArray[np.float32]]:
        """Gallery and queries of every protocol, ``{"gallery": (N, D), protocol: (R, D)}``."""
        vectors: dict[str, NDArray[np.float32]] = {}
        embedder = Embedder(method, datamodule, self.config.trainer, fingerprint, self.say)
        vectors["gallery"], seconds = embedder.gallery(folder / EMBEDDINGS / "gallery")
        clock.add("embed_gallery", seconds)
        embedded: dict[str, NDArray[np.float32]] = {}
        for name, (protocol, requests) in asked.items():
            same = digest(requests.digest, protocol.regions)
            if same not in embedded:  # protocols that count other things may ask the same
                place = folder / EMBEDDINGS / name
                embedded[same], seconds = embedder.queries(requests, place, regions=protocol.regions)
                clock.add("embed_queries", seconds)
            vectors[name] = embedded[same]
        return vectors


def build_method(config: RunConfig, datamodule: FashionDataModule) -> Method:
    """The untrained method; its first weights depend on the seed alone."""
    L.seed_everything(config.seed, verbose=False)
    hyper = dict(config.hyper)
    accepted = GIVEN_BY_DATA & set(inspect.signature(METHODS[config.method].__init__).parameters)
    hyper |= {name: getattr(datamodule, name) for name in accepted - {"attributes"}}
    if "seed" in hyper:  # a method that draws random numbers of its own draws others in another run
        hyper["seed"] += config.seed
    return METHODS[config.method](attributes=datamodule.schema.to_dict(), **hyper)


def computing_device(trainer: Mapping[str, Any]) -> torch.device:
    """Where what is no training or embedding is computed: on the GPU unless the user chose another accelerator."""
    return torch.device("cuda" if torch.cuda.is_available() and wants_gpu(trainer.get("accelerator")) else "cpu")


def judge(
    method: Method,
    vectors: dict[str, NDArray[np.float32]],
    datamodule: FashionDataModule,
    asked: dict[str, Question],
    searching: Searching,
) -> dict[str, Report]:
    """Searches and scores every protocol; all processes of a run together, and each has all of the reports."""
    reports = {}
    rows, items = datamodule.gallery_rows, datamodule.dataset.catalog.item
    for name, (protocol, requests) in asked.items():
        regions = datamodule.regions if protocol.regions else None
        reports[name] = evaluate(
            vectors["gallery"],
            vectors[name],
            protocol=protocol,
            targets=requests.target,
            gallery_labels=gallery_labels(datamodule.dataset, rows, protocol),
            exclude=exclusions(requests, rows) if protocol.exclude_query else None,
            infeasible="miss" if protocol.requests == "published" else "error",
            changed=requests.attribute,
            attribute_names=requests.schema.names,
            gallery_items=items[rows],
            query_items=items[requests.query],
            gallery_keys=rows,
            views=method.views(vectors["gallery"], *wishes(requests, datamodule.schema, regions)),
            searcher=searching.opener(name, len(requests)),
        )
    return reports


def check_trainable(config: RunConfig, dataset: Dataset) -> None:
    """Raises UserError, before any picture is read, if the method cannot be trained on these data."""
    if (why := METHODS[config.method].obstacle(dataset.catalog, config.hyper)) is not None:
        raise UserError(why)


def check_searchable(config: RunConfig, method: Method, dataset: Dataset) -> None:
    """Raises UserError, before any training, if the gallery cannot be searched with the index of the run."""
    if config.evaluation.index != EXACT:
        dim = embedding_dim(method, config.image_size, "queries")
        check_index(config.evaluation.index, dim, gallery_size(config.evaluation, dataset))


def _memory(peak: Peak, vectors: Mapping[str, NDArray[np.float32]]) -> dict[str, float]:
    """MiB of the embeddings, and of resident memory that the search took at its worst moment, where that is known."""
    stored = {id(array): array.nbytes for array in vectors.values()}  # protocols that ask the same share theirs
    sizes = {"embeddings_mb": sum(stored.values()) / 2**20, "peak_memory_mb": peak.above_mb}
    return {name: round(size, 1) for name, size in sizes.items() if size is not None and stored}


def _stage_notes(stages: dict[str, StageResult]) -> list[str]:
    shared = [name for name, result in stages.items() if result.reused]
    return [f"trained once and shared by runs with equal settings: {', '.join(shared)}"] if shared else []


def prepare(config: RunConfig, console: Console) -> str:
    """Decodes every picture that a run of ``config`` needs; returns a sentence about what is there now."""
    dataset = config.read()
    datamodule = data_module(config, dataset)
    datamodule.prepare_data()
    datamodule.setup("predict")
    asked, _ = ask_all(dataset, datamodule.gallery_rows, config.evaluation, datamodule.readable)
    for question in asked.values():  # street photos are asked about and not searched
        datamodule.query_dataloader(question.requests, regions=question.protocol.regions)
    height, width = config.image_size
    return f"{config.data}: {len(dataset.catalog):,} images ready at {width}x{height} pixels"
