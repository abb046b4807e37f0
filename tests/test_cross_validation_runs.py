# SPDX-License-Identifier: MIT
"""``fm-bench bench METHOD --folds 5`` through the command line, as users run it."""

import re
import shutil
from pathlib import Path
from unittest import mock

import fakes
import numpy as np
import pytest

from fm_bench.catalog import Split
from fm_bench.cli import main
from fm_bench.finished import load_run
from fm_bench.leaderboard.record import find, load

SMALL = ["--evaluation.requests", "40", "--evaluation.protocols", "[search]", "--data.min_count", "2"]


def folds(root: Path, *arguments: str) -> int:
    """Folds of fake photos at smoke; the methods come first in ``arguments``."""
    data = ["--data", "fashion-product", "--data.root", str(root), "--profile", "smoke"]
    with mock.patch("fm_bench.campaign.in_a_process", lambda command: None if main(command) == 0 else "it failed."):
        return main(["bench", *arguments, "--folds", "5", *data, *SMALL, "--trainer.enable_progress_bar", "false"])


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    return fakes.fashion_product(tmp_path_factory.mktemp("photos"), items=620)


@pytest.fixture(scope="module")
def runs(photos, tmp_path_factory) -> Path:
    """Two methods, cross-validated."""
    folder = tmp_path_factory.mktemp("runs")
    assert folds(photos, "random", "identity", "--runs", str(folder)) == 0
    return folder


@pytest.mark.slow
def test_five_runs_of_each_method_test_every_tenth_once(runs):
    records = [load(path) for path in find(runs)]
    assert sorted((record.method, record.config["fold"]) for record in records) == [
        (method, fold) for method in ("identity", "random") for fold in range(5)
    ]
    assert len({record.config["folded"] for record in records}) == 1
    for fold in range(5):  # both methods were asked the same
        same = [record for record in records if record.config["fold"] == fold]
        assert len({(record.data_digest, record.request_digests["search"], record.gallery) for record in same}) == 1
    tested: list[int] = []
    for path in find(runs):
        if load(path).method == "random":
            run = load_run(path.parent)
            with np.load(path.parent / "requests" / "search.npz") as requests:
                asked = requests["query"]
            rows = run.dataset.catalog.rows(Split.TEST)
            assert set(asked.tolist()) <= set(rows.tolist())
            assert len(rows) == load(path).gallery
            tested += rows.tolist()
    assert len(tested) == len(set(tested)) == pytest.approx(0.5 * len(run.dataset.catalog), abs=5)


@pytest.mark.slow
def test_the_same_command_runs_only_what_is_missing_and_prints_the_same(runs, photos, capsys):
    before = {path: path.stat().st_mtime_ns for path in find(runs)}
    lost = next(path for path in before if load(path).config["fold"] == 3 and load(path).method == "random")
    values = load(lost).metrics
    shutil.rmtree(lost.parent)
    assert folds(photos, "random", "identity", "--runs", str(runs)) == 0
    out, err = capsys.readouterr()
    assert " ".join(err.split()).count("is recorded already") == 4  # those of the other method are not even read
    assert {path: path.stat().st_mtime_ns for path in find(runs) if path != lost} == {
        path: time for path, time in before.items() if path != lost
    }
    assert load(lost).metrics == values
    assert "fashion-product, 5 folds · smoke · common · search" in out
    assert re.search(r"^ *random \(floor\) +-0\.\d+ +-0\.\d+ to [-+]0\.\d+ +[<.\d]+ +\N{EN DASH} *$", out, re.MULTILINE)
    page = (runs / "leaderboard.html").read_text()
    assert "fashion-product, 5 folds" in page


def test_a_folder_of_ones_own_has_one_folder_per_fold(photos, tmp_path):
    assert folds(photos, "oracle", "--out", str(tmp_path / "run")) == 0
    assert [path.parent.name for path in find(tmp_path / "run")] == [f"fold{fold}" for fold in range(5)]
    assert (tmp_path / "run" / "leaderboard.html").exists()


@pytest.mark.parametrize("number", ["0", "3", "10"])
def test_another_number_of_folds_is_one_sentence(number, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["bench", "random", "--folds", number]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"fm-bench: --folds is {number}, but the data are cut into 5 disjoint tests of a tenth each")
    assert not list(tmp_path.iterdir())


def test_too_few_photos_are_one_sentence(tmp_path, capsys):
    table = tmp_path / "table.csv"
    for number in range(9):
        (tmp_path / f"{number}.png").write_bytes(fakes.png(fakes.picture((200, 40, 40), number)))
    rows = [
        f"{number}.png,{'red' if number % 2 else 'blue'},{['train', 'val', 'test'][number % 3]}" for number in range(9)
    ]
    table.write_text("\n".join(["path,colour,part", *rows]) + "\n")
    data = ["--data", "table", "--data.root", str(tmp_path), "--data.table", table.name, "--data.image", "path"]
    options = ["--data.split", "part", "--data.attributes", "colour", "--data.min_count", "1"]
    runs = ["--profile", "smoke", "--runs", str(tmp_path / "runs")]
    assert main(["bench", "random", "--folds", "5", *data, *options, *runs]) == 2
    assert "have 9 groups of pictures" in capsys.readouterr().err
