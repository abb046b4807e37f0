# SPDX-License-Identifier: MIT
"""How much memory a block of code took at most."""

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_KIB = 1024
_forgotten_mb = 0.0  # the highest that ``highest_mb`` has seen before the system was told to forget


class Peak:
    """What ``peak_memory`` found; ``None`` until the block has ended, and where it cannot be found out."""

    above_mb: float | None = None
    """MiB of resident memory at the worst moment of the block, above what the process held when it began."""
    total_mb: float | None = None
    """The same with what the process held before."""


@contextmanager
def peak_memory() -> Iterator[Peak]:
    """Measures the resident memory of the block, pages of memory-mapped files that it touched included.

    Linux keeps the highest value since a process was started, or since it was told to forget it, as is done here. Where
    it does not forget, the value counts if the block raised it. Other systems tell nothing.
    """
    peak = Peak()
    _forget()
    before = _read()
    yield peak
    after = _read()
    if before is None or after is None:
        return
    (highest_before, held), (highest, _) = before, after
    # without forgetting, an older peak hides a lower one
    if highest > highest_before or highest_before <= held:
        peak.total_mb = highest / _KIB
        peak.above_mb = max(0.0, (highest - held) / _KIB)


def highest_mb() -> float:
    """Highest resident memory of this process in MiB, whatever ``peak_memory`` made the system forget."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS counts bytes, Linux KiB
    return round(max(_forgotten_mb, peak / _KIB**2 if sys.platform == "darwin" else peak / _KIB), 1)


def _forget() -> None:
    """Sets the highest value to the present one, where that is allowed."""
    global _forgotten_mb
    _forgotten_mb = highest_mb()
    try:
        _RESET.write_text("5")
    except OSError:
        return


def _read() -> tuple[int, int] | None:
    """KiB of resident memory: the highest, and now."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines() if ":" in line)
        highest, now = (int(lines[name].split()[0]) for name in ("VmHWM", "VmRSS"))
    except (OSError, KeyError, ValueError, IndexError):
        return None
    return highest, now
