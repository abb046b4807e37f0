# SPDX-License-Identifier: MIT
"""An evaluation from memory-mapped stores takes little more memory than the embeddings, whatever is in them."""

import importlib.util
import json
import subprocess
import sys

import pytest

from fm_bench.recipe import benchmarks_dir

SCRIPT = benchmarks_dir() / "speed" / "memory.py"
ROOM = 200
"""MiB beside the embeddings and 15 % of them: less than is promised, since the promise is for larger galleries."""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells how much a process takes")
@pytest.mark.parametrize("case", ["nothing learnt", "ties", "sweep, constant", "few labels, constant", "few values"])
def test_peak_memory_is_bounded(case, tmp_path):
    size = ["--gallery", "60000", "--queries", "1000", "--dim", "256"]
    command = [sys.executable, str(SCRIPT), *size, "--cases", case, "--json", str(tmp_path / "found.json")]
    subprocess.run([*command, "--folder", str(tmp_path)], check=True, capture_output=True, timeout=600)
    found = json.loads((tmp_path / "found.json").read_text())
    (result,) = found["results"]
    assert result["embeddings_mb"] == pytest.approx(61_000 * 256 * 4 / 2**20)
    assert result["bound_mb"] == pytest.approx(1.15 * result["embeddings_mb"] + 300)
    # what is read of the gallery counts
    assert 0.9 * result["embeddings_mb"] < result["peak_mb"] < 1.15 * result["embeddings_mb"] + ROOM


def test_cases_are_what_they_are_called(tmp_path):
    spec = importlib.util.spec_from_file_location("memory_benchmark", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    distinct = {}
    for name, case in script.CASES.items():
        script.write_case(tmp_path / name, case, 300, 20, 16)
        gallery = script.EmbeddingStore(tmp_path / name / "gallery").open()
        distinct[name] = len({row.tobytes() for row in gallery})
        result = script.measure(tmp_path / name, case)
        assert 0 <= result["accuracy@20"] <= 1
    assert distinct["learnt"] == 300
    assert distinct["ties"] == 6
    assert {distinct[name] for name in distinct if "constant" in name} == {1}
