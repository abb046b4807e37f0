# SPDX-License-Identifier: MIT
"""Computing on a CPU while freed memory stays with the process, against giving it back to the system each time.

python benchmarks/speed/allocation.py [--data garments] [--root FOLDER] [--batches 24] [--images 5000] [--json FILE]

The bare forward pass over a gallery, and bare training steps, on batches in memory, with the recipe's own network; page
faults are those of the whole round. The first round of each side counts for neither: memory has to be had once.
"""

import argparse
import logging
import resource
import warnings
from collections.abc import Callable, Sequence

import torch
from common import Row, options, publish, taken
from training import CASES, Case, images, sized

from fm_bench.memory import freed_memory_kept


def compared(what: str, work: Callable[[], None], count: int, rounds: int) -> list[Row]:
    """A row each for memory that is given back and memory that is kept."""
    faults: dict[str, int] = {}

    def counted(name: str) -> None:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        work()
        faults[name] = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    def kept() -> float:
        with freed_memory_kept():
            work()  # whoever trains or embeds does so many times before all of it is given back
            return taken({"kept": lambda: counted("kept")}, 1)["kept"][0]

    counted("given back")
    seconds = taken({"given back": lambda: counted("given back"), "kept": kept}, rounds)
    fastest = {name: count / min(values) for name, values in seconds.items()}
    return [
        {
            "what": what,
            "freed memory": name,
            "page faults": faults[name],
            "images/s": speed,
            "ratio": speed / fastest["given back"],
        }
        for name, speed in fastest.items()
    ]


def embedding(case: Case, rounds: int) -> list[Row]:
    """The forward pass over the gallery."""
    case.datamodule.setup("predict")
    memory = list(case.loaded(case.datamodule.gallery_dataloader()))
    case.method.eval()

    def work() -> None:
        with torch.inference_mode(), case.autocast():
            for batch in memory:
                case.method.embed(batch)

    count = len(case.datamodule.gallery_rows)
    what = f"embedding, {case.config.method}, batches of {len(memory[0].index)}"
    return compared(what, work, count, rounds)


def training(case: Case, rounds: int) -> list[Row]:
    """Steps of a stage."""
    memory = list(case.loaded(case.datamodule.train_dataloader()))
    learning = [parameter for parameter in case.method.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(learning, lr=1e-4, momentum=0.9, nesterov=True)
    case.method.train()
    what = f"training, {case.config.method}, stage {case.stage.name}, batches of {len(memory[0].index)}"
    return compared(what, lambda: case.train(memory, optimizer), sum(map(images, memory)), rounds)


def measure(given: argparse.Namespace) -> list[Row]:
    """All rows."""
    rows: list[Row] = []
    for number, (spec, stage) in enumerate(CASES):
        case = Case.of(spec, stage, given)
        rows += training(case, given.rounds)
        if number == 0:
            rows += embedding(case, given.rounds)
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the table, and writes it where asked."""
    given = sized(options(__doc__, rounds=5)).parse_args(argv)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = measure(given)
    publish("allocation", {f"{given.data}, profile {given.profile}": rows}, argv, given.json)


if __name__ == "__main__":
    main()
