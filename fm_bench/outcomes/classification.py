# SPDX-License-Identifier: MIT
"""The protocol ``classification`` (FLAM, Table 5): what linear classifiers read from vectors before and after a change.

The classifiers, a softmax per attribute, learn from the vectors of the training pictures as they are, and are frozen.
They read each query's own values from its plain vector, and the wanted ones from the vector of the request.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from fm_bench.attributes import MISSING, AttributeSchema
from fm_bench.catalog import Dataset, gallery_of
from fm_bench.config import RunConfig
from fm_bench.data.batches import LabelledBatch
from fm_bench.data.requests import Requests
from fm_bench.errors import UserError
from fm_bench.evaluation.protocol import Protocol
from fm_bench.evaluation.significance import RESAMPLES, Estimate, resampled_means
from fm_bench.methods import METHODS
from fm_bench.methods.base import Method
from fm_bench.outcomes.shares import estimates, share
from fm_bench.outcomes.trained import Trained
from fm_bench.outcomes.vectors import plain_vectors, vectors_of
from fm_bench.questions import ask, limit_of
from fm_bench.results import Outcome
from fm_bench.retrieval.distances import F32, F64, I64

PENALTY = 0.01
"""Of squared weights, beside the mean loss on standardised vectors: what is read of other pictures hardly changes from
1e-5 to 0.03 (measured), and the larger it is, the sooner the solver is done."""

_STEPS = 300  # far more than L-BFGS takes
_CONSTANT = 1e-6  # entries that vary less, relative to their size, are noise of rounding


def obstacle(config: RunConfig, dataset: Dataset) -> str | None:
    """Why values cannot be read from this method's vectors, or None."""
    if METHODS[config.method].settings is not Method.settings:
        return (
            f"{config.label} searches each kind of request in a space of its own, so that no classifier of plain "
            "vectors reads those of requests: run a method with one space."
        )
    protocol = Protocol("classification", changes=1, kind="classification")
    try:
        ask(dataset, gallery_of(dataset), protocol, limit=1)
    except UserError as error:
        return str(error)
    return None


def outcome(protocol: Protocol, trained: Trained) -> Outcome:
    """Trains the classifiers on the training pictures and judges the method by what they read from its vectors.

    Metrics are ``original``, the share of queries whose plain vector shows the own value of the attribute that is to
    change; ``manipulated``, the share of requests whose vector shows the wanted value; ``difference``, by how much the
    second is larger, mean over attributes as in the paper; ``kept`` and ``kept_original``, the share of the other
    labelled attributes that are right in the vector of the request and in the plain one.
    """
    data, method, schema = trained.datamodule, trained.method, trained.datamodule.schema
    limit = limit_of(trained.config.evaluation, protocol)
    requests = ask(trained.dataset, data.gallery_rows, protocol, limit)
    data.use(LabelledBatch)  # all training pictures, whichever a stage chose to learn from
    labels = data.train_labels
    (known,) = vectors_of(trained, data.plain_dataloader(), len(labels), lambda batch: plain_vectors(method, batch))
    classifiers = learn(known, labels, schema, method.device)
    plain, edited = vectors_of(
        trained,
        data.query_dataloader(requests),
        len(requests),
        lambda batch: plain_vectors(method, batch),
        lambda batch: method.embed(batch).embedding,
    )
    own = trained.dataset.catalog.labels[requests.query]
    scores = score(requests, own, classifiers.read(plain), classifiers.read(edited))
    metrics, by_attribute = summarize(scores, requests)
    return Outcome(protocol, requests.digest, metrics, len(requests), scores, by_attribute, changing=requests.changing)


# ------------------------------------------------------------------------------------------------- the classifiers


class Classifiers(NamedTuple):
    """A linear softmax for every attribute, on standardised vectors."""

    schema: AttributeSchema
    centre: Tensor  # (D,)
    scale: Tensor  # (D,)
    weight: Tensor  # (D, C)
    bias: Tensor  # (C,)

    def read(self, vectors: F32) -> I64:
        """The most likely value ``(n, A)`` of every attribute in ``vectors (n, D)``."""
        x = (torch.from_numpy(vectors).to(self.centre) - self.centre) / self.scale
        blocks = torch.split(x @ self.weight + self.bias, list(self.schema.sizes), dim=1)
        read: I64 = torch.stack([block.argmax(1) for block in blocks], dim=1).cpu().numpy()
        return read


def learn(vectors: F32, labels: NDArray[np.int16], schema: AttributeSchema, device: torch.device) -> Classifiers:
    """The classifiers that fit ``vectors (n, D)`` with ``labels (n, A)`` best: a convex problem, solved by L-BFGS.

    Missing labels teach nothing; of an attribute without any label nothing but the first value is read.
    """
    x, y = torch.from_numpy(vectors).to(device), torch.from_numpy(labels.astype(np.int64)).to(device)
    scale, centre = torch.std_mean(x, dim=0, correction=0)
    scale = torch.where(scale > _CONSTANT * centre.abs().clamp(min=1), scale, 1.0)
    x = (x - centre) / scale
    weight = torch.zeros(x.shape[1], schema.num_values, device=device, requires_grad=True)
    bias = torch.zeros(schema.num_values, device=device, requires_grad=True)
    taught = [m for m in range(schema.num_attributes) if (y[:, m] != MISSING).any()]
    solver = torch.optim.LBFGS(
        [weight, bias], max_iter=_STEPS, tolerance_grad=1e-4, history_size=20, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        solver.zero_grad()
        blocks = torch.split(x @ weight + bias, list(schema.sizes), dim=1)
        losses = [F.cross_entropy(blocks[m], y[:, m], ignore_index=MISSING) for m in taught]
        total = torch.stack(losses).sum() + PENALTY / 2 * weight.square().sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    solver.step(loss)  # type: ignore[no-untyped-call]
    return Classifiers(schema, centre, scale, weight.detach(), bias.detach())


# ------------------------------------------------------------------------------------------------------ the scores


def score(requests: Requests, own: NDArray[np.int16], before: I64, after: I64) -> dict[str, F64]:
    """What each request scored: arrays ``(R,)`` whose means are the metrics, see ``outcome``.

    Args:
        requests: with one change each, of a labelled attribute.
        own: ``(R, A)`` labels of the queries.
        before: ``(R, A)`` values that were read from the plain vectors of the queries.
        after: ``(R, A)`` values that were read from the vectors of the requests.
    """
    row, changed = np.arange(len(requests)), requests.attribute[:, 0]
    others = own != MISSING
    others[row, changed] = False
    original = (before[row, changed] == own[row, changed]).astype(np.float64)
    manipulated = (after[row, changed] == requests.value[:, 0]).astype(np.float64)
    asked, place, times = np.unique(changed, return_inverse=True, return_counts=True)
    # So weighted, the mean over requests is the mean over attributes of the means over their requests.
    difference = (manipulated - original) * (len(requests) / (len(asked) * times))[place]
    return {
        "manipulated": manipulated,
        "original": original,
        "difference": difference,
        "kept": share(after == own, others),
        "kept_original": share(before == own, others),
    }


def summarize(
    scores: Mapping[str, F64], requests: Requests
) -> tuple[dict[str, Estimate], dict[str, dict[str, Estimate]]]:
    """Means with intervals of all requests, and of those that change each attribute, on the same resamples."""
    plain = scores["manipulated"] - scores["original"]
    total, parts = estimates(dict(scores) | {"difference": plain}, requests)
    total["difference"] = _mean_over([np.where(mask, plain, np.nan) for mask in requests.changing.values()])
    return total, parts


def _mean_over(columns: Sequence[F64]) -> Estimate:
    """The mean of the columns' means, each over its own requests, with its interval over resampled requests."""
    table = np.column_stack(columns)
    value = float(np.nanmean(table, axis=0).mean())
    means = np.nanmean(resampled_means(table, RESAMPLES, 0), axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return Estimate(value, min(float(low), value), max(float(high), value))
