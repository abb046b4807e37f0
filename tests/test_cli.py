# SPDX-License-Identifier: MIT
"""Bad input ends with status 2 and one sentence; what is asked for is listed."""

import json
import re

import fakes
import numpy as np
import pytest

from fm_bench import config as config_file
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
        (["bench", "flam", "--method.stand_in", "photos"], "stand_in cannot be 'photos': give labels or views."),
        (["bench", "flam", "--method.targets", "shape"], "targets cannot be 'shape': give three or all or list."),
        (["bench", "amgan-p", "--method.mu", "x"], "mu cannot be 'x': give float."),
        (["bench", "random", "--data", "fashion-product"], "--data.root is not given"),
        (["bench", "random", "--trainer.max_epoch", "1"], "--trainer.max_epochs"),
        (["bench", "random", "--trainer.max_epochs", "many"], "'many'"),
        (["bench", "random", "oracle", "--out", "x"], "--out x names one folder but 2 runs"),
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


@pytest.mark.parametrize(
    ("gpu", "processor", "options", "precision"),
    [
        (True, False, [], "bf16-mixed"),
        (True, False, ["--trainer.accelerator", "gpu"], "bf16-mixed"),
        (True, False, ["--trainer.accelerator", "cpu"], "32-true"),
        (False, True, [], "32-true"),
        (False, True, ["--trainer.accelerator", "cpu"], "bf16-mixed"),
        (True, True, ["--trainer.precision", "32-true"], "32-true"),
    ],
)
def test_training_is_as_precise_as_what_it_runs_on_computes_fast(gpu, processor, options, precision, monkeypatch):
    monkeypatch.setattr(config_file, "computes_in_bfloat16", lambda wanted=True: gpu if wanted else processor)
    assert configure("amnet", "garments", "quick", "common", 0, options).trainer["precision"] == precision
    assert "precision" not in configure("amnet", "garments", "smoke", "common", 0).trainer


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
                for mode in ("common", "paper") if profile in ("smoke", "paper") else ("common",):
                    assert configure(f"{name}/{variant}" if variant else name, "garments", profile, mode, 0).budget > 0


def test_a_recipe_with_a_meaningless_key_is_refused(tmp_path, monkeypatch):
    for kind in recipe.KINDS:
        (tmp_path / kind).mkdir()
    (tmp_path / "methods" / "mine.yaml").write_text("descripton: a spelling mistake\n")
    monkeypatch.setattr(recipe, "benchmarks_dir", lambda: tmp_path)
    with pytest.raises(UserError, match="descripton"):
        recipe.load("methods", "mine")


def _photos(root, *options: object) -> list[object]:
    """A run of the oracle on a small fake of the real photos."""
    sizes = ["--evaluation.gallery", "100", "--evaluation.requests", "40", "--data.min_count", "2"]
    return ["bench", "oracle", "--data", "fashion-product", "--data.root", root, "--profile", "smoke", *sizes, *options]


def test_broken_pictures_are_counted_and_named_or_left_out(tmp_path, capsys):
    root = fakes.fashion_product(tmp_path / "photos", items=400)
    photo = root / "images" / "1003.jpg"
    photo.write_bytes(photo.read_bytes()[:300])
    (root / "images" / "1004.jpg").write_bytes(fakes.HTML_PAGE)
    (root / "images" / "1005.jpg").write_bytes(fakes.LFS_POINTER)
    sentence = refused(capsys, *_photos(root, "--out", tmp_path / "run"))
    for said in ("could not be read", "--data.on_error skip"):
        assert said in sentence
    assert main([str(a) for a in _photos(root, "--out", tmp_path / "skipping", "--data.on_error", "skip")]) == 0


@pytest.mark.parametrize(
    ("content", "says"), [(fakes.HTML_PAGE, "HTML"), (fakes.LFS_POINTER, "Git LFS pointer"), (b"", "styles.csv")]
)
def test_a_table_that_is_none_is_named(content, says, tmp_path, capsys):
    root = fakes.fashion_product(tmp_path / "photos", items=20)
    (root / "styles.csv").write_bytes(content)
    assert says in refused(capsys, *_photos(root, "--out", tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--data.image", "pth"], "has no column 'pth'"),
        (["--data.image", "path", "--data.attributes", "colour,sleev"], "sleev"),
        (["--data.image", "path", "--data.split", "subset", "--data.test_share", "2"], "test_share"),
        (["--data.image", "path", "--data.table", "absent.csv"], "absent.csv"),
    ],
)
def test_mistakes_in_a_table_of_ones_own(options, says, tmp_path, capsys):
    table = fakes.catalogue(tmp_path)
    data = ["--data", "table", "--data.root", tmp_path, "--data.table", table.name]
    assert says in refused(capsys, "bench", "oracle", *data, *options, "--profile", "smoke", "--out", tmp_path / "run")


def test_embeddings_that_are_no_numbers_are_refused(tmp_path, capsys):
    gallery, queries = np.ones((8, 4), np.float32), np.ones((3, 4), np.float32)
    gallery[5, 1] = np.nan
    np.savez(tmp_path / "g.npz", embeddings=gallery, labels=np.zeros((8, 2), int))
    np.savez(tmp_path / "q.npz", embeddings=queries, targets=np.zeros((3, 2), int))
    files = ["--gallery", tmp_path / "g.npz", "--queries", tmp_path / "q.npz", "--out", tmp_path / "report.json"]
    assert "NaN" in refused(capsys, "score", *files, "--k", 1)
    np.savez(tmp_path / "g.npz", embeddings=np.ones((8, 3), np.float32), labels=np.zeros((8, 2), int))
    assert re.search(r"\b3\b.*\b4\b|\b4\b.*\b3\b", refused(capsys, "score", *files, "--k", 1))


def test_data_commands(tmp_path, capsys):
    root = fakes.fashion_product(tmp_path / "photos", items=60)
    given = ["fashion-product", "--data.root", str(root), "--data.min_count", "2"]
    assert main(["data", "info", *given, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] > 50
    assert main(["data", "validate", *given]) == 0
    assert main(["data", "preview", *given, "--out", str(tmp_path / "sheet.png")]) == 0
    assert (tmp_path / "sheet.png").exists()
    (root / "images" / "1003.jpg").write_bytes(b"")
    assert main(["data", "validate", *given]) == 1
