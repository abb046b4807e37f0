# SPDX-License-Identifier: MIT
"""What is filed is checked, and what was edited afterwards is noticed."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from extras import extras, picture
from records import make, outcomes, run

from fm_bench.cli import main
from fm_bench.config import configure
from fm_bench.environment import code_digest
from fm_bench.errors import UserError
from fm_bench.leaderboard.extras import extras_file, save_extras
from fm_bench.leaderboard.filing import add, file_extras, list_extras, mixed, problems, wrong_with
from fm_bench.leaderboard.record import load, load_all, requests_file
from fm_bench.questions import load_protocol
from fm_bench.run_folder import run_fingerprint

HITS = "manipulate-1/accuracy@20"
GOOD = {"protocols": {"manipulate-1": load_protocol("manipulate-1").digest}}


def finished(folder: Path, name: str = "amnet", seed: int = 0, **changes) -> Path:
    """The folder of a run that could have been made."""
    return run(folder, name, {HITS: outcomes(0.5)}, seed=seed, **(GOOD | changes)).path.parent


def test_a_filed_record_keeps_its_requests_and_a_name_without_tricks(tmp_path):
    folder = finished(tmp_path, "amnet/no-memory", data="../../evil data")
    path = add(folder, tmp_path / "filed")
    record = load(folder / "record.json")
    assert load(path) == record
    assert requests_file(path).read_bytes() == (folder / "requests.npz").read_bytes()
    assert path == tmp_path / "filed" / f"evil_data-quick-common-amnet-no_memory-seed0-{record.fingerprint[:8]}.json"
    assert load_all(tmp_path / "filed")[0] == [record]
    assert problems(tmp_path / "filed") == []
    sums = (tmp_path / "filed.sha256").read_text()
    assert f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" in sums


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"protocols": {"manipulate-1": "aa" * 32}}, "'manipulate-1' was defined otherwise"),
        ({"config": {"mode": "paper"}}, "mode is 'common', but its run was configured with 'paper'"),
        ({"config": {"seed": 3}}, "seed is 0, but its run was configured with 3"),
        ({"data_digest": "cut"}, "data_digest is 'cut', which is no SHA-256 digest"),
        (
            {"request_digests": {"manipulate-1": "asked"}},
            "request_digests.manipulate-1 is 'asked', which is no SHA-256",
        ),
        ({"code": {"version": "0.1.0", "digest": "cd" * 20, "git": "0123abc"}}, "code.digest is 'cdcd"),
        ({"code": {"version": "99.0", "digest": "ee" * 32, "git": "0123abc"}}, "fm-bench 99.0, which is newer"),
        ({"code": {"version": "0.1.0", "digest": "ee" * 32, "git": "0123abc-dirty"}}, "changes that no commit holds"),
        ({"label": "flam"}, "label is 'flam', but it is a run of amnet"),
    ],
)
def test_what_no_run_of_this_version_would_say_is_refused(changes, named, tmp_path):
    folder = finished(tmp_path, **changes)
    with pytest.raises(UserError, match="was not filed") as error:
        add(folder, tmp_path / "filed")
    assert named in str(error.value)
    assert not (tmp_path / "filed").exists()
    assert named in " ".join(wrong_with(load(folder / "record.json")))


def test_a_protocol_that_nobody_knows_is_refused(tmp_path):
    folder = run(tmp_path, "amnet", {"odd/accuracy@20": outcomes(0.5)}, protocols={"odd": "aa" * 32}).path.parent
    with pytest.raises(UserError, match="'odd' is not among those"):
        add(folder, tmp_path / "filed")


def test_requests_that_are_missing_or_of_another_run_are_refused(tmp_path):
    folder = finished(tmp_path)
    np.savez(folder / "requests.npz", **{HITS: outcomes(0.6)})
    with pytest.raises(UserError, match="has mean"):
        add(folder, tmp_path / "filed")
    (folder / "requests.npz").write_bytes(b"PK")
    with pytest.raises(UserError, match="could not be read"):
        add(folder, tmp_path / "filed")
    (folder / "requests.npz").unlink()
    with pytest.raises(UserError, match="is missing"):
        add(folder, tmp_path / "filed")
    assert not (tmp_path / "filed").exists()


def test_a_fingerprint_is_that_of_what_the_record_says_it_is_of(tmp_path):
    configured = configure("amnet", "garments", "quick", "common", 0)
    assert len(configured.evaluation.every) > 1, "the record holds one: data cannot answer every protocol"
    whole = {
        "config": json.loads(json.dumps(configured.numeric())) | {"training_images": 90_000},
        "fingerprint": run_fingerprint(configured, "dd" * 32),
        "code": {"version": "0.1.0", "digest": code_digest(), "git": "0123abc"},
    }
    assert add(finished(tmp_path / "whole", **whole), tmp_path / "filed").exists()
    for number, edited in enumerate(
        (
            {"config": whole["config"] | {"hyper": {"lr": 0.2}}},
            {"data_digest": "de" * 32},
            {"code": whole["code"] | {"digest": "ef" * 32}},
            {"fingerprint": "ab" * 32},
        )
    ):
        folder = finished(tmp_path / str(number), **(whole | edited))
        with pytest.raises(UserError, match="its fingerprint is not that of its settings, data, protocols and code"):
            add(folder, tmp_path / "others")
    assert not (tmp_path / "others").exists()


def test_a_metric_without_results_of_requests_is_refused(tmp_path):
    folder = finished(tmp_path)
    value = json.loads((folder / "record.json").read_text())
    value["metrics"]["manipulate-1"]["accuracy@7"] = {"value": 0.9}
    (folder / "record.json").write_text(json.dumps(value))
    with pytest.raises(UserError, match="has no accuracy@7 of manipulate-1, which the record states"):
        add(folder, tmp_path / "filed")
    del value["metrics"]["manipulate-1"]["accuracy@7"]
    value["metrics"]["manipulate-1"] |= {"increment_ratio@20": {"value": 0.3}, "t_sum_ms_p95": {"value": 9.0}}
    (folder / "record.json").write_text(json.dumps(value))  # these are no means over requests
    assert add(folder, tmp_path / "filed").exists()


def test_a_superseded_record_gives_way_only_when_told(tmp_path, capsys):
    filed = tmp_path / "filed"
    old = add(finished(tmp_path / "old"), filed)
    again = finished(tmp_path / "new", fingerprint="ab" * 32, finished="2027-01-01T00:00:00+00:00")
    assert main(["leaderboard", "add", str(again), "--records", str(filed)]) == 2
    assert f"has a record of this run already, {old.name}: add --replace" in capsys.readouterr().err
    assert old.exists()
    assert main(["leaderboard", "add", str(again), "--records", str(filed), "--replace"]) == 0
    assert [path.name for path in sorted(filed.iterdir())] == [
        f"garments-quick-common-amnet-seed0-abababab.{kind}" for kind in ("json", "npz")
    ]
    assert problems(filed) == []
    assert add(again, filed).exists()  # the very same file: nothing to replace
    for other in (
        {"seed": 1},
        {"config": {"model": {"lr": 0.1}}},
        {"config": {"fold": 0}},
        {"config": {"fold": 1}},
    ):  # other runs, side by side
        add(finished(tmp_path / str(other), **other), filed)
    assert len(load_all(filed)[0]) == 5
    assert problems(filed) == []


def test_edited_lost_and_smuggled_files_are_noticed(tmp_path):
    filed = tmp_path / "filed"
    path = add(finished(tmp_path), filed)
    text = path.read_text()
    value = json.loads(text)
    value["metrics"]["manipulate-1"]["accuracy@20"]["high"] += 0.01
    path.write_text(json.dumps(value, indent=2) + "\n")
    (edited,) = problems(filed)
    assert edited == f"{path} was edited after it was filed: restore it, or file the run again."
    path.write_text(text)
    with requests_file(path).open("ab") as file:
        file.write(b"\0")
    assert "npz was edited" in problems(filed)[0]
    requests_file(path).unlink()
    assert "npz is gone" in problems(filed)[0]
    path.rename(path.with_name("other.json"))
    misplaced, *rest = problems(filed)
    assert f"is filed as {path.name}" in misplaced
    assert ["is gone" in each or "is not in" in each for each in rest] == [True] * 3
    (tmp_path / "filed.sha256").write_text("no sum\n")
    with pytest.raises(UserError, match="restore it"):
        problems(filed)
    (tmp_path / "filed.sha256").write_bytes(b"\xff\xfe\n")
    with pytest.raises(UserError, match="restore it"):
        problems(filed)


def with_extras(folder: Path, **changes) -> Path:
    """``folder`` of a run, with what its method's page shows."""
    path = folder / "record.json"
    save_extras(extras(load(path), **changes), picture(), path)
    return folder


def test_forged_rates_and_pictures_of_a_page_are_noticed(tmp_path, capsys):
    filed = tmp_path / "filed"
    path = add(with_extras(finished(tmp_path)), filed)
    assert problems(filed) == []
    assert sum("  extras/" in line for line in (tmp_path / "filed.sha256").read_text().splitlines()) == 2
    save_extras(extras(load(path), text="better"), picture(), path)  # its own digest fits
    (wrong,) = problems(filed)
    assert wrong == f"{extras_file(path)} was edited after it was filed: restore it, or file the run again."
    where = ["--records", str(filed), "--out", str(tmp_path / "index.html")]
    assert main(["leaderboard", "build", *where]) == 0
    assert main(["leaderboard", "check", *where]) == 1
    assert "was edited" in capsys.readouterr().err
    extras_file(path).unlink()
    assert any("is gone" in each for each in problems(filed))
    again = finished(tmp_path / "new", fingerprint="ab" * 32)
    add(again, filed, replace=True)  # which has none
    assert problems(filed) == []
    assert "extras/" not in (tmp_path / "filed.sha256").read_text()


def test_extras_that_were_filed_later_or_before_the_list_held_them_are_listed(tmp_path, capsys):
    filed, run_dir = tmp_path / "filed", finished(tmp_path)
    path = add(run_dir, filed)
    with pytest.raises(UserError, match="no record of the run"):
        file_extras(finished(tmp_path, seed=1), filed)
    assert file_extras(run_dir, filed) == []  # it left nothing yet
    before = path.read_bytes()
    assert len(file_extras(with_extras(run_dir), filed)) == 2
    assert problems(filed) == []
    assert path.read_bytes() == before
    listed = tmp_path / "filed.sha256"
    old = "".join(line for line in listed.read_text().splitlines(keepends=True) if "extras/" not in line)
    listed.write_text(old)
    assert all("file it with `fm-bench leaderboard extras`" in each for each in problems(filed))
    assert main(["leaderboard", "extras", "--records", str(filed)]) == 0
    assert len(capsys.readouterr().out.split()) == 2
    assert problems(filed) == []
    save_extras(extras(load(path), text="better"), picture(), path)
    assert list_extras(filed) == []  # what has a line keeps it
    assert "was edited" in problems(filed)[0]
    listed.write_text(old)
    extras_file(path).write_text("{}")
    with pytest.raises(UserError, match="is not what a run wrote"):
        list_extras(filed)
    assert listed.read_text() == old
    assert main(["leaderboard", "extras"]) == 2


def test_a_record_forged_together_with_its_sum_is_noticed_by_its_requests(tmp_path):
    filed = tmp_path / "filed"
    path = add(finished(tmp_path), filed)
    value = json.loads(path.read_text())
    better = {end: number + 0.1 for end, number in value["metrics"]["manipulate-1"]["accuracy@20"].items()}
    value["metrics"]["manipulate-1"]["accuracy@20"] = better
    sums = tmp_path / "filed.sha256"
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    path.write_text(json.dumps(value, indent=2) + "\n")
    sums.write_text(sums.read_text().replace(before, hashlib.sha256(path.read_bytes()).hexdigest()))
    (wrong,) = problems(filed)
    assert "and the record states" in wrong


def test_a_record_below_the_folder_reaches_tables_and_so_is_noticed(tmp_path):
    filed = tmp_path / "filed"
    add(finished(tmp_path), filed)
    finished(filed / "smuggled", seed=1)
    assert len(load_all(filed)[0]) == 2
    (wrong,) = problems(filed)
    assert "file it with `fm-bench leaderboard add`" in wrong


def test_definitions_that_differ_within_a_table_are_named():
    one, two = make("amnet"), make("random", protocols={"manipulate-1": "dd" * 32})
    (sentence,) = mixed([one, two, make("oracle")])
    assert sentence.startswith("garments · quick · common · manipulate-1: amnet and random were judged by different")
    assert mixed([one, make("random", protocols={"manipulate-1": "dd" * 32}, mode="paper")]) == []


def test_check_fails_on_an_edited_record(tmp_path, capsys):
    filed, page = tmp_path / "filed", tmp_path / "index.html"
    path = add(finished(tmp_path), filed)
    where = ["--records", str(filed), "--out", str(page)]
    assert main(["leaderboard", "build", *where]) == 0
    assert main(["leaderboard", "check", *where]) == 0
    path.write_text(path.read_text().replace("Example CPU", "Better CPU"))
    assert main(["leaderboard", "build", *where]) == 0  # the page agrees with what was edited
    assert main(["leaderboard", "check", *where]) == 1
    assert "was edited after it was filed" in capsys.readouterr().err


def test_the_published_records_are_as_they_were_filed():
    assert problems(Path(__file__).parents[2] / "leaderboards" / "records") == []
