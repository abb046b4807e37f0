# SPDX-License-Identifier: MIT
"""Finished runs: what a folder of ``fm-bench bench`` was made of, and how its method does by another protocol."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from fm_bench.bench import Bench, Clock, check_searchable, data_module, judge
from fm_bench.catalog import Dataset
from fm_bench.config import RunConfig
from fm_bench.environment import wants_gpu
from fm_bench.errors import UserError
from fm_bench.evaluation.evaluator import Report
from fm_bench.evaluation.searching import Searching
from fm_bench.files import write_json
from fm_bench.launch import join, placed
from fm_bench.leaderboard import record as record_file
from fm_bench.processes import agreed, is_rank_zero, together
from fm_bench.questions import alike, ask_all, check_protocols, load_protocol, sample_of
from fm_bench.recipe import EXACT
from fm_bench.results import MODEL, load_model
from fm_bench.retrieval.reduced import searching_apart_from_gpus
from fm_bench.run_folder import CONFIG, digest_of


class FinishedRun(NamedTuple):
    """What a finished run was made of, with its data."""

    config: RunConfig
    fingerprint: str
    dataset: Dataset


def load_run(folder: Path) -> FinishedRun:
    """A finished run from its folder. Raises UserError if there is none, or its data are gone."""
    path = folder / CONFIG
    if not path.exists() or not (folder / record_file.FILE).exists():
        raise UserError(f"{folder} holds no finished run: give the folder that `fm-bench bench` wrote.")
    stored = json.loads(path.read_text())
    config = RunConfig.from_dict(stored["config"])
    dataset = config.read()
    if digest_of(dataset) != record_file.load(folder / record_file.FILE).data_digest:
        raise UserError(f"the data of {folder} have changed since it ran: restore them or run the benchmark again.")
    return FinishedRun(config, stored["fingerprint"], dataset)


def reevaluate(folder: Path, protocol: str, console: Console, index: str | None = None) -> tuple[Report, Path] | None:
    """Judges a trained run by any protocol; embeddings that are there already are used again.

    Args:
        folder: of a finished run.
        protocol: name of the protocol.
        console: where progress is shown.
        index: what the gallery is searched with, see ``fm_bench.retrieval.openers``; None for the run's own.

    Returns:
        The report, and the JSON file below ``folder`` that holds it; None on the processes that do not write it.

    Raises:
        UserError: if the folder holds no finished run, the protocol or its requests do not exist, or the gallery cannot
            be searched with the index.
    """
    if load_protocol(protocol).kind != "retrieval":
        raise UserError(
            f"{protocol!r} searches no gallery: add --evaluation.protocols '[\"{protocol}\"]' to the command of a run."
        )
    run = load_run(folder)
    about = sample_of(run.config.evaluation.protocols, run.config.data_names)
    if not alike(protocol, about and about[1], run.config.data_names):
        raise UserError(
            f"{protocol!r} is about other pictures than {folder} was trained on: add "
            f"--evaluation.protocols '[\"{protocol}\"]' to the command of a run."
        )
    judged = replace(run.config.evaluation, protocols=[protocol], also=[], index=index or run.config.evaluation.index)
    config = replace(run.config, evaluation=judged, trainer=placed(run.config.trainer))
    join(config.trainer)
    with together(), searching_apart_from_gpus(not wants_gpu(config.trainer.get("accelerator"))):
        with agreed("preparing the requests"):
            check_protocols(judged, run.dataset)
            datamodule = data_module(config, run.dataset)
            datamodule.setup("predict")
            asked, _ = ask_all(run.dataset, datamodule.gallery_rows, judged, datamodule.readable)
            method = load_model(folder / MODEL, config.method)
            check_searchable(config, method, run.dataset)
        vectors = Bench(config, console=console)._embed(folder, run.fingerprint, method, datamodule, asked, Clock())
        with agreed("judging"):
            searching = Searching(judged.index, vectors["gallery"])
            report = judge(method, vectors, datamodule, asked, searching)[protocol]
        searched = "" if judged.index == EXACT else "-" + re.sub(r"[^\w.=]+", "_", judged.index_name)
        out = folder / "evaluations" / f"{protocol}{searched}.json"
        with agreed("writing the report"):
            if not is_rank_zero():
                return None
            digests = {"protocol": protocol, "protocol_digest": asked[protocol].protocol.digest}
            search = {"index": judged.index_name, **searching.found(protocol)}
            write_json(out, report.as_json() | digests | {"search": search})
    return report, out
