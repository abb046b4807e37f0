# SPDX-License-Identifier: MIT
"""Processes that were started from outside are counted, and connected only if the Trainer counts as many."""

import socket

import pytest
from torch import distributed

from fm_bench.errors import UserError
from fm_bench.launch import join, placed, started

TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "6", "LOCAL_WORLD_SIZE": "3", "RANK": "0", "LOCAL_RANK": "0"}
SLURM = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NUM_NODES": "2", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"}
CPU = {"accelerator": "cpu"}


@pytest.mark.parametrize(("environment", "number"), [({}, (1, 1)), (TORCHRUN, (6, 2)), (SLURM, (4, 2))])
def test_processes_are_counted(environment, number, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert started() == number
    given = {"devices": 8, "precision": "bf16-mixed"}
    there = {"devices": number[0] // number[1], "num_nodes": number[1], "strategy": "ddp"}
    assert placed(given) == given | ({} if number == (1, 1) else there)


def test_one_process_is_left_alone():
    join({"devices": 2, "strategy": "ddp"} | CPU)  # Lightning starts the second
    assert not distributed.is_initialized()


@pytest.mark.parametrize(
    ("environment", "trainer", "message"),
    [
        (TORCHRUN, {}, "6 processes were started on 2 machines, but .* would be 1: add --trainer.devices 3 "),
        (TORCHRUN, {"devices": 2, "num_nodes": 2, "strategy": "ddp"}, "does not match the world size .6."),
        (SLURM, {"devices": 2, "num_nodes": 2, "strategy": "ddp"}, "SLURM_JOB_NAME"),
        (TORCHRUN, {"devices": 2, "strategy": "no-such"}, "Lightning refuses these --trainer settings"),
    ],
)
def test_settings_that_mean_other_processes_are_refused(environment, trainer, message, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SLURM_JOB_NAME", "interactive")  # where Lightning ignores SLURM
    with pytest.raises(UserError, match=message):
        join(trainer | CPU)
    assert not distributed.is_initialized()


def test_a_taken_port_is_one_sentence(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(taken.getsockname()[1])}
        sizes = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0"}
        for name, value in (TORCHRUN | meeting | sizes).items():
            monkeypatch.setenv(name, value)
        with pytest.raises(UserError, match="2 processes were started, but could not be connected"):
            join({"devices": 2, "strategy": "ddp"} | CPU)
    assert not distributed.is_initialized()
