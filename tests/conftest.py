# SPDX-License-Identifier: MIT
"""Fixtures of every test: a cache folder of the session's own, and real photos where there are any."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock

# Two workers of two threads each would wait for each other on two cores. Set before PyTorch is imported; inherited.
os.environ.setdefault("OMP_NUM_THREADS", "1")

sys.path[:0] = [
    str(Path(__file__).parent),
    str(Path(__file__).parent / "data"),
]  # commands.py and fakes.py, for all tests


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Nothing is read from, or left in, the user's cache; the workers of one run share a folder."""
    base = tmp_path_factory.getbasetemp()
    cache = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "fm-bench-cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FM_BENCH_CACHE", str(cache))
        yield cache


@pytest.fixture(scope="session")
def photos_root() -> Path:
    """The Fashion Product Images data set, laid out as users download it; skips where there is none.

    It is looked for in the folder that ``FM_BENCH_PHOTOS`` names, else in ``../shared/data/fashion-product-images``
    beside the repository; if only its archives are there, they are unpacked once per machine.
    """
    beside = Path(__file__).resolve().parents[2] / "shared/data/fashion-product-images"
    given = Path(os.environ.get("FM_BENCH_PHOTOS") or beside)
    if (given / "images").is_dir() and (given / "styles.csv").is_file():
        return given
    if not (given / "unpack").is_file():
        pytest.skip(f"no real photos: {given} does not hold Fashion Product Images (set FM_BENCH_PHOTOS)")
    home = Path(tempfile.gettempdir()) / f"fm-bench-test-photos-{os.getuid()}"
    home.mkdir(mode=0o700, exist_ok=True)
    if home.is_symlink() or home.stat().st_uid != os.getuid():
        pytest.skip(f"no real photos: {home} belongs to someone else")
    with FileLock(home / "lock"):  # the workers of one run need it at the same time
        subprocess.run([sys.executable, str(given / "unpack"), str(home / "photos")], check=True, capture_output=True)
    return home / "photos"


@pytest.fixture(scope="session")
def oracle_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the oracle at smoke, to read; only its page may be drawn anew."""
    from commands import bench

    folder = tmp_path_factory.mktemp("oracle") / "run"
    assert bench("oracle", out=folder) == 0
    return folder


@pytest.fixture
def forget() -> Iterator[Callable[[], None]]:
    """What a test loads of methods that are not the suite's own is known to no other; a call is like a new process."""
    from third_party import EXAMPLE

    from fm_bench import recipe, third_party
    from fm_bench.methods import METHODS

    modules, path, methods = set(sys.modules), list(sys.path), dict(METHODS)

    def begin_anew() -> None:
        for name in set(sys.modules) - modules:
            file = getattr(sys.modules[name], "__file__", None) or ""
            if "pytest-of-" in file or str(EXAMPLE) in file:  # of a temporary folder, or the example
                del sys.modules[name]
        sys.path[:] = path
        METHODS.clear()
        METHODS.update(methods)
        recipe._joined.clear()
        for cached in (third_party.load, third_party._source_digest, recipe.checked):
            cached.cache_clear()

    yield begin_anew
    begin_anew()
