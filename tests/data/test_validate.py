# SPDX-License-Identifier: MIT
import io
import json
from pathlib import Path

import fakes
import numpy as np
import pytest
from rich.console import Console

from fm_bench.attributes import AttributeSchema
from fm_bench.catalog import Catalog, Dataset, Split
from fm_bench.data.images import FileSource
from fm_bench.data.readers.fashion_product import FashionProductReader
from fm_bench.data.validate import info, print_report, validate


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    """Twelve pictures of six items, four in each split."""
    names = fakes.pictures(tmp_path, 12)
    labels = np.stack([np.arange(12) % 2, np.full(12, 1), np.arange(12) % 3], axis=1).astype(np.int16)
    labels[11, 0] = -1
    schema = AttributeSchema(("colour", "only", "[bold]cut"), (("red", "blue"), ("a", "b"), ("x", "y", "z")))
    split = np.repeat(list(Split), 4).astype(np.int8)
    catalog = Catalog(schema, np.array(names), labels, np.arange(12) // 2, split, np.zeros(12, np.int8))
    return Dataset(catalog, FileSource(tmp_path, "x"), ("a note",))


def shown(report) -> str:
    text = io.StringIO()
    print_report(report, Console(file=text, width=200))
    return text.getvalue()


def test_info_counts(data):
    report = info(data)
    assert json.loads(json.dumps(report)) == report
    assert report["images"] == 12
    assert report["items"] == 6
    assert report["splits"]["val"] == {"images": 4, "items": 2}
    assert report["domains"] == {"shop": 12, "street": 0}
    assert report["label_vectors"] == 7
    colour = report["attributes"]["colour"]
    assert colour["values"] == {"red": 6, "blue": 5}
    assert (colour["missing"], colour["rarest"], colour["most_common"]) == (1, "blue", "red")
    assert colour["labelled"] == pytest.approx(11 / 12)
    near = {(entry["attribute"], entry["value"], entry["split"]): entry["images"] for entry in report["near_empty"]}
    assert near[("only", "a", "test")] == 0
    assert near[("colour", "blue", "train")] == 2
    assert "problems" not in report


def test_info_reads_no_picture(data, tmp_path):
    for path in (tmp_path / "img").iterdir():
        path.unlink()
    assert info(data)["images"] == 12


def test_sound_data_have_no_problem(data):
    report = validate(data)
    assert report["problems"] == []
    assert report["unreadable"] == {"images": 0, "found": {}}
    assert report["duplicates"]["groups"] == 0
    assert "can be read; no problem found" in shown(report)


def test_unreadable_pictures_are_grouped_by_what_was_found(data, tmp_path):
    whole = (tmp_path / "img/0000.jpg").read_bytes()
    for number, content in ((2, whole[:300]), (5, whole[:300]), (7, fakes.LFS_POINTER), (8, b"")):
        (tmp_path / f"img/{number:04d}.jpg").write_bytes(content)
    (tmp_path / "img/0009.jpg").unlink()
    report = validate(data)
    assert report["unreadable"]["images"] == 5
    assert report["unreadable"]["found"] == {
        "truncated JPEG": ["img/0002.jpg", "img/0005.jpg"],
        "a Git LFS pointer": ["img/0007.jpg"],
        "zero bytes": ["img/0008.jpg"],
        "missing": ["img/0009.jpg"],
    }
    assert report["problems"][0] == "2 pictures cannot be read: truncated JPEG (img/0002.jpg, img/0005.jpg)"
    assert report["duplicates"]["groups"] == 0  # two cut files are no duplicates worth a word
    assert "problem: 1 pictures cannot be read: a Git LFS pointer (img/0007.jpg)" in shown(report)


def test_duplicates_within_and_across_splits(data, tmp_path):
    def copy(source: int, target: int) -> None:
        (tmp_path / f"img/{target:04d}.jpg").write_bytes((tmp_path / f"img/{source:04d}.jpg").read_bytes())

    copy(0, 6)  # train and val, the same labels
    copy(8, 9)  # test twice, other labels
    report = validate(data)
    duplicates = report["duplicates"]
    assert (duplicates["groups"], duplicates["images"]) == (2, 4)
    assert (duplicates["across_splits"], duplicates["conflicting"]) == (1, 1)
    assert duplicates["examples"]["across_splits"] == [["img/0000.jpg", "img/0006.jpg"]]
    assert duplicates["examples"]["conflicting"] == [["img/0008.jpg", "img/0009.jpg"]]
    assert [problem.split(" (")[0] for problem in report["problems"]] == [
        "1 groups of byte-identical pictures are in more than one split",
        "1 groups of byte-identical pictures carry conflicting labels",
    ]


def test_missing_labels_do_not_conflict(data, tmp_path):
    (tmp_path / "img/0011.jpg").write_bytes((tmp_path / "img/0008.jpg").read_bytes())  # colour −1 against red
    report = validate(data)
    assert report["duplicates"]["groups"] == 1
    assert report["problems"] == []


def test_items_across_splits_empty_splits_and_single_values(data):
    catalog = data.catalog
    item = catalog.item.copy()
    item[4] = 0
    split = np.where(catalog.split == Split.TEST, Split.VAL, catalog.split).astype(np.int8)
    schema = AttributeSchema(("colour",), (("red",),))
    labels = np.zeros((12, 1), np.int16)
    report = validate(Dataset(Catalog(schema, catalog.image, labels, item, split, catalog.domain), data.source))
    assert report["problems"] == [
        "1 items have images in more than one split",
        "the test split is empty",
        "attribute 'colour' has a single value, so that no request can change it",
    ]


def test_sources_without_files_are_read_all_the_same(data):
    class Drawn:
        digest = "drawn"

        def read(self, image, size):
            return np.zeros((*size, 3), np.uint8)

    report = validate(Dataset(data.catalog, Drawn()))
    assert report["duplicates"] is None
    assert report["problems"] == []


def test_table_is_shown_with_user_text_as_it_is(data):
    text = shown(info(data))
    assert "│ [bold]cut" in text
    assert "12 images of 6 items: 4 train, 4 val, 4 test" in text
    assert "91.7%" in text
    assert "a note" in text


def test_reader_output_is_sound(tmp_path):
    root = fakes.fashion_product(tmp_path / "fashion")
    assert validate(FashionProductReader(str(root)).read())["problems"] == []
