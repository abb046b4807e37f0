# SPDX-License-Identifier: MIT
"""What drawn prototypes score, with a reader that knows every picture it can be shown, and the real classifier."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from fm_bench.attributes import MISSING
from fm_bench.bench import Bench, data_module
from fm_bench.config import configure
from fm_bench.data.batches import QueryBatch
from fm_bench.data.crops import cropped
from fm_bench.data.requests import Requests
from fm_bench.data.transforms import normalise
from fm_bench.errors import UserError
from fm_bench.methods.base import Method
from fm_bench.methods.bounds import Identity
from fm_bench.outcomes import generation
from fm_bench.outcomes.generation import agreement, classifier_config, compare, obstacle, outcome, redrawn
from fm_bench.outcomes.shares import estimates
from fm_bench.outcomes.trained import Trained
from fm_bench.questions import ask, load_protocol

SIZES = ["--data.train", "60", "--data.val", "40", "--data.test", "150", "--evaluation.gallery", "120"]
PROTOCOL = load_protocol("generation")


class _Artist(Method):
    """Draws whatever a function of the query picture and the batch's positions gives."""

    draws = True

    def __init__(self, schema, paint):
        super().__init__(schema.to_dict())
        self.paint, self.at = paint, 0

    def embed_gallery(self, images, context=None):
        raise AssertionError("drawing needs no vectors")

    def embed_query(self, images, indicator, context=None):
        raise AssertionError("drawing needs no vectors")

    def draw(self, images, indicator):
        assert not self.training
        assert not torch.is_grad_enabled()
        positions = np.arange(self.at, self.at + len(images))  # requests come in order
        self.at += len(images)
        return self.paint(images, indicator, positions)


@pytest.fixture(scope="module")
def world():
    config = configure("identity", "garments", "smoke", "common", 0, SIZES)
    dataset = config.read()
    data = data_module(config, dataset)
    data.prepare_data()
    data.setup("fit")
    data.setup("predict")
    return config, dataset, data, ask(dataset, data.gallery_rows, PROTOCOL, config.evaluation.requests)


@pytest.fixture
def judge(world, tmp_path, monkeypatch):
    """The outcome of a way to draw; every picture of a garment is read as what it was drawn from."""
    config, dataset, data, requests = world
    rows, everything = np.arange(len(requests)), {}
    for pictures, labels in (
        (redrawn(dataset, requests, rows, data.image_size), requests.target),
        (_queries(world), dataset.catalog.labels[requests.query]),
    ):
        everything |= {picture.tobytes(): label for picture, label in zip(pictures, labels, strict=True)}

    def read(network, pictures):
        return np.stack(
            [everything.get(picture.tobytes(), np.full(len(data.schema.names), -7)) for picture in pictures]
        )

    monkeypatch.setattr(generation, "read", read)

    def of(paint):
        method = _Artist(data.schema, paint).eval()
        return outcome(PROTOCOL, Trained(config, method, dataset, data, {}, tmp_path, {PROTOCOL.name: None}))

    return of


def _queries(world):
    _, dataset, data, requests = world
    names = dataset.catalog.image[requests.query]
    return np.stack([dataset.source.read(str(name), data.image_size) for name in names])


def _images(pictures):
    return normalise(torch.from_numpy(pictures).permute(0, 3, 1, 2))


def _values(result):
    return {name: estimate.value for name, estimate in result.metrics.items()}


def test_drawing_the_truth_is_perfect(world, judge):
    _, dataset, data, requests = world
    result = judge(lambda images, h, at: _images(redrawn(dataset, requests, at, data.image_size)))
    assert _values(result) == pytest.approx({"exact": 1, "changed": 1, "kept": 1, "ssim": 1, "l1": 0}, abs=1e-6)
    assert result.requests == len(requests) == len(result.per_request["exact"])
    assert "100.0%" in result.notes[0]


def test_copying_the_query_keeps_everything_and_changes_nothing(judge):
    result = judge(lambda images, h, at: images)
    values = _values(result)
    assert (values["exact"], values["changed"], values["kept"]) == (0, 0, 1)
    assert 0.5 < values["ssim"] < 1  # the same garment but for one attribute
    assert 0 < values["l1"] < 0.2


def test_drawing_another_request_is_wrong(world, judge):
    _, dataset, data, requests = world
    others = requests.select(
        np.roll(np.arange(len(requests)), 1)
    )  # what somebody else wants of somebody else's garment
    values = _values(judge(lambda images, h, at: _images(redrawn(dataset, others, at, data.image_size))))
    copied = _values(judge(lambda images, h, at: images))
    assert values["changed"] < 0.5
    assert values["kept"] < 0.9
    assert values["ssim"] < copied["ssim"]
    assert values["l1"] > copied["l1"]


def test_one_average_picture_is_no_answer(judge):
    copied = _values(judge(lambda images, h, at: images))
    values = _values(judge(lambda images, h, at: images.mean(0, keepdim=True).expand_as(images)))
    assert (values["exact"], values["changed"], values["kept"]) == (0, 0, 0)
    assert values["ssim"] < copied["ssim"] - 0.1
    assert values["l1"] > 2 * copied["l1"]


def test_pictures_are_judged_as_pictures(world, judge):
    """What a display cannot show does not count: numbers beyond black and white, and less than a step of 8 bits."""
    copied = judge(lambda images, h, at: images)
    white = _images(np.full((1, 1, 1, 3), 255, np.uint8))
    beyond = judge(lambda images, h, at: torch.where((images - white).abs() < 1e-3, images + 50, images) + 1e-4)
    assert _values(beyond) == _values(copied)


def test_prototypes_of_nan_stop_with_one_sentence(judge):
    with pytest.raises(UserError, match="identity draws pictures that hold NaN"):
        judge(lambda images, h, at: images * torch.nan)


def test_the_requests_are_those_of_manipulate_1_and_the_truth_is_the_query_but_for_them(world):
    config, dataset, data, requests = world
    same = ask(dataset, data.gallery_rows, load_protocol("manipulate-1"), config.evaluation.requests)
    assert requests.digest == same.digest
    nothing = replace(requests, attribute=np.full_like(requests.attribute, -1), value=np.full_like(requests.value, -1))
    unchanged = redrawn(dataset, nothing, np.arange(5), data.image_size)
    batch: QueryBatch = next(iter(data.query_dataloader(requests)))
    assert np.array_equal(unchanged, batch.image[:5].permute(0, 2, 3, 1).numpy())
    changed = redrawn(dataset, requests, np.arange(len(requests)), data.image_size)
    assert np.array_equal(changed[3:4], redrawn(dataset, requests, np.array([3]), data.image_size))
    differs = (changed != _queries(world)).reshape(len(requests), -1).any(1)
    assert differs.mean() > 0.9  # a few changes are hidden at this size


def test_a_picture_is_compared_by_ssim_and_mean_difference():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 200, (3, 32, 32, 3)).astype(np.uint8)
    scores = compare(np.stack([truth[0], truth[1] + 51, rng.integers(0, 200, (32, 32, 3)).astype(np.uint8)]), truth)
    assert scores["l1"][:2] == pytest.approx([0, 0.2])
    assert scores["ssim"][0] == pytest.approx(1)
    assert 0.5 < scores["ssim"][1] < 1
    assert abs(scores["ssim"][2]) < 0.1
    assert compare(truth[:1], truth[:1])["ssim"].shape == (1,)


def test_agreement_counts_labelled_attributes_only(world):
    schema = world[1].catalog.schema
    target = np.full((3, schema.num_attributes), MISSING, np.int16)
    target[:, :4] = [[1, 2, 3, 0]]
    attribute = np.array([[1, -1], [0, -1], [0, 3]], np.int16)
    value = np.array([[2, -1], [1, -1], [1, 0]], np.int16)
    requests = Requests(schema, np.arange(3), attribute, value, target)
    seen = np.zeros((3, schema.num_attributes), np.int64)
    seen[:, :4] = [[1, 2, 3, 0], [0, 2, 3, 1], [1, 0, 0, 5]]
    scores = agreement(seen, requests)
    assert scores["exact"].tolist() == [1, 0, 0]
    assert scores["changed"].tolist() == [1, 0, 0.5]
    assert scores["kept"] == pytest.approx([1, 2 / 3, 0])


def test_attributes_are_the_parts_of_the_whole(world):
    requests = world[3]
    scores = {"exact": np.random.default_rng(0).random(len(requests))}
    total, parts = estimates(scores, requests)
    counts = {name: (requests.attribute == m).any(1).sum() for m, name in enumerate(requests.schema.names)}
    assert set(parts) == {name for name, count in counts.items() if count}
    weighted = sum(parts[name]["exact"].value * counts[name] for name in parts) / len(requests)
    assert total["exact"].value == pytest.approx(weighted)
    name = max(counts, key=counts.get)
    mine = (requests.attribute == requests.schema.names.index(name)).any(1)
    assert parts[name]["exact"].value == pytest.approx(scores["exact"][mine].mean())
    assert total["exact"].low < total["exact"].value < total["exact"].high


def test_what_cannot_be_judged_is_refused_before_training(world):
    config, dataset, *_ = world
    assert obstacle(config, dataset) is None
    assert "amnet draws no pictures" in obstacle(configure("amnet", "garments", "smoke", "common", 0, SIZES), dataset)
    cut = replace(config, loader=replace(config.loader, crop="true"))
    assert "--loader.crop at full" in obstacle(cut, cropped(dataset))
    assert "cannot be drawn again" in obstacle(config, cropped(dataset))


def test_the_classifier_is_the_same_for_every_method_and_setting(world):
    config = world[0]
    judged = [*SIZES, "--trainer.max_epochs", "1", "--budget", "99", "--method.attributes_lr", "0.5"]
    judged += ["--loader.batch_size", "16", "--loader.changes", "[1]"]
    other = configure("amnet/no-memory", "garments", "smoke", "common", 3, judged)
    assert classifier_config(other) == classifier_config(config)
    assert classifier_config(config) == replace(
        configure("attribute-based", "garments", "smoke", "common", 0, SIZES[:6]), reader=config.reader
    )
    larger = replace(config, loader=replace(config.loader, image_size=48))
    assert classifier_config(larger).loader.image_size == 48
    several = replace(config, trainer={"devices": 2, "strategy": "ddp", "accelerator": "cpu", "max_epochs": 3})
    assert classifier_config(several).trainer == {"devices": 2, "strategy": "ddp", "accelerator": "cpu"}


def test_pictures_are_read_as_the_network_reads_its_own_batches(world):
    """The right channels, in the right order, normalised."""
    _, _, data, requests = world
    network = Identity(data.schema.to_dict(), backbone="resnet10t").eval()
    loader = data.query_dataloader(requests)
    batch = data.on_after_batch_transfer(loader.dataset[np.arange(8)], 0)
    with torch.no_grad():
        logits = network.logits(network.backbone(batch.image))
    seen = generation.read(network, _queries(world)[:8])
    assert np.array_equal(seen, torch.stack([block.argmax(1) for block in logits], dim=1).numpy())


def test_what_another_classifier_reads_is_another_question(world, judge, monkeypatch):
    first = judge(lambda images, h, at: images)
    assert first.request_digest == judge(lambda images, h, at: images * 0).request_digest
    monkeypatch.setattr(generation, "read", lambda network, pictures: np.zeros((len(pictures), 12), np.int64))
    assert first.request_digest != judge(lambda images, h, at: images).request_digest


@pytest.mark.slow
def test_identity_copies_and_shares_the_classifiers_training(tmp_path):
    quiet = ["--trainer.enable_progress_bar", "false", "--evaluation.protocols", '["manipulate-1"]']
    records = []
    for seed in (0, 1):
        config = configure("identity", "garments", "smoke", "common", seed, [*SIZES, *quiet])
        records.append(Bench(config, out=tmp_path / str(seed), logger="none").run())
        done = json.loads((tmp_path / str(seed) / "classifier/stages/attributes/done.json").read_text())
        assert done["reused"]  # of the run's own attribute stage, and of the first run's
    first, second = (record.metrics["generation"] for record in records)
    assert first == second  # copies, read by one classifier
    assert set(first) == {"exact", "changed", "kept", "ssim", "l1"}
    assert records[0].request_digests["generation"] == records[1].request_digests["generation"]
    assert any(note.startswith("generation: in the true pictures") for note in records[0].notes)
