# SPDX-License-Identifier: MIT
"""Protocols come from YAML, and say what is wrong with it."""

from dataclasses import replace
from pathlib import Path

import pytest

from fm_bench.errors import UserError
from fm_bench.evaluation import Protocol

FOLDER = Path(__file__).parents[2] / "benchmarks" / "protocols"


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
