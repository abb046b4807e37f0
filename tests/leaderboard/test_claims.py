# SPDX-License-Identifier: MIT
import numpy as np
import pytest
from records import outcomes, run

from fm_bench.leaderboard import claims
from fm_bench.leaderboard.claims import CLAIMS, outcome
from fm_bench.leaderboard.compare import differences, scores
from fm_bench.leaderboard.resampling import Comparison

AMNET = [claim for claim in CLAIMS if claim.id in ("H1", "H2", "H3", "H4", "AMN-07", "AMN-10")]
RATES = {"amnet": 0.65, "amnet/no-ranking": 0.55, "amnet/no-memory": 0.50, "attribute-based": 0.45}
FOLDERS = iter(range(1000))


def family(tmp_path, rates, seeds=(0, 1, 2), harder=0.1, **changes):
    """Runs of every method; requests of manipulate-2 are answered less often by ``harder``."""
    runs = []
    for name, rate in rates.items():
        for seed in seeds:
            results = {}
            for metric in ("accuracy@20", "ndcg@20"):
                trained = rate + 0.004 * seed
                results[f"manipulate-1/{metric}"] = outcomes(trained, 600, seed=100)
                results[f"manipulate-2/{metric}"] = outcomes(trained - harder, 500, seed=200)
            runs.append(run(tmp_path / str(next(FOLDERS)), name, results, seed, **changes))
    return runs


def judge(runs):
    return claims.judge(runs, AMNET)


def by_claim(verdicts):
    return {(verdict.claim.id, verdict.claim.metric): verdict.outcome for verdict in verdicts}


def test_claims_that_hold_are_preserved(tmp_path):
    verdicts = judge(family(tmp_path, RATES))
    assert len(verdicts) == len(AMNET) == 8
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


def test_a_claim_that_one_seed_holds_up_and_two_do_not_is_undecided(tmp_path):
    rates = {"amnet": (0.80, 0.45, 0.45), "amnet/no-memory": (0.50, 0.50, 0.50)}
    runs = [
        run(tmp_path, name, {"manipulate-1/accuracy@20": outcomes(rate, 600)}, seed)
        for name, of in rates.items()
        for seed, rate in enumerate(of)
    ]
    (verdict,) = [v for v in judge(runs) if v.claim.id == "H1" and v.claim.metric == "accuracy@20"]
    assert (verdict.outcome, verdict.seeds) == ("undecided", (3, 3))
    assert verdict.difference.value > 0.05
    (alone,) = [v for v in judge([r for r in runs if r.record.seed == 0]) if v.claim.id == "H1"]
    assert alone.outcome == "preserved"


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
    three = family(tmp_path, {"amnet": 0.6})
    (uneven,) = [
        v for v in judge([*three, *family(tmp_path, {"amnet/no-memory": 0.5}, seeds=(0,))]) if v.claim.id == "H1"
    ]
    assert uneven.seeds == (3, 1)
    assert "fewer than 3 seeds" in uneven.reason  # the lesser side tells
    assert by_id["H2"].outcome == "untested"
    assert by_id["H2"].difference is None
    assert by_id["H2"].reason == "amnet/no-ranking on manipulate-1 was not run on the same work."
    assert judge(family(tmp_path, {"oracle": 0.9}, seeds=(0,))) == []
    assert judge([]) == []


def test_of_one_seed_the_noise_of_training_is_that_of_methods_with_several(tmp_path):
    alone = family(tmp_path, {"amnet": 0.6, "amnet/no-memory": 0.5}, seeds=(0,))
    (h1,) = [v for v in judge(alone) if v.claim.id == "H1"]
    assert h1.outcome == "preserved"
    assert h1.reason.endswith("and no method here has several to tell the noise of training.")
    noisy = [
        run(tmp_path / "noisy", "attribute-based", {"manipulate-1/accuracy@20": outcomes(rate, 600)}, seed)
        for seed, rate in enumerate((0.3, 0.45, 0.6))
    ]
    (h1,) = [v for v in judge([*alone, *noisy]) if v.claim.id == "H1"]
    assert (h1.outcome, h1.reason) == ("undecided", "Provisional: fewer than 3 seeds.")


def test_one_method_on_two_protocols_varies_by_what_its_seeds_do_to_the_difference(tmp_path):
    runs = [
        run(
            tmp_path,
            "amnet",
            {f"manipulate-{n}/accuracy@20": outcomes(rate - 0.1 * n, 600, seed=n) for n in (1, 2)},
            seed,
        )
        for seed, rate in enumerate((0.5, 0.7, 0.9))  # which differ by far more than the protocols do
    ]
    h4 = {v.claim.metric: v for v in judge(runs) if v.claim.id == "H4"}["accuracy@20"]
    assert (h4.outcome, h4.seeds) == ("preserved", (3, 3))


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


def test_of_several_configurations_the_one_with_most_seeds_speaks(tmp_path):
    other = {"config": {"model": {"lr": 9.0}}, "finished": "2030-01-01T00:00:00+00:00"}
    rival = family(tmp_path, {"amnet/no-memory": 0.5})
    runs = [*family(tmp_path, {"amnet": 0.6}), *family(tmp_path, {"amnet": 0.3}, seeds=(0,), **other), *rival]
    assert [(v.outcome, v.seeds) for v in judge(runs) if v.claim.id == "H1"] == [("preserved", (3, 3))]
    as_many = [*family(tmp_path, {"amnet": 0.6}), *family(tmp_path, {"amnet": 0.3}, **other), *rival]
    assert [v.outcome for v in judge(as_many) if v.claim.id == "H1"] == ["violated"]  # then the newest


def test_what_an_approximate_index_found_says_nothing_of_a_claim(tmp_path):
    found = {"index": "HNSW32,Flat", "protocols": {}}
    runs = family(tmp_path, {"amnet": 0.6, "amnet/no-memory": 0.5}, seeds=(0,), search=found)
    assert judge(runs) == []


def test_two_protocols_are_compared_on_the_same_data_and_gallery_alone(tmp_path):
    one = {"protocols": {"manipulate-1": "m" * 8}, "requests": {"manipulate-1": 600}}
    hits = {"manipulate-1/accuracy@20": outcomes(0.6, 600)}
    harder = {"manipulate-2/accuracy@20": outcomes(0.4, 500)}
    first = run(tmp_path, "amnet", hits, **one)
    for number, (changes, expected) in enumerate(
        [({}, "preserved"), ({"gallery": 77}, "untested"), ({"data_digest": "ee" * 32}, "untested")]
    ):
        second = run(tmp_path / str(number), "amnet", harder, **changes)
        found = {v.claim.metric: v.outcome for v in judge([first, second]) if v.claim.id == "H4"}
        assert found["accuracy@20"] == expected, changes


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
    assert outcome(Comparison(-0.1, -0.2, 0.0), tie=True) == "preserved"
    assert outcome(Comparison(-0.1, -0.2, -0.001), tie=True) == "violated"


def verdicts_of(runs):
    return {(v.claim.id, v.claim.metric): v for v in claims.judge(runs)}


def test_manipulated_is_compared_with_original_of_the_same_run(tmp_path):
    """H12: better on the whole, worse for patterns."""
    rng = np.random.default_rng(0)
    pattern, colour = np.arange(1200) % 6 == 0, np.arange(1200) % 6 > 3
    fit = ~pattern & ~colour  # half of all: no target, so that nothing is manipulated and nothing is claimed
    before = rng.random(1200) < 0.6
    after = rng.random(1200) < np.select([pattern, colour], [0.3, 0.98], 0.0)
    results = {"classification/original": before, "classification/manipulated": after}
    asked = {
        f"classification/changes {name}": of for name, of in (("pattern", pattern), ("colour", colour), ("fit", fit))
    }
    parts = {"classification": {name: {"manipulated": {"value": 0.5}} for name in ("pattern", "colour", "fit")}}
    flam = run(tmp_path, "flam", {k: v.astype(float) for k, v in (results | asked).items()}, by_attribute=parts)
    found = {v.claim.id: v for v in claims.judge([flam]) if v.claim.protocol == "classification"}
    assert found["H12 (FLM-82, 86)"].outcome == "preserved"
    gains = [after[part].mean() - before[part].mean() for part in (pattern, colour)]
    assert found["H12 (FLM-82, 86)"].difference.value == pytest.approx(np.mean(gains)), "a mean of attributes' means"
    assert found["H12 (FLM-81, 85)"].outcome == "preserved"
    assert found["FLM-80, 84"].outcome == "preserved"
    assert found["FLM-79, 83"].outcome == "untested"
    assert found["FLM-79, 83"].reason.startswith("the data have no attribute named category or article_type")
    difference = found["H12 (FLM-81, 85)"].difference
    assert difference.value == pytest.approx(before[pattern].mean() - after[pattern].mean(), abs=1e-6)
    assert difference.low < difference.value < difference.high
    assert difference.high - difference.low < 0.25  # of 200 requests, paired: 2 x 1.96 x 0.67 / sqrt(200) = 0.19
    silent = run(tmp_path / "b", "flam", {k: v.astype(float) for k, v in results.items()}, by_attribute=parts)
    found = {v.claim.id: v for v in claims.judge([silent]) if v.claim.protocol == "classification"}
    assert "does not say what requests change" in found["H12 (FLM-82, 86)"].reason
    assert "does not say what requests change" in found["H12 (FLM-81, 85)"].reason


def test_a_claim_about_an_attribute_looks_only_at_its_requests(tmp_path):
    colour = np.arange(400) % 2 == 0
    for turn, expected in ((colour, "preserved"), (~colour, "violated")):
        runs = []
        for name, hits in (("flam/m-adv", turn), ("flam/s-adv", ~turn)):
            asked = {"manipulate-1/changes colour": colour * 1.0, "manipulate-1/changes pattern": ~colour * 1.0}
            results = {"manipulate-1/accuracy@50": hits * 1.0} | asked
            parts = {"manipulate-1": {"colour": {"accuracy@50": {"value": 0.5}}}}
            runs.append(run(tmp_path / str(next(FOLDERS)), name, results, by_attribute=parts))
        found = {v.claim.id: v for v in claims.judge(runs)}
        assert found["FLM-39, 42"].outcome == expected
        assert found["FLM-28, 32"].outcome == "undecided"


def test_less_time_is_better(tmp_path):
    rng = np.random.default_rng(0)
    times = {"amgan-p": 20.0, "fcd": 30.0, "amnet": 25.0, "fashionsearchnet": 60.0}
    runs = [
        run(
            tmp_path,
            name,
            {f"latency/{metric}": rng.normal(ms, 1.0, 300) for metric in ("t_sum_ms", "t_sea_ms")},
        )
        for name, ms in times.items()
    ]
    judged = [v for v in claims.judge(runs) if v.claim.protocol == "latency"]
    found = {v.claim.id: v for v in judged if "amgan-t" not in (v.claim.x, v.claim.y)}
    assert found["H15 (AMG-64)"].outcome == "preserved"
    assert found["H15 (AMG-64)"].difference.value == pytest.approx(10, abs=0.5)
    assert found["H15 (AMG-65)"].outcome == "violated"
    assert found["H15 (AMG-66)"].outcome == "preserved"
    assert found["H15 (AMG-67)"].outcome == "preserved"
    assert found["H15 (AMG-70)"].outcome == "untested"


@pytest.mark.parametrize(("weights", "expected"), [(None, "untested"), ("nin.safetensors", "preserved")])
def test_a_network_with_random_weights_does_not_stand_for_a_trained_one(tmp_path, weights, expected):
    found = {}
    for name, rate, hyper in (("darn/an", 0.6, {}), ("pretrained/nin", 0.4, {"weights": weights})):
        results = {"instance/accuracy@20": outcomes(rate, 600, seed=3)}
        found[name] = run(tmp_path, name, results, config={"hyper": hyper})
    verdict = verdicts_of(found.values())["H8 (DARN-03)", "accuracy@20"]
    assert verdict.outcome == expected
    assert ("random weights" in verdict.reason) == (weights is None)


def test_region_claims_are_judged_on_success(tmp_path):
    rates = {"fashionsearchnet/region-aware": 0.5, "fashionsearchnet": 0.3, "amnet": 0.1}
    runs = [run(tmp_path, name, {"region/success@5": outcomes(rate, 600)}) for name, rate in rates.items()]
    found = verdicts_of(runs)
    assert found["H7 (FSN-13)", "success@5"].outcome == found["H7 (FSN-14)", "success@5"].outcome == "preserved"


def test_ties_are_preserved_unless_violated(tmp_path):
    rates = {"darn": 0.5, "darn/conv5": 0.5, "darn/arn": 0.5}
    results = {name: {"instance/ndcg@20": outcomes(rate, 600, seed=3)} for name, rate in rates.items()}
    found = verdicts_of([run(tmp_path / "a", name, values) for name, values in results.items()])
    assert found["H9 (DARN-10)", "ndcg@20"].outcome == "preserved"
    assert "nothing here speaks against it" in found["H9 (DARN-10)", "ndcg@20"].reason
    assert found["H8 (DARN-11)", "ndcg@20"].outcome == "undecided"
    results["darn/conv5"] = {"instance/ndcg@20": outcomes(0.4, 600, seed=3)}
    found = verdicts_of([run(tmp_path / "b", name, values) for name, values in results.items()])
    assert found["H9 (DARN-10)", "ndcg@20"].outcome == "violated"


def swept(folder, name, small, large, seed=0):
    """A run of a sweep that finds a share ``small`` in the smallest gallery and ``large`` in the whole."""
    hits = {size: outcomes(rate, 800, seed=40 + seed) for size, rate in ((50, small), (250, 0.5), (1000, large))}
    results = {f"gallery-sweep/accuracy@20|{size}": values for size, values in hits.items()}
    metrics = {f"accuracy@20|{size}": {"value": float(values.mean())} for size, values in hits.items()}
    if hits[1000].any():
        metrics["increment_ratio@20"] = {"value": float(hits[50].mean() / hits[1000].mean() - 1)}
    return run(folder, name, results, seed, metrics={"gallery-sweep": metrics})


def test_a_lower_increment_ratio_is_better(tmp_path):
    runs = [swept(tmp_path, "darn", 0.7, 0.5), swept(tmp_path, "pretrained/nin", 0.6, 0.2)]
    runs.append(swept(tmp_path, "darn/arn", 0.6, 0.2))
    found = verdicts_of(runs)
    verdict = found["DARN-34", "increment_ratio@20"]
    assert verdict.outcome == "preserved"
    ratios = [r.record.metrics["gallery-sweep"]["increment_ratio@20"]["value"] for r in runs]
    assert verdict.difference.value == pytest.approx(ratios[1] - ratios[0], abs=1e-6)
    assert 0 < verdict.difference.low < verdict.difference.value < verdict.difference.high
    assert found["DARN-35", "increment_ratio@20"].outcome == "preserved"  # equal: a tie
    assert found["DARN-36", "increment_ratio@20"].outcome == "untested"
    turned = [swept(tmp_path / "t", "darn", 0.6, 0.2), swept(tmp_path / "t", "pretrained/nin", 0.7, 0.5)]
    assert verdicts_of(turned)["DARN-34", "increment_ratio@20"].outcome == "violated"


def test_the_interval_of_a_ratio_resamples_both_galleries_of_both_methods(tmp_path):
    x, y = swept(tmp_path, "darn", 0.7, 0.5), swept(tmp_path, "pretrained/nin", 0.6, 0.2, seed=1)
    found = differences([x], [y], "gallery-sweep", ["increment_ratio@20"])["increment_ratio@20"]
    gradients = []
    for hits in (scores([r], "gallery-sweep", "increment_ratio@20").mean for r in (x, y)):
        small, large = hits.mean(axis=0)
        gradients.append(hits[:, 0] / large - hits[:, 1] * small / large**2)  # the delta method
    error = np.std(gradients[0] - gradients[1]) / np.sqrt(800)
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert (found.wins, found.losses) == (0, 0)


def test_an_undefined_ratio_leaves_a_claim_untested(tmp_path):
    runs = [swept(tmp_path, "darn", 0.7, 0.5), swept(tmp_path, "pretrained/nin", 0.6, 0.0)]
    verdict = verdicts_of(runs)["DARN-34", "increment_ratio@20"]
    assert verdict.outcome == "untested"
    assert "nothing was found in the whole gallery" in verdict.reason
