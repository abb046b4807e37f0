# SPDX-License-Identifier: MIT
"""The papers' protocols through the command line, on fakes of their data at profile ``smoke``."""

from pathlib import Path
from typing import Any
from unittest import mock

import fakes_darn
import fakes_deepfashion
import fakes_shopping100k
import pytest
from rich.console import Console

from fm_bench.bench import Bench
from fm_bench.cli import main
from fm_bench.config import configure, cross_validation
from fm_bench.errors import UserError
from fm_bench.finished import reevaluate
from fm_bench.leaderboard.columns import columns_of
from fm_bench.leaderboard.record import load
from fm_bench.leaderboard.rows import tables
from fm_bench.questions import load_protocol

FAKES: dict[str, Any] = {
    "darn": lambda root: fakes_darn.write(root, train=400, valid=60, test=140),
    "shopping100k": lambda root: fakes_shopping100k.write(root, train=400, test=140),
    "deepfashion": lambda root: fakes_deepfashion.write(root, images=400),
    "deepfashion-inshop": lambda root: fakes_deepfashion.write_inshop(root),
    "deepfashion-c2s": lambda root: fakes_deepfashion.write_c2s(root),
}
RUNS = [
    ("darn", ["amnet_darn_1", "amnet_darn_2"]),
    ("darn", ["flam_darn", "flam_cls"]),
    ("deepfashion", ["amnet_df_texture"]),
    ("deepfashion", ["fsn_df_query", "fsn_df_1"]),
    ("shopping100k", ["fsn_s100k_query", "fsn_s100k_1"]),
    ("shopping100k", ["flam_s100k", "flam_cls"]),
    ("shopping100k", ["adde_m"]),
    ("deepfashion-inshop", ["flam_fir_inshop"]),
    ("deepfashion-c2s", ["flam_fir_c2s"]),
]


@pytest.fixture(scope="module")
def roots(tmp_path_factory) -> dict[str, Path]:
    return {name: write(tmp_path_factory.mktemp(name)) for name, write in FAKES.items()}


def bench(method: str, data: str, root: Path, protocols: list[str], out: Path, *options: str) -> int:
    command = ["bench", method, "--data", data, "--data.root", str(root), "--out", str(out)]
    command += ["--evaluation.protocols", f"[{','.join(protocols)}]", "--evaluation.also", "[]"]
    command += ["--trainer.enable_progress_bar", "false"]
    with mock.patch("fm_bench.leaderboard.site.refresh_page", return_value=out):
        return main([*command, *options])


@pytest.mark.parametrize(("data", "protocols"), RUNS)
def test_runs_of_papers_protocols(roots, tmp_path, data, protocols):
    sample = load_protocol(protocols[0]).sample
    read = sample.read.split() if sample else []  # as it tells people to
    assert bench("oracle", data, roots[data], protocols, tmp_path, "--profile", "smoke", *read) == 0
    record = load(tmp_path / "record.json")
    assert set(record.protocols) == set(protocols), record.notes
    assert any(note.startswith("shrunk: ") for note in record.notes) or protocols[0] in ("adde_m", "flam_fir_c2s")
    for name in protocols:
        found = [e["value"] for metric, e in record.metrics[name].items() if metric.startswith("accuracy@")]
        if "fir" not in name:  # whose items the oracle does not know
            assert set(found) <= {1.0}
    assert {table.key.protocol for table in tables([record])} == set(protocols)


def test_a_trained_method_is_asked_once_for_protocols_of_the_same_pictures(roots, tmp_path):
    protocols, brief = ["flam_s100k", "flam_cls"], ["--profile", "smoke", "--budget", "64"]
    assert bench("identity", "shopping100k", roots["shopping100k"], protocols, tmp_path, *brief) == 0
    record = load(tmp_path / "record.json")
    assert set(record.by_attribute["flam_s100k"]) <= {"category", "color", "pattern"}
    assert set(record.by_attribute["flam_s100k"]) == set(record.by_attribute["flam_cls"])
    assert {"manipulated", "original", "kept"} <= set(record.metrics["flam_cls"])
    assert "generation" not in record.metrics  # which identity is asked beside, where it can be
    assert record.gallery == 270
    with pytest.raises(UserError, match="'fsn_s100k_1' is about other pictures than"):
        reevaluate(tmp_path, "fsn_s100k_1", Console(quiet=True))
    with pytest.raises(UserError, match="'manipulate-1' is about other pictures than"):
        reevaluate(tmp_path, "manipulate-1", Console(quiet=True))


@pytest.mark.parametrize(
    ("data", "protocol", "pictures"), [("darn", "amgan_darn", 600), ("shopping100k", "amgan_s100k", 540)]
)
def test_a_fold_of_amgans_protocol_with_its_times(roots, tmp_path, data, protocol, pictures):
    options = ["--data.root", str(roots[data]), "--evaluation.protocols", f"[{protocol},amgan_timing]"]
    config = configure("random", data, "smoke", "common", 0, [*options, "--trainer.enable_progress_bar", "false"])
    with mock.patch("fm_bench.outcomes.latency.GALLERY", 600):
        record = Bench(cross_validation(config)[1], tmp_path, console=Console(quiet=True)).run()
    metrics = record.metrics[protocol]
    assert set(metrics) == {
        *("accuracy@1", "accuracy@10", "chance@1", "chance@10"),
        *("ndcg@10", "ndcg_ones@10", "mrr@1000", "mrr_item@1000"),
    }
    assert metrics["mrr_item@1000"]["value"] < metrics["mrr@1000"]["value"]
    assert {"one attribute", "two attributes"} <= set(record.by_attribute[protocol])
    assert {"t_sum_ms", "t_repr_ms", "t_sea_ms"} <= set(record.metrics["amgan_timing"])
    assert record.gallery == pictures  # training pictures are searched, too
    assert record.requests[protocol] <= 60
    table, *_ = [table for table in tables([record]) if table.key.protocol == protocol]
    assert table.headline == "accuracy@10"
    assert [column.metric for column in columns_of(table)][:5] == [
        *("accuracy@1", "accuracy@10", "ndcg@10", "mrr@1000", "mrr_item@1000")
    ]


@pytest.mark.parametrize(
    ("data", "protocol", "options", "message"),
    [
        ("darn", "darn_c2s", [], "darn_c2s needs 200,000 images searched, 1,717 street photos ask, but darn holds"),
        ("darn", "darn_c2s", ["--profile", "smoke"], "and 0 items with street photos of theirs"),
        ("darn", "amnet_darn_1", [], "a smaller sample is another task, so get all of the data (docs/data/darn.md)"),
        ("darn", "fsn_s100k_1", [], "fsn_s100k_1 is defined on shopping100k, not on darn: give --data shopping100k"),
        ("darn", "amgan_darn", ["--profile", "smoke"], "(--folds 5): add --folds 5."),
        ("darn", "amnet_darn_1", ["--profile", "smoke", "--folds", "5"], "leave --folds out"),
        ("deepfashion-inshop", "flam_fir_inshop", [], "needs 12,612 images searched, 14,218 others ask, but"),
        ("shopping100k", "amgan_s100k", [], "57,834 tops, all of them searched"),
        ("shopping100k", "manipulate-1,fsn_s100k_1", [], "are not about the same pictures"),
    ],
)
def test_what_cannot_be_filled_says_so_in_a_sentence(roots, tmp_path, capsys, data, protocol, options, message):
    assert bench("random", data, roots[data], [protocol], tmp_path / "run", *options) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("fm-bench: ")]
    assert message in line


def test_the_list_says_what_protocols_need(capsys):
    assert main(["list", "protocols"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "needs shopping100k; 20,021 images searched, 2,000 others ask;" in shown
