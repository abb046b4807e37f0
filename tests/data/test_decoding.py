# SPDX-License-Identifier: MIT
"""One picture: from the bytes of a file to pixels of the size that is asked for."""

import cv2
import fakes
import numpy as np
import pytest
from PIL import Image

from fm_bench.catalog import UnreadableImageError
from fm_bench.data import images
from fm_bench.data.images import FileSource, decode, fit
from fm_bench.data.jpeg import plain_size

RED = (200, 30, 40)


def test_decode_is_rgb():
    image = fakes.picture(RED, 0)
    assert np.array_equal(decode(fakes.png(image)), image)
    assert np.abs(decode(fakes.jpeg(image)).astype(int) - image).mean() < 5
    assert np.abs(decode(fakes.jpeg(image))[40, 30].astype(int) - RED).max() < 12


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_respected(orientation):
    upright = np.full((16, 32, 3), 255, np.uint8)
    upright[:8, :16] = RED  # top left
    inverse = {
        2: "FLIP_LEFT_RIGHT",
        3: "ROTATE_180",
        4: "FLIP_TOP_BOTTOM",
        5: "TRANSPOSE",
        6: "ROTATE_90",
        7: "TRANSVERSE",
        8: "ROTATE_270",
    }
    stored = Image.fromarray(upright)
    if orientation in inverse:
        stored = stored.transpose(Image.Transpose[inverse[orientation]])
    exif = Image.Exif()
    exif[0x0112] = orientation
    shown = decode(fakes.encoded(stored, "JPEG", quality=95, exif=exif))
    assert shown.shape == upright.shape
    assert np.abs(shown.astype(int) - upright).mean() < 4


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_is_ignored():
    data = fakes.encoded(Image.fromarray(fakes.picture(RED, 0)), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff broken")
    assert decode(data).shape == (80, 60, 3)


def test_other_kinds_of_pixels():
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[:2] = (*RED, 255)
    over_white = decode(fakes.encoded(Image.fromarray(rgba), "PNG"))
    assert over_white[0, 0].tolist() == list(RED)
    assert over_white[3, 3].tolist() == [255, 255, 255]
    half = decode(fakes.encoded(Image.fromarray(np.full((2, 2, 4), (0, 0, 0, 128), np.uint8)), "PNG"))
    assert abs(int(half[0, 0, 0]) - 127) <= 1
    palette = Image.fromarray(fakes.picture(RED, 0)).quantize(8)
    assert np.abs(decode(fakes.encoded(palette, "PNG"))[40, 30].astype(int) - RED).max() < 8
    deep = np.linspace(0, 65535, 16).astype(np.uint16).reshape(4, 4)
    shown = decode(cv2.imencode(".png", deep)[1].tobytes())
    assert shown[0, 0].tolist() == [0, 0, 0]
    assert shown[3, 3].tolist() == [255, 255, 255]
    assert abs(int(shown[2, 0, 0]) - 136) <= 1
    cmyk = Image.fromarray(np.full((8, 8, 3), RED, np.uint8)).convert("CMYK")
    assert np.abs(decode(fakes.encoded(cmyk, "JPEG", quality=95))[4, 4].astype(int) - RED).max() < 16
    grey = Image.fromarray(np.full((8, 8), 77, np.uint8))
    assert decode(fakes.encoded(grey, "PNG"))[0, 0].tolist() == [77, 77, 77]
    for kind in ("WEBP", "GIF", "BMP", "TIFF"):
        assert decode(fakes.encoded(Image.fromarray(fakes.picture(RED, 0)), kind)).shape == (80, 60, 3)


WHOLE = fakes.jpeg(fakes.picture(RED, 0, (160, 120)))
PROGRESSIVE = fakes.encoded(Image.fromarray(fakes.picture(RED, 0, (160, 120))), "JPEG", progressive=True)


@pytest.mark.parametrize("data", [WHOLE, PROGRESSIVE], ids=["baseline", "progressive"])
@pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("at_least", [None, (8, 8)])
def test_truncated_jpegs_are_found(data, share, at_least):
    with pytest.raises(UnreadableImageError, match="truncated JPEG"):
        decode(data[: int(len(data) * share)], at_least)
    assert decode(data, at_least).shape[2] == 3


def test_marks_in_a_scan_are_seen():
    rng = np.random.default_rng(0)
    head = WHOLE[: WHOLE.index(b"\xff\xda") + 14]
    found = []
    for _ in range(2000):
        scan = rng.choice(np.array([0, 0, 0, 7, 0xD0, 0xFF], np.uint8), rng.integers(2, 9)).tobytes()
        alone = scan.count(b"\xff") == scan.count(b"\xff\0") and not scan.endswith(b"\xff")
        found.append(plain_size(head + scan + b"\xff\xd9") is not None)
        assert found[-1] == alone, scan
    assert 200 < sum(found) < 1800
    assert plain_size(WHOLE) == (120, 160)
    assert plain_size(WHOLE + b"\xff\xd9") is None


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", "zero bytes"),
        (fakes.LFS_POINTER, "a Git LFS pointer"),
        (fakes.HTML_PAGE, "an HTML page"),
        (b"  \n<HTML>", "an HTML page"),
        (b"hello", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "not an image"),
        (fakes.png(fakes.picture(RED, 0))[:200], "truncated PNG|damaged PNG"),
        (WHOLE[:300] + b"\0" * 300 + WHOLE[-2:], "JPEG"),
        (b"\xff\xd8\xff\xe0" + b"x" * 100, "JPEG"),
    ],
)
def test_impostors_are_named(data, found):
    with pytest.raises(UnreadableImageError, match=found):
        decode(data)


def test_bombs_are_refused(monkeypatch):
    bomb = fakes.encoded(Image.new("1", (20_000, 20_000)), "PNG")
    assert len(bomb) < 100_000
    with pytest.raises(UnreadableImageError, match="too large"):
        decode(bomb)
    monkeypatch.setattr(images, "MAX_PIXELS", 100)
    with pytest.raises(UnreadableImageError, match="60 x 80 pixels, too large"):
        decode(fakes.jpeg(fakes.picture(RED, 0)))


def test_reduced_decoding_shows_the_same_picture():
    large = cv2.resize(fakes.picture(RED, 0), (1080, 1440), interpolation=cv2.INTER_CUBIC)
    data = fakes.jpeg(large)
    assert decode(data, (160, 128)).shape[0] in (180, 360)
    full, reduced = fit(decode(data), (80, 64)), fit(decode(data, (160, 128)), (80, 64))
    assert np.abs(full.astype(int) - reduced).mean() < 1.5


@pytest.mark.parametrize("progressive", [False, True])  # OpenCV's and Pillow's
def test_each_side_keeps_what_is_asked_of_it(progressive):
    picture = Image.fromarray(cv2.resize(fakes.picture(RED, 0), (300, 400)))
    data = fakes.encoded(picture, "JPEG", progressive=progressive)
    assert decode(data, (160, 128)).shape == (200, 150, 3)
    assert decode(data, (200, 150)).shape == (200, 150, 3)
    assert decode(data, (200, 151)).shape == (400, 300, 3)
    assert decode(data, (201, 100)).shape == (400, 300, 3)
    assert decode(data, (128, 160)).shape == (400, 300, 3)


def test_source_asks_for_no_more_than_twice_what_it_shows(tmp_path, monkeypatch):
    large = cv2.resize(fakes.picture(RED, 0), (1080, 1440))
    (tmp_path / "a.jpg").write_bytes(fakes.jpeg(large))
    decoded = []
    monkeypatch.setattr(images, "decode", lambda *a, **k: decoded.append(decode(*a, **k)) or decoded[-1])
    assert FileSource(tmp_path, "x").read("a.jpg", (80, 64)).shape == (80, 64, 3)
    assert decoded[0].shape == (180, 135, 3)


# Fitting.


def test_similar_aspects_are_stretched():
    image = np.full((80, 60, 3), RED, np.uint8)
    shown = fit(image, (80, 64))
    assert shown.shape == (80, 64, 3)
    assert (shown == RED).all()
    assert fit(image, (80, 60)) is image


@pytest.mark.parametrize(("size", "bars"), [((60, 120), "rows"), ((120, 60), "columns")])
def test_other_aspects_are_shown_whole_on_white(size, bars):
    shown = fit(np.full((*size, 3), RED, np.uint8), (64, 64))
    assert shown.shape == (64, 64, 3)
    inner = (shown == RED).all(axis=2)
    across = inner.all(axis=1 if bars == "rows" else 0)
    assert across.tolist() == [False] * 16 + [True] * 32 + [False] * 16
    assert (shown[~inner] == 255).all()
    assert fit(np.zeros((1, 5000, 3), np.uint8), (8, 8)).shape == (8, 8, 3)


def test_shrinking_averages():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[::2] = 255
    assert np.abs(fit(stripes, (8, 8)).astype(int) - 127).max() <= 1


def test_source_stays_in_its_folder(tmp_path):
    (tmp_path / "a.jpg").write_bytes(WHOLE)
    (tmp_path / "root").mkdir()
    source = FileSource(tmp_path / "root", "x")
    for image in ("../a.jpg", str(tmp_path / "a.jpg"), "x/../../a.jpg"):
        with pytest.raises(UnreadableImageError, match="outside"):
            source.read(image, (8, 8))
    with pytest.raises(UnreadableImageError, match="missing"):
        source.read("a.jpg", (8, 8))
    with pytest.raises(UnreadableImageError, match="not readable, Is a directory"):
        FileSource(tmp_path, "x").read("root", (8, 8))
