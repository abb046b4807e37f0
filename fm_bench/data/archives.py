# SPDX-License-Identifier: MIT
"""Unpacks archives from elsewhere: nothing lands outside the folder, and no archive fills the disk."""

import lzma
import os
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from fm_bench.data.rooted import inside
from fm_bench.errors import UserError

MAX_GROWTH = 100
"""An archive that unpacks to more than this many times its own size is refused; photos hardly grow at all."""

SPARED = 1 << 26
"""Bytes that any archive may unpack to, since small files of zeros or of text shrink far."""

MAX_MEMBERS = 5_000_000

_BLOCK = 1 << 20


class _Member(NamedTuple):
    """A plain file of an archive."""

    name: str
    size: int  # as the archive says
    open: Callable[[], IO[bytes]]


def extract(archive: Path, root: Path) -> list[Path]:
    """Unpacks a ZIP or tar archive (plain, gzip, bzip2 or xz) below a folder: all of it or, on any failure, nothing.

    Files that are there already are replaced. Times, owners and permissions of the archive are not taken over.

    Args:
        archive: the file.
        root: the folder; made if it is not there.

    Returns:
        Paths of the unpacked files.

    Raises:
        UserError: if the archive is damaged, encrypted or none; a member has an absolute path, leaves the folder (as
            written or by way of a link that is there), is a link or a device; it unpacks to more than ``MAX_GROWTH``
            times its size or than it says; or the disk has no room.
    """
    limit = max(SPARED, MAX_GROWTH * archive.stat().st_size) if archive.is_file() else 0
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=root) as folder:
            names = _unpack(archive, Path(folder), limit)
            places = [_place(root, name, archive) for name in names]
            for name, place in zip(names, places, strict=True):
                place.parent.mkdir(parents=True, exist_ok=True)
                (Path(folder) / name).replace(place)
        return places
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError) as error:
        raise UserError(f"{archive} is a damaged archive ({error}): download it again.") from error
    except OSError as error:
        raise UserError(
            f"{archive} could not be unpacked to {root} ({error.strerror or error}): make room, or unpack it by hand."
        ) from error


def _unpack(archive: Path, folder: Path, limit: int) -> list[str]:
    """Writes every member below a folder of its own; returns their names."""
    names: dict[str, None] = {}
    written = 0
    with _opened(archive) as (kind, members):
        for member in members(archive, kind):
            if member.name in names or len(names) == MAX_MEMBERS:
                raise UserError(f"{archive} holds {member.name[:120]!r} twice or too many files: take another archive.")
            names[member.name] = None
            path = folder / member.name
            path.parent.mkdir(parents=True, exist_ok=True)
            with member.open() as source, path.open("wb") as target:
                written += _copy(source, target, min(member.size, limit - written), archive, member.name)
    return list(names)


class _Opener:
    """The archive as what it is."""

    def __init__(self, archive: Path) -> None:
        self.archive = archive
        self.file: Any = None

    def __enter__(self) -> tuple[Any, Callable[[Path, Any], Iterator[_Member]]]:
        if not self.archive.is_file():
            raise UserError(f"{self.archive} is not a file: name the archive.")
        if zipfile.is_zipfile(self.archive):
            self.file = zipfile.ZipFile(self.archive)
            return self.file, _zipped
        try:
            self.file = tarfile.open(self.archive, "r:*")
        except tarfile.ReadError as error:
            raise UserError(f"{self.archive} is neither a ZIP nor a tar archive: download it again.") from error
        return self.file, _tarred

    def __exit__(self, *_: object) -> None:
        if self.file is not None:
            self.file.close()


_opened = _Opener


def _zipped(archive: Path, file: zipfile.ZipFile) -> Iterator[_Member]:
    for info in file.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)
        name = _name(archive, info.filename)
        if info.is_dir():
            continue
        if not name or kind not in (0, stat.S_IFREG):
            raise _no_file(archive, info.filename)
        if info.flag_bits & 1:
            raise UserError(f"{archive} is encrypted: unpack it with its password by hand.")
        yield _Member(name, info.file_size, lambda info=info: file.open(info))  # type: ignore[misc]


def _tarred(archive: Path, file: tarfile.TarFile) -> Iterator[_Member]:
    for info in file:
        name = _name(archive, info.name)
        if info.isdir():
            continue
        source = file.extractfile(info) if name and info.isreg() and not info.issparse() else None
        if source is None:
            raise _no_file(archive, info.name)
        yield _Member(name, info.size, lambda source=source: source)  # type: ignore[misc]


def _name(archive: Path, name: str) -> str:
    """A member's path below the folder in its one spelling: ``./a``, ``a`` and ``.//a`` are the same file."""
    if name and not inside(name):
        raise UserError(f"{archive} holds {name[:120]!r}, which would land outside the folder: do not trust it.")
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def _no_file(archive: Path, name: str) -> UserError:
    return UserError(
        f"{archive} holds {name[:120]!r}, which is a link or no plain file: do not trust it, or unpack it by hand."
    )


def _copy(source: IO[bytes], target: IO[bytes], limit: int, archive: Path, name: str) -> int:
    """Copies one member; what an archive says of sizes is not believed."""
    written = 0
    while block := source.read(_BLOCK):
        written += len(block)
        if written > limit:
            raise UserError(
                f"{archive} unpacks to more than it should at {name[:120]!r} (more than its entry says or "
                f"{MAX_GROWTH} times the archive): do not trust it."
            )
        target.write(block)
    return written


def _place(root: Path, name: str, archive: Path) -> Path:
    """Where a member goes, unless a link that is there leads out of the folder, or its place is taken."""
    place = root / name
    top = root.resolve()
    above = next(folder for folder in place.parents if os.path.lexists(folder))
    if not place.parent.resolve().is_relative_to(top) or place.is_dir() or not above.is_dir():
        raise UserError(
            f"{archive} holds {name[:120]!r}, but {place.parent} leads out of {root} or is below a file, or a "
            "folder stands there: unpack into an empty folder."
        )
    return place
