# SPDX-License-Identifier: MIT
"""The bench's side of ``detection``: what stands in the way of it, before training, and what comes out, after."""

from pathlib import Path

from fm_bench.catalog import Dataset, Split
from fm_bench.config import RunConfig
from fm_bench.detection.judging import choose, judge
from fm_bench.detection.pictures import boxed_rows
from fm_bench.errors import UserError
from fm_bench.evaluation.protocol import Protocol
from fm_bench.files import digest
from fm_bench.leaderboard import record as record_file
from fm_bench.leaderboard.record import Record
from fm_bench.methods import METHODS
from fm_bench.methods.detector import Detector
from fm_bench.outcomes.trained import Trained
from fm_bench.questions import REQUEST_SEED
from fm_bench.results import Outcome

IMAGES = 250
"""Pictures of each domain on which a detector is judged, at most."""

GALLERY = 400
"""Shop photos in which detected garments are searched, at most."""


def obstacle(config: RunConfig, dataset: Dataset) -> str | None:
    """Why boxes cannot be judged, or None."""
    if not issubclass(METHODS[config.method], Detector):
        return f"{config.label} finds no boxes, run detector."
    if config.loader.crop != "full":
        return "boxes are looked for in whole pictures, leave --loader.crop at full."
    try:
        boxed_rows(dataset, Split.TRAIN)
        asked = choose(dataset, 1, 0, REQUEST_SEED).street
        retriever_of(config)
    except UserError as error:
        return str(error)
    if not len(asked):
        return (
            "the test pictures show no item both in the street and in the shop with a box around it, which is what "
            "is asked: choose data with such pairs, such as garments-street."
        )
    return None


def retriever_of(config: RunConfig) -> Record | None:
    """The record of the run that searches with the detected boxes, if one is named.

    Raises:
        UserError: if its folder holds no finished run, or one on other data: it may have learnt from what is asked.
    """
    folder = config.hyper.get("retriever")
    if folder is None:
        return None
    record = record_file.load(Path(folder) / record_file.FILE)
    own = config.numeric()["reader"]
    same = record.data == config.data and record.config["reader"] == own and record.config.get("fold") == config.fold
    if not same:
        raise UserError(
            f"{folder} was trained on {record.data} with other settings than this run's {config.data}: "
            "give --method.retriever a run on the same data."
        )
    return record


def outcome(protocol: Protocol, trained: Trained) -> Outcome:
    """What a trained detector scores on whole pictures with boxes."""
    config, method, dataset = trained.config, trained.method, trained.dataset
    assert isinstance(method, Detector), "obstacle has looked"
    retriever = retriever_of(config)
    searched = "" if retriever is None else retriever.fingerprint
    notes: tuple[str, ...] = ()
    if retriever is not None:
        how = "garments cut out by their true boxes" if retriever.config["loader"].get("crop") else "whole pictures"
        notes = (f"what was detected is searched by {retriever.name}, trained on {how}",)
    images = min(config.evaluation.requests, IMAGES)
    gallery = min(config.evaluation.gallery or GALLERY, GALLERY)
    sample = choose(dataset, images, gallery if searched else 0, REQUEST_SEED)
    metrics, per_picture = judge(
        method,
        dataset,
        protocol,
        seed=REQUEST_SEED,
        images=images,
        gallery=gallery,
        retriever=config.hyper["retriever"],
    )
    return Outcome(protocol, digest(*sample, searched), metrics, len(sample.street), per_picture, notes=notes)
