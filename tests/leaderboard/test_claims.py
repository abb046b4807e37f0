# SPDX-License-Identifier: MIT
import numpy as np
import pytest
from records import outcomes, run

from fm_bench.leaderboard.claims import CLAIMS, judge, outcome
from fm_bench.leaderboard.compare import Comparison

RATES = {"amnet": 0.65, "amnet/no-ranking": 0.55, "amnet/no-memory": 0.50, "attribute-based": 0.45}
FOLDERS = iter(range(1000))


def family(tmp_path, rates, seeds=(0, 1, 2), harder=0.1, **changes):
    """Runs of every method; requests of manipulate-2 are answered less often by ``harder``."""
    runs = []
    for name, rate in rates.items():
        for seed in seeds:
            results = {}
            for metric in ("accuracy@20", "ndcg@20"):
                results[f"manipulate-1/{metric}"] = outcomes(rate, 600, seed=100 + seed)
                results[f"manipulate-2/{metric}"] = outcomes(rate - harder, 500, seed=200 + seed)
            runs.append(run(tmp_path / str(next(FOLDERS)), name, results, seed, **changes))
    return runs


def by_claim(verdicts):
    return {(verdict.claim.id, verdict.claim.metric): verdict.outcome for verdict in verdicts}


def test_claims_that_hold_are_preserved(tmp_path):
    verdicts = judge(family(tmp_path, RATES))
    assert len(verdicts) == len(CLAIMS)
    assert set(by_claim(verdicts).values()) == {"preserved"}
    assert all(verdict.seeds == (3, 3) and not verdict.reason for verdict in verdicts)
    memory = next(verdict for verdict in verdicts if verdict.claim.id == "H1")
    assert memory.difference.value == pytest.approx(0.15, abs=0.03)
    assert 0 < memory.difference.low < memory.difference.value < memory.difference.high


def test_claims_turned_round_are_violated_and_equal_rows_undecided(tmp_path):
    found = by_claim(judge(family(tmp_path, RATES | {"amnet": 0.50, "amnet/no-memory": 0.65}, harder=-0.1)))
    assert found["H1", "accuracy@20"] == "violated"
    assert found["H2", "accuracy@20"] == "violated"
    assert found["H3", "accuracy@20"] == found["H3", "ndcg@20"] == "violated"
    assert found["H4", "accuracy@20"] == found["H4", "ndcg@20"] == "violated"
    assert found["AMN-07", "accuracy@20"] == "preserved"
    found = by_claim(judge(family(tmp_path, dict.fromkeys(RATES, 0.5), harder=0.0)))
    assert set(found.values()) == {"undecided"}


def test_h3_is_the_difference_of_the_two_losses(tmp_path):
    runs = family(tmp_path, RATES, seeds=(0,))
    means = {r.record.name: r.record.metrics["manipulate-1"]["accuracy@20"]["value"] for r in runs}
    verdict = next(v for v in judge(runs) if v.claim.id == "H3" and v.claim.metric == "accuracy@20")
    losses = (means["amnet"] - means["amnet/no-memory"]) - (means["amnet"] - means["amnet/no-ranking"])
    assert verdict.difference.value == pytest.approx(losses, abs=1e-6)


def test_few_seeds_are_provisional_and_missing_rows_untested(tmp_path):
    verdicts = judge(family(tmp_path, {"amnet": 0.6, "amnet/no-memory": 0.5}, seeds=(0,)))
    by_id = {verdict.claim.id: verdict for verdict in verdicts}
    assert by_id["H1"].outcome == "preserved"
    assert "fewer than 3 seeds" in by_id["H1"].reason
    assert by_id["H2"].outcome == "untested"
    assert by_id["H2"].difference is None
    assert by_id["H2"].reason == "amnet/no-ranking on manipulate-1 was not run on the same work."
    assert judge(family(tmp_path, {"oracle": 0.9}, seeds=(0,))) == []
    assert judge([]) == []


def test_each_place_is_judged_on_its_own(tmp_path):
    runs = family(tmp_path, RATES, seeds=(0,))
    runs += family(tmp_path, RATES | {"amnet/no-memory": 0.7}, seeds=(0,), mode="paper")
    found = {(v.mode, v.outcome) for v in judge(runs) if v.claim.id == "H1"}
    assert found == {("common", "preserved"), ("paper", "violated")}
    assert judge(runs) == judge(runs[::-1])


def test_other_requests_are_never_compared(tmp_path):
    runs = family(tmp_path, {"amnet": 0.6}, seeds=(0,))
    runs += family(
        tmp_path,
        {"amnet/no-memory": 0.5},
        seeds=(0,),
        request_digests={"manipulate-1": "other", "manipulate-2": "other"},
    )
    assert [v.outcome for v in judge(runs) if v.claim.id == "H1"] == ["untested"]
    runs += family(tmp_path, {"amnet/no-memory": 0.5}, seeds=(0,))
    assert [v.outcome for v in judge(runs) if v.claim.id == "H1"] == ["preserved"]


def test_damaged_requests_leave_a_claim_untested_with_the_reason(tmp_path):
    runs = family(tmp_path, RATES, seeds=(0,))
    damaged = next(r for r in runs if r.record.name == "amnet/no-memory")
    np.savez(damaged.path, **{"manipulate-1/accuracy@20": np.zeros(3)})
    found = {v.claim.id: v for v in judge(runs)}
    assert found["H1"].outcome == "untested"
    assert "has shape (3,)" in found["H1"].reason
    assert found["H2"].outcome == "preserved"


def test_outcome_at_the_edges():
    assert outcome(Comparison(0.1, 0.001, 0.2)) == "preserved"
    assert outcome(Comparison(0.1, 0.0, 0.2)) == "undecided"
    assert outcome(Comparison(-0.1, -0.2, 0.0)) == "undecided"
    assert outcome(Comparison(-0.1, -0.2, -0.001)) == "violated"
