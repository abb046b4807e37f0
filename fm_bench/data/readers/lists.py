# SPDX-License-Identifier: MIT
"""Text lists with a count and column names above their rows, as DeepFashion has them.

For example::

    289222                                              how many rows follow
    image_name  category_label                          what their columns are
    img/Sheer_Pleated-Front_Blouse/img_00000001.jpg  3  columns apart by runs of spaces

Some have no line of names, some neither, and one column of a file may hold spaces of its own.
"""

import codecs
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fm_bench.data.sniff import HEAD, not_read, read_table_bytes, refuse_impostor
from fm_bench.errors import UserError

_CHUNK = 8 << 20
"""Bytes of a table of signs that are looked at together."""


class Rows(NamedTuple):
    """The rows of a list."""

    path: Path
    text: pa.StringArray  # (N,) without space around them
    first: int  # number of the first one's line in the file, from 1

    def wrong(self, row: int, found: str, remedy: str = "the file is cut or damaged, download it again") -> UserError:
        """An error about one row, from 0: what was found on its line, and what to do."""
        return UserError(f"{self.path} line {self.first + row} {found}: {remedy}.")


class Signs(NamedTuple):
    """A table of 1 (has it), −1 (has it not) and 0 (not known), one row per image or item."""

    path: Path
    name: NDArray[np.str_]  # (N,) what each row is about, empty where the rows do not say
    sign: NDArray[np.int8]  # (N, C)
    first: int  # number of the first row's line in the file, from 1

    def names(self) -> Rows:
        """What the rows are about, as a list."""
        return Rows(self.path, pa.array(self.name.tolist(), pa.string()), self.first)


def read_rows(path: Path, what: str, *, count: bool = True, header: bool = True, encoding: str = "utf-8") -> Rows:
    """The rows of a list, counted.

    Args:
        path: the file.
        what: what it should be, with its article, for messages.
        count: whether its first line says how many rows follow.
        header: whether a line with names of columns precedes the rows.
        encoding: of the text. Bytes that are none are replaced, since ASCII is all that readers look at.

    Raises:
        UserError: if the file is missing, something else, or has not as many rows as it says.
    """
    text = read_table_bytes(path, what).decode(encoding, errors="replace").removeprefix("\ufeff")
    lines = text.rstrip().replace("\r\n", "\n").split("\n")
    first = int(count) + int(header)
    rows = pc.utf8_trim_whitespace(pa.array(lines[first:], pa.string()))
    if count:
        _check_count(path, lines[0], len(rows), what)
    if not len(rows):
        raise UserError(f"{path} should be {what} but holds no row: download it again.")
    return Rows(path, rows, first + 1)


def _check_count(path: Path, line: str, found: int, what: str) -> None:
    if not re.fullmatch(r"[0-9]{1,12}", line.strip()):
        raise UserError(
            f"{path} should be {what} but its first line is {line[:80]!r}, not the number of its rows: "
            "download it again, or pass the files as they came."
        )
    if int(line) != found:
        raise UserError(
            f"{path} says {int(line):,} rows on its first line but holds {found:,}: "
            "the file is cut or was edited, download it again."
        )


def columns(
    rows: Rows, names: Sequence[str], *, spaces: Literal["none", "first", "last"] = "none"
) -> dict[str, pa.StringArray]:
    """The cells of a list by column.

    Args:
        rows: as ``read_rows`` gives them.
        names: of all its columns, in order.
        spaces: which column's cells may hold spaces.

    Raises:
        UserError: if a row has more or fewer cells; names the first such line.
    """
    if spaces == "none":
        cells = pc.utf8_split_whitespace(rows.text)
    elif len(names) > 1:
        cells = pc.utf8_split_whitespace(rows.text, max_splits=len(names) - 1, reverse=spaces == "first")
    else:
        return {names[0]: rows.text}
    count = np.where(np.asarray(pc.utf8_length(rows.text)) > 0, np.asarray(pc.list_value_length(cells)), 0)
    if (count != len(names)).any():
        row = int(np.flatnonzero(count != len(names))[0])
        raise rows.wrong(row, f"has {count[row]} cells instead of {len(names)} ({', '.join(names)})")
    flat = cells.flatten()
    places = {name: np.arange(i, len(flat), len(names)) for i, name in enumerate(names)}
    return {name: pc.utf8_trim_whitespace(flat.take(pa.array(place))) for name, place in places.items()}


def integers(rows: Rows, column: pa.StringArray, name: str) -> NDArray[np.int64]:
    """A column of whole numbers, zero-padded or not, as ``(N,)``.

    Raises:
        UserError: if a cell is none; names the first such line.
    """
    fine = np.asarray(pc.match_substring_regex(column, r"^[+-]?[0-9]{1,18}$"), dtype=np.bool_)
    if not fine.all():
        row = int(np.flatnonzero(~fine)[0])
        raise rows.wrong(row, f"has {column[row].as_py()[:40]!r} as {name}, which is not a whole number")
    return np.asarray(pc.cast(pc.utf8_ltrim(column, "+"), pa.int64()))


def strings(column: pa.StringArray) -> NDArray[np.str_]:
    """A column as a NumPy array of text ``(N,)``."""
    return np.array(column.to_pylist(), dtype=np.str_)


def codes(rows: Rows, column: pa.StringArray, known: Sequence[str], name: str) -> NDArray[np.int64]:
    """The position of each cell among the known ones, ``(N,)``.

    Raises:
        UserError: if a cell is none of them; names the first such line.
    """
    found = pc.index_in(column, pa.array(known, pa.string()))
    if found.null_count:
        row = int(np.flatnonzero(~np.asarray(found.is_valid()))[0])
        raise rows.wrong(
            row, f"has {column[row].as_py()[:40]!r} as {name}, which is none of {', '.join(known)}", "mend the line"
        )
    return np.asarray(found, dtype=np.int64)


def paths(rows: Rows) -> NDArray[np.str_]:
    """The rows of a list of nothing but paths, ``(N,)``. Raises UserError if one is empty; names its line."""
    empty = np.asarray(pc.equal(rows.text, ""))
    if empty.any():
        raise rows.wrong(
            int(empty.argmax()), "is empty", "other files go by the places of its lines, so take the file as it came"
        )
    return strings(rows.text)


def places(rows: Rows, names: pa.StringArray, wanted: NDArray[np.str_]) -> NDArray[np.int64]:
    """The row ``(M,)`` of a list that is about each wanted name, whatever the order of its rows; −1 if none is.

    Args:
        rows: the list.
        names: ``(N,)`` what its rows are about.
        wanted: ``(M,)`` names that another file has.

    Raises:
        UserError: if a name is twice in the list.
    """
    distinct(rows, names)
    return np.asarray(pc.index_in(pa.array(wanted.tolist(), pa.string()), names).fill_null(-1), dtype=np.int64)


def aligned(rows: Rows, names: pa.StringArray, wanted: NDArray[np.str_], source: Path) -> NDArray[np.int64]:
    """As ``places``, for lists that must have every wanted name.

    Raises:
        UserError: if a name is twice in the list, or one that ``source`` has is not in it.
    """
    place = places(rows, names, wanted)
    if (place < 0).any():
        missing = str(wanted[int(np.flatnonzero(place < 0)[0])])
        raise UserError(
            f"{rows.path} has no row for {missing[:120]!r}, which {source} names: "
            "take both files from the same download."
        )
    return place


def distinct(rows: Rows, names: pa.StringArray) -> None:
    """Raises UserError if two rows of a list are about the same name; names the second one's line."""
    number = np.asarray(names.dictionary_encode().indices)
    if len(number) and number.max() + 1 < len(number):
        seen = np.maximum.accumulate(np.append(-1, number[:-1]))  # numbers are given in the order of first appearance
        row = int(np.flatnonzero(number <= seen)[0])
        raise rows.wrong(row, f"repeats {names[row].as_py()[:120]!r}", "remove one of the lines")


def read_signs(
    path: Path,
    what: str,
    size: int,
    wanted: NDArray[np.int64],
    *,
    named: bool = True,
    count: bool = True,
    header: bool = True,
) -> Signs:
    """Some columns of a large table of signs, without ever holding its text as a whole.

    DeepFashion's has 289,222 rows of 1,000 columns and takes about 0.9 GB.

    Args:
        path: the file.
        what: what it should be, with its article, for messages.
        size: columns of signs that each row has.
        wanted: those to keep, from 0.
        named: whether each row begins with the name of an image or item, which holds no space.
        count: whether the first line says how many rows follow.
        header: whether a line with names of columns precedes the rows.

    Raises:
        UserError: if the file is missing, something else, has not as many rows as it says, or a row has another number
            of cells or a wanted cell that is none of 1, 0 and −1.
    """
    first = int(count) + int(header)
    names: list[str] = []
    parts: list[NDArray[np.int8]] = []
    rows = 0
    said = ""
    for number, block in enumerate(_blocks(path, what)):
        if not number:
            preamble, block = _preamble(block, first)
            said = preamble[0] if count else ""
        cells = _cells(block, size + int(named), path, first + rows)
        if named:
            names += [block[s:e].decode("utf-8", errors="replace") for s, e in _first_cells(block, cells[:, 0])]
        parts.append(_signs(block, cells[:, wanted + int(named)], path, first + rows))
        rows += len(cells)
    if count:
        _check_count(path, said, rows, what)
    if not rows:
        raise UserError(f"{path} should be {what} but holds no row: download it again.")
    return Signs(path, np.array(names, dtype=np.str_), np.concatenate(parts), first + 1)


def _blocks(path: Path, what: str) -> Iterator[bytes]:
    """A file's bytes in blocks of whole lines, each with its end."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
            refuse_impostor(path, head, what)
            file.seek(len(codecs.BOM_UTF8) if head.startswith(codecs.BOM_UTF8) else 0)
            rest = b""
            while data := file.read(_CHUNK):
                whole, end, rest = (rest + data).rpartition(b"\n")
                if end:
                    yield whole + end
            if rest.strip():
                yield rest + b"\n"
    except OSError as error:
        raise not_read(path, what, error) from error


def _preamble(block: bytes, lines: int) -> tuple[list[str], bytes]:
    """The first lines as text, and what follows them."""
    found = []
    for _ in range(lines):
        line, _, block = block.partition(b"\n")
        found.append(line.decode("utf-8", errors="replace"))
    return found, block


def _cells(block: bytes, size: int, path: Path, line: int) -> NDArray[np.int64]:
    """Where each cell of a block begins, ``(rows, size)``; ``line`` lines of the file precede the block."""
    data = np.frombuffer(block, dtype=np.uint8)
    blank = data <= ord(" ")
    begins = ~blank
    begins[1:] &= blank[:-1]
    start = np.flatnonzero(begins)
    ends = np.flatnonzero(data == ord("\n"))
    count = np.diff(np.searchsorted(start, ends), prepend=0)
    while len(count) and not count[-1]:  # the file may end in empty lines
        count = count[:-1]
    if (count != size).any():
        row = int(np.flatnonzero(count != size)[0])
        raise UserError(
            f"{path} line {line + row + 1} has {count[row]:,} cells instead of {size:,}: "
            "the file is cut or damaged, download it again."
        )
    return start.reshape(len(count), size)


def _first_cells(block: bytes, start: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Where the cells that begin at ``start (rows,)`` begin and end."""
    data = np.frombuffer(block, dtype=np.uint8)
    blank = np.flatnonzero(data <= ord(" "))
    end = blank[np.searchsorted(blank, start)]
    return zip(start.tolist(), end.tolist(), strict=True)


def _signs(block: bytes, start: NDArray[np.int64], path: Path, line: int) -> NDArray[np.int8]:
    """The values of the cells that begin at ``start (rows, C)``."""
    data = np.frombuffer(block, dtype=np.uint8)
    negative = data[start] == ord("-")
    digit = data[start + negative]
    after = data[np.minimum(start + negative + 1, len(data) - 1)]
    wrong = ((digit != ord("0")) & (digit != ord("1"))) | (after > ord(" "))
    if wrong.any():
        row, column = (int(i) for i in np.argwhere(wrong)[0])
        cell = block[start[row, column] :].split(None, 1)[0][:20].decode("utf-8", errors="replace")
        raise UserError(
            f"{path} line {line + row + 1} has the cell {cell!r}, which is none of 1, 0 and -1: download it again."
        )
    value: NDArray[np.int8] = (digit == ord("1")).astype(np.int8)
    value[negative] *= -1
    return value
