# SPDX-License-Identifier: MIT
"""The checks of ``fm-bench data validate``: what each found, whether a run is the worse for it, and who mends it.

What a reader or a protocol deals with by itself is a note. A problem is what makes a run fail or its numbers doubtful;
some can be mended by leaving pictures out. The test split stays as it is then, but for what cannot be read: numbers on
it would mean something else.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fm_bench.attributes import MISSING
from fm_bench.catalog import Catalog, Dataset, Domain, Split, gallery_of
from fm_bench.data.duplicates import look_alikes
from fm_bench.data.images import LEFT_OUT
from fm_bench.data.neighbours import codes, unique_vectors
from fm_bench.data.requests import Requests
from fm_bench.wording import form

SHOWN = 5
"""Examples of each finding."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Finding:
    """One thing that a check found.

    Args:
        check: its name.
        count: how many.
        text: what, in the form that the count asks for, without the count; see ``form``.
        examples: a few of them.
        level: ``problem`` or ``note``.
        mended_by: what mends a problem, or what deals with what is noted.
        left_out: pictures that mending leaves out.
    """

    check: str
    count: int
    text: str
    examples: list[Any] = field(default_factory=list)
    level: Literal["problem", "note"] = "note"
    mended_by: str = ""
    left_out: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """All of it in words."""
        shown = ", ".join(map(_shown, self.examples[:SHOWN])) + (", …" if len(self.examples) > SHOWN else "")
        return f"{self.count:,} {self.text}" + (f" ({shown})" if shown else "")

    @property
    def brief(self) -> str:
        """What, with one example, for the cell of a table."""
        return self.text + (f" ({_shown(self.examples[0])})" if self.examples else "")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "check": self.check,
            "level": self.level,
            "count": self.count,
            "text": self.text,
            "examples": self.examples[:SHOWN],
            "mended_by": self.mended_by,
        }


def unreadable(found: dict[str, list[str]], on_error: str) -> list[Finding]:
    """One finding for each kind of damage; ``found`` has the files of each."""
    skipped = on_error == "skip"
    findings = []
    for reason, files in sorted(found.items(), key=lambda entry: -len(entry[1])):
        if reason == LEFT_OUT:
            text = f"{form(len(files), 'picture is', 'pictures are')} left out as an earlier --fix listed"
            findings.append(Finding("left out", len(files), text, files))
            continue
        findings.append(
            Finding(
                "unreadable",
                len(files),
                f"{form(len(files), 'picture', 'pictures')} cannot be read: {reason}",
                files,
                "note" if skipped else "problem",
                "left out by --data.on_error skip" if skipped else "--fix",
                tuple(files),
            )
        )
    return findings


def copies(catalog: Catalog, same: NDArray[np.int64]) -> list[Finding]:
    """Byte-identical pictures; ``same (N,)`` numbers contents from 0."""
    size = np.bincount(same)
    findings = []
    if (size > 1).any():
        count = int((size > 1).sum())
        groups = form(count, "group of pictures is", "groups of pictures are")
        text = f"{groups} byte-identical, {int(size[size > 1].sum()):,} pictures in all"
        findings.append(Finding("duplicates", count, text, _of(catalog, same, size > 1)))
    if (across := varies(same, catalog.split)).any():
        groups = form(int(across.sum()), "group of byte-identical pictures is", "groups of byte-identical pictures are")
        text = f"{groups} in more than one split"
        findings.append(_leaks(catalog, "duplicates across splits", text, same, across))
    wrong = conflicting(catalog.labels, same)
    contradicted = wrong[same]
    training = contradicted & (catalog.split != Split.TEST)
    for mask, level in ((training, "problem"), (contradicted & ~training, "note")):
        if mask.any():
            count = len(np.unique(same[mask]))
            groups = form(count, "group of byte-identical pictures carries", "groups of byte-identical pictures carry")
            where = "" if level == "problem" else "; they stay in the test split"
            findings.append(
                Finding(
                    "conflicting labels",
                    count,
                    f"{groups} conflicting labels{where}",
                    _of(catalog, same, wrong),
                    "problem" if level == "problem" else "note",
                    "--fix" if level == "problem" else "",
                    tuple(catalog.image[mask].tolist()) if level == "problem" else (),
                )
            )
    return findings


def similar(catalog: Catalog, same: NDArray[np.int64], fingerprints: NDArray[Any]) -> list[Finding]:
    """Pictures that look the same without being byte-identical."""
    first = np.unique(same, return_index=True)[1]
    pairs = look_alikes(fingerprints[first])
    if not len(pairs):
        return []
    names, split = catalog.image[first], catalog.split[first]
    across = split[pairs[:, 0]] != split[pairs[:, 1]]
    findings = []
    for mask, check, what, then in (
        (~across, "look-alikes", "of pictures", ", though the files differ"),
        (across, "look-alikes across splits", "of pictures of different splits", ""),
    ):
        if mask.any():
            count = int(mask.sum())
            text = f"{form(count, f'pair {what} looks', f'pairs {what} look')} the same{then}"
            findings.append(Finding(check, count, text, names[pairs[mask][: SHOWN + 1]].tolist()))
    return findings


def items(catalog: Catalog) -> list[Finding]:
    """Items that straddle splits."""
    number = np.unique(catalog.item, return_inverse=True)[1]
    across = varies(number, catalog.split)
    if not across.any():
        return []
    text = f"{form(int(across.sum()), 'item has', 'items have')} images in more than one split"
    return [_leaks(catalog, "items across splits", text, number, across)]


def splits_and_values(catalog: Catalog) -> list[Finding]:
    """Splits without pictures, and attributes that no request can change."""
    findings = [
        Finding("splits", 0, f"pictures are in the {split.name.lower()} split: it is empty", level="problem")
        for split in Split
        if not (catalog.split == split).any()
    ]
    single = [name for name, size in zip(catalog.schema.names, catalog.schema.sizes, strict=True) if size < 2]
    if single:
        have, them = form(len(single), "attribute has", "attributes have"), form(len(single), "it", "them")
        text = f"{have} a single value, so that no request can change {them}"
        findings.append(Finding("values", len(single), text, single, "problem"))
    return findings


def boxes(catalog: Catalog) -> list[Finding]:
    """Boxes that are none."""
    if catalog.box is None:
        return []
    left, top, right, bottom = catalog.box.T
    fine = np.isfinite(catalog.box).all(axis=1) & (catalog.box >= 0).all(axis=1) & (catalog.box <= 1).all(axis=1)
    bad = ~(fine & (left < right) & (top < bottom))
    if not bad.any():
        return []
    files = catalog.image[bad].tolist()
    one, several = "box is empty or lies outside its picture", "boxes are empty or lie outside their picture"
    return [Finding("boxes", len(files), form(len(files), one, several), files, "problem")]


def names(catalog: Catalog) -> list[Finding]:
    """Pictures that stand in several rows."""
    name, count = np.unique(catalog.image, return_counts=True)
    twice = name[count > 1].tolist()
    text = f"{form(len(twice), 'picture stands', 'pictures stand')} in more than one row"
    return [Finding("rows", len(twice), text, twice)] if twice else []


def partners(dataset: Dataset) -> list[Finding]:
    """Pictures asked about whose item has no other picture to be found; only where data have such questions."""
    catalog, findings = dataset.catalog, list[Finding]()
    street = catalog.domain == Domain.STREET
    asked = {split: np.flatnonzero(street & (catalog.split == split)) for split in Split}
    offered = {split: np.flatnonzero(~street & (catalog.split == split)) for split in Split}
    what, by_item = ("street photo", "street photos"), True
    if dataset.queries is not None:  # which may ask for attributes alone
        what, by_item = ("query", "queries"), False
        asked = {Split.TEST: dataset.queries[_valid(dataset.queries, catalog)]}
        offered = {Split.TEST: gallery_of(dataset)}
    for split, rows in asked.items():
        if not len(rows):
            continue
        alone = ~np.isin(catalog.item[rows], catalog.item[offered[split]])
        if alone.any():
            files, of = catalog.image[rows[alone]].tolist(), f"of the {split.name.lower()} split"
            one = f"{what[0]} {of} has no shop photo of its item there"
            several = f"{what[1]} {of} have no shop photo of their item there"
            all_alone = bool(alone.all()) and split == Split.TEST
            every = form(len(files), ": the only one", ": all of them") if all_alone else ""
            text = form(len(files), one, several) + every
            lost = all_alone and by_item
            findings.append(Finding("partners", len(files), text, files, "problem" if lost else "note", _unasked(lost)))
    return findings


def dangling(dataset: Dataset) -> list[Finding]:
    """Queries and requests about rows that do not exist or are of another split."""
    catalog, findings = dataset.catalog, list[Finding]()
    for one, several, rows in (
        ("query", "queries", dataset.queries),
        ("request", "requests", None if dataset.requests is None else dataset.requests.query),
    ):
        if rows is not None and (bad := ~_valid(rows, catalog)).any():
            text = form(
                int(bad.sum()),
                f"{one} is about a row that does not exist or is not of the test split",
                f"{several} are about rows that do not exist or are not of the test split",
            )
            findings.append(Finding("dangling ids", int(bad.sum()), text, rows[bad].tolist(), "problem"))
    return findings


def unanswerable(dataset: Dataset) -> list[Finding]:
    """Published requests for which the gallery has no picture."""
    requests = dataset.requests
    if requests is None or not len(requests):
        return []
    valid = np.flatnonzero(_valid(requests.query, dataset.catalog))
    none = answers(requests.select(valid), dataset.catalog, gallery_of(dataset)) == 0
    if not none.any():
        return []
    count, all_of_them = int(none.sum()), bool(none.all())
    have, their = form(count, "request has", "requests have"), form(count, "its", "their")
    text = f"{have} no picture in the gallery that matches all labels of {their} target"
    examples = valid[none][: SHOWN + 1].tolist()
    level: Literal["problem", "note"] = "problem" if all_of_them else "note"
    return [Finding("requests", count, text, examples, level, _unasked(all_of_them))]


def answers(requests: Requests, catalog: Catalog, gallery: NDArray[np.int64]) -> NDArray[np.int64]:
    """``(R,)`` gallery pictures that match every labelled entry of each target, the query's own left aside."""
    count = np.zeros(len(requests), np.int64)
    patterns, pattern, _ = unique_vectors((requests.target != MISSING).astype(np.int16))
    own = np.isin(requests.query, gallery)
    for number, labelled in enumerate(patterns):
        columns, members = np.flatnonzero(labelled), np.flatnonzero(pattern == number)
        target, offered = requests.target[members][:, columns], catalog.labels[gallery][:, columns]
        code = codes(np.concatenate((offered, target)), range(len(columns)))
        found, wanted = np.sort(code[: len(gallery)]), code[len(gallery) :]
        count[members] = np.searchsorted(found, wanted, "right") - np.searchsorted(found, wanted, "left")
        itself = (catalog.labels[requests.query[members]][:, columns] == target).all(axis=1)
        count[members] -= itself & own[members]
    return count


def conflicting(labels: NDArray[np.int16], same: NDArray[np.int64]) -> Mask:
    """For each group number whether two of its members have different labels of an attribute."""
    found = np.zeros(int(same.max(initial=-1)) + 1, dtype=np.bool_)
    for column in labels.T:
        labelled = column >= 0
        found |= varies(same[labelled], column[labelled], len(found))
    return found


def varies(group: NDArray[np.int64], value: NDArray[Any], size: int | None = None) -> Mask:
    """For each group number whether its members hold more than one value."""
    pairs = np.unique(np.stack([group, value.astype(np.int64)]), axis=1)
    return np.asarray(np.bincount(pairs[0], minlength=size or 0) > 1)


def _leaks(catalog: Catalog, check: str, text: str, group: NDArray[np.int64], across: Mask) -> Finding:
    """Groups in several splits; what is outside the one that is judged last, of those that hold any, is left out."""
    last = np.full(len(across), -1)
    np.maximum.at(last, group, catalog.split)
    out = across[group] & (catalog.split < last[group])
    left_out = tuple(catalog.image[out].tolist())
    return Finding(check, int(across.sum()), text, _of(catalog, group, across), "problem", "--fix", left_out)


def _of(catalog: Catalog, group: NDArray[np.int64], chosen: Mask) -> list[list[str]]:
    """The pictures of the first few chosen groups."""
    return [catalog.image[group == g][:SHOWN].tolist() for g in np.flatnonzero(chosen)[: SHOWN + 1].tolist()]


def _valid(rows: NDArray[np.int64], catalog: Catalog) -> Mask:
    """Which rows exist and are of the test split."""
    there = (rows >= 0) & (rows < len(catalog))
    there[there] = catalog.split[rows[there]] == Split.TEST
    return there


def _unasked(all_of_them: bool) -> str:
    return "" if all_of_them else "not asked, or counted as not found, as the protocol says"


def _shown(example: Any) -> str:
    return " = ".join(map(str, example)) if isinstance(example, list) else str(example)


CATALOGUE: tuple[Callable[[Catalog], list[Finding]], ...] = (items, splits_and_values, boxes, names)
DATASET: tuple[Callable[[Dataset], list[Finding]], ...] = (partners, dangling, unanswerable)
