# SPDX-License-Identifier: MIT
import pytest
from records import make, outcomes, run
from scipy.stats import norm
from test_site import Page

from fm_bench.leaderboard.claims import Verdict, judge, outcome
from fm_bench.leaderboard.headlines import summary
from fm_bench.leaderboard.papers import CLAIMS, Claim
from fm_bench.leaderboard.papers.headlines import HEADLINES
from fm_bench.leaderboard.resampling import Comparison
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


def verdict(claim, value, p, seeds=(3, 3)):
    """A verdict by the 95 % interval of a lead ``value`` that is normal with the two-sided ``p``."""
    margin = 1.96 * abs(value) / norm.isf(p / 2)
    found = Comparison(value, value - margin, value + margin, p=p)
    return Verdict(claim, *PLACE, outcome(found, bool(claim.tie)), found, seeds)


def judged(*verdicts):
    """What becomes of H5 where these are the verdicts on its comparisons."""
    (found,) = next(cells for headline, cells in summary(verdicts, [PLACE]) if headline.id == "H5")
    return found


def comparisons(count, tie=""):
    return [Claim("H5", "it helps", f"x{n}", "y", "accuracy@20", "", "someone", tie=tie) for n in range(count)]


def test_one_wrong_comparison_of_many_may_be_chance():
    many = comparisons(40)
    unsure = [verdict(claim, 0.01, 0.4) for claim in many[1:]]
    by_chance = verdict(many[0], -0.02, 0.03)
    assert by_chance.outcome == "violated"
    found = judged(by_chance, *unsure)
    assert (found.outcome, found.counts, found.corrected) == ("undecided", "40 undecided", False)
    assert judged(by_chance).outcome == "violated"  # alone it is not corrected
    sure = judged(verdict(many[0], -0.02, 0.001), *unsure)
    assert (sure.outcome, sure.counts, sure.corrected) == ("violated", "39 undecided, 1 violated", False)


def test_several_comparisons_are_preserved_only_after_correction():
    some = comparisons(3)
    found = judged(*(verdict(claim, 0.02, 0.04) for claim in some))
    assert (found.outcome, found.counts, found.corrected) == ("undecided", "3 undecided", True)
    assert judged(*(verdict(claim, 0.02, 0.01) for claim in some)).outcome == "preserved"
    ties = [verdict(claim, -0.02, 0.04) for claim in comparisons(3, tie=".005")]
    assert judged(*ties).outcome == "preserved"  # which nothing speaks against once they are corrected


def test_two_claims_of_one_comparison_are_one_test():
    (strict,), (tie,) = comparisons(1), comparisons(1, tie=".005")
    assert judged(verdict(strict, 0.02, 0.04), verdict(tie, 0.02, 0.04)).outcome == "preserved"


def test_the_seeds_are_those_of_the_comparison_that_is_shown():
    a, b, c = comparisons(3)
    alone, three = verdict(a, -0.2, 1e-9, seeds=(1, 3)), verdict(b, -0.1, 1e-9)
    held = verdict(c, 0.1, 1e-9, seeds=(1, 1))
    found = judged(held, alone, three)  # one violation is enough: the one that is known best
    assert (found.deciding.claim.x, found.seeds, found.provisional) == ("x1", 3, False)
    found = judged(verdict(a, 0.1, 1e-9), held)  # all must hold: no surer than the one that is known least
    assert (found.deciding.claim.x, found.seeds, found.provisional) == ("x2", 1, True)


def test_an_undecided_claim_shows_a_comparison_that_its_own_interval_leaves_undecided():
    a, b = comparisons(2)
    found = judged(verdict(a, 0.02, 0.04), verdict(b, 0.01, 0.5, seeds=(1, 1)))
    assert (found.outcome, found.deciding.claim.x, found.corrected) == ("undecided", "x1", False)


def test_the_page_shows_every_main_claim(tmp_path):
    runs = rates(tmp_path)
    page = Page(render([one.record for one in runs], verdicts=judge(runs)))
    table = next(table for table in page.tables if len(table) == 16)
    assert [row[0][2].split()[0] for row in table[1:]] == [f"H{n}" for n in range(1, 16)]
    cell = table[1][1][2].split()
    assert cell[0] == "preserved"
    assert "provisional" in cell
    assert "claims" not in [attrs.get("id") for _, attrs in Page(render([make()])).tags]
