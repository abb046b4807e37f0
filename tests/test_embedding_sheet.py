# SPDX-License-Identifier: MIT
"""What the picture of an attribute's embedding shows: both halves placed together, the values told apart."""

import cv2
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from fm_bench import embedding_sheet as module
from fm_bench.bench import Bench
from fm_bench.cli import main
from fm_bench.config import configure
from fm_bench.data.garments import vocabulary
from fm_bench.embedding_sheet import COLOURS, draw, embedding_sheet, plane
from fm_bench.errors import UserError
from fm_bench.methods import Oracle

SIZES = ["--data.train", "60", "--data.val", "40", "--data.test", "400", "--evaluation.gallery", "400"]
ASKED = ["--evaluation.protocols", '["manipulate-1"]', "--trainer.enable_progress_bar", "false"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("oracle") / "run"
    Bench(configure("oracle", "garments", "smoke", "common", 0, SIZES + ASKED), out=folder, logger="none").run()
    return folder


@pytest.fixture
def placed(monkeypatch):
    """What was given to the plane."""
    given = []

    def remember(before, after, seed):
        given.append((before, after))
        return np.zeros((2, len(before), 2), np.float32)

    monkeypatch.setattr(module, "plane", remember)
    return given


def test_a_finished_run_is_drawn(run, tmp_path):
    sheet = embedding_sheet(run, "colour", tmp_path / "sheet.png")
    picture = cv2.imread(str(sheet))
    assert picture.shape == (round(4.9 * 130), 11 * 130, 3)
    again = cv2.imread(str(embedding_sheet(run, "colour", tmp_path / "again.png")))
    np.testing.assert_array_equal(picture, again)
    codes = [to_hex(f"xkcd:{name}") for name in vocabulary.COLOURS]
    colours = {tuple(int(code[i : i + 2], 16) for i in (5, 3, 1)) for code in codes}
    present = {tuple(pixel) for pixel in np.unique(picture.reshape(-1, 3), axis=0).tolist()}
    assert len(colours & present) >= 6  # of the legend's markers, which cover nothing


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--embedding", "colour", "--protocol", "search"], "leave --protocol out"),
        (["--embedding", "colours"], "did you mean colour"),
    ],
)
def test_embeddings_that_make_no_sense_are_one_sentence(run, options, complaint, tmp_path, capsys):
    assert main(["explain", str(run), *options, "--out", str(tmp_path / "x.png")]) == 2
    assert complaint in capsys.readouterr().err


def test_an_embedding_is_drawn(run, tmp_path):
    out = tmp_path / "x.png"
    assert main(["explain", str(run), "--embedding", "colour", "--out", str(out)]) == 0
    assert out.read_bytes().startswith(b"\x89PNG")


def test_vectors_before_and_after_are_those_of_the_method(run, tmp_path, placed, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        module, "draw", lambda points, values, *rest: drawn.append((values, rest)) or draw(points, values, *rest)
    )
    embedding_sheet(run, "pattern", tmp_path / "sheet.png")
    (before, after), ((own, wanted), (names, attribute, title)) = placed[0], drawn[0]
    schema = configure("oracle", "garments", "smoke", "common", 0, SIZES).read().catalog.schema
    m = schema.attribute("pattern")
    block = slice(schema.offsets[m], schema.offsets[m + 1])
    np.testing.assert_array_equal(before[:, block].argmax(1), own)  # the oracle's vectors tell the labels
    np.testing.assert_array_equal(after[:, block].argmax(1), wanted)
    assert (own != wanted).all()
    others = [i for i in range(schema.num_values) if not block.start <= i < block.stop]
    np.testing.assert_array_equal(before[:, others], after[:, others])
    assert (names, attribute) == (list(schema.values[m]), "pattern")
    assert title == f"oracle: vectors of {len(own)} pictures"


def test_an_embedding_of_the_attribute_is_preferred(run, tmp_path, placed, monkeypatch):
    asked = []

    def embed(self, attribute, vectors):
        asked.append(attribute)
        return vectors[:, :3] * 2 if attribute == 1 else None

    monkeypatch.setattr(Oracle, "attribute_embedding", embed, raising=False)
    embedding_sheet(run, "colour", tmp_path / "sheet.png")
    embedding_sheet(run, "pattern", tmp_path / "sheet.png")
    assert asked == [1, 1, 2, 2]
    assert [before.shape[1] for before, _ in placed] == [3, placed[1][0].shape[1]]
    assert placed[1][0].shape[1] > 100
    assert placed[0][0].max() == 2


def test_what_cannot_be_drawn_is_said(run, tmp_path, monkeypatch):
    out = tmp_path / "sheet.png"
    with pytest.raises(UserError, match="colour"):
        embedding_sheet(run, "color", out)
    with pytest.raises(UserError, match="no finished run"):
        embedding_sheet(tmp_path, "colour", out)
    monkeypatch.setattr(Oracle, "settings", lambda self, attribute, region: attribute[:, 0])
    with pytest.raises(UserError, match="a space of its own"):
        embedding_sheet(run, "colour", out)
    assert not out.exists()


def test_one_plane_holds_both():
    centres = torch.linalg.qr(torch.randn(8, 3, generator=torch.Generator().manual_seed(0))).Q.T.numpy() * 10
    rng = np.random.default_rng(0)
    own, wanted = rng.integers(0, 3, (2, 60))
    before, after = (centres[of] + rng.normal(size=(60, 8)) * 0.1 for of in (own, wanted))
    points = plane(before.astype(np.float32), after.astype(np.float32), 0)
    assert points.shape == (2, 60, 2)
    distance = np.linalg.norm(points[1][:, None] - points[0][None], axis=2)
    nearest = own[distance.argmin(1)]
    assert (nearest == wanted).all()  # what was wanted lies where it was before
    np.testing.assert_array_equal(points, plane(before.astype(np.float32), after.astype(np.float32), 0))


def test_panels_share_their_axes_and_every_value_has_a_look_of_its_own():
    values = np.arange(18, dtype=np.int16)
    points = np.random.default_rng(0).normal(size=(2, 18, 2)).astype(np.float32)
    names = [f"value {i}" for i in range(20)]
    figure = draw(points, (values, values[::-1]), names, "sleeve_length", "title")
    figure.canvas.draw()
    left, right = figure.axes
    assert left.get_xlim() == right.get_xlim()
    assert left.get_ylim() == right.get_ylim()
    assert left.get_aspect() == right.get_aspect() == 1
    assert "sleeve length" in left.get_title()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == names[:18]
    looks = {
        (tuple(handle.get_facecolor()[0]), handle.get_paths()[0].vertices.tobytes()) for handle in legend.legend_handles
    }
    assert len(looks) == 18
    box = legend.get_window_extent()
    assert box.y0 >= 0  # the whole legend is on the sheet
    assert box.y1 <= figure.bbox.height


def test_colours_are_shown_in_their_own():
    values = np.array([0, 1, 1, 0], np.int16)
    points = np.random.default_rng(0).normal(size=(2, 4, 2)).astype(np.float32)
    figure = draw(points, (values, values[::-1]), ["burgundy", "Light_Blue"], "colour", "title")
    faces = [handle.get_facecolor()[0] for handle in figure.legends[0].legend_handles]
    red, blue = (face[[0, 2]] for face in faces)
    assert red[0] > red[1] + 0.2
    assert blue[1] > 0.9
    other = draw(points, (values, values[::-1]), ["burgundy", "multi"], "colour", "title")
    assert [to_hex(handle.get_facecolor()[0]) for handle in other.legends[0].legend_handles] == list(COLOURS[:2])
