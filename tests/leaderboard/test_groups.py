# SPDX-License-Identifier: MIT
import numpy as np
import pytest
from records import make, outcomes, run

from fm_bench.leaderboard import groups
from fm_bench.leaderboard.groups import ranks
from fm_bench.leaderboard.rows import tables

METRIC = "manipulate-1/accuracy@20"


def standing(runs):
    """Rank of every row of the one table that ``runs`` fill, by label."""
    (table,) = tables(run.record for run in runs)
    found = ranks(table, {run.record.fingerprint: run for run in runs})
    return {row.label: rank for row, rank in zip(table.rows, found, strict=True)}


def hits(rate, requests, seed):
    """Exactly that share of hits, at random places."""
    return np.random.default_rng(seed).permutation(np.arange(requests) < rate * requests).astype(np.float32)


def made(folder, rates, requests=600, **changes):
    return [
        run(folder, name, {METRIC: hits(rate, requests, seed)}, **changes)
        for seed, (name, rate) in enumerate(rates.items())
    ]


def test_rows_that_cannot_be_told_apart_share_a_rank(tmp_path):
    found = standing(made(tmp_path, {"a": 0.80, "b": 0.79, "c": 0.5, "d": 0.2}))
    assert [(found[name].first, found[name].last) for name in "abcd"] == [(1, 2), (1, 2), (3, 3), (4, 4)]
    assert [found[name].groups for name in "abcd"] == ["a", "a", "b", "c"]


def test_letters_tell_pairs_apart_that_a_chain_connects(tmp_path):
    found = standing(made(tmp_path, {"a": 0.60, "b": 0.55, "c": 0.49}))
    assert found["a"].groups == "a"
    assert found["b"].groups == "a b"
    assert found["c"].groups == "b"
    assert [(found[name].first, found[name].last) for name in "abc"] == [(1, 2), (1, 3), (2, 3)]


def test_paired_rows_are_told_apart_where_their_intervals_overlap(tmp_path):
    lesser = outcomes(0.5, 600)
    better = np.maximum(lesser, outcomes(0.53, 600))  # a hit wherever the other has one, and some more
    assert better.mean() - lesser.mean() < 0.05
    runs = [run(tmp_path, "a", {METRIC: better}), run(tmp_path, "b", {METRIC: lesser})]
    assert [rank.first for rank in standing(runs).values()] == [1, 2]


def test_seeds_that_disagree_widen_the_doubt(tmp_path):
    def seeds(name, rates):
        return [
            run(tmp_path, name, {METRIC: outcomes(rate, 600, 7)}, seed, config={}) for seed, rate in enumerate(rates)
        ]

    steady = standing([*seeds("a", (0.60, 0.60, 0.60)), *seeds("b", (0.54, 0.54, 0.54))])
    assert [rank.first for rank in steady.values()] == [1, 2]
    noisy = standing([*seeds("c", (0.45, 0.60, 0.75)), *seeds("d", (0.39, 0.54, 0.69))])
    assert [rank.first for rank in noisy.values()] == [1, 1]


def test_a_row_with_one_seed_is_as_doubtful_as_those_with_several(tmp_path):
    def rows(folder, steady):
        rates = {"a": (0.60,), "b": (0.50,), "c": steady, "d": steady[::-1]}
        return [
            run(folder / name, name, {METRIC: outcomes(rate, 600, 7)}, seed, config={})
            for name, of in rates.items()
            for seed, rate in enumerate(of)
        ]

    found = standing(rows(tmp_path / "steady", (0.30, 0.30, 0.31)))
    assert (found["a"].first, found["b"].first) == (1, 2)
    found = standing(rows(tmp_path / "noisy", (0.20, 0.30, 0.40)))
    assert (found["a"].first, found["b"].first) == (1, 1)


def test_rows_with_the_same_hits_share_a_rank_though_nothing_varies(tmp_path):
    same = hits(0.7, 200, 0)
    found = standing([run(tmp_path, name, {METRIC: same}) for name in "ab"])
    assert [(rank.first, rank.last) for rank in found.values()] == [(1, 2), (1, 2)]


def test_holm_corrects_for_all_pairs(tmp_path):
    few = made(tmp_path / "few", {"a": 0.55, "b": 0.48})
    assert [rank.first for rank in standing(few).values()] == [1, 2]
    many = made(tmp_path / "many", {"a": 0.55, "b": 0.48, **{f"x{i}": 0.515 for i in range(10)}})
    assert {rank.first for rank in standing(many).values()} == {1}


def test_floors_ceilings_and_rows_without_results_are_not_ranked(tmp_path):
    runs = made(tmp_path, {"oracle": 0.99, "a": 0.8, "b": 0.5, "random": 0.1})
    lost = run(tmp_path, "lost", {METRIC: outcomes(0.6, 600)})
    lost.path.unlink()
    found = standing([*runs, lost])
    assert found["oracle"] is found["random"] is found["lost"] is None
    assert (found["a"].first, found["b"].first) == (1, 2)
    assert list(standing(runs[:2]).values()) == [None, None]


@pytest.mark.parametrize("machines", [("x", "x"), ("x", "y")])
def test_times_rank_lower_first_and_only_on_one_machine(tmp_path, machines):
    runs = [
        run(tmp_path, name, {"latency/t_sum_ms": 5.0 + mean + outcomes(0.5, 300)}, hardware={"cpu": machine})
        for name, mean, machine in zip("ab", (2.0, 1.0), machines, strict=True)
    ]
    found = standing(runs)
    if len(set(machines)) == 1:
        assert (found["a"].first, found["b"].first) == (2, 1)
    else:
        assert found == {"a": None, "b": None}


def test_a_new_row_leaves_the_numbers_of_the_others_alone(tmp_path):
    runs = made(tmp_path, {"a": 0.7, "b": 0.6, "c": 0.5})
    assert standing(runs[:2])["b"].first == standing(runs)["b"].first == 2


def test_ranks_are_found_once_until_the_results_change(tmp_path, monkeypatch):
    runs = made(tmp_path, {"a": 0.7, "b": 0.5})
    first = standing(runs)
    monkeypatch.setattr(groups, "sample", None)  # a second draw would fail
    assert standing(runs) == first
    runs[1].path.unlink()
    assert standing(runs) == {"a": None, "b": None}


def test_folds_are_ranked_by_the_test_over_folds():
    def folds(name, values):
        return [
            make(
                name,
                protocols={"manipulate-1": "aa"},
                metrics={"manipulate-1": {"accuracy@20": {"value": value, "low": 0.0, "high": 1.0}}},
                config={"fold": fold, "folded": "f"},
                curves={},
            )
            for fold, value in enumerate(values)
        ]

    records = [
        *folds("a", (0.70, 0.71, 0.72, 0.70, 0.71)),
        *folds("b", (0.60, 0.62, 0.61, 0.59, 0.61)),
        *folds("c", (0.61, 0.60, 0.62, 0.60, 0.60)),
    ]
    (table,) = tables(records)
    assert [rank.first for rank in ranks(table, {})] == [1, 2, 2]
