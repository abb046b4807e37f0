# SPDX-License-Identifier: MIT
"""What became of the papers' main claims, one verdict for each claim and each place where its methods were run.

A main claim is as good as the worst of its comparisons, of which there are up to dozens: some would be violated by
chance alone if each had 5 % to itself. So their p-values are corrected together (Holm), and a comparison that is not
decided at 5 % then is undecided here, whatever its own interval says.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from fm_bench.leaderboard.claims import SEEDS, Outcome, Verdict
from fm_bench.leaderboard.folds import holm
from fm_bench.leaderboard.groups import LEVEL
from fm_bench.leaderboard.papers.headlines import HEADLINES, Headline

Place = tuple[str, str, str]
"""Data, profile and mode."""

_WORST_FIRST: tuple[Outcome, ...] = ("violated", "undecided", "preserved")


class Judgement(NamedTuple):
    """A main claim in one place.

    Attributes:
        outcome: the worst of the corrected verdicts on its comparisons, untested if there are none.
        counts: ``9 preserved, 2 undecided``, corrected; empty for a single comparison.
        deciding: the comparison that is shown, which has that verdict; None if none was tested. Of several it is one
            with fewest seeds if all must hold, else one with most, since one is enough; of equals, the first.
        reason: why it is untested.
    """

    outcome: Outcome
    counts: str
    deciding: Verdict | None
    reason: str

    @property
    def seeds(self) -> int:
        """With how many seeds the methods of the deciding comparison were run, at least; 0 if none was tested."""
        return 0 if self.deciding is None else min(self.deciding.seeds)

    @property
    def provisional(self) -> bool:
        """Whether it rests on too few seeds to speak of the methods rather than of these runs."""
        return self.deciding is not None and self.seeds < SEEDS

    @property
    def corrected(self) -> bool:
        """Whether the interval of the deciding comparison alone would say otherwise."""
        return self.deciding is not None and self.deciding.outcome != self.outcome


def summary(verdicts: Sequence[Verdict], places: Sequence[Place]) -> list[tuple[Headline, list[Judgement]]]:
    """Every main claim with its judgement in each of ``places``."""
    return [(headline, [_judgement(headline, verdicts, place) for place in places]) for headline in HEADLINES]


def counted(outcomes: Sequence[Outcome]) -> str:
    """``9 preserved, 2 undecided``."""
    found = Counter(outcomes)
    return ", ".join(f"{found[name]} {name}" for name in ("preserved", "undecided", "violated") if found[name])


def _judgement(headline: Headline, verdicts: Sequence[Verdict], place: Place) -> Judgement:
    own = [v for v in verdicts if v.claim.id.split()[0] == headline.id and (v.data, v.profile, v.mode) == place]
    tested = [verdict for verdict in own if verdict.outcome != "untested"]
    if not tested:
        return Judgement("untested", "", None, own[0].reason if own else "What it compares was not run here.")
    outcomes = _corrected(tested)
    worst = next(outcome for outcome in _WORST_FIRST if outcome in outcomes)
    deciding = [verdict for verdict, outcome in zip(tested, outcomes, strict=True) if outcome == worst]
    if worst == "preserved":
        shown = min(deciding, key=lambda verdict: min(verdict.seeds))
    else:  # one that is so by its own interval rather than one that the correction left undecided
        shown = max(deciding, key=lambda verdict: (verdict.outcome == worst, min(verdict.seeds)))
    return Judgement(worst, counted(outcomes) if len(tested) > 1 else "", shown, "")


def _corrected(tested: Sequence[Verdict]) -> list[Outcome]:
    """The verdicts with p-values corrected for all of these comparisons; two claims may share one."""
    found = {_compared(verdict): verdict.difference.p for verdict in tested if verdict.difference is not None}
    adjusted = dict(zip(found, holm(list(found.values())), strict=True))
    undecided: Outcome = "undecided"
    return [v.outcome if adjusted[_compared(v)] < LEVEL else "preserved" if v.claim.tie else undecided for v in tested]


def _compared(verdict: Verdict) -> tuple[object, ...]:
    """What tells a comparison from the others of its place."""
    claim = verdict.claim
    return claim.of_x, claim.of_y, claim.protocol, claim.protocol_y, verdict.difference
