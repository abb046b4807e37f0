# SPDX-License-Identifier: MIT
"""A drop is caught, noise is not; none of these numbers was measured."""

import dataclasses
from pathlib import Path

import pytest
from records import make

from fm_bench.campaign import Ended
from fm_bench.cli import main
from fm_bench.errors import UserError
from fm_bench.leaderboard.record import save
from fm_bench.leaderboard.regress import Measured, expected, failed, judge, keep, recorded_in, summary

HEADLINE = "manipulate-1 accuracy@20"


def measured(name="amnet", seed=0, skill=None, **changes) -> Measured:
    return Measured.of(make(name, seed, skill, **changes))


RECORDED = [measured(seed=seed) for seed in (0, 1, 2)]  # 0.676, 0.680 and 0.684
COSTS = {"prepare": 1.0, "train": 251.0}


def verdicts(fresh, recorded=RECORDED) -> dict[str, str]:
    return {finding.what: finding.verdict for finding in judge([fresh], recorded)}


@pytest.mark.parametrize(
    ("skill", "verdict"), [(0.68, "ok"), (0.664, "ok"), (0.75, "ok"), (0.655, "worse"), (0.3, "worse")]
)
def test_a_drop_is_caught_and_noise_is_not(skill, verdict):
    # 95 % of further seeds: 0.680 ± 4.303 * 0.004 * sqrt(1 + 1/3)
    low, high, how = expected([run.scores["manipulate-1"] for run in RECORDED])
    assert (low, high) == (pytest.approx(0.68 - 0.01987, abs=1e-4), pytest.approx(0.68 + 0.01987, abs=1e-4))
    assert how == "3 seeds"
    found = verdicts(measured(seed=1, skill=skill))
    assert found[HEADLINE] == verdict
    assert set(found) == {
        HEADLINE,
        *("manipulate-2 accuracy@20", "search accuracy@20", "training time", "time per query", "peak memory"),
    }
    assert failed(judge([measured(seed=1, skill=skill)], RECORDED)) == (verdict == "worse")


def test_of_one_seed_the_bootstrap_interval_is_the_band_and_the_summary_says_so():
    one = [RECORDED[1]]
    low = RECORDED[1].scores["manipulate-1"].low
    assert verdicts(measured(seed=1, skill=low + 0.001), one)[HEADLINE] == "ok"
    assert verdicts(measured(seed=1, skill=low - 0.001), one)[HEADLINE] == "worse"
    text = summary(judge([measured(seed=1)], one))
    assert f"at least {low:.3f} (1 seed, bootstrap over requests)" in text
    assert "training noise is missing" in text


def test_a_band_is_one_request_wide_at_least():
    score = RECORDED[0].scores["manipulate-1"]._replace(value=1.0, low=1.0, high=1.0, requests=100)
    assert expected([score, score])[:2] == (0.99, 1.01)


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
    assert (nothing.verdict, nothing.why) == ("not compared", "nothing is recorded")
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
    (found, *_) = judge([same], [other])
    assert found.why == "recorded with other settings"


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
    assert "has no run of profile quick on garments" in capsys.readouterr().err


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
    assert places == {
        Path("runs/baseline"),
        Path("runs/regress"),
    }  # or the recorded runs would be compared with themselves
