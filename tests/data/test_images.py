# SPDX-License-Identifier: MIT
"""Many pictures: digests of their files, and the cache that holds them decoded."""

import json
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import cv2
import disk
import fakes
import numpy as np
import pytest
from filelock import FileLock

from fm_bench.attributes import AttributeSchema
from fm_bench.catalog import Catalog, Dataset, UnreadableImageError
from fm_bench.data import cache as cache_module
from fm_bench.data import decoding
from fm_bench.data.contents import content_digests
from fm_bench.data.images import FileSource, cached_images
from fm_bench.errors import UserError
from fm_bench.files import digest

WHOLE = fakes.jpeg(fakes.picture((200, 30, 40), 0, (160, 120)))


class Counting:
    """Draws pictures and counts how often; readable from processes, since they import this file by its name."""

    digest = "counting"

    def __init__(self, seconds: float = 0.0, bad: tuple[str, ...] = ()) -> None:
        self.seconds, self.bad, self.calls = seconds, bad, 0

    def read(self, image: str, size: tuple[int, int]) -> np.ndarray:
        self.calls += 1
        time.sleep(self.seconds)
        if image in self.bad:
            raise UnreadableImageError("truncated JPEG")
        return np.full((*size, 3), int(image) % 251, np.uint8)


def dataset(names: list[str], source) -> Dataset:
    n = len(names)
    labels, zeros = np.zeros((n, 1), np.int16), np.zeros(n, np.int8)
    return Dataset(
        Catalog(AttributeSchema(("a",), (("x",),)), np.array(names), labels, np.arange(n), zeros, zeros), source
    )


def numbered(n: int, **options) -> Dataset:
    return dataset([str(i) for i in range(n)], Counting(**options))


def folder(root: Path, count: int = 20) -> Dataset:
    names = fakes.pictures(root, count)
    return files(root, names)


def files(root: Path, names: list[str]) -> Dataset:
    return dataset(names, FileSource(root, digest(names, content_digests(root, np.array(names)))))


# Content digests.


def test_content_digests_follow_bytes_and_are_remembered(tmp_path, monkeypatch):
    names = np.array(fakes.pictures(tmp_path, 4))
    (tmp_path / names[3]).write_bytes((tmp_path / names[0]).read_bytes())
    for name in names:
        os.utime(tmp_path / name, (1e9, 1e9))
    first = content_digests(tmp_path, names)
    assert first[0] == first[3]
    assert len(set(first)) == 3
    (tmp_path / names[1]).write_bytes(WHOLE)
    second = content_digests(tmp_path, names)
    assert (first == second).tolist() == [True, False, True, True]


def test_settled_files_are_not_read_again(tmp_path, monkeypatch):
    from fm_bench.data import contents

    names = np.array(fakes.pictures(tmp_path, 4))
    monkeypatch.setattr(contents, "_RACY_NS", -(10**12))
    first = content_digests(tmp_path, names)
    monkeypatch.setattr(contents, "read_bytes", lambda path: pytest.fail(f"read {path} again"))
    assert (content_digests(tmp_path, names) == first).all()
    monkeypatch.undo()
    (tmp_path / names[1]).write_bytes(WHOLE)
    assert (content_digests(tmp_path, names) == first).tolist() == [True, False, True, True]


@pytest.mark.parametrize("quick", [1e9, -1.0], ids=["alone", "by threads"])
def test_values_stay_in_order(monkeypatch, quick):
    from fm_bench.data import contents

    monkeypatch.setattr(contents, "_QUICK", quick)
    threads = set()
    values = contents.in_threads(lambda i: threads.add(threading.get_ident()) or -i, range(1000), "counting")
    assert values == [-i for i in range(1000)]
    assert (len(threads) > 1) == (quick < 0)
    assert contents.in_threads(str, [], "nothing") == []


def test_files_without_content_are_alike_in_nothing(tmp_path):
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).touch()
    assert len(set(content_digests(tmp_path, np.array(["a.jpg", "b.jpg", "c.jpg", "d.jpg"])))) == 4


# The cache.


def test_cache_holds_each_row_in_order(tmp_path):
    data = folder(tmp_path / "data")
    rows = np.array([7, 3, 3, 0])
    cache = cached_images(data, rows, (40, 30), cache=tmp_path / "cache")
    expected = [data.source.read(data.catalog.image[row], (40, 30)) for row in rows]
    assert np.array_equal(cache.images, expected)
    assert cache.images.dtype == np.uint8
    assert cache.readable.all()
    assert len(cache) == 4
    assert not cache.images.flags.writeable


def test_cache_is_built_once_for_each_question(tmp_path):
    data = numbered(30)

    def ask(rows, size):
        before = data.source.calls
        cached_images(data, np.asarray(rows, dtype=np.int64), size, cache=tmp_path)
        return data.source.calls - before

    assert ask(range(30), (8, 8)) == 30
    assert ask(range(30), (8, 8)) == 0
    assert ask(range(30), (8, 6)) == 30
    assert ask(range(30), (8, 8)) == 0  # the other size replaced nothing
    assert ask(range(29), (8, 8)) == 29
    assert ask(range(29, -1, -1), (8, 8)) == 30
    data.source.digest = "other"
    assert ask(range(30), (8, 8)) == 30
    assert ask([], (8, 8)) == 0
    assert cached_images(data, np.arange(0), (8, 8), cache=tmp_path).images.shape == (0, 8, 8, 3)


def test_changed_files_are_decoded_again(tmp_path):
    data = folder(tmp_path / "data")
    rows = np.arange(20)
    before = cached_images(data, rows, (40, 30), cache=tmp_path).images.copy()
    (tmp_path / "data/img/0003.jpg").write_bytes(WHOLE)
    after = cached_images(files(tmp_path / "data", data.catalog.image.tolist()), rows, (40, 30), cache=tmp_path).images
    assert [i for i in range(20) if not np.array_equal(before[i], after[i])] == [3]


def damaged(tmp_path: Path) -> Dataset:
    data = folder(tmp_path / "data")
    img = tmp_path / "data/img"
    (img / "0001.jpg").write_bytes(WHOLE[: len(WHOLE) // 2])
    (img / "0002.jpg").write_bytes(fakes.LFS_POINTER)
    (img / "0003.jpg").write_bytes(fakes.HTML_PAGE)
    (img / "0004.jpg").write_bytes(b"")
    (img / "0005.jpg").unlink()
    (img / "0006.jpg").write_bytes(b"something else")
    return data


def test_unreadable_pictures_are_refused_in_one_sentence(tmp_path):
    data = damaged(tmp_path)
    with pytest.raises(UserError) as caught:
        cached_images(data, np.arange(20), (40, 30), cache=tmp_path / "cache")
    assert str(caught.value) == (
        "6 of 20 pictures could not be read (img/0001.jpg: truncated JPEG; img/0002.jpg: a Git LFS pointer; "
        "img/0003.jpg: an HTML page; img/0004.jpg: zero bytes; img/0005.jpg: missing; …): "
        "replace them, or leave them out with --data.on_error skip."
    )
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]


def test_unreadable_pictures_are_skipped_when_asked(tmp_path):
    data = damaged(tmp_path)
    for _ in range(2):  # built, then found
        cache = cached_images(data, np.arange(20), (40, 30), on_error="skip", cache=tmp_path / "cache")
        assert np.flatnonzero(~cache.readable).tolist() == [1, 2, 3, 4, 5, 6]
        assert (cache.images[1:7] == 255).all()
        assert (cache.images[7] < 200).any()
    with pytest.raises(UserError, match="6 of 20 pictures"):  # a skipping run does not soften a strict one
        cached_images(data, np.arange(20), (40, 30), cache=tmp_path / "cache")


@pytest.mark.parametrize("damage", ["cut", "grown", "text", "marker", "no marker", "shape"])
def test_damaged_cache_is_built_again(tmp_path, damage):
    data = numbered(10)
    path = cached_images(data, np.arange(10), (8, 8), cache=tmp_path).path
    content, marker = path.read_bytes(), path.with_suffix(".json")
    if damage == "cut":
        path.write_bytes(content[:-1])
    elif damage == "grown":
        np.save(path, np.zeros((11, 8, 8, 3), np.uint8))
    elif damage == "text":
        path.write_bytes(b"\x93NUMPY nonsense")
    elif damage == "marker":
        marker.write_text("{")
    elif damage == "no marker":
        marker.unlink()
    else:
        np.save(path, np.zeros((10, 8, 8, 3), np.float32))
    cache = cached_images(data, np.arange(10), (8, 8), cache=tmp_path)
    assert data.source.calls == 20
    assert cache.images[:, 0, 0, 0].tolist() == list(range(10))
    assert json.loads(marker.read_text())["unreadable"] == []


def test_full_disk_is_a_user_error_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(cache_module.os, "posix_fallocate", disk.full)
    with pytest.raises(UserError, match=r"10 decoded pictures need 0\.00 GB in .*No space left.*FM_BENCH_CACHE"):
        cached_images(numbered(10), np.arange(10), (8, 8), cache=tmp_path)
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]


def test_unusable_cache_folder_is_a_user_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"is not usable .*FM_BENCH_CACHE"):
        cached_images(numbered(10), np.arange(10), (8, 8), cache=tmp_path / "file")


def test_pickling_maps_the_file_again(tmp_path):
    cache = cached_images(numbered(100), np.arange(100), (64, 64), cache=tmp_path)
    assert cache.images.shape[0] == 100
    data = pickle.dumps(cache)
    assert len(data) < 2000
    assert np.array_equal(pickle.loads(data).images, cache.images)


def test_processes_fill_the_same_cache(tmp_path, monkeypatch):
    data = numbered(700, bad=("5", "699"))
    alone = cached_images(data, np.arange(700), (8, 8), cache=tmp_path / "1", workers=1, on_error="skip")
    monkeypatch.setattr(decoding, "_JUDGE_AFTER", 0.0)
    monkeypatch.setattr(decoding, "POOL_WORTH", -1.0)
    data.source.calls = 0
    together = cached_images(data, np.arange(700), (8, 8), cache=tmp_path / "2", workers=2, on_error="skip")
    assert data.source.calls < 700  # others did the rest
    assert alone.path.read_bytes() == together.path.read_bytes()
    assert np.flatnonzero(~together.readable).tolist() == [5, 699]


@pytest.mark.parametrize("way", ["threads", "processes"])
def test_files_are_read_the_same_however_many_read_them(tmp_path, monkeypatch, way):
    data = folder(tmp_path / "data", 300)
    (tmp_path / "data" / str(data.catalog.image[5])).write_bytes(b"")
    (tmp_path / "data" / str(data.catalog.image[299])).unlink()
    called = []

    def ask(workers):
        rows = np.arange(300)
        return cached_images(data, rows, (20, 15), cache=tmp_path / str(workers), workers=workers, on_error="skip")

    alone = ask(1)
    monkeypatch.setattr(decoding, "QUICK", -1.0 if way == "threads" else 1e9)
    monkeypatch.setattr(decoding, "LIGHT_WORTH", -1.0)
    for each in ("threads", "processes"):
        work = getattr(decoding, f"_by_{each}")
        monkeypatch.setattr(decoding, f"_by_{each}", lambda *a, work=work, each=each: called.append(each) or work(*a))
    together = ask(2)
    assert called == [way]
    assert alone.path.read_bytes() == together.path.read_bytes()
    assert np.flatnonzero(~together.readable).tolist() == [5, 299]


def test_opencv_leaves_the_cores_to_threads_that_read(tmp_path, monkeypatch, opencv_threads):
    data, read, seen = folder(tmp_path / "data", 300), FileSource.read, set()
    monkeypatch.setattr(decoding, "QUICK", -1.0)
    monkeypatch.setattr(decoding, "LIGHT_WORTH", -1.0)
    monkeypatch.setattr(FileSource, "read", lambda *given: seen.add(cv2.getNumThreads()) or read(*given))
    cached_images(data, np.arange(300), (20, 15), cache=tmp_path / "cache", workers=2)
    assert 1 in seen
    assert cv2.getNumThreads() == opencv_threads


class Interrupting(Counting):
    """Is interrupted in every process but this one, as all of them are by Ctrl-C."""

    digest = "interrupting"

    def __init__(self) -> None:
        super().__init__(seconds=0.001)
        self.parent = os.getpid()

    def read(self, image: str, size: tuple[int, int]) -> np.ndarray:
        if os.getpid() != self.parent:
            os.kill(os.getpid(), signal.SIGINT)
        return super().read(image, size)


@pytest.mark.parametrize("light", [True, False])
def test_processes_leave_an_interrupt_to_the_one_that_began_them(tmp_path, monkeypatch, light):
    monkeypatch.setattr(decoding, "_JUDGE_AFTER", 0.0)
    monkeypatch.setattr(decoding, "POOL_WORTH", -1.0)
    monkeypatch.setattr(decoding, "LIGHT_WORTH", -1.0)
    monkeypatch.setattr(Interrupting, "light", light, raising=False)
    data = dataset([str(i) for i in range(5000)], Interrupting())
    assert cached_images(data, np.arange(5000), (8, 8), cache=tmp_path, workers=2).readable.all()
    assert data.source.calls < 5000  # another process did its share
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_processes_that_decode_import_no_pytorch():
    code = "import sys, fm_bench.data.decoding, fm_bench.data.images; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=True)


SCRIPT = textwrap.dedent("""
    import sys; sys.path[:0] = {paths!r}
    from pathlib import Path
    import numpy as np
    from fm_bench.data import decoding
    from test_images import numbered, cached_images
    print("started", flush=True)
    decoding._JUDGE_AFTER, decoding.POOL_WORTH = {judge}
    cached_images(numbered(300, seconds={seconds}), np.arange(300), (8, 8), cache=Path({cache!r}), workers=2)
    print("done", flush=True)
""")


def script(cache: Path, seconds: float, judge: tuple[float, float] = (1e9, 1e9)) -> subprocess.Popen[str]:
    here = Path(__file__).parent
    text = SCRIPT.format(
        paths=[str(here), str(here.parent), str(here.parents[1])], cache=str(cache), seconds=seconds, judge=judge
    )
    return subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("judge", [(1e9, 1e9), (0.0, -1.0)], ids=["alone", "with processes"])
def test_killed_build_leaves_nothing_that_counts(tmp_path, judge):
    process = script(tmp_path, 0.02, judge)
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".images-*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert list(tmp_path.glob(".images-*"))
    assert not list(tmp_path.glob("images-*.npy"))
    data = numbered(300)
    cache = cached_images(data, np.arange(300), (8, 8), cache=tmp_path)
    assert data.source.calls == 300
    assert cache.images[:, 0, 0, 0].tolist() == [i % 251 for i in range(300)]
    assert not list(tmp_path.glob(".images-*"))


def test_a_second_process_waits_and_reuses(tmp_path):
    finished = cached_images(numbered(300), np.arange(300), (8, 8), cache=tmp_path / "elsewhere").path
    path = tmp_path / "cache" / finished.name
    path.parent.mkdir()
    with FileLock(path.with_suffix(".lock")):
        process = script(path.parent, seconds=60)  # would take for ever if it read a single picture
        assert process.stderr is not None
        assert "waiting" in process.stderr.readline()
        for suffix in (".npy", ".json"):
            path.with_suffix(suffix).write_bytes(finished.with_suffix(suffix).read_bytes())
    assert process.communicate(timeout=30)[0] == "started\ndone\n"


def test_real_photos_decode(photos_root, tmp_path):
    names = sorted(path.name for path in (photos_root / "images").iterdir())[:2000]
    data = dataset(names, FileSource(photos_root / "images", "real"))
    started = time.process_time()
    cache = cached_images(data, np.arange(2000), (80, 64), cache=tmp_path)
    assert 2000 / (time.process_time() - started) > 500
    assert cache.readable.all()
    assert 150 < cache.images.mean() < 250
