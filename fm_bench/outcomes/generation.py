# SPDX-License-Identifier: MIT
"""The protocol ``generation``: a drawn picture of what is asked for, against the same garment drawn with the change.

Drawn garments alone have that truth. Whether a prototype shows the wanted values is read by an attribute classifier
that has no part in any method which draws: the attribute network of ``attribute-based``, seed 0, trained on the
training split by that method's recipe, whatever the settings of the judged run are. It is trained once for all methods.
``identity`` and others that start from the attribute stage may share its weights, but draw nothing of their own.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from fm_bench.attributes import MISSING
from fm_bench.bench import Bench, build_method, data_module
from fm_bench.catalog import Dataset, gallery_of
from fm_bench.config import SHOWN_ONLY, RunConfig, configure
from fm_bench.data.garments import GarmentSource
from fm_bench.data.requests import Requests
from fm_bench.data.transforms import denormalise, normalise
from fm_bench.errors import UserError
from fm_bench.evaluation.protocol import Protocol
from fm_bench.files import digest
from fm_bench.methods import METHODS, AttributeNetwork
from fm_bench.methods.attribute_network import predict_labels
from fm_bench.outcomes.shares import estimates, share
from fm_bench.outcomes.trained import Trained
from fm_bench.outcomes.vectors import in_order, precision
from fm_bench.questions import ask
from fm_bench.results import Outcome
from fm_bench.run_folder import digest_of

CLASSIFIER = "attribute-based"
"""Whose recipe trains the classifier."""

_AT_ONCE = 32  # pictures whose structure is compared: the filters need much memory

_PLACES = SHOWN_ONLY | {
    "accelerator",
    "devices",
    "num_nodes",
    "strategy",
}  # Trainer settings that say where, and not how, something is trained


def obstacle(config: RunConfig, dataset: Dataset) -> str | None:
    """Why this method, or these data, cannot be judged by what is drawn, or None."""
    if not METHODS[config.method].draws:
        return f"{config.label} draws no pictures, run amgan-p."
    if config.loader.crop != "full":
        return "garments are drawn as whole pictures, leave --loader.crop at full."
    if not isinstance(dataset.source, GarmentSource):
        return f"the pictures of {config.data} cannot be drawn again with other attributes, take garments."
    try:
        protocol = Protocol("generation", changes=1, kind="generation")
        ask(dataset, gallery_of(dataset), protocol, limit=1)
    except UserError as error:
        return str(error)
    return None


def outcome(protocol: Protocol, trained: Trained) -> Outcome:
    """Lets the method draw what every request asks for.

    Metrics are ``exact``, the share of prototypes in which the classifier reads every labelled attribute of the target;
    ``changed`` and ``kept``, the share of the changed and of the other labelled attributes that it reads so; ``ssim``
    and ``l1``, structural similarity and mean absolute difference (of pixels in [0, 1]) to the same garment drawn with
    the request applied.

    Raises:
        UserError: if a prototype is no picture.
    """
    data = trained.datamodule
    requests = ask(trained.dataset, data.gallery_rows, protocol, trained.config.evaluation.requests)
    network = trained.prepared[protocol.name]
    likeness, prototypes, truths = [], [], []
    for positions, prototype in drawn(trained, requests):
        truth = redrawn(trained.dataset, requests, positions, data.image_size)
        likeness.append(compare(prototype, truth))
        prototypes.append(read(network, prototype))
        truths.append(read(network, truth))
    scores = agreement(np.concatenate(prototypes), requests)
    scores |= {name: np.concatenate([part[name] for part in likeness]) for name in ("ssim", "l1")}
    metrics, by_attribute = estimates(scores, requests)
    ceiling = {name: np.nanmean(values) for name, values in agreement(np.concatenate(truths), requests).items()}
    note = (
        f"{protocol.name}: in the true pictures the classifier reads all wanted values of {ceiling['exact']:.1%}, "
        f"{ceiling['changed']:.1%} of the changed and {ceiling['kept']:.1%} of the kept ones"
    )
    # Prototypes that another classifier has read, or of another size, are no answer to the same question.
    asked = digest(requests.digest, data.image_size, np.concatenate(truths))
    return Outcome(
        protocol,
        asked,
        metrics,
        len(requests),
        scores,
        by_attribute,
        changing=requests.changing,
        notes=(note,),
    )


# --------------------------------------------------------------------------------------------------------- pictures


def drawn(trained: Trained, requests: Requests) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint8]]]:
    """Prototypes ``(b, H, W, 3)`` with the positions ``(b,)`` of their requests, batch by batch.

    Raises:
        UserError: if one holds NaN or infinity.
    """
    method = trained.method
    for batch in in_order(trained, trained.datamodule.query_dataloader(requests), len(requests)):
        with torch.no_grad(), precision(trained.config.trainer, method.device):
            prototypes = method.draw(batch.image, batch.indicator)
        assert prototypes.shape == batch.image.shape, f"{prototypes.shape} are no pictures like {batch.image.shape}"
        if not torch.isfinite(prototypes).all():
            raise UserError(
                f"{trained.config.label} draws pictures that hold NaN or infinity: lower its learning rates."
            )
        yield batch.index.cpu().numpy(), denormalise(prototypes)


def redrawn(
    dataset: Dataset, requests: Requests, positions: NDArray[np.int64], size: tuple[int, int]
) -> NDArray[np.uint8]:
    """The queries at ``positions (b,)`` drawn with the request applied, ``(b, H, W, 3)`` RGB; garments only."""
    source, schema = dataset.source, requests.schema
    assert isinstance(source, GarmentSource), "only garments can be drawn again"
    pictures = []
    for at in positions.tolist():
        wanted = [(m, v) for m, v in zip(requests.attribute[at], requests.value[at], strict=True) if m >= 0]
        changes = {schema.names[m]: schema.values[m][v] for m, v in wanted}
        pictures.append(source.redraw(int(requests.query[at]), changes, size))
    return np.stack(pictures)


def compare(pictures: NDArray[np.uint8], truth: NDArray[np.uint8]) -> dict[str, NDArray[np.float64]]:
    """``ssim`` and ``l1`` of each picture, ``(b,)``, from ``(b, H, W, 3)`` each."""
    a, b = (torch.from_numpy(part).permute(0, 3, 1, 2).float().contiguous() / 255 for part in (pictures, truth))
    ssim = []
    for one, other in zip(torch.split(a, _AT_ONCE), torch.split(b, _AT_ONCE), strict=True):
        values = structural_similarity_index_measure(one, other, data_range=1.0, reduction="none")
        assert isinstance(values, Tensor)
        ssim.append(values.reshape(-1).double())
    return {"ssim": torch.cat(ssim).numpy(), "l1": (a - b).abs().mean(dim=(1, 2, 3)).double().numpy()}


# ------------------------------------------------------------------------------------------------------- classifier


def prepare(trained: Trained) -> AttributeNetwork:
    """The trained classifier, on the method's device; trained unless an equal one lies in the cache of stages."""
    config = classifier_config(trained.config)
    data = data_module(config, trained.dataset)
    data.setup("fit")
    with isolate_rng():
        network = build_method(config, data)
        assert isinstance(network, AttributeNetwork)
        bench = Bench(config, logger="none")
        bench.say("the classifier that reads the drawn pictures, one for all methods:")
        bench.train(trained.folder / "classifier", network, data, digest_of(trained.dataset))
    return network.eval().to(trained.method.device)


def classifier_config(config: RunConfig) -> RunConfig:
    """How the classifier is trained: a recipe, and of ``config`` only data, size of pictures, and where to compute."""
    recipe = configure(CLASSIFIER, config.data, config.profile, "common", seed=0)
    places = {name: value for name, value in config.trainer.items() if name in _PLACES}
    loader = replace(recipe.loader, image_size=config.loader.image_size, num_workers=config.loader.num_workers)
    return replace(recipe, reader=config.reader, loader=loader, trainer={**recipe.trainer, **places})


def read(network: AttributeNetwork, pictures: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The values ``(b, A)`` that the classifier sees in pictures ``(b, H, W, 3)``."""
    images = torch.from_numpy(pictures).permute(0, 3, 1, 2).to(network.device)
    with torch.no_grad():
        seen: NDArray[np.int64] = predict_labels(network.logits(network.backbone(normalise(images)))).cpu().numpy()
    return seen


# ------------------------------------------------------------------------------------------------------------ scores


def agreement(seen: NDArray[np.int64], requests: Requests) -> dict[str, NDArray[np.float64]]:
    """``exact``, ``changed`` and ``kept`` of each request, ``(R,)``; NaN where there is nothing to be right about.

    Args:
        seen: ``(R, A)`` values read from a picture for each request.
        requests: what was wanted.
    """
    right, labelled = seen == requests.target, requests.target != MISSING
    changed = (requests.attribute[:, :, None] == np.arange(labelled.shape[1])).any(axis=1)
    exact = (right | ~labelled).all(axis=1).astype(np.float64)
    return {"exact": exact, "changed": share(right, changed), "kept": share(right, labelled & ~changed)}
