# SPDX-License-Identifier: MIT
"""``fm-bench check-method`` finds nothing wrong with a sound method, and each defect of a broken one."""

import json

import pytest
from third_party import COLOURS, write

from fm_bench import method_check
from fm_bench.cli import main
from fm_bench.config import configure
from fm_bench.method_check import check_method
from fm_bench.method_trial import Trial
from fm_bench.methods import METHODS

pytestmark = pytest.mark.usefixtures("forget")

QUIET = ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
FEATURE = "return self.project(F.adaptive_avg_pool2d(images, 4).flatten(1))"
QUERY = "return F.normalize(self.feature(images) + indicator @ self.values, dim=-1)"
GALLERY = "return F.normalize(self.feature(images), dim=-1)"
RANK = 'return {"rank": ('


def find(folder, check: str, *changes: tuple[str, str]) -> method_check.Finding:
    """What one check finds in a method with some lines changed."""
    spec = f"{write(folder, COLOURS, *changes)}:Colours"
    config = configure(spec, "garments", "smoke", "common", 0, QUIET)
    trial = Trial(spec, config, config.read(), folder / "trial", QUIET)
    return method_check._guarded(check, method_check._CHECKS[check], trial)


@pytest.mark.slow
def test_a_sound_method_holds_everything(tmp_path, capsys):
    path = write(tmp_path, name="sound")
    assert main(["check-method", f"{path}:Colours", "--json", "--method.margin", "0.4"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["holds"] is True
    assert report["source"]["package"] == "sound.py"
    found = {finding["name"]: finding for finding in report["findings"]}
    assert set(found) == set(method_check._CHECKS)
    assert {name for name, finding in found.items() if finding["holds"] is None} == {"memory"}
    assert len(found["trains"]["values"]["losses"]["move"]) == 2
    assert found["shapes"]["values"] == {"32x32": 16, "48x48": 16}
    assert found["memory"]["values"]["parameters"] == 48 * 16 + 16 + 115 * 16
    assert set(found["score"]["values"]) == {"method", "random", "identity"}
    assert 0 <= found["score"]["values"]["method"]["value"] <= 1


@pytest.mark.parametrize(
    ("check", "says", "changes"),
    [
        (
            "trains",
            "ZeroDivisionError: division by zero (colours",
            [(RANK, 'return {"rank": (1 / 0 + ')],
        ),
        ("trains", "infinite or NaN|became nan", [(RANK, 'return {"rank": (float("nan") * ')]),
        (
            "gradients",
            "without a gradient: move: idle",
            [("self.values =", "self.idle = nn.Parameter(torch.zeros(3))\n        self.values =")],
        ),
        (
            "gradients",
            "no numbers: move: root",
            [
                ("self.values =", "self.root = nn.Parameter(torch.zeros(1))\n        self.values ="),
                (RANK, 'return {"zero": (1.0, self.root.sqrt().sum()), "rank": ('),
                ("self.parameters()", "[self.values]"),
            ],
        ),
        (
            "same seed, same result",
            "With the same seed, the losses of stage move",
            [
                (
                    RANK,
                    'import time\n        return {"now": (1.0, self.values.sum() + time.perf_counter() % 1), "rank": (',
                )
            ],
        ),
        ("shapes", "embed_gallery gives", [(GALLERY, "return self.feature(images).mean(0, keepdim=True)")]),
        (
            "shapes",
            "Pictures have 16 numbers and requests 15",
            [(QUERY, QUERY.replace("return ", "return (") + ")[:, 0 if self.training else 1 :]")],
        ),
        ("shapes", "of type int64", [(GALLERY, GALLERY.replace("return ", "return (") + ").mul(9).long()")]),
        ("shapes", "NaN or infinite", [(GALLERY, GALLERY.replace("return ", "return (") + ") / float(self.training)")]),
        ("shapes", "changes the pictures", [(FEATURE, "images.mul_(0.5)\n        " + FEATURE)]),
        ("shapes", "RuntimeError: mat1 and mat2", [("F.adaptive_avg_pool2d(images, 4)", "F.avg_pool2d(images, 8)")]),
        (
            "alone or in a batch",
            "depends on the batch",
            [(FEATURE, FEATURE.replace("return ", "feature = ") + "\n        return feature - 0.5 * feature.mean(0)")],
        ),
        ("alone or in a batch", "draws random numbers", [(FEATURE, FEATURE + " + torch.rand(len(images), 16)")]),
        ("a request for nothing", "Requests are ignored", [(QUERY, GALLERY)]),
        (
            "a request for nothing",
            "no finite vectors",
            [("indicator @ self.values", "1 / indicator.sum(1, keepdim=True)")],
        ),
        (
            "saved and loaded",
            "cannot be loaded again",
            [("self.save_hyperparameters()", "self.hparams['margin'] = margin")],
        ),
        (
            "saved and loaded",
            "gives other vectors",
            [
                ("self.project = ", "self.offset = torch.rand(16)\n        self.project = "),
                (FEATURE, FEATURE + " + self.offset"),
            ],
        ),
    ],
)
def test_a_defect_is_found(tmp_path, check, says, changes):
    finding = find(tmp_path, check, *changes)
    assert finding.holds is False
    assert any(each in finding.detail for each in says.split("|")), finding.detail


def test_a_stage_that_methods_share_is_trained_like_any_other(tmp_path, monkeypatch):
    monkeypatch.setenv("FM_BENCH_CACHE", str(tmp_path / "cache"))
    config = configure("amnet", "garments", "smoke", "common", 0, QUIET)
    trial = Trial("amnet", config, config.read(), tmp_path, QUIET)
    assert len(trial.first.watch.losses["attributes"]) == 2
    assert method_check._gradients(trial).holds
    assert not (tmp_path / "cache" / "stages").exists()  # two steps are nothing that others could begin with


def test_a_method_that_knows_no_requests_and_says_so_is_sound(tmp_path):
    says = ("stages =", 'validates = "query"\n    stages =')
    finding = find(tmp_path, "a request for nothing", (QUERY, GALLERY), says)
    assert finding.holds
    assert "requests are ignored" in finding.detail
    assert {METHODS[name].validates for name in ("darn", "detector", "dsift-fisher")} == {"query"}


def test_what_is_no_defect_is_told(tmp_path):
    quiet = ("self.values =", "self.scale = nn.Parameter(torch.zeros(1))\n        self.values =")
    finding = find(tmp_path, "gradients", quiet, (FEATURE, FEATURE + " * (1 + 0 * self.scale)"))
    assert finding.holds
    assert "only zeros so far: move: scale" in finding.detail


def test_a_method_that_sees_labels_is_told(tmp_path):
    oracle = find(tmp_path, "true labels", ("stages =", "needs_labels = True\n    stages ="))
    assert oracle.holds is None
    assert "bound" in oracle.detail


def test_a_method_worse_than_chance_fails(tmp_path, monkeypatch):
    scores = {"random": (0.1, 0.05, 0.15), "identity": (0.3, 0.2, 0.4)}

    def run(trial, spec, options):
        return scores.get(spec, (0.02, 0.01, 0.04))

    monkeypatch.setattr(method_check, "_run", run)
    monkeypatch.setattr(
        method_check, "_estimate", lambda found: dict(zip(("value", "low", "high"), found, strict=True))
    )
    finding = method_check._score(Trial("mine", None, None, tmp_path, QUIET))
    assert finding.holds is False
    assert "Worse than random" in finding.detail
    scores["random"] = (0.05, 0.03, 0.08)
    assert method_check._score(Trial("mine", None, None, tmp_path, QUIET)).holds


def test_a_broken_method_ends_the_command_with_1(tmp_path, capsys):
    path = write(tmp_path, COLOURS, (RANK, 'return {"rank": (1 / 0 + '), name="broken")
    spec = f"{path}:Colours"
    assert main(["check-method", spec.replace("Colours", "Colour")]) == 2
    assert "did you mean Colours" in capsys.readouterr().err
    assert check_method(f"{spec}", score=False).findings[-1].name == "trains"
    assert main(["check-method", spec]) == 1
    assert "FAILS" in capsys.readouterr().out
