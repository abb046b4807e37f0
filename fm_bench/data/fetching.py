# SPDX-License-Identifier: MIT
"""Fetches one file: continued where it stopped, checked, and there under its name only when it is whole."""

import contextlib
import hashlib
import http.client
import io
import re
import shutil
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from fm_bench import __version__
from fm_bench.data.sniff import HEAD, PAGES, impostor
from fm_bench.errors import UserError
from fm_bench.files import write_text

_BLOCK = 1 << 20
_PATIENCE = 60.0  # seconds without a byte


class Remote(NamedTuple):
    """A file that may be fetched."""

    path: str  # its place below the data set's folder
    url: str
    sha256: str | None = None  # None: not known; the first download's is kept beside the file and checked from then on
    size: int | None = None  # bytes, where known
    unpack: bool = False  # whether it is an archive of the data set's folder


class _Opened(NamedTuple):
    """An answer of the server."""

    body: Any
    start: int  # bytes that precede it
    total: int | None  # bytes of the whole file, where the server says so
    version: str  # what the server calls this version of the file, or nothing


def fetch(remote: Remote, root: Path, console: Console) -> Path:
    """Fetches a file unless it is there, and checks its digest in any case.

    A download that was interrupted is kept as ``NAME.part`` and continued by the next call, provided that the server
    still offers the same version or the digest is known. ``NAME`` appears only when the digest is right. Where it is
    not known, that of the first download is written to ``NAME.sha256`` (which ``sha256sum -c`` reads), and any later
    call compares with it. A web page in the place of the file, as networks that ask for a login send, is refused.

    Args:
        remote: what to fetch.
        root: the data set's folder; made if it is not there.
        console: where progress is shown.

    Raises:
        UserError: if the server cannot be reached, ends early or refuses, the disk is full, another process fetches the
            same file, or the file is not what it was or should be; says what to do by hand.
    """
    path = root / remote.path
    if path.is_dir():
        raise UserError(f"{path} is a folder, but a file of that name is to be downloaded: move the folder away.")
    expected = remote.sha256 or _recorded(path)
    if path.is_file():
        _check(path, expected, f"remove it to download it again from {remote.url}")
        return path
    partial, version = path.with_name(path.name + ".part"), path.with_name(path.name + ".part.version")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(partial):
            with _answered(remote, path, _begun(partial, version, known=expected is not None)) as opened:
                version.write_text(opened.version, encoding="utf-8")
                _receive(opened, partial, remote, console)
            _accept(remote, path, partial, version, expected)
    except OSError as error:  # of the disk; the network's own are told apart below
        reason = error.strerror or str(error)
        raise UserError(f"{partial} could not be written ({reason}): make room and run again, it continues.") from error
    return path


def _accept(remote: Remote, path: Path, partial: Path, version: Path, expected: str | None) -> None:
    """Gives a whole download its name, or removes it if it is not what it should be."""
    changed = "the source has changed"
    if remote.sha256 is None:  # it may be the first download that was wrong
        changed += f", or what came first was not whole: remove {_beside(path)} to take what comes now"
    try:
        _check(partial, expected, f"it was removed; run again, and if it happens again {changed}")
        if expected is None:
            _refuse_page(partial, remote.url)
    except UserError:
        partial.unlink()
        raise
    finally:
        version.unlink(missing_ok=True)
    if expected is None:
        write_text(_beside(path), f"{sha256_of(partial)}  {path.name}\n")
    partial.replace(path)


def _refuse_page(partial: Path, url: str) -> None:
    with partial.open("rb") as file:
        found = impostor(file.read(HEAD))
    if found in PAGES:
        raise UserError(
            f"{url} gives {found} instead of the file: open it in a browser, since the network may ask for a login, "
            "and run again."
        )


@contextlib.contextmanager
def _alone(partial: Path) -> Iterator[None]:
    """Keeps other processes from writing to the same download. Raises UserError if one does so already."""
    lock = FileLock(partial.with_name(f"{partial.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UserError(f"another process downloads {partial}: wait until it is done, and run again.") from error
    except NotImplementedError:  # some file systems of networks have no locks
        yield
        return
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _recorded(path: Path) -> str | None:
    """The digest that an earlier download left beside the file."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        found = re.match(r"[0-9a-f]{64}\b", _beside(path).read_text(encoding="utf-8"))
        return found.group() if found else None
    return None


def _check(path: Path, expected: str | None, remedy: str) -> None:
    if expected is not None and sha256_of(path) != expected:
        raise UserError(f"{path} is not what it should be (its SHA-256 is not {expected[:12]}…): {remedy}.")


def _begun(partial: Path, version: Path, *, known: bool) -> tuple[int, str]:
    """Bytes that are there already and may be continued, and the version they are of."""
    if not partial.is_file():
        return 0, ""
    of = version.read_text(encoding="utf-8") if version.is_file() else ""
    return (partial.stat().st_size if of or known else 0), of


@contextlib.contextmanager
def _answered(remote: Remote, path: Path, begun: tuple[int, str]) -> Iterator[_Opened]:
    """The server's answer to a request for the rest of the file."""
    by_hand = f"download it by hand, put it at {path} and run again; or run again to continue"
    try:
        with _asked(remote, *begun) as opened:
            yield opened
    except urllib.error.HTTPError as error:
        reason = " ".join(f"{error.code} {error.reason}".split())
        raise UserError(f"{remote.url} could not be fetched (the server says {reason}): {by_hand}.") from error
    except (urllib.error.URLError, TimeoutError, ConnectionError, ssl.SSLError, http.client.HTTPException) as error:
        reason = " ".join(str(getattr(error, "reason", error)).split()) or type(error).__name__
        raise UserError(f"{remote.url} could not be fetched ({reason}): {by_hand}.") from error


@contextlib.contextmanager
def _asked(remote: Remote, start: int, version: str) -> Iterator[_Opened]:
    """The file from ``start`` on; all of it where the server has no such part, gives another one or another version."""
    told = ""
    for first in dict.fromkeys((start, 0)):
        with _answer(remote.url, first, version) as answer:
            if opened := _opened(answer, first, version if first else "", remote.size):
                yield opened
                return
            told = f"{answer.status}, {answer.headers.get('Content-Range') or 'no range'}"
    raise UserError(
        f"{remote.url} answers with another part of the file than was asked for ({told[:80]}): "
        "try again later, or download it by hand."
    )


def _answer(url: str, start: int, version: str) -> Any:
    """What the server sends, be it that there is nothing from ``start`` on."""
    headers = {"User-Agent": f"fm-bench/{__version__}", "Accept-Encoding": "identity"}
    if start:
        headers |= {"Range": f"bytes={start}-"} | ({"If-Range": version} if version else {})
    request = urllib.request.Request(url, headers=headers)  # noqa: S310  addresses are our own constants
    try:
        return urllib.request.urlopen(request, timeout=_PATIENCE)  # noqa: S310
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        return error


def _opened(answer: Any, asked: int, expected: str, size: int | None) -> _Opened | None:
    """The answer, if it is the file from ``asked`` on or the whole file; None if it is another part or version."""
    headers = answer.headers
    etag = headers.get("ETag", "")
    version = headers.get("Last-Modified", "") if not etag or etag.startswith("W/") else etag
    if answer.status == http.HTTPStatus.OK:
        length = re.fullmatch(r"[0-9]{1,18}", headers.get("Content-Length", ""))
        return _Opened(answer, 0, int(length[0]) if length else None, version)
    said = headers.get("Content-Range", "")
    if answer.status == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        return _Opened(io.BytesIO(), asked, asked, expected) if said == f"bytes */{asked}" else None  # received before
    # A range without the total is none here: nobody could tell when the file is whole.
    span = re.fullmatch(r"bytes ([0-9]{1,18})-[0-9]+/([0-9]{1,18})", said)
    if answer.status != http.HTTPStatus.PARTIAL_CONTENT or not span or int(span[1]) != asked:
        return None
    total = int(span[2])
    if size not in (None, total) or (expected and version not in ("", expected)):
        return None
    return _Opened(answer, asked, total, version or expected)


def _receive(opened: _Opened, partial: Path, remote: Remote, console: Console) -> None:
    """Writes what the server sends after what is there."""
    total = remote.size if remote.size is not None else opened.total
    if total is not None and total - opened.start > shutil.disk_usage(partial.parent).free:
        raise UserError(f"{remote.url} has {total / 1e9:.1f} GB, which {partial.parent} has no room for: make room.")
    received = opened.start
    with partial.open("ab" if opened.start else "wb") as file, _progress(partial, total, console) as advance:
        advance(received)
        while block := opened.body.read(_BLOCK):
            received += len(block)
            if total is not None and received > total:
                raise UserError(f"{remote.url} sends more than the {total:,} bytes it should have: try again later.")
            file.write(block)
            advance(len(block))
    if total is not None and received < total:
        raise UserError(
            f"{remote.url} ended after {received:,} of {total:,} bytes: run again, it continues where it stopped."
        )


@contextlib.contextmanager
def _progress(path: Path, total: int | None, console: Console) -> Iterator[Callable[[int], None]]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(path.name.removesuffix(".part"), total=total)
        yield lambda count: progress.advance(task, count)
