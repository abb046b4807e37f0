# SPDX-License-Identifier: MIT
"""Methods that are not the suite's own, for tests: the example package, and files with a class in them."""

from pathlib import Path
from textwrap import dedent

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "third-party-method"

COLOURS = '''
import torch
from torch import nn
from torch.nn import functional as F

from fm_bench.data.batches import TripletBatch
from fm_bench.methods import Method, Stage
from fm_bench.nn.losses import triplet_margin


class Colours(Method):
    """Mean colours of four by four parts, moved by what was learned for the wanted values.

    It takes milliseconds.
    """

    stages = (Stage("move", TripletBatch),)

    def __init__(self, attributes, dim: int = 16, margin: float = 0.5):
        super().__init__(attributes)
        self.save_hyperparameters()
        self.project = nn.Linear(48, dim)
        self.values = nn.Parameter(torch.zeros(self.schema.num_values, dim))

    def feature(self, images):
        return self.project(F.adaptive_avg_pool2d(images, 4).flatten(1))

    def embed_gallery(self, images, context=None):
        return F.normalize(self.feature(images), dim=-1)

    def embed_query(self, images, indicator, context=None):
        return F.normalize(self.feature(images) + indicator @ self.values, dim=-1)

    def move_step(self, batch):
        query = self.embed_query(batch.reference, batch.indicator)
        positive, negative = self.embed_gallery(batch.positive), self.embed_gallery(batch.negative)
        return {"rank": (1.0, triplet_margin(query, positive, negative, self.hparams["margin"]))}

    def move_optimizer(self):
        return torch.optim.Adam(self.parameters(), 0.01)
'''
"""A sound method in a file."""


def write(folder: Path, text: str = COLOURS, *changes: tuple[str, str], name: str = "colours") -> Path:
    """Writes a module of a method with some lines changed; each change must apply."""
    for old, new in changes:
        assert text.count(old) >= 1, old
        text = text.replace(old, new)
    path = folder / f"{name}.py"
    path.write_text(dedent(text))
    return path
