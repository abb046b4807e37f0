# SPDX-License-Identifier: MIT
"""The record of one run: what was measured, on what, with what, and how long it took.

A record is one JSON file per run and seed, and the only source of every table. It is checked when it is read and when
it is written, so that what reaches a table is complete, finite and of a schema that we know.
"""

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any, Literal, Self

from fm_bench.errors import UserError
from fm_bench.files import write_json
from fm_bench.leaderboard.schema import FIELDS, LATER, SCHEMA, wrong_with
from fm_bench.recipe import EXACT

FILE = "record.json"
REQUESTS = "requests.npz"

Estimates = dict[str, dict[str, float]]
"""Metric name -> ``{"value", "low", "high"}``, or ``{"value"}`` where there is no interval (chance levels)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """One run of one method with one seed.

    Attributes:
        fingerprint: digest of everything that can change a number (configuration, data, protocols, code, seed).
        method, variant: names as on the command line; ``variant`` is ``""`` for the method itself.
        label: how the row is called in tables.
        data, profile, mode: what it ran on; mode is ``"common"`` or ``"paper"``.
        config: the resolved configuration, as plain JSON.
        data_digest: digest of the catalogue and its pictures.
        protocols, request_digests: protocol name -> digest of its definition, and of the requests that were asked.
        metrics: protocol -> metric -> estimate, e.g. ``metrics["manipulate-1"]["accuracy@20"]["low"]``.
        by_attribute: protocol -> changed attribute -> metric -> estimate.
        curves: protocol -> ``{"k": [...], "accuracy": [...]}``, the top-k accuracy for growing k.
        requests: protocol -> number of requests; ``tied``: protocol -> share of them with a tie across the last rank.
        gallery: number of gallery images; ``dim``: embedding width; ``parameters``: trainable and frozen ones.
        search: how the gallery was searched: ``index`` is ``"exact"`` or names an approximate one, of which
            ``protocols`` tells, protocol -> ``{"recall@50": ..., "build_seconds": ..., "bytes_per_vector": ...,
            "latency_ms": ...}``; bytes are the index's own, beside the vectors in their mapped file.
            ``peak_memory_mb`` is the resident memory that it took at its worst moment, in MiB, with the pages that were
            read of the embeddings, which have ``embeddings_mb``, and without what measured the recall. Empty in older
            records.
        tuning: every trial of the search that the settings come from, as ``fm-bench tune`` wrote it; empty without one.
        seconds: phase -> wall-clock seconds (``train``, ``embed_gallery``, ``search``, ``total``, ...).
        query_ms: milliseconds from a query's picture to its ranked list, per query; None where not measured.
        peak_memory_mb: highest resident memory of the run, in MiB; None where not measured.
        hardware, versions, code, command: what it ran with; ``code`` has version, digest and git revision.
        notes: caveats, shown as footnotes of the row.
        finished: ISO 8601 time.
    """

    fingerprint: str
    method: str
    variant: str
    label: str
    data: str
    profile: str
    mode: Literal["common", "paper"]
    seed: int
    config: dict[str, Any]
    data_digest: str
    protocols: dict[str, str]
    request_digests: dict[str, str]
    metrics: dict[str, Estimates]
    by_attribute: dict[str, dict[str, Estimates]]
    curves: dict[str, dict[str, list[float]]]
    requests: dict[str, int]
    tied: dict[str, float]
    gallery: int
    dim: int
    parameters: int
    seconds: dict[str, float]
    query_ms: float | None
    peak_memory_mb: float | None
    hardware: dict[str, Any]
    versions: dict[str, str]
    code: dict[str, str]
    command: str
    notes: list[str]
    finished: str
    search: dict[str, Any] = dataclasses.field(default_factory=dict)
    tuning: dict[str, Any] = dataclasses.field(default_factory=dict)
    schema: int = SCHEMA

    @property
    def index(self) -> str:
        """What the gallery was searched with: ``"exact"``, or the name of an approximate index."""
        return str(self.search.get("index", EXACT))

    @property
    def name(self) -> str:
        """The method as it is asked for on the command line: ``amnet`` or ``amnet/no-memory``."""
        return f"{self.method}/{self.variant}" if self.variant else self.method

    def to_json(self) -> dict[str, Any]:
        """The record as plain JSON, the schema version first."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {"schema": fields.pop("schema"), **fields}

    @classmethod
    def from_json(cls, value: Any, where: str = "the record") -> Self:
        """A checked record.

        Args:
            value: what was parsed from JSON.
            where: what the error calls it, usually the file's path.

        Raises:
            UserError: naming ``where``, the key and what was found, if anything is missing, unknown, of the wrong
                type or not finite.
        """
        value = completed(value)
        check(value, where)
        return cls(**value)


def load(path: Path) -> Record:
    """Reads and checks one record.

    Raises:
        UserError: if the file cannot be read or is not a record of this schema.
    """
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} could not be read ({error.strerror}): check the path.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({error}): restore it or remove it and run again.") from error
    return Record.from_json(value, str(path))


def save(record: Record, path: Path) -> None:
    """Writes ``record`` to ``path``, whole or not at all.

    A record of the same fingerprint is replaced, since it is of the same run; any other file is left alone.

    Raises:
        UserError: if the record does not hold its schema, if ``path`` holds another record or no record at all, or if
            the file system refuses.
    """
    path = Path(path)
    value = record.to_json()
    check(value, f"the record for {path}")
    if path.exists():
        found = load(path).fingerprint
        if found != record.fingerprint:
            raise UserError(
                f"{path} holds the record of another run (fingerprint {found[:12]}, not {record.fingerprint[:12]}): "
                "choose another output folder or move that one away."
            )
    write_json(path, value)


def requests_file(path: Path) -> Path:
    """Where the per-request results of the record at ``path`` are kept: ``requests.npz``, or the filed one's name."""
    return path.with_name(REQUESTS) if path.name == FILE else path.with_suffix(".npz")


def find(folder: Path) -> list[Path]:
    """Paths of the records in ``folder``, sorted.

    They are every ``record.json`` below it; in a folder of filed records, which is no run itself, every ``*.json`` too.

    Raises:
        UserError: if ``folder`` is not a folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: give the one that holds the records.")
    is_run = (folder / FILE).exists()  # beside its record a run keeps its configuration
    found = {*folder.rglob(FILE), *([] if is_run else folder.glob("*.json"))}
    return sorted(path for path in found if not path.name.startswith("."))  # hidden ones are still being written


def load_all(folder: Path) -> tuple[list[Record], list[str]]:
    """Every record in ``folder``, and one sentence for each file that could not be taken.

    A damaged file of an earlier run must not lose the result of this one, so it is reported and not raised. Where the
    same run is found twice, the one that finished last counts.

    Returns:
        (records, problems): records in the order of their paths.

    Raises:
        UserError: if ``folder`` is not a folder.
    """
    records: dict[str, Record] = {}
    problems = []
    for path in find(folder):
        try:
            record = load(path)
        except UserError as error:
            problems.append(str(error))
            continue
        known = records.get(record.fingerprint)
        if known is None or known.finished < record.finished:
            records[record.fingerprint] = record
    return list(records.values()), problems


def completed(value: Any) -> Any:
    """``value`` with the keys that records had not from the beginning, if it is an object at all."""
    return copy.deepcopy(dict(LATER)) | value if isinstance(value, dict) else value


def check(value: Any, where: str) -> None:
    """Raises UserError naming ``where`` and the key unless ``value`` holds the schema; see ``Record``."""
    wrong = wrong_with(value, FIELDS, SCHEMA) or _wrong_protocols(value)
    if wrong is not None:
        raise UserError(f"{where} is not a record: {wrong}; restore the file or run the benchmark again.")


def _wrong_protocols(value: dict[str, Any]) -> str | None:
    """Everything that is kept per protocol speaks of the same protocols."""
    protocols = set(value["protocols"])
    for key in ("request_digests", "metrics", "requests"):
        if set(value[key]) != protocols:
            return f"{key} names {sorted(value[key])} and protocols names {sorted(protocols)}"
    for key in ("by_attribute", "curves", "tied"):
        if extra := set(value[key]) - protocols:
            return f"{key} names {sorted(extra)} and protocols names {sorted(protocols)}"
    return None
