# SPDX-License-Identifier: MIT
"""Fixtures of the data layer's tests: a DataModule that is ready to train, and OpenCV with threads of its own."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
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


@pytest.fixture
def opencv_threads() -> Iterator[int]:
    """How many threads OpenCV has during the test, on any machine; as many as before afterwards."""
    before, threads = cv2.getNumThreads(), 4
    cv2.setNumThreads(threads)
    yield threads
    cv2.setNumThreads(before)
