# SPDX-License-Identifier: MIT
"""The workflows are what GitHub accepts, and do what their names say."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from check_jsonschema import main as check_jsonschema
from click.testing import CliRunner, Result

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.y*ml"))


def checked(path: Path) -> Result:
    """The file beside the schema of GitHub workflows that comes with check-jsonschema; no network is asked."""
    return CliRunner().invoke(check_jsonschema, ["--builtin-schema", "vendor.github-workflows", str(path)])


def read(path: Path) -> dict[Any, Any]:
    content: dict[Any, Any] = yaml.safe_load(path.read_text())
    return content | {"on": content.pop(True)}  # YAML 1.1 takes `on` for a truth value


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in read(path)["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_is_what_github_accepts(path):
    result = checked(path)
    assert result.exit_code == 0, result.output
    content = read(path)
    assert "permissions" in content
    assert all("timeout-minutes" in job for job in content["jobs"].values())
    for step in steps(path):  # a tag may be moved to other code, a commit may not
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", step.get("uses", f"a/b@{40 * '0'}"))


@pytest.mark.parametrize(
    ("wrong", "right"), [("runs_on", "runs-on"), ("timeout-minutes: soon", "timeout-minutes: 45"), ("usess", "uses")]
)
def test_a_mistake_is_found(wrong, right, tmp_path):
    text = (ROOT / ".github" / "workflows" / "tests.yml").read_text()
    assert right in text
    path = tmp_path / "broken.yml"
    path.write_text(text.replace(right, wrong, 1))
    assert checked(path).exit_code == 1


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_what_a_workflow_runs_is_there(path):
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for step in steps(path):
        run = step.get("run", "")
        assert set(re.findall(r"\bmake ([a-z]+)", run)) <= targets
        for script in re.findall(r"\bbash (\S+)", run):
            assert (ROOT / script).is_file()


def test_tests_and_lint_run_on_every_push():
    content = read(ROOT / ".github" / "workflows" / "tests.yml")
    assert content["on"] == {"push": None, "pull_request": None}
    assert any(step.get("run") == "bash .ci/run" for step in steps(ROOT / ".github" / "workflows" / "tests.yml"))


def test_the_regression_test_runs_nightly_and_by_label_and_uploads_in_any_case():
    path = ROOT / ".github" / "workflows" / "regression.yml"
    content = read(path)
    assert content["on"]["pull_request"] == {"types": ["labeled"]}  # a push to a labelled branch is not run unseen
    assert content["on"]["schedule"]
    (job,) = content["jobs"].values()
    assert job["runs-on"] == ["self-hosted", "gpu"]
    assert "github.event.label.name == 'gpu'" in job["if"]
    assert content["permissions"] == {"contents": "read"}
    upload = steps(path)[-1]
    assert upload["if"] == "always()"
    from fm_bench.commands import regress
    from fm_bench.leaderboard.links import METHODS
    from fm_bench.leaderboard.site import PAGE

    defaults = "runs/regress/summary.md", f"runs/regress/{PAGE}", f"runs/regress/{METHODS}"  # the page links to these
    assert set(upload["with"]["path"].split()) >= set(defaults)
    assert '"runs/regress/summary.md"' in Path(regress.__file__).read_text()


def test_the_regression_test_takes_nothing_from_the_night_before(monkeypatch):
    from fm_bench.files import cache_dir

    path = ROOT / ".github" / "workflows" / "regression.yml"
    (regress,) = [step for step in steps(path) if "make regress" in step.get("run", "")]
    for name, value in regress["env"].items():
        monkeypatch.setenv(name, value)
    assert cache_dir().parts[0] == "${{ runner.temp }}"  # which is empty when a job begins
    assert not any("actions/cache" in step.get("uses", "") for step in steps(path))


def test_pages_publishes_the_leaderboards_alone_and_only_what_the_check_has_passed():
    path = ROOT / ".github" / "workflows" / "pages.yml"
    content = read(path)
    assert content["on"]["push"]["branches"] == ["main"]
    assert content["permissions"] == {}
    check, publish = content["jobs"]["check"], content["jobs"]["publish"]
    assert publish["needs"] == "check"
    assert not any("if" in part for part in (check, publish, *steps(path)))  # a failed check is not stepped over
    assert not any("continue-on-error" in part for part in (check, *check["steps"]))
    assert check["steps"][-1]["run"] == "make check"
    assert check["permissions"] == {"contents": "read"}
    assert not any("run" in step for step in publish["steps"])  # what publishes runs nothing of ours
    assert [step["with"]["path"] for step in steps(path) if "upload-pages-artifact" in step.get("uses", "")] == [
        "leaderboards"
    ]
    assert publish["steps"][-1]["uses"].startswith("actions/deploy-pages@")
    recipe = (ROOT / "Makefile").read_text().partition("\ncheck: setup")[2].partition("\n\n")[0]
    assert "fm-bench leaderboard check --readme $(TABLES)" in recipe


@pytest.mark.parametrize("failing", ["build", "check", ""])
def test_make_leaderboard_builds_then_checks_and_fails_with_either(failing, tmp_path):
    """A program in the place of fm-bench notes what it is asked, and fails where ``failing`` says."""
    program = tmp_path / "fm-bench"
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\ntest "$2" != "{failing}"\n')
    program.chmod(0o755)
    for name in ("pyproject.toml", "constraints.txt", ".venv/.installed"):  # the last is newer than the others
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    command = ["make", "-f", str(ROOT / "Makefile"), "-C", str(tmp_path), f"BIN={tmp_path}", "leaderboard"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode == 0) == (failing == ""), done.stderr
    asked = [f"leaderboard {what} --readme README.md docs/results.md" for what in ("build", "check")]
    assert (tmp_path / "asked").read_text().splitlines() == asked[: 1 if failing == "build" else 2]
