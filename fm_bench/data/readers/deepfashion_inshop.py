# SPDX-License-Identifier: MIT
"""*DeepFashion: In-shop Clothes Retrieval*: 52,712 shop photos of 7,982 items, each in several poses.

Source: https://mmlab.ie.cuhk.edu.hk/projects/DeepFashion.html (Liu et al., CVPR 2016), as its authors hand it out::

    ROOT/Eval/list_eval_partition.txt                     image_name item_id evaluation_status (train, query, gallery)
    ROOT/Anno/list_item_inshop.txt                        a count, then item ids without column names
    ROOT/Anno/list_bbox_inshop.txt                        image_name clothes_type pose_type x_1 y_1 x_2 y_2
    ROOT/Anno/attributes/list_attr_{cloth,items}.txt      463 names; 1, −1 or 0 of each per item
    ROOT/Anno/attributes/list_color_cloth.txt             image_name and a colour, which may hold spaces
    ROOT/Anno/list_description_inshop.json                item, color and description
    ROOT/img/  or Img/img/                                WOMEN/Dresses/id_00000002/02_1_front.jpg

Older copies have the files of ``attributes/`` in ``Anno/`` itself, and some lack them. Boxes belong to the pictures of
``img.zip``, not to those of ``img_highres.zip``.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fm_bench.catalog import Catalog, Dataset, Domain, Split, check_splits
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
    shares_of,
    split_by_content,
)
from fm_bench.data.readers.deepfashion_files import (
    CLOTHES,
    Listed,
    boxes,
    check_items,
    check_root,
    find,
    path_part,
    pictures,
    text,
    without_boxes,
)
from fm_bench.data.readers.lists import codes, columns, distinct, places, read_rows, read_signs, strings
from fm_bench.data.sniff import read_table_bytes
from fm_bench.errors import UserError
from fm_bench.files import user_path
from fm_bench.wording import counted

DEFAULT = ("gender", "category", "colour", "clothes_type")

POSES = ("front", "side", "back", "zoom_out", "zoom_in", "stand_alone")
"""What ``pose_type`` 1 to 6 are."""

STATUS = ("train", "query", "gallery")

_EVAL = "Eval/list_eval_partition.txt"


@dataclass(frozen=True)
class InShopReader:
    """DeepFashion's In-shop Clothes Retrieval Benchmark: its queries ask, and its gallery alone is searched.

    Items are the data's own. The validation split is cut from the training items, since the authors give none.

    Args:
        root: folder that holds ``Anno/``, ``Eval/`` and ``img/``.
        attributes: names, as a list or comma text; by default gender, category, colour and clothes_type, as far as
            their files are there. Also pose, and each of the 463 attributes of the items by its name (yes or no).
        min_count: values on fewer images count as missing; the images stay.
        val_share: share of the training items for validation.
        on_error: refuse pictures that cannot be read, or leave them out.
        split_seed: another seed, another validation split.
    """

    name: ClassVar[str] = "deepfashion-inshop"
    aspect: ClassVar[float] = 1.0

    root: str
    attributes: list[str] | str | None = None
    min_count: int = 20
    val_share: float = 0.06
    on_error: OnError = "fail"
    split_seed: int = 0

    def read(self) -> Dataset:
        """The catalogue, with boxes, its pictures and its queries.

        Raises:
            UserError: if the folder or its files are missing, damaged or do not fit together, an attribute is unknown,
                or nothing is left; names file and line.
        """
        root = user_path(self.root)
        chosen = names_of(self.attributes)
        shares = shares_of(self.val_share, 0)
        check_root(root, self.name, _EVAL)
        rows = read_rows(root / _EVAL, "the list of splits")
        cells = columns(rows, ("image_name", "item_id", "evaluation_status"))
        image = strings(cells["image_name"])
        folder = pictures(root)
        check_inside(folder, image, rows.path, unit="line", first=rows.first)
        distinct(rows, cells["image_name"])
        check_items(root / "Anno/list_item_inshop.txt", rows, cells["item_id"])
        status = codes(rows, cells["evaluation_status"], STATUS, "evaluation_status")
        listed = Listed.read(root / "Anno/list_bbox_inshop.txt", image, {"clothes_type": CLOTHES, "pose_type": POSES})
        found, notes = self._columns(root, image, cells["item_id"], listed, chosen)
        content = content_digests(folder, image)
        same = groups(content)
        item = np.asarray(cells["item_id"].dictionary_encode().indices, dtype=np.int64)
        encoded = encode(found, same, min_count=self.min_count, chosen=chosen is not None, where=str(root))
        split = np.where(status == STATUS.index("train"), Split.TRAIN, Split.TEST).astype(np.int8)
        train = split == Split.TRAIN
        part = {Split.VAL: shares[Split.VAL]}
        split[train] = split_by_content(content[train], groups(item[train], same[train]), part, self.split_seed)
        box, told = (None, []) if listed is None else boxes(folder, image, listed.pixels)
        domain = np.full(len(image), Domain.SHOP, dtype=np.int8)
        catalog = Catalog(encoded.schema, image, encoded.labels, item, split, domain, box)
        check_splits(catalog, str(root))
        queries = np.flatnonzero(status == STATUS.index("query"))
        notes += [*_alone(item, status), *without_boxes(listed), *told, *encoded.notes, *duplicates(same)]
        notes.append(f"{self.val_share:.0%} of the training items are taken for val, which the data do not have")
        return Dataset(catalog, file_source(folder, image, content), tuple(notes), queries=queries)

    def _columns(
        self,
        root: Path,
        image: NDArray[np.str_],
        item: pa.StringArray,
        listed: Listed | None,
        chosen: Sequence[str] | None,
    ) -> tuple[dict[str, pa.StringArray], list[str]]:
        """The text of each chosen attribute, or of every default one that the files have."""
        known = {"gender": path_part(image, 1), "category": path_part(image, 2)}
        if listed is not None:
            known |= {"clothes_type": listed.types["clothes_type"], "pose": listed.types["pose_type"]}
        if (colour := _colours(root, image, item)) is not None:
            known["colour"] = colour
        if chosen is None:
            absent = [name for name in DEFAULT if name not in known]
            notes = [f"{', '.join(absent)}: the files do not say"] if absent else []
            return {name: known[name] for name in DEFAULT if name in known}, notes
        known |= _item_attributes(root, item, [name for name in chosen if name not in known], list(known))
        return {name: known[name] for name in chosen}, []


def _alone(item: NDArray[np.int64], status: NDArray[np.int64]) -> list[str]:
    """A note on queries whose item is not in the gallery."""
    asked, searched = item[status == STATUS.index("query")], item[status == STATUS.index("gallery")]
    count = int((~np.isin(asked, searched)).sum())
    return [f"{counted(count, 'query is', 'queries are')} of items that are not in the gallery"] if count else []


def _attribute_file(root: Path, name: str) -> Path | None:
    return find(root, f"Anno/attributes/{name}", f"Anno/{name}")


def _colours(root: Path, image: NDArray[np.str_], item: pa.StringArray) -> pa.StringArray | None:
    """Each image's colour, or its item's where only the descriptions say one and no other; None without these files."""
    if path := _attribute_file(root, "list_color_cloth.txt"):
        rows = read_rows(path, "the list of colours")
        cells = columns(rows, ("image_name", "color"), spaces="last")
        place = places(rows, cells["image_name"], image)
        return cells["color"].take(pa.array(place, mask=place < 0))
    path = root / "Anno/list_description_inshop.json"
    if not path.is_file():
        return None
    try:
        entries = json.loads(read_table_bytes(path, "the items' descriptions"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not readable JSON ({error}): download it again.") from error
    colour: dict[str, set[str]] = {}
    for entry in entries if isinstance(entries, list) else []:
        of, said = (entry.get("item"), entry.get("color")) if isinstance(entry, dict) else (None, None)
        if isinstance(of, str) and isinstance(said, str):
            colour.setdefault(of, set()).add(said)
    if not colour:
        return None
    place = np.asarray(pc.index_in(item, pa.array(list(colour), pa.string())).fill_null(-1))
    single = np.array([len(said) == 1 for said in colour.values()])
    return text([min(said) for said in colour.values()], np.where(single[place], place, -1))


def _item_attributes(
    root: Path, item: pa.StringArray, wanted: Sequence[str], known: Sequence[str]
) -> dict[str, pa.StringArray]:
    """Attributes of items by name: yes, no or, where nobody knows, missing."""
    if not wanted:
        return {}
    listed, table = (_attribute_file(root, f"list_attr_{name}.txt") for name in ("cloth", "items"))
    names = read_rows(listed, "the list of attributes").text.to_pylist() if listed and table else []
    check_attributes(wanted, [*known, *names], str(root), shown=12)
    assert table is not None  # or no name is known
    used = np.array([names.index(name) for name in wanted])
    signs = read_signs(table, "the table of the items' attributes", len(names), used)
    about = signs.names()
    place = places(about, about.text, strings(item))
    code = np.where((place[:, None] < 0) | (signs.sign[place] == 0), -1, signs.sign[place] > 0)
    return {name: text(["no", "yes"], code[:, i]) for i, name in enumerate(wanted)}
