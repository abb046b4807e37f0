# SPDX-License-Identifier: MIT
"""What a data set holds and what is wrong with it, told before anything is trained: ``fm-bench data info|validate``."""

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fm_bench.attributes import MISSING
from fm_bench.catalog import Catalog, Dataset, Domain, Split
from fm_bench.data import checks
from fm_bench.data.contents import content_digests
from fm_bench.data.decoding import Unreadable, read_all
from fm_bench.data.duplicates import FINGERPRINT, fingerprint
from fm_bench.data.images import LEFT_OUT, FileSource
from fm_bench.data.mending import leave_out
from fm_bench.data.parquet import ParquetSource, parquet_contents
from fm_bench.data.readers.common import OnError, groups
from fm_bench.errors import printable
from fm_bench.wording import counted, form

NEAR_EMPTY = 5
"""A value with fewer images in a split is reported: a score over them says nothing."""

CHECK_SIZE = (64, 64)
"""Pictures are decoded this small, which finds the same damage as any other size."""

Report = dict[str, Any]


class Seen(NamedTuple):
    """What reading every picture found."""

    reason: dict[int, str]  # of rows whose picture cannot be read
    same: NDArray[np.int64] | None  # (N,) numbers of contents from 0; None where pictures are in no files
    fingerprints: NDArray[Any]  # (N,) of FINGERPRINT


def info(dataset: Dataset) -> Report:
    """What the labels say, without touching a picture.

    Returns:
        Plain JSON: ``images``, ``items``, ``label_vectors``, ``splits`` and ``domains`` (images by name),
        ``attributes`` (for each: values, labelled share, missing, most common and rarest value), ``near_empty``
        (values with fewer than five images in a split), ``notes`` of the reader, and ``digest``.
    """
    catalog = dataset.catalog
    return {
        "images": len(catalog),
        "items": len(np.unique(catalog.item)),
        "label_vectors": len(np.unique(catalog.labels, axis=0)),
        "splits": {split.name.lower(): _part(catalog, catalog.split == split) for split in Split},
        "domains": {domain.name.lower(): int((catalog.domain == domain).sum()) for domain in Domain},
        "attributes": {name: _attribute(catalog, m) for m, name in enumerate(catalog.schema.names)},
        "near_empty": _near_empty(catalog),
        "notes": list(dataset.notes),
        "digest": catalog.digest,
    }


def validate(dataset: Dataset, *, on_error: OnError = "fail", fix: bool = False, workers: int | None = None) -> Report:
    """``info``, and what reading every picture finds.

    Args:
        dataset: catalogue and pictures.
        on_error: what a run would do with pictures that cannot be read.
        fix: list what can be mended by leaving it out, see ``fm_bench.data.mending``, and report what remains.
        workers: threads or processes at most; by default one per usable core.

    Returns:
        The report of ``info`` with ``findings`` (see ``checks.Finding``), ``problems`` (the sentences of those that
        make a run fail or its numbers doubtful), ``unreadable`` (how many, and files by what was found in them) and
        ``fixed`` (how many pictures were listed, and where; None without ``fix``).

    Raises:
        UserError: if ``fix`` is asked for where pictures are in no files.
    """
    seen = _see(dataset, workers)
    found = _judge(dataset, seen, on_error)
    report = info(dataset)
    report["fixed"] = None
    if fix:
        names = sorted({name for finding in found if finding.level == "problem" for name in finding.left_out})
        report["fixed"] = {"pictures": len(names), "list": str(leave_out(dataset, names))}
        listed = np.flatnonzero(np.isin(dataset.catalog.image, names)).tolist()
        seen = seen._replace(reason=seen.reason | dict.fromkeys(listed, LEFT_OUT))
        found = _judge(dataset, seen, "skip")
    report["unreadable"] = {"images": len(seen.reason), "found": _by_reason(dataset.catalog, seen)}
    report["findings"] = [finding.to_dict() for finding in found]
    report["problems"] = [finding.sentence for finding in found if finding.level == "problem"]
    return report


def _see(dataset: Dataset, workers: int | None) -> Seen:
    """Reads every picture once, however many rows it stands in."""
    catalog, source = dataset.catalog, dataset.source
    names, place = np.unique(catalog.image, return_inverse=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fingerprints.npy"
        np.save(path, np.zeros(len(names), FINGERPRINT))
        unreadable: Unreadable = read_all(
            source, names, CHECK_SIZE, into=path, keep=fingerprint, workers=workers, label="check of the pictures"
        )
        fingerprints = np.load(path)
    reason = dict(unreadable)
    same = None
    if isinstance(source, FileSource):
        same = groups(content_digests(source.root, catalog.image))
    elif isinstance(source, ParquetSource):
        same = groups(parquet_contents(source.root, catalog.image))
    return Seen({row: reason[at] for row, at in enumerate(place.tolist()) if at in reason}, same, fingerprints[place])


def _judge(dataset: Dataset, seen: Seen, on_error: str) -> list[checks.Finding]:
    found = checks.unreadable(_by_reason(dataset.catalog, seen), on_error)
    kept = np.setdiff1d(np.arange(len(dataset.catalog)), list(seen.reason))
    catalog = dataset.catalog.select(kept)
    same = seen.same
    if same is not None:
        same = np.unique(same[kept], return_inverse=True)[1].astype(np.int64)
        found += checks.copies(catalog, same)
    unlike = np.arange(len(kept)) if same is None else same
    found += checks.similar(catalog, unlike, seen.fingerprints[kept])
    found += [finding for check in checks.CATALOGUE for finding in check(catalog)]
    return found + [finding for check in checks.DATASET for finding in check(dataset)]


def _by_reason(catalog: Catalog, seen: Seen) -> dict[str, list[str]]:
    by_reason: dict[str, list[str]] = {}
    for row in sorted(seen.reason):
        by_reason.setdefault(seen.reason[row], []).append(str(catalog.image[row]))
    return by_reason


def _part(catalog: Catalog, chosen: NDArray[np.bool_]) -> Report:
    return {"images": int(chosen.sum()), "items": len(np.unique(catalog.item[chosen]))}


def _attribute(catalog: Catalog, m: int) -> Report:
    codes = catalog.labels[:, m]
    values = catalog.schema.values[m]
    count = np.bincount(codes[codes >= 0], minlength=len(values))
    return {
        "values": {value: int(n) for value, n in zip(values, count, strict=True)},
        "labelled": float((codes >= 0).mean()) if len(codes) else 0.0,
        "missing": int((codes < 0).sum()),
        "range": [int(codes.min(initial=len(values))), int(codes.max(initial=MISSING))],
        "most_common": values[int(count.argmax())],
        "rarest": values[int(count.argmin())],
    }


def _near_empty(catalog: Catalog) -> list[Report]:
    """Values that train or are searched for with next to no image."""
    found = []
    for m, name in enumerate(catalog.schema.names):
        for split in (Split.TRAIN, Split.TEST):
            codes = catalog.labels[catalog.split == split, m]
            count = np.bincount(codes[codes >= 0], minlength=catalog.schema.sizes[m])
            found += [
                {
                    "attribute": name,
                    "value": catalog.schema.values[m][v],
                    "split": split.name.lower(),
                    "images": int(count[v]),
                }
                for v in np.flatnonzero(count < NEAR_EMPTY).tolist()
            ]
    return found


def print_report(report: Report, console: Console) -> None:
    """Shows a report of ``info`` or ``validate``."""
    counts = ", ".join(f"{part['images']:,} {name}" for name, part in report["splits"].items())
    images, items = counted(report["images"], "image"), counted(report["items"], "item")
    console.print(f"{images} of {items}: {counts}", highlight=False)
    street = report["domains"]["street"]
    are = form(street, "image is a street photo", "images are street photos")
    console.print(
        counted(report["label_vectors"], "different label vector") + (f"; {street:,} {are}" if street else ""),
        highlight=False,
    )
    table = Table("attribute", "values", "labelled", "missing", "most common", "rarest")
    for name, attribute in report["attributes"].items():
        values = attribute["values"]
        shown = [f"{_plain(value)} ({values[value]:,})" for value in (attribute["most_common"], attribute["rarest"])]
        table.add_row(
            _plain(name), str(len(values)), f"{attribute['labelled']:.1%}", f"{attribute['missing']:,}", *shown
        )
    console.print(table)
    for note in report["notes"]:
        console.print(f"· {_plain(note)}", highlight=False)
    for (name, split), count in Counter((entry["attribute"], entry["split"]) for entry in report["near_empty"]).items():
        have = form(count, "value has", "values have")
        console.print(f"· {_plain(name)}: {count} {have} fewer than {NEAR_EMPTY} {split} images", highlight=False)
    if "problems" in report:
        _print_verdict(report, console)


def _print_verdict(report: Report, console: Console) -> None:
    table = Table("check", "found", "what", "is mended by")
    for finding in report["findings"]:
        shown = checks.Finding(**finding)
        style = "red" if shown.level == "problem" else ""
        table.add_row(shown.check, f"{shown.count:,}", _plain(shown.brief), shown.mended_by, style=style)
    if report["findings"]:
        console.print(table)
    if fixed := report["fixed"]:
        count = fixed["pictures"]
        are, them = form(count, "picture is", "pictures are"), form(count, "it", "them")
        console.print(
            f"{count:,} {are} listed in {_plain(fixed['list'])}: commands with --data.on_error skip leave {them} out",
            highlight=False,
        )
    for problem in report["problems"]:
        console.print(f"[bold red]problem:[/] {_plain(problem)}", highlight=False)
    if not report["problems"]:
        unreadable = report["unreadable"]["images"]
        text = f"all but {unreadable:,} of the" if unreadable else "every one of the"
        console.print(f"{text} {report['images']:,} pictures can be read; no problem found", style="green")


def _plain(text: str) -> str:
    """Text from the data, shown as it is: neither markup nor commands to the terminal."""
    return escape(printable(text))
