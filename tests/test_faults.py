# SPDX-License-Identifier: MIT
"""What goes wrong on one of two processes: both say so, nothing half-written stays, the same command goes on."""

import io
import os
import shutil
import signal
from contextlib import nullcontext, redirect_stderr, redirect_stdout
from unittest import mock

import numpy as np
import pytest
import ranks
import torch
from commands import bench, numbers
from disk import full

from fm_bench import bench as bench_module
from fm_bench import training
from fm_bench.leaderboard.record import FILE as RECORD
from fm_bench.processes import gather
from fm_bench.retrieval import ExactIndex, StoreWriter
from fm_bench.retrieval import store as store_module

TWO = ["--trainer.devices", "2", "--trainer.accelerator", "cpu", "--trainer.strategy", "ddp"]
FEW = ["--evaluation.protocols", '["manipulate-1"]', "--data.train", "150", "--data.val", "80", "--budget", "200"]


def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)


def always(function):
    """Puts ``function`` in another one's place."""
    return lambda _: function


def before(change):
    """Wraps a function: ``change`` sees its arguments, and may give others in their place."""

    def wrap(function):
        def wrapped(*arguments, **named):
            return function(*(change(*arguments) or arguments), **named)

        return wrapped

    return wrap


def nan_loss(callback, trainer, module, outputs, *rest):
    return callback, trainer, module, {"loss": torch.tensor(torch.nan)}, *rest


def nan_vector(writer, index, embedding):
    embedding[index == 7] = np.nan


def nan_gallery(index, gallery):
    gallery = gallery.copy()
    gallery[-1, 0] = np.nan
    return index, gallery


def full_at_the_end(path, value):
    if path.name == training.FINAL:
        full()


# On which process, what is changed and how; what both processes say, and what the other one says before that.
FAULTS = {
    "loss": (1, training.FiniteLoss, "on_train_batch_end", before(nan_loss), "the training loss became ", ""),
    "weights": (0, training, "write_torch", before(full_at_the_end), "No space left", "keeping the trained weights"),
    "room": (0, store_module, "_reserve", always(full), "300 embeddings need", "making room for the embeddings"),
    "vector": (1, StoreWriter, "write", before(nan_vector), "1 of 64 embeddings for", "embedding"),
    "gallery": (1, ExactIndex, "__init__", before(nan_gallery), "1 of 150 gallery embeddings", "opening the gallery"),
    "model": (0, bench_module, "save_model", always(full), "No space left", "recording"),
}
DEATHS = {
    "killed in embedding": (1, StoreWriter, "write", always(die)),
    "killed in search": (0, ExactIndex, "search_counting", always(die)),
}


def work(rank, folders, faults):
    """One of two processes that give the same command in each folder again and again, with one fault each time.

    Returns exit status, what was said, unfinished files, and whether there is a record, after each.
    """
    cache = folders[0].parent / "cache"
    os.environ["FM_BENCH_CACHE"] = str(cache)
    seen = []
    for folder, fault in [(folder, fault) for folder in folders for fault in faults]:
        if rank == 0:
            shutil.rmtree(cache / "stages", ignore_errors=True)  # each folder's run trains by itself
        at, where, name, changed, *_ = (FAULTS | DEATHS | {"none": (None, os, "name", None)})[fault]
        change = mock.patch.object(where, name, changed(getattr(where, name))) if rank == at else nullcontext()
        said, out = io.StringIO(), folder / "run"
        with redirect_stderr(said), redirect_stdout(io.StringIO()), change:
            status = bench("attribute-based", *FEW, *TWO, out=out)
        if fault not in DEATHS:
            gather("all have written")
        seen.append((status, said.getvalue(), [path.name for path in out.rglob(".*")], (out / RECORD).exists()))
        if fault not in DEATHS:
            gather("all have looked")
    return seen


@pytest.mark.slow
def test_a_fault_of_one_process_is_told_by_both_and_mended_by_the_same_command(tmp_path):
    disturbed, undisturbed = tmp_path / "disturbed", tmp_path / "undisturbed"

    def run(name, faults, *folders):
        return ranks.run(work, 2, tmp_path / name, folders, faults)

    for rank, seen in enumerate(run("faults", list(FAULTS), disturbed)):
        for fault, (status, said, unfinished, recorded) in zip(FAULTS, seen, strict=True):
            at, *_, both, others = FAULTS[fault]
            told = f"{others} failed on process {at}: " if others and rank != at else ""
            last = said.splitlines()[-1]
            assert status == 2, (fault, said)
            assert last.startswith(f"fm-bench: {told}"), (fault, said)
            assert both in last, (fault, said)
            assert not unfinished, fault
            assert not recorded, fault
    shutil.rmtree(disturbed / "run" / "embeddings")
    for fault, (at, *_) in DEATHS.items():
        ended = run(fault, [fault], disturbed)
        assert ended[at] == ranks.Failed("killed", "")
        ((status, said, _, recorded),) = ended[1 - at]
        assert status == 2
        assert "fm-bench: another process of this run has ended" in said
        assert not recorded
    (store,) = (disturbed / "run" / "embeddings").glob("gallery-*.npy")
    with store.open("r+b") as file:
        file.truncate(1000)
    for seen in run("mended", ["none"], disturbed, undisturbed):
        assert [status for status, *_ in seen] == [0, 0], seen
    assert numbers(disturbed / "run") == numbers(undisturbed / "run")
    assert not list((disturbed / "run").rglob(".*"))
