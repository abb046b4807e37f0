# SPDX-License-Identifier: MIT
import io
import json
import pickle
from pathlib import Path

import fakes
import fakes_parquet
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from fm_bench.catalog import UnreadableImageError
from fm_bench.cli import main
from fm_bench.data import parquet
from fm_bench.data.images import cached_images, decode
from fm_bench.data.parquet import ParquetSource, parquet_digests
from fm_bench.data.readers.fashion_product import FashionProductReader
from fm_bench.data.readers.fashion_product_parquet import last_of_each
from fm_bench.data.validate import validate
from fm_bench.errors import UserError


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fakes_parquet.write(tmp_path_factory.mktemp("data") / "fashion")


def stored(root: Path) -> dict[str, dict[str, object]]:
    """All rows by the names of their pictures."""
    rows = {}
    for path in sorted(root.glob("data/*.parquet")):
        for number, row in enumerate(pq.read_table(path).to_pylist()):
            rows[f"data/{path.name}#{number}"] = row
    return rows


def test_labels_and_pictures_are_those_of_the_files(fake):
    catalog, source, notes, *_ = FashionProductReader(str(fake), on_error="skip").read()
    rows = stored(fake)
    assert catalog.schema.names == ("gender", "article_type", "colour", "season", "usage")
    for name, labels in zip(catalog.image.tolist(), catalog.labels.tolist(), strict=True):
        row = rows[name]
        values = [row[key] for key in ("gender", "articleType", "baseColour", "season", "usage")]
        expected = [None if value == "NA" else value for value in values]
        got = [None if v < 0 else catalog.schema.values[m][v] for m, v in enumerate(labels)]
        assert got == expected
        assert row["subCategory"] == "Topwear"
    last = str(catalog.image[-1])
    assert (source.read(last, (80, 60)) == decode(rows[last]["image"]["bytes"])).all()
    wanted = [row for row in rows.values() if row["subCategory"] == "Topwear" and row["baseColour"]]
    assert len(catalog) == len({row["id"] for row in wanted})
    assert any("topwear" in note for note in notes)
    repeated = [f"data/train-0000{part}-of-00002.parquet#119" for part in range(2)]  # two rows of one id
    assert np.isin(repeated, catalog.image).tolist() == [False, True]  # the later one counts


def test_rows_without_an_id_replace_each_other_not():
    assert last_of_each(pa.array(["a", None, "b", "a", None])).tolist() == [False, True, True, True, True]


def test_bytes_alone_give_the_same_catalogue(fake, tmp_path):
    other = fakes_parquet.write(tmp_path, struct=False, groups=1000)
    first, second = (FashionProductReader(str(root)).read() for root in (fake, other))
    assert first.catalog.digest == second.catalog.digest
    assert first.source.digest == second.source.digest


def test_copies_share_an_item_and_are_reported(tmp_path):
    rows = {name: np.arange(40) % 2 for name in ("gender", "articleType", "baseColour", "season", "usage")}
    images = [fakes.jpeg(fakes.picture((9, 9, 9), i % 20)) for i in range(40)]
    table = pa.table(rows | {"subCategory": ["Topwear"] * 40, "image": pa.array(images)})
    for part in range(2):
        pq.write_table(table.slice(20 * part, 20), tmp_path / f"{part}.parquet")
    data = FashionProductReader(str(tmp_path), min_count=2).read()
    assert (data.catalog.item[:20] == data.catalog.item[20:]).all()
    assert len(np.unique(data.catalog.item)) == 20
    assert {each["check"]: each["count"] for each in validate(data)["findings"]}["duplicates"] == 20


def test_fix_lists_pictures_of_parquet_files(tmp_path, capsys):
    root = fakes_parquet.write(tmp_path / "data")
    name = f"data/train-00000-of-00002.parquet#{fakes_parquet.NULL_ROW}"
    before = {path: path.read_bytes() for path in root.rglob("*.parquet")}
    given = ["data", "validate", "fashion-product", "--data.root", str(root), "--data.min_count", "5", "--json"]
    assert [main(given), main([*given, "--fix"]), main(given)] == [1, 0, 1]  # the list counts where it is asked for
    capsys.readouterr()
    assert main([*given, "--data.on_error", "skip"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [(finding["check"], finding["examples"]) for finding in report["findings"]] == [("left out", [name])]
    assert report["notes"][-1].startswith("1 picture is left out")
    assert {path: path.read_bytes() for path in root.rglob("*.parquet")} == before


def test_pictures_that_are_left_out_are_so_in_every_process(fake):
    names = [name for name, row in stored(fake).items() if row["image"]["bytes"]]
    source = ParquetSource(fake, "x", frozenset(names[:1]))
    assert source.digest not in ("x", ParquetSource(fake, "x", frozenset(names[1:2])).digest)
    again = pickle.loads(pickle.dumps(source))
    assert again.digest == source.digest
    for each in (source, again):
        with pytest.raises(UnreadableImageError, match="left out"):
            each.read(names[0], (20, 16))
        assert each.read(names[1], (20, 16)).shape == (20, 16, 3)


def test_chosen_columns(fake):
    catalog = FashionProductReader(str(fake), attributes="year,gender", min_count=5).read().catalog
    assert catalog.schema.values[0] == ("2011", "2012", "2013")
    with pytest.raises(UserError, match=r"no column for 'pattern'"):
        FashionProductReader(str(fake), attributes="pattern,gender").read()


def test_rows_without_a_picture_are_reported(fake):
    data = FashionProductReader(str(fake)).read()
    rows = np.arange(len(data.catalog))
    with pytest.raises(UserError, match=rf"#{fakes_parquet.NULL_ROW}: no bytes in the column"):
        cached_images(data, rows, (20, 16))
    assert cached_images(data, rows, (20, 16), on_error="skip").readable.sum() == len(rows) - 1


def test_source_travels_to_other_processes_and_reads_in_any_order(fake):
    source = ParquetSource(fake, "x")
    names = [name for name, row in stored(fake).items() if row["image"]["bytes"]]
    order = np.random.default_rng(0).permutation(len(names))[:30]
    expected = {names[i]: source.read(names[i], (20, 16)) for i in sorted(order)}
    again = pickle.loads(pickle.dumps(source))
    assert all((again.read(names[i], (20, 16)) == expected[names[i]]).all() for i in order)
    assert all(len(groups.decoded) <= 2 for groups in source._files.values())


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("../data/x.parquet#1", "outside"),
        ("/etc/hostname#1", "outside"),
        ("data/absent.parquet#1", "no readable row"),
        ("data/train-00000-of-00002.parquet#120", "row 120 of 120"),
        ("data/train-00000-of-00002.parquet#-1", "row -1 of 120"),
        ("data/train-00000-of-00002.parquet#x", "no readable row"),
    ],
)
def test_names_that_are_none(fake, name, found):
    with pytest.raises(UnreadableImageError, match=found):
        ParquetSource(fake, "x").read(name, (20, 16))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_bombs_and_damaged_bytes_are_refused_one_by_one(tmp_path):
    bomb = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(bomb, "PNG")
    whole = fakes.jpeg(fakes.picture((1, 2, 3), 1))
    held = [bomb.getvalue(), whole[:200], fakes.HTML_PAGE, b"", None, whole]
    pq.write_table(pa.table({"image": pa.array(held, pa.binary())}), tmp_path / "a.parquet")
    found = []
    for row in range(6):
        try:
            ParquetSource(tmp_path, "x").read(f"a.parquet#{row}", (20, 16))
            found.append("read")
        except UnreadableImageError as error:
            found.append(str(error))
    assert "too large" in found[0]
    assert found[1:] == ["truncated JPEG", "an HTML page", *["no bytes in the column"] * 2, "read"]


def test_a_value_that_repeats_cannot_fill_the_memory(tmp_path, monkeypatch):
    """A dictionary of one long value takes a few bytes per row, whatever the file says that the group takes."""
    monkeypatch.setattr(parquet, "MAX_GROUP", 1 << 20)
    long = pa.array([b"x" * (1 << 18)] * 100, pa.binary())
    pq.write_table(pa.table({"image": long}), tmp_path / "a.parquet")
    with pytest.raises(UnreadableImageError, match="expands to more than"):
        ParquetSource(tmp_path, "x").read("a.parquet#0", (20, 16))
    with pytest.raises(UserError, match="expands to more than"):
        parquet_digests(tmp_path / "a.parquet")
    noise = [np.random.default_rng(i).bytes(1 << 18) for i in range(8)]
    pq.write_table(pa.table({"image": pa.array(noise, pa.binary())}), tmp_path / "b.parquet")
    with pytest.raises(UserError, match="write smaller groups"):
        parquet_digests(tmp_path / "b.parquet")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (fakes.LFS_POINTER, "holds a Git LFS pointer: run `git lfs pull`"),
        (fakes.HTML_PAGE, "holds an HTML page"),
        (b"", "holds zero bytes"),
        (b"PAR1 and then nothing", "is not a readable Parquet file"),
    ],
)
def test_files_that_are_no_parquet(tmp_path, content, found):
    (tmp_path / "train.parquet").write_bytes(content)
    with pytest.raises(UserError, match=rf"train\.parquet .*{found}"):
        FashionProductReader(str(tmp_path)).read()


def test_other_columns_of_bytes_and_hidden_files_are_left_alone(tmp_path):
    root = fakes_parquet.write(tmp_path / "fashion")
    before = FashionProductReader(str(root)).read().catalog.digest
    (root / "data/._train-00000-of-00002.parquet").write_bytes(b"\0\5\x16\7")  # as some systems put beside files
    for path in root.glob("data/[!.]*.parquet"):
        table = pq.read_table(path)
        table = table.append_column("embedding", pa.array([b"\xff\xfe"] * len(table)))
        pq.write_table(table, path, row_group_size=25)
    assert FashionProductReader(str(root)).read().catalog.digest == before


@pytest.mark.parametrize(
    ("added", "found"), [("baseColour", "two columns named 'baseColour'"), ("Colour", "two columns that are 'colour'")]
)
def test_two_columns_for_one_attribute(tmp_path, added, found):
    root = fakes_parquet.write(tmp_path / "fashion")
    for path in root.glob("data/*.parquet"):
        table = pq.read_table(path)
        table = pa.Table.from_arrays([*table.columns, table["season"]], [*table.column_names, added])
        pq.write_table(table, path)
    with pytest.raises(UserError, match=found):
        FashionProductReader(str(root)).read()


def test_tables_without_pictures_or_columns(tmp_path):
    pq.write_table(pa.table({"id": [1], "subCategory": ["Topwear"]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"no column 'image' of pictures' bytes \(its columns are id, subCategory"):
        FashionProductReader(str(tmp_path)).read()
    pq.write_table(pa.table({"id": [1], "image": [b"x"]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="no column for 'sub_category'"):
        FashionProductReader(str(tmp_path)).read()
    pq.write_table(pa.table({"id": [1], "subCategory": ["Shoes"], "image": [b"x"]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="none of subCategory Topwear"):
        FashionProductReader(str(tmp_path), attributes="id").read()
    pq.write_table(pa.table({"image": [b"x"]}), tmp_path / "b.parquet")
    with pytest.raises(UserError, match=r"b\.parquet has other columns than .*a\.parquet"):
        FashionProductReader(str(tmp_path)).read()
