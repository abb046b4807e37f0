# SPDX-License-Identifier: MIT
"""Counts, orders and sums of times; no test says how long anything takes."""

import dataclasses
import json
import math
import weakref

import numpy as np
import pytest
import torch
from catalogues import catalogue, dataset

from fm_bench.catalog import Dataset
from fm_bench.config import configure
from fm_bench.data.datamodule import FashionDataModule
from fm_bench.data.requests import exclusions
from fm_bench.evaluation.latency import PERCENTILES, WARM_UP, enlarged, estimates, percentile, timed
from fm_bench.methods import Method
from fm_bench.outcomes import Trained, latency
from fm_bench.questions import ask, load_protocol
from fm_bench.retrieval import ready
from fm_bench.retrieval.ready import ReadyIndex
from fm_bench.retrieval.search import search

TIMES = ("t_sum_ms", "t_repr_ms", "t_sea_ms")
CONFIG = configure("random", "garments", "smoke", "common", 0, ["--evaluation.requests", "40"])
PROTOCOL = load_protocol("latency")
GALLERY = 300


class Looks(Method):
    """Fixed functions of picture and request; remembers how many pictures it saw at a time."""

    def __init__(self, attributes) -> None:
        super().__init__(attributes)
        self.batches = []
        self.mix = torch.randn(self.schema.num_values, 3 * 64)

    def embed_gallery(self, images, context=None):
        return images.flatten(1)

    def embed_query(self, images, indicator, context=None):
        self.batches.append(len(images))
        assert context.labels is None
        return self.embed_gallery(images) + 0.3 * indicator @ self.mix


class Turns(Looks):
    """Searches each attribute's requests in a gallery of its own."""

    def settings(self, attribute, region):
        return attribute[:, 0].astype(np.int64)

    def gallery_view(self, stored, setting):
        return stored.roll(setting + 1, dims=1) * (setting + 1)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(latency, "GALLERY", GALLERY)


def trained(method, tmp_path, data=None) -> Trained:
    data = dataset(missing=0) if data is None else data
    module = FashionDataModule(data, image_size=(8, 8), batch_size=16, cache=tmp_path / "cache")
    module.setup("fit")
    module.setup("predict")
    torch.manual_seed(0)
    return Trained(CONFIG, method(data.catalog.schema.to_dict()).eval(), data, module, {}, tmp_path)


def questions(run: Trained):
    return ask(run.dataset, run.datamodule.gallery_rows, PROTOCOL, CONFIG.evaluation.requests)


# ---------------------------------------------------------------------------------------------------- the clock


@pytest.mark.parametrize("queries", [3, 50])
def test_warm_up_queries_are_asked_and_not_counted(queries):
    asked = []

    def work(query):
        asked.append(query)
        return len(asked)

    found, milliseconds = timed(work, queries)
    assert asked == [i % queries for i in range(WARM_UP)] + list(range(queries))
    assert found == list(range(WARM_UP + 1, WARM_UP + queries + 1))  # what the counted calls gave
    assert milliseconds.shape == (queries,)
    assert (milliseconds >= 0).all()


def test_the_clock_runs_while_a_query_is_answered_and_at_no_other_time(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("fm_bench.evaluation.latency.time.perf_counter", lambda: now[0])

    def work(query):
        now[0] += query + 1

    _, milliseconds = timed(work, 5)
    assert milliseconds.tolist() == [1000, 2000, 3000, 4000, 5000]


def test_percentiles_are_ordered_and_lie_in_their_intervals():
    values = np.random.default_rng(0).permutation(np.arange(1.0, 1001.0))
    assert [percentile(values, p).value for p in PERCENTILES] == [500, 950, 990]
    for p in PERCENTILES:
        found = percentile(values, p)
        assert found.low < found.value < found.high
        half = 1.96 * math.sqrt(1000 * p / 100 * (1 - p / 100))
        assert found.high - found.low == pytest.approx(2 * half, abs=3)
    assert percentile(np.array([7.0]), 99) == (7, 7, 7)
    assert percentile(np.array([7.0, 9.0]), 50).value == 7


def test_intervals_of_percentiles_hold_the_true_one_as_often_as_they_say():
    rng = np.random.default_rng(0)
    inside = []
    for _ in range(400):
        found = percentile(rng.exponential(size=200), 95)
        inside.append(found.low <= -math.log(0.05) <= found.high)
    assert 0.92 < np.mean(inside) < 0.99


def test_estimates_name_means_and_percentiles():
    rng = np.random.default_rng(0)
    times = {name: rng.gamma(2, size=100) for name in TIMES}
    found = estimates(times)
    assert set(found) == {name + end for name in TIMES for end in ("", "_p50", "_p95", "_p99")}
    for name in TIMES:
        assert found[name].value == pytest.approx(times[name].mean())
        assert found[f"{name}_p50"].value <= found[f"{name}_p95"].value <= found[f"{name}_p99"].value


# -------------------------------------------------------------------------------------------------- the gallery


def test_a_gallery_grows_by_noisy_copies():
    gallery = np.random.default_rng(0).normal(3, [1, 10, 0], (40, 3)).astype(np.float32)
    large = enlarged(gallery, 100)
    np.testing.assert_array_equal(large[:40], gallery)
    assert len(np.unique(large, axis=0)) == 100
    moved = large[40:] - gallery[np.arange(40, 100) % 40]
    assert moved.std(axis=0) == pytest.approx(0.1 * gallery.std(axis=0), rel=0.3)
    np.testing.assert_array_equal(large, enlarged(gallery, 100))
    np.testing.assert_array_equal(enlarged(gallery, 10), gallery[:10])


@pytest.mark.parametrize("offset", [0, 100])
@pytest.mark.parametrize("blocks", [False, True])
def test_the_ready_index_finds_what_the_search_of_the_evaluator_finds(offset, blocks, monkeypatch):
    rng = np.random.default_rng(0)
    gallery = (rng.integers(-3, 4, (500, 6)) + offset).astype(np.float32)  # whole numbers: many ties, none broken
    gallery -= gallery.mean(axis=0).round() - offset
    queries = (rng.integers(-3, 4, (20, 6)) + offset).astype(np.float32)
    exclude, keys = rng.integers(-1, 500, 20), rng.permutation(1000)[:500]
    expected = search(gallery, queries, 12, exclude=exclude, keys=keys)
    if blocks:
        init = ready.ExactIndex.__init__
        monkeypatch.setattr(
            ready.ExactIndex, "__init__", lambda self, *a, **k: init(self, *a, **k | {"block_bytes": 700})
        )
    monkeypatch.setattr(ReadyIndex, "centre", np.zeros(6, np.float32) + offset)  # whole as well
    found = ReadyIndex(gallery.copy(), keys=keys).search(queries, 12, exclude=exclude)
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_ready_index_is_made_once():
    gallery = np.random.default_rng(0).normal(50, 1, (500, 6)).astype(np.float32)
    queries = gallery[:20] + 0.3
    expected = search(gallery.copy(), queries, 5).ids
    index = ReadyIndex(gallery)
    assert abs(index.gallery.mean()) < 0.2  # centred, in place
    assert index.gallery is gallery
    assert index.centred_rows(slice(0, 500)).base is gallery  # and not copied for a query
    np.testing.assert_array_equal(
        np.concatenate([index.search(query[None], 5).ids for query in queries])[:, :1], expected[:, :1]
    )


# -------------------------------------------------------------------------------------------------- the protocol


@pytest.mark.parametrize("method", [Looks, Turns])
def test_sums_are_sums_and_every_time_is_stated(method, tmp_path, small):
    run = trained(method, tmp_path)
    found = latency.outcome(PROTOCOL, run)
    assert found.requests == 40
    assert set(found.per_request) == set(TIMES)
    total, representing, searching = (found.per_request[name] for name in TIMES)
    np.testing.assert_array_equal(total, representing + searching)
    for name in TIMES:
        assert found.per_request[name].shape == (40,)
        assert (found.per_request[name] > 0).all()
        assert found.metrics[name].value == pytest.approx(found.per_request[name].mean())
        tail = [found.metrics[f"{name}_p{p}"].value for p in PERCENTILES]
        assert tail == sorted(tail)
    for low, middle, high in ((e.low, e.value, e.high) for e in found.metrics.values()):
        assert low <= middle <= high
    json.dumps({name: estimate._asdict() for name, estimate in found.metrics.items()}, allow_nan=False)
    (note,) = found.notes
    assert f"threads: {torch.get_num_threads()}," in note
    assert "300 vectors, those of 80 gallery images and noisy copies of them" in note


def test_queries_come_one_at_a_time_after_the_warm_up(tmp_path, small):
    run = trained(Looks, tmp_path)
    latency.outcome(PROTOCOL, run)
    assert run.method.batches == [1] * (WARM_UP + 40)


def test_vectors_are_those_of_batches(tmp_path, small):
    run = trained(Looks, tmp_path)
    requests = questions(run)
    vectors, milliseconds = latency.represent(run, requests)
    (batch,) = latency.in_order(run, run.datamodule.query_dataloader(requests), 40)
    np.testing.assert_allclose(vectors, run.method.embed(batch).embedding, rtol=1e-5, atol=1e-5)
    assert milliseconds.shape == (40,)


def test_the_search_finds_what_the_evaluator_finds(tmp_path, small):
    run = trained(Looks, tmp_path)
    requests = questions(run)
    stored, (vectors, _) = latency.gallery_vectors(run), latency.represent(run, requests)
    found, _ = latency.search(run, requests, stored, vectors, 50)
    own = exclusions(requests, run.datamodule.gallery_rows)
    assert (own >= 0).all()
    expected = search(enlarged(stored, GALLERY), vectors, 50, exclude=own)
    np.testing.assert_array_equal(found, expected.ids)
    assert not (found == own[:, None]).any()


def test_queries_beyond_a_cut_gallery_exclude_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(latency, "GALLERY", 60)
    run = trained(Looks, tmp_path)
    requests = questions(run)
    stored = latency.gallery_vectors(run)
    assert len(stored) == 60
    own = exclusions(requests, run.datamodule.gallery_rows)
    assert (own >= 60).any()
    found, _ = latency.search(run, requests, stored, latency.represent(run, requests)[0], 50)
    assert found.max() < 60
    assert "60 gallery vectors" in latency.outcome(PROTOCOL, run).notes[0]


def test_every_request_is_searched_in_its_own_view_one_view_at_a_time(tmp_path, small, monkeypatch):
    run = trained(Turns, tmp_path)
    requests = questions(run)
    stored, (vectors, _) = latency.gallery_vectors(run), latency.represent(run, requests)
    alive, most = [], []

    def watched(view, size, seed=0):
        large = enlarged(view, size, seed)
        alive.append(weakref.ref(large))
        most.append(sum(ref() is not None for ref in alive))
        return large

    monkeypatch.setattr(latency, "enlarged", watched)
    found, milliseconds = latency.search(run, requests, stored, vectors, 50)
    settings = run.method.settings(requests.attribute, None)
    assert len(np.unique(settings)) == 3
    assert most == [1, 1, 1]
    own = exclusions(requests, run.datamodule.gallery_rows)
    for setting in np.unique(settings):
        here = np.flatnonzero(settings == setting)
        view = run.method.gallery_view(torch.from_numpy(stored), setting).numpy()
        expected = search(enlarged(view, GALLERY), vectors[here], 50, exclude=own[here], query_keys=here)
        np.testing.assert_array_equal(found[here], expected.ids)
    assert (milliseconds > 0).all()


def test_times_of_other_machines_answer_another_question(tmp_path, small, monkeypatch):
    run = trained(Looks, tmp_path)
    digests = [latency.outcome(PROTOCOL, run).request_digest]
    digests.append(latency.outcome(PROTOCOL, run).request_digest)
    assert digests[0] == digests[1]
    threads = torch.get_num_threads()
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads + 1)
    digests.append(latency.outcome(PROTOCOL, run).request_digest)
    assert digests[2] != digests[0]


def test_no_more_queries_than_a_thousand_or_than_asked_for(tmp_path, small, monkeypatch):
    monkeypatch.setattr(latency, "QUERIES", 15)
    run = trained(Looks, tmp_path)
    assert latency.outcome(PROTOCOL, run).requests == 15
    few = dataclasses.replace(CONFIG, evaluation=dataclasses.replace(CONFIG.evaluation, requests=7))
    assert latency.outcome(PROTOCOL, run._replace(config=few)).requests == 7


def test_data_without_requests_are_refused():
    data = dataset()
    assert latency.obstacle(CONFIG, data) is None
    alone = Dataset(catalogue([[0, 0]] * 9, (2, 2), [0] * 3 + [1] * 3 + [2] * 3), data.source)
    assert "no feasible 1-attribute request" in str(latency.obstacle(CONFIG, alone))
