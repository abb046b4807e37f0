# SPDX-License-Identifier: MIT
"""Whether our runs preserve the papers' claims, which ``papers`` lists.

A claim is an order, "X beats Y on this metric"; absolute numbers of different data are never compared. The verdict
follows from the 95 % interval, over requests and seeds, of X's lead over Y (X minus Y, or Y minus X where lower is
better): *preserved* if it lies above 0, *undecided* if it contains 0, *violated* if it lies below. Where the paper's
own difference is about nothing, *undecided* counts as preserved. The noise of training is pooled, as ``resampling``
says, over all methods that are asked for the same.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from fm_bench.errors import UserError
from fm_bench.leaderboard.compare import Run, scores
from fm_bench.leaderboard.papers import CLAIMS, Claim, Measure
from fm_bench.leaderboard.record import Record
from fm_bench.leaderboard.resampling import Comparison, Noise, Sample, Scores, contrast, paired, sample
from fm_bench.leaderboard.rows import Key, Row, Table, speaker, tables
from fm_bench.recipe import EXACT

Outcome = Literal["preserved", "undecided", "violated", "untested"]
SEEDS = 3  # fewer make a verdict provisional: the noise of training is that of other methods, or left out


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What our runs on one data set say about a claim.

    Attributes:
        claim: the claim.
        data, profile, mode: where the runs were made.
        outcome: preserved, undecided, violated or untested.
        difference: x's lead over y with its interval; None if untested.
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


class Answers(NamedTuple):
    """What the rows of one table answered: a sample for each measure, or why there is none."""

    key: Key
    rows: Mapping[str, Row]
    samples: Mapping[Measure, Sample]
    problems: Mapping[Measure, str]


def judge(runs: Sequence[Run], claims: Sequence[Claim] = CLAIMS) -> list[Verdict]:
    """Every claim on every data set, profile and mode for which one of its methods was run, in a fixed order."""
    by_fingerprint = {run.record.fingerprint: run for run in runs}
    wanted: dict[str, set[Measure]] = {}  # protocol -> what is read there
    for claim in claims:
        wanted.setdefault(claim.protocol, set()).add(claim.of_x)
        wanted.setdefault(claim.protocol_y, set()).add(claim.of_y)
    answers = [
        _answers(table, by_fingerprint, sorted(wanted[table.key.protocol]))
        for table in tables(run.record for run in by_fingerprint.values())
        if table.key.protocol in wanted and table.key.search == EXACT  # papers search exactly
    ]
    places = list(dict.fromkeys(answer.key[:3] for answer in answers))
    return [
        verdict
        for place in places
        for claim in claims
        for verdict in _judge(claim, [answer for answer in answers if answer.key[:3] == place])
    ]


def _answers(table: Table, runs: Mapping[str, Run], wanted: Sequence[Measure]) -> Answers:
    rows: dict[str, Row] = {}
    for name in {measure.method for measure in wanted}:
        named = [row for row in table.rows if row.first.name == name]
        if named:
            rows[name] = speaker(named)
    columns: dict[Measure, Scores] = {}
    problems: dict[Measure, str] = {}
    parts: dict[Measure, list[Measure]] = {}
    for measure in wanted:
        if (name := measure.method) not in rows:
            continue
        if random_weights(rows[name].first):
            problems[measure] = f"{name} ran with random weights, and the claim is about trained ones."
            continue
        try:
            seeds = [runs[record.fingerprint] for record in rows[name].records]
            parts[measure] = _parts(seeds, table, measure)
            columns |= {part: _scores(seeds, table, part) for part in parts[measure]}
        except UserError as error:
            problems[measure] = str(error)
    drawn = sample(columns, table.key.request_digest)
    samples = {m: Sample.mean_of([drawn[part] for part in parts[m]]) for m in parts if m not in problems}
    return Answers(table.key, rows, samples, problems)


def _parts(seeds: Sequence[Run], table: Table, measure: Measure) -> list[Measure]:
    """What a measure is the mean of: each of its attributes that the data have if they count alike, else itself."""
    if not measure.alike:
        return [measure]
    changes = seeds[0].changes(table.key.protocol)
    known = [name for name in measure.attributes if name in changes and changes[name].any()]
    return [measure._replace(attributes=(name,), alike=False) for name in known] or [measure]


def _scores(seeds: Sequence[Run], table: Table, measure: Measure) -> Scores:
    """The measure of every request; NaN where the request changes none of the measure's attributes."""
    protocol = table.key.protocol
    found = scores(seeds, protocol, measure.metric)
    if not measure.attributes:
        return found
    changes = seeds[0].changes(protocol)
    known = [changes[name] for name in measure.attributes if name in changes]
    if not known:
        raise UserError(f"the data have no attribute named {' or '.join(measure.attributes)}.")
    return found.of(np.any(known, axis=0))


def random_weights(record: Record) -> bool:
    """Whether the row stands for a network that others trained, but nobody gave its weights."""
    hyper = record.config.get("hyper", {})
    others = record.method == "pretrained" or hyper.get("features") == "given"
    return others and hyper.get("weights", "") is None


def _judge(claim: Claim, answers: Sequence[Answers]) -> list[Verdict]:
    """The verdicts of one claim in one place: one for each table that can judge it, else one that says why not."""
    tested: list[tuple[Key, Verdict]] = []
    untested: list[Verdict] = []
    for x in answers:
        if x.key.protocol == claim.protocol and (claim.x in x.rows or claim.y in x.rows):
            verdict = _verdict(claim, x, _other(claim, x, answers))
            if verdict.outcome == "untested":
                untested.append(verdict)
            else:
                tested.append((x.key, verdict))
    if len(tested) > 1:
        return [dataclasses.replace(v, reason=f"{_where(k)} {v.reason}".strip()) for k, v in tested]
    return [verdict for _, verdict in tested] or untested[:1]


def _where(key: Key) -> str:
    return f"Data {key.data_digest[:8]}, requests {key.request_digest[:8]}, {key.gallery} gallery images."


def outcome(found: Comparison, tie: bool = False) -> Outcome:
    """The verdict that an interval of x's lead over y allows; a tie is preserved unless it is violated."""
    if found.high < 0:
        return "violated"
    return "preserved" if found.low > 0 or tie else "undecided"


def _verdict(claim: Claim, x: Answers, y: Answers | None) -> Verdict:
    place = x.key[:3]
    for measure, answers, protocol in ((claim.of_x, x, claim.protocol), (claim.of_y, y, claim.protocol_y)):
        name = measure.method
        if answers is None or name not in answers.rows:
            return Verdict(claim, *place, "untested", reason=f"{name} on {protocol} was not run on the same work.")
        if measure in answers.problems:
            return Verdict(claim, *place, "untested", reason=answers.problems[measure])
    assert y is not None
    ours, theirs, noise = x.samples[claim.of_x], y.samples[claim.of_y], _noise(claim, x, y)
    found = contrast(theirs, ours, noise) if claim.lower else contrast(ours, theirs, noise)
    seeds = len(x.rows[claim.x].records), len(y.rows[claim.y].records)
    reasons = []
    if min(seeds) < SEEDS:
        unknown = "" if noise.df else ", and no method here has several to tell the noise of training"
        reasons.append(f"Provisional: fewer than {SEEDS} seeds{unknown}.")
    if claim.tie and found.low <= 0 <= found.high:
        reasons.append(f"The paper's own difference is small ({claim.tie}), and nothing here speaks against it.")
    return Verdict(claim, *place, outcome(found, bool(claim.tie)), found, seeds, " ".join(reasons))


def _noise(claim: Claim, x: Answers, y: Answers) -> Noise:
    """What training adds to what the claim compares, over all methods that were asked for the same.

    Where both sides are of the same networks, it is what training adds to the difference of the two.
    """
    if paired(x.samples[claim.of_x], y.samples[claim.of_y]):
        others = ((one, y.samples.get(claim.of_y._replace(method=name))) for name, one in _like(claim.of_x, x))
        return Noise.pooled(one.runs - other.runs for one, other in others if other and paired(one, other))
    asked = {(answers.key, of[1:]): _like(of, answers) for of, answers in ((claim.of_x, x), (claim.of_y, y))}
    return Noise.pooled(one.runs for found in asked.values() for _, one in found)


def _like(measure: Measure, answers: Answers) -> list[tuple[str, Sample]]:
    """Every method with what it answered of the same metric and requests."""
    return [(of.method, one) for of, one in answers.samples.items() if of[1:] == measure[1:]]


def _other(claim: Claim, x: Answers, answers: Sequence[Answers]) -> Answers | None:
    """Where ``claim.y`` is judged: in the same table, or in that of another protocol on the same data and gallery."""
    if claim.protocol_y == claim.protocol:
        return x
    same = (x.key.data_digest, x.key.gallery)
    found = [a for a in answers if a.key.protocol == claim.protocol_y and (a.key.data_digest, a.key.gallery) == same]
    return max(found, key=lambda a: sum(len(row.records) for row in a.rows.values()), default=None)
