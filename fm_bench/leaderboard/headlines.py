# SPDX-License-Identifier: MIT
"""What became of the papers' main claims, one verdict for each claim and each place where its methods were run."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from fm_bench.leaderboard.claims import SEEDS, Outcome, Verdict
from fm_bench.leaderboard.papers.headlines import HEADLINES, Headline

Place = tuple[str, str, str]
"""Data, profile and mode."""

_WORST_FIRST: tuple[Outcome, ...] = ("violated", "undecided", "preserved")


class Judgement(NamedTuple):
    """A main claim in one place.

    Attributes:
        outcome: the worst of the verdicts on its comparisons, untested if there are none.
        counts: ``9 preserved, 2 undecided``; empty for a single comparison.
        deciding: the first comparison with that verdict; None if none was tested.
        seeds: the fewest seeds that a method of a comparison with that verdict was run with.
        reason: why it is untested.
    """

    outcome: Outcome
    counts: str
    deciding: Verdict | None
    seeds: int
    reason: str

    @property
    def provisional(self) -> bool:
        """Whether it rests on too few seeds to speak of the methods rather than of these runs."""
        return self.deciding is not None and self.seeds < SEEDS


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
        return Judgement("untested", "", None, 0, own[0].reason if own else "What it compares was not run here.")
    outcomes = [verdict.outcome for verdict in tested]
    worst = next(outcome for outcome in _WORST_FIRST if outcome in outcomes)
    deciding = [verdict for verdict in tested if verdict.outcome == worst]
    return Judgement(
        worst,
        counted(outcomes) if len(tested) > 1 else "",
        deciding[0],
        min(min(verdict.seeds) for verdict in deciding),
        "",
    )
