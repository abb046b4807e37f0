# SPDX-License-Identifier: MIT
"""What the papers print and claim, beside our runs."""

import itertools
import re

import pytest
from records import make, metrics_of

from fm_bench import recipe
from fm_bench.leaderboard.papers import CLAIMS
from fm_bench.leaderboard.papers.reported import REPORTED, Reported
from fm_bench.leaderboard.reproduction import papers, status
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
