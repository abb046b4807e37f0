# SPDX-License-Identifier: MIT
"""Pictures from files: decoded strictly, shown at one size."""

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from fm_bench.catalog import UnreadableImageError
from fm_bench.data.cache import ImageCache, cached_images
from fm_bench.data.sniff import HEAD, image_kind, impostor

__all__ = ["FileSource", "ImageCache", "cached_images", "decode", "fit"]

MAX_PIXELS = 89_478_485
"""Pictures above this are refused before they are decoded (a quarter of a gigabyte as RGB; Pillow's own limit)."""

MAX_STRETCH = 1.1
"""Pictures whose aspect is this close to the wanted one are stretched to it; others are shown whole, on white."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""What is decoded: no format that runs another program or follows links."""


@dataclass(eq=False)
class FileSource:
    """Pictures below a folder.

    Args:
        root: the folder.
        digest: changes with any file's name or content.
    """

    root: Path
    digest: str

    def read(self, image: str, size: tuple[int, int]) -> NDArray[np.uint8]:
        """One picture, upright, as ``(height, width, 3)`` RGB, transparent parts white.

        Args:
            image: its path below the root.
            size: wanted ``(height, width)``; see ``fit`` for pictures of another aspect.

        Raises:
            UnreadableImageError: if the file is missing, empty, truncated, not a picture or too large to decode.
        """
        if not inside(image):
            raise UnreadableImageError("outside the data set's folder")
        try:
            data = (self.root / image).read_bytes()
        except FileNotFoundError as error:
            raise UnreadableImageError("missing") from error
        except OSError as error:
            raise UnreadableImageError(f"not readable, {error.strerror or error}") from error
        return fit(decode(data, at_least=2 * max(size)), size)


def inside(image: str) -> bool:
    """Whether a path, as written, stays below the folder that it is joined to, on any system."""
    parts = image.replace("\\", "/").split("/")
    return parts[0] != "" and ".." not in parts and "\0" not in image and image[1:2] != ":"


def decode(data: bytes, at_least: int | None = None) -> NDArray[np.uint8]:
    """Decodes a file's bytes to ``(h, w, 3)`` RGB, upright by its EXIF orientation, transparency over white.

    Args:
        data: the whole file.
        at_least: large JPEGs may be decoded at a half, quarter or eighth of their size while both sides keep this
            many pixels (about thirteen times faster than full size for a 1,440-pixel photo shown at 80).

    Raises:
        UnreadableImageError: if the bytes are not a whole picture of a known format; says what they are.
    """
    head = data[:HEAD]
    kind = image_kind(head)
    if kind is None:
        raise UnreadableImageError(impostor(head) or "not an image")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise UnreadableImageError(f"{image.width} x {image.height} pixels, too large")
            if at_least:
                image.draft(image.mode, (at_least, at_least))
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
