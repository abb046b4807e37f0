# SPDX-License-Identifier: MIT
"""AMGAN's networks: a generator that draws what is asked for, and the encoder that measures pictures."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fm_bench.data.transforms import MEAN, STD


class Generator(nn.Module):
    """Encoder, semantic maps, residual blocks and decoder (AMGAN Sec. 3.2); works on pixels in [-1, 1].

    Kernels and strides stand only in a figure of the paper; these are ours. Pictures of every size come back in their
    own size: each upsampling goes to the size that the encoder had there.

    Args:
        values: attribute values ``C``.
        widths: channels at full, half and quarter size; the last is the paper's ``L``.
        blocks: residual blocks.
    """

    def __init__(self, values: int, widths: Sequence[int], blocks: int) -> None:
        super().__init__()
        full, half, quarter = widths
        self.encoder = nn.Sequential(
            nn.Conv2d(3, full, 3, padding=1),
            nn.ReLU(),
            _convolution(full, half, 4, stride=2),
            _convolution(half, quarter, 4, stride=2),
        )
        self.semantics = nn.Parameter(torch.empty(quarter, values))  # W_a
        self.fuse = _convolution(2 * quarter, quarter, 3)
        self.blocks = nn.Sequential(*(_Residual(quarter) for _ in range(blocks)))
        self.to_half = _convolution(quarter, half, 3)
        self.to_full = _convolution(half, full, 3)
        self.paint = nn.Conv2d(full, 3, 3, padding=1)
        self.apply(_dcgan)
        nn.init.normal_(self.semantics, std=quarter**-0.5)  # columns of length 1

    def encode(self, pixels: Tensor) -> Tensor:
        """The visual maps ``F_x (B, L, H/4, W/4)``."""
        maps: Tensor = self.encoder(pixels)
        return maps

    def request(self, indicator: Tensor) -> Tensor:
        """Eq. 1: ``W_a h / sum(h)``, zero where nothing is asked; ``(B, C) -> (B, L)``."""
        share = indicator / indicator.sum(-1, keepdim=True).clamp(min=torch.finfo(indicator.dtype).tiny)
        return share @ self.semantics.T

    def decode(self, maps: Tensor, request: Tensor, size: tuple[int, int]) -> Tensor:
        """The prototype ``(B, 3, H, W)`` from visual maps and the request ``(B, L)``, copied to every place."""
        hidden = self.blocks(self.fuse(torch.cat([maps, replicate(request, maps)], dim=1)))
        hidden = self.to_half(F.interpolate(hidden, size=(size[0] // 2, size[1] // 2)))
        return torch.tanh(self.paint(self.to_full(F.interpolate(hidden, size=size))))

    def forward(self, pixels: Tensor, indicator: Tensor) -> tuple[Tensor, Tensor]:
        """Eq. 2: the prototype ``(B, 3, H, W)`` in [-1, 1], and the visual maps that it was drawn from."""
        maps = self.encode(pixels)
        return self.decode(maps, self.request(indicator), (pixels.shape[2], pixels.shape[3])), maps


class MetricEncoder(nn.Module):
    """``E``: strided convolutions and a global average; ``(B, 3, H, W)`` in [-1, 1] to ``(B, D)``.

    It has no batch normalisation: real and generated batches would be normalised differently, and one picture alone
    could not be embedded.

    Args:
        widths: channels after each halving; the last is ``D``.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in zip([3, *widths], widths, strict=False):
            convolution = nn.Conv2d(before, after, 4, stride=2, padding=1)
            # nothing rescales what comes out, so that DCGAN's N(0, 0.02) would start with features of nearly 0
            nn.init.kaiming_normal_(convolution.weight, a=0.2)
            nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
            layers += [convolution, nn.LeakyReLU(0.2, inplace=True)]
        self.layers = nn.Sequential(*layers)
        self.dim = widths[-1]

    def forward(self, pixels: Tensor) -> Tensor:
        """Features that are not normalised: their distances must be able to grow."""
        maps: Tensor = self.layers(pixels)
        return maps.float().mean(dim=(2, 3))


class _Residual(nn.Module):
    """``x + BN conv ReLU BN conv x``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _convolution(width, width, 3), nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        )

    def forward(self, maps: Tensor) -> Tensor:
        changed: Tensor = self.body(maps)
        return maps + changed


def _convolution(before: int, after: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, kernel, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(),
    )


def _dcgan(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, std=0.02)


def replicate(request: Tensor, maps: Tensor) -> Tensor:
    """``(B, L)`` at every place of ``maps (B, L, H, W)``."""
    return request.to(maps.dtype)[:, :, None, None].expand(-1, -1, *maps.shape[2:])


def to_pixels(images: Tensor) -> Tensor:
    """Normalised pictures ``(B, 3, H, W)`` as pixels in [-1, 1], the generator's range."""
    mean, std = _constants(images)
    return (images * std + mean).mul_(2).sub_(1)


def from_pixels(pixels: Tensor) -> Tensor:
    """The inverse of ``to_pixels``, in float32."""
    pixels = pixels.float()
    mean, std = _constants(pixels)
    return ((pixels + 1) / 2 - mean) / std


def _constants(like: Tensor) -> tuple[Tensor, Tensor]:
    mean, std = (torch.tensor(values, device=like.device, dtype=like.dtype).view(1, 3, 1, 1) for values in (MEAN, STD))
    return mean, std
