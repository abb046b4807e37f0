# SPDX-License-Identifier: MIT
"""Training augmentation that leaves every label true, and the normalisation of pictures."""

import math
import os
import random
from typing import Any

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # the import would otherwise ask the network for a newer version

import albumentations
import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fm_bench.data.opencv import one_thread

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""ImageNet's, per RGB channel in [0, 1]; for every backbone, since some start from weights that expect them."""


class Affine(albumentations.Affine):  # type: ignore[misc]  # the library has no types
    """The library's transform without shear and for pictures alone: the same draws and pixels, much sooner.

    The library also prepares matrices for boxes, compares each matrix with the identity, and multiplies six where two
    coefficients say it all. That took half of the whole augmentation.
    """

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """The ``(2, 3)`` matrix that turns and scales about the centre, and then moves."""
        height, width = params["shape"][:2]
        # In the library's order, which decides who gets which number.
        move = self._get_translate_params((height, width))
        self._get_shear_params()
        scale = self._get_scale(self.scale, self.keep_ratio, self.balanced_scale, self.py_random)["x"]
        angle = math.radians(self.py_random.uniform(*self.rotate) % 360)
        cos, sin = scale * math.cos(angle), scale * math.sin(angle)
        x, y = (width - 1) / 2, (height - 1) / 2
        matrix = ((cos, sin, x + move["x"] - cos * x - sin * y), (-sin, cos, y + move["y"] + sin * x - cos * y))
        return {"matrix": np.array(matrix), "output_shape": (height, width)}

    def apply(
        self, img: NDArray[np.uint8], matrix: NDArray[np.float64], output_shape: tuple[int, int], **_: Any
    ) -> NDArray[np.uint8]:
        """Moves the pixels of ``img (H, W, 3)``."""
        warped = cv2.warpAffine(img, matrix, output_shape[::-1], flags=self.interpolation, borderMode=self.border_mode)
        return np.asarray(warped, np.uint8)


class Augment:
    """Mirrors, moves, turns and scales a little, and changes the light a little.

    Hue and saturation stay, because colour is a label, and nothing is cut off but a narrow rim, because length and
    sleeves are labels. Half of the pictures keep their geometry, and with it their sharpness. What happens to a picture
    depends on its key alone.
    """

    def __init__(self) -> None:
        self._generator = np.random.Generator(np.random.PCG64(0))
        self._random = random.Random(0)  # noqa: S311 - augmentation, not cryptography
        self._compose = albumentations.Compose(
            [
                albumentations.HorizontalFlip(p=0.5),
                Affine(
                    scale=(0.92, 1.08),
                    translate_percent=(-0.04, 0.04),
                    rotate=(-8, 8),
                    keep_ratio=True,
                    border_mode=cv2.BORDER_REFLECT_101,
                    p=0.5,
                ),
                albumentations.RandomBrightnessContrast(brightness_limit=0.1, contrast_limit=0.1, p=0.5),
            ],
            is_check_shapes=False,  # there is one picture and nothing else whose shape could differ
        )
        # One pair of generators for all transforms: setting its state is far cheaper than a new pair per picture.
        self._compose.set_random_state(self._generator, self._random)
        self._state = self._generator.bit_generator.state

    def __call__(self, images: NDArray[np.uint8], keys: NDArray[np.uint64]) -> NDArray[np.uint8]:
        """Augments ``images (B, H, W, 3)``, picture i by ``keys[i]`` of ``(B,)``; the input stays as it was."""
        augmented = np.empty_like(images)
        with one_thread():
            for i, key in enumerate(keys.tolist()):
                self._random.seed(key)
                self._state["state"]["state"] = key
                self._generator.bit_generator.state = self._state
                augmented[i] = self._compose(image=images[i])["image"]
        return augmented


def normalise(images: Tensor) -> Tensor:
    """``(B, 3, H, W)`` uint8 to float32 by ImageNet's mean and deviation, channels last (fastest on CPUs)."""
    count, channels, height, width = images.shape
    mean, std = torch.tensor(MEAN, device=images.device), torch.tensor(STD, device=images.device)
    rows = images.permute(0, 2, 3, 1).reshape(count, height, width * channels)
    # One factor for each number of a row of pixels: broadcasting over long rows is several times as fast as over three.
    floats = rows.float().mul_((1 / (255 * std)).repeat(width)).sub_((mean / std).repeat(width))
    return floats.view(count, height, width, channels).permute(0, 3, 1, 2)


def denormalise(images: Tensor) -> NDArray[np.uint8]:
    """The inverse of ``normalise``, on the CPU and as OpenCV wants pictures: ``(B, H, W, 3)`` uint8."""
    mean = torch.tensor(MEAN, device=images.device).view(1, 3, 1, 1)
    std = torch.tensor(STD, device=images.device).view(1, 3, 1, 1)
    pixels = (images.float() * std + mean).mul_(255).round_().clamp_(0, 255).to(torch.uint8)
    return np.ascontiguousarray(pixels.permute(0, 2, 3, 1).cpu().numpy())
