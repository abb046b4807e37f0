# SPDX-License-Identifier: MIT
"""What the papers print and claim, beside our runs."""

import itertools
import math
import re

import numpy as np
import pytest
from records import make, metrics_of

from fm_bench import recipe
from fm_bench.leaderboard.papers import CLAIMS
from fm_bench.leaderboard.papers.reported import REPORTED, Reported
from fm_bench.leaderboard.reproduction import kendall, papers, status
from fm_bench.leaderboard.rows import Cell, tables
from fm_bench.leaderboard.site import render


def test_printed_numbers_name_methods_metrics_and_protocols_of_ours():
    methods = set(recipe.names("methods"))
    for one in REPORTED:
        name, _, variant = one.method.partition("/")
        assert name in methods
        assert not variant or variant in recipe.load("methods", name)["variants"]
        assert {one.protocol, one.exact} <= set(recipe.names("protocols"))
        assert one.data in (*recipe.names("data"), "not named")
        assert 0 < one.value < 1.2
        assert one.source.startswith(("Table ", "Section "))
    keys = [(one.method, one.metric, one.data, one.protocol, one.paper, one.source) for one in REPORTED]
    assert len(keys) == len(set(keys))
    assert {one.paper for one in REPORTED} == {claim.source for claim in CLAIMS}


def test_printed_numbers_are_those_of_the_claims():
    """Where a claim of one data set prints both of its numbers, they are the same here."""
    checked = 0
    for claim in CLAIMS:
        parts = claim.reported.replace("vs ", "").split()
        if (
            len(parts) != 3
            or not re.fullmatch(r"[\d.]+", parts[2])
            or claim.attributes
            or claim.protocol != claim.protocol_y
            or claim.metric != claim.metric_y
        ):
            continue
        for method, printed in zip((claim.x, claim.y), parts[1:], strict=True):
            same = [
                one.value
                for one in REPORTED
                if (one.method, one.metric, one.data) == (method, claim.metric, parts[0].lower())
            ]
            assert float(printed) in same or not same, (claim.id, printed, same)
            checked += bool(same)
    assert checked > 10


def test_numbers_are_compared_only_with_the_same_data_question_and_mode():
    (table,) = tables([make(protocols={"manipulate-1": "aa"})])
    printed = Reported("amnet", 0.5, "accuracy@20", "darn", "darn-1", "manipulate-1", "Someone", "Table 1")
    cell = Cell(0.55, 0.52, 0.58)
    here = table.key._replace(data="darn", protocol="darn-1", mode="paper", profile="paper")
    assert status(printed, here, cell) == "ours is higher"
    assert status(printed, here, Cell(0.4, 0.3, 0.45)) == "ours is lower"
    assert status(printed, here, Cell(0.5, 0.45, 0.55)) == "reproduced: within our interval"
    assert status(printed, here._replace(mode="common"), cell) == "not comparable: common mode"
    assert status(printed, here._replace(protocol="manipulate-1"), cell) == "not comparable: other requests"
    assert status(printed, table.key, cell) == "not comparable: other data"
    assert status(printed, here._replace(profile="quick"), cell) == "not comparable: profile quick"
    assert status(printed, here._replace(data="darn, 5 folds"), cell) == "ours is higher"
    assert status(printed, here._replace(data="darn, 3 of 5 folds"), cell) == "not comparable: folds are missing"
    shrunk = "shrunk: 29 images instead of 60 images searched; this is not the task of the paper"
    assert status(printed, here, cell, [shrunk]) == "not comparable: fewer pictures"
    row = make("amnet", data="darn", mode="paper", profile="paper", protocols={"amnet_darn_1": "aa"}, notes=[shrunk])
    found = [ours.status for paper in papers(tables([row])) for entry in paper.entries for ours in entry.ours]
    assert set(found) == {"not comparable: fewer pictures"}


def test_our_numbers_stand_beside_the_printed_ones():
    every = tables([make("amnet", protocols={"manipulate-1": "aa"}, skill=0.61), make("flam", data="darn")])
    found = {paper.source: paper for paper in papers(every)}
    assert len(found) == 5
    amnet = found["Zhao et al., CVPR 2017"]
    first = amnet.entries[0]
    assert (first.reported.method, first.printed, first.status) == ("amnet", "0.545", "not comparable: other data")
    assert first.ours[0].cell.value == pytest.approx(metrics_of(0.606)["accuracy@20"]["value"])
    without = next(entry for entry in amnet.entries if entry.reported.method == "amnet/no-memory")
    assert (without.ours, without.status) == ((), "not run")
    statuses = set(itertools.chain(*([entry.status for entry in paper.entries] for paper in found.values())))
    assert "not comparable: other requests" in statuses  # FLAM on DARN, asked otherwise
    text = render([make("amnet")])
    assert "not comparable: other data" in text
    assert "Zhao et al., CVPR 2017" in text
    assert "Huang et al., ICCV 2015" not in text  # nothing of it was run


def test_kendall_counts_pairs_and_ties_as_scipy_does():
    from scipy.stats import kendalltau

    rng = np.random.default_rng(0)
    for things in range(2, 12):
        one, other = rng.integers(0, 5, things).tolist(), rng.integers(0, 5, things).tolist()
        alike, pairs, tau = kendall(one, other)
        assert tau == pytest.approx(kendalltau(one, other).statistic, nan_ok=True)
        assert 0 <= alike <= pairs <= things * (things - 1) // 2
    assert kendall([3, 2, 1], [0.9, 0.5, 0.7]) == (2, 3, pytest.approx(1 / 3))
    assert kendall([3, 2, 1], [1, 2, 3]) == (0, 3, -1)
    assert math.isnan(kendall([3, 2], [1, 1])[2])


def test_methods_are_ordered_beside_the_column_that_a_paper_prints():
    """Two methods make no order, other metrics, data, sources and tables are not mixed in, and the page says it all."""

    def number(method: str, value: float, **other: str) -> Reported:
        given = {"metric": "accuracy@20", "data": "darn", "source": "Table 1"} | other
        return Reported(method, value, exact="darn-1", protocol="manipulate-1", paper="Someone", **given)

    printed = [number("amnet", 0.5), number("flam", 0.7), number("fcd", 0.6), number("identity", 0.1)]
    printed += [number("amnet", 0.9, source="Table 2"), number("flam", 0.1, source="Table 2")]
    printed += [number("amnet", 0.1, metric="ndcg@20"), number("fcd", 0.1, data="deepfashion")]
    rows = [make(name, skill=skill) for name, skill in (("amnet", 0.5), ("flam", 0.6), ("fcd", 0.8))]
    (paper,) = papers(tables(rows), printed)
    (order,) = paper.orders
    assert order.methods == ("flam", "fcd", "amnet")
    assert (order.alike, order.pairs, order.tau) == (2, 3, pytest.approx(1 / 3))
    assert (order.reported.source, order.reported.data, order.key.data) == ("Table 1", "darn", "garments")
    rows += [make("random", data="fashion-product"), make("amnet", data="fashion-product")]
    assert papers(tables(rows), printed)[0].orders == paper.orders
    names = ("amnet", "fashionsearchnet", "fashionsearchnet/no-aam", "attribute-based")
    page = render([make(name, skill=0.5 + 0.1 * i) for i, name in enumerate(names)])
    (row,) = re.findall(r"<tr><th scope=.row.>[^\n]*<td>(\d) of (\d)</td><td>([^<]*)</td><td[^>]*>fashionsearch", page)[
        :1
    ]
    assert row == ("2", "6", "-0.33")
