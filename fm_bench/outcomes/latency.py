# SPDX-License-Identifier: MIT
"""The protocol ``latency`` (AMGAN, Table 4): from one picture and request to the first images, in milliseconds.

``t_repr_ms`` runs from the query's picture, decoded, normalised and on the device, to the query's vector in the memory
of the processor; ``t_sea_ms`` from there to the first images of the exact search; ``t_sum_ms`` is their sum.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fm_bench.catalog import Dataset, gallery_of
from fm_bench.config import RunConfig
from fm_bench.data.batches import QueryBatch
from fm_bench.data.requests import Requests, exclusions
from fm_bench.environment import hardware
from fm_bench.errors import UserError
from fm_bench.evaluation.latency import enlarged, estimates, timed
from fm_bench.evaluation.protocol import Protocol
from fm_bench.files import digest
from fm_bench.outcomes.trained import Trained
from fm_bench.outcomes.vectors import in_order, plain_vectors, precision, vectors_of
from fm_bench.questions import ask, wishes
from fm_bench.results import Outcome
from fm_bench.retrieval.distances import F32, F64, I64
from fm_bench.retrieval.ready import ReadyIndex

GALLERY = 50_000
"""Vectors that are searched."""

QUERIES = 1_000
"""At most."""


def obstacle(config: RunConfig, dataset: Dataset) -> str | None:
    """Why no query can be timed, or None."""
    protocol = Protocol("latency", changes=1, kind="latency")
    try:
        ask(dataset, gallery_of(dataset), protocol, limit=1)
    except UserError as error:
        return str(error)
    return None


def outcome(protocol: Protocol, trained: Trained) -> Outcome:
    """Times the trained method, one query at a time, in a gallery of ``GALLERY`` vectors."""
    limit = min(QUERIES, trained.config.evaluation.requests)
    requests = ask(trained.dataset, trained.datamodule.gallery_rows, protocol, limit)
    vectors, representing = represent(trained, requests)
    stored = gallery_vectors(trained)
    _, searching = search(trained, requests, stored, vectors, protocol.depth)
    times = {"t_sum_ms": representing + searching, "t_repr_ms": representing, "t_sea_ms": searching}
    machine = _machine(trained.method.device)
    note = (
        f"{protocol.name}: one query at a time by {machine['device']}, searched by {machine['cpu']}, "
        f"threads: {machine['threads']}, cores: {machine['cores']}, in {_gallery(len(stored))}; "
        "indexes are built beforehand"
    )
    asked = digest(requests.digest, machine)  # times of another machine are no answer to the same question
    return Outcome(protocol, asked, estimates(times), len(requests), times, notes=(note,))


def represent(trained: Trained, requests: Requests) -> tuple[F32, F64]:
    """The vectors ``(R, D)`` of the requests, each made by itself, and the milliseconds ``(R,)`` that it took."""
    method, pictures = trained.method, trained.datamodule.query_dataloader(requests)
    queries = [query for batch in in_order(trained, pictures, len(requests)) for query in _single(batch)]

    def embed(query: int) -> NDArray[np.float32]:
        with precision(trained.config.trainer, method.device):  # anew, so that every method casts its weights each time
            vector: NDArray[np.float32] = method.embed(queries[query]).embedding.cpu().numpy()
        return vector

    with torch.no_grad():
        vectors, milliseconds = timed(embed, len(queries), device=method.device)
    return np.concatenate(vectors), milliseconds


def _single(batch: QueryBatch) -> Iterator[QueryBatch]:
    """The queries of a batch as batches of one."""
    for row in range(len(batch.index)):
        yield QueryBatch(*(field[row : row + 1] for field in batch))


def gallery_vectors(trained: Trained) -> F32:
    """What ``embed_gallery`` gives for the first ``GALLERY`` images of the gallery, ``(n, S)``."""
    data, count = trained.datamodule, min(len(trained.datamodule.gallery_rows), GALLERY)
    (stored,) = vectors_of(
        trained, data.gallery_dataloader(), count, lambda batch: plain_vectors(trained.method, batch)
    )
    return stored


def search(trained: Trained, requests: Requests, stored: F32, vectors: F32, depth: int) -> tuple[I64, F64]:
    """The first ``depth`` images ``(R, depth)`` of each request, and the milliseconds ``(R,)`` that each search took.

    Where the gallery depends on the request there is one view of it at a time.

    Args:
        trained: the method.
        requests: what is searched.
        stored: see ``gallery_vectors``.
        vectors: ``(R, D)`` of the requests.
        depth: images per request.
    """
    own = exclusions(requests, trained.datamodule.gallery_rows)
    own = np.where(own < len(stored), own, -1)
    found, milliseconds = np.empty((len(requests), depth), np.int64), np.empty(len(requests))
    views = trained.method.views(stored, *wishes(requests, trained.datamodule.schema, None))
    for positions, view in views or [(np.arange(len(requests)), stored)]:
        index = ReadyIndex(enlarged(view, GALLERY))

        def nearest(query: int, positions: I64 = positions, index: ReadyIndex = index) -> I64:
            at = positions[query : query + 1]
            return index.search(vectors[at], depth, exclude=own[at], query_keys=at).ids

        ranked, milliseconds[positions] = timed(nearest, len(positions))
        found[positions] = np.concatenate(ranked)
        del index, nearest, view  # a view may be as large as memory allows
    return found, milliseconds


def _gallery(images: int) -> str:
    if images >= GALLERY:
        return f"{GALLERY:,} gallery vectors"
    return f"{GALLERY:,} vectors, those of {images:,} gallery images and noisy copies of them"


def _machine(device: torch.device) -> dict[str, Any]:
    """What times depend on besides the method."""
    found = hardware()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {"device": name, "cpu": found["cpu"], "cores": found["cores"], "threads": torch.get_num_threads()}
