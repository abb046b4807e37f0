# SPDX-License-Identifier: MIT
"""Methods that are not part of the suite: found by path or entry point, recorded, and found again."""

import importlib.metadata
import json
import sys

import pytest
import yaml
from commands import bench
from third_party import COLOURS, EXAMPLE, write

from fm_bench import recipe, third_party
from fm_bench.cli import main
from fm_bench.config import RunConfig, configure
from fm_bench.embedding import weights_digest
from fm_bench.errors import UserError
from fm_bench.leaderboard.record import load
from fm_bench.methods import METHODS
from fm_bench.run_folder import run_fingerprint

pytestmark = pytest.mark.usefixtures("forget")


@pytest.fixture
def installed(monkeypatch):
    """The example package as if pip had installed it: its folder on the path, with the metadata a wheel would have."""

    def install(folder, package=EXAMPLE, points=None):
        import tomllib

        project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
        points = points or project["entry-points"][third_party.GROUP]
        info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
        info.mkdir(parents=True)
        info.joinpath("METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
        )
        lines = "".join(f"{name} = {value}\n" for name, value in points.items())
        info.joinpath("entry_points.txt").write_text(f"[{third_party.GROUP}]\n{lines}")
        info.joinpath("top_level.txt").write_text("shift_method\n")
        monkeypatch.setattr(sys, "path", [str(folder), str(package), *sys.path])
        importlib.invalidate_caches()

    return install


def refused(spec: str) -> str:
    with pytest.raises(UserError) as error:
        configure(spec, "garments", "smoke", "common", 0)
    text = str(error.value)
    assert "\n" not in text
    return text


# ---------------------------------------------------------------------- a whole run


@pytest.mark.slow
def test_a_file_is_run_recorded_and_judged_again(tmp_path, forget, capsys):
    path = write(tmp_path)
    run = tmp_path / "run"
    assert bench(f"{path}:Colours", "--evaluation.protocols", '["manipulate-1"]', out=run) == 0
    record = load(run / "record.json")
    assert (record.method, record.label) == ("colours", "colours")
    source = record.config["source"]
    assert source == {"package": "colours.py", "version": "", "digest": source["digest"]}
    assert any("colours.py" in note and source["digest"][:12] in note for note in record.notes)
    assert str(tmp_path) not in json.dumps(record.config | {"notes": record.notes})
    forget()
    assert main(["evaluate", str(run), "--protocol", "search"]) == 0
    forget()
    assert main(["explain", str(run), "--requests", "1", "--out", str(tmp_path / "sheet.png")]) == 0
    forget()
    write(tmp_path, COLOURS, ("nn.Linear(48, dim)", "nn.Linear(48, dim, bias=True)"))
    assert main(["evaluate", str(run), "--protocol", "search"]) == 2
    assert "has changed since this run" in capsys.readouterr().err


def test_the_example_is_a_method_by_its_entry_point(tmp_path, installed, forget, capsys):
    installed(tmp_path)
    config = configure("shift/wide-margin", "garments", "smoke", "common", 0, ["--method.lr", "0.5"])
    assert config.label == "shift/wide-margin"
    assert config.hyper == {"backbone": "resnet10t", "margin": 1.0, "lr": 0.5}
    assert config.source["package"] == "shift-method"
    assert config.source["version"] == "0.1.0"
    assert main(["list", "methods"]) == 0
    listed = " ".join(capsys.readouterr().out.split())  # however the table is wrapped
    assert "shift-method 0.1.0" in listed
    assert "shift/wide-margin" in listed
    forget()
    monkeypatched = list(sys.path)
    sys.path[:0] = [str(tmp_path), str(EXAMPLE)]
    again = RunConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert METHODS["shift"].__module__ == "shift_method.shift"
    sys.path[:] = monkeypatched


def test_the_example_is_the_same_method_by_file_and_by_path(tmp_path, installed, forget):
    by_file = configure(f"{EXAMPLE}/shift_method/shift.py:Shift", "garments", "smoke", "common", 0)
    forget()
    installed(tmp_path)
    by_path = configure("shift_method.shift:Shift", "garments", "smoke", "common", 0)
    assert by_file.label == by_path.label == "shift"
    assert by_file.source["digest"] == by_path.source["digest"]
    assert by_file.hyper == by_path.hyper


def test_the_walk_through_tells_what_the_example_holds():
    text = (EXAMPLE.parents[1] / "CONTRIBUTING.md").read_text()
    code = (EXAMPLE / "shift_method" / "shift.py").read_text()
    shown = [block.split("```")[0] for block in text.split("```python\n")[1:] if "class Shift" in block]
    assert len(shown) == 1
    for line in shown[0].strip().splitlines():
        assert line in code, line
    for command in ("fm-bench check-method", "shift_method/shift.py:Shift", "fm_bench.methods"):
        assert command in text


# ---------------------------------------------------------------------- what a run depends on


def test_another_source_is_another_run(tmp_path, forget):
    def fingerprint():
        forget()
        config = configure(f"{tmp_path}/colours.py:Colours", "garments", "smoke", "common", 0)
        return run_fingerprint(config, "data")

    write(tmp_path)
    first = fingerprint()
    assert fingerprint() == first
    write(tmp_path, COLOURS, ("It takes milliseconds", "It takes no time"))
    assert fingerprint() != first


def test_what_a_file_imports_from_beside_it_counts(tmp_path, forget):
    (tmp_path / "losses_of_mine.py").write_text("import depths_of_mine\nscale = 1.0\n")
    (tmp_path / "depths_of_mine.py").write_text("")
    (tmp_path / "unrelated.py").write_text("")
    path = write(tmp_path, COLOURS, ("import torch\n", "import torch\nimport losses_of_mine\n"))

    def digest():
        forget()
        return configure(f"{path}:Colours", "garments", "smoke", "common", 0).source["digest"]

    first = digest()
    (tmp_path / "unrelated.py").write_text("changed = 1")
    assert digest() == first
    (tmp_path / "depths_of_mine.py").write_text("changed = 1")
    assert digest() != first


def test_vectors_of_another_source_are_not_taken_for_these(tmp_path, forget):
    def digest():
        forget()
        name, _ = third_party.join(f"{tmp_path}/colours.py:Colours")
        return weights_digest(METHODS[name]({"colour": ["red", "blue"]}))

    import torch

    write(tmp_path, COLOURS, ("nn.Linear(48, dim)", "nn.Linear(48, dim).requires_grad_(False)"))
    torch.manual_seed(0)
    first = digest()
    torch.manual_seed(0)
    assert digest() == first
    write(tmp_path, COLOURS, ("nn.Linear(48, dim)", "nn.Linear(48, dim).requires_grad_(True)"))
    torch.manual_seed(0)
    assert digest() != first


def test_the_suites_own_methods_are_as_before():
    config = configure("amnet/no-memory", "garments", "smoke", "common", 0)
    assert config.source == {}
    assert "source" not in config.numeric()
    assert third_party.source_digest(METHODS["amnet"]) == ""


# ---------------------------------------------------------------------- recipes


def test_stages_share_the_budget_evenly_without_a_recipe(tmp_path):
    stages = 'stages = (Stage("move", TripletBatch),)'
    more = (
        'stages = (Stage("move", TripletBatch), Stage("fit", TripletBatch, trained=False), Stage("last", TripletBatch))'
    )
    path = write(
        tmp_path, COLOURS, (stages, more), ("def move_step", "last_step = last_optimizer = None\n\n    def move_step")
    )
    config = configure(f"{path}:Colours", "garments", "smoke", "common", 0)
    assert config.stages["move"].share == config.stages["last"].share == 0.5
    assert recipe.load("methods", "colours")["description"].startswith("Mean colours of four by four parts")


def test_a_recipe_beside_the_file_is_read(tmp_path):
    path = write(tmp_path)
    content = {"description": "Mine", "method": {"margin": 0.25}, "variants": {"wide": {"method": {"margin": 2.0}}}}
    (tmp_path / "colours.yaml").write_text(yaml.safe_dump(content))
    assert configure(f"{path}:Colours", "garments", "smoke", "common", 0).hyper["margin"] == 0.25
    assert configure(f"{path}:Colours/wide", "garments", "smoke", "common", 0).hyper["margin"] == 2.0
    assert "colours/wide" in refused(f"{path}:Colours/wde")


@pytest.mark.parametrize(
    ("text", "says"), [("varants: {}", "unknown key 'varants'"), ("- a\n", "no keys"), ("a: [", "no YAML")]
)
def test_a_recipe_that_means_nothing_is_refused(tmp_path, text, says):
    path = write(tmp_path)
    (tmp_path / "colours.yaml").write_text(text)
    assert says in refused(f"{path}:Colours")


# ---------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("change", "name", "says"),
    [
        (("", ""), "Colurs", "did you mean Colours"),
        (("import torch\n", "import torch\nimport no_such_thing\n"), "Colours", "No module named 'no_such_thing'"),
        (("import torch\n", "import torch\nraise SystemExit\n"), "Colours", "cannot be imported"),
        (("def feature(self, images):", "def feature(self images):"), "Colours", "colours.py, line"),
        (
            ("import torch\n", "import torch\nnumber = 1 / 0\n"),
            "Colours",
            "division by zero (colours.py, line",
        ),
        (("class Colours(Method)", "class Colours(torch.nn.Module)"), "Colours", "not a method"),
        (("def embed_query", "def embed_querry"), "Colours", "lacks embed_query"),
        (("def move_step", "def moves_step"), "Colours", "lacks move_step"),
        (("self, attributes, dim", "self, dim"), "Colours", "attributes"),
        (("class Colours", "class FLAM"), "FLAM", "rename its class"),
        (("class Colours", "class _Mine"), "_Mine", "cannot name a method"),
    ],
)
def test_a_method_that_cannot_be_run_is_refused_in_a_sentence(tmp_path, change, name, says):
    path = write(tmp_path, COLOURS, *([change] if change[0] else []))
    assert says in refused(f"{path}:{name}")


def test_what_does_not_exist_is_told(tmp_path):
    assert "there is no file" in refused(f"{tmp_path}/nothing.py:Colours")
    assert "no module 'no_such_package'" in refused("no_such_package.methods:Colours")
    assert "no module 'json.no_such_module'" in refused("json.no_such_module:Colours")
    assert "no method at all" in refused("json:Colours")
    assert "did you mean amnet" in refused("amnett")


def test_a_name_beside_the_file_that_means_another_module_is_refused(tmp_path):
    (tmp_path / "colorsys.py").write_text("")
    import colorsys  # Python's own has been imported

    assert colorsys
    path = write(tmp_path, COLOURS, ("import torch\n", "import torch\nimport colorsys\n"))
    assert "not what lies beside it" in refused(f"{path}:Colours")


def test_registered_names_that_clash_are_told(tmp_path, installed, capsys):
    installed(tmp_path, points={"amnet": "shift_method.shift:Shift", "broken": "shift_method.nothing:Shift"})
    assert main(["list", "methods"]) == 0
    told = capsys.readouterr().err
    assert "amnet of shift_method.shift:Shift: fm_bench has a method of that name" in told
    assert "broken: there is no module 'shift_method.nothing'" in told
    assert METHODS["amnet"].__module__.startswith("fm_bench.")


def test_two_methods_of_one_name_are_not_mixed_up(tmp_path):
    (tmp_path / "other").mkdir()
    one, other = write(tmp_path), write(tmp_path / "other", COLOURS, ("0.01", "0.02"))
    configure(f"{one}:Colours", "garments", "smoke", "common", 0)
    assert "another method of this command" in refused(f"{other}:Colours")
