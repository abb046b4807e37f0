# SPDX-License-Identifier: MIT
"""Fixtures of the data layer's tests: a DataModule that is ready to train."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from fm_bench.data.datamodule import FashionDataModule


@pytest.fixture
def opened(tmp_path: Path) -> "FashionDataModule":
    from datamodules import data  # loads Lightning, which most tests of this folder do without

    datamodule = data(tmp_path)
    datamodule.prepare_data()
    datamodule.setup("fit")
    return datamodule
