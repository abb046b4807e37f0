# SPDX-License-Identifier: MIT
"""Protocols come from YAML, and say what is wrong with it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fm_bench.errors import UserError
from fm_bench.evaluation import Protocol

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "benchmarks" / "protocols"
SHARES = (0.05, 0.125, 0.25, 0.5, 1.0)


@pytest.mark.parametrize(("name", "changes"), [("search", 0), ("manipulate-1", 1), ("manipulate-2", 2)])
def test_shipped_protocols(name, changes):
    protocol = Protocol.from_yaml(FOLDER / f"{name}.yaml")
    assert (protocol.name, protocol.changes, protocol.hit, protocol.missing) == (
        name,
        changes,
        "attributes",
        "query_labelled",
    )
    assert protocol.k == (1, 5, 10, 20, 30, 50)
    assert protocol.ndcg == (10, 20)
    assert protocol.mrr == (1000,)
    assert protocol.cap == 4
    assert protocol.exclude_query
    assert protocol.description


def test_digest_follows_the_numbers_only():
    protocol = Protocol("x", 1)
    assert replace(protocol, description="other words").digest == protocol.digest
    assert replace(protocol, mrr=(10,)).digest != protocol.digest
    assert Protocol("x", 1, k=(20, 5)).digest == Protocol("x", 1, k=(5, 20)).digest


def test_records_know_the_shipped_protocols_by_their_digests():
    records = [json.loads(path.read_text()) for path in (ROOT / "leaderboards" / "records").glob("*.json")]
    recorded = {(name, value) for record in records for name, value in record["protocols"].items()}
    assert {name for name, _ in recorded} >= {"search", "manipulate-1", "manipulate-2"}
    shipped = {(name, Protocol.from_yaml(FOLDER / f"{name}.yaml").digest) for name, _ in recorded}
    assert recorded == shipped


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("instance", {"changes": 0, "hit": "instance", "queries": "street", "sweep": ()}),
        ("gallery-sweep", {"changes": 0, "hit": "instance", "queries": "street", "sweep": SHARES}),
        ("gallery-sweep-1", {"changes": 1, "hit": "attributes", "queries": "gallery", "sweep": SHARES}),
        ("region", {"changes": 1, "regions": True, "success": (5,)}),
        ("detection", {"changes": 0, "kind": "detection", "k": (20,), "iou": 0.7}),
    ],
)
def test_protocols_of_streets_regions_and_boxes(name, fields):
    protocol = Protocol.from_yaml(FOLDER / f"{name}.yaml")
    assert {field: getattr(protocol, field) for field in fields} == fields
    assert protocol.description


@pytest.mark.parametrize(
    "field",
    [
        {"queries": "street"},
        {"sweep": (0.5, 1.0)},
        {"success": (5,)},
        {"regions": True},
        {"kind": "detection"},
        {"iou": 0.5},
    ],
)
def test_digest_follows_each_field(field):
    protocol = Protocol("x", 1)
    assert replace(protocol, **field).digest != protocol.digest


def test_success_deepens_the_ranking():
    assert Protocol("x", 1, k=(5,), ndcg=(), success=(7,)).depth == 7
    assert Protocol("x", 1, k=(), ndcg=(), success=(5,)).depth == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("changes: 3", "changes 3 attributes"),
        ("hit: attributes", "does not say how many"),
        ("changes: 1\nhits: items", "field 'hits' is not known: did you mean hit"),
        ("changes: 1\nhit: item", "hit 'item' is not known"),
        ("changes: 1\nk: [0, 5]", "cut-offs are whole numbers"),
        ("changes: 1\nk: [5, 5]", "names a cut-off twice"),
        ("changes: 1\nk: []\nndcg: []", "counts nothing"),
        ("changes: 1\ncap: 0", "cap 0"),
        ("changes: 0\nqueries: shop", "queries 'shop' is not known"),
        ("changes: 0\nkind: detector", "kind 'detector' is not known: did you mean detection"),
        ("changes: 0\nregions: true", "regions True and changes 0"),
        ("changes: 1\nregions: 1", "regions 1"),
        ("changes: 0\niou: 0", "iou 0"),
        ("changes: 0\niou: high", "iou 'high'"),
        ("changes: 0\nsuccess: [0]", "cut-offs are whole numbers"),
        ("changes: 0\nsweep: [0.5]", "ascending shares"),
        ("changes: 0\nsweep: [0.5, 0.9]", "ascending shares"),
        ("changes: 0\nsweep: [0.5, 0.1, 1]", "ascending shares"),
        ("changes: 0\nsweep: [0, 1]", "ascending shares"),
        ("changes: 0\nsweep: [a, 1]", "ascending shares"),
        ("- a", "is not a protocol"),
        ("a: [", "could not be read"),
    ],
)
def test_bad_files(tmp_path, text, message):
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        Protocol.from_yaml(tmp_path / "p.yaml")


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"none\.yaml could not be read"):
        Protocol.from_yaml(tmp_path / "none.yaml")
