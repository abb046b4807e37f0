# SPDX-License-Identifier: MIT
"""A gallery that depends on the request: what one search per view gives, and that views come and go one at a time."""

import gc
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_evaluator import PROTOCOL, problem

from fm_bench.errors import UserError
from fm_bench.evaluation import Protocol, evaluate

SWEPT = Protocol("swept", changes=1, k=(1, 5), ndcg=(10,), mrr=(10, 1000), success=(5,), sweep=(0.1, 0.3, 1.0))
ITEMS = Protocol("items", changes=0, hit="instance", k=(1, 20), ndcg=(20,), mrr=(1000,), sweep=(0.2, 1.0))


def tied(seed=0, **sizes):
    case = problem(seed=seed, **sizes)
    return case | {name: np.round(case[name]) for name in ("gallery", "queries")}


def same(left, right):
    """Reports that agree in every bit."""
    np.testing.assert_array_equal(left.counted, right.counted)
    for a, b in zip(left.ranking, right.ranking, strict=True):
        np.testing.assert_array_equal(a, b)
    assert left.per_request.keys() == right.per_request.keys()
    for name, values in left.per_request.items():
        np.testing.assert_array_equal(values, right.per_request[name], err_msg=name)
    for name in ("metrics", "by_attribute", "by_changes", "tied_share", "skipped", "infeasible", "sweep"):
        assert repr(getattr(left, name)) == repr(getattr(right, name)), name


@given(st.integers(1, 6), st.sampled_from([PROTOCOL, SWEPT, ITEMS]), st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_equal_views_are_the_gallery(parts, protocol, seed):
    rng = np.random.default_rng(seed)
    case = tied(seed=seed)
    case["targets"] = case["targets"].copy()
    case["targets"][rng.integers(0, 50, 3)] = -1  # not counted under attribute hits
    case |= {"gallery_items": np.arange(300) // 3, "query_items": rng.integers(0, 100, 50)}
    asked = {"protocol": protocol, "infeasible": "miss", "resamples": 50, "query_keys": rng.permutation(900)[:50]}
    group = rng.integers(0, parts, 50)
    views = ((np.flatnonzero(group == g), case["gallery"].copy()) for g in rng.permutation(parts))
    same(evaluate(**case, **asked), evaluate(**case | {"gallery": None}, **asked, views=views))


@pytest.mark.parametrize("protocol", [PROTOCOL, SWEPT])
def test_views_are_searched_apart(protocol):
    case = tied(seed=3)
    rng = np.random.default_rng(5)
    galleries = [case["gallery"], np.round(rng.standard_normal((300, 8))).astype(np.float32)]
    group = rng.integers(0, 2, 50)
    rows = [np.flatnonzero(group == g) for g in range(2)]
    asked = {"protocol": protocol, "infeasible": "miss", "resamples": 0}
    report = evaluate(**case, **asked, views=zip(rows, galleries, strict=True))
    for part, gallery in zip(rows, galleries, strict=True):
        some = {name: case[name][part] for name in ("queries", "targets", "exclude", "changed")}
        alone = evaluate(gallery, gallery_labels=case["gallery_labels"], **some, **asked, query_keys=part)
        np.testing.assert_array_equal(report.ranking.ids[part], alone.ranking.ids)
        for name, values in alone.per_request.items():
            np.testing.assert_array_equal(report.per_request[name][part], values, err_msg=name)
    whole = evaluate(**case, **asked)
    assert not np.array_equal(report.ranking.ids, whole.ranking.ids)


@pytest.mark.parametrize("protocol", [PROTOCOL, SWEPT])
def test_one_view_is_alive_at_a_time(protocol):
    case = problem(seed=4)
    alive: list[weakref.ref] = []

    def views():
        for part in np.array_split(np.arange(50), 5):
            assert all(reference() is None for reference in alive)
            gallery = case["gallery"].copy()
            alive.append(weakref.ref(gallery))
            yield part, gallery
            del gallery

    gc.disable()  # references must end, not wait in cycles
    try:
        evaluate(**case, protocol=protocol, infeasible="miss", resamples=0, views=views())
    finally:
        gc.enable()
    assert len(alive) == 5


@pytest.mark.parametrize(
    ("views", "error", "message"),
    [
        ([(np.arange(49), 300)], ValueError, "no view holds request 49"),
        ([(np.arange(50), 300), (np.array([7]), 300)], ValueError, "two views hold request 7"),
        ([(np.arange(50), 299)], ValueError, "a view has 299 gallery vectors, but there are 300 images"),
        ([(np.arange(50), np.nan)], UserError, "300 of 300 gallery embeddings hold NaN"),
    ],
)
def test_bad_views_are_named(views, error, message):
    case = problem()
    galleries = [(rows, np.full((300, 8), n, np.float32) if np.isnan(n) else case["gallery"][:n]) for rows, n in views]
    with pytest.raises(error, match=message):
        evaluate(**case, protocol=PROTOCOL, infeasible="miss", resamples=0, views=galleries)


def test_a_gallery_is_needed():
    with pytest.raises(ValueError, match="give the gallery or views of it"):
        evaluate(**problem() | {"gallery": None}, protocol=PROTOCOL)
