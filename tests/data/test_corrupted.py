# SPDX-License-Identifier: MIT
"""One picture in a hundred is damaged or odd, each in another way: all is told, and what can be read is read right."""

import io
import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import fakes
import numpy as np
import pytest
from PIL import Image

from fm_bench.catalog import UnreadableImageError
from fm_bench.cli import main
from fm_bench.data import rooted
from fm_bench.data.images import FileSource, decode
from fm_bench.data.jpeg import decode_plain, plain_size

RED, BLUE = (200, 30, 40), (30, 50, 190)
TWO = np.full((80, 60, 3), RED, np.uint8)  # red above blue
TWO[40:] = BLUE

Write = Callable[[Path], object]


def of(data: bytes) -> Write:
    return lambda path: path.write_bytes(data)


def huge_jpeg() -> bytes:
    """Its header says 65,000 x 65,000 pixels."""
    data = bytearray(fakes.jpeg(TWO))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 65_000, 65_000)
    return bytes(data)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def wrong_checksum() -> bytes:
    data = bytearray(fakes.png(TWO))
    data[data.index(b"IDAT") - 4 + 8 + int.from_bytes(data[data.index(b"IDAT") - 4 : data.index(b"IDAT")], "big")] ^= 1
    return bytes(data)


def texts_that_grow() -> bytes:
    data = fakes.png(TWO)
    return data[:33] + chunk(b"zTXt", b"note\0\0" + zlib.compress(bytes(1 << 22))) + data[33:]


def palette() -> Image.Image:
    image = Image.fromarray(TWO).quantize(4)
    image.info["transparency"] = image.getpixel((5, 70))  # the blue half
    return image


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return fakes.encoded(Image.fromarray(TWO).transpose(Image.Transpose.ROTATE_90), "JPEG", quality=95, exif=exif)


def deep(shape: tuple[int, ...]) -> bytes:
    image = np.zeros(shape, np.uint16)
    image[:40] = 0xC8C8
    return cv2.imencode(".png", image)[1].tobytes()


def float_tiff() -> bytes:
    return fakes.encoded(Image.fromarray(np.full((8, 8), 0.5, np.float32)), "TIFF")


HALF = np.arange(80)[:, None, None] < 40
GREY = np.where(HALF, 200, 0) + np.zeros((80, 60, 3))
JPEG, PROGRESSIVE = fakes.jpeg(TWO), fakes.encoded(Image.fromarray(TWO), "JPEG", progressive=True, quality=95)
FRAMES = [Image.fromarray(TWO), Image.new("RGB", (60, 80), "green")]

DAMAGED: dict[str, tuple[Write, str]] = {
    "cut": (of(JPEG[: len(JPEG) // 2]), "truncated JPEG"),
    "cut, progressive": (of(PROGRESSIVE[: len(PROGRESSIVE) // 2]), "truncated JPEG"),
    "header alone": (of(JPEG[:20]), "truncated JPEG"),
    "empty": (of(b""), "zero bytes"),
    "zeros": (of(bytes(3000)), "not an image"),
    "text": (of(b"to be added later\n"), "not an image"),
    "error page": (of(fakes.HTML_PAGE), "an HTML page"),
    "error of a store": (of(b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>"), "an XML page"),
    "pointer": (of(fakes.LFS_POINTER), "a Git LFS pointer"),
    "archive": (of(b"PK\x03\x04" + bytes(100)), "a ZIP archive"),
    "program": (of(b"%!PS-Adobe-3.0 EPSF-3.0\n"), "not an image"),
    "wrong checksum": (of(wrong_checksum()), "damaged PNG"),
    "cut PNG": (of(fakes.png(TWO)[:-20]), "truncated PNG"),
    "texts that grow": (of(texts_that_grow()), "damaged PNG"),
    "bomb": (of(fakes.encoded(Image.new("1", (20_000, 20_000)), "PNG")), "too large"),
    "huge JPEG": (of(huge_jpeg()), "65000 x 65000 pixels, too large"),
    "cut WebP": (of(fakes.encoded(FRAMES[0], "WEBP")[:-40]), "WebP"),
    "cut BMP": (of(fakes.encoded(FRAMES[0], "BMP")[:200]), "truncated BMP|damaged BMP"),
    "cut GIF": (of(fakes.encoded(FRAMES[0], "GIF")[:30]), "truncated GIF|damaged GIF"),
    "numbers": (of(float_tiff()), "pixels of mode F"),
    "directory": (lambda path: path.mkdir(), "Is a directory"),
    "missing": (lambda path: None, "missing"),
    "link to nothing": (lambda path: path.symlink_to("nowhere.jpg"), "a link to nothing"),
    "link in a circle": (lambda path: path.symlink_to(path.name), "a link to nothing"),
    "link out": (lambda path: path.symlink_to("/etc/hostname"), "a link out of the data set's folder"),
    "pipe": (os.mkfifo, "not a plain file"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "a link out of the data set's folder"),
}

READABLE: dict[str, tuple[bytes, np.ndarray]] = {
    "PNG called JPEG": (fakes.png(TWO), TWO),
    "CMYK": (fakes.encoded(Image.fromarray(TWO).convert("CMYK"), "JPEG", quality=98), TWO),
    "16 bits": (deep((80, 60)), GREY),
    "16 bits in colour": (
        deep((80, 60, 3)),
        GREY,
    ),
    "palette": (
        fakes.encoded(palette(), "PNG"),
        np.where(HALF, RED, 255) + np.zeros((80, 60, 3)),
    ),
    "animated GIF": (fakes.encoded(FRAMES[0], "GIF", save_all=True, append_images=FRAMES[1:]), TWO),
    "animated PNG": (fakes.encoded(FRAMES[0], "PNG", save_all=True, append_images=FRAMES[1:]), TWO),
    "animated WebP": (fakes.encoded(FRAMES[0], "WEBP", save_all=True, append_images=FRAMES[1:], lossless=True), TWO),
    "turned": (turned(), TWO),
    "progressive": (PROGRESSIVE, TWO),
    "zeros behind": (JPEG + bytes(64), TWO),
    "grey and alpha": (
        fakes.encoded(Image.fromarray(np.full((80, 60, 2), (90, 255), np.uint8), "LA"), "PNG"),
        np.full((80, 60, 3), 90),
    ),
}


@pytest.fixture(scope="module")
def damaged_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of 3,900 pictures, of which 27 are damaged and 12 odd."""
    root = tmp_path_factory.mktemp("damaged")
    fakes.catalogue(root, 100 * (len(DAMAGED) + len(READABLE)))
    chosen = np.random.default_rng(0).permutation(100 * (len(DAMAGED) + len(READABLE)))
    names = {}
    for number, kind in zip(chosen.tolist(), [*DAMAGED, *READABLE], strict=False):
        path = root / f"img/{number:04d}.jpg"
        path.unlink()
        if kind in DAMAGED:
            DAMAGED[kind][0](path)
        else:
            path.write_bytes(READABLE[kind][0])
        names[kind] = f"img/{number:04d}.jpg"
    (root / "kinds.json").write_text(json.dumps(names))
    return root


def command(root: Path, *options: str) -> list[str]:
    columns = ["--data.image", "path", "--data.item", "product", "--data.split", "subset"]
    return ["table", "--data.root", str(root), "--data.table", "catalogue.csv", *columns, *options]


@pytest.mark.parametrize("kind", DAMAGED)
def test_damage_is_named(kind: str, tmp_path: Path) -> None:
    write, found = DAMAGED[kind]
    write(tmp_path / "a.jpg")
    with pytest.raises(UnreadableImageError, match=found):
        FileSource(tmp_path, "x").read("a.jpg", (80, 60))


@pytest.mark.parametrize("kind", READABLE)
def test_what_can_be_read_is_read_right(kind: str, tmp_path: Path) -> None:
    data, expected = READABLE[kind]
    (tmp_path / "a.jpg").write_bytes(data)
    shown = FileSource(tmp_path, "x").read("a.jpg", (80, 60)).astype(int)
    difference = np.abs(shown - expected).max(axis=2)
    assert np.median(difference) <= 6
    assert difference[[0, 20, 60, 79]].max() <= 16  # away from the edge between the halves


def test_what_may_not_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "a.jpg").write_bytes(JPEG)
    monkeypatch.setattr(rooted.os, "open", refuse)
    with pytest.raises(UnreadableImageError, match="not readable, Permission denied"):
        FileSource(tmp_path, "x").read("a.jpg", (8, 8))


def test_everything_is_reported(damaged_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Names that lead out are refused by the reader at once, before anything is read.
    assert main(["data", "validate", *command(damaged_data)]) == 2
    assert "outside" in capsys.readouterr().err
    names = json.loads((damaged_data / "kinds.json").read_text())
    for kind in ("link out", "device"):
        (damaged_data / names[kind]).unlink()
    assert main(["data", "validate", *command(damaged_data), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["images"] == 100 * len(names)
    assert report["unreadable"]["images"] == len(DAMAGED)
    told = {file for files in report["unreadable"]["found"].values() for file in files}
    assert told == {names[kind] for kind in DAMAGED}
    assert len(report["problems"]) == len(report["unreadable"]["found"])
    assert main(["data", "validate", *command(damaged_data, "--data.on_error", "skip")]) == 0
    shown = capsys.readouterr().out
    assert "pointer" in shown  # in the cell of a table, which is as wide as the terminal
    assert "on_error skip" in shown


def test_fix_and_a_run_on_what_is_left(damaged_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = json.loads((damaged_data / "kinds.json").read_text())
    for kind in ("link out", "device"):
        (damaged_data / names[kind]).unlink(missing_ok=True)
    before = sorted(path.name for path in damaged_data.rglob("*"))
    assert main(["data", "validate", *command(damaged_data), "--fix", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["fixed"]["pictures"] == len(DAMAGED)
    assert sorted(path.name for path in damaged_data.rglob("*")) == before
    small = ("--data.on_error", "skip", "--loader.image_size", "16")
    assert main(["data", "prepare", *command(damaged_data, *small)]) == 0
    assert main(["data", "info", *command(damaged_data, "--data.on_error", "skip"), "--json"]) == 0
    notes = json.loads(capsys.readouterr().out.split("\n", 1)[1])["notes"]
    assert any(note.startswith(f"{len(DAMAGED)} pictures are left out") for note in notes)


# Plain JPEGs go another way, which must not be seen.


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("at_least", [None, 30, 100])
def test_plain_jpegs_have_the_pixels_that_pillow_finds(subsampling: int, at_least: int | None) -> None:
    rng = np.random.default_rng(subsampling)
    image = cv2.resize(rng.integers(0, 256, (40, 30, 3), dtype=np.uint8), (433, 611), interpolation=cv2.INTER_CUBIC)
    data = fakes.encoded(Image.fromarray(image), "JPEG", quality=90, subsampling=subsampling)
    with Image.open(io.BytesIO(data)) as opened:
        if at_least:
            opened.draft("RGB", (at_least, at_least))
        expected = np.asarray(opened.convert("RGB"))
    size = plain_size(data)
    assert size == (433, 611)
    shown = decode_plain(data, size, (at_least, at_least) if at_least else None)
    assert shown is not None
    assert np.array_equal(shown, expected)


def test_only_plain_jpegs_go_the_short_way() -> None:
    assert plain_size(JPEG) == (60, 80)
    odd = [
        PROGRESSIVE,
        turned(),
        JPEG[:-2],
        JPEG + b"\0",
        JPEG[:300] + b"\xff\xd0" + JPEG[300:],  # in the tables or in the scan
        JPEG[:-40] + b"\xff\xd9" + JPEG[-40:],
        fakes.encoded(Image.fromarray(TWO).convert("L"), "JPEG"),
        fakes.encoded(Image.fromarray(TWO).convert("CMYK"), "JPEG"),
        b"\xff\xd8\xff\xd9",
        b"\xff\xd8\xff",
    ]
    assert [plain_size(data) for data in odd] == [None] * len(odd)


def test_damage_is_judged_as_by_pillow(capfd: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        data = bytearray(JPEG)
        at = int(rng.integers(2, len(data) - 2))
        data[at : at + int(rng.integers(0, 9))] = rng.integers(
            0, 256, int(rng.integers(0, 9)), dtype=np.uint8
        ).tobytes()
        try:
            with Image.open(io.BytesIO(data), formats=("JPEG",)) as opened:
                expected = np.asarray(opened.convert("RGB"))
        except Exception:
            with pytest.raises(UnreadableImageError):
                decode(bytes(data))
        else:
            if opened.size == (60, 80) and opened.mode == "RGB" and data.endswith(b"\xff\xd9"):
                assert np.array_equal(decode(bytes(data)), expected)
    capfd.readouterr()  # the decoder's own complaints
