# SPDX-License-Identifier: MIT
"""Sheets of prototypes: what stands in each row, and which runs have none."""

import cv2
import numpy as np
import pytest
import torch
from commands import bench
from painter import Painter

from fm_bench import prototype_sheet as module
from fm_bench.cli import main
from fm_bench.errors import UserError
from fm_bench.explain import load_answers
from fm_bench.methods import Identity
from fm_bench.prototype_sheet import prototype_sheet


@pytest.fixture
def painter(oracle_run, monkeypatch):
    painter = Painter([255, 0, 0], load_answers(oracle_run, "manipulate-1", 1, 0).requests.schema)
    monkeypatch.setattr(module, "load_model", lambda *_: painter)
    return painter


@pytest.fixture
def shown(monkeypatch):
    """Every picture that the sheet's own columns show, row by row: query, prototype and truth."""
    pictures, show = [], module.show
    monkeypatch.setattr(module, "show", lambda axis, image: (pictures.append(image), show(axis, image)))
    return pictures


@pytest.mark.parametrize("protocol", ["manipulate-1", "manipulate-2"])
def test_a_row_is_query_prototype_truth_and_results(oracle_run, painter, shown, tmp_path, protocol):
    out = prototype_sheet(oracle_run, protocol, 3, tmp_path / "sheet.png", columns=4, seed=5)
    asked = load_answers(oracle_run, protocol, 3, seed=5)
    source, size = asked.run.dataset.source, asked.run.config.image_size
    assert len(shown) == 9
    for i in range(3):
        query, prototype, truth = shown[3 * i : 3 * i + 3]
        assert (query == source.read(asked.picture(i), size)).all()
        assert (prototype == [255, 0, 0]).all()
        assert (truth == source.redraw(asked.picture(i), asked.changes(i), size)).all()
        assert len(asked.changes(i)) == int(protocol[-1])
    assert painter.images.shape == (3, 3, *size)
    assert painter.images.min() < -1  # normalised
    assert (painter.indicator.sum(1) == int(protocol[-1])).all()
    sheet = cv2.imread(str(out))
    assert sheet.shape[1] == int(1.25 * (3 + 4) * 130)
    assert (sheet == [0, 0, 255]).all(axis=2).sum() > 3 * 80**2


def test_where_the_truth_cannot_be_drawn_it_is_left_out(oracle_run, painter, shown, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "GarmentSource", type("Nothing", (), {}))
    out = prototype_sheet(oracle_run, "manipulate-1", 2, tmp_path / "sheet.png", columns=4)
    assert len(shown) == 4
    assert cv2.imread(str(out)).shape[1] == int(1.25 * (2 + 4) * 130)


def test_hits_are_what_was_asked_for(oracle_run):
    asked = load_answers(oracle_run, "manipulate-1", 5, seed=0)
    assert asked.hits[:, 0].all()  # the oracle is never wrong
    labels = asked.run.dataset.catalog.labels[asked.found]
    assert (asked.hits == (labels == asked.requests.target[:, None]).all(2)).all()
    assert not asked.hits.all()
    again = load_answers(oracle_run, "manipulate-1", 5, seed=0)
    assert (again.found == asked.found).all()
    assert (load_answers(oracle_run, "manipulate-1", 5, seed=1).found != asked.found).any()


def test_a_method_that_draws_nothing_has_no_prototypes(oracle_run, tmp_path, capsys):
    out = tmp_path / "x.png"
    assert main(["explain", str(oracle_run), "--prototypes", "--out", str(out)]) == 2
    assert "oracle, which draws no prototypes: give a run of amgan-p" in capsys.readouterr().err
    assert not out.exists()


def test_parts_of_garments_have_no_prototypes(tmp_path, painter):
    assert bench("random", "--evaluation.protocols", "[region]", out=tmp_path / "run") == 0
    with pytest.raises(UserError, match="asks about parts of garments"):
        prototype_sheet(tmp_path / "run", "region", 2, tmp_path / "x.png")


def test_maps_or_prototypes(oracle_run, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["explain", str(oracle_run), "--maps", "--prototypes", "--out", str(tmp_path / "x.png")])
    assert "not allowed with argument" in capsys.readouterr().err


def test_the_floor_copies_the_query():
    images = torch.from_numpy(np.random.default_rng(0).random((2, 3, 8, 8), np.float32))
    assert Identity.draws
    assert Identity.draw(None, images, torch.zeros(2, 5)) is images
