# SPDX-License-Identifier: MIT
"""The losses of FLAM's manipulation: Eqs. 3 to 5 and the sampling of x- by hand, as one step descends them."""

import pytest
import torch
from amgan_by_hand import agree
from amgan_models import beginning, logged, named, optimizers, playing
from flam_models import T

from fm_bench.data.batches import UnlabelledPositionsBatch
from fm_bench.methods.flam import EMBEDDERS, MANIPULATION

WEIGHTS = {"adversarial_weight": 3.0, "match_weight": 5.0, "cycle_weight": 7.0}
SIZES = (3, 4, 2)
POSITIONS = torch.tensor([7, 2, 9, 0, 11, 4, 5, 10])

# ------------------------------------------------------------------ a whole step by hand


def prepared(flam, features, **options):
    """A model in its manipulation stage; the dictionary is the embeddings of some features, so that classes differ."""
    model = flam(**WEIGHTS | {"lr": 0.01} | options)
    with torch.no_grad():
        model.embedders.rows.copy_(model.embedders(features)[:, : model.embedders.rows.shape[1]])
    model.begin(MANIPULATION, 0)
    model.cached = features
    return playing(model, MANIPULATION.name)


def step(model):
    return model.manipulation_step(UnlabelledPositionsBatch(POSITIONS, torch.arange(len(POSITIONS))))


def classes_by_hand(model, embedded):
    """Of every target and feature the class whose dictionary vector is nearest."""
    return [
        [max(range(size), key=lambda c: (e @ model.embedders.dictionary[t, c]).item()) for e in embedded[t]]
        for t, size in enumerate(SIZES)
    ]


def partners_by_hand(classes, embedded):
    """``j*`` of every target and feature: of another class, and nearest in the attributes that remain."""

    def away(t, i, j):
        return sum(1 - (embedded[b, i] @ embedded[b, j]).item() for b in range(T) if b != t)

    return [
        [min((j for j in range(len(row)) if row[j] != row[i]), key=lambda j: away(t, i, j)) for i in range(len(row))]
        for t, row in enumerate(classes)
    ]


def far(difference, norm):
    if norm == "mse":
        return difference.square().mean(-1)
    return torch.linalg.vector_norm(difference, ord=1 if norm == "l1" else 2, dim=-1)


def by_hand(model, generators, discriminators, options):
    """Losses of both players, one target after the other, from Eqs. 3-5; whoever moves first is the caller's care."""
    given = {"match": "all", "saturating": False, "norm": "l2", "shared_generator": False, "d_fits_fake": False}
    given |= WEIGHTS | options
    x = model.cached[POSITIONS]
    with torch.no_grad():
        e = model.embedders(x)
    classes = classes_by_hand(model, e)
    partners = partners_by_hand(classes, e)

    def judged(t, vectors):
        logit, matched = discriminators(vectors.expand(T, *vectors.shape))
        return logit[t].sigmoid(), matched[t]

    names = ("L_adv", "M_real", "M_fake_of_D", "G_adv", "M_fake", "L_cyc", "cycle_cosine", "dictionary_cosine")
    terms = {name: [] for name in names}
    for t in range(T):
        wanted = e[t][partners[t]]
        order = range(T) if given["shared_generator"] else [t, *(b for b in range(T) if b != t)]
        order = [t] if given["match"] == "target" else order
        made = generators.one(t, x, wanted)
        back = generators.one(t, made, e[t])
        (real, matched), (fake, fake_matched) = judged(t, x), judged(t, made)
        own = torch.cat([e[b] for b in order], -1)
        changed = torch.cat([wanted if b == t else e[b] for b in order], -1)
        terms["L_adv"].append((real.log() + (1 - fake).log()).mean())
        terms["G_adv"].append((1 - fake).log().mean() if given["saturating"] else -fake.log().mean())
        terms["M_real"].append(far(matched - own, given["norm"]).mean())
        terms["M_fake"].append(far(fake_matched - changed, given["norm"]).mean())
        terms["M_fake_of_D"].append(far(fake_matched - changed, given["norm"]).mean())
        terms["L_cyc"].append(far(x - back, given["norm"]).mean())
        terms["cycle_cosine"].append((x * back).sum(-1).mean() / T)
        named_ones = model.embedders.dictionary[t][[classes[t][j] for j in partners[t]]]
        terms["dictionary_cosine"].append((wanted * named_ones).sum(-1).mean() / T)
        if (weight := given.get("target_weight")) is not None:
            for name, difference in (("M_real", matched - own), ("M_fake", fake_matched - changed)):
                slots = difference.chunk(T, -1)
                target, rest = slots[0], torch.cat(slots[1:], -1)
                terms[name][-1] = (weight * far(target, given["norm"]) + far(rest, given["norm"])).mean()
    a, m, c = given["adversarial_weight"], given["match_weight"], given["cycle_weight"]
    weights = dict(zip(names, (-a, m, m, a, m, c, 0.0, 0.0), strict=True))
    if not given["d_fits_fake"]:
        del weights["M_fake_of_D"]
    return {name: (weight, sum(terms[name])) for name, weight in weights.items()}


DISCRIMINATOR = ("L_adv", "M_real", "M_fake_of_D")


def split(losses):
    """The discriminator's, and all others."""
    first = {name: loss for name, loss in losses.items() if name in DISCRIMINATOR}
    return first, {name: loss for name, loss in losses.items() if name not in DISCRIMINATOR}


def descended(module, losses, player):
    """What a step left in a player are the gradients of the losses by hand with respect to its twin."""
    expected = torch.autograd.grad(logged(losses), list(module.parameters()))
    for (name, parameter), gradient in zip(player.named_parameters(), expected, strict=True):
        assert torch.allclose(parameter.grad, gradient, atol=1e-4, rtol=1e-3), name


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"saturating": True, "residual": False},
        {"match": "target"},
        {"adversarial_weight": 0.0},
        {"shared_generator": True},
        {"d_fits_fake": True},
        {"norm": "l1"},
        {"norm": "mse"},
        {"target_weight": 3.0},
    ],
    ids=str,
)
def test_losses_of_a_step_are_those_of_the_paper(flam, features, options):
    """By hand: the discriminators' with the first weights, the generators' after the discriminators moved.

    Nothing of a loss is detached from the player who descends it, and nothing else is descended.
    """
    before, model = prepared(flam, features, **options), prepared(flam, features, **options)
    found = step(model)
    first, _ = split(by_hand(before, before.generators, before.discriminators, options))
    descended(before.discriminators, first, model.discriminators)
    _, second = split(by_hand(before, before.generators, model.discriminators, options))
    descended(before.generators, second, model.generators)
    agree(found, first | second)


def test_without_its_adversarial_loss_nobody_plays(flam, features):
    """FLAM(M/-): the first branch of D stays as it is, whatever it says G moves alike."""
    moved = []
    for bias in (-2.0, 2.0):
        model = prepared(flam, features, adversarial_weight=0.0)
        with torch.no_grad():
            model.discriminators.judge.layers[0].bias.fill_(bias)
        before = [parameter.clone() for parameter in model.discriminators.judge.parameters()]
        step(model)
        after = model.discriminators.judge.parameters()
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
        moved.append([parameter.detach().clone() for parameter in model.generators.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*moved, strict=True))


# ------------------------------------------------------------------ who moves, and how fast


def test_each_player_has_an_adam_of_its_own(flam):
    model = flam(lr=0.003)
    discriminators, generators = optimizers(model, MANIPULATION.name)
    assert named(model, discriminators) == beginning(model, "discriminators.")
    assert named(model, generators) == beginning(model, "generators.")
    for optimizer in (discriminators, generators):
        assert type(optimizer) is torch.optim.Adam
        assert [(group["lr"], group["betas"]) for group in optimizer.param_groups] == [(0.003, (0.5, 0.999))]


def test_embedders_have_a_rate_of_their_own(flam):
    model = flam(lr=0.003, embedders_lr=0.007)
    (optimizer,) = optimizers(model, EMBEDDERS.name)
    assert type(optimizer) is torch.optim.Adam
    assert named(model, optimizer) == beginning(model, "embedders.")
    assert [(group["lr"], group["betas"]) for group in optimizer.param_groups] == [(0.007, (0.9, 0.999))]
