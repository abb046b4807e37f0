# SPDX-License-Identifier: MIT
import time
from pathlib import Path

import fakes
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from catalogues import values

from fm_bench.catalog import Catalog, Split
from fm_bench.data.readers import READERS
from fm_bench.data.readers.table import TableReader
from fm_bench.errors import UserError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    fakes.catalogue(tmp_path)
    return tmp_path


def read(root: Path, table: str = "catalogue.csv", image: str = "path", **options) -> Catalog:
    return TableReader(str(root), table, image, **options).read().catalog


def rows_of(root: Path) -> list[dict[str, object]]:
    return pa.csv.read_csv(root / "catalogue.csv").to_pylist()


def test_columns_become_labels(root):
    data = READERS["table"](root=str(root), table="catalogue.csv", image="path", item="product", split="subset").read()
    catalog = data.catalog
    rows = rows_of(root)
    assert catalog.schema.names == ("colour", "sleeve")  # price has too many values, the other columns are spoken for
    assert values(catalog, "colour") == [row["colour"] for row in rows]
    assert values(catalog, "sleeve") == [row["sleeve"] for row in rows]  # "none" is a value
    assert [Split(s).name.lower() for s in catalog.split] == [row["subset"] for row in rows]
    assert (catalog.item[::2] == catalog.item[1::2]).all()
    assert len(np.unique(catalog.item)) == 60
    assert any("'price' of 120 values" in note for note in data.notes)
    assert data.source.read(catalog.image[0], (32, 32)).shape == (32, 32, 3)


def test_parquet_reads_like_csv(root):
    table = pa.csv.read_csv(root / "catalogue.csv")
    table = table.set_column(3, "colour", table["colour"].dictionary_encode())
    pq.write_table(table, root / "catalogue.parquet")
    assert read(root, "catalogue.parquet").digest == read(root).digest


@pytest.mark.parametrize(("separator", "end"), [(";", "\n"), ("\t", "\n"), (",", "\r\n"), (",", "\r")])
def test_other_separators_line_ends_and_a_byte_order_mark(root, separator, end):
    text = (root / "catalogue.csv").read_text().replace(",", separator).replace("\n", end)
    (root / "other.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read(root, "other.csv").digest == read(root).digest


def test_quoted_cells_may_hold_line_ends(root):
    lines = (root / "catalogue.csv").read_text().splitlines()
    for end in ('"', '"\n', '"\r\n\n'):
        quoted = [f'{line},"two\nlines {i % 2}' for i, line in enumerate(lines)]
        quoted[0] = lines[0] + ',"no\nte'
        (root / "quoted.csv").write_text('"\n'.join(quoted) + end, newline="")
        assert len(read(root, "quoted.csv", attributes="colour")) == len(lines) - 1


@pytest.mark.parametrize("share", ["val_share", "test_share"])
@pytest.mark.parametrize("value", [float("nan"), -0.1, 1.0])
def test_shares_that_are_none(root, share, value):
    with pytest.raises(UserError, match="must not be negative"):
        read(root, **{share: value})


def test_columns_of_bytes_are_left_alone(root):
    table = pyarrow.csv.read_csv(root / "catalogue.csv")
    without = read(root)
    held = pa.array([b"\xff\xd8%d" % (i % 3) for i in range(len(table))])
    pq.write_table(table.append_column("thumbnail", held), root / "catalogue.parquet")
    assert read(root, "catalogue.parquet").digest == without.digest


def test_table_may_lie_elsewhere(root, tmp_path_factory, monkeypatch):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (root / "catalogue.csv").rename(elsewhere / "list.csv")
    assert len(read(root, str(elsewhere / "list.csv"))) == 120
    monkeypatch.chdir(elsewhere)
    assert len(read(root, "list.csv")) == 120


def test_missing_cells(root):
    rows = rows_of(root)
    for row, cell in zip(rows, ["", "NA", "nan", "N/A", " null ", "  "], strict=False):
        row["colour"] = cell
    rows[6]["colour"] = " Red "
    fakes.table(root, rows)
    catalog = read(root)
    assert values(catalog, "colour")[:8] == [None] * 6 + ["Red", "Black"]
    assert catalog.schema.to_dict()["colour"] == ["Black", "Blue", "Green", "Red"]


def test_numbers_are_values(root):
    names = [row["path"] for row in rows_of(root)]
    size = [None if i % 7 == 0 else float(36 + 2 * (i % 3)) for i in range(120)]
    flag = [bool(i % 2) for i in range(120)]
    weight = [0.5 * (i % 3) if i % 5 else float("nan") for i in range(120)]
    columns = {"path": names, "size": size, "flag": flag, "weight": weight, "tags": [["a"]] * 120}
    pq.write_table(pa.table(columns), root / "numbers.parquet")
    catalog = read(root, "numbers.parquet")
    assert catalog.schema.to_dict() == {
        "size": ["36", "38", "40"],
        "flag": ["false", "true"],
        "weight": ["0", "0.5", "1"],
    }
    assert (catalog.labels[::7, 0] == -1).all()
    assert (catalog.labels[::5, 2] == -1).all()


def test_min_count_and_chosen_attributes(root):
    rows = rows_of(root)
    for i, row in enumerate(rows):
        row["rare"] = "x" if i < 4 else "y" if i < 9 else "z"
    fakes.table(root, rows)
    assert read(root).schema.to_dict()["rare"] == ["y", "z"]
    assert read(root, min_count=4).schema.to_dict()["rare"] == ["x", "y", "z"]
    assert read(root, min_count=6, attributes="rare").schema.to_dict() == {"rare": ["z"]}
    assert "rare" not in read(root, min_count=6).schema.names  # one value left: nothing to change
    assert read(root, attributes=["price", "colour"], min_count=1).schema.sizes == (120, 4)
    fakes.table(root, [row | {"rare": "NA"} for row in rows])
    with pytest.raises(UserError, match=r"'rare' of .* has no value on at least 1 image: lower --data\.min_count"):
        read(root, min_count=1, attributes="rare")
    with pytest.raises(UserError, match=r"has no value on at least 2 images: "):
        read(root, min_count=2, attributes="rare")


@pytest.mark.parametrize(
    "options", [{"image": "file"}, {"item": "file"}, {"split": "file"}, {"attributes": "colour,file"}]
)
def test_absent_column_names_the_file_and_the_nearest(root, options):
    with pytest.raises(UserError, match=r"catalogue\.csv has no column 'file': choose among .*path"):
        read(root, **options)
    with pytest.raises(UserError, match=r"no column 'color': choose among colour"):
        read(root, attributes="color")


@pytest.mark.parametrize(
    "path", ["../outside.jpg", "/etc/hostname", "img/../../outside.jpg", "link.jpg", "folder/a.jpg", "..\\a"]
)
def test_paths_cannot_leave_the_root(tmp_path, path):
    root = tmp_path / "root"
    fakes.catalogue(root)
    (tmp_path / "outside.jpg").write_bytes(fakes.jpeg(fakes.picture((0, 0, 0), 1)))
    (root / "link.jpg").symlink_to(tmp_path / "outside.jpg")
    (root / "folder").symlink_to(tmp_path)
    rows = rows_of(root)
    rows[3]["path"] = path
    fakes.table(root, rows)
    with pytest.raises(UserError, match=r"catalogue\.csv row 4 names .* outside"):
        read(root)


def test_links_within_the_root_are_fine(root):
    (root / "alias.jpg").symlink_to(root / "img/0000.jpg")
    rows = rows_of(root)
    rows[3]["path"] = "alias.jpg"
    fakes.table(root, rows)
    catalog = read(root)
    assert catalog.item[3] == catalog.item[0]


def test_no_item_or_picture_straddles_splits_that_are_cut_here(root):
    for i in range(0, 120, 4):  # joins each even product to the next one
        (root / f"img/{i + 2:04d}.jpg").write_bytes((root / f"img/{i + 1:04d}.jpg").read_bytes())
    catalog = read(root, item="product", test_share=0.4)
    together = catalog.split.reshape(30, 4)
    assert (together == together[:, :1]).all()
    items = catalog.item.reshape(60, 2)
    assert (items[:, 0] == items[:, 1]).all()
    assert len(np.unique(items)) == 60  # identical pictures do not make one item of two
    assert abs((catalog.split == Split.TEST).mean() - 0.4) < 0.05


def test_rows_without_an_item_are_items_of_their_own(root):
    rows = rows_of(root)
    for i in (4, 5, 7):
        rows[i]["product"] = ""
    (root / "img/0007.jpg").write_bytes((root / "img/0005.jpg").read_bytes())
    fakes.table(root, rows)
    data = TableReader(str(root), "catalogue.csv", "path", item="product").read()
    item = data.catalog.item
    assert item[5] == item[7]  # the same file
    assert len({*item[[4, 5, 6]].tolist(), *item[:4].tolist()}) == 5
    assert any("3 rows have no product" in note for note in data.notes)


def test_the_digest_of_pictures_is_one_of_names_and_contents(root):
    def digests() -> tuple[str, str]:
        data = TableReader(str(root), "catalogue.csv", "path", item="product", split="subset").read()
        return data.source.digest, data.catalog.digest

    before = digests()
    assert digests() == before
    picture = (root / "img/0003.jpg").read_bytes()
    (root / "img/0003.jpg").write_bytes(picture + b"\0")
    assert digests()[0] != before[0]
    assert digests()[1] == before[1]
    (root / "img/0003.jpg").write_bytes(picture)
    assert digests() == before
    (root / "img/0003.jpg").rename(root / "img/renamed.jpg")
    (root / "catalogue.csv").write_text((root / "catalogue.csv").read_text().replace("img/0003.jpg", "img/renamed.jpg"))
    assert digests()[0] != before[0]


def test_split_names(root):
    rows = rows_of(root)
    for i, row in enumerate(rows):
        row["subset"] = ("Train", "VALID", "test ", "validation")[i % 4]
    fakes.table(root, rows)
    assert np.bincount(read(root, split="subset").split).tolist() == [30, 60, 30]
    for row in rows:
        row["subset"] = "test" if row["subset"] == "test " else "train"
    fakes.table(root, rows)
    data = TableReader(str(root), "catalogue.csv", "path", item="product", split="subset").read()
    sizes = np.bincount(data.catalog.split)
    assert sizes[2] == 30
    assert sizes[1] > 0
    assert any("taken for it" in note for note in data.notes)


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["train", "val"], "no image in the test split"),
        (["val", "test"], "no image in the train split"),
        (["train", "query"], "holds 'query' in 60 rows: write train, val or test"),
        (["train", ""], "holds '' in 60 rows"),
    ],
)
def test_empty_or_unknown_splits(root, names, found):
    rows = [row | {"subset": names[i % 2]} for i, row in enumerate(rows_of(root))]
    fakes.table(root, rows)
    with pytest.raises(UserError, match=found):
        read(root, split="subset")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (fakes.LFS_POINTER, "holds a Git LFS pointer: run `git lfs pull`"),
        (fakes.HTML_PAGE, "holds an HTML page"),
        (b"", "holds zero bytes"),
        (b"PAR1 and then nothing", "is not a readable table"),
        (b"PK\x03\x04", "holds a ZIP archive"),
        (b"path,colour\nimg/0000.jpg,Red,x\n", "is not a readable table .*2 columns"),
        (b"path,colour\n", "a header but no row"),
        (b"path,colour,colour\nimg/0000.jpg,a,b\n", "two columns named 'colour'"),
        (b"path,colour\nimg/0000.jpg,\xff\n", "is not a readable table"),
        (b'path,colour\nimg/0000.jpg,a\nimg/0001.jpg,"b\nimg/0002.jpg,a\n', "row 2 opens a quote that is never closed"),
        (b"path," + b"c" * 200_000 + b"\nimg/0000.jpg,a\n", "is not a readable table .field larger"),
        (b"path,id\nimg/0000.jpg,1\nimg/0001.jpg,2\n", "no column of 2 to 64 distinct values beside path"),
        (b"path,colour\nimg/0000.jpg,Red\n,Blue\n", "'path' of .* is empty in 1 row .*row 2"),
    ],
)
def test_damaged_table(root, content, found):
    (root / "catalogue.csv").write_bytes(content)
    with pytest.raises(UserError, match=found):
        read(root)


def test_absent_table_or_root(root):
    with pytest.raises(UserError, match=r"nowhere\.csv could not be read \(No such file"):
        read(root, "nowhere.csv")
    with pytest.raises(UserError, match="nowhere is not a folder"):
        read(root / "nowhere")


def test_repeated_pictures_with_other_labels(root):
    rows = rows_of(root)
    rows.append(rows[0] | {"colour": "Blue"})
    rows.append(rows[1] | {"colour": ""})
    fakes.table(root, rows)
    catalog = read(root)
    colours = values(catalog, "colour")
    assert colours[0] is colours[120] is None  # red and blue cannot both be right
    assert colours[1] == "Blue"
    assert colours[121] is None
    assert values(catalog, "sleeve")[120] == values(catalog, "sleeve")[0] is not None


def test_large_table_reads_quickly(tmp_path):
    """200,000 rows of a handful of files: the table, not the disk, is what takes time."""
    names = np.array(fakes.pictures(tmp_path, 100))[np.arange(200_000) % 100]
    rng = np.random.default_rng(0)
    columns = {f"a{m}": rng.integers(0, 12, 100)[np.arange(200_000) % 100] for m in range(12)}
    pq.write_table(pa.table({"path": names, **columns}), tmp_path / "big.parquet")
    started = time.process_time()
    assert len(read(tmp_path, "big.parquet")) == 200_000
    assert time.process_time() - started < 10
