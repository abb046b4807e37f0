# SPDX-License-Identifier: MIT
"""The attribute classifier on which several methods build: a backbone with one softmax head per attribute."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import SGD

from fm_bench.data.batches import LabelledBatch
from fm_bench.data.samplers import per_value_rows
from fm_bench.methods.base import Method, Stage
from fm_bench.nn.backbones import build_backbone
from fm_bench.nn.losses import attribute_cross_entropy

ATTRIBUTES = Stage("attributes", LabelledBatch, shared=True)


class AttributeNetwork(Method):
    """A backbone trained to classify attributes (stage 1 of AMNet, also the network of the attribute-based baseline).

    The stage depends on this class's own hyper-parameters only, so methods that build on it can share its result.

    Args:
        attributes: the schema, ``{attribute: [value, …]}``.
        backbone: name for ``build_backbone``; its output is the representation ``r (B, Q)``.
        weights: None, ``imagenet`` or a file, see ``build_backbone``.
        images_per_value: the paper's sampling, up to this many training images for each value (images are reused
            between values); None uses every training image.
        attributes_lr: peak learning rate of the backbone in this stage.
        attributes_head_lr: peak learning rate of the heads in this stage.
        weight_decay: L2 penalty on all but memories.
    """

    stages: ClassVar[tuple[Stage, ...]] = (ATTRIBUTES,)

    def __init__(
        self,
        attributes: Mapping[str, Sequence[str]],
        backbone: str = "resnet18",
        weights: str | None = None,
        images_per_value: int | None = None,
        attributes_lr: float = 0.05,
        attributes_head_lr: float = 0.05,
        weight_decay: float = 5e-4,
    ) -> None:
        super().__init__(attributes)
        self.save_hyperparameters()
        self.backbone = build_backbone(backbone, weights)
        self.heads = nn.ModuleList(nn.Linear(self.backbone.dim, size) for size in self.schema.sizes)

    def logits(self, features: Tensor) -> list[Tensor]:
        """One ``(B, C_m)`` block per attribute from features ``(B, Q)``."""
        return [head(features) for head in self.heads]

    def attributes_step(self, batch: LabelledBatch) -> dict[str, tuple[float, Tensor]]:
        """AMNet Eq. 4 on plain images."""
        return {"L_a": (1.0, attribute_cross_entropy(self.logits(self.backbone(batch.image)), batch.labels))}

    def attributes_optimizer(self) -> Any:
        """SGD with momentum and a cosine schedule over the stage."""
        groups = [
            {"params": list(self.backbone.parameters()), "lr": self.hparams["attributes_lr"]},
            {"params": list(self.heads.parameters()), "lr": self.hparams["attributes_head_lr"]},
        ]
        optimizer = SGD(groups, momentum=0.9, nesterov=True, weight_decay=self.hparams["weight_decay"])
        return self.scheduled(optimizer)

    def stage_rows(self, stage: Stage, labels: NDArray[np.int16]) -> NDArray[np.int64] | None:
        """The paper's sampling, where it is asked for."""
        per_value = self.hparams["images_per_value"]
        return per_value_rows(labels, per_value, self.stage_seed) if stage is ATTRIBUTES and per_value else None

    def stage_config(self, stage: Stage) -> dict[str, Any]:
        """The shared stage depends on ``AttributeNetwork``'s arguments alone."""
        if stage is not ATTRIBUTES:
            return super().stage_config(stage)
        own = inspect.signature(AttributeNetwork.__init__).parameters
        return {"method": "AttributeNetwork", "version": AttributeNetwork.version} | {
            name: value for name, value in self.hparams.items() if name in own
        }

    def stage_state(self, stage: Stage) -> dict[str, Tensor]:
        """The shared stage leaves the backbone and the heads."""
        state = super().stage_state(stage)
        if stage is ATTRIBUTES:
            return {name: value for name, value in state.items() if name.startswith(("backbone.", "heads."))}
        return state


def predict_labels(logits: Sequence[Tensor]) -> Tensor:
    """Most likely value of every attribute, ``(B, A)``."""
    return torch.stack([block.argmax(-1) for block in logits], dim=-1)
