# SPDX-License-Identifier: MIT
"""An evaluation from memory-mapped stores takes little more memory than the embeddings, whatever is in them."""

import importlib.util
import sys
from types import ModuleType

import pytest

from fm_bench.recipe import benchmarks_dir

ROOM = 250
"""MiB beside the embeddings and 15 % of them: less than is promised, since the promise is for larger galleries."""


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The benchmark that makes the cases and measures them."""
    place = benchmarks_dir() / "speed" / "memory.py"
    spec = importlib.util.spec_from_file_location("memory_benchmark", place)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(place.parent)  # as when it is run as a script
        spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells how much a process takes")
@pytest.mark.parametrize("case", ["nothing learnt", "ties", "sweep, constant", "few labels, constant", "few values"])
def test_peak_memory_is_bounded(script, case, tmp_path):
    result = script.measure_apart(case, gallery=60_000, queries=1000, dim=256, folder=tmp_path)
    assert result["embeddings_mb"] == pytest.approx(61_000 * 256 * 4 / 2**20)
    assert result["bound_mb"] == pytest.approx(1.15 * result["embeddings_mb"] + 300)
    # what is read of the gallery counts
    assert 0.9 * result["embeddings_mb"] < result["peak_mb"] < 1.15 * result["embeddings_mb"] + ROOM


def test_cases_are_what_they_are_called(script, tmp_path):
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
