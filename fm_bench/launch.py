# SPDX-License-Identifier: MIT
"""Runs whose processes ``torchrun`` or SLURM started, on one machine or many.

Lightning connects the processes of a run when the first ``Trainer`` starts. Those that it starts itself are copies of
the first one, which has prepared everything by then. Those that were started from outside run side by side from their
first line, so they are connected there, before one of them can see a folder that another is about to fill.
"""

import os
from collections.abc import Mapping
from typing import Any

import lightning as L
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import distributed

from fm_bench.errors import UserError
from fm_bench.wording import counted

_WHERE = ("accelerator", "devices", "num_nodes", "strategy", "plugins")


def started() -> tuple[int, int]:
    """How many processes were started from outside, on how many machines; ``(1, 1)`` for one that was started alone."""
    environment = os.environ
    if distributed.is_available() and distributed.is_torchelastic_launched():
        number = int(environment["WORLD_SIZE"])
        return number, max(1, number // int(environment.get("LOCAL_WORLD_SIZE", number)))
    return int(environment.get("SLURM_STEP_NUM_TASKS", 1)), int(environment.get("SLURM_STEP_NUM_NODES", 1))


def placed(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a ``Trainer`` with its processes as they were started, where they were started from outside."""
    number, machines = started()
    if number == 1:
        return dict(trainer)
    return dict(trainer) | {"devices": number // machines, "num_nodes": machines, "strategy": "ddp"}


def join(trainer: Mapping[str, Any]) -> None:
    """Connects the processes that were started from outside; does nothing for one that was started alone.

    Args:
        trainer: the user's keyword arguments for ``Trainer``.

    Raises:
        UserError: if these mean another number of processes.
    """
    number, machines = started()
    if number == 1 or distributed.is_initialized():
        return
    given = {name: value for name, value in trainer.items() if name in _WHERE and value is not None}
    try:
        runner = L.Trainer(
            logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, **given
        )
        strategy: Any = runner.strategy
        environment = getattr(strategy, "cluster_environment", None)
        if runner.world_size == number and environment is not None and not environment.creates_processes_externally:
            raise UserError(
                f"{number} processes were started, but Lightning takes each for a run of its own: SLURM_JOB_NAME must "
                "not be bash or interactive where srun starts several."
            )
        if runner.world_size != number or environment is None:
            raise UserError(
                f"{number} processes were started on {counted(machines, 'machine')}, but by "
                f"the Trainer's settings there would be {runner.world_size}: add --trainer.devices "
                f"{number // machines} --trainer.num_nodes {machines} --trainer.strategy ddp."
            )
        environment.validate_settings(num_devices=runner.num_devices, num_nodes=runner.num_nodes)
        try:
            strategy.setup_environment()
        except RuntimeError as error:  # a taken port, a machine that cannot be reached
            raise UserError(
                f"{number} processes were started, but could not be connected ({str(error).splitlines()[0]}): see that "
                "all reach MASTER_ADDR, and that nothing else there uses MASTER_PORT."
            ) from error
    except (MisconfigurationException, ValueError) as error:
        raise UserError(f"Lightning refuses these --trainer settings: {' '.join(str(error).split())}") from error
