# SPDX-License-Identifier: MIT
"""Bad input ends with status 2 and one sentence; what is asked for is listed."""

import json
import re

import numpy as np
import pytest

from fm_bench import recipe
from fm_bench.cli import main
from fm_bench.config import configure
from fm_bench.errors import UserError


def refused(capsys, *arguments) -> str:
    """Runs a command that must end with status 2 and exactly one sentence; returns it."""
    assert main([str(argument) for argument in arguments]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert "Traceback" not in "\n".join(error)
    assert error[-1].startswith("fm-bench: ")
    return error[-1]


def test_list_names_everything(capsys):
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    for kind in recipe.KINDS:
        for name in recipe.names(kind):
            assert name in text
    assert "amnet/no-memory" in text


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["bench", "amnett"], "did you mean amnet"),
        (["bench", "amnet/no-memry"], "amnet/no-memory"),
        (["bench", "oracle/x"], "no variant"),
        (["bench", "random", "--data", "garment"], "did you mean garments"),
        (["bench", "random", "--profile", "fast"], "profile 'fast' is not known"),
        (["bench", "random", "--mode", "papers"], "did you mean paper"),
        (["bench", "random", "--data", "fashion-product"], "--data.root is not given"),
        (["bench", "random", "--trainer.max_epoch", "1"], "--trainer.max_epochs"),
        (["bench", "random", "--trainer.max_epochs", "many"], "'many'"),
        (["bench", "random", "oracle", "--out", "x"], "--out x names one folder but 2 methods"),
        (["bench", "random", "--evaluation.protocols", "[manipulat-1]"], "did you mean manipulate-1"),
        (["evaluate", "absent", "--protocol", "search"], "absent"),
        (["explain", "absent", "--out", "x.png"], "absent"),
        (["score", "--gallery", "absent.npz", "--queries", "absent.npz", "--out", "report.json"], "absent.npz"),
        (["leaderboard", "build", "--records", "absent"], "absent"),
    ],
)
def test_mistakes_get_one_sentence(arguments, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert says in refused(capsys, *arguments)
    assert not list(tmp_path.iterdir())  # nothing half-written is left behind


def test_missing_root_names_the_folder(capsys, tmp_path):
    sentence = refused(capsys, "bench", "random", "--data", "fashion-product", "--data.root", tmp_path / "absent")
    assert str(tmp_path / "absent") in sentence


def test_k_beyond_the_gallery_is_refused(capsys, tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "g.npz", embeddings=rng.normal(size=(8, 4)).astype(np.float32), labels=np.zeros((8, 2), int))
    np.savez(tmp_path / "q.npz", embeddings=rng.normal(size=(3, 4)).astype(np.float32), targets=np.zeros((3, 2), int))
    files = ["--gallery", tmp_path / "g.npz", "--queries", tmp_path / "q.npz", "--out", tmp_path / "report.json"]
    sentence = refused(capsys, "score", *files, "--k", 20)
    assert re.search(r"\b20\b", sentence)
    assert re.search(r"\b8\b", sentence)
    assert not (tmp_path / "report.json").exists()
    assert main([str(a) for a in ["score", *files, "--k", 1, 5, "--mrr-at", 1000]]) == 0
    metrics = json.loads((tmp_path / "report.json").read_text())["metrics"]
    assert metrics["accuracy@5"]["value"] == 1.0


def test_the_command_line_wins_over_every_recipe():
    plain = configure("amnet", "garments", "smoke", "common", 0)
    assert plain.hyper["backbone"] == "resnet10t"  # the profile's, not the code's
    options = [
        "--method.backbone",
        "resnet18",
        "--stages.manipulation.epochs",
        "9",
        "--trainer.max_epochs",
        "2",
        "--data.train",
        "50",
    ]
    given = configure("amnet/no-ranking", "garments", "smoke", "common", 3, options)
    assert given.hyper["backbone"] == "resnet18"
    assert given.hyper["classification_weight"] == 1.0  # the variant's
    assert given.stages["manipulation"].epochs == 9
    assert given.trainer == {"max_epochs": 2}
    assert given.reader["train"] == 50
    assert given.seed == 3


def test_places_change_no_fingerprint_but_numbers_do():
    here = configure(
        "random", "fashion-product", "smoke", "common", 0, ["--data.root", "a", "--loader.num_workers", "2"]
    )
    there = configure("random", "fashion-product", "smoke", "common", 0, ["--data.root", "b"])
    assert here.numeric() == there.numeric()
    more = configure("random", "fashion-product", "smoke", "common", 0, ["--data.root", "b", "--data.min_count", "5"])
    assert more.numeric() != there.numeric()


def test_every_recipe_can_be_configured():
    for name in recipe.names("methods"):
        for variant in ["", *recipe.load("methods", name).get("variants", {})]:
            for profile in recipe.names("profiles"):
                for mode in ("common", "paper"):
                    assert configure(f"{name}/{variant}" if variant else name, "garments", profile, mode, 0).budget > 0


def test_a_recipe_with_a_meaningless_key_is_refused(tmp_path, monkeypatch):
    for kind in recipe.KINDS:
        (tmp_path / kind).mkdir()
    (tmp_path / "methods" / "mine.yaml").write_text("descripton: a spelling mistake\n")
    monkeypatch.setattr(recipe, "benchmarks_dir", lambda: tmp_path)
    with pytest.raises(UserError, match="descripton"):
        recipe.load("methods", "mine")
