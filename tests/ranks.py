# SPDX-License-Identifier: MIT
"""A function run by several processes that talk through gloo, for tests of what they do together."""

import faulthandler
import os
from collections.abc import Callable
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import distributed, multiprocessing

SECONDS = 400
"""After which processes are taken to hang."""


class Failed(NamedTuple):
    """What a process ended with in place of a result; a killed one says nothing."""

    kind: str
    message: str


def forking() -> ForkServerContext:
    """Processes forked from one that has imported everything, unless the suite's own code has started it before.

    Importing takes longer than what most tests do with it.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["fm_bench.bench", "fm_bench.leaderboard.site"])
    return context


def run(work: Callable[..., Any], world: int, folder: Path, *arguments: Any) -> list[Any]:
    """``work(rank, *arguments)`` on ``world`` processes: what each returned, or ``Failed``.

    Args:
        work: a function of a test module; a ``Trainer`` of as many devices in it makes these processes one training.
        world: how many processes.
        folder: where they find each other, one of their own.
        arguments: plain values.
    """
    context = forking()
    folder.mkdir(exist_ok=True)
    processes, results, meeting = [], [], folder / "meeting"
    for rank in range(world):
        result, send = context.Pipe(duplex=False)
        process = context.Process(target=_process, args=(send, work, rank, world, meeting, dict(os.environ), arguments))
        process.start()
        send.close()
        processes.append(process)
        results.append(result)
    try:
        waiting = set(results)
        found: dict[Any, Any] = {}
        while waiting:
            ready = wait(waiting, SECONDS)
            assert ready, f"processes {[results.index(result) for result in waiting]} hang"
            for result in ready:
                waiting.remove(result)
                try:
                    found[result] = result.recv()
                except EOFError:
                    found[result] = Failed("killed", "")
        ended = [found[result] for result in results]
        for process, result in zip(processes, ended, strict=True):
            if not isinstance(result, Failed):
                process.join(SECONDS)
                assert process.exitcode == 0, "a process that has answered does not end as it should"
        return ended
    finally:
        for process in processes:
            process.kill()
            process.join()


def _process(
    send: Any, work: Callable[..., Any], rank: int, world: int, meeting: Path, environment: dict, arguments: tuple
) -> None:
    torch.set_num_threads(1)
    os.environ |= environment  # the present one, and not that of whoever forked first
    os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0"}  # Lightning starts none of its own, and takes the group
    faulthandler.dump_traceback_later(SECONDS / 2)
    distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world)
    try:
        send.send(work(rank, *arguments))
    except Exception as error:
        send.send(Failed(type(error).__name__, str(error)))
    distributed.destroy_process_group()
    faulthandler.cancel_dump_traceback_later()
