# SPDX-License-Identifier: MIT
import fakes
import numpy as np
import pyarrow as pa
import pytest

from fm_bench.data.readers import lists
from fm_bench.data.readers.lists import (
    aligned,
    codes,
    columns,
    distinct,
    integers,
    paths,
    places,
    read_rows,
    read_signs,
)
from fm_bench.errors import UserError

TEXT = "3 \nname  type\nabstract chevron print       1  \na-line                       3\nv neck   04\n"


def rows(path, text=TEXT, **options):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_rows(path, "the list of attributes", **options)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "list.txt"


def test_counted_rows_whose_first_or_last_column_holds_spaces(path):
    found = rows(path)
    cells = columns(found, ("name", "type"), spaces="first")
    assert cells["name"].to_pylist() == ["abstract chevron print", "a-line", "v neck"]
    assert integers(found, cells["type"], "type").tolist() == [1, 3, 4]
    colours = rows(path, "img/a.jpg    Blue & White \nimg/b.jpg  Red\n", count=False, header=False)
    assert columns(colours, ("image", "colour"), spaces="last")["colour"].to_pylist() == ["Blue & White", "Red"]
    names = rows(path, "1\nhead\nlong sleeve \n")
    assert columns(names, ("name",), spaces="first")["name"].to_pylist() == ["long sleeve"]


def test_line_ends_of_windows_a_byte_order_mark_and_empty_lines_at_the_end(path):
    found = rows(path, b"\xef\xbb\xbf" + TEXT.replace("\n", "\r\n").encode() + b"\r\n\r\n")
    assert columns(found, ("name", "type"), spaces="first")["name"].to_pylist()[2] == "v neck"
    assert found.first == 3
    path.write_bytes(b"\xef\xbb\xbf1\r\nitem signs\r\nid_1 1 0 -1\r\n\r\n")
    signs = read_signs(path, "the table", 3, np.arange(3))
    assert (signs.name.tolist(), signs.sign.tolist()) == (["id_1"], [[1, 0, -1]])
    path.write_bytes(b"\xef\xbb\xbf1 0 -1\n")
    assert read_signs(path, "it", 3, np.arange(3), named=False, count=False, header=False).sign.tolist() == [[1, 0, -1]]


def test_a_list_that_is_not_there_or_has_an_empty_line(path):
    for read in (read_rows, lambda path, what: read_signs(path, what, 1, np.arange(1))):
        with pytest.raises(UserError, match=r"list\.txt could not be read .*should be a list, put it there or mend"):
            read(path, "a list")
    with pytest.raises(UserError, match=r"list\.txt line 2 is empty: .* take the file as it came"):
        paths(rows(path, "a.jpg\n\nb.jpg\n", count=False, header=False))
    assert paths(rows(path, "a.jpg\nb.jpg\n", count=False, header=False)).tolist() == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("3\nhead\na 1\nb 2\n", r"says 3 rows on its first line but holds 2"),
        ("2\nhead\na 1\nb 2\nc 3\n", r"says 2 rows on its first line but holds 3"),
        ("image_name status\na 1\n", r"its first line is 'image_name status', not the number of its rows"),
        ("0\nhead\n", r"holds no row"),
        (fakes.LFS_POINTER, r"holds a Git LFS pointer: run `git lfs pull`"),
        (fakes.HTML_PAGE, r"holds an HTML page"),
        (b"", r"holds zero bytes"),
    ],
)
def test_lists_that_are_cut_or_something_else(path, text, says):
    with pytest.raises(UserError, match=rf"list\.txt .*{says}"):
        rows(path, text)


def test_mistakes_name_their_line(path):
    with pytest.raises(UserError, match=r"list\.txt line 3 has 4 cells instead of 2 \(name, type\)"):
        columns(rows(path), ("name", "type"))
    with pytest.raises(UserError, match=r"line 4 has 0 cells instead of 2"):
        columns(rows(path, "3\nhead\na 1\n\nb 1\n"), ("name", "type"))
    found = rows(path, "3\nhead\na 1\nb x\na 3\n")
    cells = columns(found, ("name", "type"))
    with pytest.raises(UserError, match=r"line 4 has 'x' as type, which is not a whole number"):
        integers(found, cells["type"], "type")
    with pytest.raises(UserError, match=r"line 4 has 'x' as type, which is none of 1, 3"):
        codes(found, cells["type"], ("1", "3"), "type")
    with pytest.raises(UserError, match=r"line 5 repeats 'a'"):
        distinct(found, cells["name"])


def test_rows_are_found_in_any_order(path):
    found = rows(path, "3\nhead\nc\na\nb\n")
    assert places(found, found.text, np.array(["a", "x", "c"])).tolist() == [1, -1, 0]
    assert aligned(found, found.text, np.array(["b", "c"]), path).tolist() == [2, 0]
    with pytest.raises(UserError, match=r"list\.txt has no row for 'x', which .*other\.txt names"):
        aligned(found, found.text, np.array(["a", "x"]), path.with_name("other.txt"))
    distinct(found, pa.array(["a", "b", "c"]))


def table(path, signs, names=None):
    names = [f"img/{i:04d}.jpg" for i in range(len(signs))] if names is None else names
    body = "".join(f"{n}   {'  '.join(map(str, sign))} \n" for n, sign in zip(names, signs.tolist(), strict=True))
    path.write_text(f"{len(signs)}\nimage_name  attribute_labels\n{body}")


@pytest.mark.parametrize("chunk", [64, 1 << 20])
def test_a_table_of_signs_is_the_same_in_blocks_of_any_size(path, monkeypatch, chunk):
    signs = np.random.default_rng(0).choice([-1, 0, 1], size=(40, 9)).astype(np.int8)
    table(path, signs)
    monkeypatch.setattr(lists, "_CHUNK", chunk)
    wanted = np.array([7, 0, 3])
    found = read_signs(path, "the table", 9, wanted)
    np.testing.assert_array_equal(found.sign, signs[:, wanted])
    assert found.name.tolist() == [f"img/{i:04d}.jpg" for i in range(40)]
    assert found.names().first == 3


def test_a_table_without_names_count_or_a_last_line_end(path):
    path.write_text("0 1 0\n1 0 -1")
    found = read_signs(path, "the table", 3, np.arange(3), named=False, count=False, header=False)
    assert found.sign.tolist() == [[0, 1, 0], [1, 0, -1]]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("img/0002.jpg   1", "img/0002.jpg   ", r"line 5 has 3 cells instead of 4"),
        ("img/0002.jpg   1", "img/0002.jpg   2", r"line 5 has the cell '2', which is none of 1, 0 and -1"),
        ("img/0002.jpg   1", "img/0002.jpg   10", r"line 5 has the cell '10'"),
        ("img/0002.jpg   1", "img/0002.jpg   --1", r"line 5 has the cell '--1'"),
        ("img/0003.jpg   1  1  1 \n", "", r"says 4 rows on its first line but holds 3"),
        ("4\n", "four\n", r"its first line is 'four', not the number"),
    ],
)
@pytest.mark.parametrize("chunk", [64, 1 << 20])
def test_mistakes_in_a_table_name_their_line(path, monkeypatch, chunk, old, new, says):
    table(path, np.ones((4, 3), dtype=np.int8))
    path.write_text(path.read_text().replace(old, new, 1))
    monkeypatch.setattr(lists, "_CHUNK", chunk)
    with pytest.raises(UserError, match=rf"list\.txt .*{says}"):
        read_signs(path, "the table", 3, np.arange(3))


def test_a_table_that_is_a_pointer(path):
    path.write_bytes(fakes.LFS_POINTER)
    with pytest.raises(UserError, match="Git LFS pointer"):
        read_signs(path, "the table", 3, np.arange(3))
    with pytest.raises(UserError, match="could not be read"):
        read_signs(path.with_name("absent"), "the table", 3, np.arange(3))
