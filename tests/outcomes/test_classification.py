# SPDX-License-Identifier: MIT
import dataclasses
import json

import numpy as np
import pytest
import torch
from catalogues import catalogue, dataset, random_labels, schema
from sklearn.linear_model import LogisticRegression

from fm_bench.catalog import Dataset
from fm_bench.config import configure
from fm_bench.data.batches import LabelledBatch
from fm_bench.data.datamodule import FashionDataModule
from fm_bench.data.requests import Requests
from fm_bench.methods import Method
from fm_bench.outcomes import Trained
from fm_bench.outcomes.classification import PENALTY, learn, obstacle, outcome, score, summarize
from fm_bench.questions import load_protocol

SIZES = (3, 2, 4)
METRICS = {"manipulated", "original", "difference", "kept", "kept_original"}
CONFIG = configure("random", "garments", "smoke", "common", 0)


class Told(Method):
    """Vectors that tell the labels, turned in space; requests are followed, ignored, or all that counts."""

    needs_labels = True

    def __init__(self, attributes, listens: str = "well") -> None:
        super().__init__(attributes)
        self.listens = listens
        self.turn_by = torch.linalg.qr(torch.randn(2 * self.schema.num_values, self.schema.num_values)).Q.T
        self.contexts = []

    def embed_gallery(self, images, context=None):
        self.contexts.append(context)
        return self.schema.one_hot(context.labels) @ self.turn_by + 5

    def embed_query(self, images, indicator, context=None):
        labels = context.labels if self.listens == "never" else self.schema.edit(context.labels, indicator)
        if self.listens == "only":  # one attribute after the other is forgotten but the wanted one
            asked = torch.stack([block.amax(-1) > 0 for block in torch.split(indicator, list(self.schema.sizes), 1)], 1)
            labels = torch.where(asked, labels, torch.tensor(self.schema.sizes) - 1 - labels)
        return self.embed_gallery(images, context._replace(labels=labels))


class Looks(Method):
    """Mean colours: knows nothing but the picture."""

    def __init__(self, attributes) -> None:
        super().__init__(attributes)
        self.contexts = []

    def embed_gallery(self, images, context=None):
        self.contexts.append(context)
        return images.mean((2, 3))

    def embed_query(self, images, indicator, context=None):
        return self.embed_gallery(images, context)


def trained(method, tmp_path, data: Dataset, street: float = 0.0) -> Trained:
    module = FashionDataModule(data, image_size=(8, 8), batch_size=16, cache=tmp_path / "cache")
    module.setup("fit")
    module.setup("predict")
    torch.manual_seed(0)
    return Trained(CONFIG, method(data.catalog.schema.to_dict()).eval(), data, module, {}, tmp_path)


def test_vectors_of_labels_are_read_without_a_mistake(tmp_path):
    found = outcome(load_protocol("classification"), trained(Told, tmp_path, dataset(missing=0.1)))
    assert found.requests == 120
    for name in METRICS - {"difference"}:
        assert found.metrics[name].value == 1
    assert found.metrics["difference"].value == 0


@pytest.mark.parametrize(
    ("listens", "expected"),
    [
        ("never", {"manipulated": 0, "original": 1, "difference": -1, "kept": 1, "kept_original": 1}),
        ("only", {"manipulated": 1, "original": 1, "difference": 0, "kept_original": 1}),
    ],
)
def test_what_a_method_does_not_do_shows(tmp_path, listens, expected):
    data = dataset(sizes=(2, 2, 4), missing=0)
    found = outcome(load_protocol("classification"), trained(lambda names: Told(names, listens), tmp_path, data))
    assert {name: found.metrics[name].value for name in expected} == expected
    if listens == "only":
        assert found.metrics["kept"].value == 0


def test_every_array_has_the_mean_that_the_record_states_and_tells_what_changes(tmp_path):
    data = dataset(missing=0.2)
    run = trained(lambda names: Told(names, "never"), tmp_path, data)
    found = outcome(load_protocol("classification"), run)
    names = data.catalog.schema.names
    assert set(found.metrics) == METRICS
    assert set(found.per_request) == METRICS
    assert set(found.changing) == set(names)
    for name, estimate in found.metrics.items():
        values = found.per_request[name]
        assert values.shape == (found.requests,)
        assert np.nanmean(values) == pytest.approx(estimate.value, abs=1e-9)
        assert estimate.low <= estimate.value <= estimate.high
    changes = np.stack([found.changing[name] for name in names])
    assert (changes.sum(axis=0) == 1).all()
    for name, part in found.by_attribute.items():
        here = found.changing[name]
        assert set(part) == METRICS
        assert part["manipulated"].value == pytest.approx(found.per_request["manipulated"][here].mean())
        assert part["difference"].value == pytest.approx(part["manipulated"].value - part["original"].value)
    assert found.metrics["difference"].value == pytest.approx(
        np.mean([part["difference"].value for part in found.by_attribute.values()])
    )
    json.dumps({name: estimate._asdict() for name, estimate in found.metrics.items()}, allow_nan=False)


def test_invariant_17_the_difference_is_the_mean_over_attributes_of_table_5():
    before, after, times = (0.352, 0.730, 0.768), (0.577, 0.866, 0.714), (1000, 3000, 2000)
    attribute = np.repeat(np.arange(3), times)
    number = len(attribute)
    own, wanted = np.zeros((number, 3), np.int16), np.ones(number, np.int16)
    target = own.copy()
    target[np.arange(number), attribute] = 1
    pad = np.full(number, -1)
    requests = Requests(
        schema((2, 2, 2)),
        np.arange(number),
        np.stack([attribute, pad], axis=1).astype(np.int16),
        np.stack([wanted, pad], axis=1).astype(np.int16),
        target,
    )
    inside = np.concatenate([np.arange(n) / n for n in times])
    read = np.where((inside < np.take(before, attribute))[:, None], own, 1)
    edited = np.where((inside < np.take(after, attribute))[:, None], target, 1 - target)
    scores = score(requests, own, read.astype(np.int64), edited.astype(np.int64))
    total, parts = summarize(scores, requests)
    assert total["difference"].value == pytest.approx(0.10233, abs=5e-6)
    assert scores["difference"].mean() == pytest.approx(0.10233, abs=5e-6)
    assert total["manipulated"].value - total["original"].value != pytest.approx(0.10233, abs=1e-3)  # more colours
    assert [part["original"].value for part in parts.values()] == pytest.approx(before)
    assert [part["manipulated"].value for part in parts.values()] == pytest.approx(after)
    assert 0.07 < total["difference"].low < 0.10233 < total["difference"].high < 0.13


def test_the_classifiers_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    labels = random_labels(400, SIZES, missing=0.2, seed=1)
    weights = rng.normal(size=(sum(SIZES), 6))
    codes = np.concatenate([np.eye(size)[labels[:, m]] for m, size in enumerate(SIZES)], axis=1)
    vectors = (codes @ weights + rng.normal(size=(400, 6)) * 2 + 30).astype(np.float32)
    vectors = np.hstack([vectors, np.full((400, 1), 7, np.float32)])  # says nothing, and must do no harm
    read = learn(vectors, labels, schema(SIZES), torch.device("cpu")).read(vectors)
    scaled = (vectors - vectors.mean(0)) / np.where(vectors.std(0) > 1e-3, vectors.std(0), 1)
    for m in range(3):
        here = labels[:, m] >= 0
        model = LogisticRegression(C=1 / (PENALTY * here.sum()), tol=1e-8, max_iter=1000)
        if SIZES[m] == 2:  # two columns of weights share what scikit-learn's one carries: half the penalty on it
            model = LogisticRegression(C=2 / (PENALTY * here.sum()), tol=1e-8, max_iter=1000)
        expected = model.fit(scaled[here], labels[here, m]).predict(scaled)
        assert (read[:, m] == expected).mean() > 0.99
        assert 0.4 < (expected == labels[:, m])[here].mean() < 0.99


def test_an_attribute_that_nobody_labelled_teaches_nothing():
    labels = random_labels(60, SIZES, missing=0, seed=0)
    labels[:, 1] = -1
    vectors = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    read = learn(vectors, labels, schema(SIZES), torch.device("cpu")).read(vectors)
    assert (read[:, 1] == 0).all()
    assert np.ptp(read[:, 2]) > 0


def test_all_training_pictures_teach_whichever_a_stage_chose(tmp_path):
    run = trained(Looks, tmp_path, dataset(missing=0))
    first = outcome(load_protocol("classification"), run)
    run.datamodule.use(LabelledBatch, rows=np.arange(4))
    again = outcome(load_protocol("classification"), run)
    for name in METRICS:
        np.testing.assert_array_equal(first.per_request[name], again.per_request[name])
    assert first.request_digest == again.request_digest


def test_labels_are_hidden_and_domains_told(tmp_path):
    run = trained(Looks, tmp_path, dataset((120, 60, 80), missing=0, street=0.4))
    outcome(load_protocol("classification"), run)
    contexts = run.method.contexts
    assert all(context.labels is None for context in contexts)
    domain = torch.cat([context.domain for context in contexts])[:120]  # training pictures come first
    rows = torch.cat([context.image_index for context in contexts])[:120]
    catalog = run.dataset.catalog
    assert (np.sort(rows.numpy()) == catalog.rows(0)).all()
    assert (domain.numpy() == catalog.domain[rows.numpy()]).all()
    assert domain.unique().tolist() == [0, 1]


def test_methods_with_several_spaces_and_data_without_requests_are_refused():
    data = dataset()
    assert obstacle(CONFIG, data) is None
    several = configure("fashionsearchnet", "garments", "smoke", "common", 0)
    assert "fashionsearchnet searches each kind of request in a space of its own" in str(obstacle(several, data))
    alone = Dataset(catalogue([[0, 0]] * 9, (2, 2), [0] * 3 + [1] * 3 + [2] * 3), data.source)
    assert "no feasible 1-attribute request" in str(obstacle(CONFIG, alone))


def test_fewer_requests_are_the_first_of_more(tmp_path):
    run = trained(Looks, tmp_path, dataset(missing=0))
    few = dataclasses.replace(CONFIG, evaluation=dataclasses.replace(CONFIG.evaluation, requests=20))
    short = outcome(load_protocol("classification"), run._replace(config=few))
    whole = outcome(load_protocol("classification"), run)
    assert (short.requests, whole.requests) == (20, 120)
    np.testing.assert_array_equal(short.per_request["manipulated"], whole.per_request["manipulated"][:20])
