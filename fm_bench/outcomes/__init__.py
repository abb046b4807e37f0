# SPDX-License-Identifier: MIT
"""Protocols that do not rank a gallery: one module for each kind.

Each has ``obstacle(config, dataset)``, a sentence that says before training why these data or this method cannot be
judged by it, or None; and ``outcome(protocol, trained)``, which judges on the first process. One that has to train
something for that also has ``prepare(trained)``, which all processes of the run call.
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

__all__ = ["Trained", "other_outcomes", "other_protocols", "prepare", "refusals"]


def _judge(kind: str) -> ModuleType:
    return importlib.import_module(f"{__name__}.{kind}")  # only what is asked for: some import much


def other_protocols(config: RunConfig) -> list[Protocol]:
    """Those of the run's protocols that do not rank a gallery."""
    protocols = [load_protocol(name) for name in config.evaluation.every]
    return [protocol for protocol in protocols if protocol.kind != "retrieval"]


def refusals(config: RunConfig, dataset: Dataset) -> dict[str, str]:
    """Protocol -> why it cannot be answered, for those of the run that cannot.

    Raises:
        UserError: if none can that was not asked merely beside others.
    """
    found = {protocol.name: _judge(protocol.kind).obstacle(config, dataset) for protocol in other_protocols(config)}
    refused = {name: reason for name, reason in found.items() if reason is not None}
    wanted = config.evaluation.protocols
    if refused.keys() >= set(wanted):
        raise UserError(f"{wanted[0]}: {refused[wanted[0]]}")
    return refused


def prepare(trained: Trained) -> Trained:
    """``trained`` with what the judges of its other protocols need; every process of the run must call."""
    ready = {}
    for protocol in _answerable(trained):
        judge = _judge(protocol.kind)
        if hasattr(judge, "prepare"):
            ready[protocol.name] = judge.prepare(trained)
    return trained._replace(prepared=ready)


def other_outcomes(trained: Trained) -> tuple[dict[str, Outcome], list[str]]:
    """What the prepared method scores by every protocol of the run that does not rank a gallery and has no obstacle.

    Returns:
        The outcomes, and a sentence for each protocol that turned out to ask nothing of this gallery.
    """
    outcomes, problems = {}, []
    for protocol in _answerable(trained):
        try:
            outcomes[protocol.name] = _judge(protocol.kind).outcome(protocol, trained)
        except UserError as error:  # hours of training are not thrown away for it
            problems.append(f"{protocol.name}: {error}")
    return outcomes, problems


def _answerable(trained: Trained) -> list[Protocol]:
    protocols = other_protocols(trained.config)
    return [p for p in protocols if _judge(p.kind).obstacle(trained.config, trained.dataset) is None]
