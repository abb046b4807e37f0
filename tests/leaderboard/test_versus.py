# SPDX-License-Identifier: MIT
import io

import numpy as np
import pytest
from records import outcomes, run
from rich.console import Console

from fm_bench.cli import main
from fm_bench.errors import UserError
from fm_bench.leaderboard.compare import attribute_differences, differences
from fm_bench.leaderboard.versus import compare, print_comparison, side

HITS = "manipulate-1/accuracy@20"
COLOUR = np.arange(1500) % 3 == 0
CHANGES = {
    "manipulate-1/changes colour": COLOUR,
    "manipulate-1/changes length": ~COLOUR,
    "manipulate-1/changes fit": [],
}
NAMED = {"by_attribute": {"manipulate-1": {"colour": {}, "length": {}}}}


def asked(folder, name, hits, seed=0, **changes):
    """A run that says what its requests change."""
    made = run(folder, name, {HITS: hits}, seed=seed, **(NAMED | changes))
    np.savez(made.path, **{HITS: hits}, **CHANGES)
    return made


def printed(compared) -> str:
    file = io.StringIO()
    print_comparison(compared, Console(file=file, width=100))
    return file.getvalue()


def test_two_folders_are_compared_and_printed(tmp_path):
    results = {
        f"{p}/{m}": outcomes(0.5) for p in ("manipulate-1", "search") for m in ("accuracy@20", "ndcg@20", "odd@1")
    }
    x = run(tmp_path, "x[red]", results)
    y = run(tmp_path, "y", {key: outcomes(0.4) for key in results if "search" in key})
    compared = compare(x.path.parent, y.path.parent)
    assert {p: list(each.metrics) for p, each in compared.contests.items()} == {"search": ["accuracy@20", "ndcg@20"]}
    text = printed(compared)
    assert "search: x[red] (seed 0) minus y (seed 0)" in text
    assert f"+{outcomes(0.5).mean() - outcomes(0.4).mean():.3f}" in text
    z = run(tmp_path, "z", {HITS: outcomes(0.4)})
    with pytest.raises(UserError, match="no protocol in common"):
        compare(y.path.parent, z.path.parent)


def test_as_many_requests_are_needed_as_their_digest_is_of(tmp_path):
    x, y = (run(tmp_path, name, {HITS: outcomes(0.5, number)}) for name, number in (("x", 300), ("y", 299)))
    with pytest.raises(UserError, match="are 299 and 300 of different runs"):
        compare(x.path.parent, y.path.parent)


def test_each_attribute_counts_its_own_requests(tmp_path):
    # x finds everything that changes the colour, and y everything else
    x = asked(tmp_path, "x", COLOUR.astype(np.float32))
    y = asked(tmp_path, "y", (~COLOUR).astype(np.float32))
    found = attribute_differences([x], [y], "manipulate-1", "accuracy@20")
    assert {name: each[:6] for name, each in found.items()} == {
        "colour": (1, 1, 1, 500, 0, 0),
        "length": (-1, -1, -1, 0, 0, 1000),
    }
    whole = differences([x], [y], "manipulate-1", ["accuracy@20"])["accuracy@20"]
    assert (whole.wins, whole.ties, whole.losses) == (500, 0, 1000)
    assert whole.value == pytest.approx(-1 / 3)
    text = printed(compare(x.path.parent, y.path.parent))
    assert "manipulate-1: accuracy@20 of the requests that change" in text
    assert "fit" not in text


def test_of_times_the_lower_one_wins(tmp_path):
    slow, fast = np.full(4, 9.0), np.full(4, 3.0)
    x, y = (run(tmp_path, name, {"latency/t_sum_ms": took}) for name, took in (("x", slow), ("y", fast)))
    found = differences([x], [y], "latency", ["t_sum_ms"])["t_sum_ms"]
    assert (found.value, found.wins, found.ties, found.losses) == (6, 0, 0, 4)


def test_seeds_of_a_folder_are_pooled(tmp_path):
    for seed in range(3):
        asked(tmp_path / "x", "x", outcomes(0.5, seed=seed), seed)
        asked(tmp_path / "y", "y", outcomes(0.45, seed=seed), seed)
    compared = compare(tmp_path / "x", tmp_path / "y")
    assert [run.record.seed for run in compared.x] == [0, 1, 2]
    found = compared.contests["manipulate-1"].metrics["accuracy@20"]
    mean = np.mean([outcomes(0.5, seed=seed) - outcomes(0.45, seed=seed) for seed in range(3)])
    assert found.value == pytest.approx(mean, abs=1e-6)
    assert found.wins + found.ties + found.losses == 1500
    assert "x (seeds 0, 1, 2) minus y (seeds 0, 1, 2)" in printed(compared)


def test_a_side_is_one_method(tmp_path):
    asked(tmp_path / "a", "x", outcomes(0.5))
    asked(tmp_path / "a", "y", outcomes(0.5))
    with pytest.raises(UserError, match="holds runs of x, y with 2 different settings"):
        side(tmp_path / "a")
    asked(tmp_path / "b", "x", outcomes(0.5), config={"fold": 1})
    with pytest.raises(UserError, match="folds of a cross-validation"):
        side(tmp_path / "b")
    for seed, code in enumerate("ab"):
        asked(tmp_path / "d", "x", outcomes(0.5), seed, code={"version": "0.1.0", "digest": code * 64})
    with pytest.raises(UserError, match="ran with different code"):
        side(tmp_path / "d")
    (tmp_path / "c").mkdir()
    with pytest.raises(UserError, match="holds no run"):
        side(tmp_path / "c")


def test_the_command_compares(tmp_path, capsys):
    x, y = (asked(tmp_path, name, outcomes(rate)).path.parent for name, rate in (("x", 0.6), ("y", 0.5)))
    assert main(["compare", str(x), str(y / "record.json")]) == 0
    assert "x (seed 0) minus y (seed 0)" in capsys.readouterr().out
    assert main(["compare", str(x), str(tmp_path / "absent")]) == 2
    assert "absent" in capsys.readouterr().err
