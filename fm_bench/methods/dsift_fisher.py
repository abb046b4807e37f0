# SPDX-License-Identifier: MIT
"""DSIFT + Fisher vectors: the hand-crafted baseline of the DARN paper (Huang et al., ICCV 2015, Sec. 5.2)."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Literal

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from skimage.feature import learn_gmm
from torch import Tensor

from fm_bench.data.batches import LabelledBatch
from fm_bench.data.transforms import denormalise
from fm_bench.errors import UserError
from fm_bench.methods.base import Context, Method, Stage
from fm_bench.nn.pca import PrincipalComponents
from fm_bench.nn.reservoir import Reservoir

CODEBOOK = Stage("codebook", LabelledBatch, trained=False)
COMPONENTS = Stage("components", LabelledBatch, trained=False)

SIFT = 128
"""Length of a descriptor: 4 x 4 bins of 8 directions."""

SAMPLED = 100_000
"""Training descriptors that the codebook is fitted on."""

SAMPLED_PER_IMAGE = 32
"""Places of each training image at which descriptors are taken for that."""

SAMPLED_IMAGES = 20_000
"""Training images that the components of Fisher vectors are fitted on."""

_SPREAD = 1e-4
"""Least variance of a Gaussian: identical descriptors of plain backgrounds must not become a needle."""

_BLOCK = 1 << 23
"""Posteriors held at once."""


class DSIFTFisher(Method):
    """Dense SIFT descriptors of the grey picture, encoded as one Fisher vector. Nothing is learned from labels.

    Descriptors on a regular grid, upright and of one size, are brought to 64 numbers by PCA; a mixture of Gaussians is
    fitted to those of training images. The Fisher vector of a picture is how the means and variances of the mixture
    would move to explain it better: ``2 x 64 x centres`` numbers, to which the improved normalisation is applied (the
    signed square root, then unit length), and which PCA brings to ``dim``. The request is ignored. Colours are
    invisible to it: gradients of a grey picture are all it has.

    Differs: gradients with respect to the weights of the mixture, which scikit-image's ``fisher_vector`` puts in front,
    are left out, as the paper's 8,192 and 16,384 numbers have no room for them; the paper does not say which
    normalisation it uses (that of Perronnin et al., ECCV 2010, is the usual one), nor at what size it shows its
    pictures.

    Args:
        attributes: the schema, which decides nothing here.
        centres: number of Gaussians; the paper has 64 and 128.
        bin: side of a descriptor's 4 x 4 bins in pixels.
        stride: distance of neighbouring descriptors in pixels.
        projected: length of the descriptors after PCA.
        dim: length of the embedding; the paper brings all features to 4,096. None keeps the whole Fisher vector.

    Raises:
        UserError: if a size is not positive.
    """

    stages: ClassVar[tuple[Stage, ...]] = (CODEBOOK, COMPONENTS)
    validates: ClassVar[Literal["manipulation", "query"]] = "query"
    weights: Tensor
    means: Tensor
    variances: Tensor

    def __init__(
        self,
        attributes: Mapping[str, Sequence[str]],
        centres: int = 64,
        bin: int = 8,
        stride: int = 4,
        projected: int = 64,
        dim: int | None = 4096,
    ) -> None:
        super().__init__(attributes)
        self.save_hyperparameters()
        for name, size in (("centres", centres), ("bin", bin), ("stride", stride), ("projected", projected)):
            if size < 1:
                raise UserError(f"--method.{name} is {size}: give at least 1.")
        if dim is not None and dim < 1:
            raise UserError(f"--method.dim is {dim}: give at least 1, or null for whole Fisher vectors.")
        self.reduce = PrincipalComponents(SIFT, projected)
        self.register_buffer("weights", torch.full((centres,), 1 / centres))
        self.register_buffer("means", torch.zeros(centres, self.reduce.dim))
        self.register_buffer("variances", torch.ones(centres, self.reduce.dim))
        length = 2 * centres * self.reduce.dim
        self.compress = None if dim is None else PrincipalComponents(length, dim)

    @property
    def row_notes(self) -> list[str]:
        """Whether the vectors were brought to the length that the paper compares all features at."""
        return ["whole Fisher vectors, not reduced by PCA"] if self.compress is None else []

    # ------------------------------------------------------------------ what is fitted

    def on_codebook_start(self, batches: Iterator[LabelledBatch]) -> None:
        """Fits the descriptors' components and the mixture of Gaussians on a sample of training descriptors."""
        sample = Reservoir(SAMPLED, self.stage_seed)
        places = np.random.default_rng([self.stage_seed, 1])
        for batch in batches:
            sample.add(described(self.dense(batch.image, places)))
        descriptors, centres = sample.rows(), len(self.weights)
        if len(descriptors) < centres:
            raise UserError(
                f"the training images gave {len(descriptors)} descriptors for {centres} Gaussians: "
                "give more images or lower --method.centres."
            )
        from sklearn.exceptions import ConvergenceWarning  # half a second to import, which other methods do not need

        self.reduce.fit(descriptors, self.stage_seed)
        options = {
            "covariance_type": "diag",
            "random_state": self.stage_seed % 2**32,
            "max_iter": 50,
            "reg_covar": _SPREAD,
        }
        reduced = self.reduce(descriptors.to(self.device)).cpu().numpy()
        with warnings.catch_warnings():  # what 50 rounds do not settle, more would hardly move
            warnings.simplefilter("ignore", ConvergenceWarning)
            mixture = learn_gmm(reduced, n_modes=centres, gm_args=options)  # type: ignore[no-untyped-call]
        for buffer, fitted in zip(
            (self.weights, self.means, self.variances),
            (mixture.weights_, mixture.means_, mixture.covariances_),
            strict=True,
        ):
            buffer.copy_(torch.from_numpy(fitted))
        self._agree()

    def on_components_start(self, batches: Iterator[LabelledBatch]) -> None:
        """Fits the components of Fisher vectors on training images."""
        if self.compress is None:
            return
        sample = Reservoir(SAMPLED_IMAGES, self.stage_seed)
        for batch in batches:
            sample.add(self.fisher(batch.image))
        self.compress.fit(sample.rows(), self.stage_seed)
        self._agree()

    def _agree(self) -> None:
        """Every process has fitted its share of the images; the first one's result counts."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            for buffer in self.buffers():
                torch.distributed.broadcast(buffer, 0)

    # ------------------------------------------------------------------ the space

    def embed_gallery(self, images: Tensor, context: Context | None = None) -> Tensor:
        """The Fisher vector of each picture, ``(B, dim)``."""
        vectors = self.fisher(images)
        if self.compress is None:
            return vectors
        with torch.autocast(images.device.type, enabled=False):
            compressed: Tensor = self.compress(vectors)
            return compressed

    def embed_query(self, images: Tensor, indicator: Tensor, context: Context | None = None) -> Tensor:
        """The same, whatever was asked."""
        return self.embed_gallery(images, context)

    def fisher(self, images: Tensor) -> Tensor:
        """Normalised Fisher vectors ``(B, 2 x projected x centres)`` of normalised images ``(B, 3, H, W)``."""
        descriptors = self.dense(images)
        block = max(1, _BLOCK // (descriptors.shape[1] * len(self.weights)))
        with torch.autocast(images.device.type, enabled=False):
            return torch.cat([self._encode(part.to(images.device)) for part in torch.split(descriptors, block)])

    def dense(self, images: Tensor, places: np.random.Generator | None = None) -> Tensor:
        """Dense SIFT of normalised images, on the CPU: ``(B, T, 128)``; with ``places`` at a few places drawn by it."""
        pixels = denormalise(images)
        height, width = pixels.shape[1:3]
        points = grid(height, width, self.hparams["bin"], self.hparams["stride"])
        if places is not None:
            points = points[places.permutation(len(points))[:SAMPLED_PER_IMAGE]]
        return torch.from_numpy(dense_sift(pixels, points, self.hparams["bin"]))

    def _encode(self, descriptors: Tensor) -> Tensor:
        present = descriptors.any(dim=-1)
        vectors = fisher_vectors(self.reduce(descriptors), present, self.weights, self.means, self.variances)
        return F.normalize(vectors.sign() * vectors.abs().sqrt(), dim=-1)


def grid(height: int, width: int, side: int, stride: int) -> NDArray[np.float64]:
    """Centres ``(T, 2)`` (x, y) of all descriptors of ``4 x side`` pixels that lie inside a picture, in its middle.

    Raises:
        UserError: if not one fits.
    """
    axes = []
    for length in (width, height):
        room = length - 4 * side
        if room < 0:
            raise UserError(
                f"a descriptor of 4 x {side} pixels does not fit into pictures of {height} x {width}: "
                "lower --method.bin or raise --loader.image_size."
            )
        axes.append(np.arange(room // stride + 1) * stride + (room % stride) / 2 + 2 * side - 0.5)
    x, y = np.meshgrid(*axes)
    return np.stack([x.ravel(), y.ravel()], axis=1)


def dense_sift(pixels: NDArray[np.uint8], points: NDArray[np.float64], side: int) -> NDArray[np.float32]:
    """Upright SIFT descriptors of unit length, ``(B, T, 128)``; zeros where a patch has no gradient.

    Args:
        pixels: ``(B, H, W, 3)`` RGB.
        points: ``(T, 2)`` x and y of the descriptors.
        side: of a bin in pixels.
    """
    sift = cv2.SIFT.create()
    # OpenCV's bins have a side of 1.5 x the keypoint's size; angle 0 is upright.
    keypoints = [cv2.KeyPoint(x, y, side / 1.5, 0.0) for x, y in points.tolist()]
    descriptors = np.empty((len(pixels), len(points), SIFT), dtype=np.float32)
    for image, found in zip(pixels, descriptors, strict=True):
        found[:] = sift.compute(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), keypoints)[1]
    descriptors /= np.maximum(np.linalg.norm(descriptors, axis=-1, keepdims=True), 1e-9)
    return descriptors


def described(descriptors: Tensor) -> Tensor:
    """The descriptors ``(n, 128)`` among ``(B, T, 128)`` that are of a patch with any gradient."""
    return descriptors[descriptors.any(dim=-1)]


def fisher_vectors(descriptors: Tensor, present: Tensor, weights: Tensor, means: Tensor, variances: Tensor) -> Tensor:
    """Fisher vectors of many pictures at once, without normalisation: what scikit-image computes for one.

    Args:
        descriptors: ``(B, T, d)``.
        present: ``(B, T)`` which of them there are.
        weights: ``(K,)`` of the mixture.
        means: ``(K, d)``.
        variances: ``(K, d)``.

    Returns:
        ``(B, 2Kd)``: gradients by the means, then by the variances.
    """
    precision = 1 / variances
    square = descriptors.square()
    exponent = square @ precision.T - 2 * descriptors @ (means * precision).T + (means.square() * precision).sum(1)
    logits = weights.log() - 0.5 * (variances.log().sum(1) + exponent)
    posterior = logits.softmax(dim=-1) * present[..., None]  # (B, T, K)
    count = present.sum(dim=1).clamp(min=1)[:, None, None]
    zeroth = posterior.sum(dim=1)[..., None] / count  # (B, K, 1)
    first = posterior.mT @ descriptors / count  # (B, K, d)
    second = posterior.mT @ square / count
    deviation, root = variances.sqrt(), weights.sqrt()[:, None]
    by_mean = (first - zeroth * means) / (root * deviation)
    by_variance = (zeroth * (variances - means.square()) + 2 * first * means - second) / (2**0.5 * root * variances)
    return torch.cat([by_mean.flatten(1), by_variance.flatten(1)], dim=1)
