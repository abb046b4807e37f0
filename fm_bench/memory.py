# SPDX-License-Identifier: MIT
"""How much memory a block of code took at most."""

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_KIB = 1024
_NEAR = 1024  # KiB that come and go while the system is asked
_forgotten_mb = 0.0  # the highest that ``highest_mb`` has seen before the system was told to forget


class _Memory(NamedTuple):
    """KiB of resident memory."""

    highest: int
    now: int


class Peak:
    """What ``peak_memory`` found; ``None`` until the block has ended, and where it cannot be found out."""

    above_mb: float | None = None
    """MiB of resident memory at the worst moment of the block, above what the process held when it began."""
    total_mb: float | None = None
    """The same with what the process held before."""

    def __init__(self) -> None:
        self._parts: list[tuple[_Memory | None, _Memory | None]] = []
        self._begin()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """A part of the block that does not count, here or in ``highest_mb``, nor what it leaves behind.

        Where the system does not forget its highest value, ``highest_mb`` counts it all the same.
        """
        self._end()
        _forget()
        try:
            yield
        finally:
            _reset()
            self._begin()

    def _begin(self) -> None:
        _forget()
        self._before = _read()

    def _end(self) -> None:
        self._parts.append((self._before, _read()))

    def _tell(self) -> None:
        """Sets the results, if every part of the block that counts is known."""
        known = [(before, after) for before, after in self._parts if before and after and _is_known(before, after)]
        if len(known) < len(self._parts):
            return
        held = ended = known[0][0].now
        highest = left = 0  # `left` behind by the parts that do not count
        for before, after in known:
            left += max(0, before.now - ended)
            highest, ended = max(highest, after.highest - left), after.now
        self.total_mb = highest / _KIB
        self.above_mb = max(0.0, (highest - held) / _KIB)


def _is_known(before: _Memory, after: _Memory) -> bool:
    """Whether the highest value is that of the time between: without forgetting, an older peak hides a lower one."""
    return after.highest > before.highest or before.highest <= before.now + _NEAR


@contextmanager
def peak_memory() -> Iterator[Peak]:
    """Measures the resident memory of the block, pages of memory-mapped files that it touched included.

    Linux keeps the highest value since a process was started, or since it was told to forget it, as is done here. Where
    it does not forget, the value counts if the block raised it. Other systems tell nothing.
    """
    peak = Peak()
    yield peak
    peak._end()
    peak._tell()


def highest_mb() -> float:
    """Highest resident memory of this process in MiB, whatever ``peak_memory`` made the system forget."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS counts bytes, Linux KiB
    return round(max(_forgotten_mb, peak / _KIB**2 if sys.platform == "darwin" else peak / _KIB), 1)


def _forget() -> None:
    """Sets the highest value to the present one, where that is allowed, and remembers it for ``highest_mb``."""
    global _forgotten_mb
    _forgotten_mb = highest_mb()
    _reset()


def _reset() -> None:
    """Sets the highest value to the present one, where that is allowed."""
    try:
        _RESET.write_text("5")
    except OSError:
        return


def _read() -> _Memory | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines() if ":" in line)
        highest, now = (int(lines[name].split()[0]) for name in ("VmHWM", "VmRSS"))
    except (OSError, KeyError, ValueError, IndexError):
        return None
    return _Memory(highest, now)
