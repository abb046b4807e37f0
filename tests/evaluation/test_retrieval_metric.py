# SPDX-License-Identifier: MIT
"""The torchmetrics metric gathers over batches and processes what one process would have."""

import numpy as np
import pytest
import ranks
import torch

from fm_bench.evaluation import Protocol, RetrievalMetric, evaluate

N, R = 60, 25
RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 3, (N, 3))
TARGETS = LABELS[RNG.integers(0, N, R)]
EXCLUDE = RNG.integers(-1, N, R)
GALLERY = np.round(RNG.standard_normal((N, 4))).astype(np.float32)  # with ties
QUERIES = np.round(RNG.standard_normal((R, 4))).astype(np.float32)
PROTOCOL = Protocol("x", 1, k=(5, 20), ndcg=(20,), mrr=(1000,))


def metric(**given):
    return RetrievalMetric(PROTOCOL, TARGETS, LABELS, exclude=EXCLUDE, **given)


def expected():
    report = evaluate(
        GALLERY,
        QUERIES,
        protocol=PROTOCOL,
        targets=TARGETS,
        gallery_labels=LABELS,
        exclude=EXCLUDE,
        infeasible="miss",
        resamples=0,
    )
    return {name: np.float32(estimate.value) for name, estimate in report.metrics.items()}


def fill(target, rows, gallery_rows, step=7):
    for side, vectors, all_rows in (("query", QUERIES, rows), ("gallery", GALLERY, gallery_rows)):
        for start in range(0, len(all_rows), step):
            index = all_rows[start : start + step]
            target.update(torch.from_numpy(vectors[index]), torch.from_numpy(index), side)


def test_batches_in_any_order_with_repeats_give_the_evaluator_s_numbers():
    one = metric()
    order = np.random.default_rng(1).permutation(N)
    fill(one, np.append(np.arange(R), [0, 3]), np.append(order, order[:5]))
    assert {name: value.item() for name, value in one.compute().items()} == expected()


def test_reset_starts_afresh():
    one = metric()
    fill(one, np.arange(R), np.arange(N))
    one.reset()
    assert one.compute() == {}
    fill(one, np.arange(R), np.arange(N))
    assert {name: value.item() for name, value in one.compute().items()} == expected()


def test_part_of_the_gallery_lowers_the_cut_offs():
    one = metric()
    fill(one, np.arange(10), np.arange(12))
    values = one.compute()
    assert {"accuracy@5", "accuracy@11", "ndcg@11", "mrr@1000"} <= values.keys()


def test_wrong_updates():
    with pytest.raises(ValueError, match="side 'both'"):
        metric().update(torch.zeros(2, 4), torch.arange(2), "both")
    with pytest.raises(ValueError, match="3 positions"):
        metric().update(torch.zeros(2, 4), torch.arange(3))


def work(rank):
    """One of two processes."""
    one, world = metric(), 2
    # Uneven shares, and repeats such as a distributed sampler fills up with.
    fill(one, np.append(np.arange(rank, R, world), [0]), np.append(np.arange(rank, N, world), [1, 2]))
    return {name: value.item() for name, value in one.compute().items()}


def test_two_processes_give_the_same_numbers_as_one(tmp_path):
    assert ranks.run(work, 2, tmp_path) == [expected(), expected()]
