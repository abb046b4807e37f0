# SPDX-License-Identifier: MIT
"""Tiny FLAM models, and labels of six pictures, for its tests and those of its features."""

import torch
from stubs import Trainer

from fm_bench.methods.flam import FLAM

ATTRIBUTES = {
    "gender": ["women", "men"],
    "category": ["shirt", "dress", "skirt"],
    "colour": ["red", "blue", "green", "pink"],
    "pattern": ["plain", "striped"],
}
T, DIM, K = 3, 8, 5
LABELS = torch.tensor([[0, 2, 0, 1], [1, 0, 1, 0], [0, 1, 0, 0], [1, 0, 2, 1], [0, 2, 2, 0], [1, 1, 1, 1]])


def build(attributes=ATTRIBUTES, **options) -> FLAM:
    torch.manual_seed(1)
    small = {"dim": DIM, "classes": 3, "code": K, "embedder_hidden": 7, "hidden": 9, "judge_hidden": [6, 4]}
    model = FLAM(attributes, **(small | options))
    model._trainer = Trainer()
    return model.eval()
