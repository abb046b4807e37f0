# SPDX-License-Identifier: MIT
"""From records to tables: which runs may stand in one table, and which are one row of it.

Runs share a table only if they were asked the same: same data, profile, mode and protocol, with equal digests of the
catalogue, the protocol's definition and the requests, as many gallery images, and the same index to search them: what
an approximate index misses is no fault of a method, and must not stand beside exact results. Runs share a row only if
nothing but the seed differs.

The folds of a cross-validation are one row together, of a table of their own: "fashion-product, 5 folds". Rows share
that table only if every fold of the one was asked the same as that fold of the other.
"""

import dataclasses
import functools
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from fm_bench import recipe
from fm_bench.evaluation.sweep import swept
from fm_bench.files import digest
from fm_bench.leaderboard.folds import extent, fold_of, t_interval
from fm_bench.leaderboard.record import Record
from fm_bench.leaderboard.shown import headline, order, rank
from fm_bench.leaderboard.tags import search_of, tags_of
from fm_bench.recipe import EXACT

RETRIEVAL = "retrieval"
FLOOR = frozenset({"random", "identity", "detector/whole"})
IGNORES_REQUESTS = frozenset({"identity"})  # no floor where nothing is to be changed
CEILING = frozenset({"oracle"})
NOT_THE_METHOD = frozenset({"seed", "reader.root", "loader.num_workers"})  # settings that do not make another row
_NOT_OF_ALL_FOLDS = frozenset({"fold", "training_images"})  # an epoch of one fold may be an image longer than another's
_NO_SHARES = ("t_", "difference", "ssim", "increment_ratio")  # metrics that may lie outside of [0, 1]
_FOLDED = (
    "means over the folds of a cross-validation; intervals are 95 % t-intervals over the folds, which share most of "
    "their training images"
)

Role = Literal["method", "floor", "ceiling"]


class Cell(NamedTuple):
    """A metric of one row: mean over seeds, with the mean 95 % interval over requests and the range of the seeds.

    Of a cross-validation: mean over folds, with the 95 % t-interval over folds and the range of the folds.
    """

    value: float
    low: float | None = None
    high: float | None = None
    least: float | None = None
    most: float | None = None


class Key(NamedTuple):
    """What all runs of one table have in common.

    Of cross-validations, ``data`` names the folds as well, ``data_digest`` is that of the data whatever their split,
    ``request_digest`` tells what each fold was asked, and ``gallery`` is the mean of the folds.
    """

    data: str
    profile: str
    mode: str
    protocol: str
    data_digest: str
    protocol_digest: str
    request_digest: str
    gallery: int
    search: str = EXACT

    @property
    def heading(self) -> str:
        """The protocol, and the index where it is approximate."""
        return self.protocol if self.search == EXACT else f"{self.protocol}, approximate search {self.search}"


@dataclasses.dataclass(frozen=True)
class Row:
    """Runs of one method that differ in nothing but their seeds and folds, best evidence first to read: their means."""

    records: tuple[Record, ...]
    protocol: str
    notes: tuple[str, ...]

    @property
    def first(self) -> Record:
        """The run with the lowest seed and fold, for what does not depend on them."""
        return self.records[0]

    @property
    def seeds(self) -> int:
        """How many seeds it was run with."""
        return len({record.seed for record in self.records})

    @property
    def folds(self) -> tuple[int, ...]:
        """The folds of a cross-validation, ascending; empty for runs on the data's own split."""
        return tuple(sorted({fold for record in self.records if (fold := fold_of(record)) is not None}))

    @property
    def label(self) -> str:
        """How tables call the row."""
        return self.first.label

    @property
    def role(self) -> Role:
        """Whether the row competes, or marks the floor or the ceiling."""
        names = {self.first.method, self.first.name}
        if names & CEILING:
            return "ceiling"
        floors = FLOOR if _definition(self.protocol).get("changes", 1) else FLOOR - IGNORES_REQUESTS
        return "floor" if names & floors else "method"

    @property
    def tags(self) -> tuple[str, ...]:
        """What must be known to read the row in its table."""
        return tags_of(self.first, self.protocol)

    @property
    def headline(self) -> str:
        """The metric that ranks it."""
        return headline(self.protocol, self.first.metrics[self.protocol])

    def cell(self, metric: str) -> Cell | None:
        """The mean of ``metric`` over seeds and folds, or None unless every run has it."""
        return self._pooled(metric, [record.metrics[self.protocol].get(metric) for record in self.records])

    def by_fold(self, metric: str) -> list[Cell | None]:
        """The mean of ``metric`` over the seeds in every fold, in the order of ``folds``."""
        return self._by_fold([record.metrics[self.protocol].get(metric) for record in self.records])

    def attribute_cell(self, attribute: str) -> Cell | None:
        """The headline's mean over the requests that change ``attribute``."""
        parts = [record.by_attribute.get(self.protocol, {}).get(attribute, {}) for record in self.records]
        return self._pooled(self.headline, [part.get(self.headline) for part in parts])

    def _pooled(self, metric: str, estimates: Sequence[Mapping[str, float] | None]) -> Cell | None:
        if not self.folds:
            return pool(estimates)
        return pool_folds(self._by_fold(estimates), share=not metric.startswith(_NO_SHARES))

    def _by_fold(self, estimates: Sequence[Mapping[str, float] | None]) -> list[Cell | None]:
        of = [(fold_of(record), estimate) for record, estimate in zip(self.records, estimates, strict=True)]
        return [pool([estimate for fold, estimate in of if fold == wanted]) for wanted in self.folds]

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
        requests: number of requests, of all folds together.
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

    @property
    def searches(self) -> str:
        """A sentence where the settings of competing rows were not searched alike; empty where all or none were."""
        spent: dict[str, list[str]] = {}
        for row in self.rows:
            if row.role == "method":
                spent.setdefault(search_of(row.first), []).append(row.label)
        if len(spent) < 2:
            return ""
        untuned = spent.pop("", [])
        parts = [f"{', '.join(labels)} by {how}" for how, labels in sorted(spent.items())]
        parts += ["the others have those of their recipes"] if untuned else []
        return f"Settings were not searched alike: {'; '.join(parts)}."


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


def pool_folds(folds: Sequence[Cell | None], *, share: bool = True) -> Cell | None:
    """Means of several folds as one cell, with the 95 % t-interval over folds; None if one is missing.

    The interval of a ``share`` ends at 0 and 1.
    """
    values = [cell.value for cell in folds if cell is not None]
    if not values or len(values) < len(folds):
        return None
    low, high = t_interval(values) or (None, None)
    if share and low is not None and high is not None:
        low, high = max(low, 0.0), min(high, 1.0)
    return Cell(statistics.fmean(values), low, high, min(values), max(values))


def speaker(rows: Sequence[Row]) -> Row:
    """The one that speaks for several rows of a method: that of most runs, then the newest."""
    return max(rows, key=lambda row: (len(row.records), max(record.finished for record in row.records)))


def tables(records: Iterable[Record]) -> list[Table]:
    """Every table that ``records`` fill, in a fixed order that does not depend on theirs."""
    groups: dict[Key, list[Record]] = {}
    ordered = sorted(records, key=lambda record: (record.name, record.seed, record.finished, record.fingerprint))
    for record in ordered:
        for protocol in record.protocols if fold_of(record) is None else ():
            groups.setdefault(key_of(record, protocol), []).append(record)
    for key, runs in _cross_validations([record for record in ordered if fold_of(record) is not None]):
        groups.setdefault(key, []).extend(runs)
    ordered_keys = sorted(groups, key=lambda key: (*key[:3], order(key.protocol), key.search != EXACT, key))
    return [_table(key, groups[key]) for key in ordered_keys]


def _cross_validations(records: Sequence[Record]) -> Iterator[tuple[Key, list[Record]]]:
    """For every protocol, the folds of one method and seed, with the table that they belong to together."""
    sets: dict[tuple[tuple[str, str, str, str, str, str], tuple[str, ...], int], list[Record]] = {}
    for record in records:
        for protocol, definition in record.protocols.items():
            search = key_of(record, protocol).search
            place = (record.data, record.profile, record.mode, protocol, definition, search)
            sets.setdefault((place, _identity(record), record.seed), []).append(record)
    for ((data, profile, mode, protocol, definition, search), *_), runs in sets.items():
        newest = {fold_of(run): key_of(run, protocol) for run in runs}  # the last to finish comes last
        folds = sorted((fold, key) for fold, key in newest.items() if fold is not None)
        yield (
            Key(
                f"{data}, {extent(len(folds))}",
                profile,
                mode,
                protocol,
                str(runs[0].config.get("folded", "")),
                definition,
                digest([[fold, *key[:-1]] for fold, key in folds]),
                round(statistics.fmean(key.gallery for _, key in folds)),
                search,
            ),
            runs,
        )


def key_of(record: Record, protocol: str) -> Key:
    """The table that ``record``'s results of ``protocol`` belong to, each fold of a cross-validation by itself."""
    return Key(
        record.data,
        record.profile,
        record.mode,
        protocol,
        record.data_digest,
        record.protocols[protocol],
        record.request_digests[protocol],
        record.gallery,
        record.index if _definition(protocol).get("kind", RETRIEVAL) == RETRIEVAL else EXACT,
    )


@functools.cache
def _definition(protocol: str) -> Mapping[str, Any]:
    """What ``protocol`` is; of one that is not known here, nothing: it is taken to rank images and ask for changes."""
    return recipe.load("protocols", protocol) if protocol in recipe.names("protocols") else {}


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
    rows.sort(key=lambda row: (rank(best, cell.value if (cell := row.cell(best)) else None), row.label))
    asked = {fold_of(record): record.requests[key.protocol] for record in reversed(records)}
    return Table(key, tuple(rows), names, _chance(key.protocol, records), sum(asked.values()))


def _chance(protocol: str, records: Sequence[Record]) -> dict[str, float]:
    """What a random ranking reaches, the mean over folds."""
    by_fold: dict[str, dict[int | None, float]] = {}
    for record in reversed(records):
        for metric, estimate in record.metrics[protocol].items():
            if metric.startswith("chance@"):
                name = "accuracy@" + metric.removeprefix("chance@")
                by_fold.setdefault(name, {})[fold_of(record)] = estimate["value"]
    return {name: statistics.fmean(values.values()) for name, values in by_fold.items()}


def _row(protocol: str, runs: list[Record], reference: Record) -> Row:
    """``runs`` as a row; the newest of each seed counts, and what sets the row apart from ``reference`` is a note."""
    ordered = sorted(runs, key=lambda run: (run.finished, run.fingerprint))
    newest = {(run.seed, -1 if (fold := fold_of(run)) is None else fold): run for run in ordered}
    kept = tuple(newest[which] for which in sorted(newest))
    folded = fold_of(kept[0]) is not None
    notes = list(dict.fromkeys([*([_FOLDED] if folded else []), *(note for run in kept for note in run.notes)]))
    if len(kept) < len(runs):
        each = "fold" if folded else "seed"
        notes.append(f"{len(runs)} runs of {len(kept)} {each}s were found; the newest run of each {each} is shown.")
    if reference not in runs:
        notes.append(_difference(runs[0], reference))
    tied = statistics.fmean(run.tied.get(protocol, 0.0) for run in kept)
    if tied >= 0.01:
        share = f"{protocol}: {tied:.0%} of the requests"
        notes.append(f"{share} have ties across the last rank that is kept; a seeded order breaks them.")
    return Row(kept, protocol, tuple(notes))


def _identity(record: Record) -> tuple[str, ...]:
    return record.name, record.label, str(record.dim), record.code["digest"], digest(settings(record))


def settings(record: Record) -> dict[str, Any]:
    """The settings that make a row, by their full names."""
    left_out = NOT_THE_METHOD | (frozenset() if fold_of(record) is None else _NOT_OF_ALL_FOLDS)
    return {key: value for key, value in flat(record.config).items() if key not in left_out}


def _difference(run: Record, reference: Record) -> str:
    """What differs between two rows of the same method, in words."""
    ours, theirs = settings(run), settings(reference)
    keys = [key for key in {**theirs, **ours} if ours.get(key) != theirs.get(key)]
    parts = [f"{key} {_shown(ours, key)} instead of {_shown(theirs, key)}" for key in keys[:6]]
    if len(keys) > 6:
        parts.append(f"{len(keys) - 6} more settings")
    if run.code["digest"] != reference.code["digest"]:
        parts.append(f"code {run.code['digest'][:8]} instead of {reference.code['digest'][:8]}")
    return "Not the same as the other row of this name: " + ("; ".join(parts) or "another label or size") + "."


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings by their full names, e.g. ``hyper.margin``, from objects within objects."""
    named: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            named |= flat(value, f"{prefix}{key}.")
        else:
            named[f"{prefix}{key}"] = value
    return named


def _shown(flat: Mapping[str, Any], key: str) -> str:
    return str(flat[key])[:60] if key in flat else "unset"
