# SPDX-License-Identifier: MIT
import json
import shutil
from pathlib import Path

import fakes
import fakes_shopping100k
import numpy as np
import pytest

from fm_bench.catalog import Split
from fm_bench.cli import main
from fm_bench.config import configure
from fm_bench.data.images import cached_images
from fm_bench.data.readers.shopping100k import ATTRIBUTES, Shopping100kReader
from fm_bench.errors import UserError


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fakes_shopping100k.write(tmp_path_factory.mktemp("data") / "shopping100k")


@pytest.fixture
def copy(fake: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(fake, tmp_path / "shopping100k"))


@pytest.fixture
def folder(fake: Path, tmp_path: Path) -> Path:
    """The split files alone, to be damaged; the pictures stay where they are."""
    return Path(shutil.copytree(fakes_shopping100k.splits(fake), tmp_path / "splits"))


def read(root: Path, **options: object):
    return Shopping100kReader(str(root), **options).read()


def edit(folder: Path, name: str, line: int, text: str | None) -> None:
    path = folder / name
    lines = path.read_text().splitlines()
    lines[line - 1 : line] = [] if text is None else [text]
    path.write_text("\n".join(lines) + "\n")


def test_lists_become_splits_and_codes_become_labels(fake):
    catalog, source, notes, *_ = read(fake)
    assert catalog.schema.names == tuple(ATTRIBUTES)
    assert catalog.schema.sizes == fakes_shopping100k.SHOPPING100K
    assert np.bincount(catalog.split).tolist() == [108, 12, 60]
    assert (catalog.split[120:] == Split.TEST).all()
    folder = fakes_shopping100k.splits(fake)
    listed = (folder / "imgs_train.txt").read_text().split() + (folder / "imgs_test.txt").read_text().split()
    assert catalog.image.tolist() == [f"Images/{name}" for name in listed]
    codes = np.concatenate([np.loadtxt(folder / f"labels_{which}.txt", dtype=int) for which in ("train", "test")])
    for m, block in enumerate(np.split(codes, np.cumsum(catalog.schema.sizes)[:-1], axis=1)):
        assert catalog.labels[:, m].tolist() == [row.index(1) if 1 in row else -1 for row in block.tolist()]
    assert (catalog.labels[::5, 6] == -1).all()
    assert source.read(catalog.image[0], (40, 32)).shape == (40, 32, 3)
    assert any("published requests" in note for note in notes)


def test_requests_are_those_of_the_files(fake):
    catalog, _, notes, _, queries, requests, *_ = read(fake)
    folder = fakes_shopping100k.splits(fake)
    reference = np.loadtxt(folder / "ref_test.txt", dtype=int)
    indicator = np.loadtxt(folder / "indfull_test.txt", dtype=int)
    assert queries is None  # the references are searched, too
    assert requests.query.tolist() == (reference + 120).tolist()
    assert (requests.indicator(np.arange(len(requests))).numpy() == (indicator == 1)).all()
    targets = fakes_shopping100k.one_hot(requests.target, catalog.schema.sizes)
    assert (targets == np.loadtxt(folder / "gt_test.txt", dtype=int)).all()
    removed = fakes_shopping100k.one_hot(catalog.labels[requests.query], catalog.schema.sizes)
    assert (removed[indicator == -1] == 1).all()  # what is removed is the picture's own label
    lacked = int((indicator >= 0).all(axis=1).sum())
    assert lacked > 0
    assert any(f"{lacked:,} of them add an attribute" in note for note in notes)
    assert not any("that they do not name" in note for note in notes)


def test_requests_that_want_more_than_they_say_are_told(fake, folder):
    targets = (folder / "gt_test.txt").read_text().splitlines()
    codes = np.array(targets[0].split())
    wanted = read(fake).requests.attribute[0, 0]
    other = 2 if wanted != 2 else 10
    start = sum(fakes_shopping100k.SHOPPING100K[:other])
    codes[start : start + fakes_shopping100k.SHOPPING100K[other]] = "0"
    edit(folder, "gt_test.txt", 1, " ".join(codes))
    data = read(fake, splits=str(folder))
    assert data.requests.target[0, other] == -1
    assert any(note.startswith("1 of them want another value of an attribute") for note in data.notes)


def test_pictures_in_both_lists_stay_and_are_told(copy):
    catalog = read(copy).catalog
    (copy / catalog.image[150]).write_bytes((copy / catalog.image[0]).read_bytes())
    data = read(copy)
    assert data.catalog.item[150] == data.catalog.item[0]
    assert data.catalog.split[150] == Split.TEST != data.catalog.split[0]
    assert "1 picture is in both lists, byte for byte: kept in both" in data.notes


def test_two_changes_in_ascending_order(fake, folder):
    row = int(np.flatnonzero(read(fake).requests.attribute[:, 0] == 2)[0])
    indicator, target = (np.loadtxt(folder / name, dtype=int)[row] for name in ("indfull_test.txt", "gt_test.txt"))
    offset = sum(fakes_shopping100k.SHOPPING100K[:10])
    block = slice(offset, offset + 9)
    before = target[block].argmax()
    indicator[block], target[block] = 0, 0
    indicator[offset + before], indicator[offset + (before + 1) % 3], target[offset + (before + 1) % 3] = -1, 1, 1
    edit(folder, "indfull_test.txt", row + 1, " ".join(map(str, indicator)))
    edit(folder, "gt_test.txt", row + 1, " ".join(map(str, target)))
    requests = read(fake, splits=str(folder)).requests
    assert requests.attribute[row].tolist() == [2, 10]
    assert requests.value[row, 1] == (before + 1) % 3


def test_other_data_in_the_same_files_has_numbered_attributes(tmp_path):
    root = fakes_shopping100k.write(tmp_path, 40, 20, sizes=fakes_shopping100k.DEEPFASHION)
    catalog = read(root).catalog
    assert catalog.schema.names == ("attribute_1", "attribute_2", "attribute_3")
    assert catalog.schema.values[2] == ("1", "2", "3")


def test_where_the_splits_are(copy, tmp_path, monkeypatch):
    digest = read(copy).catalog.digest
    shutil.move(fakes_shopping100k.splits(copy), tmp_path / "elsewhere")
    assert read(copy, splits=str(tmp_path / "elsewhere")).catalog.digest == digest
    monkeypatch.chdir(tmp_path)
    assert read(copy, splits="elsewhere").catalog.digest == digest
    with pytest.raises(UserError, match=r"no attr_num\.txt .*: ask the authors .*`git lfs pull`"):
        read(copy)
    with pytest.raises(UserError, match="nowhere is not a folder: ask the authors"):
        read(tmp_path / "nowhere")
    with pytest.raises(UserError, match="give one of them"):
        read(copy, splits="elsewhere", table="t.csv")


def test_validation_is_cut_by_content_and_seed(copy):
    before = read(copy).catalog
    other = read(copy, split_seed=1).catalog
    assert (before.split != other.split).any()
    assert (other.split[120:] == Split.TEST).all()
    images = copy / "Images"
    for name in before.image[before.split == Split.TRAIN][:3]:
        (copy / name).write_bytes((copy / before.image[before.split == Split.VAL][0]).read_bytes())
    assert images.is_dir()
    catalog = read(copy).catalog
    items, first = np.unique(catalog.item, return_index=True)
    assert len(items) == len(catalog) - 3
    assert (catalog.split == catalog.split[first][np.searchsorted(items, catalog.item)]).all()


def test_without_requests(fake, folder):
    for name in ("ref_test.txt", "indfull_test.txt", "gt_test.txt"):
        (folder / name).unlink()
    data = read(fake, splits=str(folder))
    assert data.requests is None
    assert any("no published requests" in note for note in data.notes)
    (folder / "gt_test.txt").write_text("0 1\n")
    with pytest.raises(UserError, match=r"lacks ref_test.txt, indfull_test.txt"):
        read(fake, splits=str(folder))


@pytest.mark.parametrize(
    "name", ["attr_num.txt", "imgs_test.txt", "labels_train.txt", "ref_test.txt", "indfull_test.txt", "gt_test.txt"]
)
def test_git_lfs_pointers_are_told(fake, folder, name):
    (folder / name).write_bytes(fakes.LFS_POINTER)
    with pytest.raises(UserError, match=rf"{name} should be .* holds a Git LFS pointer: run `git lfs pull`"):
        read(fake, splits=str(folder))


WIDTH = sum(fakes_shopping100k.SHOPPING100K)


@pytest.mark.parametrize(
    ("name", "line", "text", "found"),
    [
        ("attr_num.txt", 2, "x", r"attr_num\.txt .*'x'"),
        ("attr_num.txt", 2, "0", r"attr_num\.txt holds \[16, 0"),
        ("imgs_train.txt", 3, "", r"imgs_train\.txt line 3 is empty"),
        ("imgs_train.txt", 3, None, "has 120 lines but .*imgs_train.txt 119"),
        ("imgs_test.txt", 4, "../secret.jpg", r"imgs_test\.txt line 4 names .* outside"),
        (
            "labels_train.txt",
            7,
            "1 1 " + "0 " * (WIDTH - 2),
            r"labels_train\.txt line 7 has 2 ones among the 16 values",
        ),
        (
            "labels_train.txt",
            7,
            "0 " * (WIDTH - 1),
            rf"labels_train\.txt line 7 has {WIDTH - 1} cells instead of {WIDTH}",
        ),
        ("labels_train.txt", 7, "2 " + "0 " * (WIDTH - 1), r"labels_train\.txt line 7 has the cell '2'"),
        ("labels_test.txt", 5, "-1 " + "0 " * (WIDTH - 1), r"labels_test\.txt line 5 holds a -1"),
        ("ref_test.txt", 2, "60", r"ref_test\.txt line 2 names picture 60 of the 60"),
        ("ref_test.txt", 2, "-1", r"ref_test\.txt line 2 names picture -1"),
        ("ref_test.txt", 2, None, r"lines in ref_test.txt"),
        ("indfull_test.txt", 6, "0 " * WIDTH, r"indfull_test\.txt line 6 adds 0 values"),
        (
            "indfull_test.txt",
            6,
            "1 1 " + "0 " * (WIDTH - 2),
            r"indfull_test\.txt line 6 adds two values of attribute 1",
        ),
        ("indfull_test.txt", 6, "0 " * 15 + "1 " + "0 " * (WIDTH - 16), r"line 6 adds a value that line 6 of gt_test"),
        ("gt_test.txt", 6, "0 " * WIDTH, r"indfull_test\.txt line 6 adds a value that line 6 of gt_test\.txt lacks"),
    ],
)
def test_damaged_lines_are_named(fake, folder, name, line, text, found):
    edit(folder, name, line, text)
    with pytest.raises(UserError, match=found):
        read(fake, splits=str(folder))


def test_missing_pictures_are_left_to_the_image_cache(copy):
    catalog = read(copy).catalog
    (copy / catalog.image[130]).unlink()
    data = read(copy)
    with pytest.raises(UserError, match=rf"1 of 180 pictures .*{catalog.image[130]}: missing"):
        cached_images(data, np.arange(180), (20, 16))
    assert cached_images(data, np.arange(180), (20, 16), on_error="skip").readable.sum() == 179


def test_what_fix_lists_of_a_sample_is_left_out_of_that_sample(copy, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FM_BENCH_CACHE", str(tmp_path / "cache"))
    (copy / "Images/Female/Tops/00001.jpg").write_bytes(b"")
    given = ["shopping100k", "--data.root", str(copy), "--profile", "smoke"]
    about = ["--evaluation.protocols", "[fsn_s100k_1]"]
    assert main(["data", "validate", *given, *about, "--fix"]) == 0
    for options, count in (([], 0), (about, 1)):  # other splits, another list
        capsys.readouterr()
        assert main(["data", "info", *given, *options, "--data.on_error", "skip", "--json"]) == 0
        notes = json.loads(capsys.readouterr().out)["notes"]
        assert len([note for note in notes if "left out, as" in note]) == count
    assert main(["data", "validate", *given, "--fix"]) == 0
    config = configure("random", "shopping100k", "smoke", "common", 0, [*given[1:3], *about, "--data.on_error", "skip"])
    source = config.read().source  # now of both lists
    assert source.left_out == {"Images/Female/Tops/00001.jpg"}
    assert source.contents == Shopping100kReader(str(copy)).read().source.digest


def test_a_table_serves_as_well(tmp_path):
    fakes.catalogue(tmp_path)
    data = read(tmp_path, table="catalogue.csv", image="path", attributes="colour,sleeve")
    assert data.catalog.schema.names == ("colour", "sleeve")
    assert abs((data.catalog.split == Split.TEST).mean() - 0.218) < 0.02
    assert data.requests is None
