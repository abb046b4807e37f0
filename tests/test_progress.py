# SPDX-License-Identifier: MIT
"""Bars say what is done, and in which epoch of how many."""

from typing import Any

import lightning as L
import pytest
from lightning.pytorch.demos.boring_classes import BoringModel

from fm_bench.progress import Progress


@pytest.mark.filterwarnings("ignore")
def test_bars_name_the_work_and_count_epochs_from_one(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    bar = Progress("stage attributes")
    add, validated = bar._add_task, bar.get_metrics

    def noted(total: Any, description: str, visible: bool = True) -> Any:
        shown.append(description)
        return add(total, description, visible)

    monkeypatch.setattr(bar, "_add_task", noted)
    trainer = L.Trainer(
        max_epochs=2,
        limit_train_batches=1,
        limit_val_batches=1,
        num_sanity_val_steps=0,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        callbacks=[bar],
    )
    trainer.fit(BoringModel())
    assert shown[0] == "stage attributes, epoch 1 of 2"
    assert "stage attributes, validation" in shown
    assert bar._get_train_description(1) == "stage attributes, epoch 2 of 2"
    assert "v_num" not in validated(trainer, BoringModel())
    trainer.predict(BoringModel())
    assert shown[-1] == "stage attributes"
