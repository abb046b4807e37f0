# SPDX-License-Identifier: MIT
"""Every speed benchmark runs at a tiny size and writes the tables it promises; no time is asserted."""

import importlib
import itertools
import json
import math
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fm_bench.errors import UserError

FOLDER = Path(__file__).parents[2] / "benchmarks" / "speed"


@pytest.fixture(scope="module", autouse=True)
def _importable() -> Iterator[None]:
    """Scripts import each other as ``python benchmarks/speed/NAME.py`` does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield


def script(name: str) -> ModuleType:
    return importlib.import_module(name)


def run(name: str, arguments: list[str], folder: Path) -> list[list[dict[str, Any]]]:
    """The rows of each table that a script writes."""
    file = folder / f"{name}.json"
    script(name).main([*arguments, "--json", str(file)])
    content = json.loads(file.read_text())
    assert content["benchmark"] == name
    assert content["command"] == f"python benchmarks/speed/{name}.py {shlex.join(arguments)}"
    assert content["machine"]["cores"] >= 1
    assert content["versions"]["torch"]
    return [table["rows"] for table in content["tables"]]


def ratios(rows: list[dict[str, Any]], column: str) -> list[float]:
    found = [row[column] for row in rows]
    assert all(isinstance(value, float) and math.isfinite(value) and value >= 0 for value in found)
    return found


def test_garments(tmp_path: Path) -> None:
    drawn, read = run("garments", ["--count", "2", "--rows", "100", "--rounds", "1"], tmp_path)
    assert len(ratios(drawn, "ratio")) == 4
    assert read[0]["seconds"] >= 0


def test_localisation(tmp_path: Path) -> None:
    arguments = ["--batch", "2", "--size", "32", "--attributes", "2", "--rounds", "1"]
    (rows,) = run("localisation", arguments, tmp_path)
    assert ratios(rows, "ratio to the forward pass")[-1] == 1


def test_proposals(tmp_path: Path) -> None:
    (rows,) = run("proposals", ["--count", "2", "--side", "32"], tmp_path)
    assert [row["pictures"] for row in rows] == ["shop, 32 px", "street, 32 px"]
    assert ratios(rows, "ratio to the first")[0] == 1


def test_mining(tmp_path: Path) -> None:
    (rows,) = run("mining", ["--rows", "1000", "--requests", "20", "--only", "clean"], tmp_path)
    assert [row["changes"] for row in rows] == [0, 1, 2]
    assert rows[1]["requests"] == 20
    assert ratios(rows, "ratio to the first")[0] == 1


def test_preparation(tmp_path: Path) -> None:
    sizes = ["--photos", "120", "--side", "32", "--rows", "2000", "--profile", "smoke", "--rounds", "1"]
    first, later, large = run("preparation", sizes, tmp_path)
    assert [row["what"] for row in first] == [
        "Pillow alone",
        "OpenCV alone",
        "prepared",
        "prepared, with digests",
    ]
    assert ratios(first, "to Pillow")[0] == ratios(first, "to OpenCV")[1] == 1
    seconds = ratios(later, "seconds")
    assert seconds == sorted(seconds)
    assert later[-1]["until"] == "first batch"
    assert large[0]["count"] == 2000
    assert large[-1]["seconds"] == pytest.approx(sum(row["seconds"] for row in large[:-1]))


def test_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script("training"), "CASES", (("amnet", "attributes"),))
    arguments = ["--profile", "smoke", "--batches", "1", "--images", "40", "--rounds", "1"]
    (rows,) = run("training", arguments, tmp_path)
    assert [row["what"].split(",")[0] for row in rows] == ["training", "embedding and storing", "Trainer.fit"]
    for row, ratio in zip(rows, ratios(rows, "ratio"), strict=True):
        assert ratio == pytest.approx(row["images/s"] / row["in memory or bare, images/s"])


def test_hotspots(tmp_path: Path) -> None:
    sizes = ["--gallery", "300", "--queries", "5", "--dim", "8"]
    parts, *profiles = run("hotspots", ["--profile", "smoke", "--batches", "1", *sizes], tmp_path)
    assert [row["part"] for row in parts][1:] == ["normalising", "forward and losses", "backward", "optimiser"]
    assert len(profiles) == 2
    for rows in (parts, *profiles):
        assert sum(ratios(rows, "share")) == pytest.approx(1)


def test_evaluation(tmp_path: Path) -> None:
    arguments = ["--gallery", "1000", "--queries", "5", "--dim", "8", "--noise", "1.0", "--rounds", "1"]
    whole, growth = run("evaluation", arguments, tmp_path)
    assert ratios(whole, "ratio to faiss.knn")[0] == 1
    assert {"search", "evaluation"} <= {row["what"] for row in whole}
    assert [row["what"] for row in growth] == ["100 images", "1,000 images"]


def test_approximate(tmp_path: Path) -> None:
    sizes = ["--sizes", "300", "600", "--dim", "8", "--intrinsic", "4", "--queries", "20", "--timings", "3"]
    factories = ["--factories", "IVF8,Flat;nprobe=1", "IVF8,Flat;nprobe=8", "PQ4x4;candidates=600"]
    (rows,) = run("approximate", [*sizes, *factories], tmp_path)
    assert [row["images"] for row in rows] == [300] * 4 + [600] * 4
    for exact, few, every, coded in (rows[:4], rows[4:]):
        assert exact["index"] == "exact"
        assert exact["recall@50"] == every["recall@50"] == coded["recall@50"] == 1
        assert few["recall@50"] < 1
        # coded vectors are small, and ordered by those in the map
        assert exact["index, bytes per vector"] == 0 < coded["index, bytes per vector"] < 32
        assert every["index, bytes per vector"] > 32
        assert {row["mapped, bytes per vector"] for row in (exact, few, every, coded)} == {32}


def test_results_of_several_sizes_are_drawn_together(tmp_path: Path) -> None:
    results = sorted((FOLDER / "results").glob("approximate*.json"))
    script("approximate").main(["--results", *map(str, results), "--plot", str(tmp_path / "drawn.png")])
    assert (tmp_path / "drawn.png").read_bytes().startswith(b"\x89PNG")
    figure = script("approximate").figure_of(script("approximate").measured(results))
    figure.canvas.draw()
    (legend,) = figure.legends
    images = [text.get_text() for text in legend.get_texts() if "images" in text.get_text()]
    assert len(images) == len(results)
    for axes in figure.axes:
        assert not axes.get_window_extent().overlaps(legend.get_window_extent()), "the legend hides points"
        low, high = axes.get_xlim()
        labels = [label for label in axes.get_xticklabels() if low <= label.get_position()[0] <= high]
        boxes = [label.get_window_extent() for label in labels]
        assert len(boxes) > 2
        assert all(one.x1 < other.x0 for one, other in itertools.pairwise(boxes)), "labels overlap"
    with pytest.raises(UserError, match="no results of approximate"):
        script("approximate").measured([FOLDER / "results" / "memory.json"])


def test_memory(tmp_path: Path) -> None:
    arguments = ["--gallery", "500", "--queries", "10", "--dim", "8", "--cases", "learnt"]
    (rows,) = run("memory", arguments, tmp_path)
    assert ratios(rows, "ratio to the bound")[0] < 1


def test_peers_agree_where_definitions_do(tmp_path: Path) -> None:
    arguments = [
        "--gallery",
        "500",
        "--queries",
        "40",
        "--dim",
        "16",
        "--rounds",
        "1",
        "--only",
        "numpy",
        "torchmetrics",
    ]
    (rows,) = run("peers", arguments, tmp_path)
    names = ["fm_bench.evaluation.evaluate", "faiss.knn + Python loop", "faiss.knn + torchmetrics"]
    assert [row["what"] for row in rows] == ["faiss.knn alone", *names]
    assert all(row["largest difference"] < 1e-6 for row in rows[1:])
    assert ratios(rows, "ratio to ours")[1] == 1


def test_a_peer_that_is_not_installed_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    peers = script("peers")
    assert not peers.installed(peers.Peer("nobody's", peers.python_loop, "no_such_module_at_all"))
    assert "nobody's is left out" in capsys.readouterr().out


def test_rounds_take_turns_and_the_fastest_counts() -> None:
    order: list[str] = []
    ticks = iter([0, 5, 10, 12, 20, 21, 30, 33])
    works = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    found = script("common").best(works, 2, lambda: next(ticks))
    assert order == ["a", "b", "b", "a"]
    assert found == {"a": 3, "b": 1}


def test_a_work_may_say_which_seconds_count() -> None:
    seconds = iter([0.5, 0.25])
    assert script("common").best({"a": lambda: next(seconds)}, 2) == {"a": 0.25}


def test_the_page_shows_the_results(tmp_path: Path) -> None:
    page, text = script("page"), "<!-- speed:mining:begin -->\nold\n<!-- speed:mining:end -->\nrest\n"
    readme = tmp_path / "README.md"
    readme.write_text(text)
    assert page.update(readme, tmp_path)
    assert "Not measured yet: `python benchmarks/speed/mining.py" in readme.read_text()
    expected = "`python benchmarks/speed/training.py … --json benchmarks/speed/results/training_photos.json`"
    assert expected in page.block("training_photos", tmp_path), "a second measurement is by the same script"
    rows = [{"what": "a | b", "ratio": 0.98765, "images": 12345}, {"what": "c", "ratio": None}]
    script("common").publish("mining", {"Title": rows}, ["--rows", "5"], tmp_path / "mining.json", note="A note.")
    assert page.update(readme, tmp_path, check=True)
    assert "Not measured yet" in readme.read_text(), "a check writes nothing"
    assert page.update(readme, tmp_path)
    assert not page.update(readme, tmp_path)
    shown = readme.read_text()
    assert "`python benchmarks/speed/mining.py --rows 5` on " in shown
    assert "| what | ratio | images |\n| :--- | ---: | ---: |\n| a \\| b | 0.988 | 12,345 |\n| c |  |  |" in shown
    assert shown.endswith("A note.\n\n<!-- speed:mining:end -->\nrest\n")


def test_foreign_results_are_refused(tmp_path: Path) -> None:
    (tmp_path / "mining.json").write_text('{"rows": []}')
    with pytest.raises(UserError, match=r"mining\.json holds no tables"):
        script("page").block("mining", tmp_path)


def test_the_published_page_is_what_its_results_say() -> None:
    assert not script("page").update(FOLDER / "README.md", FOLDER / "results", check=True)


def test_every_benchmark_has_its_place_on_the_page() -> None:
    text = (FOLDER / "README.md").read_text()
    for path in FOLDER.glob("*.py"):
        assert path.stem in ("common", "page") or f"<!-- speed:{path.stem}:begin -->" in text
    assert script("page").main(["--check"]) == 0
    assert sys.path[0] == str(FOLDER)


def test_a_training_ratio_is_the_median_of_rounds_and_no_pair_of_fastest_ones() -> None:
    """Between two rounds the machine became half as fast, which says nothing about either side."""
    row = script("training").row("x", 100, {"memory": [1.0, 2.0, 2.0], "bench": [1.25, 2.5, 1.0]})
    assert row["ratio"] == 0.8
    assert (row["images/s"], row["in memory or bare, images/s"]) == (100.0, 100.0)
