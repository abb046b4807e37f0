# SPDX-License-Identifier: MIT
"""What a run leaves for its method's page: curves from its logs, examples from what it found, and small pictures."""

import dataclasses
import io
import json
import shutil

import numpy as np
import pytest
import torch
from painter import Painter
from PIL import Image

from fm_bench.attributes import AttributeSchema
from fm_bench.cli import main
from fm_bench.data.requests import Requests
from fm_bench.errors import UserError
from fm_bench.extras import collect
from fm_bench.extras.examples import Drawn, choose, example, rates
from fm_bench.extras.learned import keep_curves, learning_curves, thinned
from fm_bench.extras.pictures import BYTES, Pictures, may_be_shown
from fm_bench.finished import load_run
from fm_bench.leaderboard.extras import load_extras
from fm_bench.leaderboard.record import FILE
from fm_bench.methods import Identity
from fm_bench.methods.fashionsearchnet import FashionSearchNet
from fm_bench.questions import load_protocol
from fm_bench.results import Found, load_found

# Learning curves ---------------------------------------------------------------------------------------------------

HEAD = "epoch,step,lr,train/loss,val/accuracy@20\n"


def stage(run, name="main", **done):
    folder = run / "stages" / name
    folder.mkdir(parents=True)
    (folder / "done.json").write_text(json.dumps({"epochs": 2, "reused": False} | done))
    return folder


def log(run, name, text):
    (run / "logs" / name).mkdir(parents=True)
    (run / "logs" / name / "metrics.csv").write_text(HEAD + text)


def test_values_stand_at_the_end_of_their_epoch_and_repeated_epochs_count_once(tmp_path):
    stage(tmp_path)
    log(tmp_path, "main", "0,9,0.1,4.0,\n0,9,,,0.25\n1,19,0.1,3.0,\n1,19,,,0.5\n2,29,0.1,nan,\n")
    log(tmp_path, "main-2", "1,19,0.1,2.0,\n2,24,0.1,1.0,\n2,29,0.1,0.5,\n2,30,0.")
    log(tmp_path, "main-other", "0,0,0,99,\n")
    curves, without = learning_curves(tmp_path, ["main", "skipped"])
    assert without == {}
    assert curves == {
        "main": {"train/loss": ((1, 4.0), (2, 2.0), (2.5, 1.0), (3, 0.5)), "val/accuracy@20": ((1, 0.25),)}
    }


def test_a_stage_keeps_its_curves_for_runs_that_take_it_over(tmp_path):
    folder = stage(tmp_path, reused=True)
    log(tmp_path, "main", "0,9,0.1,4.0,0.5\n")
    keep_curves(tmp_path / "logs", "main", folder)
    shutil.rmtree(tmp_path / "logs")
    assert learning_curves(tmp_path, ["main"])[0] == {
        "main": {"train/loss": ((1, 4.0),), "val/accuracy@20": ((1, 0.5),)}
    }


@pytest.mark.parametrize(
    ("done", "reason"),
    [({"reused": True}, "by an equal run"), ({"epochs": 0}, "not learned in epochs"), ({}, "no curves were logged")],
)
def test_a_stage_without_curves_says_why(tmp_path, done, reason):
    stage(tmp_path, **done)
    curves, without = learning_curves(tmp_path, ["main"])
    assert curves == {}
    assert reason in without["main"]


def test_long_curves_keep_their_ends():
    points = tuple((float(x), float(x) ** 2) for x in range(10_000))
    kept = thinned(points)
    assert len(kept) == 200
    assert kept[0] == (0, 0)
    assert kept[-1] == (9999, pytest.approx(9999**2, rel=1e-5))
    assert thinned(points[:200]) == points[:200]


# Examples ----------------------------------------------------------------------------------------------------------

SCHEMA = AttributeSchema(("colour", "fit"), (("red", "blue"), ("slim", "loose", "wide")))


def found_of(labels, *, before=(0, 0), target=(1, 0), hits=None):
    """Requests for blue, of red and slim garments, for which ``labels (R, k, 2)`` were found."""
    labels = np.asarray(labels, np.int16)
    count = len(labels)
    requests = Requests(
        SCHEMA,
        np.arange(count),
        np.tile(np.array([[0, -1]], np.int16), (count, 1)),
        np.tile(np.array([[target[0], -1]], np.int16), (count, 1)),
        np.tile(np.array([target], np.int16), (count, 1)),
    )
    rows = np.where((labels >= 0).any(axis=2), 100 + np.arange(labels.shape[1]), -1)
    hits = (labels == np.array(target)).all(axis=2) if hits is None else np.asarray(hits)
    return Found(requests, rows, hits, labels, np.tile(np.array([before], np.int16), (count, 1)))


def test_the_worst_have_the_fewest_hits_and_then_the_fewest_labels_in_common():
    right, half, wrong = (1, 0), (1, 1), (0, 1)
    labels = [[right, right], [right, half], [half, half], [wrong, half], [wrong, wrong], [right, wrong]]
    found = found_of(labels)
    chosen = choose(found, each=2)
    typical = [at for kind, at in chosen if kind == "typical"]
    assert typical == sorted(np.random.default_rng(0).permutation(6)[:2].tolist())
    order = [at for at in (4, 3, 2, 5, 1, 0) if at not in typical]
    assert [at for kind, at in chosen if kind == "worst"] == order[:2]


def test_an_example_says_in_words_what_was_asked_and_what_is_wrong():
    found = found_of([[(1, 0), (0, 2), (1, -1), (-1, -1)]])
    shown = example(found, "worst", 0, False, None, Drawn())
    assert [tuple(wish) for wish in shown.wishes] == [("colour", "red", "blue")]
    assert [(result.row, result.hit, result.wrong) for result in shown.found] == [
        (100, True, ()),
        (101, False, ("colour: red", "fit: wide")),
        (102, False, ("fit: unknown",)),
    ]
    assert (shown.hits, shown.cell, shown.prototype, shown.truth) == (1, None, None, None)
    other = example(found_of([[(1, 0)]], hits=[[False]]), "typical", 0, True, None, Drawn())
    assert other.found[0].wrong == ("another item",)
    assert example(found_of([[(1, 0)]], before=(-1, 0)), "typical", 0, False, None, Drawn()).wishes[0].old == ""


def test_rates_of_a_run_by_hand():
    told = rates(found_of([[(1, 0), (0, 0)], [(0, 2), (0, 0)]]))
    assert (told.requests, told.results) == (2, 2)
    assert {name: rate["value"] for name, rate in told.total.items()} == {
        "followed": 0.25,
        "ignored": 0.75,
        "lost": 0.25,
    }
    assert told.by_attribute == {"colour": {"followed": 0.25, "ignored": 0.75}, "fit": {"lost": 0.25}}


# A run -------------------------------------------------------------------------------------------------------------


def test_a_finished_run_is_given_a_page(oracle_run, capsys):
    assert main(["leaderboard", "extras", str(oracle_run)]) == 0
    assert capsys.readouterr().out.strip() == str(oracle_run / "page.json")
    extras, sheet = load_extras(oracle_run / FILE)
    assert extras.description == ("Ceiling. The true labels as the embedding",)
    assert set(extras.rates) == {"manipulate-1", "manipulate-2", "search"}
    told = extras.rates["manipulate-1"].total
    assert told["followed"]["value"] + told["ignored"]["value"] <= 1
    assert told["followed"]["value"] > 0.2  # what true labels find first fits
    assert [one.kind for one in extras.examples] == ["typical"] * 6 + ["worst"] * 6
    assert all(one.found[0].hit for one in extras.examples)  # true labels never miss what is there
    assert len(sheet) <= BYTES
    image = Image.open(io.BytesIO(sheet))
    assert image.size == (extras.sheet.columns * extras.sheet.width, extras.sheet.rows * extras.sheet.height)
    run = load_run(oracle_run)
    height, width = extras.sheet.height, extras.sheet.width
    row, column = divmod(extras.examples[0].cell, extras.sheet.columns)
    shown = np.asarray(image.convert("RGB"))[row * height :, column * width :][:height, :width]
    asked = run.dataset.source.read(run.dataset.catalog.image[extras.examples[0].row], (height, width))
    assert np.abs(shown.astype(int) - asked).mean() < 12  # what is lossy is still that picture


@pytest.mark.parametrize("missing", ["query_labelled", "strict_equal"])
def test_a_hit_of_a_stored_result_has_all_that_the_protocol_wants(oracle_run, missing, tmp_path, monkeypatch):
    """The rule written down once more, on labels and targets that are partly missing."""
    dataset = load_run(oracle_run).dataset
    rng, catalog = np.random.default_rng(0), dataset.catalog
    labels = np.where(rng.random(catalog.labels.shape) < 0.2, -1, catalog.labels).astype(np.int16)
    holed = dataset._replace(catalog=dataclasses.replace(catalog, labels=labels))
    protocol = dataclasses.replace(load_protocol("manipulate-1"), missing=missing)
    monkeypatch.setattr("fm_bench.results.load_protocol", lambda name: protocol)
    asked = Requests.load(oracle_run / "requests" / "manipulate-1.npz")
    kept = (asked.attribute[:, :, None] != np.arange(asked.target.shape[1])).all(axis=1)
    wanted = np.where(kept & (rng.random(asked.target.shape) < 0.2), -1, asked.target).astype(asked.target.dtype)
    monkeypatch.setattr(Requests, "load", lambda path: dataclasses.replace(asked, target=wanted))
    shutil.copytree(oracle_run, tmp_path / "run")
    with np.load(tmp_path / "run" / "found.npz") as arrays:
        rows = np.where(rng.random(arrays["manipulate-1"].shape) < 0.1, -1, arrays["manipulate-1"])
        np.savez(tmp_path / "run" / "found.npz", **{**arrays, "manipulate-1": rows})
    found = load_found(tmp_path / "run", "manipulate-1", holed)
    expected = [
        [
            row >= 0
            and all(labels[row, m] == v or (v < 0 and missing == "query_labelled") for m, v in enumerate(target))
            for row in answers
        ]
        for answers, target in zip(rows, wanted, strict=True)
    ]
    np.testing.assert_array_equal(found.hits, expected)
    assert 0 < found.hits.mean() < 1


def test_what_is_drawn_stands_beside_the_truth(oracle_run):
    run = load_run(oracle_run)
    found = load_found(oracle_run, "manipulate-1", run.dataset)
    pictures = Pictures(run.dataset, run.config.image_size)
    (drawn,) = collect._drawn(found, [2], Painter([0, 0, 255]), run.config.image_size, pictures)
    assert (pictures._cells[drawn.prototype] == [0, 0, 255]).all()
    changes = {
        found.requests.schema.names[m]: found.requests.schema.values[m][v]
        for m, v in zip(found.requests.attribute[2], found.requests.value[2], strict=True)
        if m >= 0
    }
    truth = run.dataset.source.redraw(int(found.requests.query[2]), changes, pictures.size)
    assert (pictures._cells[drawn.truth] == truth).all()


def test_where_fashionsearchnet_looks_is_a_picture_for_each_attribute(oracle_run):
    run = load_run(oracle_run)
    schema = run.dataset.catalog.schema
    torch.manual_seed(0)
    method = FashionSearchNet(schema.to_dict(), "resnet10t", blocks=1, maps=[8, 8, 8], dim=4, crop=2, global_dim=4)
    method.eval()
    pictures = Pictures(run.dataset, run.config.image_size)
    (look,) = collect._looks(method, [600], run.config.image_size, pictures)
    assert [one.attribute for one in look.maps] == list(schema.names)
    assert len({one.cell for one in look.maps} | {look.cell}) == schema.num_attributes + 1


def test_only_rendered_garments_may_be_shown(oracle_run):
    dataset = load_run(oracle_run).dataset
    assert may_be_shown(dataset)
    assert not may_be_shown(dataset._replace(source=object()))


def test_what_was_found_by_another_run_is_refused(oracle_run, tmp_path):
    shutil.copytree(oracle_run, tmp_path / "run")
    with np.load(tmp_path / "run" / "found.npz") as arrays:
        np.savez(tmp_path / "run" / "found.npz", **{name: rows[:, ::-1] * 0 + 700 for name, rows in arrays.items()})
    with pytest.raises(UserError, match="files in its folder are not of one run"):
        collect.prepare(tmp_path / "run")


def test_the_paper_is_read_from_the_docstring():
    about = collect._about(FashionSearchNet)
    assert "Ak et al." in about[0]
    assert not any("Args" in paragraph or "\n" in paragraph for paragraph in about)
    assert collect._about(type("Bare", (Identity,), {"__doc__": None})) == ()
