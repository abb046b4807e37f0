# SPDX-License-Identifier: MIT
"""Opens galleries with the index of a run; where it is approximate, measures what it costs and what it misses."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fm_bench.evaluation.latency import WARM_UP, timed
from fm_bench.processes import agreed, is_rank_zero
from fm_bench.recipe import EXACT
from fm_bench.retrieval.distances import F32, I64
from fm_bench.retrieval.index import ExactIndex
from fm_bench.retrieval.openers import AtRankZero, opener
from fm_bench.retrieval.ordering import Ranking, TieOrder
from fm_bench.retrieval.reranked import Reranked
from fm_bench.retrieval.searcher import Opener, Searcher

REQUESTS = 1_000
"""At most, of those whose neighbours are searched exactly as well."""
TIMED = 200
"""At most, of those that are searched one by one."""


def recall(found: Ranking, truth: Ranking) -> float:
    """Share of the nearest images that were found, mean over requests.

    Whatever is no farther than the last of the exact ranking counts, so that of images at one distance any will do.

    Args:
        found: of ``R`` requests, ``k`` images each, at exact distances.
        truth: of the same requests, by exact search, as deep.
    """
    there = truth.ids >= 0
    farthest = np.where(there, truth.distances, -np.inf).max(axis=1, keepdims=True)
    share = ((found.ids >= 0) & (found.distances <= farthest)).sum(axis=1) / there.sum(axis=1).clip(1)
    return float(share.mean())


class Measured:
    """An ``Opener`` that measures every index it opens, when it is searched for the first time.

    Args:
        opened: opens a gallery, and tells the seconds that its index took to build.
        requests: how many will be asked in all; at most ``REQUESTS`` of them are searched exactly as well.
        seed: of their choice.
        aside: a block that measures, so that it does not count as searching.
    """

    def __init__(
        self,
        opened: Callable[..., tuple[Searcher, float]],
        requests: int,
        seed: int = 0,
        aside: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._opened, self.aside = opened, aside
        self._share = min(1.0, REQUESTS / max(1, requests))
        self._rng = np.random.default_rng(seed)
        self._parts: list[dict[str, float]] = []
        self._weights: list[int] = []
        self.seconds = 0.0
        """That measuring took."""

    def __call__(self, gallery: F32, *, keys: NDArray[np.integer[Any]], seed: int) -> Searcher:
        """The gallery, opened and watched."""
        index, seconds = self._opened(gallery, keys=keys, seed=seed)
        return _Watched(index, self, seconds)

    def measure(self, index: Reranked, seconds: float, found: Ranking, asked: "_Asked") -> None:
        """Compares what was ``found`` with an exact search for some of what was ``asked``, and times single queries."""
        start = time.perf_counter()
        queries, k, exclude, keys = asked
        chosen = np.sort(self._rng.permutation(len(queries))[: int(np.ceil(self._share * len(queries)))])
        exactly = ExactIndex(index.gallery, keys=index.keys, seed=index.seed)
        truth = exactly.search(queries[chosen], k, exclude=exclude[chosen], query_keys=keys[chosen])
        part = {f"recall@{k}": recall(_rows(found, chosen), truth), "build_seconds": seconds}
        if (size := index.size()) is not None:
            part["bytes_per_vector"] = size / len(index)
        few = chosen[: int(np.ceil(len(chosen) * TIMED / REQUESTS))]

        def one(number: int) -> Ranking:
            at = few[number : number + 1]
            return index.search(queries[at], k, exclude=exclude[at], query_keys=keys[at])

        part["latency_ms"] = float(timed(one, len(few), warm_up=min(WARM_UP, len(few)))[1].mean())
        self._parts.append(part)
        self._weights.append(len(queries))
        self.seconds += time.perf_counter() - start

    def result(self) -> dict[str, float]:
        """``recall@K``, ``build_seconds``, ``bytes_per_vector`` and ``latency_ms``; empty where nothing was searched.

        Bytes are the index's own. The vectors, ``4 D`` bytes each, stay in their mapped file, of which every search
        reads the rows that it orders by exact distance.

        Of several views of a gallery, building takes the sum; the others are means, weighted by requests.
        """
        if not self._parts:
            return {}
        names = [name for name in self._parts[0] if all(name in part for part in self._parts)]
        values = {name: [part[name] for part in self._parts] for name in names}
        means = {name: float(np.average(of, weights=self._weights)) for name, of in values.items()}
        means["build_seconds"] = sum(values["build_seconds"])
        return {name: round(value, 6) for name, value in means.items()}


def _rows(ranking: Ranking, rows: I64) -> Ranking:
    return Ranking(ranking.ids[rows], ranking.distances[rows], ranking.tied[rows])


_Asked = tuple[F32, int, I64, NDArray[np.integer[Any]]]


class _Watched:
    """A ``Searcher`` that shows its first search to ``Measured``."""

    def __init__(self, index: Searcher, by: Measured, seconds: float) -> None:
        self._index, self._by, self._seconds = index, by, seconds
        self._seen = False
        self.gallery = index.gallery

    def ties(self, query_keys: NDArray[np.integer[Any]]) -> TieOrder:
        return self._index.ties(query_keys)

    def search(
        self,
        queries: NDArray[np.floating[Any]],
        k: int,
        *,
        exclude: NDArray[np.int64] | None = None,
        query_keys: NDArray[np.integer[Any]] | None = None,
    ) -> Ranking:
        found = self._index.search(queries, k, exclude=exclude, query_keys=query_keys)
        if not self._seen and len(queries):
            self._seen = True
            own = self._index.own if isinstance(self._index, AtRankZero) else self._index
            with agreed("measuring the index"):
                if is_rank_zero() and isinstance(own, Reranked):
                    excluded = np.full(len(queries), -1) if exclude is None else exclude
                    keys = np.arange(len(queries)) if query_keys is None else query_keys
                    asked = queries.astype(np.float32), k, excluded, keys
                    with self._by.aside():
                        self._by.measure(own, self._seconds, found, asked)
        return found


class Searching:
    """What the protocols of one run are searched with.

    Args:
        index: its name, see ``fm_bench.retrieval.openers``.
        gallery: ``(N, D)`` vectors that several protocols search: an approximate index of them is built once.
        aside: a block that measures an approximate index, so that it does not count as searching.
    """

    def __init__(
        self,
        index: str = EXACT,
        gallery: F32 | None = None,
        aside: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.index, self._gallery, self._aside = index, gallery, aside
        self._measured: dict[str, Measured] = {}
        self._shared: tuple[Searcher, NDArray[np.integer[Any]], int, float] | None = None
        self._built = 0.0

    def opener(self, protocol: str, requests: int) -> Opener:
        """What opens the gallery for ``requests`` of ``protocol``."""
        if self.index == EXACT:
            return opener(EXACT)
        self._measured[protocol] = Measured(self._open, requests, aside=self._aside)
        return self._measured[protocol]

    @property
    def seconds(self) -> dict[str, float]:
        """Phase -> seconds that were spent while searching but not on it."""
        measuring = sum(measured.seconds for measured in self._measured.values())
        phases = {"build_index": self._built, "measure_index": measuring}
        return {phase: seconds for phase, seconds in phases.items() if seconds}

    def found(self, protocol: str) -> dict[str, float]:
        """What was measured under ``protocol``, see ``Measured.result``; nothing of an exact search."""
        return self._measured[protocol].result() if protocol in self._measured else {}

    def notes(self, name: str) -> list[str]:
        """What readers of the row must know of the index called ``name``: nothing, or how much it misses."""
        by_metric: dict[str, list[str]] = {}
        for protocol in self._measured:
            for metric, value in self.found(protocol).items():
                if metric.startswith("recall@"):
                    by_metric.setdefault(metric, []).append(f"{value:.3f} ({protocol})".removeprefix("0"))
        return [f"approximate search {name}, {metric} {', '.join(found)}" for metric, found in by_metric.items()]

    def _open(self, gallery: F32, *, keys: NDArray[np.integer[Any]], seed: int) -> tuple[Searcher, float]:
        """The gallery, opened, and the seconds that its index took to build."""
        if self._shared is not None and gallery is self._gallery:
            index, known, ordered_by, seconds = self._shared
            if ordered_by == seed and np.array_equal(known, keys):
                return index, seconds
        start = time.perf_counter()
        index = opener(self.index)(gallery, keys=keys, seed=seed)
        seconds = time.perf_counter() - start
        self._built += seconds
        if gallery is self._gallery:
            self._shared = index, keys, seed, seconds
        return index, seconds
