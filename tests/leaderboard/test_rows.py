# SPDX-License-Identifier: MIT
import random

import pytest
from records import SKILL, everything, make, metrics_of

from fm_bench.leaderboard.rows import hardware, key_of, tables


def test_ignoring_requests_is_a_floor_only_where_something_is_asked():
    for protocol, role in (("manipulate-1", "floor"), ("unheard-of", "floor"), ("instance", "method")):
        (table,) = tables([make("identity", protocols={protocol: "aa"}), make("random", protocols={protocol: "aa"})])
        assert {row.label: row.role for row in table.rows} == {"identity": role, "random": "floor"}


def test_best_row_first_and_roles_marked():
    (table,) = tables([make(name, protocols={"manipulate-1": "cc"}) for name in SKILL])
    assert [row.label for row in table.rows] == [
        "oracle", "amnet", "amnet/no-ranking", "amnet/no-memory", "attribute-based", "identity", "random",
    ]  # fmt: skip
    assert [row.role for row in table.rows] == ["ceiling", *["method"] * 4, "floor", "floor"]
    assert table.chance["accuracy@20"] == pytest.approx(1 - 0.9965**20)
    assert table.requests == 1500


@pytest.mark.parametrize(
    "changes",
    [
        {"data": "fashion-product"},
        {"profile": "full"},
        {"mode": "paper"},
        {"data_digest": "00"},
        {"protocols": {"search": "other definition"}},
        {"request_digests": {"search": "other requests"}},
        {"gallery": 4999},
    ],
)
def test_what_was_not_asked_the_same_never_shares_a_table(changes):
    base = {"protocols": {"search": "cc"}}
    split = tables([make("amnet", **base), make("attribute-based", **(base | changes))])
    assert [len(table.rows) for table in split] == [1, 1]
    together = tables([make("amnet", **base), make("attribute-based", **base)])
    assert [len(table.rows) for table in together] == [2]


@pytest.mark.parametrize("protocol", ["search", "instance", "nobody-knows"])
def test_a_protocol_that_searches_is_never_taken_for_exact(protocol):
    record = make(protocols={protocol: "cc"}, search={"index": "HNSW32,Flat", "protocols": {}})
    assert key_of(record, protocol).search == "HNSW32,Flat"


@pytest.mark.parametrize("protocol", ["classification", "generation", "latency"])
def test_protocols_that_do_not_search_by_the_index_share_their_table(protocol):
    record = make(protocols={protocol: "cc"}, search={"index": "HNSW32,Flat", "protocols": {"search": {}}})
    assert key_of(record, protocol).search == "exact"


def test_seeds_are_pooled_into_one_row_with_their_spread():
    times = {0: "2026-03-03T00:00:00", 1: "2026-01-01T00:00:00", 2: "2026-02-02T00:00:00"}
    runs = [make("amnet", seed, skill=0.6, protocols={"search": "cc"}, finished=times[seed]) for seed in (2, 0, 1)]
    (table,) = tables(runs)
    (row,) = table.rows
    assert [record.seed for record in row.records] == [0, 1, 2]
    cell = row.cell("accuracy@20")
    values = [run.metrics["search"]["accuracy@20"]["value"] for run in runs]
    assert cell.value == pytest.approx(sum(values) / 3)
    assert (cell.least, cell.most) == (min(values), max(values))
    assert cell.low == pytest.approx(sum(run.metrics["search"]["accuracy@20"]["low"] for run in runs) / 3)
    assert row.mean("train") == pytest.approx(252.0)
    assert row.mean("query_ms") == pytest.approx(1.84)
    k, accuracy = row.curve()
    assert accuracy[k.index(20)] == pytest.approx(cell.value)
    assert row.attribute_cell("colour").value == pytest.approx(0.9 * cell.value)


def test_one_seed_has_no_spread_and_a_missing_metric_is_missing():
    (row,) = tables([make(protocols={"search": "cc"}, query_ms=None)])[0].rows
    assert row.cell("accuracy@20").least is None
    assert row.cell("accuracy@7") is None
    assert row.mean("query_ms") is None
    assert row.mean("nothing") is None
    assert row.attribute_cell("nothing") is None


def test_a_metric_that_one_seed_lacks_has_no_mean():
    metrics = metrics_of(0.5)
    del metrics["mrr@1000"]
    runs = [make(protocols={"search": "cc"}), make(seed=1, protocols={"search": "cc"}, metrics={"search": metrics})]
    (row,) = tables(runs)[0].rows
    assert row.seeds == 2
    assert row.cell("mrr@1000") is None
    assert row.cell("accuracy@20") is not None


def test_another_configuration_or_code_is_another_row_that_says_how_it_differs():
    config = {"seed": 1, "model": {"lr": 0.1, "dim": 256, "memory": True}}
    runs = [
        make(seed=0),
        make(seed=1, config=config),
        make(seed=2, code={"version": "0.2.0", "digest": "ff" * 32, "git": ""}),
    ]
    rows = {row.first.seed: row for row in tables(runs)[0].rows}
    assert len(rows) == 3
    assert rows[0].notes == ()
    assert "model.lr 0.1 instead of 0.001" in rows[1].notes[0]
    assert "code ffffffff instead of eeeeeeee" in rows[2].notes[0]


def test_where_the_data_lie_makes_no_other_row():
    runs = [make(seed=seed, config={"seed": seed, "reader": {"root": f"/data{seed}"}}) for seed in (0, 1)]
    assert [len(row.records) for row in tables(runs)[0].rows] == [2]


def test_the_newest_run_of_a_seed_counts_and_the_others_are_mentioned():
    old, new = make(seed=0, skill=0.5), make(seed=0, skill=0.6, finished="2026-02-01T00:00:00")
    (row,) = tables([new, old])[0].rows
    assert row.records == (new,)
    assert "2 runs of 1 seeds" in row.notes[0]


def test_ties_become_a_note():
    (row,) = tables([make(protocols={"search": "cc"}, tied={"search": 0.25})])[0].rows
    assert row.notes[0].startswith("search: 25% of the requests have ties")


def test_order_of_records_does_not_matter():
    records = everything((0, 1))
    shuffled = records[:]
    random.Random(0).shuffle(shuffled)
    assert tables(shuffled) == tables(records)


def test_a_row_without_the_headline_metric_goes_last():
    metrics = metrics_of(0.9)
    del metrics["accuracy@20"]
    (table,) = tables(
        [make("a", metrics={"search": metrics}, protocols={"search": "cc"}), make("b", 0, protocols={"search": "cc"})]
    )
    assert [row.label for row in table.rows] == ["b", "a"]


def test_hardware_in_words():
    machine = {"cpu": "Fast CPU", "cores": 2, "memory_gib": 15, "gpus": ["GPU A"]}
    assert hardware(make(hardware=machine)) == "Fast CPU, 2 cores, 15 GiB memory, GPU A"
