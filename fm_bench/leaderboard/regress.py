# SPDX-License-Identifier: MIT
"""Whether a run does worse than the recorded runs of the same method, by more than these differ among themselves.

What is to be expected of one more run follows from the recorded seeds of its method and, since these are few, from how
much seeds of the other methods in its table vary (``bands``). A run of tens of methods compares hundreds of scores, of
which some lie beyond what is expected by chance: Holm's correction over all scores that are judged together keeps the
chance of any false alarm near ``LEVEL``. Times and memory are compared only with runs of the same settings on the same
hardware, and have a fixed allowance, since a machine has other things to do.
"""

import dataclasses
import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from fm_bench.errors import UserError
from fm_bench.files import digest, write_json
from fm_bench.leaderboard.bands import LEVEL, Score, Usual, expected, quantile, usual
from fm_bench.leaderboard.folds import fold_of, holm
from fm_bench.leaderboard.record import Record, find, load
from fm_bench.leaderboard.rows import CEILING, FLOOR, key_of, settings
from fm_bench.leaderboard.shown import headline, is_lower, number, unit, words

SCHEMA = 1
ALLOWED = {"training": (1.25, 3.0), "query": (1.25, 1.0), "memory": (1.15, 100.0)}
"""What a cost may exceed its recorded mean by, whatever its band: a factor, and an amount in its unit."""
ALLOWED_ALONE = 1.5
"""The factor where one seed is recorded, which tells nothing of how a time varies."""
_COSTS = {"training": "training time", "query": "time per query", "memory": "peak memory"}
_UNITS = {"training": "s", "query": "ms", "memory": "MiB"}
OTHER_SETTINGS = "recorded with other settings"
Verdict = Literal["ok", "worse", "not compared"]


@dataclasses.dataclass(frozen=True)
class Measured:
    """What a regression test needs of a record.

    Attributes:
        name: method and variant; ``data``, ``profile``, ``mode``, ``seed`` as in a record.
        settings: digest of the configuration, seeds apart.
        finished: when.
        machine: digest of the hardware.
        scores: protocol -> headline.
        costs: ``training`` seconds, ``query`` milliseconds and ``memory`` MiB, as far as they are known.
    """

    name: str
    data: str
    profile: str
    mode: str
    seed: int
    settings: str
    finished: str
    machine: str
    scores: dict[str, Score]
    costs: dict[str, float]

    @property
    def place(self) -> tuple[str, str, str, str]:
        """What runs must share to be compared."""
        return self.name, self.data, self.profile, self.mode

    @classmethod
    def of(cls, record: Record) -> "Measured":
        """Of a record."""
        scores = {}
        for protocol, metrics in record.metrics.items():
            best = headline(protocol, list(metrics))
            if best in metrics and unit(best) != "ms":  # times are costs
                found = metrics[best]
                ends = found.get("low", found["value"]), found.get("high", found["value"])
                work = digest(key_of(record, protocol)[4:])
                scores[protocol] = Score(best, found["value"], *ends, record.requests[protocol], work)
        known = {
            "training": record.seconds.get("train"),
            "query": record.query_ms,
            "memory": record.peak_memory_mb,
        }
        return cls(
            record.name,
            record.data,
            record.profile,
            record.mode,
            record.seed,
            digest(settings(record)),
            record.finished,
            digest(record.hardware),
            scores,
            {name: value for name, value in known.items() if value},
        )


class Finding(NamedTuple):
    """One comparison: a row of the summary; ``p`` is that of a score, before or after Holm's correction."""

    name: str
    data: str
    what: str
    recorded: str
    band: str
    now: str
    verdict: Verdict
    why: str = ""
    p: float | None = None


Table = tuple[str, str, str, str, str, str]
"""Data, profile, mode, protocol, metric and digest of the work: what scores must share to be compared."""


def judge(fresh: Sequence[Measured], recorded: Sequence[Measured]) -> list[Finding]:
    """Every headline, time and memory of ``fresh`` beside the recorded runs of the same method, data and profile.

    All of ``fresh`` is one family of tests: a score is worse if its p-value, corrected for all of them, is below
    ``LEVEL``.
    """
    known = _usual(recorded)
    found = [finding for run in fresh for finding in _judge(run, recorded, known)]
    tested = [at for at, finding in enumerate(found) if finding.p is not None]
    before = [finding.p for finding in found if finding.p is not None]
    for at, alone, p in zip(tested, before, holm(before), strict=True):
        found[at] = _decided(found[at], alone, p, len(tested))
    return found


def _decided(finding: Finding, alone: float, p: float, scores: int) -> Finding:
    """A comparison of a score with its verdict, given its p-value ``alone`` and among all ``scores``."""
    if p < LEVEL:
        return finding._replace(verdict="worse", p=p, why=_joined(finding.why, f"p {p:.2g}"))
    if alone < LEVEL:
        chance = f"beyond what is expected, as happens by chance among {scores} scores: p {p:.2g}"
        return finding._replace(p=p, why=_joined(finding.why, chance))
    return finding._replace(p=p)


def _joined(*notes: str) -> str:
    return "; ".join(filter(None, notes))


def _usual(recorded: Sequence[Measured]) -> dict[Table, Usual]:
    """What seeds do in every table of ``recorded``."""
    rows: dict[Table, dict[tuple[str, str], dict[int, float]]] = {}
    for run in sorted(recorded, key=lambda run: run.finished):
        if _competes(run):
            for protocol, score in run.scores.items():
                row = rows.setdefault(_table(run, protocol, score), {}).setdefault((run.name, run.settings), {})
                row[run.seed] = score.value  # the newest run of a seed counts
    return usual({table: [[*row.values()] for row in of.values()] for table, of in rows.items()})


def _competes(run: Measured) -> bool:
    """Whether it is a method, whose training varies as that of others does, and no floor or ceiling."""
    return not {run.name, run.name.partition("/")[0]} & (FLOOR | CEILING)


def _table(run: Measured, protocol: str, score: Score) -> Table:
    return run.data, run.profile, run.mode, protocol, score.metric, score.work


def _judge(run: Measured, recorded: Sequence[Measured], known: Mapping[Table, Usual]) -> list[Finding]:
    same, note = _baseline(run, recorded)
    if not same:
        return [_not_compared(run, "everything", "nothing is recorded that was asked the same")]
    findings = [_score(run, protocol, same, known, note) for protocol in run.scores]
    lost = sorted({protocol for each in same for protocol in each.scores} - run.scores.keys())
    findings += [_lost(run, protocol, note) for protocol in lost]
    return findings + [_cost(run, cost, same, note) for cost in run.costs]


def _baseline(run: Measured, recorded: Sequence[Measured]) -> tuple[list[Measured], str]:
    """The recorded runs that ``run`` is compared with, one of each seed, and a note if their settings are others.

    They have a score of a protocol of ``run``, asked the same if any was: what was recorded for its latency alone,
    after little training, says nothing of accuracy. Without any of the same settings, those of the newest run stand in.
    """
    there = [known for known in recorded if known.place == run.place and known.scores.keys() & run.scores.keys()]
    there = [known for known in there if _asked_the_same(run, known)] or there
    same, note = [known for known in there if known.settings == run.settings], ""
    if there and not same:
        newest = max(there, key=lambda known: known.finished)
        same, note = [known for known in there if known.settings == newest.settings], OTHER_SETTINGS
    return list({known.seed: known for known in sorted(same, key=lambda known: known.finished)}.values()), note


def _asked_the_same(run: Measured, known: Measured) -> bool:
    """Whether a score of the one can be compared with one of the other."""
    return any(
        (score.metric, score.work) == (now.metric, now.work)
        for protocol, score in known.scores.items()
        if (now := run.scores.get(protocol))
    )


def _score(
    run: Measured, protocol: str, recorded: Sequence[Measured], known: Mapping[Table, Usual], note: str
) -> Finding:
    now = run.scores[protocol]
    there = [each.scores[protocol] for each in recorded if protocol in each.scores]
    asked = [score for score in there if (score.work, score.metric) == (now.work, now.metric)]
    what = f"{protocol} {words(now.metric)}"
    if not asked:
        why = "other data, requests or gallery than recorded" if there else "not recorded"
        return _not_compared(run, what, why)
    lower = is_lower(now.metric)
    there_usual = known.get(_table(run, protocol, now), Usual()) if _competes(run) else Usual()
    band = expected(asked, there_usual, lower_is_better=lower)
    sign = 1 if lower else -1
    end = f"{'at most' if lower else 'at least'} {number(now.metric, band.mean + sign * band.margin)} ({band.how})"
    shown = number(now.metric, band.mean), end, number(now.metric, now.value)
    return Finding(run.name, run.data, what, *shown, "ok", note, band.p(sign * (now.value - band.mean)))


def _lost(run: Measured, protocol: str, note: str) -> Finding:
    """A recorded protocol without a result now: a failure, unless the settings are others, which may ask otherwise."""
    if note:
        return _not_compared(run, protocol, note)
    return Finding(run.name, run.data, protocol, "recorded", "a result", "none", "worse", "see the notes of its record")


def _margin(values: Sequence[float]) -> float:
    """Half the width of the 95 % prediction interval of one more value."""
    n = len(values)
    return quantile(n - 1) * statistics.stdev(values) * math.sqrt(1 + 1 / n)


def _cost(run: Measured, cost: str, recorded: Sequence[Measured], note: str) -> Finding:
    what = _COSTS[cost]
    if note:  # more training, or a larger gallery, takes more of everything
        return _not_compared(run, what, note)
    values = [known.costs[cost] for known in recorded if cost in known.costs and known.machine == run.machine]
    if not values:
        return _not_compared(run, what, "not recorded on this hardware")
    mean, (factor, amount) = statistics.fmean(values), ALLOWED[cost]
    if len(values) == 1:
        limit, how = max(ALLOWED_ALONE * mean, mean + amount), "1 seed, fixed allowance"
    else:
        limit, how = max(factor * mean, mean + amount, mean + _margin(values)), f"{len(values)} seeds"
    now = run.costs[cost]
    shown = [f"{value:.4g} {_UNITS[cost]}" for value in (mean, limit, now)]
    band = f"at most {shown[1]} ({how})"
    return Finding(run.name, run.data, what, shown[0], band, shown[2], "worse" if now > limit else "ok", note)


def _not_compared(run: Measured, what: str, why: str) -> Finding:
    return Finding(run.name, run.data, what, "", "", "", "not compared", why)


def failed(findings: Sequence[Finding], failures: Sequence[str] = ()) -> bool:
    """Whether something became worse, a run failed, or a method has no score that could be compared."""
    worse = any(finding.verdict == "worse" for finding in findings)
    return bool(failures) or worse or bool(unproved(findings)) or not findings


def unproved(findings: Iterable[Finding]) -> list[str]:
    """The methods of which nothing but time or memory was compared: such a test would pass whatever they find."""
    return [name for name, kinds in _compared(findings).items() if "score" not in kinds]


def uncosted(findings: Iterable[Finding]) -> list[str]:
    """The methods of which neither time nor memory was compared: such a test would pass whatever they take."""
    return [name for name, kinds in _compared(findings).items() if "cost" not in kinds]


def _compared(findings: Iterable[Finding]) -> dict[str, set[str]]:
    """Of every method and data set, whether a ``score`` and a ``cost`` was compared."""
    compared: dict[str, set[str]] = {}
    for finding in findings:
        kinds = compared.setdefault(f"{finding.name} on {finding.data}", set())
        if finding.verdict != "not compared":
            kinds.add("cost" if finding.what in _COSTS.values() else "score")
    return compared


def summary(findings: Sequence[Finding], failures: Sequence[str] = ()) -> str:
    """The findings as Markdown for a pull request, what became worse first."""
    from fm_bench.leaderboard.table import escape, line

    order: dict[Verdict, int] = {"worse": 0, "ok": 1, "not compared": 2}
    lines = [f"## fm-bench regress: {_head(findings, failures)}", "", *(f"- {escape(failure)}" for failure in failures)]
    lines += [f"- {escape(name)}: no score could be compared, so this test has failed" for name in unproved(findings)]
    lines += _on_costs(findings)
    lines += ["", line(["method", "data", "what", "recorded", "expected", "now", "verdict"]), line([":---"] * 7)]
    for finding in sorted(findings, key=lambda finding: order[finding.verdict]):
        verdict = f"**{finding.verdict}**" if finding.verdict == "worse" else finding.verdict
        said = f"{verdict} ({finding.why})" if finding.why else verdict
        lines.append(line([*(escape(part) for part in finding[:6]), said]))
    lines += ["", _EXPECTED.format(scores=sum(finding.p is not None for finding in findings), level=LEVEL)]
    return "\n".join(lines) + "\n"


_EXPECTED = (
    "Expected is the 95 % prediction interval of one more run, from the recorded seeds and from how much seeds of "
    "the other methods in the table vary. Where no method has several seeds, it is the bootstrap interval over "
    "requests, in which training noise is missing. {scores} scores were compared, and of many, some lie beyond it by "
    "chance: a score is worse if its p-value, after Holm's correction for all {scores}, is below {level}, so that this "
    "is about the chance of any false alarm among them. Times and memory are compared only with runs of the same "
    "settings on the same hardware."
)


def _head(findings: Sequence[Finding], failures: Sequence[str]) -> str:
    """What was found, in a few words."""
    compared = [finding for finding in findings if finding.verdict != "not compared"]
    worse = [finding for finding in compared if finding.verdict == "worse"]
    if worse or failures:
        head = f"{len(worse)} of {len(compared)} comparisons are worse, {len(failures)} runs failed"
    else:
        head = f"nothing became worse in {len(compared)} comparisons" if compared else "nothing could be compared"
    no_cost = bool(compared) and set(uncosted(findings)) == _compared(findings).keys()
    return head + (", no cost was compared" if no_cost else "")


def _on_costs(findings: Sequence[Finding]) -> list[str]:
    """A line for the methods of which no time or memory was compared, if there are any."""
    from fm_bench.leaderboard.table import escape

    names = uncosted(findings)
    if not names:
        return []
    whose = "" if set(names) == _compared(findings).keys() else f" of {escape(', '.join(names))}"
    why = "no record with these settings on this hardware"
    return [f"- **No cost was compared{whose}: {why}.** More time or memory would not have been noticed."]


def recorded_in(place: Path) -> list[Measured]:
    """The recorded runs in a folder of records, or in a file that ``keep`` wrote; folds are left out.

    Raises:
        UserError: if there is nothing, or the file is damaged.
    """
    if Path(place).is_dir():
        return [Measured.of(record) for path in find(place) if fold_of(record := load(path)) is None]
    try:
        content = json.loads(Path(place).read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA:
            raise ValueError(f"schema {content['schema']}")
        return [_from_json(each) for each in content["runs"]]
    except FileNotFoundError:
        raise UserError(f"{place} does not exist: write it with `fm-bench regress --update`.") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{place} holds no recorded runs ({error}): write it with `fm-bench regress --update`."
        ) from error


def keep(fresh: Sequence[Measured], path: Path) -> None:
    """Writes ``fresh`` to ``path`` in the place of what is recorded there of the same method, data and seed."""
    known = recorded_in(path) if Path(path).exists() else []
    runs = {(*run.place, run.seed): run for run in (*known, *fresh)}
    write_json(path, {"schema": SCHEMA, "runs": [_to_json(runs[key]) for key in sorted(runs)]})


def _to_json(run: Measured) -> dict[str, Any]:
    scores = {protocol: score._asdict() for protocol, score in run.scores.items()}
    return dataclasses.asdict(run) | {"scores": scores}


def _from_json(value: dict[str, Any]) -> Measured:
    scores = {protocol: Score(**score) for protocol, score in value["scores"].items()}
    return Measured(**value | {"scores": scores})
