# SPDX-License-Identifier: MIT
"""AMGAN: a generator draws the wanted garment, and what tells drawn from real measures distances for the search."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from fm_bench.attributes import MISSING
from fm_bench.data.batches import QuadrupletBatch
from fm_bench.errors import UserError
from fm_bench.methods.base import Context, Method, Stage, weighted_sum
from fm_bench.nn.losses import attribute_cross_entropy, euclidean
from fm_bench.nn.prototypes import Generator, MetricEncoder, from_pixels, to_pixels

DISCRIMINATOR, GENERATOR = 0, 1
"""Places of the two players' optimisers."""

Losses = dict[str, tuple[float, Tensor]]
"""By name: weight and value."""


class AMGAN(Method):
    """Yang et al., Generative Attribute Manipulation Scheme for Flexible Fashion Search, SIGIR 2020.

    Follows: the prototype drawn from picture and request (Sec. 3.2, Eqs. 1-2), visual-semantic and pixel-wise
    consistency (Eqs. 3-5), attribute classifiers that learn from real pictures alone (Eq. 6), the pair and the triplet
    scheme of adversarial metric learning (Eqs. 7-12), their weighted sums (Eqs. 13-14), one step of the discriminator
    and one of the generator in turn (Algorithm 1). The paper's maximisations are written as minimisations.

    Differs: the sizes of kernels stand only in a figure and are ours; a request of nothing searches with the picture
    itself; the learning rate rises and falls as every method's here; the encoder starts from He's weights, having no
    normalisation. The shared protocols leave the query's own picture out of the ranking, and ask requests that change
    one attribute and two apart; the paper, and ``amgan_s100k``, keep the query and mix them. In common mode the
    generator's losses do not saturate, classifiers learn by cross-entropy, summed over attributes, from all four real
    pictures, pictures with equal labels are no negatives of Eq. 4, and both players see the same mini-batch, so that it
    is drawn once.

    When the discriminator moves, the generator normalises by the batch's statistics, and its running statistics stay
    as they were: only its own steps move them.

    Args:
        attributes: the schema, ``{attribute: [value, …]}``.
        scheme: what the metric is learned from: pairs (AMGAN-P) or triplets (AMGAN-T).
        generator_widths: channels at full, half and quarter size; the last is the paper's ``L``.
        blocks: residual blocks of the generator.
        encoder_widths: channels of the encoder after each halving; the last is the dimension that is searched.
        gamma: weight of the visual-semantic consistency (Eq. 4).
        mu: weight of the pixel-wise consistency (Eq. 5).
        lambda_: weight of the classification (Eq. 6), for both players.
        margin: ``g`` of Eq. 4.
        shift: ``b`` of Eq. 7, in distance units.
        class_loss: what classification maximises: the probability itself as printed, or its logarithm.
        classify: which real pictures the classifiers learn from: the target alone as printed, or all four.
        saturating: take Eqs. 9 and 12 as printed, whose gradient vanishes where the generator is worst.
        mask_equal: leave pairs of pictures with equal labels out of Eq. 4.
        fresh_batches: each player sees a mini-batch of its own, half of the loader's, as in Algorithm 1.
        discriminator_lr: peak learning rate of encoder and classifiers.
        generator_lr: peak learning rate of the generator.
        betas: of Adam, for both.
        image_size: height and width of the pictures, where they are known: each network needs a pixel at its smallest.
    """

    stages: ClassVar[tuple[Stage, ...]] = (
        Stage("adversarial", QuadrupletBatch, monitor="val/accuracy@20", manual=True),
    )
    draws: ClassVar[bool] = True

    def __init__(
        self,
        attributes: Mapping[str, Sequence[str]],
        scheme: Literal["pair", "triplet"] = "triplet",
        generator_widths: Sequence[int] = (64, 128, 256),
        blocks: int = 4,
        encoder_widths: Sequence[int] = (64, 128, 256, 512, 512),
        gamma: float = 1.0,
        mu: float = 1.0,
        lambda_: float = 1.0,
        margin: float = 0.2,
        shift: float = 1.0,
        class_loss: Literal["probability", "cross-entropy"] = "cross-entropy",
        classify: Literal["target", "all"] = "all",
        saturating: bool = False,
        mask_equal: bool = True,
        fresh_batches: bool = False,
        discriminator_lr: float = 2e-4,
        generator_lr: float = 2e-4,
        betas: Sequence[float] = (0.5, 0.999),
        image_size: Sequence[int] | None = None,
    ) -> None:
        super().__init__(attributes)
        self.save_hyperparameters()
        self._check()
        self.generator = Generator(self.schema.num_values, generator_widths, blocks)
        self.encoder = MetricEncoder(encoder_widths)
        self.heads = nn.ModuleList(nn.Linear(self.encoder.dim, size) for size in self.schema.sizes)  # C_m
        self.add_networks()
        self.to(memory_format=torch.channels_last)  # fastest on CPUs

    def _check(self) -> None:
        given = self.hparams
        for name, least in (("gamma", 0), ("mu", 0), ("lambda_", 0), ("margin", 0), ("blocks", 0)):
            if not given[name] >= least:
                raise UserError(f"--method.{name} is {given[name]}: give at least {least}.")
        for name, right, wanted in (
            ("generator_widths", len(given["generator_widths"]) == 3, "three widths"),
            ("encoder_widths", len(given["encoder_widths"]) > 0, "at least one width"),
            ("betas", len(given["betas"]) == 2, "two numbers"),
        ):
            if not right:
                raise UserError(f"--method.{name} is {list(given[name])}: give {wanted}.")
        halvings = max(2, len(given["encoder_widths"]))  # the generator has two
        if given["image_size"] is not None and min(given["image_size"]) < 2**halvings:
            height, width = given["image_size"]
            raise UserError(
                f"pictures of {height} x {width} cannot be halved {halvings} times: "
                f"raise --loader.image_size to {2**halvings} or give fewer --method.encoder_widths."
            )

    def add_networks(self) -> None:
        """What else a baseline needs that is built on this class."""

    @property
    def row_notes(self) -> list[str]:
        """Which of the two readings of Eq. 6 was trained."""
        if self.hparams["lambda_"] == 0:
            return super().row_notes
        terms = {
            "cross-entropy": "classifiers learn by cross-entropy, where the paper prints the probability itself",
            "probability": "classifiers learn by the probability itself, as printed, not by its logarithm",
        }
        return [*super().row_notes, terms[self.hparams["class_loss"]]]

    # --------------------------------------------------------- Sec. 3.2: drawing, and searching with what is drawn

    def prototypes(self, images: Tensor, indicator: Tensor) -> Tensor:
        """Pixels in [-1, 1] ``(B, 3, H, W)`` of what is asked for: drawn, or the picture itself where nothing is."""
        pixels = to_pixels(images)
        asked = indicator.sum(-1) > 0
        if not asked.any():
            return pixels
        drawn, _ = self.generator(pixels, indicator)
        return torch.where(asked[:, None, None, None], drawn.to(pixels.dtype), pixels)

    def draw(self, images: Tensor, indicator: Tensor) -> Tensor:
        """The prototypes, normalised like the input."""
        return from_pixels(self.prototypes(images, indicator))

    def embed_gallery(self, images: Tensor, context: Context | None = None) -> Tensor:
        """``E(y)``, not normalised."""
        features: Tensor = self.encoder(to_pixels(images))
        return features

    def embed_query(self, images: Tensor, indicator: Tensor, context: Context | None = None) -> Tensor:
        """``E(G(x, h))``; ``E(x)`` where nothing is asked."""
        features: Tensor = self.encoder(self.prototypes(images, indicator))
        return features

    # --------------------------------------------------------- Secs. 3.3-3.4, Algorithm 1: training

    def adversarial_step(self, batch: QuadrupletBatch) -> Losses:
        """Eqs. 13 and 14 in turn."""
        return self.play(batch, self.discriminator_losses, self.generator_losses)

    def play(
        self,
        batch: QuadrupletBatch,
        discriminator: "Callable[[Quadruplets, Tensor], Losses]",
        generator: "Callable[[Quadruplets, Tensor, Tensor], Losses]",
    ) -> Losses:
        """Algorithm 1: one step of the discriminator, then one of the generator.

        Args:
            batch: normalised pictures.
            discriminator: its losses on real pictures and detached prototypes.
            generator: its losses on real pictures, prototypes and the visual maps that these were drawn from.
        """
        if self.hparams["fresh_batches"]:
            first, second = (Quadruplets.of(part) for part in halves(batch))
            shown = self.drawn_aside(first)
        else:
            first = second = Quadruplets.of(batch)
            drawn, maps = self.generator(second.reference, second.indicator)
            shown = drawn.detach()
        with self.turn(DISCRIMINATOR) as descend:
            losses = discriminator(first, shown)
            descend(weighted_sum(losses))
        with self.turn(GENERATOR) as descend:
            if self.hparams["fresh_batches"]:
                drawn, maps = self.generator(second.reference, second.indicator)
            answer = generator(second, drawn, maps)
            descend(weighted_sum(answer))
        return losses | answer | {"twins": (0.0, batch.twin.float().mean())}

    @torch.no_grad()
    def drawn_aside(self, batch: "Quadruplets") -> Tensor:
        """Prototypes ``(B, 3, H, W)`` for the discriminator's step: no running statistics of the generator move."""
        buffers = {name: buffer.clone() for name, buffer in self.generator.named_buffers()}
        drawn: Tensor = functional_call(self.generator, buffers, (batch.reference, batch.indicator))[0]
        return drawn

    def discriminator_losses(self, batch: "Quadruplets", drawn: Tensor) -> Losses:
        """Eq. 13 with its sign flipped: real pictures of the same labels together, the drawn one away from them.

        Args:
            batch: real pictures.
            drawn: ``(B, 3, H, W)`` prototypes, detached; the classifiers never see them.
        """
        pictures, labels = self.real_pictures(batch)
        features = self.encoder(torch.cat([drawn.to(batch.target.dtype), *pictures]))
        fake, target, positive, negative, *_ = features.split(len(drawn))
        real = euclidean(target, positive)
        if self.hparams["scheme"] == "pair":
            metric = pair_discriminator(real, euclidean(fake, positive), self.hparams["shift"])
        else:
            metric = triplet_discriminator(real, euclidean(target, negative), euclidean(target, fake))
        losses: Losses = {"metric_D": (1.0, metric)}
        if self.hparams["lambda_"] > 0:
            classes = self.class_term(features[len(drawn) :][: len(labels)], labels, self.heads)
            losses["class_D"] = (self.hparams["lambda_"], classes)
        return losses

    def real_pictures(self, batch: "Quadruplets") -> tuple[list[Tensor], Tensor]:
        """Real pictures, target, positive and negative first, and labels of as many rows as classifiers learn from."""
        pictures = [batch.target, batch.positive, batch.negative]
        if self.hparams["classify"] == "target" or self.hparams["lambda_"] == 0:
            return pictures, batch.target_labels
        labels = [batch.target_labels, batch.target_labels, batch.negative_labels, batch.reference_labels]
        return [*pictures, batch.reference], torch.cat(labels)

    def generator_losses(self, batch: "Quadruplets", drawn: Tensor, maps: Tensor) -> Losses:
        """Eq. 14: close to the target's twin, consistent with the labels, close in pixels, classified as asked.

        Args:
            batch: real pictures.
            drawn: ``(B, 3, H, W)`` prototypes, through which the gradient reaches the generator.
            maps: ``(B, L, H/4, W/4)`` the visual maps ``F_x`` that they were drawn from.
        """
        fake = self.encoder(drawn)
        pair, saturating = self.hparams["scheme"] == "pair", self.hparams["saturating"]
        with torch.no_grad():  # Eq. 9 has no negatives
            real = self.encoder(batch.positive if pair else torch.cat([batch.positive, batch.negative]))
        positive, *negative = real.split(len(drawn))
        near = euclidean(fake, positive)
        if pair:
            metric = pair_generator(near, self.hparams["shift"], saturating=saturating)
        else:
            metric = triplet_generator(near, euclidean(fake, *negative), saturating=saturating)
        losses: Losses = {"metric_G": (1.0, metric)} | self.consistency(batch, drawn, maps)
        if self.hparams["lambda_"] > 0:  # e*, the labels of the target, are the picture's own edited by the request
            losses["class_G"] = (self.hparams["lambda_"], self.class_term(fake, batch.target_labels, self.heads))
        return losses

    def consistency(self, batch: "Quadruplets", drawn: Tensor, maps: Tensor) -> Losses:
        """Eqs. 3-5, see ``generator_losses``."""
        losses: Losses = {}
        if self.hparams["gamma"] > 0:
            codes = self.schema.one_hot(batch.reference_labels)
            semantic = F.linear(codes, self.generator.semantics).float()  # Eq. 3 but for 1/M, which no cosine sees
            labels = batch.reference_labels if self.hparams["mask_equal"] else None
            vse = visual_semantic(
                semantic, maps.float().mean(dim=(2, 3)), codes.sum(-1) > 0, self.hparams["margin"], labels
            )
            losses["vse"] = (self.hparams["gamma"], vse)
        if self.hparams["mu"] > 0:
            losses["L1"] = (self.hparams["mu"], F.l1_loss(drawn.float(), batch.target))
        return losses

    def class_term(self, features: Tensor, labels: Tensor, heads: nn.ModuleList) -> Tensor:
        """Eq. 6 to be minimised, of features ``(B, D)`` and labels ``(B, A)``."""
        return classification([head(features) for head in heads], labels, self.hparams["class_loss"])

    def adversarial_optimizer(self) -> list[dict[str, Any]]:
        """Adam for each player: first the discriminator, i.e. encoder and classifiers, then the generator."""
        discriminator = [*self.encoder.parameters(), *self.heads.parameters()]
        return [
            self.player(discriminator, self.hparams["discriminator_lr"]),
            self.player(list(self.generator.parameters()), self.hparams["generator_lr"]),
        ]

    def player(self, parameters: list[nn.Parameter], lr: float) -> dict[str, Any]:
        """One player's optimiser and schedule."""
        first, second = self.hparams["betas"]
        return self.scheduled(torch.optim.Adam(parameters, lr, betas=(first, second)))


class Quadruplets(NamedTuple):
    """A batch as the networks take it: pictures in [-1, 1]."""

    reference: Tensor  # x (B, 3, H, W)
    target: Tensor  # y
    positive: Tensor  # y+, with the labels of y
    negative: Tensor  # y-
    indicator: Tensor  # h (B, C)
    reference_labels: Tensor  # f (B, A)
    target_labels: Tensor  # e* (B, A)
    negative_labels: Tensor  # (B, A)

    @classmethod
    def of(cls, batch: QuadrupletBatch) -> "Quadruplets":
        """From a batch of normalised pictures."""
        reference, target, positive, negative = (to_pixels(images) for images in batch[:4])
        labels = batch.reference_labels, batch.target_labels, batch.negative_labels
        return cls(reference, target, positive, negative, batch.indicator, *labels)


def halves(batch: QuadrupletBatch) -> tuple[QuadrupletBatch, QuadrupletBatch]:
    """A mini-batch for each player; a single row serves both."""
    half = (len(batch.index) + 1) // 2
    return QuadrupletBatch(*(field[:half] for field in batch)), QuadrupletBatch(*(field[-half:] for field in batch))


# ------------------------------------------------------------- Eqs. 7-12: the metric games, of distances (B,)


def pair_probability(distance: Tensor, shift: float) -> Tensor:
    """Eq. 7: that two pictures are similar."""
    return torch.sigmoid(shift - distance)


def triplet_probability(positive: Tensor, negative: Tensor) -> Tensor:
    """Eq. 10: that the anchor resembles the positive more than the negative, from its distances to them."""
    return torch.sigmoid(negative - positive)


def pair_discriminator(real: Tensor, fake: Tensor, shift: float) -> Tensor:
    """Eq. 8 to be minimised, ``-log p(real) - log(1 - p(fake))``, from ``d(y, y+)`` and ``d(x~, y+)``."""
    return (F.softplus(real - shift) + F.softplus(shift - fake)).mean()


def pair_generator(fake: Tensor, shift: float, *, saturating: bool) -> Tensor:
    """Eq. 9, ``log(1 - p)``, or ``-log p``, which has the same optimum and a gradient far from it."""
    return (-F.softplus(shift - fake) if saturating else F.softplus(fake - shift)).mean()


def triplet_discriminator(real: Tensor, negative: Tensor, fake: Tensor) -> Tensor:
    """Eq. 11 to be minimised, from ``d(y, y+)``, ``d(y, y-)`` and ``d(y, x~)``."""
    return (F.softplus(real - negative) + F.softplus(real - fake)).mean()


def triplet_generator(positive: Tensor, negative: Tensor, *, saturating: bool) -> Tensor:
    """Eq. 12, ``log(1 - p)``, or ``-log p``, from ``d(x~, y+)`` and ``d(x~, y-)``."""
    return (-F.softplus(negative - positive) if saturating else F.softplus(positive - negative)).mean()


# ------------------------------------------------------------- Eqs. 4 and 6


def classification(logits: Sequence[Tensor], labels: Tensor, kind: Literal["probability", "cross-entropy"]) -> Tensor:
    """Eq. 6 to be minimised, of one ``(B, C_m)`` block per attribute and ``e* (B, A)``, −1 = missing.

    The probability as printed, ``-p(e*)``, is averaged over all labelled attributes of all pictures; its logarithm is
    summed over attributes and averaged over pictures, as in every other method here.
    """
    if kind == "cross-entropy":
        return attribute_cross_entropy(logits, labels)
    total = logits[0].new_zeros((), dtype=torch.float32)
    for m, block in enumerate(logits):
        wanted = labels[:, m].long()
        p = block.float().softmax(-1).gather(-1, wanted.clamp(min=0).unsqueeze(-1)).squeeze(-1)
        total = total - (p * (wanted != MISSING)).sum()
    return total / (labels != MISSING).sum().clamp(min=1)


def visual_semantic(
    semantic: Tensor, visual: Tensor, known: Tensor, margin: float, labels: Tensor | None = None
) -> Tensor:
    """Eq. 4: each picture nearer to its own labels' embedding than to another's, and the other way round.

    Args:
        semantic: ``s (B, L)``, of any length.
        visual: ``v (B, L)``.
        known: ``(B,)`` whether the picture has any label; without, its ``s`` is zero and has no direction.
        margin: ``g``, of cosines.
        labels: ``(B, A)``: pairs of equal ones are left out; None keeps all ordered pairs.

    Returns:
        Scalar, the mean over ordered pairs; 0 where there is none.
    """
    use = known[:, None] & known & ~torch.eye(len(known), dtype=torch.bool, device=known.device)
    if labels is not None:
        use = use & (labels[:, None] != labels).any(-1)
    semantic = semantic.masked_fill(~known[:, None], 1.0)  # a direction for the masked, so that no gradient is huge
    cosine = F.cosine_similarity(semantic[:, None], visual, dim=-1)  # (B, B): row s_i, column v_j
    own = cosine.diagonal()
    hinges = F.relu(margin - own[:, None] + cosine) + F.relu(margin - own[:, None] + cosine.T)
    return (hinges * use).sum() / use.sum().clamp(min=1)
