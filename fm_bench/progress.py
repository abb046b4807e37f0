# SPDX-License-Identifier: MIT
"""What is shown while networks work."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import RichProgressBar


class Progress(RichProgressBar):
    """A progress bar that says what is done, in which epoch of how many, and vanishes afterwards.

    Args:
        what: is done, e.g. ``"stage attributes"`` or ``"embedding the gallery"``.
    """

    def __init__(self, what: str) -> None:
        super().__init__(leave=False)
        self.what = what

    def _get_train_description(self, current_epoch: int) -> str:
        """Epochs are counted from 1, as people do."""
        return f"{self.what}, epoch {current_epoch + 1} of {self.trainer.max_epochs}"

    @property
    def validation_description(self) -> str:
        """What stands before the bar of a validation."""
        return f"{self.what}, validation"

    @property
    def predict_description(self) -> str:
        """What stands before the bar of a prediction."""
        return self.what

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        """Losses and validation scores, without the logger's version, which is the stage's name here."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics
