# SPDX-License-Identifier: MIT
"""DARN's clothing detector: R-CNN with attribute-aware features and a regression on the overlap."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from fm_bench.catalog import Dataset, Domain, Split
from fm_bench.data.batches import LabelledBatch
from fm_bench.data.transforms import normalise
from fm_bench.detection.boxes import Boxes, crop, refine, suppress, with_context
from fm_bench.detection.pictures import boxed_rows, read_pictures
from fm_bench.detection.precision import Detections
from fm_bench.detection.proposals import SelectiveSearch
from fm_bench.detection.regions import training_regions, with_mirrored
from fm_bench.detection.scoring import Linear, learn_offsets, learn_scorer
from fm_bench.errors import UserError
from fm_bench.methods.attribute_network import ATTRIBUTES, AttributeNetwork
from fm_bench.methods.base import Context, Stage

BOXES = Stage("boxes", LabelledBatch, trained=False)

_CELLS = 2
"""A side of the last map of networks without fully connected layers."""

_BATCH = 256  # regions that the network sees at once
_APART = ("retriever",)  # arguments that no weight depends on


class Detector(AttributeNetwork):
    """Clothing detection of Huang et al., ICCV 2015 (DARN), Sec. 4.2 and Table 2.

    Selective search proposes boxes, those of an unlikely size or shape are dropped. The network sees each proposal
    warped to its input; a support vector regression of the discretised overlap scores the features (``svr``), or
    R-CNN's support vector machine does (``svm``). Training takes mirrored copies and mines hard examples. What is left
    after non-maximum suppression is moved by a regression of the box on the same features.

    The paper's networks end in fully connected layers, which know what is where in a region. Networks that end in
    global pooling do not, so of these the last map is taken instead, pooled to 2 x 2 cells.

    Differs: the paper's negatives are photos without people of PASCAL VOC 2012; here they are proposals on the
    background of the training pictures. The paper gives no hyper-parameters; ours were chosen on training pictures.
    As a point of the space, a picture is its plain feature, as in ``identity``.

    Args:
        attributes: the schema, ``{attribute: [value, …]}``.
        features: ``attributes`` trains the network on attributes first (the paper's AN), ``given`` takes it as it
            starts, from ``weights`` or, without these, at random.
        scorer: ``svr``, ``svm``, or ``whole``, the floor: the whole picture is the box, and nothing is learnt.
        training_images: with boxes, that scorer and box regression learn from, of both domains alike; 7,700 in the
            paper.
        picture_size: shorter side of the pictures in which boxes are looked for.
        region_size: side of the network's input.
        context: by how much proposals are enlarged for it; R-CNN shows 16 pixels around on each side of 227.
        jitter: boxes drawn around each true box for training.
        steps: levels of the discretised overlap.
        penalty: ``C`` of the support vector machines, on standardised features.
        rounds: of hard-example mining, at most.
        regress: whether boxes are moved at the end.
        overlap: boxes that overlap a better one by more than this are suppressed.
        retriever: folder of a finished run of a retrieval method, which protocols of kind ``detection`` show the
            detected boxes.
        others: see ``AttributeNetwork``.
    """

    stages: ClassVar[tuple[Stage, ...]] = (ATTRIBUTES, BOXES)
    validates: ClassVar[Literal["manipulation", "query"]] = "query"
    score_weight: Tensor
    score_bias: Tensor
    offset_weight: Tensor
    offset_bias: Tensor
    shape: Tensor
    reduced: Tensor

    def __init__(
        self,
        attributes: Mapping[str, Sequence[str]],
        backbone: str = "resnet18",
        weights: str | None = None,
        images_per_value: int | None = None,
        attributes_lr: float = 0.05,
        attributes_head_lr: float = 0.05,
        weight_decay: float = 5e-4,
        features: Literal["attributes", "given"] = "attributes",
        scorer: Literal["svr", "svm", "whole"] = "svr",
        training_images: int = 250,
        picture_size: int = 128,
        region_size: int = 64,
        context: float = 227 / 195,
        jitter: int = 8,
        steps: int = 10,
        penalty: float = 1e-4,
        rounds: int = 3,
        regress: bool = True,
        overlap: float = 0.3,
        retriever: str | None = None,
    ) -> None:
        super().__init__(
            attributes, backbone, weights, images_per_value, attributes_lr, attributes_head_lr, weight_decay
        )
        self.save_hyperparameters()
        for name, number in (
            ("training_images", training_images),
            ("picture_size", picture_size),
            ("region_size", region_size),
            ("steps", steps),
        ):
            if number < 1:
                raise UserError(f"--method.{name} is {number}: give at least 1.")
        if context < 1 or penalty <= 0 or not 0 < overlap <= 1 or min(jitter, rounds) < 0:
            raise UserError(
                f"context {context}, penalty {penalty}, overlap {overlap}, jitter {jitter}, rounds {rounds}: "
                "give at least 1, more than 0, a share up to 1, and two counts from 0."
            )
        if scorer == "whole":
            self.stages = ()  # type: ignore[misc]  # of this instance alone
        elif features == "given":
            self.stages = (BOXES,)  # type: ignore[misc]
        width = self.backbone.dim * (_CELLS**2 if self._has_maps else 1)
        self.register_buffer("score_weight", torch.zeros(1, width))
        self.register_buffer("score_bias", torch.zeros(1))
        self.register_buffer("offset_weight", torch.zeros(4, width))
        self.register_buffer("offset_bias", torch.zeros(4))
        self.register_buffer("shape", torch.tensor([picture_size, picture_size]))  # of the pictures, once fitted
        self.register_buffer("reduced", torch.tensor(False))  # whether features are computed in bfloat16
        self.search = SelectiveSearch()

    @property
    def _has_maps(self) -> bool:
        """Whether the network ends in global pooling of a map, as timm's convolutional networks do."""
        pool = getattr(self.backbone.features, "global_pool", None)
        return isinstance(pool, nn.Module) and hasattr(self.backbone.features, "forward_features")

    @property
    def row_notes(self) -> list[str]:
        """What stands in for what the paper had."""
        if self.hparams["scorer"] == "whole":
            return ["the whole picture is the box"]
        notes = ["the detector's negatives are background proposals, not photos without people"]
        if self.hparams["features"] == "given" and not self.hparams["weights"]:
            notes.append(f"{self.hparams['backbone']} has random weights: name --method.weights for trained ones")
        return notes

    def stage_config(self, stage: Stage) -> dict[str, Any]:
        """All but what is only read when the detector is judged."""
        return {name: value for name, value in super().stage_config(stage).items() if name not in _APART}

    # --------------------------------------------------------- training

    def on_boxes_start(self, batches: Iterator[LabelledBatch]) -> None:
        """Fits scorer and box regression on training pictures with boxes; every process does all of it alike."""
        datamodule = self.trainer.datamodule  # type: ignore[attr-defined]
        height, width = datamodule.image_size
        scale = self.hparams["picture_size"] / min(height, width)
        self.shape.copy_(torch.tensor([round(scale * height), round(scale * width)]))
        self.reduced.fill_(str(self.trainer.precision).startswith("bf16"))
        images, truth = self.training_pictures(datamodule.dataset)
        self.fit(images, truth)

    def training_pictures(self, dataset: Dataset) -> tuple[NDArray[np.uint8], Boxes]:
        """Pictures ``(m, H, W, 3)`` of the training split with their boxes ``(m, 4)``, evenly of both domains.

        Raises:
            UserError: if the data come without boxes.
        """
        catalog = dataset.catalog
        rows = boxed_rows(dataset, Split.TRAIN)
        rows = np.random.default_rng(self.stage_seed).permutation(rows)
        order = np.empty(len(rows), np.int64)  # first shop, first street, second shop, …
        for domain in Domain:
            mine = catalog.domain[rows] == domain
            order[mine] = np.arange(mine.sum())
        chosen = rows[np.argsort(order, kind="stable")[: self.hparams["training_images"]]]
        images, kept = read_pictures(dataset, chosen, self.picture_shape)
        assert catalog.box is not None  # boxed_rows has looked
        return images, catalog.box[chosen[kept]]

    def fit(self, images: NDArray[np.uint8], truth: Boxes) -> None:
        """Fits scorer and box regression on pictures ``(m, H, W, 3)`` with true boxes ``(m, 4)``."""
        options = self.hparams
        regions = training_regions(
            [self.search(image) for image in images], truth, jitter=options["jitter"], seed=self.stage_seed % 2**31
        )
        features = self.describe(with_mirrored(images), regions.box, regions.picture)
        mined = learn_scorer(
            options["scorer"],
            features,
            regions.overlap,
            steps=options["steps"],
            penalty=options["penalty"],
            rounds=options["rounds"],
            first=10 * len(images),
            hard=5 * len(images),
            seed=self.stage_seed,
        )
        moves = learn_offsets(features, regions.box, regions.truth, regions.overlap)
        for buffer, fitted in (
            (self.score_weight, mined.scorer.weight),
            (self.score_bias, mined.scorer.bias),
            (self.offset_weight, moves.weight),
            (self.offset_bias, moves.bias),
        ):
            buffer.copy_(torch.from_numpy(fitted))

    # --------------------------------------------------------- detection

    @property
    def picture_shape(self) -> tuple[int, int]:
        """Height and width of the pictures in which boxes are looked for."""
        height, width = self.shape.tolist()
        return height, width

    def propose(self, images: NDArray[np.uint8]) -> list[Boxes]:
        """Boxes to choose from in each of ``images (m, H, W, 3)``."""
        if self.hparams["scorer"] == "whole":
            return [np.array([[0, 0, 1, 1]], np.float32)] * len(images)
        return [self.search(image) for image in images]

    def detect(self, images: NDArray[np.uint8], proposals: Sequence[Boxes]) -> Detections:
        """The best of the proposals of each picture, refined; by picture, the best first."""
        if self.hparams["scorer"] == "whole":
            boxes = np.concatenate(proposals)
            return Detections(np.arange(len(images)), boxes, np.ones(len(images), np.float32))
        boxes = np.concatenate(proposals)
        picture = np.repeat(np.arange(len(proposals)), [len(part) for part in proposals])
        features = self.describe(images, boxes, picture)
        scores = _linear(self.score_weight, self.score_bias)(features)[:, 0]
        moved = refine(boxes, _linear(self.offset_weight, self.offset_bias)(features))
        kept = [
            at[suppress(boxes[at], scores[at], self.hparams["overlap"])]
            for at in np.split(np.arange(len(boxes)), np.flatnonzero(np.diff(picture)) + 1)
        ]
        chosen = np.concatenate(kept)
        return Detections(
            picture[chosen], (moved if self.hparams["regress"] else boxes)[chosen], scores[chosen].astype(np.float32)
        )

    @torch.no_grad()
    def describe(self, images: NDArray[np.uint8], boxes: Boxes, picture: NDArray[np.int64]) -> NDArray[np.float16]:
        """Features ``(n, Q)`` of ``boxes (n, 4)``, each warped to the network's input; ``picture (n,)`` says of which.

        Half precision, since a paper's worth of regions is kept in memory.
        """
        out = np.empty((len(boxes), self.score_weight.shape[1]), np.float16)
        side = self.hparams["region_size"]
        images, boxes = with_context(images, boxes, self.hparams["context"])
        for begin in range(0, len(boxes), _BATCH):
            part = slice(begin, begin + _BATCH)
            warped = torch.from_numpy(crop(images, boxes[part], (side, side), picture[part]))
            features = self.local_features(normalise(warped.permute(0, 3, 1, 2).to(self.device)))
            out[part] = features.clamp(-6e4, 6e4).cpu().numpy()
        return out

    def local_features(self, regions: Tensor) -> Tensor:
        """Features ``(B, Q)`` of normalised regions ``(B, 3, S, S)`` that know what is where."""
        if not self._has_maps:  # in full precision: an untrained AlexNet's answers hardly differ
            vectors: Tensor = self.backbone(regions).float()
            return vectors
        with torch.autocast(regions.device.type, torch.bfloat16, enabled=bool(self.reduced)):
            return F.adaptive_avg_pool2d(self.backbone.maps(regions).float(), _CELLS).flatten(1)

    # --------------------------------------------------------- the space

    def embed_gallery(self, images: Tensor, context: Context | None = None) -> Tensor:
        """The direction of the network's feature; fully connected networks see all pictures at the size of regions."""
        side = self.hparams["region_size"]
        if not self._has_maps and images.shape[-2:] != (side, side):
            images = F.interpolate(images, (side, side), mode="bilinear", antialias=True)
        return F.normalize(self.backbone(images).float(), dim=-1)

    def embed_query(self, images: Tensor, indicator: Tensor, context: Context | None = None) -> Tensor:
        """The same, whatever was asked."""
        return self.embed_gallery(images)


def _linear(weight: Tensor, bias: Tensor) -> Linear:
    return Linear(weight.cpu().numpy(), bias.cpu().numpy())
