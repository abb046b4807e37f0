# SPDX-License-Identifier: MIT
"""*DeepFashion: Category and Attribute Prediction*: 289,222 photos with a category and a thousand attributes.

Source: https://mmlab.ie.cuhk.edu.hk/projects/DeepFashion.html (Liu et al., CVPR 2016), as its authors hand it out::

    ROOT/Anno_coarse/  or Anno/                   list_{category,attr}_{cloth,img}.txt, list_bbox.txt
    ROOT/Anno_fine/                               {train,val,test}{,_attr,_cate,_bbox}.txt, list_attr_cloth.txt
    ROOT/Eval/list_eval_partition.txt             the split of the coarse annotations
    ROOT/img/  or Img/img/                        NAME/img_00000001.jpg

What the files do: counts and column names come first, not so in those of the fine splits, whose rows belong together
by their place alone; names of attributes hold spaces; category numbers are places in a list, from 1; four listed
categories were merged into Dress; an attribute may have many values, or none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
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
)
from fm_bench.data.readers.deepfashion_files import (
    CORNERS,
    Annotated,
    Multiple,
    attribute_list,
    boxes,
    category_list,
    category_numbers,
    check_root,
    corners,
    need,
    pictures,
    single,
    text,
)
from fm_bench.data.readers.deepfashion_fine import read_fine
from fm_bench.data.readers.lists import aligned, codes, columns, distinct, read_rows, read_signs, strings
from fm_bench.errors import UserError
from fm_bench.files import user_path
from fm_bench.wording import counted

GROUPS = {"texture": 1, "fabric": 2, "shape": 3, "part": 4, "style": 5}
"""Types of the coarse attributes, each of which is an attribute of many values here."""

DEFAULT = ("category", "texture", "shape")
"""The three attributes of FashionSearchNet."""

STATUS = ("train", "val", "test")
"""In the order of ``Split``."""

_EVAL = "Eval/list_eval_partition.txt"


@dataclass(frozen=True)
class DeepFashionReader:
    """DeepFashion's Category and Attribute Prediction Benchmark, with its own splits.

    Each picture is an item of its own: a folder holds what a search for its name found, and not one garment.

    Args:
        root: folder that holds ``Anno_coarse/`` or ``Anno/``, ``Anno_fine/``, ``Eval/`` and ``img/``.
        annotations: ``coarse``, 289,222 images and a thousand attributes, or ``fine``, 20,000 images and 26.
        attributes: names, as a list or comma text. Coarse: category, texture, fabric, shape, part, style, of which
            category, texture and shape are the default. Fine: category, texture, sleeve, length, neckline, fabric, fit.
        multiple: images with several values of one of these are left out (``drop``), or kept without that label.
        min_count: values on fewer images count as missing; the images stay.
        on_error: refuse pictures that cannot be read, or leave them out.
    """

    name: ClassVar[str] = "deepfashion"
    aspect: ClassVar[float] = 1.25

    root: str
    annotations: Literal["coarse", "fine"] = "coarse"
    attributes: list[str] | str | None = None
    multiple: Multiple = "drop"
    min_count: int = 1
    on_error: OnError = "fail"

    def read(self) -> Dataset:
        """The catalogue, with boxes, and its pictures.

        Raises:
            UserError: if the folder or its files are missing, damaged or do not fit together, an attribute is unknown,
                or nothing is left; names file and line.
        """
        root = user_path(self.root)
        if self.annotations == "fine":
            check_root(root, self.name, "Anno_fine", "split")
            found = read_fine(root, names_of(self.attributes))
        else:
            check_root(root, self.name, _EVAL)
            found = _coarse(root, names_of(self.attributes) or DEFAULT)
        return self._dataset(root, found)

    def _dataset(self, root: Path, found: Annotated) -> Dataset:
        notes = [
            f"{counted(len(found.image), 'image has', 'images have')} {self.annotations} annotations",
            *found.notes,
        ]
        rows = np.arange(len(found.image))
        if count := int(found.several.sum()):
            left = "left out" if self.multiple == "drop" else "kept without that label"
            notes.append(f"{counted(count, 'image')} with several values of one attribute: {left}")
        if self.multiple == "drop":
            rows = np.flatnonzero(~found.several)
            if not len(rows):
                raise UserError(
                    f"every image of {root} has several values of one attribute: pass --data.multiple missing."
                )
        folder, image, split = pictures(root), found.image[rows], found.split[rows]
        content = content_digests(folder, image)
        item = groups(content)
        labels = {name: column.take(pa.array(rows)) for name, column in found.columns.items()}
        chosen = self.attributes is not None
        encoded = encode(labels, item, min_count=self.min_count, chosen=chosen, where=str(root))
        box = None
        if found.pixels is not None:
            box, told = boxes(folder, image, found.pixels[rows])
            notes += told
        domain = np.full(len(image), Domain.SHOP, dtype=np.int8)
        catalog = Catalog(encoded.schema, image, encoded.labels, item, split, domain, box)
        check_splits(catalog, str(root))
        notes += [*encoded.notes, *duplicates(item)]
        return Dataset(catalog, file_source(folder, image, content), tuple(notes))


def _coarse(root: Path, wanted: Sequence[str]) -> Annotated:
    known = ("category", *GROUPS)
    check_attributes(wanted, known, f"the coarse annotations of {root}")
    rows = read_rows(root / _EVAL, "the list of splits")
    cells = columns(rows, ("image_name", "evaluation_status"))
    image = strings(cells["image_name"])
    check_inside(pictures(root), image, rows.path, unit="line", first=rows.first)
    distinct(rows, cells["image_name"])
    split = codes(rows, cells["evaluation_status"], STATUS, "evaluation_status").astype(np.int8)
    found, several = _values(root, image, rows.path, [name for name in wanted if name in GROUPS])
    if "category" in wanted:
        found["category"] = _categories(root, image, rows.path)
    listed = read_rows(_anno(root, "list_bbox.txt"), "the list of boxes")
    sides = columns(listed, ("image_name", *CORNERS))
    pixels = corners(listed, sides)[aligned(listed, sides["image_name"], image, rows.path)]
    return Annotated(image, split, {name: found[name] for name in wanted}, several, pixels)


def _anno(root: Path, name: str) -> Path:
    return need(root, DeepFashionReader.name, f"Anno_coarse/{name}", f"Anno/{name}")


def _categories(root: Path, image: NDArray[np.str_], source: Path) -> pa.StringArray:
    """Each image's category by name."""
    names = category_list(read_rows(_anno(root, "list_category_cloth.txt"), "the list of categories"))
    rows = read_rows(_anno(root, "list_category_img.txt"), "the list of the images' categories")
    cells = columns(rows, ("image_name", "category_label"))
    number = category_numbers(rows, cells["category_label"], len(names))
    place = aligned(rows, cells["image_name"], image, source)
    return text(names, number[place] - 1)


def _values(
    root: Path, image: NDArray[np.str_], source: Path, wanted: Sequence[str]
) -> tuple[dict[str, pa.StringArray], NDArray[np.bool_]]:
    """Each image's value of each wanted group of attributes, and which images have several of one."""
    several = np.zeros(len(image), dtype=np.bool_)
    if not wanted:
        return {}, several
    listed = read_rows(_anno(root, "list_attr_cloth.txt"), "the list of attributes")
    names, kind = attribute_list(listed)
    for name in wanted:
        if not (kind == GROUPS[name]).any():
            raise UserError(f"{listed.path} has no attribute of type {GROUPS[name]} ({name}): download it again.")
    used = np.flatnonzero(np.isin(kind, [GROUPS[name] for name in wanted]))
    signs = read_signs(_anno(root, "list_attr_img.txt"), "the table of the images' attributes", len(names), used)
    about = signs.names()
    place = aligned(about, about.text, image, source)
    found = {}
    for name in wanted:
        group = np.flatnonzero(kind[used] == GROUPS[name])
        code, many = single(signs.sign[:, group])
        found[name] = text([names[used[i]] for i in group], code[place])
        several |= many[place]
    return found, several
