# SPDX-License-Identifier: MIT
"""Files below a folder that a list from elsewhere names: no name leads anywhere else, and none stalls the reader."""

import errno
import os
import stat
from pathlib import Path

from fm_bench.errors import UnreadableImageError

MAX_BYTES = 1 << 28
"""Larger files are not taken for pictures: a photo of the most pixels that are decoded has less, however it is kept."""

PLAIN = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
"""How files are opened."""

# A link is not followed before it is known where to, and what blocks, such as a pipe, is opened without waiting.
_CAREFUL = PLAIN | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_REFUSES_LINKS = hasattr(os, "O_NOFOLLOW")


def inside(name: str) -> bool:
    """Whether a path, as written, stays below the folder that it is joined to, on any system."""
    parts = name.replace("\\", "/").split("/")
    return parts[0] != "" and ".." not in parts and "\0" not in name and name[1:2] != ":"


class Folder:
    """Reads files below ``root``, which may be a link itself.

    Args:
        root: the folder.
    """

    def __init__(self, root: Path) -> None:
        self._root = os.fspath(root)
        self._top = os.path.realpath(root)
        self._stays: dict[str, bool] = {"": True}  # folders below the root, few beside the files in them

    def read(self, name: str) -> bytes:
        """All bytes of a file.

        Args:
            name: its path below the root.

        Raises:
            UnreadableImageError: if there is none, it leads out of the root, as written or by way of a link, is no
                plain file, is larger than ``MAX_BYTES`` or is not to be read; says which.
        """
        if not inside(name) or not self._folder_stays(name.rpartition("/")[0]):
            raise UnreadableImageError("outside the data set's folder")
        path = os.path.join(self._root, name)  # noqa: PTH118  a Path costs as much as reading a small file
        try:
            if not _REFUSES_LINKS and os.path.islink(path):  # noqa: PTH114  as above
                path = self._target(path)
            try:
                return _plain_file(path)
            except OSError:  # which systems call a refused link by different numbers
                if not os.path.islink(path):  # noqa: PTH114  as above
                    raise
            return _plain_file(self._target(path))
        except FileNotFoundError as error:
            raise UnreadableImageError("missing") from error
        except (OSError, ValueError) as error:
            raise UnreadableImageError(f"not readable, {getattr(error, 'strerror', None) or error}") from error

    def _target(self, link: str) -> str:
        """Where a link leads, which must be below the root."""
        target = os.path.realpath(link)
        if not self._below(target):
            raise UnreadableImageError("a link out of the data set's folder")
        if not os.path.exists(target):  # noqa: PTH110  as above
            raise UnreadableImageError("a link to nothing")
        return target

    def _folder_stays(self, folder: str) -> bool:
        known = self._stays.get(folder)
        if known is None:
            path = os.path.join(self._root, folder)  # noqa: PTH118  as above
            known = self._folder_stays(folder.rpartition("/")[0])
            if known and os.path.islink(path):  # noqa: PTH114  as above
                known = self._below(os.path.realpath(path))
            self._stays[folder] = known
        return known

    def _below(self, target: str) -> bool:
        return os.path.commonpath((self._top, target)) == self._top


def _plain_file(path: str) -> bytes:
    """All bytes of a plain file that is no link. Raises UnreadableImageError or OSError for anything else."""
    handle = os.open(path, _CAREFUL)
    try:
        status = os.fstat(handle)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableImageError("not a plain file")
        if status.st_size > MAX_BYTES:
            raise UnreadableImageError(f"a file of {status.st_size / 1e9:.1f} GB, too large")
        return all_bytes(handle, status.st_size)
    finally:
        os.close(handle)


def all_bytes(handle: int, size: int) -> bytes:
    """The content of an open file of ``size`` bytes. Raises OSError."""
    data = os.read(handle, size + 1)
    if len(data) >= size:
        return data
    parts = [data]
    while parts[-1] and sum(map(len, parts)) < size:  # some file systems give less than they are asked for
        parts.append(os.read(handle, size))
    return b"".join(parts)
