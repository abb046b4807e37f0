# SPDX-License-Identifier: MIT
"""A drop is caught, noise is not; none of these numbers was measured."""

import dataclasses
import importlib.metadata
from pathlib import Path

import numpy as np
import pytest
from records import make

from fm_bench.campaign import Ended
from fm_bench.cli import main
from fm_bench.commands.regress import surroundings
from fm_bench.errors import UserError
from fm_bench.leaderboard.bands import Score, Usual, expected, usual
from fm_bench.leaderboard.record import Record, load, save
from fm_bench.leaderboard.regress import Measured, failed, judge, keep, recorded_in, summary

HEADLINE = "manipulate-1 accuracy@20"
COMMITTED = Path(__file__).parents[2] / "leaderboards" / "records"


def measured(name="amnet", seed=0, skill=None, **changes) -> Measured:
    return Measured.of(make(name, seed, skill, **changes))


RECORDED = [measured(seed=seed) for seed in (0, 1, 2)]  # 0.676, 0.680 and 0.684
COSTS = {"prepare": 1.0, "train": 251.0}


def verdicts(fresh, recorded=RECORDED) -> dict[str, str]:
    return {finding.what: finding.verdict for finding in judge([fresh], recorded)}


@pytest.mark.parametrize(
    ("skill", "verdict"), [(0.68, "ok"), (0.664, "ok"), (0.75, "ok"), (0.655, "ok"), (0.63, "worse"), (0.3, "worse")]
)
def test_a_drop_is_caught_and_noise_is_not(skill, verdict):
    # 95 % of further seeds: 0.680 ± 4.303 * 0.004 * sqrt(1 + 1/3)
    band = expected([run.scores["manipulate-1"] for run in RECORDED], Usual(), lower_is_better=False)
    assert (band.mean, band.margin) == (pytest.approx(0.68), pytest.approx(0.01987, abs=1e-4))
    assert band.how == "3 seeds"
    found = verdicts(measured(seed=1, skill=skill))
    assert found[HEADLINE] == verdict
    assert set(found) == {
        HEADLINE,
        *("manipulate-2 accuracy@20", "search accuracy@20", "training time", "time per query", "peak memory"),
    }
    assert failed(judge([measured(seed=1, skill=skill)], RECORDED)) == (verdict == "worse")


def test_what_one_score_would_fail_by_is_no_surprise_among_three():
    run = measured(seed=1, skill=0.655)  # beyond the band: p 0.016 by itself, 0.049 as one of three
    found = {each.what: each for each in judge([run], RECORDED)}
    assert found[HEADLINE].p == pytest.approx(0.0487, abs=1e-3)
    assert found[HEADLINE].why == "beyond what is expected, as happens by chance among 3 scores: p 0.049"
    alone = dataclasses.replace(run, scores={"manipulate-1": run.scores["manipulate-1"]})
    assert verdicts(alone)[HEADLINE] == "worse"
    text = summary([*found.values()])
    assert "3 scores were compared" in text
    assert "Holm's correction for all 3, is below 0.025" in text


def test_of_one_seed_the_bootstrap_interval_is_the_band_where_no_seeds_are_known_and_the_summary_says_so():
    def alone(skill):
        run = measured(seed=1, skill=skill)
        return dataclasses.replace(run, scores={"manipulate-1": run.scores["manipulate-1"]})

    one = [RECORDED[1]]
    low = RECORDED[1].scores["manipulate-1"].low
    assert verdicts(alone(low + 0.001), one)[HEADLINE] == "ok"
    assert verdicts(alone(low - 0.001), one)[HEADLINE] == "worse"
    text = summary(judge([measured(seed=1)], one))
    assert f"at least {low:.3f} (1 seed, bootstrap over requests)" in text
    assert "training noise is missing" in text


def test_a_method_with_one_seed_has_the_noise_of_those_with_several():
    # fcd: 0.5 once; amnet's seeds are 0.004 apart: 0.5 - 4.303 * 0.004 * sqrt(2)
    known = [*RECORDED, measured("fcd", seed=1, skill=0.5)]
    found = {each.what: each for each in judge([measured("fcd", seed=1, skill=0.5)], known)}
    assert found[HEADLINE].band == "at least 0.476 (1 seed and those of other methods)"
    floors = [dataclasses.replace(run, name="random") for run in RECORDED]  # whose seeds draw, and train nothing
    (first, *_) = judge([measured("fcd", seed=1, skill=0.5)], [*floors, known[-1]])
    assert "bootstrap over requests" in first.band
    elsewhere = [dataclasses.replace(run, data="other") for run in RECORDED]
    (first, *_) = judge([measured("fcd", seed=1, skill=0.5)], [*elsewhere, known[-1]])
    assert "bootstrap over requests" in first.band


def test_the_noise_of_methods_is_no_excuse_for_a_floor_or_a_ceiling():
    oracle = [measured("oracle", seed=seed, skill=0.99) for seed in (0, 1, 2)]
    assert verdicts(measured("oracle", skill=0.98), [*RECORDED, *oracle])[HEADLINE] == "worse"


def family(rng, spread: list[float], seeds: int, loss: float = 0.0) -> list[Measured]:
    """Runs of methods whose scores ``spread`` as given, of which every other one has ``seeds`` seeds, 5 scores each.

    The second one, which has several, is worse by ``loss``.
    """
    runs = []
    for method, error in enumerate(spread):
        for seed in range(seeds if method % 2 else 1):
            values = 0.3 + 0.02 * method + rng.normal(0, error, 5) - (loss if method == 1 else 0.0)
            scores = {f"p{n}": Score("accuracy@20", value, 0.0, 1.0, 1500, "same") for n, value in enumerate(values)}
            runs.append(dataclasses.replace(RECORDED[0], name=f"method{method}", seed=seed, scores=scores, costs={}))
    return runs


@pytest.mark.parametrize("spread", [20 * [0.01], 10 * [0.005, 0.005] + 5 * [0.02, 0.02]], ids=["alike", "unlike"])
def test_among_a_hundred_scores_noise_seldom_fails_and_a_real_drop_does(spread):
    rng = np.random.default_rng(0)
    alarms = [failed(judge(family(rng, spread, 1), family(rng, spread, 3))) for _ in range(40)]
    assert sum(alarms) <= 4  # a chance of 2.5 % each; three in four if every score were judged by itself
    worse = [each for each in judge(family(rng, spread, 1, 0.3), family(rng, spread, 3)) if each.verdict == "worse"]
    assert {each.name for each in worse} == {"method1"}
    assert len(worse) == 5


def test_the_usual_variance_counts_the_less_the_more_methods_differ():
    rng = np.random.default_rng(0)
    alike = usual({"a": rng.normal(0, 0.01, (40, 3)).tolist(), "none": [[0.5], [0.2, 0.2]]})
    assert alike["none"] == (0.0, 0, False)
    assert alike["a"][1:] == (80, True)
    assert alike["a"].variance == pytest.approx(1e-4, rel=0.3)
    unlike = usual({"a": (rng.normal(0, 0.01, (400, 3)) / np.sqrt(rng.chisquare(4, (400, 1)) / 4)).tolist()})["a"]
    assert unlike.df == pytest.approx(4, rel=0.3)  # what it was drawn with
    assert unlike.variance == pytest.approx(1e-4, rel=0.3)
    assert usual({"a": [[0.1, 0.2], [0.3]]})["a"] == (pytest.approx(0.005), 1, True)


def test_a_band_is_one_request_wide_at_least():
    score = RECORDED[0].scores["manipulate-1"]._replace(value=1.0, low=1.0, high=1.0, requests=100)
    band = expected([score, score], Usual(), lower_is_better=False)
    assert (band.margin, band.p(0.01), band.p(0.0101)) == (0.01, 1.0, 0.0)


@pytest.mark.parametrize(
    ("what", "changes", "verdict"),
    [
        ("training time", {"seconds": COSTS | {"train": 300.0}}, "ok"),
        ("training time", {"seconds": COSTS | {"train": 320.0}}, "worse"),
        ("time per query", {"query_ms": 2.8}, "ok"),
        ("time per query", {"query_ms": 2.9}, "worse"),
        ("peak memory", {"peak_memory_mb": 1870.0}, "ok"),
        ("peak memory", {"peak_memory_mb": 1880.0}, "worse"),
    ],
)
def test_more_time_or_memory_is_caught_on_the_same_hardware_alone(what, changes, verdict):
    found = measured(seed=1, **changes)
    assert verdicts(found)[what] == verdict
    elsewhere = measured(seed=1, hardware={"cpu": "Other CPU"}, **changes)
    assert verdicts(elsewhere)[what] == "not compared"
    assert verdicts(elsewhere)[HEADLINE] == "ok"  # an accuracy is an accuracy


@pytest.mark.parametrize(
    ("what", "before", "now", "verdict"),
    [  # half as much again, and no less than a fixed amount
        ("training time", {"seconds": COSTS | {"train": 100.0}}, {"seconds": COSTS | {"train": 149.0}}, "ok"),
        ("training time", {"seconds": COSTS | {"train": 100.0}}, {"seconds": COSTS | {"train": 151.0}}, "worse"),
        ("time per query", {"query_ms": 0.1}, {"query_ms": 1.0}, "ok"),
        ("time per query", {"query_ms": 0.1}, {"query_ms": 1.2}, "worse"),
    ],
)
def test_one_recorded_seed_allows_more_since_it_says_nothing_of_noise(what, before, now, verdict):
    assert verdicts(measured(seed=1, **now), [measured(**before)])[what] == verdict


@pytest.mark.parametrize(("value", "verdict", "end"), [(0.13, "worse", 0.12), (0.11, "ok", 0.12), (0.05, "ok", 0.12)])
def test_of_an_error_more_is_worse(value, verdict, end):
    def error(value, seed=0):
        score = RECORDED[0].scores["manipulate-1"]._replace(metric="l1", value=value, low=0.08, high=end)
        return dataclasses.replace(RECORDED[0], seed=seed, scores={"manipulate-1": score})

    (found, *_) = judge([error(value, 1)], [error(0.1)])
    assert (found.what, found.verdict) == ("manipulate-1 l1", verdict)
    assert found.band.startswith(f"at most {end:.3f}")


def test_folds_of_a_cross_validation_are_no_seeds(tmp_path):
    save(make("amnet"), tmp_path / "own.json")
    save(make("amnet", 1, config={"fold": 3, "folded": "f"}), tmp_path / "fold.json")
    assert [run.seed for run in recorded_in(tmp_path)] == [0]


def test_times_that_vary_from_seed_to_seed_have_a_wider_band():
    varied = [measured(seed=seed, seconds=COSTS | {"train": 100.0 * (1 + seed)}) for seed in (0, 1, 2)]
    for took, verdict in ((690.0, "ok"), (705.0, "worse")):  # 200 + t(0.975, 2) * 100 * sqrt(1 + 1 / 3) = 696.9
        assert verdicts(measured(seconds=COSTS | {"train": took}), varied)["training time"] == verdict


def test_of_a_seed_that_is_recorded_twice_the_newest_run_counts():
    older = measured(skill=0.5, finished="2025-01-01T00:00:00+00:00")
    newest = measured(skill=0.68)
    (found, *_) = judge([measured(seed=1, skill=0.68)], [newest, older])
    assert (found.what, found.verdict) == (HEADLINE, "ok")
    assert "1 seed, bootstrap" in found.band
    assert found.recorded == "0.676"


def test_what_was_asked_something_else_is_not_compared():
    others = measured(seed=1, skill=0.1, request_digests=dict.fromkeys(("manipulate-1", "manipulate-2", "search"), "x"))
    found = judge([others], RECORDED)
    assert {each.verdict for each in found if "accuracy" in each.what} == {"not compared"}
    assert {each.verdict for each in found} == {"not compared", "ok"}  # times are as ever, and prove nothing
    assert failed(found)
    assert "- amnet on garments: no score could be compared" in summary(found)
    (nothing,) = judge([measured("fcd")], RECORDED)
    assert (nothing.verdict, nothing.why) == ("not compared", "nothing is recorded that was asked the same")
    assert failed([nothing])  # a check that compared nothing has not passed
    assert "nothing could be compared" in summary([nothing])


def test_a_recorded_protocol_without_a_result_is_worse_unless_the_settings_are_others():
    fewer = {"manipulate-1": "aa" * 32}
    found = judge([measured(seed=1, protocols=fewer)], RECORDED)
    assert {each.what: each.verdict for each in found if each.what in ("manipulate-2", "search")} == {
        "manipulate-2": "worse",
        "search": "worse",
    }
    assert failed(found)
    asked_less = judge([measured(seed=1, protocols=fewer, config={"evaluation": {"protocols": [*fewer]}})], RECORDED)
    assert {each.verdict for each in asked_less if each.what in ("manipulate-2", "search")} == {"not compared"}
    assert not failed(asked_less)


def test_records_of_other_settings_stand_in_with_a_note_where_there_are_no_others():
    same, other = measured(seed=1), measured(seed=5, skill=0.2, config={"model": {"lr": 9.0}})
    assert verdicts(same, [*RECORDED, other])[HEADLINE] == "ok"
    (found, *others) = judge([same], [other])
    assert (found.verdict, found.why) == ("ok", "recorded with other settings")
    costs = [each for each in others if each.what in ("training time", "time per query", "peak memory")]
    assert [(each.verdict, each.why) for each in costs] == 3 * [("not compared", "recorded with other settings")]
    stale = dict.fromkeys(("manipulate-1", "manipulate-2", "search"), "x")
    newer = measured(seed=2, config={"model": {"lr": 8.0}}, request_digests=stale, finished="2030-01-01T00:00:00+00:00")
    (found, *_) = judge([same], [other, newer])  # what was asked the same comes first
    assert (found.verdict, found.recorded) == ("ok", "0.216")


def latency_alone(name="amnet", **changes) -> Record:
    """As it is recorded for the table of latency: after little training, and newest."""
    own = {"value": 8.0, "low": 7.9, "high": 8.1}
    fields = {
        "protocols": {"latency": "ll" * 32},
        "metrics": {"latency": {"t_sum_ms": own}},
        "by_attribute": {},
        "curves": {},
        "requests": {"latency": 1000},
        "seconds": {"train": 11.0},
        "query_ms": None,
        "peak_memory_mb": 900.0,
        "config": {"budget": 3200},
        "finished": "2030-01-01T00:00:00+00:00",
    }
    return make(name, **fields | changes)


def test_what_was_recorded_for_its_latency_alone_is_nobodys_baseline():
    known = [*RECORDED, Measured.of(latency_alone())]
    unlike = measured(seed=1, config={"model": {"lr": 9.0}})
    for run, costs in ((measured(seed=1), "ok"), (unlike, "not compared")):
        found = judge([run], known)
        assert not failed(found)
        assert {each.what: each.verdict for each in found} == verdicts(run)
        assert {each.verdict for each in found if each.p is None} == {costs}  # never beside 11 seconds of training
    assert failed(judge([measured(seed=1)], known[-1:]))


def test_where_no_cost_was_compared_the_summary_says_so_first():
    elsewhere = measured(seed=1, hardware={"cpu": "Other CPU"})
    text = summary(judge([elsewhere], RECORDED))
    assert text.startswith("## fm-bench regress: nothing became worse in 3 comparisons, no cost was compared\n")
    assert "- **No cost was compared: no record with these settings on this hardware.**" in text
    assert text.index("**No cost") < text.index("| method |")
    known = [*RECORDED, measured("fcd", hardware={"cpu": "Other CPU"})]
    text = summary(judge([measured(seed=1), measured("fcd", seed=1)], known))
    assert "no cost was compared\n" not in text
    assert "- **No cost was compared of fcd on garments: no record" in text
    assert "No cost" not in summary(judge([measured(seed=1)], RECORDED))


def test_the_summary_has_what_became_worse_first_and_escapes():
    findings = judge([measured(seed=1), measured(seed=1, skill=0.2)], RECORDED)
    text = summary(findings, ["x|y on garments, seed 0: it broke."])
    rows = [line for line in text.splitlines() if line.startswith("| amnet")]
    assert "**worse**" in rows[0]
    assert "**worse**" not in rows[-1]
    assert text.startswith("## fm-bench regress: 3 of 12 comparisons are worse, 1 runs failed")
    assert "x\\|y" in text


def test_a_baseline_file_is_read_as_it_was_written_and_newer_runs_take_their_place(tmp_path):
    path = tmp_path / "smoke.json"
    keep(RECORDED, path)
    assert recorded_in(path) == RECORDED
    again = dataclasses.replace(RECORDED[1], finished="2030-01-01T00:00:00+00:00")
    keep([again, measured("random")], path)
    assert [(run.name, run.seed) for run in recorded_in(path)] == [
        *(("amnet", seed) for seed in range(3)),
        ("random", 0),
    ]
    assert again in recorded_in(path)
    path.write_text("{}")
    with pytest.raises(UserError, match="regress --update"):
        recorded_in(path)


def regress(tmp_path, monkeypatch, skill, *options, failures=None) -> int:
    """The command with a forged run in the place of a real one."""
    monkeypatch.chdir(tmp_path)  # a page is built of the folder's runs
    records = tmp_path / "records"
    for seed in (0, 1, 2):
        save(make("amnet", seed, profile="smoke"), records / f"{seed}.json")
    run = make("amnet", 1, skill, profile="smoke")
    monkeypatch.setattr("fm_bench.campaign.run_all", lambda jobs, runs, say: Ended([run for _ in jobs], failures or {}))
    where = ["--baseline", str(records), "--summary", str(tmp_path / "summary.md")]
    return main(["regress", *options, *where])


def test_the_command_fails_on_a_drop_and_publishes_its_summary(tmp_path, monkeypatch, capsys):
    page = tmp_path / "page.md"
    page.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(page))
    assert regress(tmp_path, monkeypatch, 0.68, "all") == 0
    assert regress(tmp_path, monkeypatch, 0.4, "amnet", "--evaluation.protocols", "[search]") == 1
    text = (tmp_path / "summary.md").read_text()
    assert "**worse**" in text
    assert text in capsys.readouterr().out
    assert page.read_text().startswith("before\n## fm-bench regress: nothing became worse")
    assert page.read_text().endswith(text)


def test_a_run_that_failed_fails_the_command_whatever_the_others_found(tmp_path, monkeypatch, capsys):
    failures = {"fcd on garments, seed 1": "it broke."}
    assert regress(tmp_path, monkeypatch, 0.68, "amnet", failures=failures) == 1
    assert "fcd on garments, seed 1: it broke." in (tmp_path / "summary.md").read_text()
    monkeypatch.setattr("fm_bench.campaign.run_all", lambda jobs, runs, say: Ended([], failures))
    assert main(["regress", "random", "--update", "--baseline", str(tmp_path / "smoke.json")]) == 1
    assert "it broke." in capsys.readouterr().err


def test_a_folder_of_records_is_not_overwritten_and_an_empty_one_is_a_users_error(tmp_path, monkeypatch, capsys):
    assert regress(tmp_path, monkeypatch, 0.68, "amnet", "--update") == 2
    assert "leaderboard add" in capsys.readouterr().err
    assert regress(tmp_path, monkeypatch, 0.68, "all", "--profile", "quick") == 2
    assert "has no score of profile quick on garments" in capsys.readouterr().err


def test_update_records_three_seeds_in_a_file(tmp_path, monkeypatch):
    records = [make("random", seed, profile="smoke") for seed in (0, 1, 2)]
    asked, places = [], set()

    def run_all(jobs, runs, say):
        asked.extend(job.name for job in jobs)
        places.add(runs)
        return Ended(records, {})

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fm_bench.campaign.run_all", run_all)
    path = tmp_path / "smoke.json"
    assert main(["regress", "random", "--update", "--baseline", str(path)]) == 0
    assert asked == [f"random on garments, seed {seed}" for seed in (0, 1, 2)]
    assert [run.seed for run in recorded_in(path)] == [0, 1, 2]
    main(["regress", "random", "--baseline", str(path), "--summary", str(tmp_path / "summary.md")])
    own = surroundings()  # two folders, or the recorded runs would be compared with themselves
    assert places == {Path("runs/baseline") / own, Path("runs/regress") / own}


@pytest.mark.parametrize("what", ["library", "machine"])
def test_after_an_upgrade_or_elsewhere_everything_is_run_again(what, tmp_path, monkeypatch):
    before = surroundings()
    assert surroundings() == before
    if what == "machine":
        monkeypatch.setattr("fm_bench.environment.hardware", lambda: {"cpu": "Other CPU"})
    else:
        packages = [*importlib.metadata.distributions()]
        changed = next(package for package in packages if package.name == "scipy")
        monkeypatch.setattr(type(changed), "version", property(lambda package: "99"))
    after = surroundings()
    assert after != before
    places = []

    def run_all(jobs, runs, say):
        places.extend((runs, job.command[job.command.index("--runs") + 1]) for job in jobs)
        return Ended([make("random", profile="smoke")], {})

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fm_bench.campaign.run_all", run_all)
    main(["regress", "random", "--runs", "r", "--baseline", str(tmp_path), "--summary", str(tmp_path / "s.md")])
    assert places == [(Path("r") / after, f"r/{after}")]


@pytest.fixture(scope="module")
def filed() -> list[Record]:
    """What the leaderboard records of garments."""
    records = [load(path) for path in sorted(COMMITTED.glob("garments-quick-common-*.json"))]
    return [record for record in records if record.config.get("fold") is None]


def newest_scored(filed, name: str) -> Record:
    """The newest run of ``name`` with seed 0 that has more than its latency."""
    found = [run for run in filed if (run.name, run.seed) == (name, 0) and "manipulate-1" in run.protocols]
    return max(found, key=lambda run: run.finished)


def test_what_the_leaderboard_records_passes_beside_itself(filed, tmp_path, monkeypatch, capsys):
    """``regress all``, where every run repeats its filed record."""
    run = []

    def run_all(jobs, runs, say):
        run.extend(job.configs[0].label for job in jobs)
        return Ended([newest_scored(filed, name) for name in run], {})

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fm_bench.campaign.run_all", run_all)
    monkeypatch.setattr("fm_bench.leaderboard.regress.recorded_in", lambda place: [*map(Measured.of, filed)])
    status = main(["regress", "all", "--profile", "quick", "--summary", "summary.md"])
    text = Path("summary.md").read_text()
    assert status == 0, text
    scored = {record.name for record in filed if set(record.protocols) - {"latency"}}
    assert set(run) == scored  # what was recorded for its latency alone is not run
    lines = text.splitlines()
    assert all(any(line.startswith(f"| {name} |") and line.endswith("| ok |") for line in lines) for name in run)
    said = capsys.readouterr().err
    left_out = {record.name for record in filed} - scored
    assert all(f"{name} on garments, seed 0 is left out" in said for name in left_out)
    assert said.count("is left out") == len(left_out)


def test_a_drop_of_one_method_fails_beside_what_the_leaderboard_records(filed):
    recorded = [Measured.of(record) for record in filed]
    fresh = {run.name: Measured.of(newest_scored(filed, run.name)) for run in recorded if run.scores}
    fallen = fresh["amnet"].scores["manipulate-1"]
    scores = fresh["amnet"].scores | {"manipulate-1": fallen._replace(value=fallen.value - 0.08)}
    fresh["amnet"] = dataclasses.replace(fresh["amnet"], scores=scores)
    found = judge([*fresh.values()], recorded)
    assert [(each.name, each.what) for each in found if each.verdict == "worse"] == [("amnet", HEADLINE)]
