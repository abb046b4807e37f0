# SPDX-License-Identifier: MIT
"""Cls-Concat and Emb-Concat, FLAM's baselines: one part of the feature per attribute, replaced when it is asked for."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.optim import Adam

from fm_bench.data.batches import LabelledBatch, PositionsBatch
from fm_bench.methods.attribute_network import ATTRIBUTES
from fm_bench.methods.base import Context, Stage
from fm_bench.methods.fir import INSTANCES, InstanceNetwork
from fm_bench.nn.embedders import AttributeClassifiers, AttributeEmbedders, Negatives, chosen

SLOTS = Stage("slots", PositionsBatch, shared=True)
MEANS = Stage("means", LabelledBatch, trained=False)


class AttributeConcat(InstanceNetwork):
    """Baselines of Shin et al., Semi-supervised Feature-Level Attribute Manipulation, BMVC 2019, Sec. 4.2.

    Follows: on the features of ``InstanceNetwork``, a classifier of two fully connected layers per attribute, whose
    hidden layers side by side are what is searched (Cls-Concat), or an embedder per attribute, trained by triplets
    (Emb-Concat). Both see the labels of all training images; the paper calls them an upper bound.

    Differs: how they manipulate is not printed. Every attribute's part is scaled to length 1, and the part of a
    requested attribute is replaced by that of the wanted class: the mean over its training images, or the dictionary's
    vector.

    Args:
        attributes: the schema, ``{attribute: [value, …]}``.
        parts: ``classifiers`` or ``embedders``.
        part: numbers per attribute.
        dropout: behind the classifiers' hidden layer.
        embedder_hidden: width of the embedders' hidden layer.
        margin: of the embedders' triplets, in units of ``1 - cos``.
        negatives: see ``AttributeEmbedders.loss``.
        lr: Adam's rate.
        others: see ``InstanceNetwork``.
    """

    stages: ClassVar[tuple[Stage, ...]] = (ATTRIBUTES, INSTANCES, SLOTS, MEANS)

    def __init__(
        self,
        attributes: Mapping[str, Sequence[str]],
        pairs: Literal["domains", "items", "labels"] = "items",
        backbone: str = "resnet18",
        weights: str | None = None,
        images_per_value: int | None = None,
        attributes_lr: float = 0.05,
        attributes_head_lr: float = 0.05,
        weight_decay: float = 5e-4,
        features: Literal["instances", "attributes"] = "instances",
        stand_in: Literal["labels", "views"] = "labels",
        dim: int = 1024,
        classes: int = 1000,
        instance_margin: float = 0.3,
        instances_lr: float = 0.05,
        targets: Literal["three", "all"] | list[str] = "three",
        values: int | None = None,
        parts: Literal["classifiers", "embedders"] = "classifiers",
        part: int = 341,
        dropout: float = 0.5,
        embedder_hidden: int = 256,
        margin: float = 1.0,
        negatives: Negatives = "hardest",
        lr: float = 1e-3,
        image_size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(
            attributes,
            pairs,
            backbone,
            weights,
            images_per_value,
            attributes_lr,
            attributes_head_lr,
            weight_decay,
            features,
            stand_in,
            dim,
            classes,
            instance_margin,
            instances_lr,
            targets,
            values,
            image_size,
        )
        self.save_hyperparameters()
        self.parts: AttributeClassifiers | AttributeEmbedders
        if parts == "classifiers":
            self.parts = AttributeClassifiers(self.width, part, self.target_sizes, dropout)
        else:
            self.parts = AttributeEmbedders(self.width, embedder_hidden, part, self.target_sizes)

    def embed_gallery(self, images: Tensor, context: Context | None = None) -> Tensor:
        """All parts side by side, ``(B, T k)``."""
        return side_by_side(self.parts(self.feature(images)))

    def embed_query(self, images: Tensor, indicator: Tensor, context: Context | None = None) -> Tensor:
        """The same, with what is asked for in its place."""
        return side_by_side(self.manipulate(self.parts(self.feature(images)), indicator))

    def manipulate(self, slots: Tensor, indicator: Tensor) -> Tensor:
        """``slots (T, B, k)`` with those of asked attributes replaced by the vector of the wanted class, if learnt.

        A class that no training image shows changes nothing, nor does the only one that they show.
        """
        asked, value = self.wishes(indicator)
        able = asked & self.parts.learnt.gather(1, value)
        return torch.where(able.unsqueeze(-1), chosen(self.parts.dictionary, value), slots)

    # --------------------------------------------------------- training

    def on_slots_start(self, batches: Iterable[LabelledBatch]) -> None:
        """Chooses the classes: those with most images."""
        self.parts.learn_of(self.count_labels(batches), self.hparams["values"])

    def cache_slots(self, batches: Iterable[LabelledBatch]) -> None:
        """The parts train on features alone."""
        self.keep_features(batches)

    def slots_step(self, batch: PositionsBatch) -> dict[str, tuple[float, Tensor]]:
        """Cross-entropy, or Eq. 2, of every attribute."""
        features, labels = self.cached[batch.position], batch.labels[:, self.targets]
        if isinstance(self.parts, AttributeClassifiers):
            return {"L_ce": (1.0, self.parts.loss(features, labels).sum())}
        return {
            "L_emb": (1.0, self.parts.loss(features, labels, self.hparams["margin"], self.hparams["negatives"]).sum())
        }

    def slots_optimizer(self) -> Any:
        """Adam with a warm-up and cosine schedule."""
        return self.scheduled(Adam(self.parts.parameters(), lr=self.hparams["lr"]))

    def on_means_start(self, batches: Iterable[LabelledBatch]) -> None:
        """The mean part of the training images of each class, in evaluation mode."""
        assert isinstance(self.parts, AttributeClassifiers), "embedders have learnt their vectors"
        sums = torch.zeros_like(self.parts.dictionary)
        for batch in batches:
            slots = self.parts(self.feature(batch.image))
            labels = batch.labels[:, self.targets].T  # (T, B)
            member = torch.nn.functional.one_hot(labels.clamp(min=0), sums.shape[1]) * (labels >= 0).unsqueeze(-1)
            sums += member.to(slots.dtype).transpose(1, 2) @ slots
        self.parts.set_means(self.trainer.strategy.reduce(sums, reduce_op="sum"))

    # --------------------------------------------------------- what variants share

    def skips(self, stage: Stage) -> bool:
        """Embedders need no means."""
        return super().skips(stage) or (stage is MEANS and self.hparams["parts"] == "embedders")

    def stage_state(self, stage: Stage) -> dict[str, Tensor]:
        """The last stages leave the parts."""
        if stage not in (SLOTS, MEANS):
            return super().stage_state(stage)
        return {name: value for name, value in self.state_dict().items() if name.startswith("parts.")}


def side_by_side(slots: Tensor) -> Tensor:
    """``(T, B, k)`` as ``(B, T k)``."""
    return slots.transpose(0, 1).flatten(1)
