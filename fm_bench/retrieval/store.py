# SPDX-License-Identifier: MIT
"""Embeddings on disk: complete and keyed by what made them, or not there.

A store is two files: ``NAME-<digest>.npy`` with the vectors and ``NAME.json``, the marker that says they are complete.
The marker is written last and replaced as one, so a store whose marker can be read is whole. Vectors are written by
position, so that several processes of one run can fill one store. Runs that compute the same store at once each have a
file of their own, and the later marker wins with the same content. What a killed run left is removed by the next one.
"""

import contextlib
import hashlib
import json
import os
import secrets
import shutil
from pathlib import Path
from tokenize import TokenError  # of NumPy, about a broken header
from typing import Any, cast

try:
    import fcntl
except ImportError:  # not a POSIX system: what a killed run left stays
    fcntl = None  # type: ignore[assignment]

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from fm_bench.errors import UserError
from fm_bench.files import replacing, write_json
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

    def create(self, n: int, dim: int, key: str) -> "StoreWriter":
        """A writer for ``n`` vectors of ``dim`` numbers, whose space on the disk is taken at once.

        Args:
            n: vectors.
            dim: numbers in each.
            key: digest of everything that can change the vectors (weights, images, transform).

        Raises:
            UserError: if the file system refuses, for want of space for example; nothing is left behind then.
        """
        return StoreWriter(self, (n, dim), key, secrets.token_hex(8), owner=True)

    def join(self, n: int, dim: int, key: str, token: str) -> "StoreWriter":
        """A second writer that fills the same store, in another process.

        Args:
            n: as the first writer was given it.
            dim: as the first writer was given it.
            key: as the first writer was given it.
            token: ``token`` of the first writer, which alone calls ``finish``.

        Raises:
            UserError: if the first writer's file is not to be seen from here.
        """
        return StoreWriter(self, (n, dim), key, token, owner=False)

    def ready(self, key: str) -> bool:
        """Whether vectors of this key are there, complete and of the right size."""
        return self._problem(key) is None

    def damage(self) -> str:
        """What is wrong with the store that is there, in one sentence; empty if nothing is, or if there is none."""
        return self._problem(None) or "" if self.marker.exists() else ""

    def _problem(self, key: str | None) -> str | None:
        try:
            self.open(key)
        except UserError as error:
            return str(error)
        return None

    def open(self, key: str | None = None) -> F32:
        """The vectors ``(n, D)``, memory-mapped and read-only.

        Args:
            key: what they must have been made from; None takes any.

        Raises:
            UserError: if there is no complete store, it has another key, or its file is gone, cut or of another shape.
        """
        facts = self.facts()
        try:
            return self._load(facts, key)
        except UserError:
            if (now := self.facts()) == facts:
                raise
        return self._load(now, key)  # another process put its own file in the place of that one meanwhile

    def _load(self, facts: dict[str, Any], key: str | None) -> F32:
        """The vectors that a marker names. Raises as ``open``."""
        if key is not None and facts["key"] != key:
            raise UserError(f"{self.path} holds embeddings of other weights or images: run again to compute them.")
        file = self.path.with_name(str(facts["file"]))
        try:
            vectors = np.load(file, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError, TokenError) as error:
            raise UserError(f"{file} is damaged ({error}): run again to compute it anew.") from error
        if list(vectors.shape) != facts["shape"] or vectors.dtype != np.float32:
            raise UserError(
                f"{file} holds {vectors.dtype} {vectors.shape}, not what {self.marker} says: run again to compute it."
            )
        return cast("F32", vectors)

    def adopt(self, other: "EmbeddingStore") -> None:
        """Makes this store one with the content of ``other``, which is checked bit for bit.

        The file gets a second name (a hard link), so that either store may be deleted. Where that cannot be, as on
        another file system, it is copied.

        Raises:
            UserError: if ``other`` is not complete or was changed, or the file system refuses.
        """
        facts = other.verify()
        source = other.path.with_name(str(facts["file"]))
        target = self.path.with_name(f"{self.path.name}-{facts['digest'][:16]}.npy")
        try:
            there = target.samefile(source)
        except OSError:
            there = False
        if not there:
            _link_or_copy(source, target)
        self.publish(facts | {"file": target.name, "adopted": True})

    def publish(self, facts: dict[str, Any]) -> None:
        """Writes the marker, and removes the vectors that it named before if they are others.

        Raises UserError if the marker cannot be written; the new vectors, which nothing names then, are removed.
        """
        old = self._named()
        try:
            write_json(self.marker, facts)
        except UserError:
            if self._named() != facts["file"]:
                self.path.with_name(facts["file"]).unlink(missing_ok=True)
            raise
        if old not in ("", facts["file"]):
            self.path.with_name(old).unlink(missing_ok=True)

    def _named(self) -> str:
        """The file that the marker names; empty if none is there."""
        try:
            return str(self.facts()["file"])
        except UserError:
            return ""

    def verify(self) -> dict[str, Any]:
        """``facts``. Raises UserError if the vectors are not, bit for bit, those that were finished."""
        facts = self.facts()
        if _digest(self._load(facts, None)) != facts["digest"]:
            raise UserError(
                f"{self.path.with_name(str(facts['file']))} was changed after it was written: delete it and run again."
            )
        return facts

    def facts(self) -> dict[str, Any]:
        """What the marker says: ``key``, ``file``, ``shape``, ``digest``; ``adopted`` if another store was first.

        Raises UserError if it cannot be read.
        """
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
                f"{self.marker} is not a marker of embeddings ({error}): run again to compute them."
            ) from error
        return facts


class StoreWriter:
    """Fills a store; made by ``EmbeddingStore.create`` and ``join``. Until ``finish`` there is no store to open."""

    def __init__(self, store: EmbeddingStore, shape: tuple[int, int], key: str, token: str, *, owner: bool) -> None:
        self.store, self.key, self.token = store, key, token
        self._part = store.path.with_name(f".{store.path.name}-{token}.npy")
        self._seen = _rows_file(self._part)
        self._held: int | None = None
        if not owner and not (_is_array(self._part, shape) and _is_array(self._seen, shape[:1])):
            raise UserError(
                f"{self._part} cannot be seen by this process: give the run a folder that all machines share."
            )
        try:
            if owner:
                self._part.parent.mkdir(parents=True, exist_ok=True)
                _remove_abandoned(store.path)
                self._held = _hold(self._part)
                _reserve(self._part, np.float32, shape)
                _reserve(self._seen, np.uint8, shape[:1])
            self._vectors, self._rows = open_memmap(self._part, mode="r+"), open_memmap(self._seen, mode="r+")
        except OSError as error:
            self.discard()
            size, reason = 4 * shape[0] * shape[1] / 1e9, error.strerror or error
            raise UserError(
                f"{shape[0]:,} embeddings need {size:.2f} GB in {self._part.parent} ({reason}): make room or choose "
                "another place."
            ) from error

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

    def flush(self) -> None:
        """Hands what was written to the file system, for the eyes of other machines."""
        self._vectors.flush()
        self._rows.flush()

    def finish(self, seconds: float = 0.0) -> F32:
        """Checks that every position was written, makes the store visible, and opens it.

        Args:
            seconds: that the vectors took, for whoever uses them again.

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
        except OSError as error:
            raise UserError(f"{file} could not be written ({error.strerror or error}): run again.") from error
        self.discard()
        shape = list(self._vectors.shape)
        self.store.publish(
            {"key": self.key, "file": file.name, "shape": shape, "digest": digest, "seconds": round(seconds, 3)}
        )
        return self.store.open(self.key)

    def discard(self) -> None:
        """Removes what was written so far and not finished."""
        for file in (self._part, self._seen):
            with contextlib.suppress(OSError):  # it is gone, or its folder could not be made
                file.unlink()
        if self._held is not None:
            os.close(self._held)
            self._held = None


def _rows_file(part: Path) -> Path:
    """Beside the vectors of an unfinished store: which of them are there."""
    return part.with_suffix(".rows")


def _hold(part: Path) -> int:
    """Creates ``part`` and marks it as some living process's own, for as long as the descriptor is open."""
    while True:
        held = os.open(part, os.O_CREAT | os.O_RDWR, 0o666)
        if fcntl is not None:
            with contextlib.suppress(OSError):  # a file system without locks: what a killed run leaves there stays
                fcntl.flock(held, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):  # taken for abandoned before it was locked
            if os.path.samestat(os.fstat(held), part.stat()):
                return held
        os.close(held)


def _link_or_copy(source: Path, target: Path) -> None:
    """Gives the file ``source`` a second name, or copies it. Raises UserError if neither can be."""
    temporary = target.with_name(f".{target.stem}-{secrets.token_hex(8)}.npy")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.hardlink_to(source.resolve())
        temporary.replace(target)
    except OSError:
        with replacing(target) as copy:
            shutil.copyfile(source, copy)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _remove_abandoned(path: Path) -> None:
    """Removes what killed runs left of unfinished stores: what no living process holds."""
    for part in path.parent.glob(f".{path.name}-*.npy") if fcntl is not None else ():
        with contextlib.suppress(OSError):  # it is held, or another process was faster
            descriptor = os.open(part, os.O_RDWR)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                part.unlink()
                _rows_file(part).unlink(missing_ok=True)
            finally:
                os.close(descriptor)


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
