# SPDX-License-Identifier: MIT
"""cGAN: AMGAN's baseline in two stages, a generator that only draws, and a metric that is learned afterwards."""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fm_bench.data.batches import QuadrupletBatch
from fm_bench.methods.amgan import (
    AMGAN,
    Losses,
    Quadruplets,
    pair_discriminator,
    triplet_generator,
)
from fm_bench.methods.base import Stage
from fm_bench.nn.losses import euclidean
from fm_bench.nn.prototypes import MetricEncoder

DRAWING = Stage("drawing", QuadrupletBatch, manual=True)
METRIC = Stage("metric", QuadrupletBatch, monitor="val/accuracy@20")


class CGAN(AMGAN):
    """cGAN-P and cGAN-T of the AMGAN paper (Sec. 4.1): its parts, not trained together.

    First the generator learns against an ordinary discriminator of real and drawn pictures, with AMGAN's consistency
    terms and classification; then the encoder learns distances between real pictures and prototypes that no longer
    change.

    The paper lets the second stage follow Eqs. 9 and 12, which are losses of a generator: with the prototype fixed,
    Eq. 9 as printed would drive a request away from its answers, and without negatives it has nothing to learn. Here
    the second stage pulls prototype and ``y+`` together and pushes prototype and ``y-`` apart, by the probability of
    Eq. 7 (pair) or Eq. 10 (triplet), and classifies real pictures.

    Differs: as in ``AMGAN``; and the first stage keeps its last epoch, since there is nothing to search with yet by
    which an epoch could be chosen.

    Args:
        attributes: the schema, ``{attribute: [value, …]}``.
        saturating: take the ordinary generator loss ``log(1 - D(x~))`` of the first stage rather than ``-log D(x~)``.
        others: see ``AMGAN``.
    """

    stages: ClassVar[tuple[Stage, ...]] = (DRAWING, METRIC)

    def add_networks(self) -> None:
        """The ordinary discriminator: an encoder of its own, one output for real or drawn, and classifiers."""
        self.critic = MetricEncoder(self.hparams["encoder_widths"])
        self.realness = nn.Linear(self.critic.dim, 1)
        self.critic_heads = nn.ModuleList(nn.Linear(self.critic.dim, size) for size in self.schema.sizes)

    def stage_state(self, stage: Stage) -> dict[str, Tensor]:
        """The first stage leaves the generator and its discriminator, the second one the encoder and its heads.

        Without classification the heads learn nothing, and DDP would wait for their gradients.
        """
        metric = ("encoder.", "heads.") if self.hparams["lambda_"] > 0 else ("encoder.",)
        parts = ("generator.", "critic", "realness.") if stage.name == DRAWING.name else metric
        return {name: value for name, value in self.state_dict().items() if name.startswith(parts)}

    # --------------------------------------------------------- first stage: drawing

    def drawing_step(self, batch: QuadrupletBatch) -> Losses:
        """One step of each player, as in ``AMGAN``."""
        return self.play(batch, self.critic_losses, self.painter_losses)

    def critic_losses(self, batch: Quadruplets, drawn: Tensor) -> Losses:
        """``-log D(y) - log(1 - D(x~))``, and classification of real pictures."""
        pictures, labels = self.real_pictures(batch)
        classified = pictures[: len(labels) // len(drawn)]  # no picture is seen for nothing
        features = self.critic(torch.cat([drawn.to(batch.target.dtype), *classified]))
        fake, target, *_ = features.split(len(drawn))
        realness = F.softplus(-self.score(target)) + F.softplus(self.score(fake))
        losses: Losses = {"realness_D": (1.0, realness.mean())}
        if self.hparams["lambda_"] > 0:
            classes = self.class_term(features[len(drawn) :], labels, self.critic_heads)
            losses["class_D"] = (self.hparams["lambda_"], classes)
        return losses

    def painter_losses(self, batch: Quadruplets, drawn: Tensor, maps: Tensor) -> Losses:
        """Eq. 14 with the ordinary game in place of the metric one."""
        features = self.critic(drawn)
        score = self.score(features)
        fooled = -F.softplus(score) if self.hparams["saturating"] else F.softplus(-score)
        losses: Losses = {"realness_G": (1.0, fooled.mean())} | self.consistency(batch, drawn, maps)
        if self.hparams["lambda_"] > 0:
            classes = self.class_term(features, batch.target_labels, self.critic_heads)
            losses["class_G"] = (self.hparams["lambda_"], classes)
        return losses

    def score(self, features: Tensor) -> Tensor:
        """Logit ``(B,)`` that a picture is real."""
        logit: Tensor = self.realness(features)
        return logit.squeeze(-1).float()

    def drawing_optimizer(self) -> list[dict[str, Any]]:
        """Adam for each player: first the discriminator, then the generator."""
        critic = [*self.critic.parameters(), *self.realness.parameters(), *self.critic_heads.parameters()]
        return [
            self.player(critic, self.hparams["discriminator_lr"]),
            self.player(list(self.generator.parameters()), self.hparams["generator_lr"]),
        ]

    # --------------------------------------------------------- second stage: the metric

    def metric_step(self, batch: QuadrupletBatch) -> Losses:
        """Prototypes, drawn as in the search, close to ``y+`` and far from ``y-``; real pictures classified."""
        quadruplets = Quadruplets.of(batch)
        self.generator.eval()  # every part is set to training when an epoch begins
        with torch.no_grad():
            drawn, _ = self.generator(quadruplets.reference, quadruplets.indicator)
        pictures, labels = self.real_pictures(quadruplets)
        features = self.encoder(torch.cat([drawn.to(pictures[0].dtype), *pictures]))
        fake, _, positive, negative, *_ = features.split(len(drawn))
        near, far = euclidean(fake, positive), euclidean(fake, negative)
        if self.hparams["scheme"] == "pair":
            metric = pair_discriminator(near, far, self.hparams["shift"])
        else:
            metric = triplet_generator(near, far, saturating=False)
        losses: Losses = {"metric": (1.0, metric)}
        if self.hparams["lambda_"] > 0:
            classes = self.class_term(features[len(drawn) :][: len(labels)], labels, self.heads)
            losses["class"] = (self.hparams["lambda_"], classes)
        return losses

    def metric_optimizer(self) -> dict[str, Any]:
        """Adam for the encoder and its classifiers."""
        return self.player([*self.encoder.parameters(), *self.heads.parameters()], self.hparams["discriminator_lr"])
