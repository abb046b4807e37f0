# SPDX-License-Identifier: MIT
"""*DeepFashion: Consumer-to-shop Clothes Retrieval*: 239,557 photos of customers and shops, item by item.

Source: https://mmlab.ie.cuhk.edu.hk/projects/DeepFashion.html (Liu et al., CVPR 2016), as its authors hand it out::

    ROOT/Eval/list_eval_partition.txt         image_pair_name_1 (consumer) image_pair_name_2 (shop) item_id status
    ROOT/Anno/list_item_consumer2shop.txt     a count, then item ids without column names
    ROOT/Anno/list_bbox_consumer2shop.txt     image_name clothes_type source_type x_1 y_1 x_2 y_2
    ROOT/Anno/list_attr_cloth.txt             Chinese name, English name, which may hold spaces, and type
    ROOT/Anno/list_attr_type.txt              Chinese and English name of each type
    ROOT/Anno/list_attr_items.txt             item id, then 1, −1 or 0 of each attribute
    ROOT/img/  or Img/img/                    TOPS/T_Shirt/id_00000218/comsumer_01.jpg (the data's own spelling)

The partition's rows are pairs, so that an image is in as many rows as it has partners.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fm_bench.catalog import Catalog, Dataset, Domain, check_splits
from fm_bench.data.contents import content_digests
from fm_bench.data.readers.common import (
    OnError,
    check_attributes,
    check_inside,
    duplicates,
    encode,
    file_source,
    groups,
    names_of,
    snake_case,
)
from fm_bench.data.readers.deepfashion_files import (
    CLOTHES,
    Listed,
    attribute_list,
    boxes,
    check_items,
    check_root,
    find,
    path_part,
    pictures,
    single,
    text,
    without_boxes,
)
from fm_bench.data.readers.lists import Rows, codes, columns, places, read_rows, read_signs, strings
from fm_bench.files import user_path
from fm_bench.wording import counted

STATUS = ("train", "val", "test")
"""In the order of ``Split``."""

SOURCES = ("shop", "consumer")
"""What ``source_type`` 1 and 2 are."""

_EVAL = "Eval/list_eval_partition.txt"
_PAIR = ("image_pair_name_1", "image_pair_name_2")


class _Images(NamedTuple):
    """The images of the pairs, each once, those of consumers first."""

    image: NDArray[np.str_]  # (N,)
    row: NDArray[np.int64]  # (N,) its first row in the partition
    domain: NDArray[np.int8]  # (N,)


@dataclass(frozen=True)
class ConsumerToShopReader:
    """DeepFashion's Consumer-to-shop Clothes Retrieval Benchmark, with its own splits.

    Photos of consumers are street photos and ask; those of shops are searched.

    Args:
        root: folder that holds ``Anno/``, ``Eval/`` and ``img/``.
        attributes: names, as a list or comma text; by default department and category, as the folders are called,
            clothes_type and every type of attribute that items are labelled with, as far as their files are there.
        min_count: values on fewer images count as missing; the images stay.
        on_error: refuse pictures that cannot be read, or leave them out.
    """

    name: ClassVar[str] = "deepfashion-c2s"
    aspect: ClassVar[float] = 1.0

    root: str
    attributes: list[str] | str | None = None
    min_count: int = 20
    on_error: OnError = "fail"

    def read(self) -> Dataset:
        """The catalogue, with boxes, and its pictures.

        Raises:
            UserError: if the folder or its files are missing, damaged or do not fit together, an attribute is unknown,
                or nothing is left; names file and line.
        """
        root = user_path(self.root)
        chosen = names_of(self.attributes)
        check_root(root, self.name, _EVAL)
        rows = read_rows(root / _EVAL, "the list of pairs")
        cells = columns(rows, (*_PAIR, "item_id", "evaluation_status"))
        folder = pictures(root)
        for name in _PAIR:
            check_inside(folder, strings(cells[name]), rows.path, unit="line", first=rows.first)
        check_items(root / "Anno/list_item_consumer2shop.txt", rows, cells["item_id"])
        split = codes(rows, cells["evaluation_status"], STATUS, "evaluation_status")
        item = np.asarray(cells["item_id"].dictionary_encode().indices, dtype=np.int64)
        image, row, domain = _images(rows, cells, {"item": item, "split": split})
        types = {"clothes_type": CLOTHES, "source_type": SOURCES}
        listed = Listed.read(root / "Anno/list_bbox_consumer2shop.txt", image, types)
        known, notes = _columns(root, image, cells["item_id"].take(pa.array(row)), listed)
        check_attributes(chosen or (), known, str(root))
        content = content_digests(folder, image)
        same = groups(content)
        wanted = {name: known[name] for name in chosen or known}
        encoded = encode(wanted, same, min_count=self.min_count, chosen=chosen is not None, where=str(root))
        box, told = (None, []) if listed is None else boxes(folder, image, listed.pixels)
        catalog = Catalog(encoded.schema, image, encoded.labels, item[row], split[row].astype(np.int8), domain, box)
        check_splits(catalog, str(root))
        pairs = f"{counted(len(rows.text), 'pair')} of {counted(len(image), 'image')}"
        notes = [pairs, *notes, *without_boxes(listed), *told]
        notes += _otherwise(domain, listed)
        notes += [*encoded.notes, *duplicates(same)]
        return Dataset(catalog, file_source(folder, image, content), tuple(notes))


def _images(rows: Rows, cells: dict[str, pa.StringArray], facts: dict[str, NDArray[np.int64]]) -> _Images:
    """The images of the pairs. Raises UserError if two rows say different things of one, its ``facts (rows,)``."""
    both = pa.concat_arrays([cells[name] for name in _PAIR]).dictionary_encode()
    number = np.asarray(both.indices, dtype=np.int64)
    place = np.unique(number, return_index=True)[1]
    row = np.tile(np.arange(len(rows.text)), len(_PAIR))
    told = {name: fact[row] for name, fact in facts.items()} | {"kind": np.arange(len(row)) >= len(rows.text)}
    for name, fact in told.items():
        wrong = fact != fact[place][number]
        if wrong.any():
            at = int(np.flatnonzero(wrong)[0])
            raise rows.wrong(
                int(row[at]),
                f"gives {both.dictionary[number[at]].as_py()[:120]!r} another {name} "
                f"than line {rows.first + int(row[place[number[at]]])}",
                "mend one of the lines",
            )
    domain = np.where(place < len(rows.text), Domain.STREET, Domain.SHOP).astype(np.int8)
    return _Images(strings(both.dictionary), row[place], domain)


def _otherwise(domain: NDArray[np.int8], listed: Listed | None) -> list[str]:
    """A note on images that the list of boxes calls a shop's though they are in the consumers' column, or otherwise."""
    if listed is None:
        return []
    shop = np.asarray(pc.equal(listed.types["source_type"], SOURCES[0]).fill_null(False)) & (domain == Domain.STREET)
    street = np.asarray(pc.equal(listed.types["source_type"], SOURCES[1]).fill_null(False)) & (domain == Domain.SHOP)
    count = int((shop | street).sum())
    return [f"source_type contradicts the pairs for {counted(count, 'image')}: the pairs are followed"] if count else []


def _columns(
    root: Path, image: NDArray[np.str_], item: pa.StringArray, listed: Listed | None
) -> tuple[dict[str, pa.StringArray], list[str]]:
    """The text of every attribute that the files have."""
    known = {"department": path_part(image, 1), "category": path_part(image, 2)}
    if listed is not None:
        known["clothes_type"] = listed.types["clothes_type"]
    paths = [
        find(root, f"Anno/{name}", f"Anno/attributes/{name}") for name in ("list_attr_cloth.txt", "list_attr_items.txt")
    ]
    if paths[0] is None or paths[1] is None:
        return known, ["list_attr_cloth.txt or list_attr_items.txt is not there: items have no attributes of their own"]
    names, kind = _attributes(paths[0])
    signs = read_signs(paths[1], "the table of the items' attributes", len(names), np.arange(len(names)))
    about = signs.names()
    place = places(about, about.text, strings(item))
    several = np.zeros(len(image), dtype=np.bool_)
    for type_name, number in _types(paths[0].with_name("list_attr_type.txt"), kind).items():
        group = np.flatnonzero(kind == number)
        code, many = single(signs.sign[:, group])
        values = [names[i] for i in group]
        known.setdefault(type_name, text(values, np.where(place < 0, -1, code[place])))
        several |= (place >= 0) & many[place]
    have = counted(int(several.sum()), "image has", "images have")
    return known, [f"{have} several values of one attribute, which counts as missing"] if several.any() else []


def _english(name: str) -> str:
    """The English part of a name that may follow a Chinese one and a remark in brackets."""
    words = name.split()
    while words and (not words[0].isascii() or words[0].startswith("(")):
        del words[0]
    return " ".join(words)


def _attributes(path: Path) -> tuple[list[str], NDArray[np.int64]]:
    """English names and types of the attributes."""
    names, kind = attribute_list(read_rows(path, "the list of attributes"))
    return [_english(name) for name in names], kind


def _types(path: Path, kind: NDArray[np.int64]) -> dict[str, int]:
    """Names of the types that occur, and their numbers: the one that ends the row, else its place."""
    numbers = [int(number) for number in np.unique(kind)]
    if not path.is_file():
        return {f"type_{number}": number for number in numbers}
    lines: Sequence[str] = read_rows(path, "the list of types").text.to_pylist()
    ends = [re.fullmatch(r"(.*\S)\s+([0-9]+)", line) for line in lines]
    named = dict(enumerate(lines, min(*numbers, 1)))  # from 0 only if the attributes' types are
    if all(ends):
        named = {int(end[2]): end[1] for end in ends if end}
    return {snake_case(_english(named.get(number, ""))) or f"type_{number}": number for number in numbers}
