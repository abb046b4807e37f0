# SPDX-License-Identifier: MIT
"""What a data set holds and what is wrong with it, told before anything is trained: ``fm-bench data info|validate``."""

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fm_bench.catalog import Catalog, Dataset, Domain, Split
from fm_bench.data.contents import content_digests
from fm_bench.data.decoding import Unreadable, read_all
from fm_bench.data.images import FileSource
from fm_bench.data.readers.common import groups

NEAR_EMPTY = 5
"""A value with fewer images in a split is reported: a score over them says nothing."""

CHECK_SIZE = (64, 64)
"""Pictures are decoded this small, which finds the same damage as any other size."""

_SHOWN = 5

Report = dict[str, Any]


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


def validate(dataset: Dataset, *, workers: int | None = None) -> Report:
    """``info``, and what reading every picture finds.

    Returns:
        The report of ``info`` with ``unreadable`` (how many, and files by what was found in them), ``duplicates``
        (byte-identical files within and across splits, and groups of them with conflicting labels; None where
        pictures are no files) and ``problems``: one sentence for each thing that makes a result doubtful, empty when
        the data are sound.
    """
    catalog, source = dataset.catalog, dataset.source
    names = catalog.image
    unreadable = read_all(source, names, CHECK_SIZE, workers=workers, label="check of the pictures")
    readable = np.ones(len(catalog), dtype=np.bool_)
    readable[[position for position, _ in unreadable]] = False
    report = info(dataset)
    report["unreadable"] = _unreadable(unreadable, names)
    report["duplicates"] = _duplicates(catalog, source, readable) if isinstance(source, FileSource) else None
    report["problems"] = _problems(report, catalog)
    return report


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


def _unreadable(unreadable: Unreadable, names: NDArray[np.str_]) -> Report:
    by_reason: dict[str, list[str]] = {}
    for position, reason in unreadable:
        by_reason.setdefault(reason, []).append(str(names[position]))
    ordered = dict(sorted(by_reason.items(), key=lambda entry: -len(entry[1])))
    return {"images": len(unreadable), "found": ordered}


def _duplicates(catalog: Catalog, source: FileSource, readable: NDArray[np.bool_]) -> Report:
    rows = np.flatnonzero(readable)
    same = groups(content_digests(source.root, catalog.image[rows]))
    size = np.bincount(same)
    across = _varies(same, catalog.split[rows])
    labels = catalog.labels[rows]
    conflicting = np.zeros(len(size), dtype=np.bool_)
    for m in range(catalog.schema.num_attributes):
        labelled = labels[:, m] >= 0
        conflicting |= _varies(same[labelled], labels[labelled, m], len(size))
    examples = {"across_splits": across, "conflicting": conflicting}
    return {
        "groups": int((size > 1).sum()),
        "images": int(size[size > 1].sum()),
        "across_splits": int(across.sum()),
        "conflicting": int(conflicting.sum()),
        "examples": {
            kind: [catalog.image[rows[same == g]].tolist() for g in np.flatnonzero(which)[:_SHOWN].tolist()]
            for kind, which in examples.items()
        },
    }


def _varies(group: NDArray[np.int64], value: NDArray[Any], size: int | None = None) -> NDArray[np.bool_]:
    """For each group number whether its members hold more than one value."""
    pairs = np.unique(np.stack([group, value.astype(np.int64)]), axis=1)
    return np.asarray(np.bincount(pairs[0], minlength=size or 0) > 1)


def _problems(report: Report, catalog: Catalog) -> list[str]:
    problems = [
        f"{len(files):,} pictures cannot be read: {reason} ({_few(files)})"
        for reason, files in report["unreadable"]["found"].items()
    ]
    if duplicates := report["duplicates"]:
        if count := duplicates["across_splits"]:
            pair = duplicates["examples"]["across_splits"][0]
            problems.append(f"{count:,} groups of byte-identical pictures are in more than one split ({_few(pair)})")
        if count := duplicates["conflicting"]:
            pair = duplicates["examples"]["conflicting"][0]
            problems.append(f"{count:,} groups of byte-identical pictures carry conflicting labels ({_few(pair)})")
    if straddling := int(_varies(np.unique(catalog.item, return_inverse=True)[1], catalog.split).sum()):
        problems.append(f"{straddling:,} items have images in more than one split")
    problems += [f"the {name} split is empty" for name, part in report["splits"].items() if not part["images"]]
    problems += [
        f"attribute {name!r} has a single value, so that no request can change it"
        for name, attribute in report["attributes"].items()
        if len(attribute["values"]) < 2
    ]
    return problems


def _few(files: list[str]) -> str:
    return ", ".join(files[:_SHOWN]) + (", …" if len(files) > _SHOWN else "")


def print_report(report: Report, console: Console) -> None:
    """Shows a report of ``info`` or ``validate``."""
    counts = ", ".join(f"{part['images']:,} {name}" for name, part in report["splits"].items())
    console.print(f"{report['images']:,} images of {report['items']:,} items: {counts}", highlight=False)
    street = report["domains"]["street"]
    console.print(
        f"{report['label_vectors']:,} different label vectors"
        + (f"; {street:,} images are street photos" if street else ""),
        highlight=False,
    )
    table = Table("attribute", "values", "labelled", "missing", "most common", "rarest")
    for name, attribute in report["attributes"].items():
        values = attribute["values"]
        shown = [f"{escape(value)} ({values[value]:,})" for value in (attribute["most_common"], attribute["rarest"])]
        table.add_row(
            escape(name), str(len(values)), f"{attribute['labelled']:.1%}", f"{attribute['missing']:,}", *shown
        )
    console.print(table)
    for note in report["notes"]:
        console.print(f"· {escape(note)}", highlight=False)
    for (name, split), count in Counter((entry["attribute"], entry["split"]) for entry in report["near_empty"]).items():
        console.print(f"· {escape(name)}: {count} values have fewer than {NEAR_EMPTY} {split} images", highlight=False)
    if "problems" in report:
        _print_verdict(report, console)


def _print_verdict(report: Report, console: Console) -> None:
    for problem in report["problems"]:
        console.print(f"[bold red]problem:[/] {escape(problem)}", highlight=False)
    if not report["problems"]:
        console.print(f"every one of the {report['images']:,} pictures can be read; no problem found", style="green")
