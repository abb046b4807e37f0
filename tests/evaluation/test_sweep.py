# SPDX-License-Identifier: MIT
"""The gallery sweep against the definition written out, one request and one gallery at a time."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_evaluator import problem

from fm_bench.evaluation import Protocol, evaluate, sweep
from fm_bench.evaluation.hits import Hits
from fm_bench.evaluation.relevance import Codes
from fm_bench.retrieval.ordering import TieOrder

SHARES = (0.05, 0.125, 0.25, 0.5, 1.0)
PROTOCOLS = {
    "attributes": Protocol("sweep", changes=1, k=(20,), ndcg=(), mrr=(), sweep=SHARES),
    "instance": Protocol("sweep", changes=0, hit="instance", k=(20,), ndcg=(), mrr=(), sweep=SHARES),
}


def with_items(case, seed, per_item=3):
    n, r = len(case["gallery"]), len(case["queries"])
    items = np.random.default_rng(seed).permutation(n) // per_item
    wanted = np.random.default_rng(seed + 1).integers(0, items.max() + 1, r)
    return case | {"gallery_items": items, "query_items": wanted}


def nested(case, protocol, seed=0):
    """The choice of images and of kept hits, which has tests of its own below."""
    codes = Codes.of(case["targets"], case["gallery_labels"], protocol.missing)
    items = (case["gallery_items"], case["query_items"]) if protocol.hit == "instance" else None
    hits = Hits(codes, case["exclude"], items, 1)
    n, r = len(case["gallery"]), len(case["queries"])
    return sweep.Nested(hits, protocol.sweep, np.arange(n), np.arange(r), seed)


def is_hit(case, protocol, q):
    if protocol.hit == "instance":
        hit = case["gallery_items"] == case["query_items"][q]
    else:
        wanted = case["targets"][q] >= 0
        hit = (case["gallery_labels"][:, wanted] == case["targets"][q][wanted]).all(axis=1)
    hit = hit.copy()
    if case["exclude"][q] >= 0:
        hit[case["exclude"][q]] = False
    return hit


def slowly(case, protocol, seed=0):
    """``(R, S)`` whether the kept hit is among the first 20 of each gallery."""
    chosen = nested(case, protocol, seed)
    n, r = len(case["gallery"]), len(case["queries"])
    ties = TieOrder(np.arange(n), np.arange(r), seed)
    found = np.zeros((r, len(chosen.sizes)))
    for q in range(r):
        kept, hit = chosen.kept[q], is_hit(case, protocol, q)
        if kept < 0:
            continue
        for s in range(len(chosen.sizes)):
            gallery = [j for j in np.flatnonzero(chosen.segment <= s) if not hit[j] and j != case["exclude"][q]]
            ids = np.array([*gallery, kept])
            distance = np.square(case["gallery"][ids].astype(np.float64) - case["queries"][q]).sum(axis=1)
            order = np.lexsort((ties(np.full(len(ids), q), ids), distance))
            found[q, s] = ids[order].tolist().index(kept) < 20
            assert chosen.distractors[q, s] == len(gallery)
    return found


@given(
    st.sampled_from(["attributes", "instance"]),
    st.integers(40, 300),
    st.integers(1, 8),
    st.sampled_from(["plain", "rounded", "constant"]),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=50, deadline=None)
def test_equals_the_definition(hit, n, r, kind, seed):
    case = with_items(problem(n, r, a=2, values=4, d=3, seed=seed), seed)
    if kind != "plain":
        scale = 1 if kind == "rounded" else 0
        case |= {name: np.round(case[name]) * scale for name in ("gallery", "queries")}
    protocol = PROTOCOLS[hit]
    report = evaluate(**case, protocol=protocol, infeasible="miss", resamples=0)
    expected = slowly(case, protocol)
    for s, size in enumerate(report.sweep.sizes):
        np.testing.assert_array_equal(report.per_request[f"accuracy@20|{size}"], expected[:, s])


@pytest.mark.parametrize("hit", ["attributes", "instance"])
def test_galleries_are_nested_and_hits_are_kept(hit):
    case = with_items(problem(1000, 200, a=3), 8)
    chosen = nested(case, PROTOCOLS[hit])
    assert chosen.sizes.tolist() == [50, 125, 250, 500, 1000]
    for s, size in enumerate(chosen.sizes):
        assert (chosen.segment <= s).sum() == size
    for q in range(200):
        hits = np.flatnonzero(is_hit(case, PROTOCOLS[hit], q))
        assert chosen.kept[q] in hits if len(hits) else chosen.kept[q] == -1
    other = nested(case, PROTOCOLS[hit], seed=1)
    assert not np.array_equal(chosen.segment, other.segment)
    assert not np.array_equal(chosen.kept, other.kept)


def test_every_hit_is_kept_as_often_as_the_others():
    case = problem(60, 3000, a=1, missing=0.0)
    case |= {"exclude": np.full(3000, -1), "targets": np.zeros((3000, 1), int)}
    case["gallery_labels"] = np.repeat([0, 1], [6, 54])[:, None]
    kept = np.bincount(nested(case, PROTOCOLS["attributes"]).kept, minlength=60)
    assert kept[6:].sum() == 0
    assert np.abs(kept[:6] - 500).max() < 4 * np.sqrt(3000 * 5 / 36)


def test_gallery_order_and_blocks_change_nothing(monkeypatch):
    case = with_items(problem(400, 60, seed=2), 2)
    case |= {name: np.round(case[name]) for name in ("gallery", "queries")}
    keys = np.random.default_rng(0).permutation(10_000)[:400]
    order = np.random.default_rng(1).permutation(400)
    mixed = case | {name: case[name][order] for name in ("gallery", "gallery_labels", "gallery_items")}
    mixed["exclude"] = np.append(np.argsort(order), -1)[case["exclude"]]
    for protocol in PROTOCOLS.values():
        asked = {"protocol": protocol, "infeasible": "miss", "resamples": 100}
        straight = evaluate(**case, **asked, gallery_keys=keys)
        assert 0 < straight.sweep.accuracy[0] < 1
        assert repr(evaluate(**mixed, **asked, gallery_keys=keys[order]).metrics) == repr(straight.metrics)  # NaN too
        with monkeypatch.context() as patch:
            patch.setattr("fm_bench.evaluation.hits._PAIRS", 9)
            patch.setattr("fm_bench.retrieval.scan._ROWS", 7)
            patch.setattr("fm_bench.retrieval.scan._QUERIES", 11)
            patch.setattr("fm_bench.retrieval.scan._PAIRS", 5)
            assert repr(evaluate(**case, **asked, gallery_keys=keys).metrics) == repr(straight.metrics)


@pytest.mark.parametrize("kind", ["random", "constant"])
@pytest.mark.parametrize("hit", ["attributes", "instance"])
def test_a_random_embedding_scores_at_chance(kind, hit):
    case = with_items(problem(2000, 3000, a=5, values=4, missing=0.0, seed=6), 6)
    if kind == "constant":
        case |= {name: np.zeros_like(case[name]) for name in ("gallery", "queries")}
    report = evaluate(**case, protocol=PROTOCOLS[hit], infeasible="miss", resamples=0)
    assert report.sweep.sizes == (100, 250, 500, 1000, 2000)
    for size, accuracy, chance in zip(*report.sweep[1:], strict=True):
        assert abs(accuracy - chance) < 4 * np.sqrt(chance / 3000), size
        if hit == "instance":
            assert chance == pytest.approx(20 / size, rel=0.05)
        assert report.metrics[f"chance@20|{size}"].value == chance


@pytest.mark.parametrize("hit", ["attributes", "instance"])
def test_accuracy_falls_as_the_gallery_grows(hit):
    case = with_items(problem(1000, 300, seed=9), 9)
    rng = np.random.default_rng(0)
    towards = nested(case, PROTOCOLS[hit]).kept
    case["queries"] = (case["gallery"][towards] + 0.8 * rng.standard_normal((300, 8))).astype(np.float32)
    report = evaluate(**case, protocol=PROTOCOLS[hit], infeasible="miss", resamples=500)
    table = np.column_stack([report.per_request[f"accuracy@20|{size}"] for size in report.sweep.sizes])
    assert (np.diff(table, axis=1) <= 0).all()  # of every request: more distractors never help
    assert report.sweep.accuracy[0] > report.sweep.accuracy[-1] > 0
    small, large = report.sweep.accuracy[0], report.sweep.accuracy[-1]
    ratio = report.metrics["increment_ratio@20"]
    assert ratio.value == pytest.approx((small - large) / large)
    assert 0 < ratio.low < ratio.value < ratio.high
    assert "increment_ratio@20" not in report.per_request


def test_the_interval_is_of_the_ratio_of_means():
    rng = np.random.default_rng(0)
    large = (rng.random(4000) < 0.5).astype(float)
    small = np.maximum(large, rng.random(4000) < 0.4)
    found = sweep.increment_ratio(small, large, 4000, 0)
    # the delta method for small / large - 1, of paired values
    error = np.std(small / large.mean() - large * small.mean() / large.mean() ** 2) / np.sqrt(4000)
    assert found.low == pytest.approx(found.value - 1.96 * error, abs=0.15 * error)
    assert found.high == pytest.approx(found.value + 1.96 * error, abs=0.15 * error)


def test_undefined_where_nothing_is_found_in_the_whole_gallery():
    case = problem(400, 10, a=1, missing=0.0)
    case["exclude"] = np.full(10, -1)
    case["gallery_labels"] = np.repeat([0, 1], [1, 399])[:, None]
    case["targets"] = np.zeros((10, 1), int)
    case["queries"] = -10 * np.tile(case["gallery"][0], (10, 1))  # the only hit is the farthest image, or nearly
    report = evaluate(**case, protocol=PROTOCOLS["attributes"], resamples=100)
    assert report.sweep.accuracy[-1] == 0
    assert np.isnan(report.metrics["increment_ratio@20"].value)
    content = report.as_json()
    assert "increment_ratio@20" not in content["metrics"]
    assert content["sweep"]["sizes"] == (20, 50, 100, 200, 400)
    json.dumps(content, allow_nan=False)


def test_requests_without_hits_are_missed_in_every_size():
    case = problem(100, 20, missing=0.0)
    case["targets"] = case["targets"].copy()
    case["targets"][3] = 99
    report = evaluate(**case, protocol=PROTOCOLS["attributes"], infeasible="miss", resamples=0)
    assert all(values[3] == 0 for values in report.per_request.values())


def test_tiny_galleries_have_fewer_sizes():
    case = problem(12, 6, a=1, missing=0.0)
    protocol = Protocol("tiny", 1, k=(1,), ndcg=(), mrr=(), sweep=(0.01, 0.02, 1.0))
    report = evaluate(**case, protocol=protocol, infeasible="miss", resamples=0)
    assert report.sweep.sizes == (1, 12)


def test_without_a_sweep_nothing_is_swept():
    report = evaluate(**problem(), protocol=Protocol("x", 1), infeasible="miss", resamples=0)
    assert report.sweep is None
    assert "sweep" not in report.as_json()
    assert not any("|" in name for name in report.metrics)


def test_success_is_the_share_of_hits():
    case = problem(200, 30, a=2)
    protocol = Protocol("region", 1, k=(5,), ndcg=(), mrr=(), success=(1, 5, 7))
    report = evaluate(**case, protocol=protocol, infeasible="miss", resamples=100)
    for q, ids in enumerate(report.ranking.ids):
        hits = is_hit(case, protocol, q)[ids]
        for k in (1, 5, 7):
            assert report.per_request[f"success@{k}"][q] == pytest.approx(hits[:k].sum() / k)
    values = report.per_request
    np.testing.assert_array_equal(values["success@5"] > 0, values["accuracy@5"] == 1)
    assert 0 < report.metrics["success@5"].value < report.metrics["accuracy@5"].value
    assert report.metrics["success@5"].low < report.metrics["success@5"].high
