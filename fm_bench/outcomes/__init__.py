# SPDX-License-Identifier: MIT
"""Protocols that do not rank a gallery: one module for each kind.

Each has ``obstacle(config, dataset)``, a sentence that says before training why these data or this method cannot be
judged by it, or None; and ``outcome(protocol, trained)``, which judges.
"""

import importlib
from types import ModuleType

from fm_bench.catalog import Dataset
from fm_bench.config import RunConfig
from fm_bench.errors import UserError
from fm_bench.evaluation.protocol import Protocol
from fm_bench.outcomes.trained import Trained
from fm_bench.questions import load_protocol
from fm_bench.results import Outcome

__all__ = ["Trained", "other_outcomes", "other_protocols", "refusals"]


def _judge(kind: str) -> ModuleType:
    return importlib.import_module(f"{__name__}.{kind}")  # only what is asked for: some import much


def other_protocols(config: RunConfig) -> list[Protocol]:
    """Those of the run's protocols that do not rank a gallery."""
    protocols = [load_protocol(name) for name in config.evaluation.every]
    return [protocol for protocol in protocols if protocol.kind != "retrieval"]


def refusals(config: RunConfig, dataset: Dataset) -> dict[str, str]:
    """Protocol -> why it cannot be answered, for those of the run that cannot.

    Raises:
        UserError: if the run has no other protocol.
    """
    found = {protocol.name: _judge(protocol.kind).obstacle(config, dataset) for protocol in other_protocols(config)}
    refused = {name: reason for name, reason in found.items() if reason is not None}
    if refused and len(refused) == len(config.evaluation.every):
        name, reason = next(iter(refused.items()))
        raise UserError(f"{name}: {reason}")
    return refused


def other_outcomes(trained: Trained) -> dict[str, Outcome]:
    """What the trained method scores by every protocol of the run that does not rank a gallery and has no obstacle."""
    outcomes = {}
    for protocol in other_protocols(trained.config):
        judge = _judge(protocol.kind)
        if judge.obstacle(trained.config, trained.dataset) is None:
            outcomes[protocol.name] = judge.outcome(protocol, trained)
    return outcomes
