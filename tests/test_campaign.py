# SPDX-License-Identifier: MIT
"""Many runs in one command: what is recorded is skipped, what fails is told at the end, Ctrl-C loses nothing."""

import dataclasses
import os
import sys
import time
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from fm_bench import recipe
from fm_bench.bench import Bench
from fm_bench.campaign import (
    Ended,
    Job,
    Place,
    TimeLeft,
    _planned,
    _recorded,
    every_method,
    in_a_process,
    options_of,
    run_all,
)
from fm_bench.catalog import Domain, Split
from fm_bench.cli import main
from fm_bench.config import RunConfig, configure
from fm_bench.data.datamodule import FashionDataModule
from fm_bench.errors import UserError
from fm_bench.leaderboard.record import Record, find, load, save

sys.path.append(str(Path(__file__).parent / "leaderboard"))
from records import make


def job(spec: str, seed: int, data: str = "garments", *, named: bool = True) -> Job:
    config = configure(spec, data, "smoke", "common", seed)
    return Job((config,), (spec, str(seed)), named)


class Runner:
    """Takes the place of processes: records what does not fail, and is interrupted before ``stop``."""

    def __init__(self, runs: Path, jobs: list[Job], fails: tuple[str, ...] = (), stop: int = 99) -> None:
        self.runs, self.jobs, self.fails, self.stop = runs, jobs, fails, stop
        self.started: list[tuple[str, ...]] = []

    def __call__(self, command: tuple[str, ...]) -> str | None:
        if len(self.started) == self.stop:
            raise KeyboardInterrupt
        self.started.append(tuple(command))
        if command[0] in self.fails:
            return "it broke."
        place = self.places[command]
        save(self.record(command, place.fingerprint), place.path)
        return None

    @cached_property
    def places(self) -> dict[tuple[str, ...], Place]:
        places = _planned(self.jobs, self.runs).places
        return {job.command: places[job.name][0] for job in self.jobs}

    def record(self, command: tuple[str, ...], fingerprint: str) -> Record:
        return make(command[0], int(command[1]), seconds={"total": 600.0}, fingerprint=fingerprint)


def campaign(runner: Runner) -> tuple[Ended, list[str]]:
    said: list[str] = []
    return run_all(runner.jobs, runner.runs, said.append, runner), said


@pytest.fixture(scope="module")
def jobs() -> list[Job]:
    return [job(spec, seed) for seed in (0, 1) for spec in ("random", "identity", "oracle")]


def test_a_failure_is_told_and_the_rest_is_run_and_what_is_recorded_is_skipped(jobs, tmp_path):
    ended, said = campaign(Runner(tmp_path, jobs, fails=("identity",)))
    assert [(record.name, record.seed) for record in ended.records] == [
        (spec, seed) for seed in (0, 1) for spec in ("random", "oracle")
    ]
    assert ended.failures == {f"identity on garments, seed {seed}": "it broke." for seed in (0, 1)}
    assert said[0] == "6 runs: 0 recorded already, 6 to go"
    assert said[-1] == "oracle on garments, seed 1: recorded (0 to go)"

    again = Runner(tmp_path, jobs)
    ended, said = campaign(again)
    assert again.started == [("identity", "0"), ("identity", "1")]
    assert said[0] == "6 runs: 4 recorded already, 2 to go, about 20.0 min"  # two like those of 600 s
    assert (len(ended.records), ended.failures) == (6, {})


def test_interrupted_the_same_campaign_goes_on_where_it_stopped(jobs, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        campaign(Runner(tmp_path, jobs, stop=2))
    rest = Runner(tmp_path, jobs)
    campaign(rest)
    assert rest.started == [each.command for each in jobs[2:]]


def test_a_record_of_another_run_in_the_same_folder_does_not_count(jobs, tmp_path):
    """Folders are named by the first eight digits of a fingerprint."""
    other = Runner(tmp_path, jobs[:1])
    (place,) = other.places.values()
    assert place.fingerprint[:8] in str(place.path)
    save(other.record(jobs[0].command, place.fingerprint[:8] + 56 * "0"), place.path)
    again = Runner(tmp_path, jobs[:1], fails=("random",))
    ended, said = campaign(again)
    assert said[0] == "1 runs: 0 recorded already, 1 to go"
    assert ended == Ended([], {"random on garments, seed 0": "it broke."})


def test_a_cross_validation_is_recorded_where_all_of_its_folds_are(tmp_path):
    places = [Place(tmp_path / str(fold) / "record.json", str(fold) * 64) for fold in (0, 1)]
    for place in places:
        save(make("random", fingerprint=place.fingerprint), place.path)
    assert len(_recorded(places)) == 2
    assert _recorded([places[0], places[1]._replace(fingerprint="2" * 64)]) == []
    places[1].path.unlink()
    assert _recorded(places) == []
    assert _recorded([]) == []


def test_what_the_data_cannot_answer_is_skipped_unless_it_was_asked_for_by_name(tmp_path):
    every = Runner(tmp_path, [job("detector", 0, named=False), job("random", 0, named=False)])
    ended, said = campaign(every)
    assert every.started == [("random", "0")]
    assert said[0].startswith("detector on garments, seed 0 is skipped: detection: the test pictures show no item both")
    assert said[1] == "2 runs: 0 recorded already, 1 to go"
    assert ended.failures == {}

    by_name = Runner(tmp_path, [job("detector", 0)], fails=("detector",))
    assert campaign(by_name)[0].failures == {"detector on garments, seed 0": "it broke."}


def test_data_that_a_method_cannot_be_trained_on_are_told_before_any_picture_is_read(tmp_path, monkeypatch):
    whole = job("darn", 0, "garments-street").configs[0].read()
    catalog = whole.catalog
    street = (catalog.split == Split.TRAIN) & (catalog.domain == Domain.STREET)
    alone = dataclasses.replace(catalog, item=np.where(street, catalog.item + 10**6, catalog.item))
    monkeypatch.setattr(RunConfig, "read", lambda config: whole._replace(catalog=alone))
    monkeypatch.setattr(FashionDataModule, "prepare_data", lambda datamodule: pytest.fail("pictures were prepared"))
    with pytest.raises(UserError, match="run darn/arn"):
        Bench(job("darn", 0, "garments-street").configs[0], tmp_path / "run", console=Console(quiet=True)).run()

    every = Runner(tmp_path, [job(spec, 0, "garments-street", named=False) for spec in ("darn", "darn/arn")])
    ended, said = campaign(every)
    assert every.started == [("darn/arn", "0")]
    assert said[0].startswith("darn on garments-street, seed 0 is skipped: the training split has street photos, but")
    assert ended.failures == {}


def test_a_run_that_breaks_after_its_record_was_written_is_told_and_counts(jobs, tmp_path):
    runner = Runner(tmp_path, jobs[:1])

    def start(command):
        runner(command)
        return "the page could not be written."

    ended = run_all(jobs[:1], tmp_path, print, start)
    assert [record.name for record in ended.records] == ["random"]
    assert list(ended.failures.values()) == ["the page could not be written."]


def test_a_run_that_leaves_no_record_has_failed(jobs, tmp_path):
    said: list[str] = []
    ended = run_all(jobs[:1], tmp_path, said.append, lambda _: None)
    assert "without a record" in ended.failures["random on garments, seed 0"]


def test_runs_of_the_same_kind_tell_best_how_long_a_run_takes(jobs):
    clock, (random, identity, oracle) = TimeLeft(), jobs[:3]
    other = Job((dataclasses.replace(oracle.configs[0], data="garments-street"),), ())
    assert clock.of([random]) is None
    clock.add(random, 10)
    clock.add(random, 30)
    clock.add(identity, 80)
    assert clock.of([random, identity]) == 100
    assert clock.of([oracle]) == 40  # the mean of all on this data set
    assert clock.of([other]) == 40  # or of everything
    clock.add(other, 7)
    assert clock.of([other]) == 7
    assert clock.of([]) == 0


def test_all_means_every_method_and_variant():
    names = every_method()
    assert set(recipe.names("methods")) < set(names)
    assert "amnet/no-memory" in names
    assert len(names) == len(set(names))


def test_options_of_other_readers_are_left_out():
    options = ["--data.root", "a b", "--budget", "9", "--data.street=0.5", "--data.rot", "x"]
    both = ["garments", "fashion-product"]
    assert options_of("garments", both, options) == ["--budget", "9", "--data.street=0.5", "--data.rot", "x"]
    assert options_of("fashion-product", both, options) == ["--data.root", "a b", "--budget", "9", "--data.rot", "x"]
    assert options_of("garments", ["garments"], options) == options  # a mistake stays one


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("exit 0", None),
        (
            "echo working >&2; echo 'fm-bench: no such data: look.' >&2; exit 2",
            "no such data: look.",
        ),
        ("echo 'RuntimeError: odd' >&2; exit 1", "RuntimeError: odd"),
        (
            "printf 'Traceback (most recent call last):\\n  x\\nRuntimeError: odd\\nas told\\n' >&2; exit 1",
            "RuntimeError: odd",
        ),
        (
            "printf 'Traceback (most recent call last):\\nKeyError: 1\\n\\nfm-bench: look.\\n' >&2; exit 2",
            "look.",
        ),
        ("exit 3", "it ended with status 3."),
        ("kill -KILL $$", "it was ended by SIGKILL, as happens where memory runs out."),
        ("kill -SEGV $$", "it was ended by SIGSEGV."),
    ],
)
def test_how_a_process_ended_is_one_sentence(script, says, tmp_path, monkeypatch):
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    assert in_a_process(["bench"]) == says


def test_a_killed_run_whose_workers_live_on_does_not_hold_the_campaign(tmp_path, monkeypatch):
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nsleep 5 &\nkill -KILL $$\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr("fm_bench.campaign._PATIENCE", 0.1)
    began = time.monotonic()
    assert "SIGKILL" in str(in_a_process(["bench"]))
    assert time.monotonic() - began < 4


def test_a_campaign_that_is_terminated_ends_its_run(tmp_path, monkeypatch):
    program = tmp_path / "python"
    program.write_text(
        f"#!/bin/sh\ntrap 'touch {tmp_path}/ended; exit 130' INT\nsleep 0.3\nkill -TERM {os.getpid()}\n"
        "while true; do sleep 0.05; done\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr("fm_bench.campaign._PATIENCE", 0.1)
    with pytest.raises(KeyboardInterrupt):
        in_a_process(["bench"])
    assert (tmp_path / "ended").exists()


def test_a_run_that_does_not_heed_an_interruption_is_killed(tmp_path, monkeypatch):
    program = tmp_path / "python"
    program.write_text(
        f"#!/bin/sh\ntrap '' INT\nsleep 0.3\nkill -TERM {os.getpid()}\nwhile true; do sleep 0.05; done\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr("fm_bench.campaign._PATIENCE", 0.05)
    with pytest.raises(KeyboardInterrupt):
        in_a_process(["bench"])


def test_a_run_goes_on_where_nobody_reads_what_it_says(tmp_path, monkeypatch):
    class Gone:
        def write(self, text):
            raise BrokenPipeError

    program = tmp_path / "python"  # says more than a pipe holds
    program.write_text("#!/bin/sh\nhead -c 300000 /dev/zero | tr '\\0' '\\n' >&2\necho 'fm-bench: done.' >&2\nexit 2\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr(sys, "stderr", Gone())
    assert in_a_process(["bench"]) == "done."


def test_a_process_that_was_interrupted_ends_the_campaign(tmp_path, monkeypatch):
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nexit 130\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    with pytest.raises(KeyboardInterrupt):
        in_a_process(["bench"])


def test_one_command_runs_several_and_ends_with_the_sentence_of_the_one_that_failed(tmp_path, capsys, monkeypatch):
    def here(command):  # as a process would
        status = main([*command, "--trainer.enable_progress_bar", "false"])
        return capsys.readouterr().err.strip().splitlines()[-1] if status else None

    monkeypatch.setattr("fm_bench.campaign.in_a_process", here)
    built: list[Path] = []
    monkeypatch.setattr("fm_bench.leaderboard.site.refresh_page", lambda runs: built.append(runs) or runs)
    command = ["bench", "amgan-t", "random", "--profile", "smoke", "--loader.image_size", "16", "--logger", "none"]
    assert main([*command, "--evaluation.protocols", "[search]", "--runs", str(tmp_path)]) == 1
    told = capsys.readouterr().err.strip().splitlines()
    assert told[-2] == "1 of 2 runs failed; the same command tries them again:"
    assert "amgan-t on garments, seed 0: fm-bench: pictures of 16 x 16 cannot be halved" in told[-1]
    (path,) = find(tmp_path)
    assert load(path).name == "random"
    assert load(path).command.startswith("fm-bench bench random --data garments --seed 0")
    assert built == [tmp_path]  # once, and not by every run


@pytest.mark.parametrize("how", ["done", "interrupted", "not wanted", "nothing recorded"])
def test_the_page_is_built_when_all_is_over_also_if_that_was_an_interruption(how, tmp_path, capsys, monkeypatch):
    def run_all(jobs, runs, say):
        if how != "nothing recorded":
            save(make("random"), runs / "random" / "record.json")
        assert not list(runs.glob("*.html"))
        assert all("--no-page" in job.command for job in jobs)
        if how == "interrupted":
            raise KeyboardInterrupt
        return Ended([], {})

    monkeypatch.setattr("fm_bench.campaign.run_all", run_all)
    command = ["bench", "random", "oracle", "--profile", "smoke", "--runs", str(tmp_path / "runs")]
    status = main([*command, *(["--no-page"] if how == "not wanted" else [])])
    assert status == (130 if how == "interrupted" else 0)
    pages = [path.name for path in (tmp_path / "runs").rglob("*.html")]
    assert sorted(pages) == (["leaderboard.html", "random.html"] if how in ("done", "interrupted") else [])
    assert ("leaderboard: " in capsys.readouterr().err) == bool(pages)


def test_several_runs_have_no_folder_in_common():
    with pytest.raises(UserError, match="none-such"):
        configure("random", "none-such", "smoke", "common", 0)
    assert main(["bench", "random", "--seeds", "0", "1", "--out", "x"]) == 2
    assert not Path("x").exists()
