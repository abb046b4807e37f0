# SPDX-License-Identifier: MIT
"""What a step receives. ``B`` images of 3 x H x W, ``A`` attributes, ``C`` values in all.

Images leave the loader as uint8 and reach the method normalised (the DataModule does that on the device). The field
``index`` hides ``tuple.index``, which nobody calls on a batch.
"""

from typing import NamedTuple

from torch import Tensor


class LabelledBatch(NamedTuple):
    """Images with their attribute labels."""

    image: Tensor  # (B, 3, H, W)
    labels: Tensor  # (B, A) int64, −1 = missing
    index: Tensor  # type: ignore[assignment]  # (B,) row of the catalogue
    domain: Tensor  # (B,) 0 shop, 1 street


class CrossDomainBatch(NamedTuple):
    """A customer's photo, a catalogue photo of the same item, and a catalogue photo of another one."""

    street: Tensor  # (B, 3, H, W)
    shop: Tensor  # (B, 3, H, W): shows the item of ``street``
    other: Tensor  # (B, 3, H, W): shows another item
    street_labels: Tensor  # (B, A)
    shop_labels: Tensor  # (B, A)
    other_labels: Tensor  # (B, A)
    street_domain: Tensor  # (B,) all 1, or all 0 where the data have one domain
    index: Tensor  # type: ignore[assignment]  # (B,) row of ``street``


class TripletBatch(NamedTuple):
    """A reference, a request, an image that fulfils it and one that does not."""

    reference: Tensor  # (B, 3, H, W)
    positive: Tensor  # (B, 3, H, W)
    negative: Tensor  # (B, 3, H, W)
    indicator: Tensor  # (B, C) in {0, 1}: ones at the wanted values
    target: Tensor  # (B, A): the reference's labels with the request applied; equals the positive's labels
    negative_labels: Tensor  # (B, A)
    index: Tensor  # type: ignore[assignment]  # (B,) row of the reference


class TripletPositionsBatch(NamedTuple):
    """A triplet without its pictures, for stages that train on features of their own."""

    reference: Tensor  # (B,) position among the training images
    positive: Tensor  # (B,)
    negative: Tensor  # (B,)
    indicator: Tensor  # (B, C) in {0, 1}: ones at the wanted values
    target: Tensor  # (B, A)
    negative_labels: Tensor  # (B, A)
    index: Tensor  # type: ignore[assignment]  # (B,) row of the reference


class InstanceBatch(NamedTuple):
    """Two pictures of every instance: anchors in the first half, their partners in the same order in the second."""

    image: Tensor  # (B, 3, H, W)
    instance: Tensor  # (B,) number of the instance, 0 the one with most training images
    index: Tensor  # type: ignore[assignment]  # (B,) row of the catalogue


class QuadrupletBatch(NamedTuple):
    """A reference, a request, an image that fulfils it, another one with that image's labels, and one without them."""

    reference: Tensor  # (B, 3, H, W)
    target: Tensor  # (B, 3, H, W): the reference's labels with the request applied
    positive: Tensor  # (B, 3, H, W): the labels of ``target``
    negative: Tensor  # (B, 3, H, W): known to have other labels than ``target``
    indicator: Tensor  # (B, C) in {0, 1}: ones at the wanted values
    reference_labels: Tensor  # (B, A)
    target_labels: Tensor  # (B, A)
    negative_labels: Tensor  # (B, A)
    twin: Tensor  # (B,) whether ``positive`` is another picture; else it is a view of ``target``, which has no twin
    index: Tensor  # type: ignore[assignment]  # (B,) row of the reference


class PositionsBatch(NamedTuple):
    """Training images without their pictures, for stages that learn from features of their own."""

    position: Tensor  # (B,) among the training images, in the order of ``plain_dataloader``
    labels: Tensor  # (B, A)
    index: Tensor  # type: ignore[assignment]  # (B,) row of the catalogue


class UnlabelledPositionsBatch(NamedTuple):
    """The same without labels, for stages that are to learn without them."""

    position: Tensor  # (B,)
    index: Tensor  # type: ignore[assignment]  # (B,)


TrainingBatch = (
    type[LabelledBatch]
    | type[TripletBatch]
    | type[CrossDomainBatch]
    | type[InstanceBatch]
    | type[QuadrupletBatch]
    | type[TripletPositionsBatch]
    | type[PositionsBatch]
    | type[UnlabelledPositionsBatch]
)
"""The kinds of batch that a stage can ask for."""

WITHOUT_PICTURES: tuple[TrainingBatch, ...] = (TripletPositionsBatch, PositionsBatch, UnlabelledPositionsBatch)
"""Those for which no picture is read, so that none is counted."""


class GalleryBatch(NamedTuple):
    """Catalogue images to embed."""

    image: Tensor  # (B, 3, H, W)
    labels: Tensor  # (B, A); the bench hides them from every method that does not declare a need
    domain: Tensor  # (B,)
    image_index: Tensor  # (B,) row of the catalogue
    index: Tensor  # type: ignore[assignment]  # (B,) position in the gallery


class QueryBatch(NamedTuple):
    """Requests to embed: a picture and what to change."""

    image: Tensor  # (B, 3, H, W)
    indicator: Tensor  # (B, C)
    labels: Tensor  # (B, A) of the picture; hidden like a gallery's
    domain: Tensor  # (B,)
    image_index: Tensor  # (B,) row of the picture in the catalogue
    index: Tensor  # type: ignore[assignment]  # (B,) position in the request file
    region: Tensor  # (B,) position in ``REGIONS`` of the part that the request is about, −1 for the whole garment


class EmbeddingBatch(NamedTuple):
    """What ``predict_step`` returns: vectors with the positions they belong to."""

    embedding: Tensor  # (B, D) float32
    index: Tensor  # type: ignore[assignment]  # (B,)
