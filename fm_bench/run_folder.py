# SPDX-License-Identifier: MIT
"""Which folder a run has, and whose a folder is: no two different runs share one, and none is continued by another."""

import json
from collections.abc import Callable
from pathlib import Path

from fm_bench.catalog import Dataset
from fm_bench.config import RunConfig
from fm_bench.environment import code_digest
from fm_bench.errors import UserError
from fm_bench.files import digest, write_json
from fm_bench.leaderboard import record as record_file
from fm_bench.leaderboard.record import Record
from fm_bench.methods import METHODS
from fm_bench.processes import is_rank_zero
from fm_bench.questions import load_protocol

CONFIG = "config.json"


def digest_of(dataset: Dataset) -> str:
    """Changes with any label, split or pixel."""
    return digest(dataset.catalog.digest, dataset.source.digest)


def run_fingerprint(config: RunConfig, data_digest: str) -> str:
    """Digest of everything that can change a number of the run."""
    protocols = {name: load_protocol(name).digest for name in config.evaluation.every}
    return digest(config.numeric(), data_digest, protocols, METHODS[config.method].version, code_digest())


def default_out(config: RunConfig, fingerprint: str, runs: Path) -> Path:
    """``runs/DATA-PROFILE/METHOD-VARIANT/seed0-1a2b3c4d``: no two different runs share a folder."""
    mode = "" if config.mode == "common" else f"-{config.mode}"
    fold = "" if config.fold is None else f"-fold{config.fold}"
    return (
        runs
        / f"{config.data}-{config.profile}{mode}{fold}"
        / config.label.replace("/", "-")
        / f"seed{config.seed}-{fingerprint[:8]}"
    )


def recorded(path: Path, fingerprint: str, say: Callable[[str], None]) -> Record:
    """The record at ``path``, and a line that it is there already. Raises UserError if it is of another run."""
    record = record_file.load(path)
    if record.fingerprint != fingerprint:
        raise UserError(
            f"{path.parent} holds a run with other settings, data or code: give another --out or remove that folder."
        )
    say(f"{record.name} is recorded already: {path}")
    return record


def claim(folder: Path, fingerprint: str, config: RunConfig) -> None:
    """Marks ``folder`` as this run's. Raises UserError if it is somebody else's."""
    path = folder / CONFIG
    if path.exists():
        found = json.loads(path.read_text()).get("fingerprint")
        if found != fingerprint:
            raise UserError(
                f"{folder} holds an unfinished run with other settings, data or code: "
                "give another --out or remove that folder."
            )
    elif folder.exists() and not all(entry.name.startswith(".") for entry in folder.iterdir()):
        # what starts with a dot is ours, from when we were killed early
        raise UserError(f"{folder} is not empty and holds no run of fm-bench: give another --out.")
    elif is_rank_zero():
        write_json(path, {"fingerprint": fingerprint, "config": config.to_dict()})
