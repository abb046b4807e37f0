# SPDX-License-Identifier: MIT
"""Methods that look at street photos, from end to end at profile ``smoke``."""

import numpy as np
import pytest
from commands import SPECS, bench

from fm_bench.cli import main
from fm_bench.leaderboard.record import load


@pytest.mark.slow
@pytest.mark.parametrize(
    "spec",
    [
        *(spec for spec in SPECS if spec.split("/")[0] in ("darn", "random", "fashionsearchnet")),
        *("flam", "cls-concat", "emb-concat"),
    ],
)
def test_street_photos_find_their_item_in_galleries_that_shrink(spec, tmp_path):
    out = tmp_path / "run"
    assert bench(spec, "--data", "garments-street", out=out) == 0
    record = load(out / "record.json")
    asked = {"instance", "gallery-sweep"}
    assert asked <= set(record.metrics) <= asked | set(record.config["evaluation"].get("also", []))
    assert 250 < record.gallery <= 300
    sweep = record.metrics["gallery-sweep"]
    sizes = sorted(int(name.partition("|")[2]) for name in sweep if name.startswith("accuracy@20|"))
    assert len(sizes) == 5
    assert sizes[-1] == record.gallery
    accuracy = [sweep[f"accuracy@20|{size}"]["value"] for size in sizes]
    assert accuracy == sorted(accuracy, reverse=True)
    assert accuracy[0] == 1  # of the 14 or 15 images of the smallest gallery, all are found
    assert record.metrics["instance"]["accuracy@20"]["value"] >= accuracy[-1]  # other pictures of the item are left out


@pytest.mark.slow
@pytest.mark.parametrize("spec", [spec for spec in SPECS if spec.startswith("detector")])
def test_detectors_are_judged_by_their_boxes(spec, tmp_path, capsys):
    few = ["--method.training_images", "8", "--evaluation.requests", "12", "--method.picture_size", "64"]
    assert (
        bench(spec, "--data", "garments-street", *(few if spec != "detector/whole" else []), out=tmp_path / "run") == 0
    )
    record = load(tmp_path / "run" / "record.json")
    metrics = record.metrics["detection"]
    assert set(record.metrics) == {"detection"}
    assert {"ap@0.7 shop", "ap@0.7 street", "recall@0.7 shop", "recall@0.7 street"} <= set(metrics)
    assert all(0 <= value["low"] <= value["value"] <= value["high"] <= 1 for value in metrics.values())
    assert record.query_ms is None
    assert "ap@0.7" in capsys.readouterr().out  # the header is broken between words
    assert main(["evaluate", str(tmp_path / "run"), "--protocol", "detection"]) == 2
    assert "searches no gallery" in capsys.readouterr().err


@pytest.mark.slow
def test_what_was_detected_is_searched_for(tmp_path):
    retriever, run = tmp_path / "darn", tmp_path / "run"
    assert bench("darn/conv4-5", "--data", "garments-street", out=retriever) == 0
    asked = ["--method.retriever", str(retriever), "--evaluation.requests", "40"]
    assert bench("detector/whole", "--data", "garments-street", *asked, out=run) == 0
    record = load(run / "record.json")
    assert any("searched by darn/conv4-5, trained on whole pictures" in note for note in record.notes)
    metrics = record.metrics["detection"]
    with np.load(run / "requests.npz") as scores:
        for name, estimate in metrics.items():
            assert scores[f"detection/{name}"].shape == (record.requests["detection"],)
            assert scores[f"detection/{name}"].mean() == pytest.approx(estimate["value"], abs=1e-9)
    assert metrics["accuracy@20 detected boxes"] == metrics["accuracy@20 full images"]  # the whole picture is the box
    assert 0 <= metrics["accuracy@20 true boxes"]["value"] <= 1
