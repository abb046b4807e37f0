# SPDX-License-Identifier: MIT
"""Where learning curves and results go besides the run's folder: CSV files, TensorBoard, Weights & Biases.

None of them is a need: what cannot be logged is told in one sentence, and the run goes on. Nothing is sent anywhere:
Weights & Biases writes below the run's folder unless the environment says ``WANDB_MODE=online``.
"""

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from PIL import Image

from fm_bench.leaderboard.record import Record
from fm_bench.processes import is_rank_zero

LOGS = "logs"
MOST_PICTURES = 20
"""Requests of a table of results."""
TOP = 5
"""Results of each of them."""
HIT, MISS = "✓", "·"
Say = Callable[[str], None]
_open: dict[Path, Any] = {}
"""Runs of Weights & Biases that have begun, by the folder of the run: its stages and its results go to one."""


class Careful(Logger):
    """A logger whose failures are told once, and do not end the run.

    Args:
        kind: name of the logger.
        inner: the logger itself.
        say: prints a line for the user.
    """

    def __init__(self, kind: str, inner: Logger, say: Say) -> None:
        super().__init__()
        self._kind, self._inner, self._say = kind, inner, say
        self._well = True

    @property
    def name(self) -> str | None:
        """Of the run, as the logger knows it."""
        return self._inner.name

    @property
    def version(self) -> int | str | None:
        """Of the run, as the logger knows it."""
        return self._inner.version

    @property
    def save_dir(self) -> str | None:
        """Where the logger writes."""
        return self._inner.save_dir

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Hands on numbers of one step."""
        self._try(lambda: self._inner.log_metrics(dict(metrics), step))

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Hands on settings."""
        self._try(lambda: self._inner.log_hyperparams(params, *args, **kwargs))

    def save(self) -> None:
        """Lets the logger write what it holds."""
        self._try(self._inner.save)

    def finalize(self, status: str) -> None:
        """Lets the logger write the last it holds."""
        self._try(lambda: self._inner.finalize(status))

    def _try(self, action: Callable[[], Any]) -> None:
        if not self._well:
            return
        try:
            action()
        except Exception as error:  # a full disk, a service that is away: each fails in its own way
            self._well = False
            if is_rank_zero():
                self._say(f"the logger {self._kind!r} failed ({_reason(error)}): the run goes on without it.")


def stage_loggers(kind: str, folder: Path, stage: str, say: Say) -> list[Logger]:
    """The loggers of one stage's ``Trainer``: CSV files, which the method's page is made from, then what was asked for.

    Args:
        kind: ``csv``, ``tensorboard``, ``wandb``, or ``none`` for no logger at all; one that cannot be started is told.
        folder: of the run.
        stage: its name; an earlier attempt's curves stay beside those of a later one.
        say: prints a line for the user.
    """
    if kind == "none":
        return []
    logs, name, attempt = folder / LOGS, stage, 1
    while (logs / name).exists():  # an earlier attempt was interrupted
        attempt += 1
        name = f"{stage}-{attempt}"
    csv = CSVLogger(logs, name=None, version=name)
    loggers: list[Logger] = [Careful("csv", csv, say)]
    try:
        if kind == "wandb":
            run = _wandb_run(folder) if is_rank_zero() else None
            loggers.append(Careful(kind, WandbLogger(experiment=run, prefix=stage, save_dir=folder), say))
        elif kind == "tensorboard":
            loggers.append(Careful(kind, TensorBoardLogger(logs, name=None, version=name), say))
    except Exception as error:  # not installed, not allowed to write
        if is_rank_zero():
            reason = f"could not be started ({_reason(error)})"
            say(f"the logger {kind!r} {reason}: the curves go to CSV files in {logs} alone.")
    return loggers


def log_results(kind: str, folder: Path, record: Record, pictures: int | None, say: Say) -> None:
    """Hands on what a finished run scored, and some requests with what was found for them.

    Args:
        kind: see ``stage_logger``; CSV files hold curves alone.
        folder: of the run, which is recorded.
        record: of the run.
        pictures: how many requests are shown, at most ``MOST_PICTURES``; None for as many with Weights & Biases, whose
            table can be paged, and none with TensorBoard.
        say: prints a line for the user.
    """
    log = {"tensorboard": _to_tensorboard, "wandb": _to_wandb}.get(kind)
    if log is None:
        return
    try:
        if told := log(folder, record, pictures):
            say(told)
    except Exception as error:
        say(f"the logger {kind!r} failed ({_reason(error)}): the run is recorded without it.")


def _to_tensorboard(folder: Path, record: Record, pictures: int | None) -> str:
    from fm_bench.leaderboard.rows import flat

    logger = TensorBoardLogger(folder / LOGS, name=None, version="results", default_hp_metric=False)
    logger.log_hyperparams(flat(record.config), _scores(record))
    protocol = _shown(folder)
    if pictures and protocol is not None:
        from fm_bench.explain import results_sheet

        with tempfile.TemporaryDirectory() as place:
            sheet = results_sheet(folder, protocol, min(pictures, MOST_PICTURES), Path(place) / "results.png")
            image = np.asarray(Image.open(sheet).convert("RGB"))
        logger.experiment.add_image(f"results/{protocol}", image, dataformats="HWC")
    logger.finalize("success")
    return ""


def _to_wandb(folder: Path, record: Record, pictures: int | None) -> str:
    run = _wandb_run(folder)
    told = f"to send this run to Weights & Biases: wandb sync {Path(run.dir).parent}" if run.offline else ""
    try:
        run.summary.update(_scores(record) | {"notes": record.notes, "parameters": record.parameters})
        protocol = _shown(folder)
        rows = MOST_PICTURES if pictures is None else min(pictures, MOST_PICTURES)
        if rows and protocol is not None:
            with _staged(folder):
                run.log({f"results/{protocol}": _wandb_table(folder, protocol, rows)})
    finally:
        del _open[folder.resolve()]
        run.finish()
    return told


def _wandb_run(folder: Path) -> Any:
    """The run of Weights & Biases that belongs to a run's folder, begun if there is none."""
    import wandb

    key = folder.resolve()
    if key not in _open:
        stored = json.loads((folder / "config.json").read_text()) if (folder / "config.json").exists() else {}
        _open[key] = wandb.init(
            project="fm-bench",
            name=folder.name,
            dir=folder,
            config=stored.get("config", {}) | {"fingerprint": stored.get("fingerprint", "")},
            mode=None if os.environ.get("WANDB_MODE") else "offline",
            reinit="create_new",
        )
    return _open[key]


@contextmanager
def _staged(folder: Path) -> Iterator[None]:
    """Pictures of a table wait for their upload below the run's folder, not in the user's, unless that is asked for."""
    name = "WANDB_DATA_DIR"
    if name in os.environ:
        yield
        return
    os.environ[name] = str((folder / "wandb").resolve())
    try:
        yield
    finally:
        del os.environ[name]


def _wandb_table(folder: Path, protocol: str, rows: int) -> Any:
    """Query picture, request in words, first results, and which of them are hits."""
    import wandb

    from fm_bench.explain import load_answers

    answers = load_answers(folder, protocol, rows, 0)
    catalog, source, size = answers.run.dataset.catalog, answers.run.dataset.source, answers.run.config.image_size
    columns: list[str | int] = ["picture", "request", *(f"result {i + 1}" for i in range(TOP)), "hits"]
    table = wandb.Table(columns=columns)
    for i in range(len(answers.found)):
        found, hits = answers.found[i, :TOP].tolist(), answers.hits[i, :TOP].tolist()
        pictures = [wandb.Image(source.read(str(catalog.image[row]), size)) if row >= 0 else None for row in found]
        pictures += [None] * (TOP - len(pictures))
        asked = wandb.Image(source.read(answers.picture(i), size))
        table.add_data(asked, answers.wish(i), *pictures, " ".join(HIT if hit else MISS for hit in hits))
    return table


def _shown(folder: Path) -> str | None:
    """The protocol whose requests are shown: the first one that searches, none where nothing was searched."""
    asked = sorted(path.stem for path in (folder / "requests").glob("*.npz"))
    return asked[0] if asked else None


def _scores(record: Record) -> dict[str, float]:
    return {
        f"{protocol}/{name}": float(estimate["value"])
        for protocol, metrics in record.metrics.items()
        for name, estimate in metrics.items()
    }


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
