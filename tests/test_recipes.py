# SPDX-License-Identifier: MIT
"""Every method and variant from end to end at profile ``smoke``, through the command line."""

import pytest
from commands import SPECS, bench

from fm_bench.leaderboard.record import load


@pytest.mark.slow
@pytest.mark.parametrize("spec", [spec for spec in SPECS if not spec.startswith("detector")])
def test_every_recipe_runs_at_smoke(spec, tmp_path, capsys):
    out = tmp_path / "run"
    assert bench(spec, out=out) == 0
    record = load(out / "record.json")
    assert record.name == spec
    asked = {"manipulate-1", "manipulate-2", "search", "region"} - ({"region"} if spec == "oracle" else set())
    assert set(record.metrics) == asked | set(record.config["evaluation"].get("also", []))
    for name in asked:
        metrics = record.metrics[name]
        assert {"accuracy@1", "accuracy@20", "ndcg@20", "ndcg_ones@20", "mrr@1000", "chance@20"} <= set(metrics)
        assert (
            0 <= metrics["accuracy@20"]["low"] <= metrics["accuracy@20"]["value"] <= metrics["accuracy@20"]["high"] <= 1
        )
    assert record.gallery == 300
    assert "accuracy" in capsys.readouterr().out
    assert (out / "leaderboard.html").exists()
    if spec == "oracle":
        assert record.metrics["manipulate-1"]["accuracy@1"]["value"] == 1
    if spec == "random":
        metrics = record.metrics["manipulate-1"]
        assert (
            metrics["accuracy@20"]["low"] - 0.02
            <= metrics["chance@20"]["value"]
            <= metrics["accuracy@20"]["high"] + 0.02
        )
