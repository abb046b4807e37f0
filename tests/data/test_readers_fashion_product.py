# SPDX-License-Identifier: MIT
import json
import shutil
from pathlib import Path

import fakes
import numpy as np
import pytest

from fm_bench.catalog import Split
from fm_bench.data.images import cached_images
from fm_bench.data.readers import READERS
from fm_bench.data.readers.fashion_product import FashionProductReader, _rows
from fm_bench.errors import UserError


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fakes.fashion_product(tmp_path_factory.mktemp("data") / "fashion")


@pytest.fixture
def copy(fake: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(fake, tmp_path / "fashion"))


def edit_row(root: Path, number: int, column: int, value: str) -> None:
    lines = (root / "styles.csv").read_text().split("\n")
    at = next(i for i, line in enumerate(lines) if line.startswith(f"{number},"))
    cells = lines[at].split(",", 9)
    lines[at] = ",".join([*cells[:column], value, *cells[column + 1 :]])
    (root / "styles.csv").write_text("\n".join(lines))


def row_of(catalog, number: int) -> int:
    return catalog.image.tolist().index(f"images/{number}.jpg")


def test_default_task(fake):
    catalog, source, notes, *_ = FashionProductReader(str(fake)).read()
    assert catalog.schema.names == ("gender", "article_type", "colour", "pattern", "sleeve_length", "neckline")
    assert len(catalog) == 240 + fakes.TRAPS_KEPT
    assert catalog.schema.values[0] == ("Boys", "Men", "Women")
    assert (catalog.labels[:, [0, 1, 3, 4]] >= 0).all()
    assert source.read(catalog.image[0], (80, 64)).shape == (80, 64, 3)
    assert any("topwear" in note for note in notes)


def test_labels_are_those_of_the_files(fake):
    catalog = FashionProductReader(str(fake)).read().catalog
    table = {line.split(",")[0]: line.split(",") for line in (fake / "styles.csv").read_text().split("\n")[1:-1]}
    for i, image in enumerate(catalog.image.tolist()):
        number = Path(image).stem
        details = json.loads((fake / f"styles/{number}.json").read_text())["data"]["articleAttributes"]
        row = table[number]
        expected = [row[1], row[4], row[5], details["Pattern"], details["Sleeve Length"], details.get("Neck")]
        expected[2] = None if expected[2] == "Mauve" else expected[2]  # a value of one image
        values = catalog.schema.values
        got = [None if code < 0 else values[m][code] for m, code in enumerate(catalog.labels[i].tolist())]
        assert got == expected


def test_rare_values_become_missing_and_their_images_stay(fake):
    catalog = FashionProductReader(str(fake)).read().catalog
    assert "Mauve" not in catalog.schema.values[2]
    assert catalog.labels[row_of(catalog, 5004), 2] == -1
    everything = FashionProductReader(str(fake), min_count=1).read().catalog
    assert "Mauve" in everything.schema.values[2]
    assert (everything.labels[:, :5] >= 0).all()


def test_count_at_the_minimum_stays(copy):
    for number in range(1000, 1019):
        edit_row(copy, number, 5, "Mauve")
    catalog = FashionProductReader(str(copy)).read().catalog  # 19 and the trap's: 20
    assert "Mauve" in catalog.schema.values[2]
    assert "Mauve" not in FashionProductReader(str(copy), min_count=21).read().catalog.schema.values[2]


def test_identical_pictures_share_item_and_split_and_lose_contradicting_labels(copy):
    numbers = list(range(1000, 1060))
    for number in numbers[1:]:
        shutil.copy(copy / "images/1000.jpg", copy / f"images/{number}.jpg")
    for number in numbers:
        edit_row(copy, number, 1, "Men")
        edit_row(copy, number, 5, "Red")
    edit_row(copy, 1000, 5, "Blue")
    edit_row(copy, 1001, 5, "Mauve")
    catalog, _, notes, *_ = FashionProductReader(str(copy)).read()
    rows = [row_of(catalog, number) for number in numbers]
    assert len(set(catalog.item[rows])) == len(set(catalog.split[rows])) == 1
    assert (catalog.item == catalog.item[rows[0]]).sum() == len(numbers)
    assert (catalog.labels[rows, 2] == -1).all()
    assert (catalog.labels[rows, 0] == catalog.schema.value("gender", "Men")).all()
    assert any("60 images are byte-identical" in note for note in notes)
    assert any("contradict" in note for note in notes)


def test_a_missing_label_contradicts_nothing(copy):
    shutil.copy(copy / "images/1001.jpg", copy / "images/1002.jpg")  # 1002 has no Neck
    catalog = FashionProductReader(str(copy), attributes="neckline,gender", min_count=1).read().catalog
    first, second = row_of(catalog, 1001), row_of(catalog, 1002)
    assert catalog.labels[first, 0] >= 0
    assert catalog.labels[second, 0] == -1


def test_split_follows_content_not_ids_or_order(copy):
    before = FashionProductReader(str(copy)).read().catalog
    lines = (copy / "styles.csv").read_text().strip().split("\n")
    (copy / "styles.csv").write_text("\n".join([lines[0], *reversed(lines[1:])]))
    after = FashionProductReader(str(copy)).read().catalog
    assert dict(zip(before.image, before.split, strict=True)) == dict(zip(after.image, after.split, strict=True))
    sizes = np.bincount(before.split) / len(before)
    np.testing.assert_allclose(sizes, [0.57, 0.06, 0.37], atol=0.01)
    other = FashionProductReader(str(copy), split_seed=1).read().catalog
    assert (other.split != after.split).any()
    assert other.digest != after.digest


def test_source_digest_follows_pixels_and_not_the_place(fake, copy):
    at_home, elsewhere = FashionProductReader(str(fake)).read(), FashionProductReader(str(copy)).read()
    assert at_home.source.digest == elsewhere.source.digest
    assert at_home.catalog.digest == elsewhere.catalog.digest
    (copy / "images/1000.jpg").write_bytes(fakes.jpeg(fakes.picture((1, 2, 3), 1000)))
    assert FashionProductReader(str(copy)).read().source.digest != at_home.source.digest


@pytest.mark.parametrize("given", ["season,fit", ["season", "fit"], " season , fit "])
def test_chosen_attributes(fake, given):
    catalog = FashionProductReader(str(fake), attributes=given).read().catalog
    assert catalog.schema.names == ("season", "fit")
    assert catalog.schema.values[1] == ("Regular Fit", "Slim Fit")
    assert len(catalog) == 240 + 4  # neither gender nor sleeves are asked for now


def test_table_columns_need_no_json(copy):
    shutil.rmtree(copy / "styles")
    catalog = FashionProductReader(str(copy), attributes="gender,colour").read().catalog
    assert len(catalog) == 240 + 3
    with pytest.raises(UserError, match=r"no folder styles/ .*--data.attributes gender,article_type,colour"):
        FashionProductReader(str(copy)).read()


def test_unknown_attribute_names_the_nearest(fake):
    with pytest.raises(UserError, match=r"'necklin' is not in .*neckline"):
        FashionProductReader(str(fake), attributes="gender,necklin").read()
    with pytest.raises(UserError, match="twice"):
        FashionProductReader(str(fake), attributes="gender,gender").read()


def test_missing_root_and_its_near_misses(fake, tmp_path):
    with pytest.raises(UserError, match=r"nowhere does not exist: download .* styles\.csv, images/ and styles/"):
        FashionProductReader(str(tmp_path / "nowhere")).read()
    with pytest.raises(UserError, match=r"has no styles\.csv: download"):
        FashionProductReader(str(tmp_path)).read()
    with pytest.raises(UserError, match=rf"pass --data\.root {fake}"):
        FashionProductReader(str(fake.parent)).read()
    with pytest.raises(UserError, match="is not a folder"):
        FashionProductReader(str(fake / "styles.csv")).read()


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (fakes.LFS_POINTER, "holds a Git LFS pointer: run `git lfs pull`"),
        (fakes.HTML_PAGE, "holds an HTML page: download it again"),
        (b"", "holds zero bytes"),
        (b"id,gender\n1,Men\n", "has no column subCategory"),
        (b"id,g\xff\n", "not UTF-8"),
        ((fakes.STYLES_HEADER + "\n1,Men,Apparel,Topw").encode(), "line 2 has 4 of 10 columns"),
        ((fakes.STYLES_HEADER + "\n../../x,Men,Apparel,Topwear,a,b,c,d,e,f").encode(), "which is not a number"),
        ((fakes.STYLES_HEADER + "\n1,Men,Apparel,Shoes,a,b,c,d,e,f").encode(), "none of subCategory Topwear"),
    ],
)
def test_damaged_table(copy, content, found):
    (copy / "styles.csv").write_bytes(content)
    with pytest.raises(UserError, match=found):
        FashionProductReader(str(copy)).read()


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (None, "missing"),
        (b"", "zero bytes"),
        (fakes.LFS_POINTER, "a Git LFS pointer"),
        (fakes.HTML_PAGE, "an HTML page"),
        (b'{"data": {"articleAttr', "truncated or no JSON"),
        (b'{"meta": {}}', "JSON without data"),
        (b"[]", "truncated or no JSON"),
        (b"[" * 200_000, "truncated or no JSON"),
    ],
)
def test_unreadable_json_is_refused_or_left_out(copy, content, found):
    path = copy / "styles/1003.json"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(UserError, match=rf"1 of 244 item files .*1003.json: {found}.*--data.on_error skip"):
        FashionProductReader(str(copy)).read()
    catalog, _, notes, *_ = FashionProductReader(str(copy), on_error="skip").read()
    assert "images/1003.jpg" not in catalog.image
    assert any("1 item is left out" in note for note in notes)


def test_missing_pictures_are_left_to_the_image_cache(copy):
    (copy / "images/1003.jpg").unlink()
    data = FashionProductReader(str(copy)).read()
    with pytest.raises(UserError, match=r"1 of 241 pictures .*images/1003.jpg: missing"):
        cached_images(data, np.arange(len(data.catalog)), (20, 16))
    shutil.rmtree(copy / "images")
    with pytest.raises(UserError, match="no folder images/"):
        FashionProductReader(str(copy)).read()


def test_too_few_images_for_any_value(fake):
    with pytest.raises(UserError, match=r"lower --data\.min_count"):
        FashionProductReader(str(fake), min_count=10_000).read()
    with pytest.raises(UserError, match=r"'fit' of .* has no value on at least 10,000 images"):
        FashionProductReader(str(fake), attributes="fit", min_count=10_000).read()
    with pytest.raises(UserError, match="add up to less than 1"):
        FashionProductReader(str(fake), test_share=0.99).read()


def test_real_photos(photos_root):
    assert len(_rows(photos_root)) == 44_072
    catalog, _, notes, *_ = READERS["fashion-product"](root=str(photos_root)).read()
    assert len(catalog) == 11_293
    assert catalog.schema.sizes[0] == 5
    everything = FashionProductReader(str(photos_root), min_count=1).read().catalog
    assert len(everything) == 11_293
    assert everything.schema.sizes[:5] == (5, 12, 38, 8, 5)
    items, first = np.unique(catalog.item, return_index=True)
    assert len(items) < len(catalog)
    assert (catalog.split == catalog.split[first][np.searchsorted(items, catalog.item)]).all()
    test = int((catalog.split == Split.TEST).sum())
    assert abs(test - 0.37 * len(catalog)) < 100
    assert any("contradict each other" in note for note in notes)
