# SPDX-License-Identifier: MIT
"""AMNet: a memory of attribute prototypes steers a representation from the query to the wanted garment."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD

from fm_bench.data.batches import TripletBatch
from fm_bench.methods.attribute_network import ATTRIBUTES, AttributeNetwork
from fm_bench.methods.base import Context, Stage
from fm_bench.nn.losses import attribute_cross_entropy, triplet_margin
from fm_bench.processes import is_rank_zero

log = logging.getLogger(__name__)
_TOLD = 5  # values that a warning names


class AMNet(AttributeNetwork):
    """Zhao et al., Memory-Augmented Attribute Manipulation Networks for Interactive Fashion Search, CVPR 2017.

    Follows: representation learner with shared paths (Sec. 3.3), memory of prototypes addressed by the normalised
    indicator (Sec. 3.4, Eq. 1), fully connected manipulator (Sec. 3.5), classification of the manipulated feature
    (Eq. 4), triplet ranking (Eq. 5), their weighted sum (Eq. 6). Only the reference is manipulated; gallery, positive
    and negative keep the plain feature.

    Differs: an all-zero indicator bypasses the manipulator, which the paper leaves undefined. In common mode features
    are L2-normalised for ranking and search, so that the margin of 0.5 means something, and positive and negative are
    classified too; paper mode does neither.

    Args:
        attributes: the schema, ``{attribute: [value, …]}``.
        memory: False is the paper's "w/o Mem": the raw indicator itself is concatenated to the feature.
        classification_weight: lambda of Eq. 6; 1 is the paper's "w/o Rank".
        margin: of Eq. 5, in distance units.
        normalize: L2-normalise what is ranked and searched (common mode).
        classify_pos_neg: also classify the plain positive and negative by their own labels (common mode).
        empty_request: what an all-zero indicator does: ``bypass`` returns the plain feature, ``manipulate`` runs the
            manipulator on an empty memory answer.
        lr: peak learning rate of the backbone in the manipulation stage.
        new_lr: the same for manipulator and heads.
        memory_lr: the same for the memory, which has neither momentum nor weight decay: both would move rows that
            a step did not address.
        others: see ``AttributeNetwork``.
    """

    stages: ClassVar[tuple[Stage, ...]] = (ATTRIBUTES, Stage("manipulation", TripletBatch, monitor="val/accuracy@20"))

    def __init__(
        self,
        attributes: Mapping[str, Sequence[str]],
        backbone: str = "resnet18",
        weights: str | None = None,
        images_per_value: int | None = None,
        attributes_lr: float = 0.05,
        attributes_head_lr: float = 0.05,
        weight_decay: float = 5e-4,
        memory: bool = True,
        classification_weight: float = 0.2,
        margin: float = 0.5,
        normalize: bool = True,
        classify_pos_neg: bool = True,
        empty_request: Literal["bypass", "manipulate"] = "bypass",
        lr: float = 0.02,
        new_lr: float = 0.02,
        memory_lr: float = 0.02,
    ) -> None:
        super().__init__(
            attributes, backbone, weights, images_per_value, attributes_lr, attributes_head_lr, weight_decay
        )
        self.save_hyperparameters()
        width, values = self.backbone.dim, self.schema.num_values
        if memory:
            self.memory = nn.Parameter(torch.zeros(values, width))  # P: one prototype per value
        self.manipulator = nn.Linear(width + (width if memory else values), width)
        self._start_near_identity()

    def _start_near_identity(self) -> None:
        """``W = [I | 0.1 I] + noise``: keeps r, and lets the memory receive gradient from the first step."""
        weight, width = self.manipulator.weight, self.backbone.dim
        with torch.no_grad():
            weight.normal_(std=1e-3)
            weight[:, :width] += torch.eye(width)
            if self.hparams["memory"]:
                weight[:, width:] += 0.1 * torch.eye(width)
            self.manipulator.bias.zero_()

    # --------------------------------------------------------- Secs. 3.3-3.5: representation, memory, manipulator

    def address(self, indicator: Tensor) -> Tensor:
        """Eq. 1: ``t = h'^T P`` with ``h' = h / sum(h)``, zero where nothing is asked; ``(B, C) -> (B, Q)``."""
        share = indicator / indicator.sum(-1, keepdim=True).clamp(min=torch.finfo(indicator.dtype).tiny)
        return share @ self.memory

    def manipulate(self, features: Tensor, indicator: Tensor) -> Tensor:
        """``r' = W [r; t] + b``; without memory ``r' = W [r; h] + b``. ``(B, Q), (B, C) -> (B, Q)``."""
        answer = self.address(indicator) if self.hparams["memory"] else indicator
        manipulated: Tensor = self.manipulator(torch.cat([features, answer.to(features.dtype)], dim=-1))
        if self.hparams["empty_request"] == "manipulate":
            return manipulated
        asked = indicator.sum(-1, keepdim=True) > 0
        return torch.where(asked, manipulated, features.to(manipulated.dtype))

    def space(self, features: Tensor) -> Tensor:
        """What is ranked and searched: the feature itself, or its direction."""
        return F.normalize(features.float(), dim=-1) if self.hparams["normalize"] else features.float()

    def embed_gallery(self, images: Tensor, context: Context | None = None) -> Tensor:
        """The plain feature: reads neither memory nor manipulator."""
        return self.space(self.backbone(images))

    def embed_query(self, images: Tensor, indicator: Tensor, context: Context | None = None) -> Tensor:
        """The manipulated feature."""
        return self.space(self.manipulate(self.backbone(images), indicator))

    # --------------------------------------------------------- Sec. 3.6: training

    def manipulation_step(self, batch: TripletBatch) -> dict[str, tuple[float, Tensor]]:
        """Eqs. 4-6 on triplets whose reference carries the request."""
        weight = self.hparams["classification_weight"]
        everything = self.hparams["classify_pos_neg"] or weight < 1
        images = [batch.reference, batch.positive, batch.negative] if everything else [batch.reference]
        reference, *others = self.backbone(torch.cat(images)).chunk(len(images))
        manipulated = self.manipulate(reference, batch.indicator)
        classified, labels = [manipulated], [batch.target]
        if self.hparams["classify_pos_neg"]:
            classified += others
            labels += [batch.target, batch.negative_labels]  # the positive carries exactly the target labels
        losses = {"L_a": (weight, attribute_cross_entropy(self.logits(torch.cat(classified)), torch.cat(labels)))}
        if weight < 1:
            positive, negative = others
            ranking = triplet_margin(
                self.space(manipulated), self.space(positive), self.space(negative), self.hparams["margin"]
            )
            losses["L_t"] = (1 - weight, ranking)
        return losses

    def on_manipulation_start(self, batches: Any) -> None:
        """Writes the prototypes into the memory: row v is the mean stage-1 feature of the images that carry value v."""
        if not self.hparams["memory"]:
            return
        sums = torch.zeros_like(self.memory)
        counts = torch.zeros(self.schema.num_values, device=self.device)
        for batch in batches:
            code = self.schema.one_hot(batch.labels)
            sums += code.T @ self.backbone(batch.image).float()
            counts += code.sum(0)
        # each process saw its share of the images: means of means would be wrong, so sums and counts are added
        sums, counts = (self.trainer.strategy.reduce(value, reduce_op="sum") for value in (sums, counts))
        self.memory.data.copy_(prototypes(sums, counts))
        self._tell_unseen(counts)

    def _tell_unseen(self, counts: Tensor) -> None:
        """Warns once, however many attributes and processes there are, of values that no picture shows."""
        schema = self.schema
        named = [
            f"{name} = {value}" for name, values in zip(schema.names, schema.values, strict=True) for value in values
        ]
        unseen = [named[column] for column in (counts == 0).nonzero().flatten().tolist()]
        if unseen and is_rank_zero():
            told = ", ".join(unseen[:_TOLD]) + (f" and {len(unseen) - _TOLD} more" if len(unseen) > _TOLD else "")
            log.warning("no training image shows %s: their prototypes start at zero", told)

    def manipulation_optimizer(self) -> Any:
        """SGD; the memory in a group of its own, without momentum or decay."""
        groups: list[dict[str, Any]] = [
            {"params": list(self.backbone.parameters()), "lr": self.hparams["lr"]},
            {"params": [*self.manipulator.parameters(), *self.heads.parameters()], "lr": self.hparams["new_lr"]},
        ]
        if self.hparams["memory"]:
            groups.append(
                {"params": [self.memory], "lr": self.hparams["memory_lr"], "momentum": 0.0, "weight_decay": 0.0}
            )
        return self.scheduled(SGD(groups, momentum=0.9, weight_decay=self.hparams["weight_decay"]))


def prototypes(sums: Tensor, counts: Tensor) -> Tensor:
    """Means ``(C, Q)`` from sums ``(C, Q)`` and counts ``(C,)``; zero where nothing was counted."""
    return sums / counts.clamp(min=1).unsqueeze(-1)
