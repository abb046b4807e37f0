# SPDX-License-Identifier: MIT
"""Pictures from files: decoded strictly, shown at one size."""

import contextlib
import io
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from fm_bench.data.cache import ImageCache, cached_images
from fm_bench.data.jpeg import decode_plain, plain_size
from fm_bench.data.rooted import Folder
from fm_bench.data.sniff import HEAD, image_kind, impostor
from fm_bench.errors import UnreadableImageError
from fm_bench.files import digest as digest_of

__all__ = ["FileSource", "ImageCache", "StoredPictures", "cached_images", "decode", "fit", "show"]

MAX_PIXELS = 89_478_485
"""Pictures above this are refused before they are decoded (a quarter of a gigabyte as RGB; Pillow's own limit)."""

LEFT_OUT = "left out"
"""What is found in the place of pictures that ``data validate --fix`` listed."""

MAX_STRETCH = 1.1
"""Pictures whose aspect is this close to the wanted one are stretched to it; others are shown whole, on white."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""What is decoded: no format that runs another program or follows links."""


@dataclass(eq=False)
class StoredPictures:
    """Pictures that lie below a folder, in whatever files.

    Args:
        root: the folder.
        digest: changes with any picture's name or content; ``left_out`` is added to it.
        left_out: pictures that count as unreadable although they are not, see ``fm_bench.data.mending``.
    """

    root: Path
    digest: str
    left_out: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        self.contents = self.digest
        if self.left_out:
            self.digest = digest_of(self.contents, "left out", sorted(self.left_out))

    def refuse_left_out(self, image: str) -> None:
        """Raises UnreadableImageError if a picture is left out."""
        if image in self.left_out:
            raise UnreadableImageError(LEFT_OUT)


@dataclass(eq=False)
class FileSource(StoredPictures):
    """Pictures that are files below a folder, see ``StoredPictures``."""

    in_threads: ClassVar[bool] = True
    light: ClassVar[bool] = True

    @cached_property
    def _folder(self) -> Folder:
        return Folder(self.root)

    def read(self, image: str, size: tuple[int, int]) -> NDArray[np.uint8]:
        """One picture, upright, as ``(height, width, 3)`` RGB, transparent parts white.

        Args:
            image: its path below the root.
            size: wanted ``(height, width)``; see ``fit`` for pictures of another aspect.

        Raises:
            UnreadableImageError: if the file is missing, empty, truncated, not a picture or too large to decode, leads
                out of the root, or is left out.
        """
        self.refuse_left_out(image)
        return show(self._folder.read(image), size)


def show(data: bytes, size: tuple[int, int]) -> NDArray[np.uint8]:
    """A file's picture at ``size`` (height, width), ``(height, width, 3)`` RGB; see ``decode`` and ``fit``.

    Large JPEGs are not decoded whole, but at twice ``size`` or more.
    """
    return fit(decode(data, at_least=(2 * size[0], 2 * size[1])), size)


def decode(data: bytes, at_least: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """Decodes a file's bytes to ``(h, w, 3)`` RGB, upright by its EXIF orientation, transparency over white.

    Args:
        data: the whole file.
        at_least: height and width in pixels. Large JPEGs may be decoded at a half, quarter or eighth of their size
            while they keep both (about thirteen times faster than full size for a 1,440-pixel photo shown at 80).

    Raises:
        UnreadableImageError: if the bytes are not a whole picture of a known format; says what they are.
    """
    head = data[:HEAD]
    kind = image_kind(head)
    if kind is None:
        raise UnreadableImageError(impostor(head) or "not an image")
    try:
        if kind == "JPEG" and (size := plain_size(data)) is not None:
            _check_pixels(*size)
            if (picture := decode_plain(data, size, at_least)) is not None:
                return picture
        if kind == "PNG":
            _check_png(data)
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_pixels(image.width, image.height)
            if at_least:
                image.draft(image.mode, at_least[::-1])  # turned by EXIF data, it still shows at a half or less
            image.load()
            with contextlib.suppress(Exception):  # broken EXIF data does not make a picture unreadable
                ImageOps.exif_transpose(image, in_place=True)
            return _rgb(image)
    except UnreadableImageError:
        raise
    except Image.DecompressionBombError as error:
        raise UnreadableImageError("a picture too large to decode") from error
    except Exception as error:  # decoders raise whatever hostile bytes lead them to
        truncated = "truncated" in str(error).lower() or (
            kind == "JPEG" and not data.rstrip(b"\0").endswith(b"\xff\xd9")
        )
        raise UnreadableImageError(f"truncated {kind}" if truncated else f"damaged {kind}") from error


def _check_png(data: bytes) -> None:
    """Compares the checksums of all chunks that matter, which Pillow does not."""
    at, kind = 8, b""
    while kind != b"IEND":
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        end = at + 8 + length
        if end + 4 > len(data):
            raise UnreadableImageError("truncated PNG")
        matters = kind[:1].isupper()
        if matters and zlib.crc32(data[at + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            raise UnreadableImageError("damaged PNG")
        at = end + 4


def _check_pixels(width: int, height: int) -> None:
    """Before anything is decoded, by what the header says."""
    if width * height > MAX_PIXELS:
        raise UnreadableImageError(f"{width} x {height} pixels, too large")


def _rgb(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image)
        if image.mode == "F" or values.min(initial=0) < 0 or values.max(initial=0) > 0xFFFF:
            raise UnreadableImageError(f"pixels of mode {image.mode}, neither 8 nor 16 bits")
        return np.repeat((values // 257).astype(np.uint8)[..., None], 3, axis=2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB"))


def fit(picture: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resizes ``(h, w, 3)`` to ``size`` (height, width), averaging when shrinking.

    A picture whose aspect differs by at most ``MAX_STRETCH`` is stretched; any other keeps its aspect and is centred
    on white, as catalogue photos are.
    """
    (h, w), (height, width) = picture.shape[:2], size
    stretch = (h * width) / (w * height)
    if 1 / MAX_STRETCH <= stretch <= MAX_STRETCH:
        return _resize(picture, height, width)
    scale = min(height / h, width / w)
    inner = _resize(picture, max(1, round(h * scale)), max(1, round(w * scale)))
    canvas = np.full((height, width, 3), 255, dtype=np.uint8)
    top, left = (height - inner.shape[0]) // 2, (width - inner.shape[1]) // 2
    canvas[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
    return canvas


def _resize(picture: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    if picture.shape[:2] == (height, width):
        return picture
    shrinks = height <= picture.shape[0] and width <= picture.shape[1]
    resized = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return resized.astype(np.uint8, copy=False)
