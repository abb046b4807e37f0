# SPDX-License-Identifier: MIT
"""Files that are whole or absent, and digests of what was in them."""

import contextlib
import hashlib
import io
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fm_bench.errors import UserError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary name beside ``path`` and renames it to ``path`` when the block ends well.

    The temporary file keeps ``path``'s suffix, so that writers that choose a format by suffix still work. On any
    failure it is removed and ``path`` stays as it was.

    Raises:
        UserError: if the file system refuses (full, read-only, no permission).
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{path} could not be written ({reason}): make room or choose another place.") from error


def user_path(text: str | Path) -> Path:
    """The path that a user wrote, with ``~`` as a home folder; nothing need be there.

    Raises:
        UserError: if there is no such home, or no file can have such a name.
    """
    try:
        path = Path(text).expanduser()
        path.exists()
    except (RuntimeError, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error).rstrip(".").lower()
        raise UserError(f"{str(text)[:120]!r} cannot be a path ({reason}): check it.") from error
    return path


def write_text(path: Path, text: str) -> None:
    """Writes ``text`` so that ``path`` is either its old self or complete. Raises UserError as ``replacing`` does."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def write_json(path: Path, value: Any) -> None:
    """Writes ``value`` as indented JSON; NaN and infinity are refused, since they are not JSON."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_torch(path: Path, value: Any) -> None:
    """``torch.save``, whole or not at all. Raises UserError as ``replacing`` does."""
    import torch  # not above: processes that decode pictures import this file, and PyTorch takes them seconds

    buffer = io.BytesIO()  # torch reports a full disk as a RuntimeError of its own; writing bytes does not
    torch.save(value, buffer)
    with replacing(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def digest(*parts: Any) -> str:
    """SHA-256, in hexadecimal, of the canonical form of ``parts``.

    Arrays count by type, shape and bytes; everything else by its JSON with sorted keys. Equal digests are what "the
    same data", "the same requests" and "the same configuration" mean throughout the suite.
    """
    hasher = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            hasher.update(f"{part.dtype.str}{part.shape}".encode())
            hasher.update(np.ascontiguousarray(part).view(np.uint8).data)
        else:
            hasher.update(json.dumps(part, sort_keys=True, separators=(",", ":"), default=str).encode())
        hasher.update(b"\0")
    return hasher.hexdigest()


def cache_dir() -> Path:
    """Where decoded images are kept: ``$FM_BENCH_CACHE``, else ``fm-bench`` in the user's cache folder."""
    if given := os.environ.get("FM_BENCH_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fm-bench"


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


Array = NDArray[Any]
