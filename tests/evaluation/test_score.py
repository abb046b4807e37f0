# SPDX-License-Identifier: MIT
"""Embeddings from files: the report, and every way in which the files can be wrong."""

import json

import numpy as np
import pytest

from fm_bench.errors import UserError
from fm_bench.evaluation import Protocol, evaluate
from fm_bench.evaluation.score import score

RNG = np.random.default_rng(0)
N, R, D, A = 200, 30, 6, 4
LABELS = RNG.integers(0, 3, (N, A))
GALLERY = {"embeddings": RNG.standard_normal((N, D)).astype(np.float32), "labels": LABELS}
QUERIES = {"embeddings": RNG.standard_normal((R, D)).astype(np.float32), "targets": LABELS[RNG.integers(0, N, R)]}


@pytest.fixture
def run(tmp_path):
    def run(gallery=GALLERY, queries=QUERIES, k=(1, 5), mrr_at=1000):
        for name, arrays in (("g", gallery), ("q", queries)):
            np.savez(tmp_path / f"{name}.npz", **arrays)
        return score(tmp_path / "g.npz", tmp_path / "q.npz", list(k), mrr_at, tmp_path / "out" / "report.json")

    return run


def evaluated(protocol, **items):
    """What the evaluator makes of the same arrays."""
    arrays = {"targets": QUERIES["targets"], "gallery_labels": LABELS}
    return evaluate(GALLERY["embeddings"], QUERIES["embeddings"], protocol=protocol, **arrays, **items)


def test_report_is_the_evaluator_s(run, tmp_path):
    report = run()
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == report
    protocol = Protocol("x", 0, k=(1, 5), ndcg=(1, 5), mrr=(1000,))
    same = evaluated(protocol)
    assert report["metrics"] == {name: estimate._asdict() for name, estimate in same.metrics.items()}
    assert set(report["metrics"]["ndcg_ones@5"]) == {"value", "low", "high"}
    assert (report["requests"], report["gallery"], report["dim"], report["infeasible"]) == (R, N, D, 0)


@pytest.mark.parametrize("kind", [int, str])
def test_item_ids_add_instance_metrics(run, kind):
    items = np.array([kind(i // 2) for i in range(N)])
    report = run(GALLERY | {"item_ids": items}, QUERIES | {"item_ids": items[:R]})
    protocol = Protocol("x", 0, hit="instance", k=(1, 5), ndcg=(), mrr=(1000,))
    same = evaluated(protocol, gallery_items=np.arange(N) // 2, query_items=np.arange(R) // 2)
    assert report["metrics"]["instance_accuracy@5"]["value"] == same.metrics["accuracy@5"].value
    assert report["metrics"]["instance_mrr@1000"]["value"] == same.metrics["mrr@1000"].value
    assert "instance_accuracy@1" not in run(GALLERY | {"item_ids": items})["metrics"]


def test_excluded_row_is_not_found(run):
    queries = {"embeddings": GALLERY["embeddings"][:R], "targets": LABELS[:R]}
    assert run(queries=queries)["metrics"]["accuracy@1"]["value"] == 1
    assert run(queries=queries | {"exclude": np.arange(R)})["metrics"]["accuracy@1"]["value"] < 0.5


def test_requests_without_hit_are_misses_and_without_labels_are_left_out(run):
    targets = QUERIES["targets"].copy()
    targets[:3], targets[3:5] = 9, -1
    report = run(queries=QUERIES | {"targets": targets})
    assert (report["requests"], report["skipped"], report["infeasible"]) == (R - 2, 2, 3)


def without(arrays, name):
    return {key: value for key, value in arrays.items() if key != name}


def with_nan(arrays, row):
    vectors = arrays["embeddings"].copy()
    vectors[row, 0] = np.nan
    return arrays | {"embeddings": vectors}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"gallery": without(GALLERY, "labels")}, r"g\.npz has no array 'labels', only 'embeddings'"),
        ({"queries": without(QUERIES, "targets")}, r"q\.npz has no array 'targets'"),
        ({"gallery": GALLERY | {"embeddings": np.zeros(N, np.float32)}}, r"g\.npz: .* have shape \(200,\)"),
        ({"gallery": GALLERY | {"embeddings": np.zeros((N, D), int)}}, r"g\.npz: .* type int64"),
        ({"gallery": GALLERY | {"labels": LABELS.astype(float)}}, r"g\.npz: labels .* type float64"),
        ({"gallery": GALLERY | {"labels": LABELS - 2}}, r"g\.npz: labels range from -2"),
        ({"gallery": GALLERY | {"labels": LABELS[1:]}}, r"g\.npz: labels have 199 rows"),
        ({"gallery": {"embeddings": np.zeros((0, D), np.float32), "labels": LABELS[:0]}}, "holds no embedding"),
        ({"gallery": GALLERY | {"item_ids": np.zeros(3, int)}}, r"g\.npz: item_ids have shape \(3,\)"),
        ({"gallery": GALLERY | {"labels": np.array([[None] * A] * N)}}, r"g\.npz is not an \.npz of plain arrays"),
        ({"gallery": with_nan(GALLERY, 7)}, r"g\.npz: 1 of 200 .* row 7"),
        ({"queries": with_nan(QUERIES, 2)}, r"q\.npz: 1 of 30 .* row 2"),
        (
            {"queries": QUERIES | {"embeddings": np.zeros((R, D + 1), np.float32)}},
            r"q\.npz .* 7 dimensions, but .*g\.npz of 6",
        ),
        ({"queries": QUERIES | {"targets": QUERIES["targets"][:, 1:]}}, r"targets of 3 attributes"),
        ({"queries": QUERIES | {"exclude": np.full(R, N)}}, r"q\.npz: exclude names gallery row 200"),
        ({"queries": QUERIES | {"exclude": np.zeros(R)}}, r"q\.npz: exclude has shape .* float64"),
        ({"queries": QUERIES | {"targets": np.full((R, A), -1)}}, r"q\.npz: none of 30 requests"),
        ({"k": [0]}, "--k is"),
        ({"k": [5, 5]}, "--k names a cut-off twice"),
        ({"k": []}, "--k names no cut-off"),
        ({"k": [201]}, r"g\.npz: k is 201, but the gallery has 200"),
        ({"mrr_at": 0}, "--mrr-at is"),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(run, tmp_path, given, message):
    with pytest.raises(UserError, match=message) as caught:
        run(**given)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        (b"", "is not an .npz"),
        (b"<html>not found</html>", "is not an .npz"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is not an .npz"),
        (b"PK\x03\x04 cut off", "is not an .npz"),
        ("npy", "holds a single array"),
        ("cut", "is not an .npz"),
    ],
)
def test_files_that_are_something_else(tmp_path, content, message):
    path = tmp_path / "g.npz"
    np.savez(tmp_path / "q.npz", **QUERIES)
    if content == "npy":
        with path.open("wb") as file:
            np.save(file, LABELS)
    elif content == "cut":
        np.savez(path, **GALLERY)
        path.write_bytes(path.read_bytes()[:3000])
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        score(path, tmp_path / "q.npz", [5], 10, tmp_path / "report.json")
    assert str(path) in str(caught.value)
