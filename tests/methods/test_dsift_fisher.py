# SPDX-License-Identifier: MIT
"""The Fisher vectors are scikit-image's, and the whole pipeline is a deterministic function of the picture."""

import cv2
import numpy as np
import pytest
import torch
from skimage.feature import fisher_vector
from sklearn.mixture import GaussianMixture

from fm_bench.data.batches import LabelledBatch
from fm_bench.data.garments import GarmentSource
from fm_bench.data.transforms import normalise
from fm_bench.errors import UserError
from fm_bench.methods import dsift_fisher as module
from fm_bench.methods.dsift_fisher import DSIFTFisher, dense_sift, fisher_vectors, grid

ATTRIBUTES = {"colour": ["red", "blue"], "sleeve": ["none", "short", "long"]}
OPTIONS = {"centres": 4, "bin": 3, "stride": 4, "projected": 16, "dim": 10}


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    source = GarmentSource((24, 0, 0))
    return np.stack([source.read(name, (32, 32)) for name in source.names().tolist()])


@pytest.fixture(scope="module")
def images(pixels: np.ndarray) -> torch.Tensor:
    return normalise(torch.from_numpy(pixels).permute(0, 3, 1, 2))


def fitted(images: torch.Tensor, **options: int | None) -> DSIFTFisher:
    method = DSIFTFisher(ATTRIBUTES, **OPTIONS | options).eval()
    for stage in method.stages:
        method.begin(stage, seed=5)
        nothing = torch.zeros(8, dtype=torch.long)
        batches = (LabelledBatch(part, nothing[:, None], nothing, nothing) for part in images.split(8))
        getattr(method, f"on_{stage.name}_start")(batches)
    return method


@pytest.fixture(scope="module")
def method(images: torch.Tensor) -> DSIFTFisher:
    return fitted(images)


@pytest.mark.parametrize(("centres", "length"), [(64, 8192), (128, 16384)])
def test_lengths_are_the_papers(images: torch.Tensor, centres: int, length: int) -> None:
    whole = DSIFTFisher(ATTRIBUTES, centres=centres, bin=3, dim=None)
    assert whole.embed_gallery(images[:2]).shape == (2, length)
    assert DSIFTFisher(ATTRIBUTES, centres=64, bin=3).embed_gallery(images[:2]).shape == (2, 4096)


@pytest.mark.parametrize("improved", [False, True])
def test_fisher_vectors_are_those_of_scikit_image(improved: bool) -> None:
    generator = np.random.default_rng(0)
    K, d = 5, 12
    mixture = GaussianMixture(K, covariance_type="diag", random_state=0)
    mixture.fit(generator.normal(size=(400, d)) * np.linspace(0.1, 2, d))
    descriptors = generator.normal(size=(3, 40, d)) * np.linspace(0.1, 2, d)
    present = np.ones((3, 40), dtype=np.bool_)
    present[1, 25:] = False
    parts = [torch.from_numpy(np.array(a)) for a in (mixture.weights_, mixture.means_, mixture.covariances_)]
    ours = fisher_vectors(torch.from_numpy(descriptors), torch.from_numpy(present), *parts)
    if improved:
        ours = torch.nn.functional.normalize(ours.sign() * ours.abs().sqrt(), dim=-1)
    for one, x, kept in zip(ours.numpy(), descriptors, present, strict=True):
        theirs = fisher_vector(x[kept], mixture, improved=improved)[K:]  # without the gradients by the weights
        if improved:
            theirs /= np.linalg.norm(theirs)
        assert np.allclose(one, theirs, atol=1e-10)


def test_the_embedding_agrees_with_scikit_image_in_single_precision(images: torch.Tensor) -> None:
    method = fitted(images, dim=None)
    mixture = GaussianMixture(4, covariance_type="diag")
    mixture.weights_, mixture.means_, mixture.covariances_ = (
        buffer.double().numpy() for buffer in (method.weights, method.means, method.variances)
    )
    mixture.precisions_cholesky_ = 1 / np.sqrt(mixture.covariances_)
    for vector, descriptors in zip(method.embed_gallery(images[:4]), method.dense(images[:4]), strict=True):
        x = method.reduce(descriptors).double().numpy()
        expected = fisher_vector(x, mixture, improved=True)[4:]
        assert np.allclose(vector, expected / np.linalg.norm(expected), atol=2e-3)


def test_fisher_vectors_have_unit_length_and_plain_pictures_none(method: DSIFTFisher, images: torch.Tensor) -> None:
    assert torch.allclose(method.fisher(images).norm(dim=1), torch.ones(len(images)), atol=1e-5)
    plain = torch.zeros(1, 3, 32, 32)
    assert not method.fisher(plain).any()
    assert method.embed_gallery(plain).isfinite().all()


def test_the_same_picture_has_the_same_vector_and_the_request_is_ignored(
    method: DSIFTFisher, images: torch.Tensor
) -> None:
    together = method.embed_gallery(images)
    assert torch.allclose(method.embed_gallery(images[3:4])[0], together[3], atol=1e-6)
    indicator = method.schema.indicator([("colour", "red")]).expand(len(images), -1)
    assert torch.equal(method.embed_query(images, indicator), together)
    assert torch.pdist(together).min() > 0.01


def test_fitting_is_deterministic_and_a_checkpoint_holds_all_of_it(method: DSIFTFisher, images: torch.Tensor) -> None:
    again = fitted(images)
    assert torch.equal(again.embed_gallery(images), method.embed_gallery(images))
    empty = DSIFTFisher(ATTRIBUTES, **OPTIONS)
    empty.load_state_dict(method.state_dict())
    assert torch.equal(empty.embed_gallery(images), method.embed_gallery(images))
    assert not list(method.parameters())


def test_the_components_change_no_distance_where_there_are_enough(images: torch.Tensor) -> None:
    whole, turned = fitted(images, dim=None), fitted(images, dim=10_000)  # 128 numbers of 24 pictures
    assert torch.allclose(
        torch.pdist(whole.embed_gallery(images)), torch.pdist(turned.embed_gallery(images)), atol=1e-5
    )


def test_lower_precision_elsewhere_does_not_reach_the_vectors(method: DSIFTFisher, images: torch.Tensor) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(method.embed_gallery(images), method.embed_gallery(images.float()))
        assert method.embed_gallery(images).dtype == torch.float32


def test_colours_of_equal_grey_are_invisible(method: DSIFTFisher) -> None:
    """As the class says: another hue of the same brightness is the same picture."""
    red, grey = np.zeros((2, 1, 32, 32, 3), np.uint8)
    red[:, 8:20, 8:20] = (200, 0, 0)
    grey[:, 8:20, 8:20] = cv2.cvtColor(red[0, 9:10, 9:10], cv2.COLOR_RGB2GRAY)[0, 0]
    vectors = [method.embed_gallery(normalise(torch.from_numpy(p).permute(0, 3, 1, 2))) for p in (red, grey)]
    assert torch.allclose(*vectors, atol=1e-5)


def test_descriptors_lie_on_the_grid_inside_the_picture(pixels: np.ndarray) -> None:
    points = grid(32, 40, 3, 4)
    assert len(points) == 6 * 8
    assert np.allclose(points.min(axis=0), 5.5)
    assert np.allclose(points.max(axis=0), [33.5, 25.5])
    assert np.allclose(points.mean(axis=0), [19.5, 15.5])
    descriptors = dense_sift(pixels[:2], grid(32, 32, 3, 4), 3)
    assert descriptors.shape == (2, 36, 128)
    assert np.allclose(np.linalg.norm(descriptors, axis=-1), 1, atol=1e-5)


def test_a_descriptor_follows_its_patch() -> None:
    """Moved by one stride, a pattern has the descriptors of the neighbouring places: upright, one size, one scale."""
    noise = np.random.default_rng(0).integers(0, 256, (1, 48, 48, 1), dtype=np.uint8).repeat(3, axis=-1)
    moved = np.roll(noise, 4, axis=2)
    points = np.array([[19.5, 23.5], [23.5, 23.5]])
    before, after = (dense_sift(image, points, 3)[0] for image in (noise, moved))
    assert np.abs(before[0] - after[1]).max() < 0.02
    assert np.abs(before[0] - before[1]).max() > 0.1


@pytest.mark.parametrize("options", [{"centres": 0}, {"stride": 0}])
def test_impossible_sizes_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(UserError, match="at least 1"):
        DSIFTFisher(ATTRIBUTES, **options)


def test_too_small_pictures_and_too_few_descriptors_are_said(
    images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"--method\.bin"):
        DSIFTFisher(ATTRIBUTES, bin=9).embed_gallery(images)
    monkeypatch.setattr(module, "SAMPLED_PER_IMAGE", 1)
    with pytest.raises(UserError, match="24 descriptors for 30 Gaussians"):
        fitted(images, centres=30)
