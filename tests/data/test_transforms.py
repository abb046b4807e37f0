# SPDX-License-Identifier: MIT
"""Augmentation depends on its key alone and keeps labels true; normalisation is what it says."""

import subprocess
import sys
import time
from typing import Any

import albumentations
import cv2
import numpy as np
import pytest
import torch

from fm_bench.data import transforms
from fm_bench.data.opencv import one_thread
from fm_bench.data.transforms import MEAN, STD, Augment, denormalise, normalise


def pictures(count: int, size: int = 64) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def test_a_picture_depends_on_its_key_alone() -> None:
    images, keys = pictures(6), np.arange(6, dtype=np.uint64) * np.uint64(2**61 + 7)
    together = Augment()(images, keys)
    fresh = Augment()
    for i in (3, 0, 5, 1, 2, 4):
        assert np.array_equal(fresh(images[i : i + 1], keys[i : i + 1])[0], together[i])
    assert together.shape == images.shape
    assert together.dtype == np.uint8
    assert np.array_equal(images, pictures(6)), "the input must stay as it was"


def test_a_key_sets_both_generators() -> None:
    """Transforms may draw from Python's or from NumPy's."""
    fresh, used = Augment(), Augment()
    used._generator.random(5)
    for augment in (fresh, used):
        augment(pictures(1), np.array([7], dtype=np.uint64))
    assert fresh._generator.random() == used._generator.random()
    assert fresh._random.random() == used._random.random()


def test_the_quicker_affine_transform_draws_and_gives_what_the_library_does(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = Augment()
    monkeypatch.setattr(transforms, "Affine", albumentations.Affine)
    library = Augment()
    for height, width in ((64, 64), (80, 64), (97, 61)):
        images = np.random.default_rng(height).integers(0, 256, (300, height, width, 3), dtype=np.uint8)
        keys = np.random.default_rng(width).integers(2**64, size=300, dtype=np.uint64)
        assert np.array_equal(quick(images, keys), library(images, keys))


def test_different_keys_give_different_pictures() -> None:
    same = np.repeat(pictures(1), 300, axis=0)
    augmented = Augment()(same, np.random.default_rng(0).integers(2**64, size=300, dtype=np.uint64))
    assert len({image.tobytes() for image in augmented}) > 200


def test_every_transform_is_used_about_half_of_the_time() -> None:
    """A picture with an arrow of three colours tells what was done to it."""
    image = np.full((64, 64, 3), 128, np.uint8)
    image[20:44, 8:12] = 255
    keys = np.random.default_rng(1).integers(2**64, size=600, dtype=np.uint64)
    augmented = Augment()(np.repeat(image[None], 600, axis=0), keys)
    mirrored = (augmented[:, :, 32:].max(axis=(1, 2, 3)) > augmented[:, :, :32].max(axis=(1, 2, 3))).mean()
    assert 0.4 < mirrored < 0.6
    relit = (np.abs(augmented[:, 60, 30, 0].astype(int) - 128) > 0).mean()
    assert 0.4 < relit < 0.6
    patch = np.stack([image, image[:, ::-1]])
    bright = augmented.max(axis=3) > 170
    kept = np.mean([any(np.array_equal(b, p.max(axis=2) > 170) for p in patch) for b in bright])
    assert 0.4 < kept < 0.6


def test_hue_stays_and_a_garment_stays_in_the_picture() -> None:
    """Colour, length and sleeves are labels: plain colours keep their order of channels, a centred garment its area."""
    keys = np.random.default_rng(2).integers(2**64, size=200, dtype=np.uint64)
    for colour in ((200, 40, 40), (30, 60, 180), (120, 120, 120), (0, 0, 0), (255, 255, 255)):
        image = np.full((1, 32, 32, 3), colour, np.uint8)
        augmented = Augment()(np.repeat(image, 200, axis=0), keys).astype(int)
        shift = augmented - np.array(colour)
        assert np.abs(shift).max() <= 55
        assert (np.diff(augmented, axis=3) * np.sign(np.diff(np.array(colour))) >= 0).all()
        grey = np.ptp(augmented, axis=3)
        assert (grey == 0).all() if len(set(colour)) == 1 else (grey > 60).all()
    garment = np.full((64, 64, 3), 255, np.uint8)
    garment[10:54, 14:50] = (20, 90, 20)
    shown = Augment()(np.repeat(garment[None], 200, axis=0), keys)
    area = (shown[..., 0] < 128).sum(axis=(1, 2)) / (44 * 36)
    assert area.min() > 0.8
    assert area.max() < 1.25


def test_normalise_is_imagenets_and_channels_last() -> None:
    images = torch.from_numpy(pictures(3)).permute(0, 3, 1, 2)
    floats = normalise(images)
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    torch.testing.assert_close(floats, (images.float() / 255 - mean) / std, rtol=1e-5, atol=1e-6)
    assert floats.dtype == torch.float32
    assert floats.is_contiguous(memory_format=torch.channels_last)
    assert normalise(images.contiguous()).is_contiguous(memory_format=torch.channels_last)


def test_normalise_rounds_as_a_factor_for_each_channel_does() -> None:
    """To the last bit: trained weights depend on it."""
    mean, std = torch.tensor(MEAN).view(1, 3, 1, 1), torch.tensor(STD).view(1, 3, 1, 1)
    for shape in ((3, 7, 5), (2, 64, 48)):
        images = torch.from_numpy(np.random.default_rng(5).integers(0, 256, (*shape, 3), dtype=np.uint8))
        images = images.permute(0, 3, 1, 2)
        plain = images.to(torch.float32).mul(1 / (255 * std)).sub(mean / std)
        assert torch.equal(normalise(images), plain)
        assert torch.equal(normalise(images.contiguous()), plain)


def test_augmentation_is_cheap() -> None:
    """Meant to stay below 150 microseconds per 64-pixel picture on one core; a busy machine may take twice that."""
    augment, images, keys = Augment(), pictures(500), np.arange(500, dtype=np.uint64)
    augment(images, keys)
    begin = time.process_time()
    augment(images, keys)
    assert (time.process_time() - begin) / 500 < 300e-6


def test_importing_asks_no_network() -> None:
    script = (
        "import socket\n"
        "def refuse(*args): raise AssertionError('network')\n"
        "socket.socket.connect = refuse; socket.getaddrinfo = refuse\n"
        "import fm_bench.data.transforms, os\n"
        "assert os.environ['NO_ALBUMENTATIONS_UPDATE'] == '1'\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "version" not in done.stderr.lower()


def test_denormalise_gives_the_very_pictures_back() -> None:
    images = pictures(3)
    assert np.array_equal(denormalise(normalise(torch.from_numpy(images).permute(0, 3, 1, 2))), images)


def test_opencv_stays_in_the_calling_thread_and_is_set_back(
    monkeypatch: pytest.MonkeyPatch, opencv_threads: int
) -> None:
    """Its threads would wait for the cores of a training step; whoever uses OpenCV besides keeps theirs."""
    warp = cv2.warpAffine
    seen: list[int] = []

    def watched(*given: Any, **named: Any) -> Any:
        seen.append(cv2.getNumThreads())
        return warp(*given, **named)

    monkeypatch.setattr(cv2, "warpAffine", watched)
    Augment()(pictures(20), np.arange(20, dtype=np.uint64))
    assert set(seen) == {1}
    assert cv2.getNumThreads() == opencv_threads
    with pytest.raises(KeyError), one_thread():
        raise KeyError
    assert cv2.getNumThreads() == opencv_threads
