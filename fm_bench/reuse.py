# SPDX-License-Identifier: MIT
"""Work that another run has done already: small files in the cache that say in whose folder it lies.

Nothing is copied into the cache, so a run that is deleted takes its results with it. A run takes nothing from its own
repetition: the same command in another folder computes everything itself, and shows whether the numbers come out again.
"""

import json
import os
from pathlib import Path
from typing import Literal

from torch import distributed

from fm_bench.files import cache_dir, write_json
from fm_bench.processes import is_rank_zero

Kind = Literal["embeddings", "stages"]


def remember(kind: Kind, key: str, place: Path, run: str) -> None:
    """Notes that what ``key`` stands for lies at ``place``; the newest note counts.

    Args:
        kind: of the result.
        key: digest of everything that can change the result.
        place: where it lies.
        run: fingerprint of the run that made or uses it.

    Raises:
        UserError: if the file system refuses.
    """
    if is_rank_zero():
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
    if distributed.is_available() and distributed.is_initialized():
        return True
    return max(int(os.environ.get(name) or 1) for name in ("WORLD_SIZE", "SLURM_NTASKS")) == 1
