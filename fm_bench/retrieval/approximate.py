# SPDX-License-Identifier: MIT
"""Approximate nearest neighbours by FAISS, for galleries past exact search; exact distances order what is found.

What is built is said by a factory string of FAISS (https://github.com/facebookresearch/faiss/wiki/The-index-factory),
and how it is searched may follow after a semicolon: ``HNSW32,Flat``, ``IVF4096,PQ64;nprobe=32``. FAISS's own default
is to look into one list of an IVF; here it is the square root of their number. For HNSW ``efSearch`` is 128, not 16.
``candidates`` is how many images more than twice those that are wanted are ranked by exact distance, which helps where
vectors are coded.

FAISS refuses most strings that it cannot build by an exception. Some it does not: numbers of 0, graphs of one neighbour
and graphs with more neighbours than there are images end the process or never return (faiss-cpu 1.15.1). These are
refused here, before FAISS sees them.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from fm_bench.errors import UserError
from fm_bench.retrieval.distances import F32, I64, blocks
from fm_bench.retrieval.reranked import EXTRA, Reranked

CANDIDATES = "candidates"
_GRAPH = re.compile(r"(HNSW|NSG)(\d*)")
_LISTS = re.compile(r"IVF(\d+)")
_REDUCED = re.compile(r"(?:PCAW?R?|ITQ|OPQ\d+_|OPQ)(\d+)")
_CODES = re.compile(r"(?:PQ|RQ|LSQ)\d+(?:x(\d+))?")
_DEGREES = {"HNSW": (2, 512), "NSG": (8, 100)}
_EF_SEARCH = 128  # nodes of a graph that are looked at; FAISS's own default of 16 is for far fewer than 50 neighbours
_LARGEST = 1 << 16  # of any number but those of lists: dimensions, bits, parts, images that are looked at
_TRIED, _TRIED_DIM = 640, 512  # vectors of a trial, as many as 16 centroids need; dimensions beyond which it is slow
_TRAINED_ON = 1 << 16  # vectors, at least; FAISS itself takes no more than 256 for each of 256 centroids
_PER_LIST = 64  # vectors for each list; below 39 FAISS warns
_BLOCK_BYTES = 64 << 20


class Factory(NamedTuple):
    """An index in words."""

    string: str
    """FAISS's factory string."""
    searching: dict[str, int]
    """How it is searched: FAISS's names, and ``candidates``."""

    @property
    def lists(self) -> int:
        """Lists that the gallery is clustered into, 0 where it is not."""
        found = _LISTS.search(self.string)
        return int(found[1]) if found else 0

    @property
    def is_graph(self) -> bool:
        """Whether images are the nodes of a graph: its edges depend on the threads that draw them."""
        return not self.lists and _GRAPH.search(self.string) is not None


def parse(text: str) -> Factory:
    """``IVF4096,PQ64;nprobe=32`` in parts. Raises UserError unless it is written like that."""
    string, *rest = (part.strip() for part in text.split(";"))
    searching: dict[str, int] = {}
    for setting in ",".join(rest).split(",") if rest else ():
        name, _, value = (part.strip() for part in setting.partition("="))
        if not name or not re.fullmatch(r"[1-9]\d{0,8}", value):
            raise UserError(
                f"the index {text!r} is searched with {setting.strip()!r}: give what follows the semicolon as "
                "NAME=NUMBER, e.g. nprobe=32."
            )
        searching[name] = int(value)
    return Factory(string, searching)


def check_factory(text: str, dim: int, images: int) -> Factory:
    """The index ``text`` in parts, if it can be built of ``images`` vectors of ``dim`` numbers.

    Raises:
        UserError: if it cannot, with the reason and what to do.
    """
    factory = parse(text)
    if wrong := _refused(factory, dim, images):
        raise UserError(f"the index {text!r} {wrong}.")
    _empty(factory, dim)
    _try(factory, dim)
    return factory


def _refused(factory: Factory, dim: int, images: int) -> str | None:
    """What is wrong with numbers that FAISS would not refuse, or only after a long time."""
    string = factory.string
    if not re.fullmatch(r"[A-Za-z0-9_,()+]+", string):
        return "is no factory string of FAISS: give one such as HNSW32,Flat or IVF256,Flat"
    lists = factory.lists
    if lists > images:
        return f"clusters the gallery into {lists:,} lists, but it has {images:,} images: give fewer lists"
    for kind, number in _GRAPH.findall(string):
        least, most = _DEGREES[kind]
        if number and not least <= int(number) <= most:
            return f"has a graph with {number} as the number of neighbours: give {kind}{least} to {kind}{most}"
    if (reduced := max((int(found) for found in _REDUCED.findall(string)), default=0)) > dim:
        return f"reduces vectors to {reduced} numbers, but they have {dim}: give at most {dim}"
    bits = max((int(found or 8) for found in _CODES.findall(string)), default=0)
    if 2 ** min(bits, 64) > images:
        return (
            f"has codes of {bits} bits, which are learnt from at least {2 ** min(bits, 64):,} images, but the gallery "
            f"has {images:,}: give fewer bits, e.g. PQ8x4, or another index"
        )
    if wide := [name for name, value in factory.searching.items() if name != "nprobe" and value > _LARGEST]:
        return f"is searched with {wide[0]} above {_LARGEST:,}: give less"
    others = [int(n) for n in re.findall(r"\d+", _LISTS.sub("", string))]
    if 0 in others or "IVF0" in string or max(others, default=0) > _LARGEST:
        return f"has a number below 1 or above {_LARGEST:,}: choose another"
    return None


def _empty(factory: Factory, dim: int) -> "faiss.Index":
    """The index before it has seen a vector. Raises UserError with FAISS's reason if it cannot be made."""
    try:
        index = faiss.index_factory(dim, factory.string, faiss.METRIC_L2)
    except (RuntimeError, MemoryError) as error:
        raise _complaint(factory, dim, error) from error
    _tune(index, factory)
    return index


def _try(factory: Factory, dim: int) -> None:
    """Builds a small one and searches it: some strings are refused no earlier. Raises UserError if that fails.

    Fewer lists and shorter codes are as good for this, and quick; many dimensions are not, where they are turned.
    """
    if dim > _TRIED_DIM and re.search("PCA|ITQ|OPQ|RR", factory.string):
        return
    fewer = _LISTS.sub(lambda found: f"IVF{min(16, int(found[1]))}", factory.string)
    shorter = re.sub(
        r"((?<!O)PQ|RQ|LSQ)(\d+)(?:x\d+)?", lambda f: f[0] if f[0].endswith("x4") else f"{f[1]}{f[2]}x4", fewer
    )
    vectors = np.random.default_rng(0).standard_normal((_TRIED, dim), dtype=np.float32)
    try:
        index = _empty(factory._replace(string=shorter), dim)
    except UserError:  # what was shortened is no string of FAISS, which says nothing of the whole
        return
    try:
        with _threads(1):
            index.train(vectors)
            index.add(vectors)
            index.search(vectors[:2], 2)
    except (RuntimeError, MemoryError, AssertionError, ValueError) as error:
        if "training points" in str(error):  # too few here, which says nothing of a whole gallery
            return
        raise _complaint(factory, dim, error) from error


def _tune(index: "faiss.Index", factory: Factory) -> None:
    """Sets how ``index`` is searched, where the user says nothing more thoroughly than FAISS does."""
    clustered = faiss.try_extract_index_ivf(index)
    chosen = {"efSearch": _EF_SEARCH} if "HNSW" in factory.string else {}
    if clustered is not None:
        chosen = {"nprobe": max(1, round(clustered.nlist**0.5))}
    for name, value in (chosen | factory.searching).items():
        try:
            if name != CANDIDATES:
                faiss.ParameterSpace().set_index_parameter(index, name, value)
        except RuntimeError as error:
            raise UserError(
                f"the index {factory.string!r} has no {name} to be searched with: FAISS knows nprobe of IVF, efSearch "
                f"of HNSW and k_factor of Refine, and {CANDIDATES} goes with every index."
            ) from error


def _complaint(factory: Factory, dim: int, error: Exception) -> UserError:
    text = " ".join(str(error).split())
    reason = re.sub(r"^Error in .* at \S+:\d+: (Error: )?", "", text)[:200] or type(error).__name__
    return UserError(
        f"FAISS cannot build or search the index {factory.string!r} of vectors of {dim} numbers ({reason}): "
        "choose another, e.g. HNSW32,Flat."
    )


class ApproximateIndex(Reranked):
    """A FAISS index of a gallery.

    It is the same whenever it is built of the same vectors: samples are seeded, blocks do not depend on memory, and
    graphs of images are built by one thread. A graph of lists, ``IVF65536_HNSW32,…``, is built by all, since training
    the lists by one would take too long: such an index is the same each time only with ``threads=1``.

    Args:
        gallery: ``(N, D)`` float32, in memory or memory-mapped; read block by block.
        keys: ``(N,)`` integers that name the images, all different; they order equal distances. Default: positions.
        seed: of the order of equal distances, and of the vectors that the index is trained on.
        factory: e.g. ``"IVF4096,PQ64;nprobe=32"``.
        threads: that build it; None for all, and for one where the result depends on them.

    Raises:
        UserError: if the index cannot be built of this gallery, or the gallery is not finite.
    """

    def __init__(
        self,
        gallery: F32,
        *,
        keys: NDArray[np.integer[Any]] | None = None,
        seed: int = 0,
        factory: str,
        threads: int | None = None,
    ) -> None:
        super().__init__(gallery, keys=keys, seed=seed)
        chosen = check_factory(factory, self.dim, len(self))
        self.index = _empty(chosen, self.dim)
        self._factory = chosen
        self.tune(chosen)
        try:
            with _threads(threads or (1 if chosen.is_graph else None)):
                if not self.index.is_trained:
                    self.index.train(self._sample(max(_TRAINED_ON, _PER_LIST * chosen.lists)))
                for part in blocks(len(self), max(1, _BLOCK_BYTES // (4 * self.dim))):
                    self.index.add(np.ascontiguousarray(self.gallery[part]))
        except (RuntimeError, MemoryError) as error:
            raise _complaint(chosen, self.dim, error) from error

    def tune(self, factory: Factory) -> None:
        """Changes how it is searched, as ``factory`` says, without building it again."""
        self.candidates = factory.searching.get(CANDIDATES, EXTRA)
        _tune(self.index, factory)

    def propose(self, queries: F32, count: int) -> I64:
        """``(R, count)`` gallery positions; −1 where FAISS finds fewer."""
        try:
            ids: I64 = self.index.search(queries, count)[1]
        except (RuntimeError, MemoryError, AssertionError) as error:
            raise _complaint(self._factory, self.dim, error) from error
        return ids

    def size(self) -> int:
        """Bytes of the index as FAISS writes it to a file."""
        written = 0

        def count(block: bytes) -> int:
            nonlocal written
            written += len(block)
            return len(block)

        writer = faiss.PyCallbackIOWriter(count)  # type: ignore[attr-defined]  # not in its stubs
        faiss.write_index(self.index, writer)
        del writer  # which flushes it
        return written

    def _sample(self, size: int) -> F32:
        """At most ``size`` vectors of the gallery, in its order."""
        if size >= len(self):
            return np.ascontiguousarray(self.gallery)
        rows = np.random.default_rng(self.seed).choice(len(self), size, replace=False)
        return np.ascontiguousarray(self.gallery[np.sort(rows)])


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    """FAISS computes with ``number`` threads in the block, with all where it is None."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(number or before)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
