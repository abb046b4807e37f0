# SPDX-License-Identifier: MIT
"""Whether a run does worse than the recorded runs of the same method, by more than these differ among themselves.

The band of what is to be expected of one more run follows from the recorded seeds: with several, the 95 % prediction
interval of a further value (Student's t); with one, the record's own bootstrap interval over requests, in which
training noise is missing. Times and memory are compared only on the same hardware, and have a fixed allowance as well,
since a machine has other things to do.
"""

import dataclasses
import json
import math
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from scipy.stats import t as student

from fm_bench.errors import UserError
from fm_bench.files import digest, write_json
from fm_bench.leaderboard.folds import fold_of
from fm_bench.leaderboard.record import Record, find, load
from fm_bench.leaderboard.rows import key_of, settings
from fm_bench.leaderboard.shown import headline, is_lower, number, unit, words

SCHEMA = 1
ALLOWED = {"training": (1.25, 3.0), "query": (1.25, 1.0), "memory": (1.15, 100.0)}
"""What a cost may exceed its recorded mean by, whatever its band: a factor, and an amount in its unit."""
ALLOWED_ALONE = 1.5
"""The factor where one seed is recorded, which tells nothing of how a time varies."""
_COSTS = {"training": "training time", "query": "time per query", "memory": "peak memory"}
_UNITS = {"training": "s", "query": "ms", "memory": "MiB"}
Verdict = Literal["ok", "worse", "not compared"]


class Score(NamedTuple):
    """The headline of one protocol; ``work`` is a digest of what was asked, of what, and how it is counted."""

    metric: str
    value: float
    low: float
    high: float
    requests: int
    work: str


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
    """One comparison: a row of the summary."""

    name: str
    data: str
    what: str
    recorded: str
    band: str
    now: str
    verdict: Verdict
    why: str = ""


def judge(fresh: Sequence[Measured], recorded: Sequence[Measured]) -> list[Finding]:
    """Every headline, time and memory of ``fresh`` beside the recorded runs of the same method, data and profile."""
    return [finding for run in fresh for finding in _judge(run, recorded)]


def _judge(run: Measured, recorded: Sequence[Measured]) -> list[Finding]:
    same = [known for known in recorded if known.place == run.place]
    if not same:
        return [_not_compared(run, "everything", "nothing is recorded")]
    note = ""
    if alike := [known for known in same if known.settings == run.settings]:
        same = alike
    else:
        newest = max(same, key=lambda known: known.finished)
        same, note = [known for known in same if known.settings == newest.settings], "recorded with other settings"
    same = list({known.seed: known for known in sorted(same, key=lambda known: known.finished)}.values())
    findings = [_score(run, protocol, same, note) for protocol in run.scores]
    lost = sorted({protocol for known in same for protocol in known.scores} - run.scores.keys())
    findings += [_lost(run, protocol, note) for protocol in lost]
    here = [known for known in same if known.machine == run.machine]
    return findings + [_cost(run, cost, here, note) for cost in run.costs]


def _score(run: Measured, protocol: str, recorded: Sequence[Measured], note: str) -> Finding:
    now = run.scores[protocol]
    known = [each.scores[protocol] for each in recorded if protocol in each.scores]
    asked = [score for score in known if (score.work, score.metric) == (now.work, now.metric)]
    what = f"{protocol} {words(now.metric)}"
    if not asked:
        why = "other data, requests or gallery than recorded" if known else "not recorded"
        return _not_compared(run, what, why)
    low, high, how = expected(asked)
    worse = now.value > high if is_lower(now.metric) else now.value < low
    mean, one_end = statistics.fmean(score.value for score in asked), high if is_lower(now.metric) else low
    band = f"{'at most' if is_lower(now.metric) else 'at least'} {number(now.metric, one_end)} ({how})"
    shown = number(now.metric, mean), band, number(now.metric, now.value)
    return Finding(run.name, run.data, what, *shown, "worse" if worse else "ok", note)


def _lost(run: Measured, protocol: str, note: str) -> Finding:
    """A recorded protocol without a result now: a failure, unless the settings are others, which may ask otherwise."""
    if note:
        return _not_compared(run, protocol, note)
    return Finding(run.name, run.data, protocol, "recorded", "a result", "none", "worse", "see the notes of its record")


def expected(scores: Sequence[Score]) -> tuple[float, float, str]:
    """Between which ends one more run's score is expected, and in words how we know.

    The band is never narrower than one request to either side: that much may change with the order of a sum.
    """
    values = [score.value for score in scores]
    mean, least = statistics.fmean(values), 1 / min(score.requests for score in scores)
    if len(values) == 1:
        low, high, how = scores[0].low, scores[0].high, "1 seed, bootstrap over requests"
    else:
        half = _margin(values)
        low, high, how = mean - half, mean + half, f"{len(values)} seeds"
    return min(low, mean - least), max(high, mean + least), how


def _margin(values: Sequence[float]) -> float:
    """Half the width of the 95 % prediction interval of one more value."""
    n = len(values)
    return float(student.ppf(0.975, n - 1)) * statistics.stdev(values) * math.sqrt(1 + 1 / n)


def _cost(run: Measured, cost: str, recorded: Sequence[Measured], note: str) -> Finding:
    what = _COSTS[cost]
    values = [known.costs[cost] for known in recorded if cost in known.costs]
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
    compared: dict[str, bool] = {}
    for finding in findings:
        name = f"{finding.name} on {finding.data}"
        scored = finding.verdict != "not compared" and finding.what not in _COSTS.values()
        compared[name] = compared.get(name, False) or scored
    return [name for name, scored in compared.items() if not scored]


def summary(findings: Sequence[Finding], failures: Sequence[str] = ()) -> str:
    """The findings as Markdown for a pull request, what became worse first."""
    from fm_bench.leaderboard.table import escape, line

    order: dict[Verdict, int] = {"worse": 0, "ok": 1, "not compared": 2}
    compared = [finding for finding in findings if finding.verdict != "not compared"]
    worse = [finding for finding in compared if finding.verdict == "worse"]
    if worse or failures:
        head = f"{len(worse)} of {len(compared)} comparisons are worse, {len(failures)} runs failed"
    else:
        head = f"nothing became worse in {len(compared)} comparisons" if compared else "nothing could be compared"
    lines = [f"## fm-bench regress: {head}", "", *(f"- {escape(failure)}" for failure in failures)]
    lines += [f"- {escape(name)}: no score could be compared, so this test has failed" for name in unproved(findings)]
    lines += ["", line(["method", "data", "what", "recorded", "expected", "now", "verdict"]), line([":---"] * 7)]
    for finding in sorted(findings, key=lambda finding: order[finding.verdict]):
        verdict = f"**{finding.verdict}**" if finding.verdict == "worse" else finding.verdict
        said = f"{verdict} ({finding.why})" if finding.why else verdict
        lines.append(line([*(escape(part) for part in finding[:6]), said]))
    lines += [
        "",
        "Expected is the 95 % prediction interval of one more run, from the recorded seeds. Of one recorded seed it is "
        "the bootstrap interval over requests, in which training noise is missing. Times and memory are compared only "
        "on the same hardware.",
    ]
    return "\n".join(lines) + "\n"


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
    except (OSError, ValueError, KeyError, TypeError) as error:
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
