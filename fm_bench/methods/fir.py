# SPDX-License-Identifier: MIT
"""Features for instance retrieval (FIR), and what methods that train on them without touching them have in common."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD

from fm_bench.data.batches import InstanceBatch, LabelledBatch
from fm_bench.data.instances import Instances
from fm_bench.errors import UserError
from fm_bench.methods.attribute_network import ATTRIBUTES, AttributeNetwork
from fm_bench.methods.base import Context, Stage
from fm_bench.nn.cosine import batch_hard, masked_mean
from fm_bench.nn.gather import features_in_order

CLASSIFIED_LENGTH = 4.0
"""Length at which features reach the classifier of items, whose logits every step moves by its square. Measured on
validation photos of garments-street after 24,000 images, recall@20 of the item: 0.77 at 4, 0.29 at 8, 0.07 at 16, where
cross-entropy rises to 10 and all features fall on few lines."""

INSTANCES = Stage("instances", InstanceBatch, shared=True)

THREE = {
    "shape": ("category", "article_type", "shape", "product_type"),
    "colour": ("colour", "color"),
    "pattern": ("pattern",),
}
"""The paper's target attributes (Table 1), and what data sets call them."""


class InstanceNetwork(AttributeNetwork):
    """FLAM's feature extractor (Sec. 4.1): a backbone, sum-pooled (SPoC), projected, and of length 1.

    It learns to tell items apart, by cross-entropy over those with most pictures and by batch-hard triplets of all. The
    projection is normalised over the batch: what all pictures have in common would leave little room for the rest.
    Methods that build on it choose their target attributes here, and keep the features of all training images while
    they train on them.

    Args:
        attributes: the schema, ``{attribute: [value, …]}``.
        pairs: what makes a training pair, see ``CrossDomainSampler``; ``labels`` means one photo per item.
        backbone: of ``instances``, a timm network that shows its last map; of ``attributes``, see ``build_backbone``.
        weights: None, ``imagenet`` or a file, see ``build_backbone``.
        images_per_value: see ``AttributeNetwork``.
        attributes_lr: see ``AttributeNetwork``.
        attributes_head_lr: see ``AttributeNetwork``.
        weight_decay: L2 penalty on backbone, projection and classifier.
        features: ``instances`` as in the paper, or the ``attributes`` classifier's pooled features without projection.
        stand_in: where every item has one photo: what counts as one item instead, photos with the same full label
            vector (``labels``) or augmented ``views`` of one photo.
        dim: ``d``, length of the projected feature.
        classes: items that the cross-entropy tells apart, those with most pictures; the others are in triplets alone.
        instance_margin: of the triplets, in units of ``1 - cos``.
        instances_lr: peak learning rate of this stage.
        targets: the attributes that can be manipulated: the paper's ``three``, ``all``, or a list of names. Where the
            schema has none of the three, they are all attributes.
        values: how many classes of each, those with most images; None takes all. What is left out has no label, and
            requests for it are answered by the feature as it is.
        image_size: ``(height, width)`` of the pictures, on which the backbone is tried; None does not try it.

    Raises:
        UserError: if a target is unknown or there is none, if ``values`` leaves nothing to tell apart, or if the
            backbone cannot read pictures of this size or shows no map of them.
    """

    version: ClassVar[int] = 2
    stages: ClassVar[tuple[Stage, ...]] = (ATTRIBUTES, INSTANCES)

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
        image_size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(
            attributes, backbone, weights, images_per_value, attributes_lr, attributes_head_lr, weight_decay
        )
        self.save_hyperparameters()
        if features == "instances" and not hasattr(self.backbone.features, "forward_features"):
            raise _no_map(backbone)
        if image_size is not None:
            self._try_backbone(*image_size)
        if features == "instances":
            self.projection = nn.Sequential(
                nn.Linear(self.backbone.dim, dim, bias=False), nn.BatchNorm1d(dim, affine=False)
            )
            self.classifier = nn.Linear(dim, classes)
        self.width = dim if features == "instances" else self.backbone.dim
        self.targets = self._targets(targets)
        if not self.targets:
            raise UserError("--method.targets names no attribute: give three, all, or names of attributes.")
        if values is not None and values < 2:
            raise UserError(
                f"--method.values is {values}, but one class needs another to be told from: "
                "give 2 or more, or leave it out to take all."
            )
        self.cached = torch.zeros(0)  # not a buffer: DDP would send it to every process in every step

    def _targets(self, targets: str | list[str]) -> list[int]:
        """Positions of the target attributes, in the order of the schema."""
        if isinstance(targets, list):
            return sorted({self.schema.attribute(name) for name in targets})
        return self._three if targets == "three" and self._three else list(range(self.schema.num_attributes))

    @property
    def _three(self) -> list[int]:
        """Positions of shape, colour and pattern, as far as the schema has them."""
        return [m for m, name in enumerate(self.schema.names) if any(name in known for known in THREE.values())]

    def _try_backbone(self, height: int, width: int) -> None:
        """Shows the backbone a blank picture; draws no random number. Raises UserError if it is of no use."""
        name = self.hparams["backbone"]
        self.backbone.eval()
        try:
            with torch.no_grad():
                seen = self._seen(torch.zeros(1, 3, height, width))
        except Exception as error:  # every network fails in its own way
            reason = " ".join(str(error).split()).rstrip(".")
            raise UserError(
                f"backbone {name!r} cannot read pictures of {height} x {width} pixels ({reason}): "
                "raise --loader.image_size, or give another network of timm such as resnet50."
            ) from error
        self.backbone.train()
        if self.hparams["features"] == "instances" and (seen.ndim != 4 or seen.shape[1] != self.backbone.dim):
            raise _no_map(name)

    @property
    def instances(self) -> Instances:
        """Items, where they have several photos."""
        stand_in: Instances = self.hparams["stand_in"]
        return stand_in if self.hparams["pairs"] == "labels" else "items"

    @property
    def row_notes(self) -> list[str]:
        """What stands in for items, and what requests are answered without manipulation."""
        notes = []
        if self.hparams["features"] == "attributes":
            notes.append("features of the attribute classifier, not of instance retrieval")
        elif self.instances == "labels":
            notes.append("most items have one photo: features take images with the same full label vector as one item")
        elif self.instances == "views":
            notes.append("most items have one photo: features take augmented views of one photo as one item")
        size, least = self.hparams["image_size"], self.backbone.least
        if size is not None and min(size) < least:
            notes.append(f"pictures of {min(size)} pixels are enlarged to {least}, the fewest that the backbone reads")
        if self.hparams["targets"] == "three" and not self._three:
            notes.append("the data have neither shape nor colour nor pattern: every attribute can be changed")
        left = [name for m, name in enumerate(self.schema.names) if m not in self.targets]
        if left:
            notes.append(f"requests on {', '.join(left)} are answered by the feature as it is")
        most = self.hparams["values"]
        if most is not None and most < max(self.target_sizes):
            notes.append(f"values beyond the {most} most frequent are answered by the feature as it is")
        return notes

    # --------------------------------------------------------- the feature

    def feature(self, images: Tensor) -> Tensor:
        """``x (B, d)`` of length 1 of images ``(B, 3, H, W)``."""
        if self.hparams["features"] == "attributes":
            return F.normalize(self._seen(images).float(), dim=-1)
        return F.normalize(self.projection(self._seen(images).float().sum((2, 3))).float(), dim=-1)

    def _seen(self, images: Tensor) -> Tensor:
        """What the backbone gives: its last map ``(B, C, h, w)``; pooled ``(B, C)`` for ``features="attributes"``."""
        if self.hparams["features"] == "attributes":
            pooled: Tensor = self.backbone(images)
            return pooled
        return self.backbone.maps(images)

    def embed_gallery(self, images: Tensor, context: Context | None = None) -> Tensor:
        """The feature, which no manipulation ever changes."""
        return self.feature(images)

    def instances_step(self, batch: InstanceBatch) -> dict[str, tuple[float, Tensor]]:
        """Cross-entropy over the items with most pictures, and batch-hard triplets of all."""
        features = self.feature(batch.image)
        frequent = batch.instance < self.hparams["classes"]
        logits = self.classifier(CLASSIFIED_LENGTH * features).float()
        entropy = F.cross_entropy(logits, torch.where(frequent, batch.instance, 0), reduction="none")
        return {
            "L_ce": (1.0, masked_mean(entropy, frequent)),
            "L_t": (1.0, batch_hard(features, batch.instance, self.hparams["instance_margin"])),
        }

    def instances_optimizer(self) -> Any:
        """SGD with momentum and a cosine schedule over the stage."""
        learning = [parameter for parameter in self.parameters() if parameter.requires_grad]
        hyper = self.hparams
        return self.scheduled(
            SGD(learning, lr=hyper["instances_lr"], momentum=0.9, nesterov=True, weight_decay=hyper["weight_decay"])
        )

    # --------------------------------------------------------- what later stages train on

    def keep_features(self, batches: Iterable[LabelledBatch]) -> None:
        """Keeps ``x (N, d)`` of all training images: nothing below the later stages changes any more."""
        if not len(self.cached):
            pictures = ((batch.index, self.feature(batch.image)) for batch in batches)
            self.cached = features_in_order(self.trainer, pictures, torch.zeros(0, self.width, device=self.device))

    def on_fit_end(self) -> None:
        """Forgets the features after the last stage that this configuration needs."""
        if self.stage is [stage for stage in self.stages if not self.skips(stage)][-1]:
            self.cached = torch.zeros(0)

    def count_labels(self, batches: Iterable[LabelledBatch]) -> Tensor:
        """How many training images show each class of each target: ``(T, C)``, C that of the longest."""
        counts = torch.zeros(self.schema.num_values, device=self.device)
        for batch in batches:
            counts += self.schema.one_hot(batch.labels).sum(0)
        counts = self.trainer.strategy.reduce(counts, reduce_op="sum")
        blocks = torch.split(counts, list(self.schema.sizes))
        return nn.utils.rnn.pad_sequence([blocks[m] for m in self.targets], batch_first=True)

    @property
    def target_sizes(self) -> list[int]:
        """Values of each target attribute."""
        return [self.schema.sizes[m] for m in self.targets]

    def wishes(self, indicator: Tensor) -> tuple[Tensor, Tensor]:
        """What ``(B, C)`` asks of each target: whether anything ``(T, B)``, and which value ``(T, B)``."""
        blocks = torch.split(indicator, list(self.schema.sizes), dim=-1)
        asked = [blocks[m].max(-1) for m in self.targets]
        return torch.stack([block.values > 0 for block in asked]), torch.stack([block.indices for block in asked])

    # --------------------------------------------------------- what methods and variants share

    def skips(self, stage: Stage) -> bool:
        """Features come from one of the two first stages."""
        return stage is (ATTRIBUTES if self.hparams["features"] == "instances" else INSTANCES)

    def stage_config(self, stage: Stage) -> dict[str, Any]:
        """The features depend on this class's own arguments alone."""
        if stage is not INSTANCES:
            return super().stage_config(stage)
        read = ("backbone", "weights", "weight_decay", "dim", "classes", "instance_margin", "instances_lr")
        common = {"method": "InstanceNetwork", "version": InstanceNetwork.version, "instances": self.instances}
        return common | {name: self.hparams[name] for name in read}

    def stage_state(self, stage: Stage) -> dict[str, Tensor]:
        """The instance stage leaves backbone, projection and classifier."""
        if stage is not INSTANCES:
            return super().stage_state(stage)
        left = ("backbone.", "projection.", "classifier.")
        return {name: value for name, value in self.state_dict().items() if name.startswith(left)}


def _no_map(backbone: str) -> UserError:
    return UserError(
        f"backbone {backbone!r} shows no last map to sum up: give a convolutional network of timm such as resnet50."
    )
