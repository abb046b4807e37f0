# SPDX-License-Identifier: MIT
import hashlib
import http.server
import io
import re
import stat
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from rich.console import Console

from fm_bench.data import archives, downloads
from fm_bench.data.archives import extract
from fm_bench.data.fetching import Remote, fetch
from fm_bench.data.readers import READERS
from fm_bench.errors import UserError

CONTENT = bytes(range(256)) * 4096
QUIET = Console(file=io.StringIO())


class Server(http.server.ThreadingHTTPServer):
    """Serves ``content``, ranges of it where ``ranges``; ends each answer early after ``cut`` bytes.

    In the place of a range it gives ``part``, and says that it is ``said`` of ``said_version``; as the answer to every
    request where ``everything_is_a_part``.
    """

    content = CONTENT
    version: str | None = '"one"'
    ranges = True
    cut: int | None = None
    part: bytes | None = None
    said = ""
    said_version = '"one"'
    everything_is_a_part = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/file.bin"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        if self.server.part is not None and (asked or self.server.everything_is_a_part):
            self.send_part(self.server.part)
            return
        content, start = self.server.content, 0
        same = self.headers.get("If-Range") in (None, self.server.version)
        if asked and self.server.ranges and same:
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        if self.server.version:
            self.send_header("ETag", self.server.version)
        self.end_headers()
        stop = len(content) if self.server.cut is None else start + self.server.cut
        self.wfile.write(content[start:stop])

    def send_part(self, part: bytes) -> None:
        self.send_response(206)
        headers = {"Content-Range": self.server.said, "ETag": self.server.said_version, "Content-Length": len(part)}
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(part)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def names(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def test_an_unknown_digest_is_kept_beside_the_file_and_checked_later(server, tmp_path):
    remote = Remote("data/file.bin", server.url)
    assert fetch(remote, tmp_path, QUIET).read_bytes() == CONTENT
    assert (tmp_path / "data/file.bin.sha256").read_text() == f"{sha256(CONTENT)}  file.bin\n"
    assert names(tmp_path) == ["data/file.bin", "data/file.bin.sha256"]
    fetch(remote, tmp_path, QUIET)
    assert len(server.asked) == 1  # it is there
    (tmp_path / "data/file.bin").write_bytes(CONTENT[:-1])
    with pytest.raises(UserError, match=r"file\.bin is not what it should be .*remove it to download it again"):
        fetch(remote, tmp_path, QUIET)
    (tmp_path / "data/file.bin").unlink()
    server.content = CONTENT + b"more"
    with pytest.raises(UserError, match=r"is not what it should be .*it was removed"):
        fetch(remote, tmp_path, QUIET)
    assert names(tmp_path) == ["data/file.bin.sha256"]


def test_a_first_download_that_was_not_whole_can_be_forgotten(server, tmp_path):
    remote = Remote("file.bin", server.url)
    server.content = CONTENT[:100]
    fetch(remote, tmp_path, QUIET).unlink()
    server.content = CONTENT
    with pytest.raises(UserError, match=r"what came first was not whole: remove (\S+) to take") as caught:
        fetch(remote, tmp_path, QUIET)
    Path(re.search(r"remove (\S+) to take", str(caught.value))[1]).unlink()
    assert fetch(remote, tmp_path, QUIET).read_bytes() == CONTENT


@pytest.mark.parametrize("page", [b"<!DOCTYPE html><title>Login</title>", b"<?xml version='1.0'?><Error/>"])
def test_a_web_page_is_no_first_download(server, tmp_path, page):
    remote = Remote("file.bin", server.url)
    server.content = page
    with pytest.raises(UserError, match=r"gives an (HTML|XML) page instead of the file"):
        fetch(remote, tmp_path, QUIET)
    assert names(tmp_path) == []
    server.content = CONTENT
    assert fetch(remote, tmp_path, QUIET).read_bytes() == CONTENT


def test_two_processes_do_not_write_to_one_download(server, tmp_path):
    with FileLock(tmp_path / "file.bin.part.lock"), pytest.raises(UserError, match="another process downloads"):
        fetch(Remote("file.bin", server.url), tmp_path, QUIET)
    assert not server.asked


def test_a_folder_that_has_the_file_s_name(server, tmp_path):
    (tmp_path / "file.bin").mkdir()
    with pytest.raises(UserError, match="is a folder, but a file of that name"):
        fetch(Remote("file.bin", server.url), tmp_path, QUIET)


def test_a_known_digest_decides(server, tmp_path):
    good = Remote("file.bin", server.url, sha256(CONTENT), len(CONTENT))
    assert fetch(good, tmp_path, QUIET).read_bytes() == CONTENT
    assert names(tmp_path) == ["file.bin"]
    with pytest.raises(UserError, match="not what it should be"):
        fetch(good._replace(path="other.bin", sha256="0" * 64), tmp_path, QUIET)
    with pytest.raises(UserError, match="sends more than the 10 bytes"):
        fetch(good._replace(path="other.bin", size=10), tmp_path, QUIET)
    assert not (tmp_path / "other.bin").exists()


def test_what_was_interrupted_continues(server, tmp_path):
    remote = Remote("file.bin", server.url)
    server.cut = 300_000
    with pytest.raises(UserError, match=r"ended after 300,000 of 1,048,576 bytes: run again, it continues"):
        fetch(remote, tmp_path, QUIET)
    assert names(tmp_path) == ["file.bin.part", "file.bin.part.version"]
    server.cut = None
    assert fetch(remote, tmp_path, QUIET).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=300000-"]
    assert names(tmp_path) == ["file.bin", "file.bin.sha256"]


@pytest.mark.parametrize(
    "change", [{"ranges": False}, {"version": '"two"', "content": CONTENT[::-1]}, {"version": None}]
)
def test_it_begins_anew_where_it_cannot_continue(server, tmp_path, change):
    server.cut = 300_000
    if change == {"version": None}:
        server.version = None
    with pytest.raises(UserError):
        fetch(Remote("file.bin", server.url), tmp_path, QUIET)
    server.cut = None
    for name, value in change.items():
        setattr(server, name, value)
    assert fetch(Remote("file.bin", server.url), tmp_path, QUIET).read_bytes() == server.content


def interrupted(server: Server, tmp_path: Path, size: int | None = None) -> Remote:
    """A download of which 1,000 bytes are missing."""
    server.cut = len(CONTENT) - 1000
    remote = Remote("file.bin", server.url, size=size)
    with pytest.raises(UserError, match="ended after"):
        fetch(remote, tmp_path, QUIET)
    server.cut = None
    return remote


@pytest.mark.parametrize(
    ("said", "version", "size"),
    [
        ("bytes 1047577-1048575/1048576", '"one"', None),  # another place
        ("bytes 0-999/1048576", '"one"', None),
        ("bytes 1047576-1048575/*", '"one"', None),  # nobody knows how much there is
        ("bytes 1047576-1048576/1048577", '"one"', len(CONTENT)),  # of a larger file
        ("bytes 1047576-1048575/1048576", '"two"', None),  # of another version
        ("bytes 1047576-1048575/" + "9" * 5000, '"one"', None),
        ("1047576-1048575/1048576", '"one"', None),
        ("", '"one"', None),
    ],
)
def test_another_part_than_was_asked_for_is_not_taken_for_the_rest(server, tmp_path, said, version, size):
    remote = interrupted(server, tmp_path, size)
    server.part, server.said, server.said_version = b"another part", said, version
    assert fetch(remote, tmp_path, QUIET).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=1047576-", None]


def test_the_rest_may_come_in_several_parts(server, tmp_path):
    remote = interrupted(server, tmp_path)
    server.part, server.said, server.said_version = CONTENT[-1000:-600], "bytes 1047576-1047975/1048576", ""
    with pytest.raises(UserError, match=r"ended after 1,047,976 of 1,048,576 bytes: run again, it continues"):
        fetch(remote, tmp_path, QUIET)
    server.part = None
    assert fetch(remote, tmp_path, QUIET).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=1047576-", "bytes=1047976-"]


def test_a_part_that_nobody_asked_for_is_refused(server, tmp_path):
    server.everything_is_a_part = True
    server.part, server.said = CONTENT[-1000:], "bytes 1047576-1048575/1048576"
    with pytest.raises(UserError, match=r"another part of the file than was asked for \(206, bytes 1047576-") as told:
        fetch(Remote("file.bin", server.url), tmp_path, QUIET)
    assert "\n" not in str(told.value)
    assert names(tmp_path) == []
    server.everything_is_a_part = False
    remote = interrupted(server, tmp_path)
    server.everything_is_a_part = True
    server.part, server.said, server.said_version = CONTENT[::-1], "bytes 0-1048575/1048576", '"two"'  # that is all
    assert fetch(remote, tmp_path, QUIET).read_bytes() == CONTENT[::-1]


def test_no_content_is_no_file(server, tmp_path):
    server.RequestHandlerClass = type(
        "Empty", (Handler,), {"do_GET": lambda self: (self.send_response(204), self.end_headers())}
    )
    with pytest.raises(UserError, match=r"another part of the file than was asked for \(204, no range\)"):
        fetch(Remote("file.bin", server.url), tmp_path, QUIET)
    assert names(tmp_path) == []


@pytest.mark.parametrize("kept", [CONTENT, CONTENT + b"too much"])
def test_a_part_that_is_whole_or_too_long(server, tmp_path, kept):
    (tmp_path / "file.bin.part").write_bytes(kept)
    remote = Remote("file.bin", server.url, sha256(CONTENT))
    assert fetch(remote, tmp_path, QUIET).read_bytes() == CONTENT


def test_servers_that_refuse_or_are_not_there(server, tmp_path):
    url = server.url
    server.RequestHandlerClass = type("Refusing", (Handler,), {"do_GET": lambda self: self.send_error(403)})
    with pytest.raises(UserError, match=r"the server says 403 Forbidden\): download it by hand, put it at .*file\.bin"):
        fetch(Remote("file.bin", url), tmp_path, QUIET)
    with pytest.raises(UserError, match=r"could not be fetched .*download it by hand, put it at"):
        fetch(Remote("file.bin", "http://127.0.0.1:1/file.bin"), tmp_path, QUIET)
    assert names(tmp_path) == []


def test_every_source_is_a_reader_and_says_where_to_get_it():
    assert set(downloads.SOURCES) <= set(READERS)
    assert set(READERS) - set(downloads.SOURCES) == {"garments", "table"}
    for reader, source in downloads.SOURCES.items():
        assert downloads.where(reader).endswith((".", "fetches the annotations.", "small pictures."))
        assert all(remote.url.startswith("https://") for remote in source.files)


def test_only_what_may_be_fetched_is(server, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="garments needs no download"):
        downloads.download("garments", tmp_path, QUIET)
    with pytest.raises(UserError, match=r"darn cannot be fetched without its authors' leave: take data\.zip"):
        downloads.download("darn", tmp_path, QUIET)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("fashion-iq-master/image_splits/split.dress.val.json", "[]")
    server.content = archive.getvalue()
    source = downloads.Source("get", "put", (Remote("iq.zip", server.url, unpack=True),), "More is needed.")
    monkeypatch.setitem(downloads.SOURCES, "fashion-iq", source)
    text = io.StringIO()
    for _ in range(2):
        downloads.download("fashion-iq", tmp_path, Console(file=text, width=300))
    assert (tmp_path / "fashion-iq-master/image_splits/split.dress.val.json").read_text() == "[]"
    assert text.getvalue().count("More is needed.") == 2
    assert len(server.asked) == 1


def zipped(path: Path, members: dict[str, bytes], mode: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr, info.compress_type = mode << 16, zipfile.ZIP_DEFLATED
            file.writestr(info, content)
    return path


def tarred(path: Path, members: dict[str, bytes], kind: bytes = tarfile.REGTYPE) -> Path:
    with tarfile.open(path, "w:gz") as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.type, info.linkname = (len(content) if kind == tarfile.REGTYPE else 0), kind, "/etc/passwd"
            file.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_archives_are_unpacked_and_replace_what_is_there(pack, tmp_path):
    archive = pack(tmp_path / "archive", {"a/b.txt": b"new", "c.txt": b"c"})
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    (root / "a/b.txt").write_bytes(b"old")
    assert [path.relative_to(root).as_posix() for path in extract(archive, root)] == ["a/b.txt", "c.txt"]
    assert (root / "a/b.txt").read_bytes() == b"new"
    assert names(root) == ["a/b.txt", "c.txt"]


@pytest.mark.parametrize("pack", [zipped, tarred])
@pytest.mark.parametrize("name", ["../out.txt", "/tmp/out.txt", "a/../../out.txt", "..\\out.txt", "C:/out.txt"])
def test_names_that_leave_the_folder_are_refused(pack, name, tmp_path):
    archive = pack(tmp_path / "archive", {"fine.txt": b"x", name: b"y"})
    with pytest.raises(UserError, match="would land outside the folder"):
        extract(archive, tmp_path / "root")
    assert names(tmp_path) == ["archive"]


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_a_name_of_dots_and_slashes_stays_below_the_folder(pack, tmp_path):
    out = tmp_path / "out.txt"
    archive = pack(tmp_path / "archive", {f"./{out}": b"x", ".//./a//b.txt": b"y"})  # .//tmp/…
    for path in extract(archive, tmp_path / "root"):
        assert path.is_relative_to(tmp_path / "root")
        assert path.is_file()
    assert not out.exists()
    with pytest.raises(UserError, match="no plain file"):
        extract(pack(tmp_path / "archive", {".": b"x"}), tmp_path / "other")


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_one_file_under_two_spellings_is_refused_before_anything_is_moved(pack, tmp_path):
    archive = pack(tmp_path / "archive", {"c.txt": b"", "./a/b.txt": b"1", "a//b.txt": b"2"})
    with pytest.raises(UserError, match=r"holds 'a/b\.txt' twice"):
        extract(archive, tmp_path / "root")
    assert names(tmp_path / "root") == []


def test_a_file_stands_where_a_folder_would_go(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (root / "img").write_bytes(b"mine")
    with pytest.raises(UserError, match="is below a file"):
        extract(zipped(tmp_path / "archive", {"a.txt": b"x", "img/1/b.txt": b"y"}), root)
    assert names(root) == ["img"]
    assert (root / "img").read_bytes() == b"mine"


def test_links_and_devices_are_refused(tmp_path):
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
        with pytest.raises(UserError, match="link or no plain file"):
            extract(tarred(tmp_path / "archive", {"a": b""}, kind), tmp_path / "root")
    with pytest.raises(UserError, match="link or no plain file"):
        extract(zipped(tmp_path / "archive", {"a": b"/etc/passwd"}, stat.S_IFLNK | 0o777), tmp_path / "root")


def test_links_that_are_there_lead_nothing_out(tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "root/a").symlink_to(tmp_path / "outside")
    with pytest.raises(UserError, match="leads out of"):
        extract(zipped(tmp_path / "archive", {"a/b.txt": b"x"}), tmp_path / "root")
    assert names(tmp_path / "outside") == []


def test_archives_that_contradict_themselves_or_need_a_password(tmp_path, monkeypatch):
    twice = tmp_path / "twice.tar"
    with tarfile.open(twice, "w") as file:
        for content in (b"one", b"two"):
            info = tarfile.TarInfo("a.txt")
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    with pytest.raises(UserError, match=r"holds 'a\.txt' twice or too many files"):
        extract(twice, tmp_path / "root")
    archive = zipped(tmp_path / "archive", {"a.txt": b"x", "b.txt": b"y"})
    locked = archive.read_bytes()
    for signature, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):  # where each entry says that it is encrypted
        for found in re.finditer(re.escape(signature), locked):
            at = found.start() + flags
            locked = locked[:at] + bytes([locked[at] | 1]) + locked[at + 1 :]
    (tmp_path / "locked").write_bytes(locked)
    with pytest.raises(UserError, match="is encrypted: unpack it with its password by hand"):
        extract(tmp_path / "locked", tmp_path / "root")
    monkeypatch.setattr(archives, "MAX_MEMBERS", 1)
    with pytest.raises(UserError, match=r"holds 'b\.txt' twice or too many files"):
        extract(archive, tmp_path / "root")
    assert names(tmp_path / "root") == []


def test_a_folder_stands_where_a_file_would_go(tmp_path):
    (tmp_path / "root/a").mkdir(parents=True)
    with pytest.raises(UserError, match="a folder stands there: unpack into an empty folder"):
        extract(zipped(tmp_path / "archive", {"a": b"x"}), tmp_path / "root")
    assert names(tmp_path / "root") == []


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_bombs_and_damage_leave_nothing(pack, tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "SPARED", 1 << 16)
    with pytest.raises(UserError, match="unpacks to more than it should"):
        extract(pack(tmp_path / "archive", {"zeros": bytes(1 << 20)}), tmp_path / "root")
    several = {f"{i}.bin": bytes(30_000) for i in range(3)}  # each of them within the limit
    with pytest.raises(UserError, match=r"unpacks to more than it should at '2\.bin'"):
        extract(pack(tmp_path / "archive", several), tmp_path / "root")
    whole = pack(tmp_path / "archive", {"a.bin": CONTENT[:50_000][::7]}).read_bytes()
    for damaged in (whole[: len(whole) // 2], b"nothing", b""):
        (tmp_path / "archive").write_bytes(damaged)
        with pytest.raises(UserError, match="archive"):
            extract(tmp_path / "archive", tmp_path / "root")
    assert names(tmp_path / "root") == []
    with pytest.raises(UserError, match="is not a file"):
        extract(tmp_path / "absent", tmp_path / "root")
