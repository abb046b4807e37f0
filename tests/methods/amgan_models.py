# SPDX-License-Identifier: MIT
"""Tiny models of AMGAN and its baseline, their players without a Trainer, and what they are shown."""

from contextlib import contextmanager

import pytest
import torch

from fm_bench.data.batches import QuadrupletBatch
from fm_bench.data.transforms import normalise
from fm_bench.methods.amgan import AMGAN

ATTRIBUTES = {"colour": ["red", "blue", "green"], "sleeve": ["none", "short"], "fit": ["slim", "wide", "loose", "long"]}
LABELS = torch.tensor([[2, 0, 1], [0, 1, 3], [1, 0, 0], [0, 0, 2], [2, 1, 1], [1, 1, 3]])
SCHEMES = pytest.mark.parametrize("scheme", ["pair", "triplet"])
FRESH = pytest.mark.parametrize("fresh", [False, True])

SMALL = {"generator_widths": [4, 6, 8], "blocks": 1, "encoder_widths": [4, 6, 10]}


def tiny(method: type[AMGAN], **options) -> AMGAN:
    torch.manual_seed(1)
    return playing(method(ATTRIBUTES, **(SMALL | options)))


def optimizers(model, stage):
    """What the stage gives the Trainer, without one: schedules are left out, but every optimiser must ask for one."""
    given = []

    def scheduled(optimizer):
        given.append(optimizer)
        return {"optimizer": optimizer}

    model.scheduled = scheduled
    found = getattr(model, f"{stage}_optimizer")()
    listed = [entry["optimizer"] for entry in (found if isinstance(found, list) else [found])]
    assert [id(optimizer) for optimizer in listed] == [id(optimizer) for optimizer in given]
    return listed


def playing(model, stage=None):
    """Takes turns with the own optimisers of a stage, or of the first, as the Trainer does.

    While one player moves, the others ask for no gradient.
    """
    players = optimizers(model, stage or model.stages[0].name)

    @contextmanager
    def turn(position):
        for player in players:
            for parameter in parameters_of(player):
                parameter.requires_grad_(False)
        for parameter in parameters_of(players[position]):
            parameter.requires_grad_(True)

        def descend(loss):
            players[position].zero_grad()
            loss.backward()
            players[position].step()

        yield descend
        for player in players:
            for parameter in parameters_of(player):
                parameter.requires_grad_(True)

    model.turn = turn
    return model


def parameters_of(optimizer):
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def named(model, optimizer):
    """Names of what an optimiser moves."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    moved = [names[id(parameter)] for parameter in parameters_of(optimizer)]
    assert len(moved) == len(set(moved))
    return set(moved)


def beginning(model, *parts):
    return {name for name, _ in model.named_parameters() if name.startswith(parts)}


def pictures(count=6, height=16, width=12, seed=2):
    generator = torch.Generator().manual_seed(seed)
    return normalise(torch.randint(0, 256, (count, 3, height, width), generator=generator, dtype=torch.uint8))


def quadruplets(schema, count=6) -> QuadrupletBatch:
    """Requests for long garments."""
    labels = LABELS[:count]
    indicator = schema.indicator([("fit", "long")]).repeat(count, 1) * (labels[:, 2:] != 3)
    roles = [pictures(count, seed=seed) for seed in range(4)]
    target = schema.edit(labels, indicator)
    twin = torch.tensor([True, False] * count)[:count]
    return QuadrupletBatch(*roles, indicator, labels, target, labels.roll(1, 0), twin, torch.arange(count))


def logged(losses):
    return sum(weight * value for weight, value in losses.values())


def scalar(value):
    return torch.tensor([float(value)])
