# SPDX-License-Identifier: MIT
"""The peak of a block, whatever came before."""

import mmap
import sys
from pathlib import Path

import numpy as np
import pytest

from fm_bench import memory
from fm_bench.memory import highest_mb, peak_memory

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells")
MIB = 2**20


def new_pages(mib: int) -> np.ndarray:
    """New pages of the system: the heap may hand out pages that tests before left there, which the process holds."""
    room = np.frombuffer(mmap.mmap(-1, mib * MIB), np.uint8)  # unmapped with the array
    room.fill(1)
    return room


def touch(mib: int) -> None:
    new_pages(mib)


@linux
def test_what_a_block_takes_and_gives_back_is_its_peak():
    touch(300)  # before, and not counted
    with peak_memory() as peak:
        assert peak.above_mb is None
        touch(150)
        touch(100)
    assert 145 < peak.above_mb < 200
    assert peak.total_mb > peak.above_mb


@linux
def test_the_peak_of_the_process_outlives_the_block():
    touch(600)
    before = highest_mb()
    with peak_memory():
        touch(10)
    assert highest_mb() >= before > 600


@linux
def test_what_is_done_in_a_pause_counts_nowhere(monkeypatch):
    with peak_memory() as peak:
        monkeypatch.setattr(memory, "_forgotten_mb", 0.0)
        touch(120)
        with peak.paused():
            touch(500)
            left = new_pages(100)
        before = memory._read().now / 1024
        touch(150)
    assert 145 < peak.above_mb < 200
    assert before - 50 < highest_mb() < before + 250
    del left


@linux
def test_a_peak_before_a_pause_is_remembered():
    with peak_memory() as peak:
        touch(200)
        with peak.paused():
            touch(10)
        touch(100)
    assert 195 < peak.above_mb < 250


@linux
def test_pages_of_a_memory_map_count_once_they_are_touched(tmp_path):
    np.save(tmp_path / "vectors.npy", np.ones(100 * MIB, np.uint8))
    vectors = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    with peak_memory() as untouched:
        vectors[:1].sum()
    with peak_memory() as touched:
        vectors.max()
    assert untouched.above_mb < 20
    assert 95 < touched.above_mb < 140


@linux
def test_where_the_system_does_not_forget_only_a_higher_peak_is_known(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_RESET", tmp_path / "no" / "such" / "file")
    status = tmp_path / "status"
    monkeypatch.setattr(memory, "_STATUS", status)
    status.write_text("Name:\tpython\nVmHWM:\t  512000 kB\nVmRSS:\t  102400 kB\n")
    with peak_memory() as hidden:
        pass
    assert hidden.above_mb is None
    with peak_memory() as seen:
        status.write_text("VmHWM:\t  614400 kB\nVmRSS:\t  102400 kB\n")
    assert (seen.above_mb, seen.total_mb) == (500, 600)
    with peak_memory() as paused:
        status.write_text("VmHWM:\t  716800 kB\nVmRSS:\t  102400 kB\n")
        with paused.paused():
            status.write_text("VmHWM:\t  819200 kB\nVmRSS:\t  102400 kB\n")
    assert paused.above_mb is None  # what came after the pause may have been more than before it


@pytest.mark.parametrize("text", ["", "VmHWM: 1 kB", "VmHWM: x\nVmRSS: y"])
def test_systems_that_tell_nothing_give_nothing(monkeypatch, tmp_path, text):
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "status")
    (tmp_path / "status").write_text(text)
    with peak_memory() as peak:
        pass
    assert peak.above_mb is None
    monkeypatch.setattr(memory, "_STATUS", Path("/no/such/file"))
    with peak_memory() as peak:
        pass
    assert peak.total_mb is None
