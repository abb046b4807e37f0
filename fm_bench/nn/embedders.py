# SPDX-License-Identifier: MIT
"""Attribute-specific embedders and classifiers, with a vector for every class (FLAM Secs. 3.1 and 4.2)."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fm_bench.nn.cosine import cosine_distance, cosine_hinge, masked_mean
from fm_bench.nn.parallel import ParallelLinear, ParallelMLP

Negatives = Literal["random", "hardest"]


class _Classes(nn.Module):
    """Which classes of ``T`` attributes are known: tables ``(T, C)`` are as wide as the longest attribute.

    Args:
        classes: of each attribute.
    """

    known: Tensor

    def __init__(self, classes: Sequence[int]) -> None:
        super().__init__()
        exists = torch.arange(max(classes)) < torch.tensor(classes).unsqueeze(1)
        self.register_buffer("known", exists)  # (T, C)

    def learn_of(self, counts: Tensor, most: int | None) -> None:
        """Knows the ``most`` frequent classes of each attribute from now on.

        Args:
            counts: ``(T, C)`` images of each class.
            most: how many; None for all that any image shows.
        """
        rank = counts.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
        self.known.copy_((counts > 0) & (rank < (counts.shape[1] if most is None else most)))

    @property
    def learnt(self) -> Tensor:
        """Which classes ``(T, C)`` can be asked for: known ones, of attributes with others to tell them from."""
        return self.known & (self.known.sum(1, keepdim=True) > 1)

    def drop_unknown(self, labels: Tensor) -> Tensor:
        """``(T, B)`` labels with −1 where the class is not known."""
        return torch.where(self.known.gather(1, labels.clamp(min=0)), labels, -1)

    def _each(self, features: Tensor) -> Tensor:
        return features.expand(len(self.known), *features.shape)


class AttributeEmbedders(_Classes):
    """For each of ``T`` attributes: ``phi_a (B, d) -> (B, k)`` and a vector ``d_{a,i}`` for every class.

    Args:
        inputs: ``d``.
        hidden: width of the layer between.
        dim: ``k``.
        classes: of each attribute.
    """

    def __init__(self, inputs: int, hidden: int, dim: int, classes: Sequence[int]) -> None:
        super().__init__(classes)
        self.phi = ParallelMLP(len(classes), (inputs, hidden, dim))
        self.rows = nn.Parameter(torch.randn(len(classes), max(classes), dim))

    def forward(self, features: Tensor) -> Tensor:
        """``e (T, B, k)`` of length 1 of features ``(B, d)``."""
        return F.normalize(self.phi(self._each(features)).float(), dim=-1)

    @property
    def dictionary(self) -> Tensor:
        """``d (T, C, k)``, each of length 1."""
        return F.normalize(self.rows, dim=-1)

    def likeness(self, embedded: Tensor) -> Tensor:
        """``cos(e, d) (T, B, C)`` of ``e (T, B, k)`` with every class, -2 where it is unknown."""
        return (embedded @ self.dictionary.transpose(1, 2)).masked_fill(~self.known.unsqueeze(1), -2)

    def classes(self, embedded: Tensor) -> Tensor:
        """The class ``(T, B)`` of the nearest dictionary vector: labels that nobody gave."""
        return self.likeness(embedded).argmax(-1)

    def look_up(self, classes: Tensor) -> Tensor:
        """``d_{a,i} (T, B, k)`` of classes ``(T, B)``."""
        return chosen(self.dictionary, classes)

    def loss(self, features: Tensor, labels: Tensor, margin: float, negatives: Negatives) -> Tensor:
        """Eq. 2, ``l(d_i, e_i, e_j) + l(e_i, d_i, d_j)``, for every attribute on its own.

        Args:
            features: ``(B, d)``.
            labels: ``(B, T)``; what is missing or unknown takes no part.
            margin: of both triplets, in units of ``1 - cos``.
            negatives: where d_j comes from: the image that e_j comes from, or the nearest of all other classes. That
                image is drawn evenly from those of other classes in the batch.

        Returns:
            ``(T,)``, 0 where the batch shows fewer than two classes.
        """
        embedded = self(features)
        own, other, found = others(self.drop_unknown(labels.T))
        positive = self.look_up(own)
        if negatives == "hardest":
            rivals = self.likeness(embedded).scatter(-1, own.unsqueeze(-1), -2)
            negative = self.look_up(rivals.argmax(-1))
        else:
            negative = self.look_up(own.gather(1, other))
        near = cosine_distance(positive, embedded)
        first = cosine_hinge(near, cosine_distance(positive, chosen(embedded, other)), margin)
        second = cosine_hinge(near, cosine_distance(embedded, negative), margin)
        return masked_mean(first + second, found)


class AttributeClassifiers(_Classes):
    """For each of ``T`` attributes two fully connected layers; what lies between them is its part of a feature.

    Args:
        inputs: ``d``.
        dim: width of that layer.
        classes: of each attribute.
        dropout: behind it.
    """

    dictionary: Tensor

    def __init__(self, inputs: int, dim: int, classes: Sequence[int], dropout: float) -> None:
        super().__init__(classes)
        self.first = ParallelMLP(len(classes), (inputs, dim), last=True)
        self.dropout = nn.Dropout(dropout)
        self.second = ParallelLinear(len(classes), dim, max(classes))
        self.register_buffer("dictionary", torch.zeros(len(classes), max(classes), dim))  # of ``set_means``

    def forward(self, features: Tensor) -> Tensor:
        """The hidden layer ``(T, B, k)`` of features ``(B, d)``, scaled to length 1."""
        return F.normalize(self.first(self._each(features)).float(), dim=-1)

    def loss(self, features: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy ``(T,)`` among known classes; ``features (B, d)``, ``labels (B, T)``."""
        logits = self.second(self.dropout(self.first(self._each(features)))).float()
        kept = self.drop_unknown(labels.T)
        logits = logits.masked_fill(~self.known.unsqueeze(1), -1e4)
        entropy = F.cross_entropy(logits.transpose(1, 2), kept.clamp(min=0), reduction="none")
        return masked_mean(entropy, kept >= 0)

    def set_means(self, sums: Tensor) -> None:
        """The dictionary: directions of sums ``(T, C, k)`` of ``forward`` over the images of each class."""
        self.dictionary.copy_(F.normalize(sums, dim=-1))


def chosen(vectors: Tensor, position: Tensor) -> Tensor:
    """``(T, B, k)``: of ``vectors (T, N, k)`` those at ``position (T, B)``."""
    return vectors.gather(1, position.unsqueeze(-1).expand(-1, -1, vectors.shape[-1]))


def others(labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """For every image and attribute another image of the batch with another label, drawn evenly.

    Args:
        labels: ``(T, B)``, −1 = missing.

    Returns:
        Labels without −1 ``(T, B)``, positions of the others ``(T, B)``, and where there is one ``(T, B)``.
    """
    differs = labels.unsqueeze(2) != labels.unsqueeze(1)
    allowed = differs & (labels >= 0).unsqueeze(2) & (labels >= 0).unsqueeze(1)
    drawn = torch.rand(allowed.shape, device=labels.device).masked_fill(~allowed, -1).max(-1)
    return labels.clamp(min=0), drawn.indices, drawn.values >= 0
