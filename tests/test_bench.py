# SPDX-License-Identifier: MIT
"""The whole line at profile ``smoke``, through the command line, as users run it."""

import json
import os
import signal
import subprocess
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import bench, command, numbers, start

from fm_bench.bench import Bench
from fm_bench.cli import main
from fm_bench.config import configure
from fm_bench.leaderboard.record import load
from fm_bench.results import load_model


@pytest.fixture(scope="module")
def amnet(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("amnet") / "run"
    assert bench("amnet", out=folder) == 0
    return folder


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["identity", "--evaluation.protocols", "[detection]"], "identity finds no boxes"),
        (["detector", "--loader.crop", "true"], "leave --loader.crop at full"),
        (["detector", "--method.retriever", "absent"], "absent"),
        (["identity", "--method.weights", "absent.pt"], "no weights at absent.pt"),
    ],
)
def test_what_cannot_be_answered_is_said_before_training(arguments, complaint, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Bench, "train", lambda *_: pytest.fail("it was trained first"))
    assert bench(*arguments, out=tmp_path / "run") == 2
    assert complaint in capsys.readouterr().err


def test_protocols_that_a_method_cannot_answer_are_left_out_with_a_note(tmp_path, capsys):
    asked = ["--evaluation.protocols", "[search, detection]", "--evaluation.also", "[]"]
    assert bench("random", *asked, out=tmp_path / "run") == 0
    assert f"record: {tmp_path / 'run' / 'record.json'}" in capsys.readouterr().err
    record = load(tmp_path / "run" / "record.json")
    assert set(record.metrics) == {"search"}
    assert any("random finds no boxes" in note for note in record.notes)


def test_a_retriever_of_other_data_is_refused(tmp_path, capsys):
    assert bench("random", "--data", "garments-street", "--data.seed", "5", out=tmp_path / "other") == 0
    asked = ["detector/whole", "--data", "garments-street", "--method.retriever", str(tmp_path / "other")]
    assert bench(*asked, out=tmp_path / "run") == 2
    assert "give --method.retriever a run on the same data" in capsys.readouterr().err


def test_other_weights_under_the_same_name_are_another_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prints = []
    for content in (b"one", b"two", b"one"):
        Path("w.pt").write_bytes(content)
        config = configure("pretrained", "garments", "smoke", "common", 0, ["--method.weights", "w.pt"])
        prints.append(config.numeric()["hyper"]["weights"])
    assert prints[0] == prints[2] != prints[1]
    assert "w.pt" not in prints[0]
    assert configure("pretrained", "garments", "smoke", "common", 0).numeric()["hyper"]["weights"] is None


def test_record_and_weights_are_there_and_safe_to_read(amnet):
    record = load(amnet / "record.json")
    assert record.fingerprint == json.loads((amnet / "config.json").read_text())["fingerprint"]
    assert record.seconds["train"] > 0
    assert record.config["hyper"]["memory"] is True
    content = torch.load(amnet / "model.ckpt", weights_only=True)
    assert content["class"] == "AMNet"
    assert (amnet / "logs" / "manipulation" / "metrics.csv").exists()
    with np.load(amnet / "requests.npz", allow_pickle=False) as arrays:
        assert arrays["manipulate-1/accuracy@20"].mean() == pytest.approx(
            record.metrics["manipulate-1"]["accuracy@20"]["value"]
        )
        changed = [name for name in arrays.files if name.startswith("manipulate-2/changes ")]
        assert (np.sum([arrays[name] for name in changed], axis=0) == 2).all()
        assert len(arrays[changed[0]]) == record.requests["manipulate-2"]


@pytest.mark.slow
def test_weights_give_the_same_embedding_in_a_fresh_process(amnet, tmp_path):
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    method = load_model(amnet / "model.ckpt", "amnet")
    indicator = torch.eye(method.schema.num_values)[:3]
    with torch.no_grad():
        here = method.embed_query(images, indicator)
    script = (
        "import sys, torch; from fm_bench.results import load_model; from pathlib import Path\n"
        "m = load_model(Path(sys.argv[1]), 'amnet')\n"
        "x = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))\n"
        "with torch.no_grad(): torch.save(m.embed_query(x, torch.eye(m.schema.num_values)[:3]), sys.argv[2])\n"
    )
    subprocess.run([sys.executable, "-c", script, amnet / "model.ckpt", tmp_path / "there.pt"], check=True)
    assert torch.equal(torch.load(tmp_path / "there.pt", weights_only=True), here)


def test_a_recorded_run_is_not_run_again(amnet, capsys):
    before = (amnet / "record.json").stat().st_mtime_ns
    assert bench("amnet", out=amnet) == 0
    assert "recorded already" in capsys.readouterr().err
    assert (amnet / "record.json").stat().st_mtime_ns == before


def test_another_run_never_overwrites_this_one(amnet, capsys):
    assert bench("amnet", "--seed", "1", out=amnet) == 2
    assert "other settings" in capsys.readouterr().err
    (amnet.parent / "mine").mkdir()
    (amnet.parent / "mine" / "thesis.txt").write_text("precious")
    assert bench("amnet", out=amnet.parent / "mine") == 2
    assert "is not empty" in capsys.readouterr().err


@pytest.fixture(scope="module")
def killable(tmp_path_factory):
    """An uninterrupted run to compare with, and the options of one like it; no stage is shared between the two."""
    place = tmp_path_factory.mktemp("kill")
    options = ["amnet", "--stages.manipulation.epochs", "3", "--budget", "1500", "--logger", "none"]
    options += ["--method.images_per_value", "4"]  # the prototypes must come from these images after a resume, too
    assert ended(start(*options, out=place / "whole", cache=place / "cache-whole")) == 0
    return place, options


def ended(process: BaseProcess) -> int | None:
    """The exit code of a process that is waited for."""
    process.join()
    return process.exitcode


@pytest.mark.slow
def test_killed_at_any_moment_the_same_command_ends_with_the_same_numbers(killable):
    """SIGKILL at every milestone and at arbitrary moments between, then to the end."""
    place, options = killable
    pieces, cache = place / "pieces", place / "cache-pieces"
    moments = [
        "config.json",
        "stages/attributes/last.ckpt",
        "stages/attributes/done.json",
        "stages/manipulation/last.ckpt",
    ]
    moments += ["embeddings/gallery.json", "embeddings/manipulate-1.json", "found.npz"]
    random, kills = np.random.default_rng(0), 0
    for moment in moments:
        process = start(*options, out=pieces, cache=cache)
        while process.is_alive() and not (pieces / moment).exists():
            time.sleep(0.01)
        time.sleep(random.uniform(0, 0.3))
        process.kill()
        kills += ended(process) == -signal.SIGKILL
    assert kills >= 4
    assert ended(start(*options, out=pieces, cache=cache)) == 0
    assert numbers(pieces) == numbers(place / "whole")
    arrays = [dict(np.load(folder / "requests.npz")) for folder in (place / "whole", pieces)]
    assert all(np.array_equal(arrays[0][name], arrays[1][name], equal_nan=True) for name in arrays[0])


@pytest.mark.slow
def test_interrupted_by_the_user_it_says_how_to_go_on(killable):
    place, options = killable
    environment = os.environ | {"FM_BENCH_CACHE": str(place / "cache-interrupted")}
    told = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command(*options, out=place / "interrupted"), env=environment, **told)
    while process.poll() is None and not (place / "interrupted" / "stages/attributes/last.ckpt").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command continues" in error
    assert "Traceback" not in error


def test_a_kill_before_anything_was_written_leaves_the_folder_usable(tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    (out / ".config-abc.json").write_text("{")  # what a kill inside the first write leaves
    assert bench("random", out=out) == 0


def test_data_that_changed_are_not_judged_by_old_embeddings(tmp_path, capsys):
    out = tmp_path / "run"
    assert bench("random", out=out) == 0
    before = load(out / "record.json").metrics["search"]["accuracy@20"]
    assert main(["evaluate", str(out), "--protocol", "search"]) == 0
    after = json.loads((out / "evaluations" / "search.json").read_text())["metrics"]["accuracy@20"]
    assert after == before
    config = json.loads((out / "config.json").read_text())
    config["config"]["reader"]["seed"] = 7
    (out / "config.json").write_text(json.dumps(config))
    assert main(["evaluate", str(out), "--protocol", "search"]) == 2
    assert "have changed" in capsys.readouterr().err


def test_results_can_be_looked_at(oracle_run, tmp_path):
    assert main(["explain", str(oracle_run), "--requests", "2", "--out", str(tmp_path / "sheet.png")]) == 0
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_pictures_of_what_was_found_and_of_where_the_method_looks(tmp_path, capsys):
    assert bench("fashionsearchnet/no-global", out=tmp_path / "run") == 0
    sheet, maps = tmp_path / "sheet.png", tmp_path / "maps.png"
    asked = ["--protocol", "region", "--requests", "3", "--out", str(sheet)]
    assert main(["explain", str(tmp_path / "run"), *asked]) == 0
    assert sheet.read_bytes().startswith(b"\x89PNG")
    capsys.readouterr()
    which = ["--maps", "--attributes", "collar", "sleeve length", "--requests", "3", "--out", str(maps)]
    assert main(["explain", str(tmp_path / "run"), *which]) == 0
    assert maps.read_bytes().startswith(b"\x89PNG")
    told = capsys.readouterr().out
    assert "overlap with the true sleeves: sleeve length 0." in told
    assert "whole picture 0." in told


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--requests", "0"], "--requests is 0: give 1 to 100"),
        (["--maps", "--requests", "101"], "give 1 to 100"),
        (["--attributes", "collar"], "add --maps"),
        (["--maps", "--protocol", "search"], "leave --protocol out"),
    ],
)
def test_pictures_that_make_no_sense_are_one_sentence(options, complaint, amnet, tmp_path, capsys):
    assert main(["explain", str(amnet), *options, "--out", str(tmp_path / "x.png")]) == 2
    assert complaint in capsys.readouterr().err


def test_the_oracle_is_not_asked_about_parts_of_garments(oracle_run):
    record = load(oracle_run / "record.json")
    found = {"manipulate-1", "manipulate-2", "search"}
    assert set(record.metrics) == found | {"classification"}
    assert all(record.metrics[name]["accuracy@1"]["value"] == 1 for name in found)
    assert any("oracle knows nothing of parts of garments" in note for note in record.notes)


def test_only_fashionsearchnet_has_maps(amnet, tmp_path, capsys):
    assert main(["explain", str(amnet), "--maps", "--out", str(tmp_path / "maps.png")]) == 2
    assert "amnet, which has no activation maps" in capsys.readouterr().err
    assert not (tmp_path / "maps.png").exists()


def test_a_loss_that_is_not_a_number_stops_the_run(tmp_path, capsys):
    assert bench("identity", "--method.attributes_lr", "1e30", "--budget", "3000", out=tmp_path / "run") == 2
    assert "lower the learning rate" in capsys.readouterr().err
    assert not (tmp_path / "run" / "record.json").exists()


def test_pictures_too_small_for_amgan_are_one_sentence(tmp_path, capsys):
    assert bench("amgan-t", "--loader.image_size", "16", out=tmp_path / "run") == 2
    assert "pictures of 16 x 16 cannot be halved 5 times: raise --loader.image_size to 32" in capsys.readouterr().err
