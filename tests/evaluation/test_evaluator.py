# SPDX-License-Identifier: MIT
"""The evaluator against the definitions written out, and what must not change its results."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st

from fm_bench.errors import UserError
from fm_bench.evaluation import Protocol, evaluate

PROTOCOL = Protocol("test", changes=1, k=(1, 5, 20), ndcg=(10, 20), mrr=(10, 1000))


def problem(n=300, r=50, a=4, d=8, values=3, missing=0.1, seed=0):
    """Random embeddings and labels; every target is labelled somewhere and has a hit in the gallery."""
    rng = np.random.default_rng(seed)
    gallery, queries = rng.standard_normal((n, d)).astype(np.float32), rng.standard_normal((r, d)).astype(np.float32)
    labels = np.where(rng.random((n, a)) < missing, -1, rng.integers(0, values, (n, a)))
    labels[:, 0] = np.abs(labels[:, 0])
    source = rng.integers(0, n, r)
    exclude = np.where(rng.random(r) < 0.5, -1, (source + 1) % n)
    changed = np.stack([rng.integers(0, a, r), np.where(rng.random(r) < 0.5, -1, 0)], axis=1)
    return {
        "gallery": gallery,
        "queries": queries,
        "targets": labels[source],
        "gallery_labels": labels,
        "exclude": exclude,
        "changed": changed,
    }


def slowly(case, protocol):
    rows = []
    items = case.get("gallery_items")
    for q, target in enumerate(case["targets"]):
        excluded = int(case["exclude"][q]) if protocol.exclude_query else -1
        order = reference.brute_order(case["gallery"], case["queries"][q], excluded)
        hit = None if protocol.hit == "attributes" else items == case["query_items"][q]
        rows.append(
            reference.evaluate(
                order,
                target,
                case["gallery_labels"],
                k=protocol.k,
                ndcg=protocol.ndcg,
                mrr=protocol.mrr,
                excluded=excluded,
                hit=hit,
                missing=protocol.missing,
            )
        )
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


@given(
    st.integers(25, 120),
    st.integers(1, 12),
    st.integers(1, 5),
    st.integers(1, 4),
    st.sampled_from(["query_labelled", "strict_equal"]),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
def test_equals_the_definitions(n, r, a, values, missing, exclude_query, seed):
    case = problem(n, r, a, values=values, seed=seed)
    protocol = Protocol(
        "test", 1, k=(1, 5, 20), ndcg=(1, 20), mrr=(3, 1000), missing=missing, exclude_query=exclude_query
    )
    report = evaluate(**case, protocol=protocol, infeasible="miss", resamples=0)
    for name, expected in slowly(case, protocol).items():
        np.testing.assert_allclose(report.per_request[name], expected, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("missing", ["query_labelled", "strict_equal"])
def test_more_attributes_than_a_byte_counts(missing):
    case = problem(60, 10, 300, values=2, seed=2)
    protocol = Protocol("test", 1, k=(1, 5, 20), ndcg=(1, 20), mrr=(3, 1000), missing=missing)
    report = evaluate(**case, protocol=protocol, infeasible="miss", resamples=0)
    for name, expected in slowly(case, protocol).items():
        np.testing.assert_allclose(report.per_request[name], expected, atol=1e-9, err_msg=name)


def test_instance_hits():
    case = problem(seed=5)
    case |= {"gallery_items": np.arange(300) // 3, "query_items": np.random.default_rng(0).integers(0, 100, 50)}
    protocol = Protocol("test", 0, hit="instance", k=(1, 20), ndcg=(20,), mrr=(10, 1000))
    report = evaluate(**case, protocol=protocol, resamples=0)
    for name, expected in slowly(case, protocol).items():
        np.testing.assert_allclose(report.per_request[name], expected, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("counted", [0, 2, 64])  # hits of a request up to which it is counted while it is searched
@pytest.mark.parametrize("scanned", [False, True])
def test_first_hits_are_the_same_whenever_they_are_counted(counted, scanned, monkeypatch):
    monkeypatch.setattr("fm_bench.evaluation.first_hit._FEW", counted)
    monkeypatch.setattr("fm_bench.retrieval.index._MANY", 1)
    monkeypatch.setattr("fm_bench.retrieval.reduced.supported", lambda: scanned)
    case = problem(values=4, seed=4)
    protocol = Protocol("test", 1, k=(1, 3), ndcg=(), mrr=(3, 100))
    report = evaluate(**case, protocol=protocol, infeasible="miss", resamples=0)
    assert 0 < np.count_nonzero(report.per_request["mrr@100"]) < len(case["queries"])
    for name, expected in slowly(case, protocol).items():
        np.testing.assert_allclose(report.per_request[name], expected, atol=1e-9, err_msg=name)


def test_splits_are_means_over_their_requests():
    case = problem()
    report = evaluate(**case, protocol=PROTOCOL, attribute_names=["a", "b", "c", "d"], infeasible="miss", resamples=200)
    values, changed = report.per_request["accuracy@20"], case["changed"]
    for m, name in enumerate("abcd"):
        mask = (changed == m).any(axis=1)
        estimate = report.by_attribute[name]["accuracy@20"]
        assert estimate.value == pytest.approx(values[mask].mean())
        assert estimate.low <= estimate.value <= estimate.high
        assert report.attribute_requests[name] == mask.sum()
    for number, part in report.by_changes.items():
        assert part["ndcg@10"].value == pytest.approx(
            report.per_request["ndcg@10"][(changed >= 0).sum(1) == number].mean()
        )
    assert report.metrics["chance@5"].low == report.metrics["chance@5"].high == report.metrics["chance@5"].value


def test_gallery_order_and_block_size_change_nothing(monkeypatch):
    case = problem(values=2, seed=2)
    case["gallery"] = np.round(case["gallery"])  # many ties
    case["queries"] = np.round(case["queries"])
    keys = np.random.default_rng(0).permutation(10_000)[:300]
    straight = evaluate(**case, protocol=PROTOCOL, gallery_keys=keys, infeasible="miss", resamples=100)
    order = np.random.default_rng(1).permutation(300)
    place = np.append(np.argsort(order), -1)
    mixed = (
        case | {name: case[name][order] for name in ("gallery", "gallery_labels")} | {"exclude": place[case["exclude"]]}
    )
    again = evaluate(**mixed, protocol=PROTOCOL, gallery_keys=keys[order], infeasible="miss", resamples=100)
    assert straight.metrics == again.metrics
    assert straight.by_attribute == again.by_attribute
    assert straight.tied_share == again.tied_share > 0
    monkeypatch.setattr("fm_bench.retrieval.scan._ROWS", 7)
    monkeypatch.setattr("fm_bench.retrieval.scan._QUERIES", 11)
    monkeypatch.setattr("fm_bench.evaluation.relevance._TARGETS", 3)
    monkeypatch.setattr("fm_bench.evaluation.relevance._WORDS", 1)
    monkeypatch.setattr("fm_bench.evaluation.relevance._KEPT", 10)
    monkeypatch.setattr("fm_bench.evaluation.hits._PAIRS", 40)
    assert (
        evaluate(**case, protocol=PROTOCOL, gallery_keys=keys, infeasible="miss", resamples=100).metrics
        == straight.metrics
    )


def test_constant_embedding_scores_at_chance():
    n, r = 2000, 1500
    case = problem(n, r, values=3, missing=0.0, seed=7)
    case["gallery"], case["queries"] = np.ones((n, 8), np.float32), np.ones((r, 8), np.float32)
    # File order must not leak: put all images of a kind together, as catalogues are.
    case["gallery_labels"] = case["gallery_labels"][np.lexsort(case["gallery_labels"].T)]
    case["exclude"] = np.full(r, -1)
    report = evaluate(**case, protocol=PROTOCOL, resamples=0)
    assert report.tied_share == 1
    for name, expected in by_chance(case, n).items():
        values = report.per_request[name]
        error = values.std() / np.sqrt(r)
        assert abs(values.mean() - expected.mean()) < 3.5 * error, name
    for k in PROTOCOL.k:
        assert report.metrics[f"chance@{k}"].value == pytest.approx(by_chance(case, n)[f"accuracy@{k}"].mean())


def by_chance(case, n):
    """The expectation of every metric over all orders, in closed form."""
    rel = (case["targets"][:, None] == case["gallery_labels"]).mean(axis=2)
    gain, relevant = 2**rel - 1, (rel == 1).sum(axis=1)
    at = 1 - np.cumprod(np.maximum(1 - relevant[:, None] / (n - np.arange(1000)), 0), axis=1)  # accuracy@1, 2, …
    first = np.diff(at, axis=1, prepend=0)  # probability that the first hit has this rank
    values = {f"accuracy@{k}": at[:, k - 1] for k in PROTOCOL.k}
    values |= {f"mrr@{k}": (first[:, :k] / np.arange(1, k + 1)).sum(axis=1) for k in PROTOCOL.mrr}
    for k in PROTOCOL.ndcg:
        discount = 1 / np.log2(np.arange(2, k + 2))
        best = -np.sort(-gain, axis=1)[:, :k]
        values[f"ndcg_ones@{k}"] = gain.mean(axis=1)  # every place has the mean gain
        values[f"ndcg@{k}"] = gain.mean(axis=1) * discount.sum() / (best @ discount)
    return values


@pytest.mark.parametrize("sweep", [(), (0.05, 0.5, 1.0)])
@pytest.mark.parametrize("kind", ["plain", "constant"])
def test_memory_does_not_grow_with_queries_times_gallery(kind, sweep, tmp_path):
    case = problem(60_000, 1000, a=6, d=16, values=6, missing=0.0)
    if kind == "constant":
        case["gallery"], case["queries"] = np.zeros_like(case["gallery"]), np.zeros_like(case["queries"])
    np.save(tmp_path / "gallery.npy", case["gallery"])
    case["gallery"] = np.load(tmp_path / "gallery.npy", mmap_mode="r")
    tracemalloc.start()
    evaluate(**case, protocol=replace(PROTOCOL, sweep=sweep), infeasible="miss", resamples=500)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6  # one byte for each pair would be 60 MB, one float32 240 MB; blocks take the rest


def test_perfect_embedding():
    case = problem(missing=0.0)
    one_hot = np.eye(3, dtype=np.float32)
    case["gallery"], case["queries"] = (
        one_hot[case["gallery_labels"]].reshape(300, -1),
        one_hot[case["targets"]].reshape(50, -1),
    )
    report = evaluate(**case, protocol=PROTOCOL, infeasible="miss", resamples=0)
    for name in ("accuracy@1", "mrr@1000", "ndcg@20"):
        assert report.metrics[name].value == pytest.approx(1), name
    assert report.metrics["ndcg_ones@20"].value < 1


def test_requests_without_labels_are_left_out_and_counted():
    case = problem()
    case["targets"] = case["targets"].copy()
    case["targets"][[0, 9]] = -1
    report = evaluate(**case, protocol=PROTOCOL, infeasible="miss", resamples=0)
    assert (report.requests, report.skipped) == (48, 2)
    assert 0 not in report.counted
    assert 9 not in report.counted


def test_requests_without_hits():
    case = problem(missing=0.0)
    case["targets"] = case["targets"].copy()
    case["targets"][4] = 99
    with pytest.raises(UserError, match=r"1 of 50 requests have no hit .* request 4"):
        evaluate(**case, protocol=PROTOCOL, resamples=0)
    report = evaluate(**case, protocol=PROTOCOL, infeasible="miss", resamples=0)
    assert report.infeasible == 1
    assert all(report.per_request[name][4] == 0 for name in report.per_request)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"protocol": Protocol("deep", 1, k=(301,))}, "k is 301, but the gallery has 300"),
        ({"targets": np.zeros((50, 3), int)}, "targets have 3 attributes, but the gallery's labels have 4"),
        ({"targets": np.zeros((49, 4), int)}, "targets have 49 rows, but there are 50"),
        ({"targets": np.full((50, 4), -1)}, "none of 50 requests"),
        ({"gallery_labels": np.full((300, 4), -2)}, "range from -2 to -2, first out of range in row 0"),
        ({"gallery_labels": np.zeros((300, 4))}, "type float64"),
        ({"queries": np.full((50, 8), np.nan, np.float32)}, "50 of 50 query embeddings"),
        ({"protocol": Protocol("item", 0, hit="instance", k=(1,))}, "give item ids"),
    ],
)
def test_bad_input_is_named(change, message):
    with pytest.raises(UserError, match=message):
        evaluate(**({"protocol": PROTOCOL} | problem(missing=0.0) | change))
