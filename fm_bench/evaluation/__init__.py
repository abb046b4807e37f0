# SPDX-License-Identifier: MIT
"""From embeddings to a report: protocols, metrics, intervals."""

from fm_bench.evaluation.evaluator import Report, evaluate
from fm_bench.evaluation.metrics import RetrievalMetric
from fm_bench.evaluation.protocol import Protocol
from fm_bench.evaluation.significance import Difference, Estimate, bootstrap, paired_difference
from fm_bench.evaluation.validation import RetrievalValidation

__all__ = [
    "Difference",
    "Estimate",
    "Protocol",
    "Report",
    "RetrievalMetric",
    "RetrievalValidation",
    "bootstrap",
    "evaluate",
    "paired_difference",
]
