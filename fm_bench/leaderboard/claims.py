# SPDX-License-Identifier: MIT
"""The papers' headline claims as a table, and whether our runs preserve them.

A claim is an order, "X beats Y on this metric"; absolute numbers of different data are never compared. The verdict
follows from the 95 % bootstrap interval of X minus Y over requests: *preserved* if it lies above 0, *undecided* if it
contains 0, *violated* if it lies below.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

from fm_bench.errors import UserError
from fm_bench.leaderboard.compare import Comparison, Run, difference, difference_unpaired
from fm_bench.leaderboard.rows import Key, Row, tables

Outcome = Literal["preserved", "undecided", "violated", "untested"]
SEEDS = 3  # fewer make a verdict provisional: training noise is not in the interval


@dataclasses.dataclass(frozen=True)
class Claim:
    """``x`` beats ``y`` on ``metric`` of ``protocol``; ``y`` may be judged on a protocol of its own.

    Attributes:
        id: short name, shared by the metrics of one claim.
        statement: the claim in words.
        x, y: methods as on the command line.
        metric: what is compared, higher is better.
        protocol, protocol_y: where x and y are judged.
        reported: the paper's numbers, x against y.
        source: where they are printed.
    """

    id: str
    statement: str
    x: str
    y: str
    metric: str
    reported: str
    source: str
    protocol: str = "manipulate-1"
    protocol_y: str = "manipulate-1"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What our runs on one data set say about a claim.

    Attributes:
        claim: the claim.
        data, profile, mode: where the runs were made.
        outcome: preserved, undecided, violated or untested.
        difference: x minus y with its interval; None if untested.
        seeds: how many runs of x and of y it rests on.
        reason: why it is untested, or what to keep in mind.
    """

    claim: Claim
    data: str
    profile: str
    mode: str
    outcome: Outcome
    difference: Comparison | None = None
    seeds: tuple[int, int] = (0, 0)
    reason: str = ""


_AMNET = "Zhao et al., CVPR 2017"
CLAIMS: tuple[Claim, ...] = (
    Claim(
        "H1",
        "The memory helps",
        "amnet",
        "amnet/no-memory",
        "accuracy@20",
        "DARN .545 vs .230; DeepFashion .338 vs .208",
        _AMNET,
    ),
    Claim(
        "H2",
        "The ranking loss helps",
        "amnet",
        "amnet/no-ranking",
        "accuracy@20",
        "DARN .545 vs .316; DeepFashion .338 vs .266",
        _AMNET,
    ),
    # The loss without memory minus the loss without ranking is (X - no-memory) - (X - no-ranking): X cancels.
    Claim(
        "H3",
        "Removing the memory costs more than removing the ranking loss",
        "amnet/no-ranking",
        "amnet/no-memory",
        "accuracy@20",
        "DARN .316 vs .230; DeepFashion .266 vs .208",
        _AMNET,
    ),
    Claim(
        "H3",
        "Removing the memory costs more than removing the ranking loss",
        "amnet/no-ranking",
        "amnet/no-memory",
        "ndcg@20",
        "DARN .32 vs .23; DeepFashion .28 vs .23",
        _AMNET,
    ),
    Claim(
        "H4",
        "Requests that change two attributes are harder than those that change one",
        "amnet",
        "amnet",
        "accuracy@20",
        "DARN .545 vs .464",
        _AMNET,
        protocol_y="manipulate-2",
    ),
    Claim(
        "H4",
        "Requests that change two attributes are harder than those that change one",
        "amnet",
        "amnet",
        "ndcg@20",
        "DARN .46 vs .41",
        _AMNET,
        protocol_y="manipulate-2",
    ),
    Claim(
        "AMN-07",
        "AMNet beats retrieval by classified attributes",
        "amnet",
        "attribute-based",
        "accuracy@20",
        "DARN .545 vs a lower curve without a printed value",
        _AMNET,
    ),
    Claim(
        "AMN-10",
        "AMNet beats retrieval by classified attributes",
        "amnet",
        "attribute-based",
        "ndcg@20",
        "DARN .46 vs .33",
        _AMNET,
    ),
)


def judge(runs: Sequence[Run], claims: Sequence[Claim] = CLAIMS) -> list[Verdict]:
    """Every claim on every data set, profile and mode for which one of its methods was run, in a fixed order."""
    by_fingerprint = {run.record.fingerprint: run for run in runs}
    rows: dict[Key, tuple[Row, ...]] = {
        table.key: table.rows for table in tables(run.record for run in by_fingerprint.values())
    }
    verdicts = []
    for claim in claims:
        for key in rows:
            if key.protocol != claim.protocol or not any(row.first.name in (claim.x, claim.y) for row in rows[key]):
                continue
            other = key if claim.protocol_y == claim.protocol else _matching(rows, key, claim.protocol_y)
            verdicts.append(_verdict(claim, key, rows[key], rows[other] if other else (), by_fingerprint))
    return sorted(verdicts, key=lambda verdict: (verdict.data, verdict.profile, verdict.mode))


def outcome(found: Comparison) -> Outcome:
    """The verdict that an interval of x minus y allows."""
    return "preserved" if found.low > 0 else "violated" if found.high < 0 else "undecided"


def _verdict(claim: Claim, key: Key, xs: Sequence[Row], ys: Sequence[Row], runs: dict[str, Run]) -> Verdict:
    where = (key.data, key.profile, key.mode)
    x, y = _choose(xs, claim.x), _choose(ys, claim.y)
    if x is None or y is None:
        missing = f"{claim.x} on {claim.protocol}" if x is None else f"{claim.y} on {claim.protocol_y}"
        return Verdict(claim, *where, "untested", reason=f"{missing} was not run on the same work.")
    a, b = ([runs[record.fingerprint] for record in row.records] for row in (x, y))
    try:
        if claim.protocol == claim.protocol_y:
            found = difference(a, b, claim.protocol, claim.metric)
        else:
            found = difference_unpaired(a, b, (claim.protocol, claim.protocol_y), claim.metric)
    except UserError as error:
        return Verdict(claim, *where, "untested", reason=str(error))
    seeds = len(a), len(b)
    reason = "" if min(seeds) >= SEEDS else f"Provisional: fewer than {SEEDS} seeds."
    return Verdict(claim, *where, outcome(found), found, seeds, reason)


def _choose(rows: Sequence[Row], name: str) -> Row | None:
    """The row that stands for a method: the one with most seeds, then the newest."""
    named = [row for row in rows if row.first.name == name]
    return max(named, key=lambda row: (len(row.records), row.records[-1].finished), default=None)


def _matching(rows: dict[Key, tuple[Row, ...]], key: Key, protocol: str) -> Key | None:
    """The table of another protocol on the same data, profile, mode and gallery."""
    same = (key.data, key.profile, key.mode, key.data_digest, key.gallery)
    found = [
        k for k in rows if k.protocol == protocol and (k.data, k.profile, k.mode, k.data_digest, k.gallery) == same
    ]
    return max(found, key=lambda k: sum(len(row.records) for row in rows[k]), default=None)
