# SPDX-License-Identifier: MIT
"""A method that draws, for tests of what is done with its prototypes."""

import torch

from fm_bench.data.transforms import normalise


class Painter:
    """Draws ``colour`` (red, green and blue, 0 to 255) everywhere, and remembers what it was asked."""

    draws, device = True, torch.device("cpu")

    def __init__(self, colour, schema=None):
        self.colour, self.schema = torch.tensor(colour, dtype=torch.uint8).view(1, 3, 1, 1), schema

    def draw(self, images, indicator):
        self.images, self.indicator = images, indicator
        return normalise(self.colour).expand_as(images)
