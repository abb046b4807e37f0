# SPDX-License-Identifier: MIT
"""What a method's page shows of a run beside its record: learning curves, how requests fail, examples of results.

A run writes ``page.json``, and for rendered garments one sheet of small pictures, ``page.webp``. ``leaderboard add``
files both as ``extras/NAME.json`` and ``extras/NAME.webp``, below the folder of the records and by the record's name.
No table is made from them: records are complete without.
"""

import dataclasses
import hashlib
import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

from fm_bench.errors import UserError
from fm_bench.files import digest, replacing, write_text
from fm_bench.leaderboard.record import FILE, find, load

SCHEMA = 1
PAGE = "page.json"
FOLDER = "extras"
RATES = ("followed", "ignored", "lost")
LARGEST = 400_000
"""Bytes of a sheet of pictures that is taken, several times as many as are written."""

Points = tuple[tuple[float, float], ...]
Rate = dict[str, float]
"""``{"value", "low", "high"}``."""


class Rates(NamedTuple):
    """How requests of one protocol fail, see ``fm_bench.evaluation.failures``."""

    requests: int
    results: int
    """How many results of each request were looked at."""
    total: dict[str, Rate]
    by_attribute: dict[str, dict[str, float]]


class Result(NamedTuple):
    """One image that was found: its row, whether it is a hit, what is wrong with it, its picture on the sheet."""

    row: int
    hit: bool
    wrong: tuple[str, ...]
    cell: int | None


class Wish(NamedTuple):
    """What is to change: an attribute, its value in the query's picture (empty where unknown), the wanted value."""

    attribute: str
    old: str
    wanted: str


class Example(NamedTuple):
    """A request and what was found first.

    Attributes:
        kind: ``typical`` (drawn at random) or ``worst``.
        request: position among the requests of the protocol.
        row: of the query's picture.
        wishes: what is to change; nothing in a search without changes.
        hits: how many of all results that were looked at are hits.
        cell, prototype, truth: the query's picture, what the method drew, and the item drawn again with the change.
        found: the first results.
    """

    kind: str
    request: int
    row: int
    wishes: tuple[Wish, ...]
    hits: int
    cell: int | None
    prototype: int | None
    truth: int | None
    found: tuple[Result, ...]


class Map(NamedTuple):
    """Where a method looked for an attribute: its name, the value that was seen, the picture on the sheet."""

    attribute: str
    value: str
    cell: int


class Look(NamedTuple):
    """A picture, and where the method looked in it."""

    row: int
    cell: int
    maps: tuple[Map, ...]


class Sheet(NamedTuple):
    """Small pictures of equal size in one file, row by row from the top left."""

    digest: str
    """SHA-256 of the file."""
    columns: int
    rows: int
    width: int
    height: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Extras:
    """What a page shows of a run.

    Attributes:
        fingerprint: of the run.
        description: one line about the method, and one about the variant.
        about: paragraphs about the method, the first one naming its paper.
        changed: setting -> (default of the method, what this run had), as texts.
        curves: stage -> ``train/loss``, ``val/accuracy@20``, … -> points (epochs, value).
        without_curves: stage -> why there are no curves of it.
        rates: protocol -> how its requests fail.
        examples_of: the protocol of the examples.
        examples: some requests with what was found.
        looks: where the method looked.
        sheet: the pictures; None where there are none that may be shown.
    """

    fingerprint: str
    description: tuple[str, ...] = ()
    about: tuple[str, ...] = ()
    changed: dict[str, tuple[str, str]] = dataclasses.field(default_factory=dict)
    curves: dict[str, dict[str, Points]] = dataclasses.field(default_factory=dict)
    without_curves: dict[str, str] = dataclasses.field(default_factory=dict)
    rates: dict[str, Rates] = dataclasses.field(default_factory=dict)
    examples_of: str = ""
    examples: tuple[Example, ...] = ()
    looks: tuple[Look, ...] = ()
    sheet: Sheet | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, with the schema's version first and a digest of the rest last."""
        plain = {"schema": SCHEMA} | {name: _plain(value) for name, value in vars(self).items()}
        return plain | {"digest": digest(plain)}

    @classmethod
    def from_json(cls, value: Any, where: str = "the file") -> Self:
        """What ``to_json`` gave. Raises UserError naming ``where`` unless everything is as it was written."""
        try:
            extras = cls(**_fields(dict(value)))
            extras._check_cells()
            wrong = "" if value == extras.to_json() else "its digest does not fit it"
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            wrong = f"{type(error).__name__}: {error}"
        if wrong:
            raise UserError(
                f"{where} is not what a run wrote for its page ({wrong}): restore it, or remove it and run "
                "`fm-bench leaderboard extras` on the run's folder."
            )
        return extras

    def _check_cells(self) -> None:
        """Raises ValueError if a picture is named that is not on the sheet."""
        named = [cell for one in self.examples for cell in (one.cell, one.prototype, one.truth)]
        named += [result.cell for one in self.examples for result in one.found]
        named += [cell for look in self.looks for cell in (look.cell, *(one.cell for one in look.maps))]
        number = 0 if self.sheet is None else self.sheet.columns * self.sheet.rows
        if any(cell is not None and cell >= number for cell in named):
            raise ValueError("a picture is not on the sheet")


def extras_file(path: Path) -> Path:
    """Where the extras of the record at ``path`` are kept: ``page.json`` in a run's folder, else ``extras/NAME.json``.

    The sheet of pictures has the same name with the suffix ``.webp``.
    """
    return path.with_name(PAGE) if path.name == FILE else path.parent / FOLDER / path.name


def save_extras(extras: Extras, sheet: bytes | None, path: Path) -> None:
    """Writes the extras of the record at ``path``; ``sheet`` are the bytes of the pictures, if there are any."""
    target = extras_file(path)
    if sheet is not None:
        with replacing(target.with_suffix(".webp")) as temporary:
            temporary.write_bytes(sheet)
    text = json.dumps(extras.to_json(), allow_nan=False, separators=(",", ":"))  # long lists: no line for each number
    write_text(target, text + "\n")


def load_extras(path: Path) -> tuple[Extras, bytes | None] | None:
    """The extras of the record at ``path`` and the bytes of their pictures; None if there are no extras.

    Raises:
        UserError: if a file is damaged or was changed, is missing, or belongs to another record.
    """
    source = extras_file(path)
    if not source.exists():
        return None
    try:
        value = json.loads(source.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{source} could not be read as JSON ({error}): restore or remove it.") from error
    extras = Extras.from_json(value, str(source))
    if extras.fingerprint != load(path).fingerprint:
        raise UserError(f"{source} is of another run than {path}: remove it, or file the run again.")
    return extras, None if extras.sheet is None else _pictures(source.with_suffix(".webp"), extras.sheet)


def add_extras(run: Path, path: Path) -> list[Path]:
    """Files the extras of the run in the folder ``run`` beside its record, which was filed at ``path``.

    Returns:
        The files that were written; none where the run left nothing for its page.

    Raises:
        UserError: as ``load_extras``.
    """
    if load_extras(Path(run) / FILE) is None:
        return []
    source, target = extras_file(Path(run) / FILE), extras_file(path)
    written = []
    for suffix in (".webp", ".json"):
        if source.with_suffix(suffix).exists():
            with replacing(target.with_suffix(suffix)) as temporary:
                shutil.copyfile(source.with_suffix(suffix), temporary)
            written.append(target.with_suffix(suffix))
    return written


def files_of(path: Path) -> list[Path]:
    """Where the extras of the record at ``path`` are, if there are any: the texts, and the sheet of pictures."""
    return [extras_file(path).with_suffix(suffix) for suffix in (".json", ".webp")]


def remove_extras(path: Path) -> None:
    """Removes the extras of the record at ``path``, if there are any."""
    for file in files_of(path):
        file.unlink(missing_ok=True)


def check_extras(folder: Path) -> list[str]:
    """One sentence for each file of extras below the records in ``folder`` that is damaged, changed, or of no record.

    Raises:
        UserError: if ``folder`` is not a folder.
    """
    problems, known = [], set()
    for path in find(folder):
        known.add(extras_file(path).with_suffix(""))
        try:
            load_extras(path)
        except UserError as error:
            problems.append(str(error))
    stray = (file for file in sorted((Path(folder) / FOLDER).glob("*")) if file.with_suffix("") not in known)
    return problems + [f"{file} belongs to no record: remove it." for file in stray if not file.name.startswith(".")]


def _pictures(path: Path, sheet: Sheet) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} could not be read ({error.strerror}): restore the pictures.") from error
    if hashlib.sha256(content).hexdigest() != sheet.digest or len(content) > LARGEST or content[8:12] != b"WEBP":
        raise UserError(f"{path} is not the sheet of pictures that the run drew: restore it.")
    return content


# To JSON and back: whatever a file holds, a page is given texts where it wants texts and numbers where it wants numbers


def _plain(value: Any) -> Any:
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


def _fields(plain: dict[str, Any]) -> dict[str, Any]:
    del plain["digest"]
    if plain.pop("schema") != SCHEMA:
        raise ValueError(f"its schema version is not {SCHEMA}")
    return {
        "fingerprint": _text(plain.pop("fingerprint")),
        "description": _texts(plain.pop("description")),
        "about": _texts(plain.pop("about")),
        "changed": {key: (_text(a), _text(b)) for key, (a, b) in plain.pop("changed").items()},
        "curves": {
            stage: {name: tuple((_number(x), _number(y)) for x, y in points) for name, points in curves.items()}
            for stage, curves in plain.pop("curves").items()
        },
        "without_curves": {stage: _text(reason) for stage, reason in plain.pop("without_curves").items()},
        "rates": {name: _rates(**rates) for name, rates in plain.pop("rates").items()},
        "examples_of": _text(plain.pop("examples_of")),
        "examples": tuple(_example(**example) for example in plain.pop("examples")),
        "looks": tuple(_look(**look) for look in plain.pop("looks")),
        "sheet": None if (sheet := plain.pop("sheet")) is None else _sheet(**sheet),
    } | plain  # what is left is unknown, and refused


def _rates(requests: Any, results: Any, total: Any, by_attribute: Any) -> Rates:
    estimates = {name: {end: _number(rate[end]) for end in ("value", "low", "high")} for name, rate in total.items()}
    parts = {
        attribute: {name: _number(value) for name, value in part.items()} for attribute, part in by_attribute.items()
    }
    if not set(estimates).union(*parts.values()) <= set(RATES):
        raise ValueError(f"rates are {', '.join(RATES)}")
    return Rates(_count(requests), _count(results), estimates, parts)


def _example(
    kind: Any, request: Any, row: Any, wishes: Any, hits: Any, cell: Any, prototype: Any, truth: Any, found: Any
) -> Example:
    if kind not in ("typical", "worst"):
        raise ValueError("an example is typical or worst")
    asked = tuple(Wish(*(_text(wish[name]) for name in Wish._fields)) for wish in wishes)
    results = tuple(_result(**result) for result in found)
    return Example(
        kind, _count(request), _count(row), asked, _count(hits), _cell(cell), _cell(prototype), _cell(truth), results
    )


def _result(row: Any, hit: Any, wrong: Any, cell: Any) -> Result:
    if not isinstance(hit, bool):
        raise ValueError("a result is a hit or not")
    return Result(_count(row), hit, _texts(wrong), _cell(cell))


def _look(row: Any, cell: Any, maps: Any) -> Look:
    shown = tuple(Map(_text(one["attribute"]), _text(one["value"]), _count(one["cell"])) for one in maps)
    return Look(_count(row), _count(cell), shown)


def _sheet(digest: Any, columns: Any, rows: Any, width: Any, height: Any) -> Sheet:
    return Sheet(_text(digest), *(max(1, _count(number)) for number in (columns, rows, width, height)))


def _cell(value: Any) -> int | None:
    return None if value is None else _count(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{str(value)[:40]!r} is no text")
    return value


def _texts(values: Any) -> tuple[str, ...]:
    return tuple(_text(value) for value in values)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{str(value)[:40]!r} is no finite number")
    return value


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{str(value)[:40]!r} is no count")
    return value
