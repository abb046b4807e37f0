# SPDX-License-Identifier: MIT
import io
import itertools

import cv2
import fakes
import numpy as np
import pytest
from PIL import Image

from fm_bench.data import duplicates
from fm_bench.data.duplicates import FINGERPRINT, fingerprint, look_alikes
from fm_bench.data.images import decode, fit


def of(*pictures: np.ndarray) -> np.ndarray:
    found = np.zeros(len(pictures), FINGERPRINT)
    for i, picture in enumerate(pictures):
        found[i] = fingerprint(fit(picture, (64, 64)))
    return found


def saved_again(picture: np.ndarray, quality: int, scale: float = 1.0) -> np.ndarray:
    file = io.BytesIO()
    height, width = (round(scale * side) for side in picture.shape[:2])
    small = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    Image.fromarray(small).save(file, "JPEG", quality=quality)
    return decode(file.getvalue())


def photo(seed: int) -> np.ndarray:
    """A blot with a texture."""
    noise = np.random.default_rng(seed).normal(0, 20, (30, 24, 3))
    blot = cv2.resize(fakes.picture((180, 60, 50), seed), (240, 300)).astype(np.float32)
    return np.clip(blot + cv2.resize(noise, (240, 300)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("quality", "scale"), [(95, 1.0), (60, 1.0), (85, 0.5), (85, 2.0)])
def test_pictures_saved_again_look_the_same(quality, scale):
    pictures = [photo(seed) for seed in range(8)]
    again = [saved_again(picture, quality, scale) for picture in pictures]
    pairs = look_alikes(of(*pictures, *again)).tolist()
    assert pairs == [[i, i + 8] for i in range(8)]


def test_other_colours_and_other_pictures_do_not():
    picture = photo(0)
    recoloured = np.ascontiguousarray(picture[..., ::-1])
    assert not len(look_alikes(of(picture, recoloured)))
    assert not len(look_alikes(of(*(photo(seed) for seed in range(20)))))
    part = picture.copy()
    part[120:160, 100:140] = 255  # a detail of a few tiles
    assert not len(look_alikes(of(picture, part)))


def test_the_search_finds_what_comparing_all_with_all_does(monkeypatch):
    rng = np.random.default_rng(0)
    found = np.zeros(400, FINGERPRINT)
    found["hash"][:40] = rng.integers(0, 2**64, 40, dtype=np.uint64)
    for i in range(40, 400):  # some bits away from one of the first forty
        bits = rng.choice(64, rng.integers(0, 7), replace=False).astype(np.uint64)
        found["hash"][i] = found["hash"][i % 40] ^ np.bitwise_or.reduce(np.uint64(1) << bits, initial=np.uint64(0))
    found["colours"][:, 0, 0, 0] = rng.integers(0, 16, 400)
    colour = found["colours"][:, 0, 0, 0].astype(int)
    expected = [
        [i, j]
        for i, j in itertools.combinations(range(400), 2)
        if bin(int(found["hash"][i] ^ found["hash"][j])).count("1") <= 3 and abs(colour[i] - colour[j]) <= 8
    ]
    assert len(expected) > 200
    assert look_alikes(found).tolist() == expected
    monkeypatch.setattr(duplicates, "_BLOCK", 5)  # however the work is divided
    assert look_alikes(found).tolist() == expected


def test_few_or_equal_pictures():
    assert look_alikes(np.zeros(0, FINGERPRINT)).shape == (0, 2)
    assert look_alikes(np.zeros(1, FINGERPRINT)).shape == (0, 2)
    assert look_alikes(np.zeros(3, FINGERPRINT)).tolist() == [[0, 1], [0, 2], [1, 2]]
    many = look_alikes(np.zeros(3000, FINGERPRINT), limit=1000)
    assert 1000 <= len(many) < 3000 * 2999 // 2
