# SPDX-License-Identifier: MIT
import shutil
from pathlib import Path

import fakes
import fakes_darn
import numpy as np
import pytest

from fm_bench.catalog import Dataset, Split
from fm_bench.data.readers.darn import ATTRIBUTES, DarnReader
from fm_bench.errors import UserError


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fakes_darn.write(tmp_path_factory.mktemp("data") / "darn")


@pytest.fixture
def copy(fake: Path, tmp_path: Path) -> Path:
    """Lists to be damaged, and the pictures that they name by a link within the folder."""
    root = tmp_path / "darn"
    root.mkdir()
    for path in fake.glob("*.txt"):
        shutil.copy(path, root)
    shutil.copytree(fake / "pic", root / "pic", copy_function=lambda a, b: Path(b).hardlink_to(a))
    return root


def read(root: Path) -> Dataset:
    return DarnReader(str(root)).read()


def edit(root: Path, name: str, line: int, text: str) -> None:
    lines = (root / name).read_text().splitlines()
    lines[line - 1] = text
    (root / name).write_text("\n".join(lines) + "\n")


def test_lists_become_splits_and_pairs_become_labels(fake):
    catalog, source, notes, *_ = read(fake)
    assert catalog.schema.names == tuple(ATTRIBUTES)
    assert catalog.schema.sizes == fakes_darn.SIZES
    assert np.bincount(catalog.split).tolist() == [120, 40, 80]
    expected = np.full((240, 9), -1)
    for name, first in (("label_train", 0), ("query_valid", 120), ("candidate_valid", 120), ("query_test", 160)):
        for line in (fake / f"{name}.txt").read_text().splitlines():
            row, *pairs = map(int, line.split())
            expected[first + row, pairs[::2]] = pairs[1::2]
    assert (catalog.labels[:160] == expected[:160]).all()
    assert (catalog.labels[160:][expected[160:] >= 0] == expected[160:][expected[160:] >= 0]).all()
    assert (catalog.labels[:120] == -1).any()
    assert source.read(catalog.image[0], (32, 32)).shape == (32, 32, 3)
    assert any("do not tell street photos" in note for note in notes)
    assert any("2 listed pictures have no label" in note for note in notes)


def test_pictures_that_are_only_asked_about(fake):
    data = read(fake)
    assert data.queries.tolist() == list(range(160, 240, 5))
    assert (data.catalog.split[data.queries] == Split.TEST).all()


def test_paths_may_leave_out_the_folder_of_the_pictures(copy):
    before = read(copy).catalog
    for name in ("train", "valid", "test"):
        path = copy / f"filenames_{name}.txt"
        path.write_text(path.read_text().replace("pic/", ""))
    assert read(copy).catalog.digest == before.digest
    with (copy / "filenames_test.txt").open("a") as file:
        file.write("x" * 5000 + "\n")  # longer than any file system's names
    assert read(copy).catalog.image[:-1].tolist() == before.image.tolist()


def test_labels_that_contradict_each_other_are_missing(copy):
    with (copy / "label_train.txt").open("a") as file:
        file.write("7 2 54\n7 2 54\n")
    data = read(copy)
    assert data.catalog.labels[7, 2] == -1
    assert any("1 label is given twice" in note for note in data.notes)


def test_where_the_lists_are(fake, tmp_path):
    with pytest.raises(UserError, match=r"nowhere is not a folder: take data\.zip .*Maryeon/asenpp"):
        read(tmp_path / "nowhere")
    shutil.copytree(fake, tmp_path / "data/DARN")
    with pytest.raises(UserError, match=r"pass --data\.root .*data/DARN"):
        read(tmp_path)
    shutil.rmtree(tmp_path / "data")
    (tmp_path / "darn_url.txt").write_text("a.jpg http://example.invalid/a.jpg\n")
    with pytest.raises(UserError, match=r"holds darn_url\.txt, which lists addresses of images and no labels"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("name", "line", "text", "found"),
    [
        ("label_train.txt", 3, "2 0", r"label_train\.txt line 3 has 2 cells"),
        ("label_train.txt", 3, "2 0 1 4", r"label_train\.txt line 3 has 4 cells"),
        ("label_train.txt", 3, "", r"label_train\.txt line 3 has 1 cells"),
        ("label_train.txt", 3, "2 0 red", r"label_train\.txt line 3 has 'red'"),
        ("label_train.txt", 3, "2 0 -1", r"label_train\.txt line 3 has '-1'"),
        ("label_train.txt", 3, "120 0 1", r"label_train\.txt line 3 names a picture of which there are 120"),
        ("label_train.txt", 3, "2 9 1", r"label_train\.txt line 3 names an attribute of which there are 9"),
        ("query_test.txt", 4, "3 3 7", r"query_test\.txt line 4 names a value"),
        ("candidate_valid.txt", 4, "40 3 1", r"candidate_valid\.txt line 4 names a picture of which there are 40"),
        ("filenames_test.txt", 4, "", r"filenames_test\.txt line 4 is empty"),
        ("filenames_test.txt", 4, "pic/../../x.jpg", r"filenames_test\.txt line 4 names .* outside"),
    ],
)
def test_damaged_lines_are_named(copy, name, line, text, found):
    edit(copy, name, line, text)
    with pytest.raises(UserError, match=found):
        read(copy)


def test_missing_or_other_files(copy):
    (copy / "query_test.txt").write_bytes(fakes.HTML_PAGE)
    with pytest.raises(UserError, match=r"query_test\.txt should be .* holds an HTML page"):
        read(copy)
    (copy / "query_test.txt").unlink()
    with pytest.raises(UserError, match=r"query_test\.txt could not be read \(No such file"):
        read(copy)
