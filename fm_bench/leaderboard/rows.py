# SPDX-License-Identifier: MIT
"""From records to tables: which runs may stand in one table, and which are one row of it.

Runs share a table only if they were asked the same: same data, profile, mode and protocol, with equal digests of the
catalogue, the protocol's definition and the requests, and as many gallery images. Runs share a row only if nothing but
the seed differs.
"""

import dataclasses
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from fm_bench.evaluation.sweep import swept
from fm_bench.files import digest
from fm_bench.leaderboard.record import Record
from fm_bench.leaderboard.shown import headline

FLOOR = frozenset({"random", "identity"})
CEILING = frozenset({"oracle"})
NOT_THE_METHOD = frozenset({"seed", "reader.root", "loader.num_workers"})  # settings that do not make another row

Role = Literal["method", "floor", "ceiling"]


class Tag(NamedTuple):
    """A word beside the rows of some methods in the tables of some protocols.

    Attributes:
        text: the word.
        methods, protocols: where it stands.
        unless: setting of these methods that does away with it.
    """

    text: str
    methods: frozenset[str]
    protocols: frozenset[str]
    unless: str = ""


_WISHES = frozenset({"manipulate-1", "manipulate-2", "region", "gallery-sweep-1"})
TAGS = (
    Tag(
        "no manipulation",  # the query is searched as it is, whatever is asked
        frozenset({"darn", "dsift-fisher", "pretrained"}),
        _WISHES,
        unless="substitute",
    ),
    Tag("extension", frozenset({"fashionsearchnet"}), frozenset({"manipulate-2"})),  # its paper changes one attribute
)


class Cell(NamedTuple):
    """A metric of one row: mean over seeds, with the mean 95 % interval over requests and the range of the seeds."""

    value: float
    low: float | None = None
    high: float | None = None
    least: float | None = None
    most: float | None = None


class Key(NamedTuple):
    """What all runs of one table have in common."""

    data: str
    profile: str
    mode: str
    protocol: str
    data_digest: str
    protocol_digest: str
    request_digest: str
    gallery: int


@dataclasses.dataclass(frozen=True)
class Row:
    """Runs of one method that differ in nothing but their seeds, best evidence first to read: their means."""

    records: tuple[Record, ...]
    protocol: str
    notes: tuple[str, ...]

    @property
    def first(self) -> Record:
        """The run with the lowest seed, for what does not depend on the seed."""
        return self.records[0]

    @property
    def label(self) -> str:
        """How tables call the row."""
        return self.first.label

    @property
    def role(self) -> Role:
        """Whether the row competes, or marks the floor or the ceiling."""
        return "floor" if self.first.method in FLOOR else "ceiling" if self.first.method in CEILING else "method"

    @property
    def tags(self) -> tuple[str, ...]:
        """What must be known to read the row in its table."""
        run, hyper = self.first, self.first.config.get("hyper", {})
        return tuple(
            tag.text
            for tag in TAGS
            if run.method in tag.methods
            and self.protocol in tag.protocols
            and not (tag.unless and hyper.get(tag.unless))
        )

    @property
    def headline(self) -> str:
        """The metric that ranks it."""
        return headline(self.protocol, self.first.metrics[self.protocol])

    def cell(self, metric: str) -> Cell | None:
        """The mean of ``metric`` over the seeds, or None unless every run has it."""
        return pool([record.metrics[self.protocol].get(metric) for record in self.records])

    def attribute_cell(self, attribute: str) -> Cell | None:
        """The headline's mean over the requests that change ``attribute``."""
        parts = [record.by_attribute.get(self.protocol, {}).get(attribute, {}) for record in self.records]
        return pool([part.get(self.headline) for part in parts])

    def mean(self, what: str) -> float | None:
        """The mean over seeds of ``query_ms``, ``peak_memory_mb`` or a phase of ``seconds``, if all have it."""
        values = [getattr(record, what, record.seconds.get(what)) for record in self.records]
        return None if None in values else statistics.fmean(value for value in values if value is not None)

    def curve(self) -> tuple[list[float], list[float]] | None:
        """Top-k accuracy for growing k, mean over seeds: (k, accuracy); None unless all runs have the same k."""
        curves = [record.curves.get(self.protocol) for record in self.records]
        first = curves[0]
        if first is None or not first["k"] or any(curve is None or curve["k"] != first["k"] for curve in curves):
            return None
        return first["k"], [statistics.fmean(at) for at in zip(*(c["accuracy"] for c in curves if c), strict=True)]

    def sweep(self) -> tuple[list[float], list[float]] | None:
        """Accuracy for growing galleries, mean over seeds: (images, accuracy); None where none was swept."""
        sizes = swept(self.first.metrics[self.protocol])
        cells = [self.cell(name) for _, name in sizes]
        if not cells or None in cells:
            return None
        return [float(size) for size, _ in sizes], [cell.value for cell in cells if cell]


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows that may be compared, best first.

    Attributes:
        key: what they have in common.
        rows: the rows.
        metrics: every metric that some row has.
        chance: metric -> value a random ranking reaches, e.g. ``chance["accuracy@20"]``.
        requests: number of requests.
    """

    key: Key
    rows: tuple[Row, ...]
    metrics: tuple[str, ...]
    chance: Mapping[str, float]
    requests: int

    @property
    def headline(self) -> str:
        """The metric that ranks the rows."""
        return headline(self.key.protocol, self.metrics)

    @property
    def attributes(self) -> list[str]:
        """Every attribute that some row has results for, in the order of the first record that names it."""
        parts = (record.by_attribute.get(self.key.protocol, {}) for row in self.rows for record in row.records)
        return list(dict.fromkeys(name for part in parts for name in part))


def pool(estimates: Sequence[Mapping[str, float] | None]) -> Cell | None:
    """Estimates of several seeds as one cell; None if one is missing.

    The interval is the mean of the seeds' intervals: it speaks of the choice of requests, which all seeds share, and
    so does not shrink with more seeds. What the seeds do is shown by their range.
    """
    known = [estimate for estimate in estimates if estimate is not None]
    if not known or len(known) < len(estimates):
        return None
    values = [estimate["value"] for estimate in known]
    mean = statistics.fmean(values)
    spread = (min(values), max(values)) if len(values) > 1 else (None, None)
    if all("low" in estimate for estimate in known):
        low, high = (statistics.fmean(estimate[end] for estimate in known) for end in ("low", "high"))
        return Cell(mean, low, high, *spread)
    return Cell(mean, None, None, *spread)


def tables(records: Iterable[Record]) -> list[Table]:
    """Every table that ``records`` fill, in a fixed order that does not depend on theirs."""
    groups: dict[Key, list[Record]] = {}
    for record in sorted(records, key=lambda record: (record.name, record.seed, record.finished, record.fingerprint)):
        for protocol in record.protocols:
            groups.setdefault(key_of(record, protocol), []).append(record)
    return [_table(key, groups[key]) for key in sorted(groups)]


def key_of(record: Record, protocol: str) -> Key:
    """The table that ``record``'s results of ``protocol`` belong to."""
    return Key(
        record.data,
        record.profile,
        record.mode,
        protocol,
        record.data_digest,
        record.protocols[protocol],
        record.request_digests[protocol],
        record.gallery,
    )


def hardware(record: Record) -> str:
    """The machine in words: ``Example CPU, 2 cores, 15 GiB memory``."""
    units = {"cores": "cores", "memory_gib": "GiB memory"}
    parts = []
    for key, value in record.hardware.items():
        values = value if isinstance(value, list) else [value]
        parts += [f"{item} {units[key]}" if key in units else str(item) for item in values if item not in (None, "")]
    return ", ".join(parts)


def _table(key: Key, records: list[Record]) -> Table:
    same: dict[tuple[str, ...], list[Record]] = {}
    for record in records:
        same.setdefault(_identity(record), []).append(record)
    firsts: dict[str, Record] = {}
    rows = []
    for runs in same.values():
        reference = firsts.setdefault(runs[0].name, runs[0])
        rows.append(_row(key.protocol, runs, reference))
    names = tuple(dict.fromkeys(name for record in records for name in record.metrics[key.protocol]))
    best = headline(key.protocol, names)
    rows.sort(key=lambda row: (-(cell.value if (cell := row.cell(best)) else -1.0), row.label))
    chance = {
        "accuracy@" + metric.removeprefix("chance@"): estimate["value"]
        for record in reversed(records)
        for metric, estimate in record.metrics[key.protocol].items()
        if metric.startswith("chance@")
    }
    return Table(key, tuple(rows), names, chance, records[0].requests[key.protocol])


def _row(protocol: str, runs: list[Record], reference: Record) -> Row:
    """``runs`` as a row; the newest of each seed counts, and what sets the row apart from ``reference`` is a note."""
    newest = {run.seed: run for run in sorted(runs, key=lambda run: (run.finished, run.fingerprint))}
    kept = tuple(newest[seed] for seed in sorted(newest))
    notes = list(dict.fromkeys(note for run in kept for note in run.notes))
    if len(kept) < len(runs):
        notes.append(f"{len(runs)} runs of {len(kept)} seeds were found; the newest run of each seed is shown.")
    if reference not in runs:
        notes.append(_difference(runs[0], reference))
    tied = statistics.fmean(run.tied.get(protocol, 0.0) for run in kept)
    if tied >= 0.01:
        notes.append(
            f"{tied:.0%} of the requests have ties across the last rank that is kept; a seeded order breaks them."
        )
    return Row(kept, protocol, tuple(notes))


def _identity(record: Record) -> tuple[str, ...]:
    config = {key: value for key, value in _flat(record.config).items() if key not in NOT_THE_METHOD}
    return record.name, record.label, str(record.dim), record.code["digest"], digest(config)


def _difference(run: Record, reference: Record) -> str:
    """What differs between two rows of the same method, in words."""
    ours, theirs = _flat(run.config), _flat(reference.config)
    keys = [key for key in {**theirs, **ours} if ours.get(key) != theirs.get(key) and key not in NOT_THE_METHOD]
    parts = [f"{key} {_shown(ours, key)} instead of {_shown(theirs, key)}" for key in keys[:6]]
    if len(keys) > 6:
        parts.append(f"{len(keys) - 6} more settings")
    if run.code["digest"] != reference.code["digest"]:
        parts.append(f"code {run.code['digest'][:8]} instead of {reference.code['digest'][:8]}")
    return "Not the same as the other row of this name: " + ("; ".join(parts) or "another label or size") + "."


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _shown(flat: Mapping[str, Any], key: str) -> str:
    return str(flat[key])[:60] if key in flat else "unset"
