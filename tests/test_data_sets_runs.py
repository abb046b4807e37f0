# SPDX-License-Identifier: MIT
"""The public data sets through the command line, on fakes with their layouts."""

import json
from pathlib import Path

import fakes_darn
import fakes_fashion_iq
import fakes_parquet
import fakes_shopping100k
import pytest
from commands import bench

from fm_bench.cli import main

FAKES = {
    "shopping100k": fakes_shopping100k,
    "darn": fakes_darn,
    "fashion-iq": fakes_fashion_iq,
    "fashion-product": fakes_parquet,
}
OPTIONS = {"fashion-product": ["--data.on_error", "skip", "--data.min_count", "5"], "darn": [], "fashion-iq": []}
"""The Parquet file lacks a picture."""


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: fake.write(tmp_path_factory.mktemp(name) / "data") for name, fake in FAKES.items()}


def options(name: str, roots: dict[str, Path]) -> list[str]:
    return ["--data.root", str(roots[name]), *OPTIONS.get(name, [])]


@pytest.mark.parametrize("name", FAKES)
def test_info_and_prepare(name, roots, capsys):
    assert main(["data", "info", name, *options(name, roots), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["images"] > 150
    assert all(part["images"] for part in report["splits"].values())
    assert main(["data", "prepare", name, *options(name, roots), "--profile", "smoke"]) == 0
    assert f"{name}: {report['images']:,} images ready" in capsys.readouterr().out


@pytest.mark.parametrize("name", FAKES)
def test_a_method_trains_and_is_scored(name, roots, tmp_path):
    brief = ["--budget", "32"]
    assert bench("identity", "--data", name, *options(name, roots), *brief, out=tmp_path / "run") == 0
    record = json.loads((tmp_path / "run/record.json").read_text())
    assert record["data"] == name
    assert set(record["metrics"]) >= {"manipulate-1", "search"}


def test_a_method_trains_on_triplets(roots, tmp_path):
    assert bench("amnet", "--data", "shopping100k", *options("shopping100k", roots), out=tmp_path / "run") == 0


@pytest.mark.parametrize("name", FAKES)
def test_what_is_not_there_is_said_with_where_to_get_it(name, tmp_path, capsys):
    assert main(["data", "prepare", name, "--data.root", str(tmp_path / "nowhere")]) == 2
    sentence = capsys.readouterr().err
    assert "nowhere" in sentence
    assert "as --data.root." in sentence
    if name in ("shopping100k", "darn"):
        assert main(["data", "prepare", name, "--download", "--data.root", str(tmp_path / "nowhere")]) == 2
        assert "cannot be fetched without its authors' leave" in capsys.readouterr().err
