# SPDX-License-Identifier: MIT
"""Work that another run has done already: small files in the cache that say in whose folder it lies.

Nothing is copied into the cache, so a run that is deleted takes its results with it. A run takes nothing from its own
repetition: the same command in another folder computes again what the first one computed, and shows whether the numbers
come out again.
"""

import contextlib
import json
from pathlib import Path
from typing import Literal

from torch import distributed

from fm_bench.errors import UserError
from fm_bench.files import cache_dir, write_json
from fm_bench.launch import started
from fm_bench.processes import is_rank_zero

Kind = Literal["embeddings", "stages"]


def remember(kind: Kind, key: str, place: Path, run: str) -> None:
    """Notes that what ``key`` stands for lies at ``place``; the newest note counts.

    A cache that cannot be written stays as it is: without the note, another run computes the same once more.

    Args:
        kind: of the result.
        key: digest of everything that can change the result.
        place: where it lies.
        run: fingerprint of the run that computed it; one that took it over writes no note.
    """
    if is_rank_zero():
        with contextlib.suppress(UserError, OSError):
            write_json(_note(kind, key), {"place": str(place.resolve()), "run": run})


def recall(kind: Kind, key: str, place: Path, run: str) -> Path | None:
    """Where what ``key`` stands for may be found, for the process that writes; None where there is nothing to take.

    Args:
        kind: of the result.
        key: digest of everything that can change the result.
        place: where it is needed; what lies in the same folder is no repetition.
        run: fingerprint of the run that asks.
    """
    if not (is_rank_zero() and _together()):
        return None
    try:
        note = json.loads(_note(kind, key).read_text(encoding="utf-8"))
        found, by = Path(note["place"]), str(note["run"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if found == place.resolve() or (by == run and found.parent != place.resolve().parent):
        return None
    return found


def _note(kind: Kind, key: str) -> Path:
    return cache_dir() / kind / f"{key[:32]}.json"


def _together() -> bool:
    """Whether no process can miss what the first one takes: there is one process, or they can wait for each other."""
    return (distributed.is_available() and distributed.is_initialized()) or started()[0] == 1
