# SPDX-License-Identifier: MIT
"""The losses of the AMGAN paper from its equations, for its own tests and those of its baseline."""

import pytest
import torch
import torch.nn.functional as F

from fm_bench.data.batches import QuadrupletBatch
from fm_bench.data.transforms import normalise
from fm_bench.nn.prototypes import to_pixels

WEIGHTS = {"gamma": 2.0, "mu": 3.0, "lambda_": 5.0, "margin": 0.3, "shift": 0.7}


def telling(schema) -> QuadrupletBatch:
    """Two halves alike in kind: all labels of a row differ, two references have equal ones, and some are missing."""
    reference = torch.tensor([[2, 0, 1], [0, 1, 3], [2, 0, 1], [1, -1, 0], [0, 0, 2], [1, 1, 1], [0, 0, 2], [2, 1, -1]])
    target = torch.tensor([[0, 0, 1], [0, 0, 3], [1, 0, 1], [2, -1, 0], [0, 1, 0], [1, 1, 2], [0, 0, 3], [0, 1, -1]])
    negative = torch.tensor([[1, 1, 0], [1, 1, 2], [2, 1, 3], [0, 0, -1], [2, 0, 1], [0, 0, 1], [1, -1, 0], [1, 0, 2]])
    asked = (reference != target) & (target >= 0)
    indicator = schema.one_hot(target.masked_fill(~asked, -1))
    generator = torch.Generator().manual_seed(5)
    noise = torch.randint(0, 60, (32, 3, 16, 12), generator=generator)
    colour = torch.randint(0, 196, (32, 3, 1, 1), generator=generator)  # so that pictures are far from each other
    images = normalise((noise + colour).to(torch.uint8))
    twin = torch.ones(8, dtype=torch.bool)
    return QuadrupletBatch(*images.chunk(4), indicator, reference, target, negative, twin, torch.arange(8))


def pixels_of(batch, rows):
    """The four real pictures of some rows, in [-1, 1]."""
    return [to_pixels(images[rows]) for images in batch[:4]]


def distance(a, b):
    return torch.linalg.vector_norm(a - b, dim=-1)


def classes_by_hand(heads, features, labels, kind):
    """G-2: the mean of -p over all known labels, or the sum of -log p over a picture's, averaged over pictures."""
    p = [
        head(row.unsqueeze(0)).softmax(-1)[0, label]
        for row, known in zip(features, labels.tolist(), strict=True)
        for head, label in zip(heads, known, strict=True)
        if label >= 0
    ]
    return -torch.stack(p).mean() if kind == "probability" else -torch.stack(p).log().sum() / len(labels)


def consistency_by_hand(generator, maps, drawn, target, labels, mask):
    """Eqs. 3-5, one pair after the other; ``labels`` are f, of the picture that the maps are of."""
    s = [
        sum(generator.semantics[:, column] for column in columns)
        for columns in (
            [start + label for start, label in zip((0, 3, 5), row, strict=True) if label >= 0]
            for row in labels.tolist()
        )
    ]
    v = maps.mean((2, 3))
    hinges = []
    for i in range(len(s)):
        for j in range(len(s)):
            if i == j or (mask and torch.equal(labels[i], labels[j])):
                continue
            own = F.cosine_similarity(s[i], v[i], dim=0)
            hinges.append(F.relu(WEIGHTS["margin"] - own + F.cosine_similarity(s[i], v[j], dim=0)))
            hinges[-1] = hinges[-1] + F.relu(WEIGHTS["margin"] - own + F.cosine_similarity(v[i], s[j], dim=0))
    return torch.stack(hinges).mean(), (drawn - target).abs().mean()


def by_hand(batch, rows, generator, encoder, heads, options):
    """All losses of both players on ``rows``, from the paper's equations; whoever moves first is the caller's care."""
    x, y, positive, negative = pixels_of(batch, rows)
    f, wanted, others = (
        labels[rows] for labels in (batch.reference_labels, batch.target_labels, batch.negative_labels)
    )
    maps = generator.encode(x)
    drawn = generator.decode(maps, generator.request(batch.indicator[rows]), (16, 12))
    fake, real, twin, other = (encoder(images) for images in (drawn, y, positive, negative))
    if options["scheme"] == "pair":
        p = torch.sigmoid(WEIGHTS["shift"] - distance(real, twin))
        q = torch.sigmoid(WEIGHTS["shift"] - distance(fake, twin))
        discriminator = -(p.log() + (1 - q).log()).mean()
    else:
        p = torch.sigmoid(distance(real, other) - distance(real, twin))
        r = torch.sigmoid(distance(real, fake) - distance(real, twin))
        discriminator = -(p.log() + r.log()).mean()
        q = torch.sigmoid(distance(fake, other) - distance(fake, twin))
    kind = options["class_loss"]
    features, labels = [real], [wanted]
    if options["classify"] == "all":
        features, labels = [real, twin, other, encoder(x)], [wanted, wanted, others, f]
    vse, pixel = consistency_by_hand(generator, maps, drawn, y, f, options["mask_equal"])
    return {
        "metric_D": (1.0, discriminator),
        "class_D": (5.0, classes_by_hand(heads, torch.cat(features), torch.cat(labels), kind)),
        "metric_G": (1.0, (1 - q).log().mean() if options["saturating"] else -q.log().mean()),
        "vse": (2.0, vse),
        "L1": (3.0, pixel),
        "class_G": (5.0, classes_by_hand(heads, fake, wanted, kind)),
    }


def halved(fresh):
    """Rows of the first player's mini-batch, and of the second's."""
    return (slice(0, 4), slice(4, 8)) if fresh else (slice(0, 8), slice(0, 8))


def agree(found, expected):
    """Equal weights, and values within 1e-5."""
    assert set(found) == set(expected)
    for name, (weight, value) in expected.items():
        assert found[name][0] == weight, name
        assert found[name][1].item() == pytest.approx(value.item(), abs=1e-5), name
