# SPDX-License-Identifier: MIT
"""What there is once a method is trained."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fm_bench.catalog import Dataset
from fm_bench.config import RunConfig
from fm_bench.data.datamodule import FashionDataModule
from fm_bench.methods.base import Method
from fm_bench.questions import Question


class Trained(NamedTuple):
    """A trained method with everything that it can be judged by."""

    config: RunConfig
    method: Method  # in evaluation mode, on the device where it is to compute
    dataset: Dataset
    datamodule: FashionDataModule  # set up to fit and to predict
    asked: Mapping[str, Question]  # the requests of the protocols that search
    folder: Path  # of the run
    prepared: Mapping[str, Any] = {}  # by protocol, what its judge made ready on every process
