# SPDX-License-Identifier: MIT
"""What stands before the first batch: pictures decoded once, later starts, and large tables.

python benchmarks/speed/preparation.py [--root FOLDER] [--photos 5000] [--rows 200000] [--threads 2]
    [--parts first later large] [--json FILE]

Three questions:

* first preparation: files read, decoded, shown at one size and written, against Pillow and OpenCV alone, which read and
  decode the same files in as many threads. With digests is what a reader does besides, once per file.
  Without ``--root``, garments are drawn and saved as JPEGs; with it, the photos below that folder are taken;
* a later start: a fresh process until its first training batch, with everything prepared by an earlier one;
* large tables: a CSV of ``--rows`` rows, read by the ``table`` reader, and requests mined from it. Its pictures are not
  there, since only their names are looked at.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
from common import Row, best, options, publish
from mining import catalogue
from PIL import Image

from fm_bench.attributes import AttributeSchema
from fm_bench.catalog import Catalog, Dataset, Split
from fm_bench.data.contents import content_digests
from fm_bench.data.garments import GarmentSource
from fm_bench.data.images import FileSource, cached_images
from fm_bench.data.readers.table import TableReader
from fm_bench.data.requests import mine
from fm_bench.errors import UserError
from fm_bench.memory import peak_memory

WANTED, WANTED_START, WANTED_SECONDS, WANTED_MIB = 0.8, 3.0, 60.0, 4096.0
_CHUNK = 128
_PARTS = ("first", "later", "large")
_FIRST_STEP = "PyTorch imported"
_HERE = "sys.path.insert(0, sys.argv[1]); "
_CLOCKED = "import sys, time, torch; at = [time.time()]; import lightning; at.append(time.time()); "
_START = _CLOCKED + _HERE + "from preparation import started; started(*at, *sys.argv[2:])"
_LARGE = "import sys; " + _HERE + "from preparation import loaded_and_mined; loaded_and_mined(sys.argv[2])"


def draw(root: Path, count: int, side: int) -> None:
    """Saves garments as JPEGs."""
    source = GarmentSource((count, 0, 0))
    for number, name in enumerate(source.names()[:count].tolist()):
        picture = source.read(name, (side * 4 // 3, side))
        Image.fromarray(picture).save(root / f"{number:06d}.jpg", quality=90)


def photos(root: Path, count: int) -> list[str]:
    """Names below ``root`` of up to ``count`` JPEGs. Raises UserError if there is none."""
    found = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.suffix.lower() == ".jpg")
    if not found:
        raise UserError(f"{root} holds no JPEG: pass a folder of photos as --root.")
    return found[:count]


def dataset(root: Path, names: list[str]) -> Dataset:
    """The pictures with one label for all."""
    zeros = np.zeros(len(names), np.int8)
    labels = np.zeros((len(names), 1), np.int16)
    schema = AttributeSchema(("a",), (("x", "y"),))
    catalog = Catalog(schema, np.array(names), labels, np.arange(len(names)), zeros, zeros)
    return Dataset(catalog, FileSource(root, "measured"))


def by_opencv(path: str) -> None:
    """Reads and decodes one file."""
    cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR_RGB)


def by_pillow(path: str) -> None:
    """Reads and decodes one file."""
    with Image.open(path) as image:
        np.asarray(image.convert("RGB"))


def alone(decode: Callable[[str], None], paths: list[str], threads: int) -> None:
    """A decoder in threads, handed whole chunks as ours is."""

    def chunk(start: int) -> None:
        for path in paths[start : start + _CHUNK]:
            decode(path)

    cv2.setNumThreads(1)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(chunk, range(0, len(paths), _CHUNK)))


def first(root: Path, names: list[str], size: tuple[int, int], threads: int, rounds: int) -> list[Row]:
    """Images per second of the decoders alone and of the whole."""
    data, paths = dataset(root, names), [str(root / name) for name in names]
    rows_of, array = np.arange(len(names)), np.array(names)

    def prepare(digests: bool) -> float:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["FM_BENCH_CACHE"] = folder
            begin = time.perf_counter()
            if digests:
                content_digests(root, array)
            cached_images(data, rows_of, size, workers=threads)
            return time.perf_counter() - begin  # without the folder's removal

    works: dict[str, Callable[[], float | None]] = {
        "Pillow alone": partial(alone, by_pillow, paths, threads),
        "OpenCV alone": partial(alone, by_opencv, paths, threads),
        "prepared": partial(prepare, False),
        "prepared, with digests": partial(prepare, True),
    }
    alone(by_opencv, paths, threads)  # so that all find the files in the system's cache
    seconds = best(works, rounds)
    return [
        {
            "what": what,
            "images/s": len(names) / took,
            "to Pillow": seconds["Pillow alone"] / took,
            "to OpenCV": seconds["OpenCV alone"] / took,
            "wanted at least": WANTED if what.startswith("prepared") else None,
        }
        for what, took in seconds.items()
    ]


def fresh(code: str, *arguments: str, cache: str) -> Any:
    """The JSON that a fresh process prints last."""
    command = [sys.executable, "-c", code, str(Path(__file__).parent), *arguments]
    done = subprocess.run(
        command, env=os.environ | {"FM_BENCH_CACHE": cache}, check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def later(root: Path, names: list[str], profile: str, rounds: int) -> list[Row]:
    """Seconds of a fresh process until each step was done, the fastest of ``rounds``."""
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "table.csv"
        colours = [f"c{number % 7}" for number in range(len(names))]
        fits = [f"f{number // 7 % 3}" for number in range(len(names))]
        pacsv.write_csv(pa.table({"image": names, "colour": colours, "fit": fits}), table)

        def start() -> dict[str, float]:
            begun = time.time()
            steps: dict[str, float] = fresh(_START, str(root), str(table), profile, cache=folder)
            return {what: at - begun for what, at in steps.items()}

        start()  # the first one prepares
        steps = min((start() for _ in range(rounds)), key=lambda steps: steps["first batch"])
    torch_alone = steps[_FIRST_STEP]
    return [
        {
            "until": what,
            "seconds": seconds,
            "without PyTorch's import": seconds - torch_alone,
            "wanted below": WANTED_START if what == "first batch" else None,
        }
        for what, seconds in steps.items()
    ]


def started(torch: float, lightning: float, root: str, table: str, profile: str) -> None:
    """What the fresh process does once it has these two, imported when; prints when each step was done."""
    from fm_bench.bench import data_module
    from fm_bench.config import configure

    at = {_FIRST_STEP: torch, "Lightning imported": lightning, "fm_bench imported": time.time()}
    given = ["--data.root", root, "--data.table", table, "--data.image", "image"]
    config = configure("amnet", "table", profile, "common", 0, given)
    at["options understood"] = time.time()
    data = config.read()
    at["catalogue read"] = time.time()
    datamodule = data_module(config, data)
    datamodule.prepare_data()
    datamodule.setup("fit")
    at["pictures opened"] = time.time()
    next(iter(datamodule.train_dataloader()))
    at["first batch"] = time.time()
    print(json.dumps(at))


def large(count: int) -> list[Row]:
    """Seconds and peak memory of reading and mining, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        catalog = catalogue(count, 0.1, 2_000)
        values = [np.array([*names, ""]) for names in catalog.schema.values]
        columns: dict[str, Any] = {"image": np.char.mod("images/%07d.jpg", np.arange(count))}
        # the last value, an empty cell, for −1
        columns |= {name: values[m][catalog.labels[:, m]] for m, name in enumerate(catalog.schema.names)}
        pacsv.write_csv(pa.table(columns), Path(folder) / "large.csv")
        del catalog, columns
        rows: list[Row] = fresh(_LARGE, folder, cache=folder)
    return rows


def loaded_and_mined(root: str) -> None:
    """What that process does; prints the rows."""
    rows: list[dict[str, Any]] = []
    found: dict[str, Any] = {}

    def read() -> int:
        found["catalog"] = TableReader(root, "large.csv", "image").read().catalog
        return len(found["catalog"])

    def requests(changes: int) -> int:
        test = found["catalog"].rows(Split.TEST)
        return len(mine(found["catalog"], test, test, changes=changes, limit=5_000, seed=0))

    works: dict[str, Callable[[], int]] = {
        "rows read": read,
        "requests that change one attribute": partial(requests, 1),
        "requests that change two": partial(requests, 2),
    }
    for what, work in works.items():
        begin = time.perf_counter()
        with peak_memory() as peak:
            count = work()
        rows.append({"what": what, "count": count, "seconds": time.perf_counter() - begin, "peak, MiB": peak.total_mb})
    peaks = [row["peak, MiB"] for row in rows if row["peak, MiB"] is not None]
    whole = {"what": "all of it", "seconds": sum(row["seconds"] for row in rows), "peak, MiB": max(peaks, default=None)}
    rows.append(whole | {"wanted below, s": WANTED_SECONDS, "wanted below, MiB": WANTED_MIB})
    print(json.dumps(rows))


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the tables, and writes them where asked."""
    parser = options(__doc__, rounds=3)
    parser.add_argument("--root", type=Path, help="folder of photos; by default garments are drawn")
    parser.add_argument("--photos", type=int, default=5_000)
    parser.add_argument("--side", type=int, default=300, help="shorter side in pixels of drawn garments")
    parser.add_argument("--size", type=int, nargs=2, default=(80, 64), help="height and width of prepared pictures")
    parser.add_argument("--rows", type=int, default=200_000, help="of the large table")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--profile", default="quick", help="of the later start")
    parser.add_argument("--parts", nargs="+", choices=_PARTS, default=_PARTS, help="which questions; all by default")
    given = parser.parse_args(argv)
    cache = os.environ.get("FM_BENCH_CACHE")
    tables: dict[str, Sequence[Row]] = {}
    try:
        with tempfile.TemporaryDirectory() as folder:
            root = given.root or Path(folder)
            if given.root is None:
                draw(root, given.photos, given.side)
            names = photos(root, given.photos)
            size = tuple(given.size)
            what = f"{len(names):,} photos" if given.root else f"{len(names):,} garments {given.side} pixels wide"
            if "first" in given.parts:
                title = f"First preparation of {what} at {size[1]} x {size[0]}, {given.threads} threads"
                tables[title] = first(root, names, size, given.threads, given.rounds)
            if "later" in given.parts:
                tables[f"A later start with {what}"] = later(root, names, given.profile, given.rounds)
    finally:
        os.environ.pop("FM_BENCH_CACHE", None)
        os.environ |= {} if cache is None else {"FM_BENCH_CACHE": cache}
    if "large" in given.parts:
        tables[f"A table of {given.rows:,} rows with 12 attributes"] = large(given.rows)
    publish("preparation", tables, argv, given.json)


if __name__ == "__main__":
    main()
