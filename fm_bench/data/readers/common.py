# SPDX-License-Identifier: MIT
"""What readers share: cleaning cells, value vocabularies, splits that no picture straddles."""

import contextlib
import difflib
import functools
import hashlib
import os
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fm_bench.attributes import MISSING, AttributeSchema
from fm_bench.catalog import Split
from fm_bench.data.images import FileSource
from fm_bench.data.rooted import inside
from fm_bench.errors import UserError
from fm_bench.files import digest
from fm_bench.wording import counted, form

OnError = Literal["fail", "skip"]

MISSING_TEXT = ("", "na", "n/a", "nan", "null")
"""Cells that mean that nobody annotated the value, in any case. ``none`` is not among them: it names "no collar"."""

_MAX_VALUES = np.iinfo(np.int16).max
_LOOKED_AT = 128  # listed pictures by which their folder is found


class Encoded(NamedTuple):
    """Labels as integers, and what was lost on the way."""

    schema: AttributeSchema
    labels: NDArray[np.int16]  # (N, A)
    notes: tuple[str, ...]


def clean(column: pa.Array) -> pa.Array:
    """A column as text without surrounding space; cells of ``MISSING_TEXT`` become null.

    Whole numbers are written without a decimal point, since a table with gaps stores them as floats.
    """
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_finite(column), column, None)
        text = [None if x is None else f"{x:.15g}" for x in column.to_pylist()]
        return pa.array(text, pa.string())
    text = pc.utf8_trim_whitespace(pc.cast(column, pa.string()))
    absent = pc.is_in(pc.utf8_lower(text), pa.array(MISSING_TEXT))
    return pc.if_else(absent, pa.scalar(None, pa.string()), text)


def texts(table: pa.Table) -> dict[str, pa.Array]:
    """Every column of a table that can be written as text, cleaned; columns of other bytes, such as pictures, cannot.

    Args:
        table: whose columns have different names.
    """
    found = {}
    for field in table.schema:
        if not pa.types.is_nested(field.type):
            with contextlib.suppress(pa.ArrowException):
                found[field.name] = clean(table[field.name].combine_chunks())
    return found


def names_of(attributes: list[str] | str | None) -> list[str] | None:
    """Attribute names given as a list or as comma text; None if none were given.

    Raises:
        UserError: if a name is empty or given twice.
    """
    if attributes is None:
        return None
    given = attributes.split(",") if isinstance(attributes, str) else [str(name) for name in attributes]
    names = [name.strip() for name in given]
    if not all(names) or len(set(names)) != len(names):
        raise UserError(
            f"--data.attributes {','.join(given)!r} names nothing or the same attribute twice: name each once."
        )
    return names


def nearest(name: str, known: Iterable[str], shown: int = 8) -> str:
    """Known names for an error message, those most like ``name`` first; the rest is cut after ``shown``."""
    by_lower = {other.lower(): other for other in sorted(known)}
    near = difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.5)
    ordered = [by_lower[lower] for lower in near] + [other for lower, other in by_lower.items() if lower not in near]
    return ", ".join(ordered[:shown]) + (", …" if len(ordered) > shown else "")


def check_attributes(wanted: Iterable[str], known: Collection[str], where: str, shown: int = 8) -> None:
    """Raises UserError if a wanted attribute is none of the known ones, with ``shown`` of these at most."""
    for name in wanted:
        if name not in known:
            raise UserError(f"attribute {name!r} is not in {where}: choose among {nearest(name, known, shown)}.")


@functools.cache
def snake_case(name: str) -> str:
    """``"Sleeve Length"`` and ``"articleType"`` as ``"sleeve_length"`` and ``"article_type"``."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return re.sub(r"[^a-z0-9]+", "_", words.lower()).strip("_")


def encode(
    columns: Mapping[str, pa.Array], group: NDArray[np.int64], *, min_count: int, chosen: bool, where: str
) -> Encoded:
    """Text columns to labels over vocabularies in alphabetical order.

    Two things become missing: values that fewer than ``min_count`` rows hold, and labels by which rows of the same
    group (byte-identical pictures) contradict each other, since no more than one of them can be right. The rows stay.

    Args:
        columns: for each attribute its ``(N,)`` cleaned text.
        group: ``(N,)`` the content group of each row.
        min_count: rows that a value needs.
        chosen: whether the user named the attributes; if not, those left with fewer than two values are left out.
        where: the data's name for messages.

    Raises:
        UserError: if a chosen attribute, or every attribute, has no value left, or one has more than 32,767.
    """
    kept: dict[str, tuple[list[str], NDArray[np.int16]]] = {}
    notes: list[str] = []
    contradicted = np.zeros(len(group), dtype=np.bool_)
    least = counted(min_count, "image")
    for name, column in columns.items():
        values, codes = _codes(column)
        wrong = _contradicted(codes, group)
        contradicted |= wrong
        codes[wrong] = MISSING
        frequent = np.bincount(codes[codes >= 0], minlength=len(values)) >= min_count
        if chosen:
            _check_chosen(name, int(frequent.sum()), min_count, where)
        elif frequent.sum() < 2:
            notes.append(f"{name} is left out: fewer than two of its values are on at least {least}")
            continue
        kept[name] = _only_frequent(values, codes, frequent)
        if rare := int((~frequent).sum()):
            lost = int((codes >= 0).sum() - (kept[name][1] >= 0).sum())
            notes.append(
                f"{name}: {counted(rare, 'value')} on fewer than {least} ({counted(lost, 'label')}) "
                f"{form(rare, 'counts', 'count')} as missing"
            )
    if not kept:
        raise UserError(
            f"no attribute of {where} has two values on at least {least} each: "
            "lower --data.min_count or name --data.attributes."
        )
    if contradicted.any():
        count = len(np.unique(group[contradicted]))
        where_found = counted(count, "group of identical pictures", "groups of identical pictures")
        notes.append(f"labels that contradict each other count as missing, in {where_found}")
    schema = AttributeSchema.from_dict({name: values for name, (values, _) in kept.items()})
    return Encoded(schema, np.stack([codes for _, codes in kept.values()], axis=1), tuple(notes))


def _check_chosen(name: str, values: int, min_count: int, where: str) -> None:
    if not values:
        raise UserError(
            f"attribute {name!r} of {where} has no value on at least {counted(min_count, 'image')}: "
            "lower --data.min_count or leave it out."
        )
    if values > _MAX_VALUES:
        raise UserError(
            f"attribute {name!r} of {where} has {values:,} values: choose one with at most {_MAX_VALUES:,}."
        )


def _only_frequent(
    values: list[str], codes: NDArray[np.int64], frequent: NDArray[np.bool_]
) -> tuple[list[str], NDArray[np.int16]]:
    """Values without the rare ones, and codes renumbered to match."""
    renumbered = np.append(np.where(frequent, np.cumsum(frequent) - 1, MISSING), MISSING)  # the last for code −1
    return [value for value, keep in zip(values, frequent, strict=True) if keep], renumbered[codes].astype(np.int16)


def _codes(column: pa.Array) -> tuple[list[str], NDArray[np.int64]]:
    """Values in alphabetical order and each row's position among them, −1 where null."""
    encoded = column.dictionary_encode()
    values = encoded.dictionary.to_pylist()
    order = sorted(range(len(values)), key=values.__getitem__)
    position = np.empty(len(values) + 1, dtype=np.int64)
    position[order] = np.arange(len(values))
    position[-1] = MISSING
    return [values[i] for i in order], position[np.asarray(encoded.indices.fill_null(-1))]


def _contradicted(codes: NDArray[np.int64], group: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Labelled rows whose group holds another label as well."""
    size = int(group.max(initial=-1)) + 1
    highest, lowest = np.full(size, MISSING), np.full(size, np.iinfo(np.int64).max)
    labelled = codes >= 0
    np.maximum.at(highest, group[labelled], codes[labelled])
    np.minimum.at(lowest, group[labelled], codes[labelled])
    return np.asarray(labelled & (highest > lowest)[group], dtype=np.bool_)


def groups(*keys: NDArray[Any]) -> NDArray[np.int64]:
    """Numbers ``(N,)`` from 0 such that rows share one if a chain of equal keys connects them.

    With one key these are its distinct values; with two, pictures that are identical or show the same item.
    """
    numbered = [np.unique(key, return_inverse=True)[1].reshape(-1) for key in keys]
    label = numbered[0].astype(np.int64)
    while True:
        before = label
        for key in numbered[1:] + numbered[:1]:
            lowest = np.full(int(key.max(initial=-1)) + 1, np.iinfo(np.int64).max)
            np.minimum.at(lowest, key, label)
            label = lowest[key]
        if np.array_equal(label, before):
            return np.unique(label, return_inverse=True)[1].reshape(-1).astype(np.int64)


def split_by_content(
    content: NDArray[np.bytes_], group: NDArray[np.int64], shares: Mapping[Split, float], seed: int
) -> NDArray[np.int8]:
    """Deals whole groups to the splits by a hash of their content, whatever the order of the rows.

    Args:
        content: ``(N,)`` content digests.
        group: ``(N,)`` numbers from 0 of rows that must stay together.
        shares: share of the groups for validation and test; the rest trains.
        seed: another seed, another deal.
    """
    order = np.argsort(content, kind="stable")
    first = content[order[np.unique(group[order], return_index=True)[1]]]  # each group's lowest digest
    hashed = [hashlib.sha256(f"{seed} ".encode() + digest).digest() for digest in first.tolist()]
    ranked = sorted(range(len(hashed)), key=hashed.__getitem__)
    split = np.full(len(ranked), Split.TRAIN, dtype=np.int8)
    start = 0
    for part, share in shares.items():
        stop = start + (max(1, round(share * len(ranked))) if share else 0)
        split[ranked[start:stop]] = part
        start = stop
    return split[group]


def shares_of(val_share: float, test_share: float) -> dict[Split, float]:
    """The shares of the splits that are cut from a catalogue.

    Raises:
        UserError: if one is negative or they leave nothing to train on.
    """
    if not (val_share >= 0 and test_share >= 0 and val_share + test_share < 1):  # nor is any of them NaN
        raise UserError(
            f"--data.val_share {val_share:g} and --data.test_share {test_share:g} must not be negative "
            "and must add up to less than 1."
        )
    return {Split.TEST: test_share, Split.VAL: val_share}


def duplicates(same: NDArray[np.int64]) -> list[str]:
    """A note on byte-identical pictures, if there are any; ``same (N,)`` numbers contents from 0."""
    count = np.bincount(same)
    shared = count > 1
    if not shared.any():
        return []
    return [
        f"{count[shared].sum():,} images are byte-identical to another one, in {counted(int(shared.sum()), 'group')}"
    ]


def file_source(root: Path, image: NDArray[np.str_], content: NDArray[np.bytes_]) -> FileSource:
    """Pictures below ``root``, whose digest is one of their names ``(N,)`` and of their contents' digests ``(N,)``."""
    return FileSource(root, digest(image.tolist(), content))


def check_inside(root: Path, image: NDArray[np.str_], path: Path, *, unit: str = "row", first: int = 1) -> None:
    """Refuses paths that leave ``root``, as written or by way of links.

    Args:
        root: the folder that the paths start from.
        image: ``(N,)`` paths.
        path: the file that names them, for the message.
        unit: what a path's place in that file is called, ``"row"`` or ``"line"``.
        first: number of the first of them.

    Raises:
        UserError: if one leaves the folder; says which.
    """
    top = root.resolve()

    def leads_out(name: str) -> bool:
        return not Path(os.path.realpath(root / name)).is_relative_to(top)  # which links in a circle do not stop

    folders: dict[str, bool] = {}  # few, so that no file's path has to be resolved unless it is a link
    for number, name in enumerate(image.tolist(), first):
        refused = not inside(name)
        if not refused:
            folder = name.rpartition("/")[0]
            if folder not in folders:
                folders[folder] = leads_out(folder)
            is_link = os.path.islink(os.path.join(root, name))  # noqa: PTH114, PTH118  a Path takes ten times as long
            refused = folders[folder] or (is_link and leads_out(name))
        if refused:
            raise UserError(
                f"{path} {unit} {number} names {name[:120]!r}, which is outside {root}: "
                "write paths below that folder, or pass a folder that holds all pictures as --data.root."
            )


def below(root: Path, folders: Iterable[str], image: NDArray[np.str_]) -> NDArray[np.str_]:
    """Listed paths, from the folder that they start from: that below ``root`` which holds most of a few of them.

    Args:
        root: the data set's folder.
        folders: where pictures may be, relative to root; the first one if none holds any.
        image: ``(N,)`` paths as a list has them.
    """
    few = image[:: -(-len(image) // _LOOKED_AT)].tolist()

    def there(folder: str) -> int:  # a Path's own is_file raises at names that are too long
        return sum(os.path.isfile(root / folder / name) for name in few)  # noqa: PTH113

    folder = max(folders, key=there)
    return np.char.add(f"{folder}/", image) if folder else image
