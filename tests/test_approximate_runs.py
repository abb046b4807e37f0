# SPDX-License-Identifier: MIT
"""Approximate search through the command line, as users run it."""

import json
import sys
from dataclasses import replace

import numpy as np
from commands import bench

from fm_bench.bench import Bench
from fm_bench.cli import main
from fm_bench.config import RunConfig, configure
from fm_bench.evaluation.searching import Measured
from fm_bench.leaderboard.record import load
from fm_bench.leaderboard.rows import key_of, tables
from fm_bench.leaderboard.table import title
from fm_bench.retrieval import reduced


def test_an_approximate_run_says_so_everywhere(tmp_path, monkeypatch):
    measure = Measured.measure

    def hungry(*arguments):
        assert not reduced.may_use_gpus(), "the user wants a processor"
        np.ones(600 * 2**20, np.uint8)
        measure(*arguments)

    monkeypatch.setattr(Measured, "measure", hungry)
    asked = ["random", "--evaluation.protocols", "[search]", "--evaluation.also", "[]", "--trainer.accelerator", "cpu"]
    assert bench(*asked, out=tmp_path / "exact") == 0
    assert bench(*asked, "--index", "IVF16,Flat", out=tmp_path / "approximate") == 0
    judged = ["evaluate", str(tmp_path / "exact"), "--protocol", "search", "--index"]
    assert main([*judged, "IVF16,Flat"]) == 0
    assert main([*judged, "IVF1000,Flat"]) == 2
    assert main([*judged, "exact"]) == 0
    reports = {path.name: json.loads(path.read_text()) for path in (tmp_path / "exact" / "evaluations").iterdir()}
    assert set(reports) == {"search.json", "search-IVF16_Flat.json"}
    again = reports["search-IVF16_Flat.json"]
    exact, found = (load(tmp_path / name / "record.json") for name in ("exact", "approximate"))
    assert again["metrics"]["accuracy@20"]["value"] == found.metrics["search"]["accuracy@20"]["value"]
    assert again["search"]["index"] == "IVF16,Flat"
    assert exact.index == "exact"
    assert "protocols" not in exact.search
    assert found.index == "IVF16,Flat"
    assert set(found.search["protocols"]["search"]) == {
        "recall@50",
        "build_seconds",
        "bytes_per_vector",
        "latency_ms",
    }
    if sys.platform.startswith("linux"):  # others do not tell
        assert found.search["peak_memory_mb"] < 400
    assert any(note.startswith("approximate search IVF16,Flat, recall@50 ") for note in found.notes)
    assert {"build_index", "measure_index"} <= set(found.seconds)
    assert exact.fingerprint != found.fingerprint
    assert key_of(exact, "search")._replace(search="") == key_of(found, "search")._replace(search="")
    first, second = tables([found, exact])  # never in one table, and exact results come first
    assert [len(table.rows) for table in (first, second)] == [1, 1]
    assert title(first.key).endswith(" search")
    assert title(second.key).endswith(" search, approximate search IVF16,Flat")


def test_exact_runs_keep_their_settings():
    config = configure("random", "garments", "smoke", "common", 0)
    assert "index" not in config.numeric()["evaluation"]
    given = configure("random", "garments", "smoke", "common", 0, ["--evaluation.index", "milvus/FLAT:a.db"])
    elsewhere = configure("random", "garments", "smoke", "common", 0, ["--evaluation.index", "milvus/FLAT:b.db"])
    assert given.numeric()["evaluation"]["index"] == "milvus-lite/FLAT"
    assert given.numeric() == elsewhere.numeric()
    cluster = configure("random", "garments", "smoke", "common", 0, ["--evaluation.index", "milvus:http://host:1"])
    assert cluster.evaluation.index_name == "milvus/HNSW"  # whose settings milvus-lite ignores
    assert replace(cluster.evaluation, index="milvus:a.db").index_name == "milvus-lite/HNSW"
    older = config.to_dict()
    del older["evaluation"]["index"]
    assert RunConfig.from_dict(older) == config


def test_what_cannot_be_searched_is_said_before_training(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Bench, "train", lambda *_: (_ for _ in ()).throw(AssertionError("it was trained first")))
    assert bench("identity", "--index", "IVF1000,Flat", out=tmp_path / "lists") == 2
    assert "1,000 lists, but it has 300 images" in capsys.readouterr().err
    assert bench("identity", "--index", "PQ5", out=tmp_path / "codes") == 2
    assert "PQ5" in capsys.readouterr().err
    sweeps = ["--data", "garments-street", "--index", "HNSW16,Flat"]
    assert bench("identity", *sweeps, out=tmp_path / "sweep") == 2
    assert "only exact search" in capsys.readouterr().err
    assert bench("identity", "--index", "", out=tmp_path / "nothing") == 2
    assert "no factory string" in capsys.readouterr().err


def test_a_password_in_an_address_is_neither_shown_nor_written(tmp_path, capsys):
    assert bench("identity", "--index", "milvus:http://me:secret@host:1", out=tmp_path / "run") == 2
    said = capsys.readouterr()
    assert "MILVUS_TOKEN" in said.err
    assert "secret" not in said.out + said.err
    assert not (tmp_path / "run").exists()
