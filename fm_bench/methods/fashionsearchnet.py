# SPDX-License-Identifier: MIT
"""FashionSearchNet: one representation per attribute, taken where the attribute is seen, and weighed per request."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import SGD

from fm_bench.data.batches import LabelledBatch, TripletPositionsBatch
from fm_bench.data.regions import REGIONS
from fm_bench.methods.base import Context, Method, Stage
from fm_bench.nn.gather import features_in_order
from fm_bench.nn.localisation import above, class_maps, component_boxes, crop_and_resize, whole
from fm_bench.nn.losses import attribute_cross_entropy
from fm_bench.nn.regions import region_masks
from fm_bench.nn.stacks import AttributeStacks
from fm_bench.nn.triplets import partners, soft_triplet
from fm_bench.nn.trunks import build_trunk, convolution

log = logging.getLogger(__name__)

ACTIVATION_SHARE = 0.2  # of a map's maximum: what is above belongs to the attribute's region (Sec. 3.1)
ATTRIBUTES = Stage("attributes", LabelledBatch, shared=True)
LOCAL = Stage("regions", LabelledBatch, shared=True)
PROTOTYPES = Stage("prototypes", LabelledBatch, shared=True, trained=False)
GLOBAL = Stage("representation", TripletPositionsBatch, monitor="val/accuracy@20", shared=True)


class FashionSearchNet(Method):
    """Ak et al., Learning Attribute Representations with Localization for Flexible Fashion Search, CVPR 2018.

    Follows: classifiers on globally pooled maps (Eqs. 1-2), attribute activation maps of the most confident class
    (Eq. 3), the box of the largest connected region above 20 % of the maximum, ROI pooling of conv5 and a stack of
    fully connected layers per attribute (Sec. 3.1), soft triplets of regions drawn per attribute within a batch
    (Eqs. 4-6), prototypes (Sec. 3.2), and the weighted global representation, one per manipulated attribute (Eqs. 7-8),
    for which the gallery is projected anew. The stages freeze what the paper freezes.

    Differs: pooling takes means, since sums (Eq. 1, ``pooling``) diverge at the paper's rate. In common mode a ResNet
    sets the grid at 8 pixels per cell, the added convolutions are batch-normalised, and every attribute's
    representation and prototype is L2-normalised, so that none outweighs another before the third stage. In every mode
    that stage starts each projection at the principal axes of the training images' representations, i.e. from the
    distance on their plain concatenation; rates follow a warm-up and cosine schedule; two attributes at once, undefined
    in the paper, compare both global representations side by side. The links of regions to attributes
    (``fm_bench.nn.regions``) and the weights of region-aware search are not printed in the paper.

    Args:
        attributes: the schema, ``{attribute: [value, …]}``.
        backbone: ``alexnet`` (the paper's conv1 to conv4) or a ResNet of timm, see ``build_trunk``.
        weights: None, ``imagenet`` or a file, see ``build_backbone``.
        blocks: residual blocks of a ResNet below conv5.
        maps: channels of conv5, conv6 and conv7.
        batch_norm: normalise these three (common mode).
        pooling: how conv7 becomes a vector: ``mean`` or ``sum`` (as Eq. 1 prints).
        dim: D_f, numbers per attribute.
        crop: side of the ROI crops.
        dropout: in the attributes' stacks.
        normalize: L2-normalise the attribute representations, for ranking, search and L_TC alike (common mode).
        sharpness: the length that L_TC gives them then; directions alone could not be classified with confidence.
        soft_triplet: minimise ``d+`` (the paper's Eq. 6) or its square.
        minmax: threshold activation maps between their minimum and maximum instead of from zero.
        localise: False is the paper's "w/o AAMs": every box is the whole map.
        global_representation: False leaves the third stage out and compares the plain concatenation.
        global_dim: numbers of the global representation.
        w_shared: one projection for every manipulated attribute, weighed by lambda alone.
        region_aware: add the representations of ``region_attribute`` in torso, sleeves and collar.
        region_attribute: what region-specific requests change.
        kept: weight of the slots that a region-specific request leaves alone; the asked one weighs 1.
        lr: peak learning rate of the first stage; the next are those of the second, and of w and lambda in the third.
        regions_lr: see ``lr``.
        global_lr: see ``lr``.
        importance_lr: see ``lr``; a single factor may move faster than a matrix.
        weight_decay: L2 penalty of the first two stages.
    """

    stages: ClassVar[tuple[Stage, ...]] = (ATTRIBUTES, LOCAL, PROTOTYPES, GLOBAL)
    prototypes: Tensor

    def __init__(
        self,
        attributes: Mapping[str, Sequence[str]],
        backbone: str = "resnet18",
        weights: str | None = None,
        blocks: int = 3,
        maps: Sequence[int] = (384, 512, 512),
        batch_norm: bool = True,
        pooling: Literal["mean", "sum"] = "mean",
        dim: int = 512,
        crop: int = 6,
        dropout: float = 0.5,
        normalize: bool = True,
        sharpness: float = 10.0,
        soft_triplet: Literal["plain", "squared"] = "plain",
        minmax: bool = False,
        localise: bool = True,
        global_representation: bool = True,
        global_dim: int = 4096,
        w_shared: bool = False,
        region_aware: bool = False,
        region_attribute: str = "colour",
        kept: float = 0.3,
        lr: float = 0.05,
        regions_lr: float = 0.02,
        global_lr: float = 0.01,
        importance_lr: float = 0.01,
        weight_decay: float = 5e-4,
    ) -> None:
        super().__init__(attributes)
        self.save_hyperparameters()
        A, C = self.schema.num_attributes, self.schema.num_values
        self.trunk = build_trunk(backbone, weights, blocks)
        five, six, seven = maps
        self.conv5 = convolution(self.trunk.width, five, batch_norm)
        self.conv6 = convolution(five, six, batch_norm)
        self.conv7 = convolution(six, seven, batch_norm)
        self.classifiers = nn.Linear(seven, C, bias=False)  # all w_a, below each other; a bias would be no map's sum
        if not batch_norm:
            nn.init.normal_(self.classifiers.weight, std=0.01)
        self.stacks = AttributeStacks(A, five * crop * crop, dim, dropout)
        self.heads = nn.ModuleList(nn.Linear(dim, size) for size in self.schema.sizes)
        self.register_buffer("prototypes", torch.zeros(C, dim))
        if global_representation:
            self.importance = nn.Parameter(torch.ones(A + 1, A))  # lambda; row a* = 0 is "nothing manipulated"
            self.projection = nn.Parameter(torch.eye(A * dim, global_dim).repeat(1 if w_shared else A + 1, 1, 1))
        else:
            self.stages = self.stages[:-1]  # type: ignore[misc]  # of this instance alone
        self.of_regions = self.schema.attribute(region_attribute) if region_aware else -1
        self.cached = torch.zeros(0)  # not a buffer: DDP would send it to every process in every step

    @property
    def row_notes(self) -> list[str]:
        """Where a run in paper mode is not the letter of the paper."""
        if self.hparams["normalize"] or self.hparams["pooling"] == "sum":
            return []
        return ["maps are pooled by their mean: with the printed sum training diverges at the paper's rate"]

    # --------------------------------------------------------- Sec. 3.1: maps, boxes, attribute representations

    def convolve(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """conv5 ``(B, K5, h, w)`` and conv7 ``(B, K7, h, w)`` of images ``(B, 3, H, W)``."""
        conv5 = self.conv5(self.trunk(images))
        return conv5, self.conv7(self.conv6(conv5))

    def classify(self, conv7: Tensor) -> Tensor:
        """Eq. 1: logits ``(B, C)`` of globally pooled maps."""
        pooled = conv7.float().sum((2, 3)) if self.hparams["pooling"] == "sum" else conv7.float().mean((2, 3))
        logits: Tensor = self.classifiers(pooled)
        return logits.float()

    def activation_maps(self, conv7: Tensor, logits: Tensor) -> Tensor:
        """Eq. 3: the map ``(B, A, h, w)`` of every attribute's most confident class."""
        return class_maps(conv7, self.classifiers.weight[self._largest(logits)])

    def boxes(self, maps: Tensor) -> Tensor:
        """Boxes ``(B, A, 4)`` in shares of the grid, without gradient."""
        if not self.hparams["localise"]:
            return whole(maps)
        return component_boxes(above(maps.detach(), ACTIVATION_SHARE, minmax=self.hparams["minmax"]), maps)

    def represent(self, conv5: Tensor, boxes: Tensor) -> Tensor:
        """fc10 of every attribute, ``(B, A, D_f)``, from its own box of conv5."""
        crops = crop_and_resize(conv5, boxes, self.hparams["crop"])
        fc10: Tensor = self.stacks(crops.flatten(2))
        return fc10

    def space(self, fc10: Tensor) -> Tensor:
        """What is compared: fc10 itself, or the direction of each attribute's part."""
        return F.normalize(fc10.float(), dim=-1) if self.hparams["normalize"] else fc10.float()

    def look(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Maps ``(B, A, h, w)``, boxes ``(B, A, 4)`` and the values ``(B, A)`` that the maps are of."""
        logits = self.classify(conv7 := self.convolve(images)[1])
        maps, first = self.activation_maps(conv7, logits), torch.tensor(self.schema.offsets[:-1], device=logits.device)
        return maps, self.boxes(maps), self._largest(logits) - first

    def slots(self, images: Tensor) -> Tensor:
        """``f (B, A, D_f)``; with region awareness one slot per region follows, ``(B, A + 3, D_f)``."""
        conv5, conv7 = self.convolve(images)
        logits = self.classify(conv7)
        f = self.space(self.represent(conv5, self.boxes(self.activation_maps(conv7, logits))))
        return torch.cat([f, self.region_slots(conv5, conv7, logits)], dim=1) if self.hparams["region_aware"] else f

    # --------------------------------------------------------- Sec. 3.4: region awareness

    def region_masks(self, conv7: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Masks and heat ``(B, 3, h, w)`` of torso, sleeves and collar; see ``fm_bench.nn.regions``."""
        return region_masks(conv7, self.classifiers.weight, logits, self.schema, ACTIVATION_SHARE)

    def region_slots(self, conv5: Tensor, conv7: Tensor, logits: Tensor) -> Tensor:
        """The region attribute's representation in every region, ``(B, 3, D_f)``."""
        crops = crop_and_resize(conv5, component_boxes(*self.region_masks(conv7, logits)), self.hparams["crop"])
        return self.space(self.stacks(crops.flatten(2), self.of_regions))

    # --------------------------------------------------------- Sec. 3.2-3.3: prototypes and global representation

    def manipulate(self, slots: Tensor, indicator: Tensor) -> Tensor:
        """``slots (B, S, D_f)`` with every asked attribute's replaced by the prototype of the wanted value."""
        A, asked = self.schema.num_attributes, self.asked(indicator).unsqueeze(-1)
        f = torch.where(asked, self.prototypes[self._largest(indicator)], slots[:, :A])
        return torch.cat([f, slots[:, A:]], dim=1)

    def asked(self, indicator: Tensor) -> Tensor:
        """Which attributes ``(B, A)`` a request ``(B, C)`` changes."""
        return torch.stack([block.amax(-1) > 0 for block in self._blocks(indicator)], dim=1)

    def settings(self, attribute: NDArray[np.integer[Any]], region: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """a* of every request: 0 for none, 1 to A for one attribute, ``a1 + (A + 1) a2`` for two, then the regions."""
        A = self.schema.num_attributes
        first, second = np.sort(attribute.astype(np.int64), axis=1)[:, ::-1].T + 1
        code: NDArray[np.int64] = (first + (A + 1) * second) * bool(self.hparams["global_representation"])
        if not self.hparams["region_aware"]:
            return code
        regional = (region >= 0) & (first == self.of_regions + 1) & (second == 0)
        code[regional] = (A + 1) ** 2 + region[regional]
        return code

    def gallery_view(self, stored: Tensor, setting: int) -> Tensor:
        """``F(., a*)`` of stored slots ``(n, S * D_f)``, padded with zeros to ``(n, D)``.

        Two attributes give both their representations over sqrt(2): squared distances are averaged. A region gives all
        slots, weighted so that squared distances are.
        """
        A = self.schema.num_attributes
        slots = stored.float().reshape(len(stored), -1, self.hparams["dim"])
        if setting >= (A + 1) ** 2:
            weights = slots.new_full((slots.shape[1],), self.hparams["kept"])
            weights[A + setting - (A + 1) ** 2] = 1
            return self._padded((slots * weights.sqrt().unsqueeze(-1)).flatten(1))
        f = slots[:, :A]
        if not self.hparams["global_representation"]:
            return self._padded(f.flatten(1))
        second, first = divmod(setting, A + 1)
        views = [self.embed_global(f, a) for a in ((first, second) if second else (first,))]
        return self._padded(torch.cat(views, dim=1) / len(views) ** 0.5)

    def embed_global(self, f: Tensor, a: int) -> Tensor:
        """``F(., a*)``, ``(n, global_dim)``, of ``f (n, A, D_f)``."""
        return global_representation(f, self.importance[a], self.projection[0 if self.hparams["w_shared"] else a])

    def embed_gallery(self, images: Tensor, context: Context | None = None) -> Tensor:
        """The slots ``(B, S * D_f)``, which every a* projects in its own way."""
        return self.slots(images).flatten(1)

    def embed_query(self, images: Tensor, indicator: Tensor, context: Context | None = None) -> Tensor:
        """The manipulated slots in the space of the request's own a*."""
        slots, A = self.slots(images), self.schema.num_attributes
        region = torch.full((len(images),), -1) if context is None or context.region is None else context.region.cpu()
        columns = torch.where(self.asked(indicator).cpu(), torch.arange(A), -1).sort(descending=True).values
        attribute = F.pad(columns, (0, 1), value=-1)[:, :2].numpy()  # a schema may have one attribute only
        settings = self.settings(attribute, region.numpy())
        rows = torch.from_numpy(settings >= (A + 1) ** 2).nonzero().flatten().to(slots.device)
        edited = self.manipulate(slots, indicator.index_fill(0, rows, 0))
        if len(rows):  # the slot of the region, by the attribute's own prototype; the whole garment's stays
            place = A + region.to(slots.device)[rows]
            edited[rows, place] = self.prototypes[self._largest(indicator)[rows, self.of_regions]]
        vectors = slots.new_zeros(len(slots), self.width)
        for setting in np.unique(settings).tolist():
            members = torch.from_numpy(np.flatnonzero(settings == setting)).to(slots.device)
            vectors[members] = self.gallery_view(edited[members].flatten(1), setting)
        return vectors

    @property
    def width(self) -> int:
        """``D``: the widest of the views."""
        A, wide = self.schema.num_attributes, self.hparams["global_representation"] * self.hparams["global_dim"]
        regional = len(REGIONS) if self.hparams["region_aware"] else 0
        slots = (A + regional) * self.hparams["dim"] if regional or not wide else 0
        return int(max(min(2, A) * wide, slots))

    def _padded(self, vectors: Tensor) -> Tensor:
        return F.pad(vectors, (0, self.width - vectors.shape[1]))

    # --------------------------------------------------------- Sec. 4: training

    def attributes_step(self, batch: LabelledBatch) -> dict[str, tuple[float, Tensor]]:
        """Stage 1, Eq. 2: convolutions and classifiers."""
        _, conv7 = self.convolve(batch.image)
        return {"L_C": (1.0, attribute_cross_entropy(self._blocks(self.classify(conv7)), batch.labels))}

    def regions_step(self, batch: LabelledBatch) -> dict[str, tuple[float, Tensor]]:
        """Stage 2: classification on the whole, ranking and classification on the regions, unweighted."""
        conv5, conv7 = self.convolve(batch.image)
        logits = self.classify(conv7)
        with torch.no_grad():
            boxes = self.boxes(self.activation_maps(conv7, logits))
        fc10 = self.represent(conv5, boxes)
        f, labels = self.space(fc10), batch.labels
        classified = self.hparams["sharpness"] * f if self.hparams["normalize"] else fc10
        regional = [head(classified[:, m]) for m, head in enumerate(self.heads)]
        positive, negative, found = partners(labels)
        column = torch.arange(labels.shape[1], device=labels.device).expand_as(labels)
        ranking = self._ranking(f[found], f[positive, column][found], f[negative, column][found])
        return {
            "L_C": (1.0, attribute_cross_entropy(self._blocks(logits), labels)),
            "L_T": (1.0, ranking.sum() / len(labels)),
            "L_TC": (1.0, attribute_cross_entropy(regional, labels)),
        }

    def on_prototypes_start(self, batches: Iterable[LabelledBatch]) -> None:
        """The mean fc10 of the training images that carry a value, each through its own box, in evaluation mode."""
        sums = torch.zeros_like(self.prototypes)
        counts = torch.zeros(self.schema.num_values, device=self.device)
        first = torch.tensor(self.schema.offsets[:-1], device=self.device)
        for batch in batches:
            labelled = batch.labels >= 0
            rows = (batch.labels + first)[labelled]
            sums.index_add_(0, rows, self.attribute_slots(batch.image)[labelled])
            counts.index_add_(0, rows, torch.ones_like(rows, dtype=counts.dtype))
        sums, counts = (self.trainer.strategy.reduce(value, reduce_op="sum") for value in (sums, counts))
        means = sums / counts.clamp(min=1).unsqueeze(-1)
        self.prototypes.copy_(self.space(means))
        if unseen := int((counts == 0).sum()):
            log.warning("%d values are shown by no training image: their prototypes are zero", unseen)

    def attribute_slots(self, images: Tensor) -> Tensor:
        """``f (B, A, D_f)`` alone."""
        return self.slots(images)[:, : self.schema.num_attributes]

    def cache_representation(self, batches: Iterable[LabelledBatch]) -> None:
        """Keeps ``f (N, A, D_f)`` of all training images: nothing below the third stage changes any more."""
        if not len(self.cached):
            empty = torch.zeros(0, self.schema.num_attributes, self.hparams["dim"], device=self.device)
            pictures = ((batch.index, self.attribute_slots(batch.image)) for batch in batches)
            self.cached = features_in_order(self.trainer, pictures, empty)

    def on_representation_start(self, batches: Iterable[LabelledBatch]) -> None:
        """Starts every projection at the principal axes of the training images: distances begin as those of f."""
        self.cache_representation(batches)
        points = self.cached.flatten(1)
        centred = points - points.mean(0)
        axes = torch.linalg.eigh(centred.T @ centred).eigenvectors.flip(1)[:, : self.projection.shape[2]]
        start = torch.zeros_like(self.projection[0])
        start[:, : axes.shape[1]] = self.trainer.strategy.broadcast(axes)
        self.projection.data.copy_(start.expand_as(self.projection))

    def representation_step(self, batch: TripletPositionsBatch) -> dict[str, tuple[float, Tensor]]:
        """Stage 3, Eq. 8, without images: only lambda and w of the batch's own a* get a gradient."""
        anchor = self.manipulate(self.cached[batch.reference], batch.indicator)
        triplets = torch.stack([anchor, self.cached[batch.positive], self.cached[batch.negative]])
        asked = self.asked(batch.indicator)
        setting = torch.where(asked.any(1), asked.float().argmax(1) + 1, 0)
        matrices = self.projection.unbind()  # one gradient for all of them, not one of full size for each
        losses = []
        for a in np.unique(setting.cpu().numpy()).tolist():
            matrix = matrices[0 if self.hparams["w_shared"] else a]
            anchor, positive, negative = global_representation(triplets[:, setting == a], self.importance[a], matrix)
            losses.append(self._ranking(anchor, positive, negative))
        return {"L_G": (1.0, torch.cat(losses).mean())}

    def on_fit_end(self) -> None:
        """Forgets the features: a later stage or run has its own."""
        self.cached = torch.zeros(0)

    def attributes_optimizer(self) -> Any:
        """SGD with momentum over what the first stage leaves behind."""
        return self._sgd([{"params": self._learning(), "lr": self.hparams["lr"]}], self.hparams["weight_decay"])

    def regions_optimizer(self) -> Any:
        """The same for the second."""
        return self._sgd([{"params": self._learning(), "lr": self.hparams["regions_lr"]}], self.hparams["weight_decay"])

    def representation_optimizer(self) -> Any:
        """No decay: it would pull the weights of attributes that a step does not sample, too."""
        rates = ((self.projection, "global_lr"), (self.importance, "importance_lr"))
        return self._sgd([{"params": [tensor], "lr": self.hparams[rate]} for tensor, rate in rates], 0.0)

    def _learning(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def _sgd(self, groups: list[dict[str, Any]], weight_decay: float) -> dict[str, Any]:
        optimizer = SGD(groups, momentum=0.9, weight_decay=weight_decay)
        return self.scheduled(optimizer)

    # --------------------------------------------------------- what variants share

    def stage_config(self, stage: Stage) -> dict[str, Any]:
        """Earlier stages do not depend on what only later ones, or the search, read."""
        order = [ATTRIBUTES.name, LOCAL.name, GLOBAL.name]
        known = order[: 1 + order.index(LOCAL.name if stage is PROTOTYPES else stage.name)]
        names = [name for before in known for name in _READ[before]]
        common = {"method": type(self).__name__, "version": self.version}
        return common | {name: self.hparams[name] for name in ("attributes", *names)}

    def stage_state(self, stage: Stage) -> dict[str, Tensor]:
        """What each stage trains, or fills."""
        return {name: value for name, value in self.state_dict().items() if name.startswith(_LEFT[stage.name])}

    def _blocks(self, values: Tensor) -> Sequence[Tensor]:
        """``(B, C)`` as one ``(B, C_a)`` per attribute."""
        return torch.split(values, list(self.schema.sizes), dim=-1)

    def _largest(self, values: Tensor) -> Tensor:
        """The column ``(B, A)`` of every attribute's largest number in ``(B, C)``."""
        first = torch.tensor(self.schema.offsets[:-1], device=values.device)
        return torch.stack([block.argmax(-1) for block in self._blocks(values)], dim=1) + first

    def _ranking(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        return soft_triplet(anchor, positive, negative, squared=self.hparams["soft_triplet"] == "squared")


_READ = {
    ATTRIBUTES.name: ("backbone", "weights", "blocks", "maps", "batch_norm", "pooling", "lr", "weight_decay"),
    LOCAL.name: (
        "dim",
        "crop",
        "dropout",
        "normalize",
        "sharpness",
        "soft_triplet",
        "minmax",
        "localise",
        "regions_lr",
    ),
    GLOBAL.name: ("global_dim", "w_shared", "global_lr", "importance_lr"),
}
_CONVOLUTIONS = ("trunk.", "conv5.", "conv6.", "conv7.", "classifiers.")
_LEFT = {
    ATTRIBUTES.name: _CONVOLUTIONS,
    LOCAL.name: (*_CONVOLUTIONS, "stacks.", "heads."),
    PROTOTYPES.name: ("prototypes",),
    GLOBAL.name: ("importance", "projection"),
}


def global_representation(f: Tensor, importance: Tensor, matrix: Tensor) -> Tensor:
    """Eq. 7: ``F = [f_1 lambda_1, …, f_A lambda_A] w`` in float32.

    Args:
        f: ``(…, A, D_f)``.
        importance: lambda of one a*, ``(A,)``.
        matrix: w of one a*, ``(A * D_f, D)``.

    Returns:
        ``(…, D)``.
    """
    with torch.autocast(f.device.type, enabled=False):
        return (f.float() * importance.unsqueeze(-1)).flatten(-2) @ matrix
