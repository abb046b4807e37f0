# SPDX-License-Identifier: MIT
"""Exact nearest neighbours: a fast search proposes, float64 decides, and a bound proves that nothing was missed.

The gallery is read in blocks, so that it may be a memory map, and centred, so that a common offset does not eat up the
digits of float32. Where the machine multiplies in bfloat16, a scan gives every image that can be among the first ``k``
(``shortlist.py``). Elsewhere, and for few queries, FAISS gives each query a few more candidates than asked in float32,
and a worst-case bound tells whether an image that it left out could belong to the first ``k``. The candidates'
distances are computed again, exactly. Where neither way can tell (ties, near-ties, collapsed embeddings) that query is
searched again in float64. So the result is the order of exact distances, whatever the blocks, shards, threads or
library.
"""

from collections.abc import Callable, Iterator
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fm_bench.processes import world
from fm_bench.retrieval import reduced, scan
from fm_bench.retrieval.basis import Basis, find_basis
from fm_bench.retrieval.distances import (
    F32,
    F64,
    I64,
    Duplicates,
    blocks,
    check_embeddings,
    duplicates,
    exact,
    slack,
    true_float32,
)
from fm_bench.retrieval.gallery import Gallery
from fm_bench.retrieval.ordering import U64, Ranking, TieOrder, first_k, first_k_of_pairs
from fm_bench.retrieval.shortlist import sampled, shortlist

try:
    import faiss
except ImportError:  # a machine without FAISS gets the same results from torch
    faiss: Any = None  # type: ignore[no-redef]

_MARGIN = 16  # candidates beyond k: enough that the bound nearly always decides, at no measurable cost
_QUERIES = 1 << 14  # queries searched at a time, at most
_ELEMENTS = 1 << 24  # numbers in them, at most: 64 MB
_GPU_K = 2048  # FAISS finds no more than this on a GPU
_SCANNED = 8192  # rows of the gallery that are scanned at a time
_CROWDED = 1024  # queries that are searched at a time where each has many near images
_MANY = 64  # queries from which on it pays to round the gallery to bfloat16


class ExactIndex(Gallery):
    """A gallery to search.

    Args:
        gallery: ``(N, D)`` float32, in memory or memory-mapped; never copied as a whole.
        keys: ``(N,)`` integers that name the images, all different; equal distances are ordered by a shuffle of these,
            so that the gallery's order does not matter. Default: the positions.
        seed: of that shuffle.
        block_bytes: how much of the gallery is worked on at a time.
        rows: the part of the gallery that is searched, where another process searches the rest. Default: all of it.
            Positions are always those in the whole gallery.

    Raises:
        UserError: if the gallery is not a finite two-dimensional array of floats.
    """

    def __init__(
        self,
        gallery: NDArray[np.floating[Any]],
        *,
        keys: NDArray[np.integer[Any]] | None = None,
        seed: int = 0,
        block_bytes: int = 64 << 20,
        rows: slice | None = None,
    ) -> None:
        self.block_rows = max(1, block_bytes // (4 * max(1, gallery.shape[-1])))
        self.rows = slice(0, len(gallery)) if rows is None else rows
        checked = check_embeddings(gallery, "gallery", min(self.block_rows, 1 << 14), self.rows)
        super().__init__(checked, keys=keys, seed=seed)
        self.blocks: reduced.Blocks | None = None
        """What searches in bfloat16 scan, from the first one on."""

    def __len__(self) -> int:
        return self.rows.stop - self.rows.start

    def parts(self, step: int) -> Iterator[slice]:
        """Consecutive slices of at most ``step`` that cover the searched rows."""
        for part in blocks(len(self), step):
            yield slice(self.rows.start + part.start, self.rows.start + part.stop)

    @property
    def _at_once(self) -> int:
        """Queries that are searched at a time; the gallery is scanned for each such part."""
        return max(1, min(_QUERIES, _ELEMENTS // self.dim))

    @cached_property
    def centre(self) -> F32:
        """Roughly the mean vector. Any point is as correct; one amid the data keeps the digits of float32."""
        sample = self.gallery[:: max(1, len(self.gallery) // 1024)]  # of all, so that every process has the same
        return (
            sample.mean(axis=0, dtype=np.float64).astype(np.float32) if len(sample) else np.zeros(self.dim, np.float32)
        )

    @cached_property
    def duplicates(self) -> Duplicates:
        """Rows grouped by equal vectors, found out only when many ties ask for it."""
        found = duplicates(self.gallery[self.rows], min(self.block_rows, 1 << 14))
        first, members = found.first + self.rows.start, found.members + self.rows.start
        return found._replace(first=first, members=members)

    def search(
        self,
        queries: NDArray[np.floating[Any]],
        k: int,
        *,
        exclude: NDArray[np.int64] | None = None,
        query_keys: NDArray[np.integer[Any]] | None = None,
    ) -> Ranking:
        """The ``k`` nearest images of each query among the searched rows.

        Args:
            queries: ``(R, D)``.
            k: at least 1; the ranking has exactly ``k`` columns, padded with −1 where the gallery is shorter.
            exclude: ``(R,)`` gallery position that the query must not find, or −1; it takes no rank.
            query_keys: ``(R,)`` integers that name the queries in the order of ties. Default: positions.
        """
        nowhere = np.full(len(queries), -1.0), np.zeros(len(queries), np.uint64)
        return self.search_counting(queries, k, *nowhere, 0, exclude=exclude, query_keys=query_keys)[0]

    def search_counting(
        self,
        queries: NDArray[np.floating[Any]],
        k: int,
        distances: F64,
        numbers: U64,
        limit: int,
        *,
        exclude: NDArray[np.int64] | None = None,
        query_keys: NDArray[np.integer[Any]] | None = None,
    ) -> tuple[Ranking, I64]:
        """``search`` and ``count_before`` in one; see ``Counter.search_counting``."""
        queries, exclude, ties = self.asked(queries, exclude, query_keys)
        ranking = Ranking(
            np.full((len(queries), k), -1), np.full((len(queries), k), np.inf), np.zeros(len(queries), bool)
        )
        count = np.zeros(len(queries), np.int64)
        for p in blocks(len(queries) if len(self) else 0, self._at_once):
            place = distances[p], numbers[p], ties.part(p), exclude[p], limit
            left = distances[p] >= 0
            watch = scan.Watch(self, queries[p], *place) if left.any() and _scans(len(queries[p])) else None
            some = self._search(queries[p], k, exclude[p], ties.part(p), watch)
            for whole, found in zip(ranking, some, strict=True):
                whole[p] = found
            if watch is not None:
                count[p], left = watch.counted(), watch.left
            if (rows := np.flatnonzero(left)).size:
                count[p][rows] = self._count_after(some, rows, queries[p], *place)
        return ranking, count

    def _count_after(
        self,
        found: Ranking,
        rows: I64,
        queries: F32,
        distances: F64,
        numbers: U64,
        ties: TieOrder,
        exclude: I64,
        limit: int,
    ) -> I64:
        """``count_before`` of queries ``rows (r,)``, where the nearest images of all of them were ``found``.

        The gallery is asked about places beyond these alone.
        """
        ids, near, place = found.ids[rows], found.distances[rows], distances[rows, None]
        earlier = ties(rows[:, None], np.maximum(ids, 0)) < numbers[rows, None]
        count = ((near < place) | ((near == place) & earlier)).sum(axis=1, dtype=np.int64)
        beyond = distances[rows] >= near[:, -1]
        if len(far := rows[beyond]):
            asked = queries[far], distances[far], numbers[far], ties.part(far), exclude[far]
            count[beyond] = self.count_before(*asked, limit)
        return np.asarray(count)

    def count_before(self, queries: F32, distances: F64, numbers: U64, ties: TieOrder, exclude: I64, limit: int) -> I64:
        """How many images come before a given place in each query's ranking; see ``Counter.count_before``."""
        everywhere, counts = np.zeros(len(self.gallery), np.int64), partial(scan.others, exclude)
        return self.count_by_segment(queries, distances, numbers, ties, counts, limit, everywhere, 1)[:, 0]

    def count_by_segment(
        self,
        queries: F32,
        distances: F64,
        numbers: U64,
        ties: TieOrder,
        counts: Callable[[I64, I64], NDArray[np.bool_]],
        limit: int,
        segment: I64,
        segments: int,
    ) -> I64:
        """As ``count_before``, apart for each segment of the gallery; see ``scan.count_by_segment``."""
        count = np.zeros((len(queries), segments), np.int64)
        for part in blocks(len(queries), self._at_once):

            def these(rows: I64, ids: I64, start: int = part.start) -> NDArray[np.bool_]:
                return counts(rows + start, ids)

            place = distances[part], numbers[part], ties.part(part)
            count[part] = scan.count_by_segment(self, queries[part], *place, these, limit, segment, segments)
        return count

    def centred(self, queries: F32) -> tuple[F32, F64]:
        """Queries relative to the centre, and their norms."""
        centred = queries - self.centre
        return centred, np.sqrt(np.einsum("rd,rd->r", centred, centred, dtype=np.float64))

    def centred_rows(self, part: slice) -> F32:
        """Rows of the gallery relative to the centre."""
        return self.gallery[part] - self.centre

    def _search(self, queries: F32, k: int, exclude: I64, ties: TieOrder, watch: scan.Watch | None) -> Ranking:
        wanted = min(k, len(self))
        if _scans(len(queries)):
            return _pad(self._search_reduced(queries, wanted, exclude, ties, watch), k)
        centred, norms = self.centred(queries)
        ids, bound = self._candidates(centred, min(len(self), wanted + max(_MARGIN, wanted // 8)))
        rows = np.broadcast_to(np.arange(len(ids))[:, None], ids.shape)
        real = np.maximum(ids, 0)
        distances = exact(queries, self.gallery, rows.ravel(), real.ravel()).reshape(ids.shape)
        distances[(ids < 0) | (ids == exclude[:, None])] = np.inf
        ranking = first_k(real, distances, ties(rows, real), wanted)
        everyone = ids.shape[1] == len(self)  # nothing can have been left out, except by overflow
        last = ranking.distances[:, -1]
        small = (norms <= reduced.HUGE) & (bound <= reduced.HUGE**2)  # so that what overflows is farther than the bound
        proven = ~np.isnan(bound) & (everyone | (small & (last + slack(norms, last, self.dim, 24) < bound)))
        if not proven.all():
            ranking = scan.replace_rows(self, ranking, np.flatnonzero(~proven), queries, exclude, ties)
        return _pad(ranking, k)

    def _search_reduced(self, queries: F32, k: int, exclude: I64, ties: TieOrder, watch: scan.Watch | None) -> Ranking:
        """As ``_search``, by scans in bfloat16: in few directions where those do, and in all dimensions."""
        centred, norms = self.centred(queries)
        if self.blocks is None:
            self.blocks = self.in_blocks(find_basis(self.gallery[self.rows], self.centre, centred, reduced.device()))
        wanted = min(len(self), k + int((exclude >= 0).any()))
        sample = self.gallery[sampled(self.rows, wanted)] - self.centre
        left, pairs, bound = np.arange(len(queries)), [], np.full(len(queries), np.inf)
        for scanned, at_once in self._ways():
            given_up, crowded = [], False
            for some in blocks(len(left), at_once):
                rows = left[some]
                found = shortlist(scanned, sample, centred[rows], norms[rows], wanted, watch)
                pairs.append((rows[found.row], found.image))
                bound[rows] = np.minimum(bound[rows], found.bound)
                given_up.append(rows[found.given_up])
                crowded |= found.crowded
            left, watch = np.concatenate(given_up), None  # which has seen the gallery
            if not len(left) or (scanned.basis is None and not crowded):
                break
        row, image = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
        kept = scan.others(exclude, row, image)
        row, image = row[kept], image[kept]
        distances = exact(queries, self.gallery, row, image)
        ranking = first_k_of_pairs(len(queries), row, image, distances, ties(row, image), k)
        if len(left):
            ranking.distances[left, -1] = bound[left]
            ranking = scan.replace_rows(self, ranking, left, queries, exclude, ties)
        return ranking

    def _ways(self) -> Iterator[tuple[reduced.Blocks, int]]:
        """What is scanned, and for how many queries at a time, one after the other as long as queries are given up."""
        assert self.blocks is not None
        every = self.blocks if self.blocks.basis is None else self.in_blocks(None)
        yield self.blocks, _QUERIES
        if self.blocks is not every:
            yield every, _QUERIES
        yield every, _CROWDED

    def in_blocks(self, basis: Basis | None) -> reduced.Blocks:
        """The searched rows for a scan in bfloat16."""
        return reduced.Blocks(self.rows, self.centred_rows, min(_SCANNED, self.block_rows), basis)

    def _candidates(self, centred: F32, count: int) -> tuple[I64, NDArray[np.float32]]:
        """``(R, count)`` gallery positions, and ``(R,)`` the computed distance from which on images were left out.

        Where distances overflow float32, positions are −1 and the bound is NaN.
        """
        ids = np.empty((len(centred), 0), np.int64)
        distances = np.empty((len(centred), 0), np.float32)
        overflow = np.zeros(len(centred), bool)
        for part in self.parts(self.block_rows):
            near, where = _knn(centred, self.centred_rows(part), min(count, part.stop - part.start))
            overflow |= (where < 0).any(axis=1)
            where[where >= 0] += part.start
            ids, distances = np.hstack((ids, where)), np.hstack((distances, near))
            if ids.shape[1] > count:
                keep = np.argpartition(distances, count - 1, axis=1)[:, :count]
                ids, distances = np.take_along_axis(ids, keep, axis=1), np.take_along_axis(distances, keep, axis=1)
        return ids, np.where(overflow, np.nan, distances.max(axis=1, initial=0))


def _pad(ranking: Ranking, k: int) -> Ranking:
    """Excluded images and columns past the gallery's end become −1 at distance inf."""
    ids, distances, tied = ranking
    ids[~np.isfinite(distances)] = -1
    if (short := k - ids.shape[1]) > 0:
        ids = np.pad(ids, ((0, 0), (0, short)), constant_values=-1)
        distances = np.pad(distances, ((0, 0), (0, short)), constant_values=np.inf)
        tied = np.zeros(len(ids), bool)
    return Ranking(ids, distances, tied)


def _scans(queries: int) -> bool:
    """Whether so many queries are searched by a scan in bfloat16."""
    return queries >= _MANY and reduced.supported() and _gpus() < 2


def _gpus() -> int:
    """GPUs that FAISS can use; it searches on all of them at once. Each of many processes has one, and uses torch."""
    usable = faiss is not None and reduced.may_use_gpus() and world()[1] == 1
    return int(faiss.get_num_gpus()) if usable else 0


def _knn(queries: F32, gallery: F32, k: int) -> tuple[F32, I64]:
    """Computed distances and positions of the ``k`` nearest rows, in any order; −1 where distances overflowed."""
    if faiss is None:
        distances, ids = _torch_knn(queries, gallery, k)
    elif _gpus() and k <= _GPU_K:
        options = faiss.GpuMultipleClonerOptions()
        options.shard = True
        index = faiss.index_cpu_to_all_gpus(faiss.IndexFlatL2(gallery.shape[1]), options)
        index.add(gallery)
        distances, ids = index.search(queries, k)
    else:
        distances, ids = faiss.knn(queries, gallery, k)
    ids[~np.isfinite(distances)] = -1
    return distances, ids


def _torch_knn(queries: F32, gallery: F32, k: int, block: int = 1 << 22) -> tuple[F32, I64]:
    """As ``_knn``, with torch alone."""
    device = reduced.device()
    with true_float32():  # the error bound is that of true float32
        rows = torch.from_numpy(gallery).to(device)
        norms = torch.from_numpy(np.einsum("nd,nd->n", gallery, gallery)).to(device)
        parts = []
        for part in blocks(len(queries), max(1, block // len(gallery))):
            query = torch.from_numpy(queries[part]).to(device)
            squared = query.square().sum(1, keepdim=True) + norms - 2 * query @ rows.T
            parts.append(torch.topk(squared, k, dim=1, largest=False, sorted=False))
        return torch.cat([p.values for p in parts]).cpu().numpy(), torch.cat([p.indices for p in parts]).cpu().numpy()
