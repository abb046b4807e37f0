# SPDX-License-Identifier: MIT
"""Rows that frame the table: chance, a method that does not listen, and one that knows everything."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fm_bench.methods.attribute_network import AttributeNetwork
from fm_bench.methods.base import Context, Method


class Random(Method):
    """Floor: a random vector for every picture and request, which is what chance scores."""

    def __init__(self, attributes: Mapping[str, Sequence[str]], dim: int = 64, seed: int = 0) -> None:
        super().__init__(attributes)
        self.save_hyperparameters()

    def embed_gallery(self, images: Tensor, context: Context | None = None) -> Tensor:
        """Hash of the picture's row, spread evenly over [-1, 1]^D."""
        assert context is not None, "a random vector needs to know which picture it stands for"
        return self._vectors(context.image_index)

    def embed_query(self, images: Tensor, indicator: Tensor, context: Context | None = None) -> Tensor:
        """Hash of the picture's row and the request, unrelated to any gallery vector."""
        assert context is not None, "a random vector needs to know which picture it stands for"
        request = (indicator.long() * torch.arange(1, indicator.shape[-1] + 1, device=indicator.device) ** 3).sum(-1)
        return self._vectors(_scramble(context.image_index * 1_000_003 + request + 1))

    def _vectors(self, keys: Tensor) -> Tensor:
        columns = torch.arange(self.hparams["dim"], device=keys.device)
        bits = _scramble(_scramble(keys.long() + self.hparams["seed"] * 7919).unsqueeze(-1) + columns)
        return (bits & 0xFFFFFF).float() / 2**23 - 1


def _scramble(keys: Tensor) -> Tensor:
    """A fixed bijection of 64-bit integers without visible structure (multiply, xor and shift, wrapping around)."""
    for factor in (-7046029254386353131, -4658895280553007687, -7723592293110705685):
        keys = keys * factor
        keys = keys ^ ((keys >> 31) & 0x1FFFFFFFF)
    return keys


class Identity(AttributeNetwork):
    """Floor: looks for what is similar to the picture, with the attribute-trained network, and ignores the request.

    Asked to draw, it copies the query.
    """

    draws = True

    def embed_gallery(self, images: Tensor, context: Context | None = None) -> Tensor:
        """The direction of the attribute network's feature."""
        return F.normalize(self.backbone(images).float(), dim=-1)

    def embed_query(self, images: Tensor, indicator: Tensor, context: Context | None = None) -> Tensor:
        """The same, whatever was asked."""
        return self.embed_gallery(images)

    def draw(self, images: Tensor, indicator: Tensor) -> Tensor:
        """The query itself."""
        return images


class Oracle(Method):
    """Ceiling: the true labels as the embedding, like a perfect recogniser that follows every request.

    It is not told the labels of parts, so that it is no ceiling for requests about regions and leaves them out.
    """

    answers_regions = False

    def __init__(self, attributes: Mapping[str, Sequence[str]]) -> None:
        super().__init__(attributes)
        self.save_hyperparameters()
        self.needs_labels = True

    def embed_gallery(self, images: Tensor, context: Context | None = None) -> Tensor:
        """One-hot labels with one more column per attribute for "missing", so that a missing label never matches."""
        assert context is not None, "the oracle needs the labels"
        assert context.labels is not None, "the oracle needs the labels"
        return torch.cat([self.schema.one_hot(context.labels), (context.labels < 0).float()], dim=-1)

    def embed_query(self, images: Tensor, indicator: Tensor, context: Context | None = None) -> Tensor:
        """One-hot target labels; an attribute missing in the query is equally far from everything."""
        assert context is not None, "the oracle needs the labels"
        assert context.labels is not None, "the oracle needs the labels"
        target = self.schema.one_hot(self.schema.edit(context.labels, indicator))
        return torch.cat([target, torch.zeros(*context.labels.shape, device=target.device)], dim=-1)
