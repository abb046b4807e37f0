# SPDX-License-Identifier: MIT
"""Embeddings on disk: complete and keyed by what made them, or not there.

A store is two files: ``NAME-<digest>.npy`` with the vectors and ``NAME.json``, the marker that says they are complete.
The marker is written last and replaced as one, so a store whose marker can be read is whole. Vectors are written by
position, so that several processes can fill one store; two that compute the same store at once each have their own
file, and the later marker wins with the same content.
"""

import hashlib
import json
import os
import secrets
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from fm_bench.errors import UserError
from fm_bench.files import write_json
from fm_bench.retrieval.distances import F32, bad_rows, blocks

_HASHED_ROWS = 1 << 14


class EmbeddingStore:
    """One keyed array ``(n, D)`` of float32 vectors.

    Args:
        path: where it lives, without suffix: ``run/gallery`` gives ``run/gallery.json`` and ``run/gallery-….npy``.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.marker = self.path.with_name(self.path.name + ".json")

    def create(self, n: int, dim: int, key: str, token: str | None = None) -> "StoreWriter":
        """A writer for ``n`` vectors of ``dim`` numbers.

        Args:
            n: vectors.
            dim: numbers in each.
            key: digest of everything that can change the vectors (weights, images, transform).
            token: the same text in all processes that fill this store together, after one of them (which then calls
                ``finish``) has created it; a process of its own needs none.
        """
        return StoreWriter(self, n, dim, key, token or secrets.token_hex(8), joins=token is not None)

    def ready(self, key: str) -> bool:
        """Whether vectors of this key are there, complete and of the right size."""
        try:
            self.open(key)
        except UserError:
            return False
        return True

    def open(self, key: str | None = None) -> F32:
        """The vectors ``(n, D)``, memory-mapped and read-only.

        Args:
            key: what they must have been made from; None takes any.

        Raises:
            UserError: if there is no complete store, it has another key, or its file was truncated.
        """
        facts = self.facts()
        if key is not None and facts["key"] != key:
            raise UserError(f"{self.path} holds embeddings of other weights or images: run again to compute them.")
        file = self.path.with_name(str(facts["file"]))
        try:
            vectors = np.load(file, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise UserError(f"{file} is damaged ({error}): delete {self.marker} and run again.") from error
        if list(vectors.shape) != facts["shape"] or vectors.dtype != np.float32:
            raise UserError(f"{file} holds {vectors.dtype} {vectors.shape}, not what {self.marker} says: delete both.")
        return cast("F32", vectors)

    def verify(self) -> None:
        """Raises UserError if the vectors are not, bit for bit, those that were finished."""
        vectors, facts = self.open(), self.facts()
        if _digest(vectors) != facts["digest"]:
            raise UserError(
                f"{self.path.with_name(str(facts['file']))} was changed after it was written: delete it and run again."
            )

    def facts(self) -> dict[str, Any]:
        """What the marker says: ``key``, ``file``, ``shape``, ``digest``. Raises UserError if it cannot be read."""
        try:
            facts = json.loads(self.marker.read_text(encoding="utf-8"))
            if not isinstance(facts, dict) or not {"key", "file", "shape", "digest"} <= facts.keys():
                raise ValueError("entries are missing")
            if Path(facts["file"]).name != facts["file"]:
                raise ValueError(f"it names a file outside of its folder: {facts['file']}")
        except FileNotFoundError as error:
            raise UserError(
                f"{self.marker} does not exist: no complete embeddings are there, so compute them first."
            ) from error
        except (OSError, ValueError, TypeError) as error:
            raise UserError(
                f"{self.marker} is not a marker of embeddings ({error}): delete it and run again."
            ) from error
        return facts


class StoreWriter:
    """Fills a store; made by ``EmbeddingStore.create``. Until ``finish`` there is no store to open."""

    def __init__(self, store: EmbeddingStore, n: int, dim: int, key: str, token: str, *, joins: bool) -> None:
        self.store, self.key = store, key
        self._part = store.path.with_name(f".{store.path.name}-{token}.npy")
        self._seen = store.path.with_name(f".{store.path.name}-{token}.rows.npy")
        try:
            self._part.parent.mkdir(parents=True, exist_ok=True)
            if not (joins and _is_array(self._part, (n, dim)) and _is_array(self._seen, (n,))):
                _reserve(self._part, np.float32, (n, dim))
                _reserve(self._seen, np.uint8, (n,))
            self._vectors, self._rows = open_memmap(self._part, mode="r+"), open_memmap(self._seen, mode="r+")
        except OSError as error:
            self.discard()
            reason = error.strerror or str(error)
            raise UserError(f"{self._part} could not be written ({reason}): free or choose another place.") from error

    def write(self, index: NDArray[np.integer[Any]], embedding: NDArray[np.floating[Any]]) -> None:
        """Puts ``embedding (B, D)`` at the positions ``index (B,)``.

        Raises:
            UserError: if a vector holds NaN or infinity: how many do, and the position of the first.
            ValueError: on another shape.
        """
        if embedding.shape != (len(index), self._vectors.shape[1]):
            raise ValueError(f"{len(index)} positions came with vectors of shape {embedding.shape}")
        bad = bad_rows(np.asarray(embedding, np.float32))
        if len(bad):
            raise UserError(
                f"{len(bad)} of {len(index)} embeddings for {self.store.path} hold NaN or infinity, the first at "
                f"position {index[bad[0]]}: look for a diverged training or a division by a zero norm."
            )
        self._vectors[index] = embedding
        self._rows[index] = 1

    def finish(self) -> F32:
        """Checks that every position was written, makes the store visible, and opens it.

        Raises:
            UserError: if positions are missing (how many, and the first), or the disk is full.
        """
        missing = np.flatnonzero(self._rows == 0)
        if len(missing):
            raise UserError(
                f"{len(missing)} of {len(self._rows)} embeddings for {self.store.path} were never written, the first "
                f"is {missing[0]}: embed all of them before finishing."
            )
        self._vectors.flush()
        digest = _digest(self._vectors)
        file = self.store.path.with_name(f"{self.store.path.name}-{digest[:16]}.npy")
        try:
            self._part.replace(file)
        except FileNotFoundError:
            if self.store.ready(self.key):  # another process with the same token has finished the same work
                return self.store.open(self.key)
            raise
        self._seen.unlink(missing_ok=True)
        old = self._superseded(file.name)
        facts = {"key": self.key, "file": file.name, "shape": list(self._vectors.shape), "digest": digest}
        write_json(self.store.marker, facts)
        if old is not None:
            old.unlink(missing_ok=True)
        return self.store.open(self.key)

    def _superseded(self, name: str) -> Path | None:
        """The vectors that the marker names so far, if they are others than ``name``."""
        try:
            facts = self.store.facts()
        except UserError:
            return None
        return None if facts["file"] == name else self.store.path.with_name(facts["file"])

    def discard(self) -> None:
        """Removes what was written so far."""
        self._part.unlink(missing_ok=True)
        self._seen.unlink(missing_ok=True)


def _reserve(path: Path, dtype: type, shape: tuple[int, ...]) -> None:
    """An array on disk with its space taken, since writing into a map of a full disk would kill the process."""
    size = open_memmap(path, mode="w+", dtype=dtype, shape=shape).nbytes
    if hasattr(os, "posix_fallocate") and size:
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _is_array(path: Path, shape: tuple[int, ...]) -> bool:
    try:
        return open_memmap(path, mode="r").shape == shape
    except (OSError, ValueError):
        return False


def _digest(vectors: F32) -> str:
    hasher = hashlib.sha256(f"{vectors.shape}".encode())
    for part in blocks(len(vectors), _HASHED_ROWS):
        hasher.update(np.ascontiguousarray(vectors[part]).view(np.uint8).data)
    return hasher.hexdigest()
