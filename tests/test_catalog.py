# SPDX-License-Identifier: MIT
"""The catalogue refuses what does not fit, never changes, and survives its file."""

import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fm_bench.attributes import AttributeSchema
from fm_bench.catalog import Catalog, Split, check_splits
from fm_bench.errors import UserError

SCHEMA = AttributeSchema(("colour", "sleeve"), (("red", "blue", "green"), ("long", "short")))


def catalogue(**changes: Any) -> Catalog:
    columns: dict[str, Any] = {
        "schema": SCHEMA,
        "image": np.array(["a/1.jpg", "ü 2.jpg", "3.jpg", "4.jpg"]),
        "labels": np.array([[0, 1], [2, -1], [-1, 0], [1, 1]], dtype=np.int16),
        "item": np.array([7, 7, 8, 9], dtype=np.int64),
        "split": np.array([0, 1, 2, 0], dtype=np.int8),
        "domain": np.array([0, 1, 0, 0], dtype=np.int8),
        "box": None,
    }
    return Catalog(**columns | changes)


def same(one: Catalog, other: Catalog) -> bool:
    pairs = [(getattr(one, f.name), getattr(other, f.name)) for f in dataclasses.fields(Catalog)[1:]]
    return one.schema == other.schema and all(
        (a is None and b is None) or (a.dtype == b.dtype and np.array_equal(a, b)) for a, b in pairs
    )


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"item": np.zeros(3, np.int64)}, r"different lengths \[3, 4\]"),
        ({"labels": np.zeros((4, 3), np.int16)}, "there are 2 attributes"),
        ({"labels": np.array([[0, 2]] * 4, np.int16)}, "'sleeve' has labels from 2 to 2"),
        ({"labels": np.array([[-2, 0]] * 4, np.int16)}, "'colour' has labels from -2 to -2"),
        ({"split": np.array([0, 1, 2, 3], np.int8)}, "column 'split' holds"),
        ({"domain": np.array([0, 1, -1, 0], np.int8)}, "column 'domain' holds"),
        ({"box": np.zeros((4, 3), np.float32)}, "boxes have shape"),
    ],
)
def test_columns_that_do_not_fit_are_refused(changes: dict[str, Any], found: str) -> None:
    with pytest.raises(UserError, match=found):
        catalogue(**changes)


def test_no_column_can_be_changed() -> None:
    catalog = catalogue(box=np.zeros((4, 4), np.float32))
    for field in dataclasses.fields(Catalog)[1:]:
        with pytest.raises(ValueError, match="read-only"):
            getattr(catalog, field.name)[0] = getattr(catalog, field.name)[1]


def test_rows_of_splits_ascend() -> None:
    catalog = catalogue()
    assert catalog.rows(Split.TRAIN).tolist() == [0, 3]
    assert catalog.rows(Split.TEST, Split.TRAIN).tolist() == [0, 2, 3]
    assert catalog.rows().tolist() == []


def test_select_keeps_the_given_order() -> None:
    chosen = catalogue(box=np.arange(16, dtype=np.float32).reshape(4, 4)).select(np.array([2, 0]))
    assert chosen.image.tolist() == ["3.jpg", "a/1.jpg"]
    assert chosen.labels.tolist() == [[-1, 0], [0, 1]]
    assert chosen.item.tolist() == [8, 7]
    assert chosen.box is not None
    assert chosen.box[:, 0].tolist() == [8, 0]


def test_the_digest_sees_every_column_and_the_order_of_attributes() -> None:
    turned = AttributeSchema(SCHEMA.names[::-1], SCHEMA.values[::-1])
    others = [
        catalogue(),
        catalogue(image=np.array(list("abcd"))),
        catalogue(labels=np.zeros((4, 2), np.int16)),
        catalogue(item=np.arange(4)),
        catalogue(split=np.zeros(4, np.int8)),
        catalogue(domain=np.zeros(4, np.int8)),
        catalogue(box=np.zeros((4, 4), np.float32)),
        catalogue(schema=turned, labels=np.zeros((4, 2), np.int16)),
        catalogue().select(np.array([1, 0, 2, 3])),
    ]
    assert len({catalog.digest for catalog in others}) == len(others)
    assert catalogue().digest == catalogue().digest


@pytest.mark.parametrize("box", [None, np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4)])
def test_the_file_gives_the_same_catalogue(tmp_path: Path, box: Any) -> None:
    catalog = catalogue(box=box)
    catalog.save(tmp_path / "catalog.parquet")
    loaded = Catalog.load(tmp_path / "catalog.parquet")
    assert same(catalog, loaded)
    assert loaded.digest == catalog.digest


def test_an_empty_catalogue_can_be_kept(tmp_path: Path) -> None:
    catalogue().select(np.empty(0, np.int64)).save(tmp_path / "none.parquet")
    assert len(Catalog.load(tmp_path / "none.parquet")) == 0


def test_what_is_not_a_catalogue_is_refused(tmp_path: Path) -> None:
    catalogue().save(tmp_path / "whole.parquet")
    table = pq.read_table(tmp_path / "whole.parquet")
    pq.write_table(table.drop_columns(["label:sleeve"]), tmp_path / "column.parquet")
    pq.write_table(table.replace_schema_metadata(None), tmp_path / "metadata.parquet")
    pq.write_table(table.replace_schema_metadata({"fm_bench": "{"}), tmp_path / "json.parquet")
    pq.write_table(table.replace_schema_metadata({"fm_bench": "[1]"}), tmp_path / "list.parquet")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "other.parquet")
    (tmp_path / "text.parquet").write_text("version https://git-lfs.github.com/spec/v1")
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "whole.parquet").read_bytes()[:-100])
    for name in ("column", "metadata", "json", "list", "other", "text", "cut", "missing"):
        with pytest.raises(UserError, match=f"{name}.parquet is not a catalogue of fm_bench"):
            Catalog.load(tmp_path / f"{name}.parquet")


def test_an_empty_split_is_named() -> None:
    check_splits(catalogue(), "table x.csv")
    with pytest.raises(UserError, match=r"table x\.csv has no image in the test split"):
        check_splits(catalogue(split=np.zeros(4, np.int8)), "table x.csv", (Split.TRAIN, Split.TEST))


def test_two_hundred_thousand_rows_load_fast(tmp_path: Path) -> None:
    count = 200_000
    schema = AttributeSchema(tuple(f"a{m}" for m in range(12)), (tuple(f"v{i}" for i in range(13)),) * 12)
    labels = np.random.default_rng(0).integers(-1, 13, (count, 12)).astype(np.int16)
    index, zeros = np.arange(count), np.zeros(count, np.int8)
    Catalog(schema, np.char.add("images/", index.astype(np.str_)), labels, index, zeros, zeros).save(
        tmp_path / "c.parquet"
    )
    begin = time.process_time()
    assert len(Catalog.load(tmp_path / "c.parquet")) == count
    assert time.process_time() - begin < 1
