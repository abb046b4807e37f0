# SPDX-License-Identifier: MIT
"""The detector, from pictures with boxes to detections and its protocol."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fm_bench.catalog import Domain, Split
from fm_bench.data.garments import GarmentsReader
from fm_bench.detection.boxes import iou
from fm_bench.detection.judging import choose, judge
from fm_bench.errors import UserError
from fm_bench.evaluation.protocol import Protocol
from fm_bench.methods import METHODS
from fm_bench.methods.attribute_network import ATTRIBUTES
from fm_bench.methods.detector import BOXES, Detector

PROTOCOL = Protocol("detection", changes=0, hit="instance", k=(3,), ndcg=(), mrr=(), kind="detection")
SMALL = {"backbone": "resnet10t", "region_size": 32, "training_images": 24, "jitter": 3}


@pytest.fixture(scope="module")
def dataset():
    return GarmentsReader(train=80, val=2, test=60, street=1 / 3, views=3).read()


def build(dataset, **options):
    torch.manual_seed(0)
    return Detector(dataset.catalog.schema.to_dict(), **SMALL | options).eval()


def start(model, dataset):
    """Runs the stage as the Trainer would."""
    datamodule = SimpleNamespace(dataset=dataset, image_size=(32, 32))
    model._trainer = SimpleNamespace(datamodule=datamodule, precision="32-true")
    model.stage_seed = 5
    model.on_boxes_start(iter(()))
    model._trainer = None
    return model


@pytest.fixture(scope="module")
def fitted(dataset):
    return start(build(dataset), dataset)


def test_it_is_registered_and_its_variants_train_what_the_table_says(dataset):
    assert METHODS["detector"] is Detector
    assert build(dataset).stages == (ATTRIBUTES, BOXES)
    assert build(dataset, features="given").stages == (BOXES,)
    assert build(dataset, scorer="whole").stages == ()
    assert Detector.stages == (ATTRIBUTES, BOXES)


def test_rows_say_what_stood_in_for_what(dataset):
    assert any("background" in note for note in build(dataset).row_notes)
    assert any("random weights" in note for note in build(dataset, features="given").row_notes)
    assert not any("random weights" in note for note in build(dataset).row_notes)
    assert build(dataset, scorer="whole").row_notes == ["the whole picture is the box"]


def test_training_pictures_are_of_both_domains_and_of_the_training_split(dataset):
    model = build(dataset)
    images, truth = model.training_pictures(dataset)
    assert images.shape == (24, 128, 128, 3)
    rows = [int(np.flatnonzero((dataset.catalog.box == box).all(axis=1))[0]) for box in truth]
    assert (dataset.catalog.split[rows] == Split.TRAIN).all()
    assert abs(int((dataset.catalog.domain[rows] == Domain.STREET).sum()) - 12) <= 1


def test_fitted_detector_orders_boxes_of_its_training_pictures(dataset, fitted):
    images, truth = fitted.training_pictures(dataset)
    proposals = fitted.propose(images)
    detections = fitted.detect(images, proposals)
    best = detections.best(len(images))
    reached = np.diag(iou(best, truth))
    typical = np.mean([iou(part, box[None]).mean() for part, box in zip(proposals, truth, strict=True)])
    assert reached.mean() > typical + 0.15
    assert (np.diff(detections.picture) >= 0).all()
    same = np.diff(detections.picture) == 0
    assert (np.diff(detections.score)[same] <= 0).all()
    assert (detections.box >= 0).all()
    assert (detections.box <= 1).all()


def test_fitting_is_deterministic_and_lies_in_the_state(dataset, fitted):
    again = start(build(dataset), dataset)
    state = fitted.state_dict()
    for name in ("score_weight", "score_bias", "offset_weight", "offset_bias", "shape", "reduced"):
        assert torch.equal(state[name], again.state_dict()[name])
    assert fitted.score_weight.abs().sum() > 0
    restored = build(dataset)
    restored.load_state_dict(state)
    images = dataset.source.read("test/0", (128, 128))[None]
    one, two = (model.detect(images, model.propose(images)) for model in (fitted, restored))
    assert all(np.array_equal(first, second) for first, second in zip(one, two, strict=True))


def test_svm_and_networks_with_fully_connected_layers_fit_too(dataset):
    model = start(build(dataset, features="given", scorer="svm", training_images=6), dataset)
    assert model.score_weight.abs().sum() > 0
    assert model.score_weight.shape == (1, 4 * model.backbone.dim)
    plain = build(dataset)
    del plain.backbone.features.global_pool  # what alexnet looks like
    assert not plain._has_maps


def test_arguments_that_no_weight_depends_on_are_not_in_the_stage(dataset):
    one, two = (build(dataset, retriever=folder).stage_config(BOXES) for folder in (None, "there"))
    assert one == two


def test_sample_pairs_street_photos_with_shop_photos_of_their_items(dataset):
    sample = choose(dataset, images=5, gallery=12, seed=0)
    item, domain = dataset.catalog.item, dataset.catalog.domain
    assert len(sample.street) == 5 == len(sample.shop)
    assert (item[sample.shop] == item[sample.street]).all()
    assert (domain[sample.street] == Domain.STREET).all()
    everything = np.concatenate([sample.shop, sample.others])
    assert (domain[everything] == Domain.SHOP).all()
    assert len(np.unique(everything)) == len(everything) == 12
    again = choose(dataset, images=5, gallery=12, seed=0)
    assert all(np.array_equal(one, two) for one, two in zip(sample, again, strict=True))


def test_judging_reports_every_metric_and_what_each_picture_adds(dataset, fitted):
    metrics, each = judge(fitted, dataset, PROTOCOL, images=6)
    assert list(metrics) == [
        f"{name}@0.7 {domain}" for domain in ("shop", "street") for name in ("ap", "found", "recall")
    ]
    assert metrics.keys() == each.keys()
    for name, estimate in metrics.items():
        assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
        assert each[name].shape == (6,)
        assert each[name].mean() == pytest.approx(estimate.value)
    assert judge(fitted, dataset, PROTOCOL, images=6)[0] == metrics


def test_whole_pictures_are_a_floor(dataset):
    metrics, _ = judge(build(dataset, scorer="whole"), dataset, PROTOCOL, images=10)
    assert metrics["ap@0.7 shop"].value == pytest.approx(metrics["found@0.7 shop"].value ** 2)
    assert metrics["found@0.7 shop"] == metrics["recall@0.7 shop"]


def test_data_without_boxes_are_refused(dataset):
    bare = dataset._replace(catalog=dataset.catalog.select(np.arange(len(dataset.catalog))))
    object.__setattr__(bare.catalog, "box", None)
    with pytest.raises(UserError, match="without boxes"):
        build(dataset).training_pictures(bare)


def test_a_folder_that_holds_no_run_is_refused(dataset, tmp_path):
    with pytest.raises(UserError, match="not the folder of a run"):
        judge(build(dataset, scorer="whole"), dataset, PROTOCOL, images=3, retriever=tmp_path)
