# SPDX-License-Identifier: MIT
"""Every method gets as many trials of as many images, and no trial can see a test image."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
from commands import bench
from rich.console import Console

from fm_bench import recipe, tuning
from fm_bench.catalog import Split
from fm_bench.cli import main
from fm_bench.config import configure
from fm_bench.errors import UserError
from fm_bench.leaderboard.filing import wrong_with
from fm_bench.leaderboard.record import load
from fm_bench.tuning import LEDGER, Ledger, Tuner, options_from, run_trial, space_of, spaces, without_test

QUIET = ["--trainer.enable_progress_bar", "false"]
LR = "method.attributes_lr"


class Reading:
    """A source of pictures that notes which ones are read."""

    def __init__(self, source) -> None:
        self.source, self.digest, self.read_images = source, f"watched {source.digest}", set()

    def read(self, image, size):
        self.read_images.add(image)
        return self.source.read(image, size)


def tuner(out: Path, trial=None, method: str = "attribute-based") -> Tuner:
    return Tuner(method, "garments", "smoke", 0, QUIET, out, Console(quiet=True), trial)


def pretend(config, dataset, folder, console):
    """In the place of training: the best rate is 0.1."""
    return 1 - abs(np.log10(config.hyper["attributes_lr"]) + 1), config.budget


def test_no_trial_has_a_test_image(tmp_path, monkeypatch):
    monkeypatch.setattr("fm_bench.data.decoding.POOL_WORTH", 1e9)  # other processes would note what they read elsewhere
    whole = configure("attribute-based", "garments", "smoke", "common", 0).read()
    tests = set(whole.catalog.image[whole.catalog.rows(Split.TEST)].tolist())
    source = Reading(whole.source)
    dataset = without_test(whole._replace(source=source))
    assert len(tests) == 300
    assert set(dataset.catalog.split.tolist()) == {Split.TRAIN, Split.VAL}
    assert not tests & set(dataset.catalog.image.tolist())
    assert (dataset.queries, dataset.requests, dataset.searched) == (None, None, None)
    assert dataset.regions is not None
    assert len(dataset.regions) == len(dataset.catalog) == len(whole.catalog) - 300

    value, images = run_trial(
        configure("attribute-based", "garments", "smoke", "common", 0, QUIET), dataset, tmp_path, Console(quiet=True)
    )
    assert 0 < value <= 1
    assert images == pytest.approx(600, abs=64)
    assert source.read_images == set(dataset.catalog.image.tolist())  # all of it, and nothing else


def test_a_trial_that_asks_for_the_test_split_is_refused():
    config = configure("random", "garments", "smoke", "common", 0)
    datamodule = tuning.data_module(config, without_test(config.read()))
    with pytest.raises(UserError, match="the test split has no readable image"):
        datamodule.setup("predict")


def test_the_search_finds_what_is_good_and_writes_down_everything(tmp_path):
    ledger = tuner(tmp_path, pretend).run(12)
    content = json.loads((tmp_path / LEDGER).read_text())
    assert content["schema"] == 1
    assert content["images"] == 600
    assert [trial["number"] for trial in content["trials"]] == list(range(12))
    assert all(trial["images"] == 600 and trial["seconds"] >= 0 for trial in content["trials"])
    assert content["trials"][0]["parameters"][LR] == 0.05  # the recipe's own comes first
    assert all(set(trial["parameters"]) == set(space_of("attribute-based")) for trial in content["trials"])
    best = max(content["trials"], key=lambda trial: trial["value"])
    assert content["best"] == best["number"] == ledger.best.number
    assert best["value"] > content["trials"][0]["value"]
    assert Ledger.load(tmp_path) == ledger


def test_interrupted_it_goes_on_as_if_it_had_not_been(tmp_path):
    whole = tuner(tmp_path / "whole", pretend).run(8)

    def stops(config, dataset, folder, console):
        if len(Ledger.load(tmp_path / "pieces").trials if (tmp_path / "pieces" / LEDGER).exists() else []) == 5:
            raise KeyboardInterrupt
        return pretend(config, dataset, folder, console)

    with pytest.raises(KeyboardInterrupt):
        tuner(tmp_path / "pieces", stops).run(8)
    pieces = tuner(tmp_path / "pieces", pretend).run(8)
    assert [trial.parameters for trial in pieces.trials] == [trial.parameters for trial in whole.trials]
    with pytest.raises(UserError, match="other settings, data or code"):
        tuner(tmp_path / "pieces", pretend, "amnet").run(8)


def test_a_trial_that_breaks_is_spent(tmp_path):
    def breaks(config, dataset, folder, console):
        if config.hyper["attributes_lr"] > 0.04:
            raise UserError("the loss became infinite.")
        return pretend(config, dataset, folder, console)

    ledger = tuner(tmp_path, breaks).run(6)
    assert len(ledger.trials) == 6
    assert (ledger.trials[0].value, ledger.trials[0].why) == (None, "the loss became infinite.")
    assert ledger.best is not None
    assert ledger.best.parameters[LR] <= 0.04


def test_a_run_uses_the_best_settings_and_its_record_has_the_ledger(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tuning, "run_trial", pretend)
    search = ["tune", "attribute-based", "--trials", "3", "--profile", "smoke", "--out", str(tmp_path / "search")]
    assert main([*search, *QUIET]) == 0
    assert f"--{LR}" in capsys.readouterr().out
    best = Ledger.load(tmp_path / "search").best
    tuned = ["--tuned", str(tmp_path / "search")]
    assert bench("attribute-based", *tuned, "--evaluation.protocols", "[search]", out=tmp_path / "run") == 0
    record = load(tmp_path / "run" / "record.json")
    assert record.config["hyper"]["attributes_lr"] == best.parameters[LR]
    assert record.tuning == json.loads((tmp_path / "search" / LEDGER).read_text())
    assert len(record.config["tuned"]) == 64
    about_tuning = [wrong for wrong in wrong_with(record) if "trial" in wrong]
    assert about_tuning == []
    forged = dataclasses.replace(record, tuning=record.tuning | {"seed": 9})
    assert "not the one that its run was configured with" in " ".join(wrong_with(forged))
    other = record.config | {"hyper": record.config["hyper"] | {"attributes_lr": 0.4}}
    assert f"{LR} is not that of its best trial" in " ".join(wrong_with(dataclasses.replace(record, config=other)))
    assert bench("amnet", *tuned, out=tmp_path / "other") == 2
    assert "tuned attribute-based on garments, not amnet on garments" in capsys.readouterr().err


def test_a_run_without_a_search_is_what_it_was():
    assert "tuned" not in configure("amnet", "garments", "smoke", "common", 0).numeric()


@pytest.mark.parametrize("method", spaces())
def test_every_space_is_of_options_that_the_method_has_and_holds_the_recipes_own(method):
    space = space_of(method)
    base = configure(method, "garments", "quick", "common", 0)
    assert len(space) == 3  # as many for every method
    ends = {option: values[0] for option, how in space.items() for values in how.values()}
    changed = configure(method, "garments", "quick", "common", 0, options_from(ends))
    for option, how in space.items():
        ((_, values),) = how.items()
        name = option.removeprefix("method.")
        assert changed.hyper[name] == values[0]
        assert values[0] <= base.hyper[name] <= values[-1], option


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "names no option"),
        ("method.lr: {log: [0, 1]}", "log: \\[low, high\\]"),
        ("method.lr: {log: [2, 1]}", "method.lr is"),
        ("method.lr: {around: [1, 2]}", "method.lr is"),
        ("method.lr: 3", "method.lr is 3"),
        ("budget: {log: [100, 90000]}", "budget is no option of the method"),
        ("refused: it is a bound", "mine cannot be tuned, because it is a bound"),
    ],
)
def test_a_space_that_makes_no_sense_is_a_users_error(text, says, tmp_path, monkeypatch):
    (tmp_path / "tuning").mkdir()
    (tmp_path / "tuning" / "mine.yaml").write_text(text)
    monkeypatch.setattr(recipe, "benchmarks_dir", lambda: tmp_path)
    with pytest.raises(UserError, match=says):
        space_of("mine")
    with pytest.raises(UserError, match="'other' has no search space"):
        space_of("other")


def test_every_method_has_a_space_or_a_reason_why_not():
    assert set(recipe.names("tuning")) == {name for name in recipe.names("methods") if not recipe.is_joined(name)}
    assert "dsift-fisher" in spaces()
    with pytest.raises(UserError, match="detector cannot be tuned, because it is judged by the boxes"):
        space_of("detector")


def test_a_trial_that_torch_cannot_finish_is_spent_too(tmp_path):
    def breaks(config, dataset, folder, console):
        raise RuntimeError

    ledger = tuner(tmp_path, breaks).run(2)
    assert [(trial.value, trial.why) for trial in ledger.trials] == [(None, "RuntimeError()")] * 2


def test_a_trial_whose_value_is_no_number_is_spent_too(tmp_path):
    ledger = tuner(tmp_path, lambda *_: (math.nan, 9)).run(2)
    assert [(trial.value, trial.why) for trial in ledger.trials] == [(None, "val/accuracy@20 is nan")] * 2
    assert Ledger.load(tmp_path).best is None


def test_a_ledger_with_a_trial_less_or_another_best_is_noticed(tmp_path):
    tuner(tmp_path, pretend).run(3)
    path = tmp_path / LEDGER
    whole = json.loads(path.read_text())
    for forged in (whole | {"trials": whole["trials"][1:]}, whole | {"best": (whole["best"] + 1) % 3}):
        path.write_text(json.dumps(forged))
        with pytest.raises(UserError, match="is no ledger of trials"):
            Ledger.load(tmp_path)


def test_a_damaged_ledger_is_a_users_error(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        Ledger.load(tmp_path)
    (tmp_path / LEDGER).write_text('{"schema": 1}')
    with pytest.raises(UserError, match="is no ledger"):
        Ledger.load(tmp_path)
