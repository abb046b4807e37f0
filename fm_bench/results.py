# SPDX-License-Identifier: MIT
"""What a run leaves behind: its record, the outcome of every request, and the trained weights."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fm_bench.attributes import MISSING
from fm_bench.catalog import Dataset
from fm_bench.config import RunConfig
from fm_bench.data.datamodule import FashionDataModule
from fm_bench.data.requests import Requests
from fm_bench.environment import code_version, hardware, versions
from fm_bench.errors import UserError
from fm_bench.evaluation.evaluator import Estimate, Report
from fm_bench.evaluation.protocol import Protocol
from fm_bench.evaluation.relevance import Codes
from fm_bench.files import replacing, write_torch
from fm_bench.leaderboard.compare import CHANGES
from fm_bench.leaderboard.record import Estimates, Record
from fm_bench.memory import highest_mb
from fm_bench.methods import METHODS, Method
from fm_bench.questions import Question, gallery_labels, load_protocol
from fm_bench.recipe import EXACT
from fm_bench.training import StageResult

MODEL = "model.ckpt"
PER_REQUEST = "requests.npz"
FOUND = "found.npz"
CHANGED = {1: "one attribute", 2: "two attributes"}
"""What the parts of mixed requests are called."""
TOP = 10  # images kept per request, for pictures of results


@dataclass(frozen=True)
class Outcome:
    """What a run scored under one protocol, whatever kind it is of."""

    protocol: Protocol
    request_digest: str
    """Of what was asked: only equal ones may be compared."""
    metrics: Mapping[str, Estimate]
    requests: int
    per_request: Mapping[str, NDArray[np.float64]]
    """What each request, or picture, scored: arrays whose means are the metrics."""
    by_attribute: Mapping[str, Mapping[str, Estimate]] = field(default_factory=dict)
    tied: float = 0.0
    changing: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    """Which requests change an attribute, by attribute."""
    notes: tuple[str, ...] = ()
    """What readers of the row must know."""
    search: Mapping[str, float] = field(default_factory=dict)
    """Of an approximate index: what it cost and found, see ``fm_bench.evaluation.searching``."""

    @classmethod
    def of_search(cls, question: Question, report: Report, search: Mapping[str, float]) -> "Outcome":
        """The outcome of a protocol that searches a gallery.

        Where it mixes requests of one change and of two, each number of changes is a part beside the attributes.
        """
        counted = question.requests.select(report.counted)
        by_number = report.by_changes if question.protocol.one_change else {}
        return cls(
            question.protocol,
            question.requests.digest,
            report.metrics,
            report.requests,
            report.per_request,
            report.by_attribute | {CHANGED[number]: part for number, part in by_number.items()},
            report.tied_share,
            counted.changing | {CHANGED[number]: counted.changes == number for number in by_number},
            search=search,
        )


@dataclass(frozen=True)
class Facts:
    """What the bench knows of a run besides its measurements."""

    config: RunConfig
    fingerprint: str
    data_digest: str
    command: str
    notes: list[str]
    memory: Mapping[str, float] = field(default_factory=dict)
    """Of the search, see ``Record.search``."""


def make_record(
    facts: Facts,
    method: Method,
    datamodule: FashionDataModule,
    outcomes: Mapping[str, Outcome],
    stages: Mapping[str, StageResult],
    seconds: Mapping[str, float],
    dim: int,
) -> Record:
    """The record of a finished run. Training time counts shared stages and earlier attempts of this run in."""
    config = facts.config
    times = dict(seconds) | {"train": sum(result.seconds for result in stages.values())}
    times["total"] = sum(times.values())
    images = sum(result.images for result in stages.values())
    return Record(
        fingerprint=facts.fingerprint,
        method=config.method,
        variant=config.variant,
        label=config.label,
        data=config.data,
        profile=config.profile,
        mode="paper" if config.mode == "paper" else "common",
        seed=config.seed,
        config=config.numeric() | {"training_images": images},
        data_digest=facts.data_digest,
        protocols={name: outcome.protocol.digest for name, outcome in outcomes.items()},
        request_digests={name: outcome.request_digest for name, outcome in outcomes.items()},
        metrics={name: _plain(outcome.metrics) for name, outcome in outcomes.items()},
        by_attribute={
            name: {attribute: _plain(metrics) for attribute, metrics in outcome.by_attribute.items()}
            for name, outcome in outcomes.items()
        },
        curves={name: _curve(outcome) for name, outcome in outcomes.items()},
        requests={name: outcome.requests for name, outcome in outcomes.items()},
        tied={name: outcome.tied for name, outcome in outcomes.items()},
        gallery=len(datamodule.gallery_rows),
        dim=dim,
        parameters=sum(parameter.numel() for parameter in method.parameters()),
        seconds={name: round(value, 3) for name, value in times.items()},
        query_ms=_query_ms(outcomes, seconds),
        peak_memory_mb=highest_mb(),
        hardware=hardware(),
        versions=versions(),
        code=code_version(),
        command=facts.command,
        notes=facts.notes,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        search=_search(config.evaluation.index_name, outcomes) | dict(facts.memory),
        tuning=config.tuned,
    )


def save_requests(
    folder: Path, datamodule: FashionDataModule, asked: Mapping[str, Question], reports: Mapping[str, Report]
) -> None:
    """Writes what was asked and what was found.

    ``requests/PROTOCOL.npz`` holds the requests, ``found.npz`` arrays ``PROTOCOL (R, TOP)`` of catalogue rows, best
    first, and −1 where an approximate index found fewer.
    """
    found: dict[str, NDArray[Any]] = {}
    for name, question in asked.items():
        question.requests.save(folder / "requests" / f"{name}.npz")
        ids = reports[name].ranking.ids[:, :TOP]
        found[name] = np.where(ids >= 0, datamodule.gallery_rows[ids], -1)
    _save_arrays(folder / FOUND, found)


class Found(NamedTuple):
    """What a run found for the requests of a protocol that were counted."""

    requests: Requests
    rows: NDArray[np.int64]
    """``(R, TOP)`` rows of the catalogue, best first; -1 where an approximate index found fewer."""
    hits: NDArray[np.bool_]
    """``(R, TOP)`` which of them are what was asked for."""
    labels: NDArray[np.int16]
    """``(R, TOP, A)`` their labels, with those of regions where the protocol asks about them; -1 where unknown."""
    before: NDArray[np.int16]
    """``(R, A)`` labels of the queries' own pictures."""


def load_found(folder: Path, protocol: str, dataset: Dataset) -> Found:
    """Reads what ``save_requests`` wrote into the folder of a run on ``dataset``.

    Raises:
        UserError: if the run was not asked by ``protocol``, or its files do not fit each other.
    """
    path = folder / "requests" / f"{protocol}.npz"
    if not path.exists():
        known = ", ".join(sorted(file.stem for file in path.parent.glob("*.npz"))) or "none"
        raise UserError(f"{folder} was not asked by protocol {protocol!r}: its protocols are {known}.")
    requests, asked, catalog = Requests.load(path), load_protocol(protocol), dataset.catalog
    with np.load(folder / FOUND, allow_pickle=False) as arrays:
        rows = arrays[protocol]
    if len(rows) != len(requests):  # those without a labelled target are not counted
        requests = requests.select((requests.target != MISSING).any(axis=1))
    if len(rows) != len(requests) or rows.max(initial=-1) >= len(catalog):
        raise UserError(f"{folder / FOUND} is not of the requests in {path}: run the benchmark again.")
    labels = gallery_labels(dataset, rows.ravel(), asked).reshape(*rows.shape, -1)
    if asked.hit == "instance":
        hits = catalog.item[rows] == catalog.item[requests.query][:, None]
    else:
        codes = Codes.of(requests.target, labels.reshape(rows.size, -1), asked.missing)
        hits = codes.matched(np.arange(rows.size).reshape(rows.shape)) == codes.needed[:, None]
    present = rows >= 0
    before = gallery_labels(dataset, requests.query, asked)
    return Found(requests, rows, hits & present, np.where(present[..., None], labels, MISSING), before)


def save_scores(folder: Path, outcomes: Mapping[str, Outcome]) -> None:
    """Writes ``requests.npz``: arrays ``PROTOCOL/METRIC (R,)``, what every request scored, for paired tests.

    ``PROTOCOL/changes ATTRIBUTE (R,)`` says which requests change an attribute.
    """
    scores: dict[str, NDArray[Any]] = {}
    for name, outcome in outcomes.items():
        scores |= {f"{name}/{metric}": values for metric, values in outcome.per_request.items()}
        scores |= {f"{name}/{CHANGES} {attribute}": mask for attribute, mask in outcome.changing.items()}
    _save_arrays(folder / PER_REQUEST, scores)


def _save_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def save_model(method: Method, path: Path) -> None:
    """Writes weights and hyper-parameters as a file that loads with ``weights_only=True``."""
    content = {"class": type(method).__name__, "hyper": dict(method.hparams), "state_dict": method.state_dict()}
    write_torch(path, content)


def load_model(path: Path, name: str) -> Method:
    """A trained method from what ``save_model`` wrote.

    Raises:
        UserError: if the file is missing, damaged, unsafe to read, or of another method than ``name``.
    """
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        hyper = dict(content["hyper"])
        if content["class"] != METHODS[name].__name__:
            raise UserError(
                f"{path} holds {content['class']}, not the method {name!r}: give the folder of a run of that method."
            )
        method = METHODS[name](**hyper | {"weights": None} if "weights" in hyper else hyper)
        method.load_state_dict(content["state_dict"])
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist: let the run finish first.") from error
    except UserError:
        raise
    except Exception as error:  # truncated, not a checkpoint, or one that would need unpickling
        raise UserError(
            f"{path} could not be read as trained weights ({type(error).__name__}): run the benchmark again."
        ) from error
    return method.eval()


def _plain(metrics: Mapping[str, Estimate]) -> Estimates:
    """Estimates as JSON; what is undefined for every request of a small part is left out, since NaN is not JSON."""
    return {name: value._asdict() for name, value in metrics.items() if np.isfinite(value.value)}


def _search(index: str, outcomes: Mapping[str, Outcome]) -> dict[str, Any]:
    """What the gallery was searched with; of an approximate index, what it cost and found under each protocol."""
    if index == EXACT:
        return {"index": EXACT}
    return {"index": index, "protocols": {name: dict(o.search) for name, o in outcomes.items() if o.search}}


def _query_ms(outcomes: Mapping[str, Outcome], seconds: Mapping[str, float]) -> float | None:
    """Milliseconds from picture to ranked list, mean over the queries of all protocols that search."""
    asked = [outcome for outcome in outcomes.values() if outcome.protocol.kind == "retrieval"]
    if not asked:
        return None
    embedded = {outcome.request_digest: outcome.requests for outcome in asked}  # protocols may ask the same
    embedding = seconds.get("embed_queries", 0) / sum(embedded.values())
    search = seconds.get("search", 0) / sum(outcome.requests for outcome in asked)
    return round(1000 * (embedding + search), 4)


def _curve(outcome: Outcome) -> dict[str, list[float]]:
    cutoffs = {name: name.removeprefix("accuracy@") for name in outcome.metrics if name.startswith("accuracy@")}
    points = sorted((int(k), outcome.metrics[name].value) for name, k in cutoffs.items() if k.isdigit())
    return {"k": [float(k) for k, _ in points], "accuracy": [value for _, value in points]}
