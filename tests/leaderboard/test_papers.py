# SPDX-License-Identifier: MIT
"""What the papers print and claim, beside our runs."""

import itertools
import re

import pytest
from records import make, metrics_of, outcomes, run
from test_site import Page

from fm_bench import recipe
from fm_bench.leaderboard.claims import judge
from fm_bench.leaderboard.headlines import summary
from fm_bench.leaderboard.papers import CLAIMS
from fm_bench.leaderboard.papers.headlines import HEADLINES
from fm_bench.leaderboard.papers.reported import REPORTED, Reported
from fm_bench.leaderboard.reproduction import papers, status
from fm_bench.leaderboard.rows import Cell, tables
from fm_bench.leaderboard.site import render

PLACE = ("garments", "quick", "common")


def rates(folder, **changes):
    results = {"amnet": 0.6, "amnet/no-memory": 0.4, "amnet/no-ranking": 0.7}
    return [
        run(folder, name, {"manipulate-1/accuracy@20": outcomes(rate, 400)}, **changes)
        for name, rate in results.items()
    ]


def test_every_main_claim_has_comparisons_and_they_name_its_paper():
    assert [headline.id for headline in HEADLINES] == [f"H{n}" for n in range(1, 16)]
    for headline in HEADLINES:
        own = [claim for claim in CLAIMS if claim.id.split()[0] == headline.id]
        assert own, headline.id
        assert {claim.source for claim in own} == {headline.source}
    assert all(claim.id.split()[0] in {h.id for h in HEADLINES} for claim in CLAIMS if claim.id.startswith("H"))


def test_main_claims_take_the_worst_verdict_of_their_comparisons(tmp_path):
    judged = {headline.id: cells for headline, cells in summary(judge(rates(tmp_path)), [PLACE, ("x", "y", "common")])}
    assert list(judged) == [headline.id for headline in HEADLINES]
    assert [judged[name][0].outcome for name in ("H1", "H2", "H3", "H5")] == [
        "preserved", "violated", "preserved", "untested",
    ]  # fmt: skip
    h1 = judged["H1"][0]
    assert h1.deciding.difference.value == pytest.approx(0.2, abs=0.05)
    assert (h1.counts, h1.seeds, h1.provisional) == ("", 1, True)
    assert judged["H4"][0].reason == "amnet on manipulate-2 was not run on the same work."
    assert judged["H8"][0].reason == "What it compares was not run here."
    assert {cells[1].outcome for cells in judged.values()} == {"untested"}


def test_several_comparisons_are_counted(tmp_path):
    results = {"amnet": 0.6, "amnet/no-memory": 0.4, "amnet/no-ranking": 0.5}
    runs = [
        run(
            tmp_path,
            name,
            {"manipulate-1/accuracy@20": outcomes(rate, 400), "manipulate-1/ndcg@20": outcomes(1 - rate, 400)},
        )
        for name, rate in results.items()
    ]
    h3 = next(cells[0] for headline, cells in summary(judge(runs), [PLACE]) if headline.id == "H3")
    assert (h3.outcome, h3.counts) == ("violated", "1 preserved, 1 violated")
    assert h3.deciding.claim.metric == "ndcg@20"
    assert h3.deciding.difference.high < 0  # the interval that is shown is that of the verdict


def test_a_main_claim_is_as_provisional_as_the_comparisons_that_decide_it(tmp_path):
    rates = {"fashionsearchnet": (0.5, 3), "amnet": (0.6, 3), "attribute-based": (0.4, 1)}
    runs = [
        run(tmp_path, name, {"manipulate-1/accuracy@30": outcomes(rate, 400)}, seed)
        for name, (rate, seeds) in rates.items()
        for seed in range(seeds)
    ]
    h6 = next(cells[0] for headline, cells in summary(judge(runs), [PLACE]) if headline.id == "H6")
    assert (h6.outcome, h6.counts) == ("violated", "1 preserved, 1 violated")
    assert (h6.seeds, h6.provisional) == (3, False)
    h6 = next(cells[0] for headline, cells in summary(judge(runs[3:]), [PLACE]) if headline.id == "H6")
    assert (h6.outcome, h6.seeds, h6.provisional) == ("preserved", 1, True)


def test_the_page_shows_every_main_claim(tmp_path):
    runs = rates(tmp_path)
    page = Page(render([one.record for one in runs], verdicts=judge(runs)))
    table = next(table for table in page.tables if len(table) == 16)
    assert [row[0][2].split()[0] for row in table[1:]] == [f"H{n}" for n in range(1, 16)]
    cell = table[1][1][2].split()
    assert cell[0] == "preserved"
    assert "provisional" in cell
    assert "claims" not in [attrs.get("id") for _, attrs in Page(render([make()])).tags]


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
