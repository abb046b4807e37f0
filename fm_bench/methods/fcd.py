# SPDX-License-Identifier: MIT
"""FCD: pictures and attribute values share a space, where requests are added to the query and subtracted from it."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD

from fm_bench.attributes import MISSING
from fm_bench.data.batches import LabelledBatch
from fm_bench.methods.attribute_network import ATTRIBUTES, AttributeNetwork, predict_labels
from fm_bench.methods.base import Context, Stage


class FCD(AttributeNetwork):
    """Han et al., Automatic Spatially-aware Fashion Concept Discovery, ICCV 2017, as a baseline of the AMGAN paper.

    Follows: a joint visual-semantic space, trained by bidirectional ranking of cosines with a margin; a request adds
    the vectors of the wanted values to the picture's and takes away those of the values that they replace. A value
    replaces the one of its own attribute that the space itself reads from the picture. Nothing compares two pictures.

    Differs: the attributes of the schema stand for the concepts that the paper discovers among the words of product
    descriptions, so that values are ranked within their attribute and words need no clustering. The backbone is the
    other methods', and starts from their attribute stage. In common mode what is added and taken away is scaled by
    ``step``: a picture that is near ``A`` values has a share of about ``1 / sqrt(A)`` of each in its vector.

    Args:
        attributes: the schema, ``{attribute: [value, …]}``.
        dim: length of the vectors of pictures and values.
        margin: by which the cosine with an own value is to exceed that with another one.
        step: scale of what a request adds and takes away; 1 in the paper.
        lr: peak learning rate of the backbone in the joint stage.
        new_lr: the same for the projection of pictures and the vectors of values.
        others: see ``AttributeNetwork``.
    """

    stages: ClassVar[tuple[Stage, ...]] = (ATTRIBUTES, Stage("joint", LabelledBatch, monitor="val/accuracy@20"))

    def __init__(
        self,
        attributes: Mapping[str, Sequence[str]],
        backbone: str = "resnet18",
        weights: str | None = None,
        images_per_value: int | None = None,
        attributes_lr: float = 0.05,
        attributes_head_lr: float = 0.05,
        weight_decay: float = 5e-4,
        dim: int = 512,
        margin: float = 0.2,
        step: float = 0.5,
        lr: float = 0.02,
        new_lr: float = 3.0,
    ) -> None:
        super().__init__(
            attributes, backbone, weights, images_per_value, attributes_lr, attributes_head_lr, weight_decay
        )
        self.save_hyperparameters()
        self.projection = nn.Linear(self.backbone.dim, dim)
        self.values = nn.Parameter(torch.randn(self.schema.num_values, dim) / dim**0.5)

    # --------------------------------------------------------- the joint space

    def visual(self, images: Tensor) -> Tensor:
        """Unit vectors ``(B, D)`` of pictures."""
        return F.normalize(self.projection(self.backbone(images)).float(), dim=-1)

    def semantic(self) -> Tensor:
        """Unit vectors ``(C, D)`` of all values."""
        return F.normalize(self.values.float(), dim=-1)

    def unwanted(self, visual: Tensor, indicator: Tensor) -> Tensor:
        """Ones ``(B, C)`` at the values that give way: of each attribute asked about, the picture's nearest other one.

        Whoever asks for a value does not see it in the picture, so that it is never the one that is read.
        """
        cosines = (visual @ self.semantic().T).masked_fill(indicator > 0, -torch.inf)
        read = predict_labels(self._blocks(cosines))
        asked = torch.stack([block.amax(-1) > 0 for block in self._blocks(indicator)], dim=-1)
        return self.schema.one_hot(read.masked_fill(~asked, MISSING))

    def compose(self, visual: Tensor, indicator: Tensor) -> Tensor:
        """``normalise(x + step (sum of wanted − sum of unwanted))``; ``(B, D), (B, C) -> (B, D)``."""
        with torch.autocast(visual.device.type, enabled=False):
            change = indicator - self.unwanted(visual, indicator)
            return F.normalize(visual + self.hparams["step"] * (change @ self.semantic()), dim=-1)

    def embed_gallery(self, images: Tensor, context: Context | None = None) -> Tensor:
        """The picture's own vector."""
        return self.visual(images)

    def embed_query(self, images: Tensor, indicator: Tensor, context: Context | None = None) -> Tensor:
        """The picture's vector with the request applied; true labels are never read."""
        return self.compose(self.visual(images), indicator)

    # --------------------------------------------------------- training

    def joint_step(self, batch: LabelledBatch) -> dict[str, tuple[float, Tensor]]:
        """Bidirectional ranking of pictures and values."""
        visual = self.visual(batch.image)
        with torch.autocast(visual.device.type, enabled=False):
            to_values, to_images = self.ranking(visual @ self.semantic().T, batch.labels)
        return {"L_iv": (1.0, to_values), "L_vi": (1.0, to_images)}

    def ranking(self, cosines: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Hinges by which something else comes closer than ``margin`` to an image and its own value.

        Args:
            cosines: ``(B, C)`` of images and values.
            labels: ``(B, A)``, −1 = missing.

        Returns:
            Two scalars, per labelled attribute of an image: the mean hinge of the attribute's other values, and that of
            the batch's other images that carry another value of it.
        """
        own = self.schema.one_hot(labels)
        labelled = (labels >= 0).repeat_interleave(torch.tensor(self.schema.sizes, device=labels.device), dim=-1)
        other = labelled.float() - own  # (B, C): values of the image's labelled attributes that it does not carry
        margin, pairs = self.hparams["margin"], (labels >= 0).sum().clamp(min=1)
        to_values = cosines.new_zeros(())
        for m, block in enumerate(self._blocks(cosines)):
            mine = block.gather(1, labels[:, m : m + 1].clamp(min=0))
            others = self._blocks(other)[m]
            hinges = F.relu(margin - mine + block) * others
            to_values = to_values + (hinges.sum(-1) / others.sum(-1).clamp(min=1)).sum()
        hinges = F.relu(margin - cosines.unsqueeze(1) + cosines.unsqueeze(0))  # (B, B, C): own image, other image
        others = own.unsqueeze(1) * other.unsqueeze(0)
        to_images = ((hinges * others).sum(1) / others.sum(1).clamp(min=1)).sum()
        return to_values / pairs, to_images / pairs

    def joint_optimizer(self) -> Any:
        """SGD with momentum; the heads of the first stage are not used any more."""
        groups: list[dict[str, Any]] = [
            {"params": list(self.backbone.parameters()), "lr": self.hparams["lr"]},
            {"params": [*self.projection.parameters(), self.values], "lr": self.hparams["new_lr"]},
        ]
        return self.scheduled(SGD(groups, momentum=0.9, weight_decay=self.hparams["weight_decay"]))

    def stage_state(self, stage: Stage) -> dict[str, Tensor]:
        """The joint stage trains no head."""
        state = super().stage_state(stage)
        if stage is ATTRIBUTES:
            return state
        return {name: value for name, value in state.items() if not name.startswith("heads.")}

    def _blocks(self, columns: Tensor) -> Sequence[Tensor]:
        """``(…, C)`` as one ``(…, C_m)`` per attribute."""
        return torch.split(columns, list(self.schema.sizes), dim=-1)
