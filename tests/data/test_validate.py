# SPDX-License-Identifier: MIT
import io
import json
from dataclasses import replace
from pathlib import Path

import fakes
import numpy as np
import pytest
from catalogues import catalogue
from PIL import Image
from rich.console import Console

from fm_bench.attributes import AttributeSchema
from fm_bench.catalog import Catalog, Dataset, Domain, Split, UnreadableImageError
from fm_bench.data import checks
from fm_bench.data.images import FileSource
from fm_bench.data.mending import mended
from fm_bench.data.readers.fashion_product import FashionProductReader
from fm_bench.data.requests import Requests
from fm_bench.data.validate import info, print_report, validate
from fm_bench.errors import UserError


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


def test_values_with_enough_images_are_not_near_empty(data, monkeypatch):
    monkeypatch.setattr("fm_bench.data.validate.NEAR_EMPTY", 2)
    found = {
        (entry["attribute"], entry["value"], entry["split"]): entry["images"] for entry in info(data)["near_empty"]
    }
    assert ("colour", "blue", "train") not in found  # which two images have
    assert found[("colour", "blue", "test")] == 1


def test_info_reads_no_picture(data, tmp_path):
    for path in (tmp_path / "img").iterdir():
        path.unlink()
    assert info(data)["images"] == 12


def findings(report) -> dict[str, tuple[str, int]]:
    """Level and count of each check that found something."""
    return {finding["check"]: (finding["level"], finding["count"]) for finding in report["findings"]}


def copy(root: Path, source: int, target: int) -> None:
    (root / f"img/{target:04d}.jpg").write_bytes((root / f"img/{source:04d}.jpg").read_bytes())


def test_sound_data_have_no_problem(data):
    report = validate(data)
    assert report["problems"] == []
    assert report["findings"] == []
    assert report["unreadable"] == {"images": 0, "found": {}}
    assert report["attributes"]["colour"]["range"] == [-1, 1]
    assert json.loads(json.dumps(report)) == report
    assert "every one of the 12 pictures can be read; no problem found" in shown(report)


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
    assert {finding["check"] for finding in report["findings"]} == {"unreadable"}  # two cut files are no duplicates
    assert "problem: 1 picture cannot be read: a Git LFS pointer (img/0007.jpg)" in shown(report)


def test_what_the_reader_mends_is_a_note(data, tmp_path):
    (tmp_path / "img/0007.jpg").write_bytes(b"")
    report = validate(data, on_error="skip")
    assert report["problems"] == []
    assert findings(report) == {"unreadable": ("note", 1)}
    assert report["findings"][0]["mended_by"] == "left out by --data.on_error skip"
    assert "all but 1 of the 12 pictures can be read; no problem found" in shown(report)


def test_duplicates_within_and_across_splits(data, tmp_path):
    copy(tmp_path, 0, 6)  # train and val, the same labels
    copy(tmp_path, 8, 9)  # test twice, other labels
    copy(tmp_path, 1, 2)  # train twice, other labels
    report = validate(data)
    assert findings(report)["duplicates"] == ("note", 3)
    assert findings(report)["duplicates across splits"] == ("problem", 1)
    conflicts = [finding for finding in report["findings"] if finding["check"] == "conflicting labels"]
    assert [(finding["level"], finding["count"]) for finding in conflicts] == [("problem", 1), ("note", 1)]
    assert report["problems"][0] == (
        "1 group of byte-identical pictures is in more than one split (img/0000.jpg = img/0006.jpg)"
    )
    assert report["problems"][1].startswith("1 group of byte-identical pictures carries conflicting labels (")
    assert "groups of pictures are byte-identical, 6 pictures in all (" in shown(report)


def test_missing_labels_do_not_conflict(data, tmp_path):
    copy(tmp_path, 8, 11)  # colour −1 against red
    report = validate(data)
    assert findings(report) == {"duplicates": ("note", 1)}
    assert "group of pictures is byte-identical, 2 pictures in all (" in shown(report)


def test_pictures_saved_again_are_look_alikes(data, tmp_path):
    picture = Image.open(tmp_path / "img/0000.jpg")
    picture.resize((120, 160)).save(tmp_path / "img/0001.jpg", quality=60)
    picture.save(tmp_path / "img/0005.jpg", quality=50)
    report = validate(data)
    assert findings(report) == {"look-alikes": ("note", 1), "look-alikes across splits": ("note", 2)}
    assert report["findings"][0]["examples"] == [["img/0000.jpg", "img/0001.jpg"]]
    assert [finding["text"] for finding in report["findings"]] == [
        "pair of pictures looks the same, though the files differ",
        "pairs of pictures of different splits look the same",
    ]


def test_items_across_splits_empty_splits_and_single_values(data):
    catalog = data.catalog
    item = catalog.item.copy()
    item[4] = 0
    split = np.where(catalog.split == Split.TEST, Split.VAL, catalog.split).astype(np.int8)
    schema = AttributeSchema(("colour",), (("red",),))
    labels = np.zeros((12, 1), np.int16)
    report = validate(Dataset(Catalog(schema, catalog.image, labels, item, split, catalog.domain), data.source))
    assert report["problems"] == [
        "1 item has images in more than one split (img/0000.jpg = img/0001.jpg = img/0004.jpg)",
        "0 pictures are in the test split: it is empty",
        "1 attribute has a single value, so that no request can change it (colour)",
    ]


def test_boxes_and_rows(data):
    box = np.tile(np.float32([0.1, 0.1, 0.9, 0.9]), (12, 1))
    box[3] = [0.5, 0.1, 0.4, 0.9]
    box[4, 0] = np.nan
    image = data.catalog.image.copy()
    image[1] = image[0]
    report = validate(data._replace(catalog=replace(data.catalog, box=box, image=image)))
    assert findings(report)["boxes"] == ("problem", 2)
    assert findings(report)["rows"] == ("note", 1)
    assert {finding["text"] for finding in report["findings"]} >= {
        "boxes are empty or lie outside their picture",
        "picture stands in more than one row",
    }
    (found,) = checks.boxes(replace(data.catalog, box=np.tile(box[3], (12, 1))).select(np.arange(1)))
    assert found.sentence == "1 box is empty or lies outside its picture (img/0000.jpg)"


def test_street_photos_without_a_shop_photo(data):
    domain = np.zeros(12, np.int8)
    domain[[0, 8, 10]] = Domain.STREET  # items 0, 4 and 5, which have another picture
    assert validate(data._replace(catalog=replace(data.catalog, domain=domain)))["findings"] == []
    domain = domain.copy()
    domain[[9, 11, 1]] = Domain.STREET  # nothing but street photos of them
    report = validate(data._replace(catalog=replace(data.catalog, domain=domain)))
    partners = [finding for finding in report["findings"] if finding["check"] == "partners"]
    assert [(finding["level"], finding["count"]) for finding in partners] == [("note", 2), ("problem", 4)]
    assert [finding["text"] for finding in partners] == [
        "street photos of the train split have no shop photo of their item there",
        "street photos of the test split have no shop photo of their item there: all of them",
    ]


def test_queries_may_ask_for_attributes_alone(data):
    alone = replace(data.catalog, item=np.arange(len(data.catalog)))
    report = validate(data._replace(catalog=alone, queries=np.array([8])))
    assert report["problems"] == []
    (found,) = [finding for finding in report["findings"] if finding["check"] == "partners"]
    assert (found["level"], found["count"]) == ("note", 1)
    assert found["text"] == "query of the test split has no shop photo of its item there: the only one"


def test_queries_and_requests(data):
    labels = data.catalog.labels
    target = np.stack([labels[9], labels[9], labels[9]]).astype(np.int16)
    target[0, 0] = 1 - target[0, 0]  # what no picture of the gallery has beside its other labels
    attribute, value = np.full((3, 2), -1, np.int16), np.full((3, 2), -1, np.int16)
    attribute[0, 0], value[0, 0] = 0, target[0, 0]
    requests = Requests(data.catalog.schema, np.array([8, 8, 2]), attribute, value, target)
    report = validate(data._replace(queries=np.array([8, 11, 99]), requests=requests))
    assert [finding["check"] for finding in report["findings"]] == ["dangling ids", "dangling ids", "requests"]
    assert [finding["examples"] for finding in report["findings"] if finding["check"] == "dangling ids"] == [[99], [2]]
    assert [finding["examples"] for finding in report["findings"] if finding["check"] == "requests"] == [[0]]
    assert [finding["text"] for finding in report["findings"]] == [
        "query is about a row that does not exist or is not of the test split",
        "request is about a row that does not exist or is not of the test split",
        "request has no picture in the gallery that matches all labels of its target",
    ]
    report = validate(data._replace(queries=np.array([8, 98, 99]), requests=requests.select(np.array([0, 0]))))
    assert report["problems"] == [
        "2 queries are about rows that do not exist or are not of the test split (98, 99)",
        "2 requests have no picture in the gallery that matches all labels of their target (0, 1)",
    ]


def test_answers_leave_the_query_aside():
    catalog = catalogue([[0, 0], [0, 0], [1, 0], [0, -1]], (2, 2))
    nothing = np.full((2, 2), -1, np.int16)
    target = np.int16([[0, 0], [1, 0]])
    requests = Requests(catalog.schema, np.array([0, 2]), nothing, nothing, target)
    assert checks.answers(requests, catalog, np.arange(4)).tolist() == [1, 0]
    assert checks.answers(requests, catalog, np.array([1, 2])).tolist() == [1, 0]
    loose = Requests(catalog.schema, np.array([0]), nothing[:1], nothing[:1], np.int16([[0, -1]]))
    assert checks.answers(loose, catalog, np.arange(4)).tolist() == [2]


def test_fix_lists_what_is_left_out(data, tmp_path):
    (tmp_path / "img/0007.jpg").write_bytes(b"")
    copy(tmp_path, 0, 6)  # train and val: the training copy goes
    copy(tmp_path, 1, 2)  # contradict each other: both go
    copy(tmp_path, 8, 9)  # contradict each other in the test split: they stay
    before = {path: path.read_bytes() for path in sorted((tmp_path / "img").iterdir())}
    report = validate(data, fix=True)
    assert report["problems"] == []
    assert report["fixed"]["pictures"] == 4
    assert "4 pictures are listed in" in shown(report).replace("\n", " ")
    again = mended(data)
    assert again.source.left_out == {f"img/{number:04d}.jpg" for number in (0, 1, 2, 7)}
    assert again.source.digest != data.source.digest
    assert again.notes[-1].startswith("4 pictures are left out")
    with pytest.raises(UnreadableImageError, match="left out"):
        again.source.read("img/0001.jpg", (8, 8))
    report = validate(again, on_error="skip")
    assert report["problems"] == []
    assert findings(report)["left out"] == ("note", 4)
    assert validate(again, on_error="skip", fix=True)["fixed"]["pictures"] == 0
    assert mended(data).source.left_out == again.source.left_out  # nothing listed is forgotten
    assert {path: path.read_bytes() for path in sorted((tmp_path / "img").iterdir())} == before


def test_one_picture_is_told_in_the_singular(data, tmp_path):
    (tmp_path / "img/0007.jpg").write_bytes(b"")
    text = " ".join(shown(validate(data, fix=True)).split())
    assert "1 picture is listed in" in text
    assert "commands with --data.on_error skip leave it out" in text
    assert "picture is left out as an earlier --fix listed (img/0007.jpg)" in text
    rows = data.catalog.select(np.arange(1))
    text = shown(info(data._replace(catalog=replace(rows, domain=np.int8([Domain.STREET])))))
    assert "1 image of 1 item: 1 train, 0 val, 0 test" in text
    assert "1 different label vector; 1 image is a street photo" in text
    assert "only: 2 values have fewer than 5 train images" in text
    single = replace(rows, schema=AttributeSchema(("cut",), (("x",),)), labels=np.zeros((1, 1), np.int16))
    assert "cut: 1 value has fewer than 5 train images" in shown(info(data._replace(catalog=single)))


def test_a_list_counts_for_the_same_data_only(data, tmp_path):
    (tmp_path / "img/0007.jpg").write_bytes(b"")
    validate(data, fix=True)
    other = data._replace(source=FileSource(tmp_path, "other content"))
    assert mended(other) is other
    split = data.catalog.split[::-1].copy()
    other = data._replace(catalog=replace(data.catalog, split=split))
    assert mended(other) is other


def test_sources_without_files_are_read_all_the_same(data):
    class Drawn:
        digest = "drawn"

        def read(self, image, size):
            return np.zeros((*size, 3), np.uint8)

    drawn = Dataset(data.catalog, Drawn())
    report = validate(drawn)
    assert report["problems"] == []
    assert findings(report)["look-alikes"] == ("note", 18)  # all twelve look the same, four in each split
    with pytest.raises(UserError, match="are in no files, so that --fix has none to leave out"):
        validate(drawn, fix=True)
    assert mended(drawn) is drawn


def test_table_is_shown_with_user_text_as_it_is(data):
    text = shown(info(data))
    assert "│ [bold]cut" in text
    assert "12 images of 6 items: 4 train, 4 val, 4 test" in text
    assert "91.7%" in text
    assert "a note" in text


def test_reader_output_is_sound(tmp_path):
    root = fakes.fashion_product(tmp_path / "fashion")
    assert validate(FashionProductReader(str(root)).read())["problems"] == []
