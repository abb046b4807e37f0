# SPDX-License-Identifier: MIT
"""Data from elsewhere are data: names and links lead nowhere else, bombs do not go off, cells are only shown."""

import io
import json
import os
import re
import tarfile
from pathlib import Path

import fakes
import numpy as np
import pytest
from PIL import Image, ImageFile
from rich.console import Console

import fm_bench
from fm_bench.catalog import UnreadableImageError
from fm_bench.cli import main
from fm_bench.data import images, rooted
from fm_bench.data.archives import extract
from fm_bench.data.contents import content_digests, picture_frames
from fm_bench.data.images import FileSource, decode
from fm_bench.data.readers.table import TableReader
from fm_bench.data.rooted import MAX_BYTES, Folder, inside
from fm_bench.data.validate import info, print_report
from fm_bench.errors import UserError, printable

OUT = ["../a.jpg", "x/../../a.jpg", "..\\a.jpg", "/etc/passwd", "//server/a", "C:\\a.jpg", "c:a.jpg", "a\0.jpg", "\\a"]
EVIL = ['=HYPERLINK("http://x")', "@SUM(A1)", "<img src=x onerror=alert(1)>", "[red]x[/red]", "[/]", "\x1b[31mx\x07"]
JPEG = fakes.jpeg(fakes.picture((200, 30, 40), 0))


def read(root: Path, name: str) -> str:
    """What is found in a picture's place."""
    with pytest.raises(UnreadableImageError) as caught:
        FileSource(root, "x").read(name, (8, 8))
    return str(caught.value)


# Names and links.


@pytest.mark.parametrize("name", OUT)
def test_names_that_leave_the_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "a.jpg").write_bytes(JPEG)
    assert not inside(name)
    assert read(tmp_path / "root", name) == "outside the data set's folder"
    if "\0" not in name:
        fakes.table(tmp_path / "root", [{"image": name, "colour": f"c{i % 2}"} for i in range(20)])
        with pytest.raises(UserError, match="which is outside"):
            TableReader(str(tmp_path / "root"), "catalogue.csv", "image").read()


@pytest.mark.parametrize("name", ["a.jpg", "a/b.jpg", "./a.jpg", "a..jpg", "...", "ä b.jpg", "a:b.jpg"])
def test_names_that_stay(name: str) -> None:
    assert inside(name) == (name != "a:b.jpg")  # a drive's letter, elsewhere


@pytest.mark.parametrize("refuses", [True, False])  # whether the system opens no link when told so
def test_links_lead_no_further_than_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuses: bool) -> None:
    if not refuses:
        monkeypatch.setattr(rooted, "_REFUSES_LINKS", False)
        monkeypatch.setattr(rooted, "_CAREFUL", rooted.PLAIN)
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "img").mkdir(parents=True)
    outside.mkdir()
    for folder in (root / "img", outside):
        (folder / "a.jpg").write_bytes(JPEG)
    (root / "file.jpg").symlink_to(outside / "a.jpg")
    (root / "folder").symlink_to(outside)
    (root / "twice").symlink_to(root / "folder")
    (root / "fine.jpg").symlink_to("img/a.jpg")
    (root / "same").symlink_to("img")
    (tmp_path / "elsewhere").symlink_to(root)
    assert read(root, "file.jpg") == "a link out of the data set's folder"
    assert read(root, "folder/a.jpg") == "outside the data set's folder"
    assert read(root, "twice/a.jpg") == "outside the data set's folder"
    for top in (root, tmp_path / "elsewhere"):  # where the folder itself lies is the user's choice
        for name in ("fine.jpg", "same/a.jpg", "img/a.jpg"):
            assert Folder(top).read(name) == JPEG


def test_a_folder_whose_name_begins_alike_is_another(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root-2").mkdir()
    (tmp_path / "root-2/a.jpg").write_bytes(JPEG)
    (tmp_path / "root/a.jpg").symlink_to(tmp_path / "root-2/a.jpg")
    assert read(tmp_path / "root", "a.jpg") == "a link out of the data set's folder"


def test_nothing_stalls_the_reader(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "endless.jpg").symlink_to("/dev/zero")
    (tmp_path / "large.jpg").touch()
    os.truncate(tmp_path / "large.jpg", MAX_BYTES + 1)
    (tmp_path / "circle.jpg").symlink_to("circle.jpg")
    names = ["pipe.jpg", "endless.jpg", "large.jpg", "circle.jpg"]
    assert len(set(content_digests(tmp_path, np.array(names)))) == 4  # of their names, since none has content
    assert picture_frames(tmp_path, np.array(names)).tolist() == [[0, 0, 0]] * 4
    assert [read(tmp_path, name) for name in names] == [
        "not a plain file",
        "a link out of the data set's folder",
        "a file of 0.3 GB, too large",
        "a link to nothing",
    ]


# Bombs.


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_nothing_is_decoded_beyond_the_limit(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.BytesIO()
    Image.new("RGB", (60, 80)).save(file, kind)
    monkeypatch.setattr(images, "MAX_PIXELS", 60 * 80 - 1)
    monkeypatch.setattr(images, "decode_plain", lambda *_: pytest.fail("OpenCV decoded it"))
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("Pillow decoded it"))
    with pytest.raises(UnreadableImageError, match="60 x 80 pixels, too large"):
        decode(file.getvalue())


def test_no_other_place_decodes_files() -> None:
    decoders = re.compile(r"cv2\.(imread|imdecode)|Image\.open|plt\.imread|decode_image|decode_jpeg")
    found = {
        path.name
        for path in Path(fm_bench.__file__).parent.rglob("*.py")
        if decoders.search(path.read_text(encoding="utf-8"))
    }
    # contents.py reads headers alone, loggers.py the sheet that it has drawn
    assert found <= {"images.py", "jpeg.py", "contents.py", "loggers.py"}


# Cells.


def test_cells_are_shown_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"image": name, EVIL[3]: EVIL[i % 6]} for i, name in enumerate(fakes.pictures(tmp_path, 60))]
    fakes.table(tmp_path, rows)
    dataset = TableReader(str(tmp_path), "catalogue.csv", "image").read()
    assert set(dataset.catalog.schema.values[0]) == set(EVIL)
    text = io.StringIO()
    print_report(info(dataset), Console(file=text, width=300, force_terminal=True, color_system=None))
    assert EVIL[3] in text.getvalue()
    given = ["table", "--data.root", str(tmp_path), "--data.table", "catalogue.csv", "--data.image", "image"]
    assert main(["data", "info", *given]) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert main(["data", "info", *given, "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["attributes"][EVIL[3]]["values"]) == set(EVIL)
    assert main(["data", "preview", *given, "--out", str(tmp_path / "sheet.png")]) == 0


def test_messages_command_no_terminal() -> None:
    assert str(UserError("a\x1b]0;title\x07 b\r\x9bc")) == "a�]0;title� b��c"
    assert printable("[1, ä]\nß") == "[1, ä]\nß"


def test_no_csv_is_written_whose_cells_come_from_data() -> None:
    """A spreadsheet runs cells that begin with =, +, - or @; the one CSV of a run is Lightning's, of numbers."""
    writers = re.compile(r"csv\.(Dict)?[wW]riter|write_csv|to_csv")
    sources = Path(fm_bench.__file__).parent.rglob("*.py")
    assert [path.name for path in sources if writers.search(path.read_text(encoding="utf-8"))] == []


# Archives; see also test_downloads.py.


def test_an_archive_writes_through_none_of_its_own_links(tmp_path: Path) -> None:
    archive = tmp_path / "archive.tar"
    with tarfile.open(archive, "w") as file:
        link = tarfile.TarInfo("img")
        link.type, link.linkname = tarfile.SYMTYPE, "../outside"
        file.addfile(link)
        member = tarfile.TarInfo("img/a.jpg")
        member.size = len(JPEG)
        file.addfile(member, io.BytesIO(JPEG))
    (tmp_path / "outside").mkdir()
    with pytest.raises(UserError, match="link"):
        extract(archive, tmp_path / "root")
    assert list((tmp_path / "outside").iterdir()) == []
    assert list((tmp_path / "root").iterdir()) == []


def test_unpacked_files_are_plain_whatever_the_archive_says(tmp_path: Path) -> None:
    archive = tmp_path / "archive.tar"
    with tarfile.open(archive, "w") as file:
        member = tarfile.TarInfo("run.sh")
        member.size, member.mode = 2, 0o6777
        file.addfile(member, io.BytesIO(b"ls"))
    (path,) = extract(archive, tmp_path / "root")
    assert path.stat().st_mode & 0o7111 == 0
