# SPDX-License-Identifier: MIT
"""FLAM's manipulation: invariants 4 to 15 of the paper by their numbers, on tiny networks; 17 is in tests/outcomes."""

import math

import pytest
import torch
import torch.nn.functional as F
from flam_models import ATTRIBUTES, DIM, K, T
from torch import nn

from fm_bench.errors import UserError
from fm_bench.methods.base import weighted_sum
from fm_bench.methods.flam import FLAM, MANIPULATION, Pairs, choose_partners, slot_order


def pairs_of(model, features):
    """Pairs of features, of which the first few are the classes."""
    torch.manual_seed(0)
    with torch.no_grad():
        model.embedders.rows.copy_(model.embedders(features)[:, : model.embedders.rows.shape[1]])
        pairs = model.pairs(features)[0]
    assert pairs.found.all()
    return pairs


class Formula(nn.Module):
    """A generator that is a formula."""

    def __init__(self, formula):
        super().__init__()
        self.formula = formula

    def forward(self, features, code):
        return self.formula(features, code)

    def one(self, _target, features, code):
        return self.formula(features, code)


# ------------------------------------------------------------------ shapes


def test_4_widths():
    for match, width in (("all", 96), ("target", 32)):
        model = FLAM(ATTRIBUTES, backbone="resnet10t", match=match)
        assert model.generators.network.layers[0].weight.shape == (T, 1056, 1024)
        logit, matched = model.discriminators(torch.randn(T, 2, 1024))
        assert logit.shape == (T, 2)
        assert matched.shape == (T, 2, width)
        assert model.embedders(torch.randn(2, 1024)).shape == (T, 2, 32)
        assert model.embedders.dictionary.shape == (T, 4, 32)


def test_4_a_shared_generator_is_told_the_target(flam, features):
    model = flam(shared_generator=True)
    assert model.generators.network.layers[0].weight.shape == (1, DIM + K + T, 9)
    assert model.discriminators(features.expand(T, -1, -1))[1].shape == (T, 12, T * K)
    code = F.normalize(torch.randn(1, 12, K), dim=-1).expand(T, -1, -1)
    made = model.generators(features.expand(T, -1, -1), code)
    for target in range(T):
        assert torch.allclose(model.generators.one(target, features, code[0]), made[target], atol=1e-6)
    assert not torch.allclose(made[0], made[1], atol=1e-3)
    with pytest.raises(UserError, match="one order"):
        flam(shared_generator=True, match="target")
    with pytest.raises(UserError, match="target_weight"):
        flam(shared_generator=True, target_weight=2.0)


@pytest.mark.parametrize("residual", [True, False])
def test_targets_have_networks_of_their_own(flam, features, residual):
    model = flam(residual=residual)
    code = F.normalize(torch.randn(T, 12, K), dim=-1)
    made = model.generators(features.expand(T, -1, -1), code)
    assert torch.allclose(made.norm(dim=-1), torch.ones(T, 12), atol=1e-5)
    for target in range(T):
        assert torch.allclose(model.generators.one(target, features, code[target]), made[target], atol=1e-6)
        made[target].sum().backward(retain_graph=True)
        for parameter in model.generators.parameters():
            assert [bool(part.any()) for part in parameter.grad] == [m == target for m in range(T)]
        model.zero_grad()


def test_slots_begin_with_the_target():
    assert slot_order(3, "all", shared=False).tolist() == [[0, 1, 2], [1, 0, 2], [2, 0, 1]]
    assert slot_order(3, "all", shared=True).tolist() == [[0, 1, 2]] * 3
    assert slot_order(3, "target", shared=False).tolist() == [[0], [1], [2]]
    assert slot_order(1, "all", shared=False).tolist() == [[0]]


def test_pairs_are_a_tuple_of_one_shape(flam, features):
    pairs = pairs_of(flam(), features)
    assert isinstance(pairs, Pairs)
    assert pairs.features.shape == (T, 12, DIM)
    assert pairs.embedded.shape == pairs.wanted.shape == (T, 12, K)


@pytest.mark.parametrize("shared", [False, True])
def test_what_is_matched(flam, features, shared):
    model = flam(shared_generator=shared)
    pairs = pairs_of(model, features)
    real, fake = model.slots(pairs, manipulated=False), model.slots(pairs, manipulated=True)
    for target in range(T):
        order = [0, 1, 2] if shared else [target, *(m for m in range(T) if m != target)]
        assert torch.equal(real[target], torch.cat([pairs.embedded[m] for m in order], -1))
        wanted = [pairs.wanted[m] if m == target else pairs.embedded[m] for m in order]
        assert torch.equal(fake[target], torch.cat(wanted, -1))


# ------------------------------------------------------------------ losses of the manipulation


def test_5_identity_generator(flam, images, features):
    model = flam()
    model.generators = Formula(lambda x, e: x)
    losses = model.generator_losses(pairs_of(model, features))
    assert losses["L_cyc"][1].item() == pytest.approx(0, abs=1e-4)
    assert losses["cycle_cosine"][1].item() == pytest.approx(1, abs=1e-5)
    request = model.schema.indicator([("colour", "blue")]).expand(6, -1)
    assert torch.equal(model.embed_query(images, request), model.embed_gallery(images))


def test_6_linear_generator(flam, features):
    model = flam()
    matrix = torch.randn(K, DIM)
    model.generators = Formula(lambda x, e: x + e @ matrix)
    pairs = pairs_of(model, features)
    expected = ((pairs.wanted + pairs.embedded) @ matrix).norm(dim=-1)
    assert model.generator_losses(pairs)["L_cyc"][1].item() == pytest.approx(expected.mean(1).sum().item(), rel=1e-5)
    opposite = pairs._replace(wanted=-pairs.embedded)
    assert model.generator_losses(opposite)["L_cyc"][1].item() == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("norm", ["l2", "l1", "mse"])
def test_7_constant_generator(flam, features, norm):
    model = flam(norm=norm)
    constant = torch.randn(DIM)
    model.generators = Formula(lambda x, e: constant.expand_as(x))
    pairs = pairs_of(model, features)
    difference = features - constant
    expected = {
        "l2": difference.norm(dim=-1).mean(),
        "l1": difference.abs().sum(-1).mean(),
        "mse": difference.square().mean(),
    }
    assert model.generator_losses(pairs)["L_cyc"][1].item() == pytest.approx(T * expected[norm].item(), rel=1e-5)


@pytest.mark.parametrize(("saturating", "fooled"), [(True, -math.log(2)), (False, math.log(2))])
def test_8_an_undecided_discriminator(flam, features, saturating, fooled):
    model = flam(saturating=saturating)
    for layer in model.discriminators.judge.layers:
        layer.weight.data.zero_()
        layer.bias.data.zero_()
    pairs = pairs_of(model, features)
    weight, adversarial = model.discriminator_losses(pairs)["L_adv"]
    assert weight == -1
    assert adversarial.item() == pytest.approx(T * -1.386294, abs=1e-4)
    assert model.generator_losses(pairs)["G_adv"][1].item() == pytest.approx(T * fooled, abs=1e-5)


@pytest.mark.parametrize("saturating", [True, False])
def test_8_both_forms_push_towards_real(flam, features, saturating):
    model = flam(saturating=saturating, match_weight=0.0, cycle_weight=0.0)
    pairs = pairs_of(model, features)
    optimizer = torch.optim.SGD(model.generators.parameters(), 0.05)
    before = model.discriminators(model.generators(pairs.features, pairs.wanted))[0].mean().item()
    for _ in range(5):
        optimizer.zero_grad()
        weighted_sum(model.generator_losses(pairs)).backward()
        optimizer.step()
    assert model.discriminators(model.generators(pairs.features, pairs.wanted))[0].mean().item() > before


def test_9_who_learns_from_what(flam, features):
    model = flam()
    model.begin(MANIPULATION, 0)
    assert {name.partition(".")[0] for name, p in model.named_parameters() if p.requires_grad} == {
        "generators",
        "discriminators",
    }
    pairs = pairs_of(model, features)
    weighted_sum(model.discriminator_losses(pairs)).backward()
    assert all(parameter.grad is None for parameter in model.generators.parameters())
    assert all(parameter.grad.any() for parameter in model.discriminators.parameters())
    before = [parameter.grad.clone() for parameter in model.discriminators.parameters()]
    other = model.discriminator_losses(pairs)["M_real"][1]
    model.generators = flam(hidden=4).generators
    assert torch.equal(model.discriminator_losses(pairs)["M_real"][1], other), "M_real does not look at G"
    model.discriminators.requires_grad_(False)
    weighted_sum(model.generator_losses(pairs)).backward()
    assert all(parameter.grad.any() for parameter in model.generators.parameters())
    after = [parameter.grad for parameter in model.discriminators.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(parameter.grad is None for parameter in [*model.embedders.parameters(), *model.backbone.parameters()])


def test_9_discriminator_may_fit_fakes_if_asked(flam, features):
    assert "M_fake_of_D" not in flam().discriminator_losses(pairs_of(flam(), features))
    model = flam(d_fits_fake=True)
    weight, value = model.discriminator_losses(pairs_of(model, features))["M_fake_of_D"]
    _, of_generator = model.generator_losses(pairs_of(model, features))["M_fake"]
    assert weight == 10
    assert value.item() == pytest.approx(of_generator.item(), rel=1e-5)


def _perfect(model):
    """D whose second branch says exactly what the embedders do."""
    model.discriminators.forward = lambda x: (
        x.sum(-1),
        torch.stack([torch.cat([model.embedders(x[t])[m] for m in model.order[t]], -1) for t in range(len(x))]),
    )


def test_10_a_real_feature_matches_its_own_target_and_not_the_rest(flam, features):
    model = flam(norm="l1", dictionary_share=0.0)
    _perfect(model)
    pairs = pairs_of(model, features)
    partner, _ = choose_partners(
        model.embedders(features), model.embedders.classes(model.embedders(features)), online=True
    )
    assert model.discriminator_losses(pairs)["M_real"][1].item() == pytest.approx(0, abs=1e-5)
    model.generators = Formula(lambda x, e: features[partner])
    matched = model.discriminators(features[partner])[1]
    difference = (matched - model.slots(pairs, manipulated=True)).reshape(T, 12, T, K)
    assert difference[:, :, 0].abs().max() < 1e-5
    away = torch.stack(
        [pairs.embedded[m][partner[t]] - pairs.embedded[m] for t in range(T) for m in model.order[t, 1:]]
    )
    assert difference[:, :, 1:].abs().sum().item() == pytest.approx(away.abs().sum().item(), rel=1e-4)
    assert away.abs().sum() > 1
    fitted = model.generator_losses(pairs)["M_fake"][1].item()  # summed over targets, averaged over the batch
    assert fitted == pytest.approx(away.abs().sum().item() / 12, rel=1e-4)


@pytest.mark.parametrize("match", ["target", "all"])
def test_11_the_single_slot_does_not_see_the_remaining_attributes(flam, features, match):
    model = flam(match=match)
    pairs = pairs_of(model, features)
    mixed = pairs.embedded.clone()
    mixed[1:] = mixed[1:].roll(1, dims=1)  # colour and pattern of another feature
    for manipulated in (False, True):
        same = torch.equal(
            model.slots(pairs, manipulated=manipulated)[0],
            model.slots(pairs._replace(embedded=mixed), manipulated=manipulated)[0],
        )
        assert same == (match == "target")


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("target", range(T))
def test_11_nor_does_its_loss(flam, features, target, shared):
    for match in ("all",) if shared else ("all", "target"):
        model = flam(match=match, shared_generator=shared, d_fits_fake=True)
        pairs = pairs_of(model, features)
        alone = pairs._replace(found=pairs.found & (torch.arange(T) == target).unsqueeze(1))
        mixed = pairs.embedded.roll(1, dims=1)  # what remains is of another feature, the target still of its own
        mixed[target] = pairs.embedded[target]
        for losses in (model.discriminator_losses, model.generator_losses):
            plain, other = losses(alone), losses(alone._replace(embedded=mixed))
            for name, (weight, value) in plain.items():
                reads = match == "all" and name.startswith("M_")
                assert torch.equal(value, other[name][1]) != reads, name
                assert weight != 0 or name == "cycle_cosine"


# ------------------------------------------------------------------ online sampling


def _at(*distances):
    cosine = 1 - torch.tensor(distances)
    return torch.stack([cosine, (1 - cosine.square()).clamp(min=0).sqrt()], dim=-1)


@pytest.mark.parametrize("target", [(0.0, 0.0, 0.0, 0.0), (0.0, 0.1, 0.2, 0.9)])
def test_12_online_sampling_takes_the_nearest_of_another_class(target):
    """However far it is in the target attribute, which is to change."""
    embedded = torch.stack([_at(*target), _at(0.0, 0.1, 0.4, 0.2)])
    classes = torch.tensor([[0, 0, 1, 1], [0, 1, 2, 3]])
    partner, found = choose_partners(embedded, classes, online=True)
    assert partner[0, 0] == 3
    assert found.all()


def test_12_the_distances_of_all_remaining_attributes_count():
    embedded = torch.stack([_at(0.0, 0.9, 0.5, 0.1), _at(0.0, 0.1, 0.4, 0.2), _at(0.0, 0.9, 0.1, 0.4)])
    classes = torch.tensor([[0, 1, 1, 1], [0, 1, 1, 1], [0, 1, 1, 1]])
    partner, _ = choose_partners(embedded, classes, online=True)
    # sums of the first target 1, .5 and .6; of the second 1.8, .6 and .5; of the third 1, .9 and .3
    assert partner[:, 0].tolist() == [2, 3, 3]


def test_12_a_batch_of_one_class_has_no_pairs(flam, features):
    model = flam()
    model.embedders.classes = lambda embedded: torch.zeros(embedded.shape[:2], dtype=torch.long)
    with torch.no_grad():
        pairs = model.pairs(features)[0]
    assert not pairs.found.any()
    for losses in (model.discriminator_losses(pairs), model.generator_losses(pairs)):
        assert weighted_sum(losses).item() == 0
        weighted_sum(losses).backward()
    gradients = [p.grad for p in [*model.generators.parameters(), *model.discriminators.parameters()]]
    assert not any(gradient.any() or gradient.isnan().any() for gradient in gradients)


def test_13_partners_are_of_another_class_and_online_sampling_is_nearer():
    torch.manual_seed(0)
    embedded, classes = F.normalize(torch.randn(3, 40, K), dim=-1), torch.randint(3, (3, 40))
    distance = 1 - embedded @ embedded.transpose(1, 2)
    remaining = distance.sum(0) - distance

    def cost(partner):
        return remaining.gather(2, partner.unsqueeze(-1)).mean().item()

    online, found = choose_partners(embedded, classes, online=True)
    assert found.all()
    assert (classes.gather(1, online) != classes).all()
    drawn = []
    for _ in range(5):
        random, _ = choose_partners(embedded, classes, online=False)
        assert (classes.gather(1, random) != classes).all()
        assert cost(online) < cost(random)
        drawn.append(random)
    assert not torch.equal(drawn[0], drawn[1])
    alone, _ = choose_partners(embedded[:1], classes[:1], online=True)  # nothing remains to be near in
    assert len(alone[0].unique()) > 10


def test_14_a_dictionary_vector_is_of_its_own_class(flam):
    embedders = flam().embedders
    found = embedders.classes(embedders.dictionary)
    for target, size in enumerate((3, 4, 2)):
        assert found[target, :size].tolist() == list(range(size))


@pytest.mark.parametrize("share", [0.0, 1.0, 0.5])
def test_generators_are_fed_embeddings_or_dictionary_vectors(flam, features, share):
    model = flam(dictionary_share=share, online_sampling=False)
    many = F.normalize(torch.randn(300, DIM), dim=-1)
    pairs_of(model, many)
    model.embedders.rows.data.add_(0.1 * torch.randn(model.embedders.rows.shape))  # no embedding is a dictionary's
    pairs, agreement = model.pairs(many)
    from_dictionary = (pairs.wanted.unsqueeze(2) == model.embedders.dictionary.unsqueeze(1)).all(-1).any(-1)
    assert from_dictionary.float().mean().item() == pytest.approx(share, abs=0.1 if share == 0.5 else 0)
    assert agreement.item() == pytest.approx(model.embedders.likeness(pairs.embedded).amax(-1).mean().item(), abs=0.1)
