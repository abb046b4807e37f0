# SPDX-License-Identifier: MIT
"""What a file really is, told from its first bytes: downloads that failed look like data until they are read."""

from pathlib import Path

from fm_bench.errors import UserError

HEAD = 512
"""Bytes that suffice to tell."""

_IMAGES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
)
_ARCHIVES = (
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"PAR1", "a Parquet file"),
    (b"%PDF", "a PDF file"),
)

_HTML, _XML = "an HTML page", "an XML page"

PAGES = (_HTML, _XML)
"""What servers send in the place of a file, as ``impostor`` calls it."""


def image_kind(head: bytes) -> str | None:
    """The picture format that ``head`` announces, e.g. ``"JPEG"``, or None."""
    for magic, kind in _IMAGES:  # nearly every picture has the first one
        if head.startswith(magic):
            return kind
    return "WebP" if head[:4] == b"RIFF" and head[8:12] == b"WEBP" else None


def impostor(head: bytes) -> str | None:
    """What stands where data was expected, e.g. ``"a Git LFS pointer"``, or None if nothing known does."""
    if not head:
        return "zero bytes"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer"
    if text.startswith((b"<!doctype html", b"<html", b"<head")):
        return _HTML
    if text.startswith((b"<?xml", b"<error")):
        return _XML
    if kind := image_kind(head):
        return f"a {kind} picture"
    return next((name for magic, name in _ARCHIVES if head.startswith(magic)), None)


def read_table_bytes(path: Path, what: str, accept: str | None = None) -> bytes:
    """The bytes of a table that a user named.

    Args:
        path: the file.
        what: what it should be, with its article, e.g. ``"the catalogue's CSV"``.
        accept: a result of ``impostor`` that is welcome, e.g. ``"a Parquet file"``.

    Raises:
        UserError: if it cannot be read or is something else, such as an HTML page.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise not_read(path, what, error) from error
    refuse_impostor(path, data[:HEAD], what, accept)
    return data


def not_read(path: Path, what: str, error: OSError) -> UserError:
    """An error about a table that cannot be read, or is not there; see ``read_table_bytes``."""
    return UserError(
        f"{path} could not be read ({error.strerror or error}): it should be {what}, put it there or mend its name."
    )


def refuse_impostor(path: Path, head: bytes, what: str, accept: str | None = None) -> None:
    """Raises UserError if the first bytes ``head`` of a table are those of something else; see ``read_table_bytes``."""
    found = impostor(head)
    if found and found != accept:
        remedy = "run `git lfs pull` where it came from" if "LFS" in found else "download it again"
        raise UserError(f"{path} should be {what} but holds {found}: {remedy}.")
