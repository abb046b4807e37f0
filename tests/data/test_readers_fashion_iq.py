# SPDX-License-Identifier: MIT
import json
import shutil
from pathlib import Path

import fakes
import fakes_fashion_iq
import numpy as np
import pytest

from fm_bench.catalog import Dataset, Split
from fm_bench.data.readers.fashion_iq import FashionIqReader
from fm_bench.errors import UserError


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fakes_fashion_iq.write(tmp_path_factory.mktemp("data") / "fashion-iq")


@pytest.fixture
def copy(fake: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(fake, tmp_path / "iq"))


def read(root: Path, **options: object) -> Dataset:
    return FashionIqReader(str(root), **options).read()


def test_official_splits_category_and_lists_of_tags(fake):
    catalog, source, notes, *_ = read(fake)
    assert catalog.schema.names == ("category", "tags_1", "tags_2", "tags_3")
    assert catalog.schema.values[0] == fakes_fashion_iq.CATEGORIES
    assert catalog.schema.values[1] == ("floral", "striped", "v neck")
    assert np.bincount(catalog.split).tolist() == [120, 60, 60]
    row = {Path(name).stem: i for i, name in enumerate(catalog.image.tolist())}
    for split, name in ((Split.TRAIN, "train"), (Split.VAL, "val"), (Split.TEST, "test")):
        for m, category in enumerate(fakes_fashion_iq.CATEGORIES):
            tags = json.loads((fake / f"asin2attr.{category}.{name}.json").read_text())
            for asin in json.loads((fake / f"image_splits/split.{category}.{name}.json").read_text()):
                if asin == fakes_fashion_iq.REPEATED and category == "shirt":
                    continue
                labels = catalog.labels[row[asin]]
                assert (catalog.split[row[asin]], labels[0]) == (split, m)
                for place in (1, 2, 3):
                    held = tags.get(asin, [[]] * 4)[place]
                    expected = catalog.schema.value(place, held[0]) if len(held) == 1 else -1
                    assert labels[place] == expected
    assert source.read(catalog.image[row["B000000007"]], (40, 32)).shape == (40, 32, 3)  # the PNG
    assert any("tags_1: 24 images have several tags" in note for note in notes)
    assert any("captions are not used" in note for note in notes)
    assert any("1 entries of image_splits/ repeat a picture" in note for note in notes)


def test_without_test_attributes_val_is_searched(tmp_path):
    root = fakes_fashion_iq.write(tmp_path / "iq", test_tags=False)
    data = read(root)
    assert np.bincount(data.catalog.split).tolist() == [113, 7, 60]
    assert any("val is searched instead" in note for note in data.notes)
    other = read(root, split_seed=1).catalog
    assert (other.split != data.catalog.split).any()


def test_absent_tags_of_one_category_are_told(copy):
    assert not any("is not there" in note for note in read(copy).notes)
    (copy / "asin2attr.dress.train.json").unlink()
    assert "asin2attr.dress.train.json is not there: its images have no tags" in read(copy).notes


def test_identical_pictures_are_on_one_side_of_a_validation_split_that_is_cut(tmp_path):
    root = fakes_fashion_iq.write(tmp_path / "iq", test_tags=False)
    catalog = read(root).catalog
    first, *others = catalog.image[catalog.split != Split.TEST][:60].tolist()  # half of them
    for name in others:
        (root / name).write_bytes((root / first).read_bytes())
    for seed in range(6):
        catalog = read(root, split_seed=seed, val_share=0.4).catalog
        assert len(set(catalog.split[np.isin(catalog.image, [first, *others])].tolist())) == 1


def test_chosen_attributes(fake):
    assert read(fake, attributes="tags_2,category").catalog.schema.names == ("tags_2", "category")
    with pytest.raises(UserError, match=r"'tag_2' is not in .*tags_2"):
        read(fake, attributes="tag_2")


def test_attributes_and_images_may_lie_in_folders(copy):
    before = read(copy).catalog
    (copy / "tags").mkdir()
    for path in copy.glob("asin2attr*.json"):
        path.rename(copy / "tags" / path.name.replace(".json", ".new.json"))
    (copy / "image_data").mkdir()
    for category in fakes_fashion_iq.CATEGORIES:
        (copy / "image_data" / category).mkdir()
    for path in (copy / "images").iterdir():
        path.rename(copy / "image_data" / fakes_fashion_iq.CATEGORIES[int(path.stem[-1]) % 3] / path.name)
    after = read(copy).catalog
    assert [Path(name).name for name in after.image] == [Path(name).name for name in before.image]
    assert (after.labels == before.labels).all()


def test_what_is_missing_is_said(copy, tmp_path):
    with pytest.raises(UserError, match=r"nowhere is not a folder: clone github\.com/XiaoxiaoGuo/fashion-iq"):
        read(tmp_path / "nowhere")
    with pytest.raises(UserError, match=rf"pass --data\.root {copy}"):
        read(tmp_path)
    data = read(copy)
    (copy / data.catalog.image[0]).unlink()
    assert read(copy).catalog.image.tolist() == data.catalog.image.tolist()  # the cache reports what is missing
    shutil.rmtree(copy / "images")
    with pytest.raises(UserError, match="has no pictures in images"):
        read(copy)
    for path in copy.glob("asin2attr.*.train.json"):
        path.unlink()
    with pytest.raises(UserError, match=r"lacks asin2attr.*captions are not read"):
        read(copy)


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("image_splits/split.dress.train.json", fakes.LFS_POINTER, "holds a Git LFS pointer: run `git lfs pull`"),
        ("image_splits/split.dress.train.json", b'["B0", ', r"split\.dress\.train\.json is not whole JSON .*line 1"),
        ("image_splits/split.dress.train.json", b'{"B0": 1}', "should be a list of ASINs but is a dict"),
        ("image_splits/split.dress.train.json", b'["B0", "../../x"]', r"entry 2 is '\.\./\.\./x', which is no ASIN"),
        ("image_splits/split.dress.train.json", b'["B0", 7]', "entry 2 is '7'"),
        ("image_splits/split.dress.train.json", b"[" * 100_000, "nested too deeply|not whole JSON"),
        ("image_splits/split.dress.train.json", None, "could not be read"),
        ("asin2attr.shirt.val.json", b"[]", "should hold lists of tags by ASIN but is a list"),
        ("asin2attr.shirt.val.json", b'{"B0": "red"}', "has no lists of tags for 'B0'"),
        ("asin2attr.shirt.val.json", b'{"B0": [["red", 1]]}', "has no lists of tags for 'B0'"),
        ("asin2attr.shirt.val.json", b'{"B0": [["r\xff"]]}', "not whole JSON"),
    ],
)
def test_damaged_annotations(copy, name, content, found):
    (copy / name).unlink() if content is None else (copy / name).write_bytes(content)
    with pytest.raises(UserError, match=found):
        read(copy)
