# SPDX-License-Identifier: MIT
"""Where the time goes: in a training step by part and by operator, and in an evaluation by function.

python benchmarks/speed/hotspots.py [--batches 8] [--gallery 50000] [--queries 1000] [--dim 256] [--json FILE]

Profilers slow down what they watch: shares tell, seconds do not.
"""

import argparse
import cProfile
import itertools
import pstats
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from common import Row, options, publish
from evaluation import PROTOCOL, problem
from torch.profiler import ProfilerActivity, profile
from training import CASES, Case

from fm_bench.evaluation import evaluate
from fm_bench.methods.base import weighted_sum

SHOWN = 8
"""Rows of each profile."""


class Parts:
    """Adds up seconds by part of a step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def __call__(self, name: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = work()
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
        return result


def step_parts(case: Case, count: int) -> list[Row]:
    """Milliseconds per step, one after the other; where a GPU trains, reading and augmenting happen beside the rest."""
    datamodule, parts = case.datamodule, Parts()
    loader = datamodule.train_dataloader()
    losses = getattr(case.method, f"{case.stage.name}_step")
    optimizer = torch.optim.SGD(_learning(case), lr=1e-4, momentum=0.9, nesterov=True)
    for draw in itertools.islice(loader.sampler, count):  # type: ignore[arg-type]
        batch = parts("reading and augmenting", lambda draw=draw: loader.dataset[draw])
        batch = parts("normalising", lambda batch=batch: next(case.loaded([batch])))
        with case.autocast():
            total = parts("forward and losses", lambda batch=batch: weighted_sum(losses(batch)))
        parts("backward", total.backward)
        parts("optimiser", lambda: (optimizer.step(), optimizer.zero_grad()))
    whole = sum(parts.seconds.values())
    return [
        {"part": name, "ms per step": 1000 * value / count, "share": value / whole}
        for name, value in parts.seconds.items()
    ]


def step_operators(case: Case, count: int) -> list[Row]:
    """Operators of training steps by their own time."""
    memory = list(itertools.islice(case.loaded(case.datamodule.train_dataloader()), count))
    optimizer = torch.optim.SGD(_learning(case), lr=1e-4, momentum=0.9, nesterov=True)
    with profile(activities=[ProfilerActivity.CPU]) as found:
        case.train(memory, optimizer)
    return _shares("operator", {event.key: event.self_cpu_time_total for event in found.key_averages()})


def evaluation_functions(given: argparse.Namespace) -> list[Row]:
    """Functions of an evaluation by their own time."""
    case = problem(given.gallery, given.queries, given.dim, 1.0)
    watch = cProfile.Profile()
    watch.runcall(evaluate, **case, protocol=PROTOCOL, infeasible="miss")
    stats: dict[Any, Any] = pstats.Stats(watch).stats  # type: ignore[attr-defined]
    seconds: dict[str, float] = {}
    for (file, _, function), (_, _, own, _, _) in stats.items():
        name = function if file == "~" else f"{Path(file).parent.name}/{Path(file).name}: {function}"
        if "'acquire'" in function:
            name = "waiting for the threads that search"
        seconds[name] = seconds.get(name, 0.0) + own
    return _shares("function", seconds)


def _learning(case: Case) -> list[torch.nn.Parameter]:
    return [parameter for parameter in case.method.parameters() if parameter.requires_grad]


def _shares(what: str, amounts: dict[str, float]) -> list[Row]:
    whole = sum(amounts.values())
    largest = sorted(amounts, key=lambda name: -amounts[name])[:SHOWN]
    rows: list[Row] = [{what: name, "share": amounts[name] / whole} for name in largest]
    return [*rows, {what: "all others", "share": 1 - sum(row["share"] for row in rows)}]


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the tables, and writes them where asked."""
    parser = options(__doc__)
    parser.add_argument("--data", default="garments")
    parser.add_argument("--root", type=Path, help="folder of the data, where they come from one")
    parser.add_argument("--profile", default="quick")
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--gallery", type=int, default=50_000)
    parser.add_argument("--queries", type=int, default=1_000)
    parser.add_argument("--dim", type=int, default=256)
    given = parser.parse_args(argv)
    given.workers, given.images = 0, 256
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spec, stage = CASES[0]
        case = Case.of(spec, stage, given)
        case.method.train()
        step_parts(case, 2)
        step = f"{spec}, stage {stage}, {given.data}, profile {given.profile}"
        tables = {
            f"Parts of a training step: {step}": step_parts(case, given.batches),
            f"Operators of a training step: {step}": step_operators(case, given.batches),
        }
    shape = f"{given.gallery:,} images x {given.queries:,} requests x {given.dim}"
    tables[f"Functions of an evaluation: {shape}"] = evaluation_functions(given)
    publish("hotspots", tables, argv, given.json)


if __name__ == "__main__":
    main()
