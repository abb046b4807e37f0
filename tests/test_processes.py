# SPDX-License-Identifier: MIT
"""Processes that fail, or are killed, leave no other one waiting."""

import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import ranks

from fm_bench.errors import UserError
from fm_bench.processes import agreed, gather, gather_arrays, is_rank_zero, tell, together, total, world


def test_alone_nothing_changes():
    assert world() == (0, 1)
    assert gather("a") == ["a"]
    numbers = np.arange(3)
    assert total(numbers) is gather_arrays(numbers)[0] is numbers
    with pytest.raises(ZeroDivisionError), together(), agreed("dividing"):
        _ = 1 / 0
    with pytest.raises(RuntimeError, match="gloo/transport"), together():
        raise RuntimeError("gloo/transport: not ours, since there is no other process")


@pytest.mark.parametrize(
    ("environment", "zero"),
    [
        ({}, True),
        ({"RANK": "0", "LOCAL_RANK": "0", "SLURM_PROCID": "1"}, True),  # torchrun counts as it likes
        ({"RANK": "2", "LOCAL_RANK": "0"}, False),
        ({"LOCAL_RANK": "1", "NODE_RANK": "0", "SLURM_PROCID": "0"}, False),
        ({"LOCAL_RANK": "0", "NODE_RANK": "1"}, False),
        ({"SLURM_PROCID": "3"}, False),
    ],
)
def test_who_writes_before_the_processes_are_joined(environment, zero, monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
        if name in environment:
            monkeypatch.setenv(name, environment[name])
    assert is_rank_zero() is zero


def work(rank):
    """A life of three processes, one fault after the other; the last one kills process 1."""
    said = [gather(rank * 10), world(), is_rank_zero()]
    for array in (np.arange(6).reshape(2, 3) + rank, np.array([[rank == 1]]), np.empty((0, 4))):
        said.append([part.tolist() for part in gather_arrays(array)])
    said.append(total(np.array([rank, 1])).tolist())
    for fault in (_inside, _outside, _told, _everywhere):
        try:
            fault(rank)
        except (UserError, ValueError) as error:
            said.append(f"{type(error).__name__}: {error}")
        assert gather(rank) == [0, 1, 2]  # all of them go on together
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        with agreed("waiting"):
            pass
    except UserError as error:
        said.append(str(error))
    return said


def _inside(rank):
    with agreed("counting"), agreed("adding"):
        if rank == 1:
            raise ValueError("one too many")


def _outside(rank):
    with agreed("counting"):
        if rank == 2:
            raise ValueError("none left")
        with agreed("adding"):
            pass
        raise AssertionError("the others are beyond the failed process")


def _told(rank):
    if rank == 0:
        error = ValueError("at the door")
        tell(error, "entering")
        tell(error, "entering")  # once is enough
        raise error
    gather("inside")


def _everywhere(rank):
    with agreed("counting"), agreed("adding"):
        raise ValueError(f"no {rank}")


def test_every_process_hears_of_a_fault_and_of_a_death(tmp_path):
    first, killed, third = ranks.run(work, 3, tmp_path)
    assert killed == ranks.Failed("killed", "")
    for rank, said in ((0, first), (2, third)):
        *values, inside, outside, told, everywhere, death = said
        assert values == [
            [0, 10, 20],
            (rank, 3),
            rank == 0,
            [[[r, r + 1, r + 2], [r + 3, r + 4, r + 5]] for r in range(3)],
            [[[False]], [[True]], [[False]]],
            [[], [], []],
            [3, 3],
        ]
        assert inside == "UserError: adding failed on process 1: one too many"
        assert outside == ("ValueError: none left" if rank else "UserError: counting failed on process 2: none left")
        assert told == ("UserError: entering failed on process 0: at the door" if rank else "ValueError: at the door")
        assert everywhere == f"ValueError: no {rank}"
        assert "another process of this run has ended" in death
        assert "run the same command again" in death


def test_a_process_leaves_its_group_before_python_ends(tmp_path):
    script = f"""
        import atexit
        from torch import distributed
        atexit.register(lambda: print("member:", distributed.is_initialized()))  # called last
        import fm_bench.processes
        store = distributed.FileStore({str(tmp_path / "store")!r}, 1)
        distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
        print("member:", distributed.is_initialized())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.split("\n")[:2] == ["member: True", "member: False"]
