# SPDX-License-Identifier: MIT
"""FLAM: a generator moves the query's feature to where features with the wanted attribute lie."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import Adam

from fm_bench.data.batches import LabelledBatch, PositionsBatch, UnlabelledPositionsBatch
from fm_bench.errors import UserError
from fm_bench.methods.attribute_network import ATTRIBUTES
from fm_bench.methods.base import Context, Stage, weighted_sum
from fm_bench.methods.fir import INSTANCES, InstanceNetwork
from fm_bench.nn.cosine import masked_mean
from fm_bench.nn.embedders import AttributeEmbedders, Negatives, chosen
from fm_bench.nn.translation import Discriminators, Generators

EMBEDDERS = Stage("embedders", PositionsBatch, shared=True)
MANIPULATION = Stage("manipulation", UnlabelledPositionsBatch, monitor="val/accuracy@20", manual=True)


class Pairs(NamedTuple):
    """What a generator learns from: a feature, and the embedding of another one that it is to take on."""

    features: Tensor  # x (T, B, d), the same for every target
    embedded: Tensor  # e (T, B, k)
    wanted: Tensor  # e- (T, B, k)
    found: Tensor  # (T, B): whether the batch has a feature of another class


class FLAM(InstanceNetwork):
    """Shin et al., Semi-supervised Feature-Level Attribute Manipulation for Fashion Image Retrieval, BMVC 2019.

    Follows: features for instance retrieval (Sec. 4.1, see ``InstanceNetwork``); an embedder and a dictionary per
    attribute, trained by triplets (Eqs. 1-2); on frozen features and without labels, a generator per target attribute
    that is fed the embedding of a feature of another class, a discriminator whose second branch is taught by the
    embedders (Eqs. 3-4), cycle consistency (Eq. 5), and online sampling of that other feature (Sec. 4.1); at search
    time the dictionary's vector in the place of the embedding (Sec. 3.3). The gallery keeps plain features, and so
    does a query that asks for nothing.

    Differs: Eq. 3 lacks a D, and Eq. 4 a slot: D judges what G makes, and matches the target attribute beside all
    remaining ones. D minimises the real part of Eq. 4, G the other one. The paper trains the generators on a private
    set of unlabelled photos: here it is the training images, whose labels that stage never sees. Layers, weights of
    the losses and rates are not printed. In common mode G adds to the feature and minimises ``-log D``, and an
    embedder's triplets take the hardest other class. Two attributes at once, undefined in the paper, go through one
    generator after the other, in the order of the schema. Under several processes each one searches its own share of
    the batch for partners.

    Args:
        attributes: the schema, ``{attribute: [value, …]}``.
        code: ``k``, length of an embedding.
        embedder_hidden: width of the embedders' hidden layer.
        margin: mu of Eq. 1, in units of ``1 - cos``.
        negatives: see ``AttributeEmbedders.loss``: ``random`` is the paper's.
        embedders_lr: Adam's rate in the embedding stage.
        hidden: width of the generators' hidden layers.
        judge_hidden: widths of the discriminators' body.
        residual: the generators add their output to the feature.
        shared_generator: one generator and one discriminator for all targets, told the target by a one-hot code.
        match: what D's second branch matches: ``all`` attributes, or the ``target`` alone (the paper's S).
        online_sampling: feed G the feature that is nearest in the remaining attributes (OS), not any one.
        dictionary_share: how often it is fed the dictionary's vector of that feature's class instead, as in search.
        saturating: G minimises ``log(1 - D)`` as Eq. 3 prints, or ``-log D``.
        norm: of Eqs. 4 and 5: Euclidean length, ``l1`` or mean square (``mse``) of each difference.
        d_fits_fake: D minimises the second part of Eq. 4, too.
        adversarial_weight: of Eq. 3; 0 is the paper's FLAM(M/-).
        match_weight: of Eq. 4.
        target_weight: Eq. 4 with a norm for the target's slot, weighted so, and one for the remaining slots; None is
            the paper's single norm, in which one slot among many hardly counts.
        cycle_weight: of Eq. 5.
        lr: Adam's rate in the manipulation stage.
        others: see ``InstanceNetwork``.

    Raises:
        UserError: if the discriminators have no body, or a shared one, which is not told the target, is to match it
            alone or more than others.
    """

    stages: ClassVar[tuple[Stage, ...]] = (ATTRIBUTES, INSTANCES, EMBEDDERS, MANIPULATION)
    order: Tensor

    def __init__(
        self,
        attributes: Mapping[str, Sequence[str]],
        pairs: Literal["domains", "items", "labels"] = "items",
        backbone: str = "resnet18",
        weights: str | None = None,
        images_per_value: int | None = None,
        attributes_lr: float = 0.05,
        attributes_head_lr: float = 0.05,
        weight_decay: float = 5e-4,
        features: Literal["instances", "attributes"] = "instances",
        stand_in: Literal["labels", "views"] = "labels",
        dim: int = 1024,
        classes: int = 1000,
        instance_margin: float = 0.3,
        instances_lr: float = 0.05,
        targets: Literal["three", "all"] | list[str] = "three",
        values: int | None = None,
        code: int = 32,
        embedder_hidden: int = 256,
        margin: float = 1.0,
        negatives: Negatives = "hardest",
        embedders_lr: float = 1e-3,
        hidden: int = 1024,
        judge_hidden: Sequence[int] = (512, 256),
        residual: bool = True,
        shared_generator: bool = False,
        match: Literal["all", "target"] = "all",
        online_sampling: bool = True,
        dictionary_share: float = 0.0,
        saturating: bool = False,
        norm: Literal["l2", "l1", "mse"] = "l2",
        d_fits_fake: bool = False,
        adversarial_weight: float = 1.0,
        match_weight: float = 10.0,
        target_weight: float | None = None,
        cycle_weight: float = 2.0,
        lr: float = 4e-3,
        image_size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(
            attributes,
            pairs,
            backbone,
            weights,
            images_per_value,
            attributes_lr,
            attributes_head_lr,
            weight_decay,
            features,
            stand_in,
            dim,
            classes,
            instance_margin,
            instances_lr,
            targets,
            values,
            image_size,
        )
        self.save_hyperparameters()
        if shared_generator and (match == "target" or target_weight is not None):
            raise UserError(
                "a shared discriminator matches all attributes in one order: give --method.match all and no "
                "--method.target_weight, or --method.shared_generator false."
            )
        if not judge_hidden:
            raise UserError("--method.judge_hidden is empty: give the discriminators' body one width or more.")
        T = len(self.targets)
        self.embedders = AttributeEmbedders(self.width, embedder_hidden, code, self.target_sizes)
        self.generators = Generators(T, self.width, code, hidden, residual=residual, shared=shared_generator)
        order = slot_order(T, match, shared_generator)
        networks = 1 if shared_generator else T
        self.discriminators = Discriminators(networks, self.width, order.shape[1] * code, judge_hidden)
        self.register_buffer("order", order, persistent=False)

    @property
    def row_notes(self) -> list[str]:
        """What else was done otherwise."""
        return [
            *super().row_notes,
            "two attributes at once, undefined in the paper: one generator after the other",
            "the generators learn from the training images without their labels, in the place of the paper's private "
            "photos; the checkpoint is chosen on validation requests",
        ]

    # --------------------------------------------------------- Sec. 3.3: search

    def embed_query(self, images: Tensor, indicator: Tensor, context: Context | None = None) -> Tensor:
        """The feature, moved by the generators of what is asked for."""
        return self.manipulate(self.feature(images), indicator)

    def manipulate(self, features: Tensor, indicator: Tensor) -> Tensor:
        """``G_a(x, d_{a,i}) (B, d)`` of ``x (B, d)``, one target after the other; x itself where nothing is asked.

        A value that no embedder learnt changes nothing either, nor does the only one of its attribute: what generator
        there is had no pairs to learn from.
        """
        asked, value = self.wishes(indicator)
        able = asked & self.embedders.learnt.gather(1, value)
        code = self.embedders.look_up(value)
        for target in able.any(1).nonzero().flatten().tolist():
            rows = able[target].nonzero().flatten()
            moved = self.generators.one(target, features[rows], code[target, rows])
            features = features.index_copy(0, rows, moved)
        return features

    # --------------------------------------------------------- Sec. 3.1: embedders

    def attribute_embedding(self, attribute: int, vectors: Tensor) -> Tensor | None:
        """``phi_a (B, k)`` of features ``(B, d)``; None if the attribute is no target."""
        return self.embedders(vectors)[self.targets.index(attribute)] if attribute in self.targets else None

    def on_embedders_start(self, batches: Iterable[LabelledBatch]) -> None:
        """Chooses the classes: those with most images."""
        self.embedders.learn_of(self.count_labels(batches), self.hparams["values"])

    def cache_embedders(self, batches: Iterable[LabelledBatch]) -> None:
        """The embedders train on features alone."""
        self.keep_features(batches)

    def embedders_step(self, batch: PositionsBatch) -> dict[str, tuple[float, Tensor]]:
        """Eq. 2 of every attribute."""
        features, labels = self.cached[batch.position], batch.labels[:, self.targets]
        losses = self.embedders.loss(features, labels, self.hparams["margin"], self.hparams["negatives"])
        with torch.no_grad():  # images without the label count as wrong
            right = self.embedders.classes(self.embedders(features)) == labels.T
        return {"L_emb": (1.0, losses.sum()), "accuracy": (0.0, right.float().mean())}

    def embedders_optimizer(self) -> Any:
        """Adam with a warm-up and cosine schedule."""
        return self.scheduled(Adam(self.embedders.parameters(), lr=self.hparams["embedders_lr"]))

    # --------------------------------------------------------- Sec. 3.2: manipulation

    def cache_manipulation(self, batches: Iterable[LabelledBatch]) -> None:
        """Nor do the generators see a picture."""
        self.keep_features(batches)

    def pairs(self, features: Tensor) -> tuple[Pairs, Tensor]:
        """Pairs within a batch of features ``(B, d)``, by pseudo classes: no label is read.

        Returns:
            The pairs, and how far embeddings and dictionary vectors agree: the mean of ``cos(phi(x-), d)``.
        """
        embedded = self.embedders(features)
        classes = self.embedders.classes(embedded)
        partner, found = choose_partners(embedded, classes, online=self.hparams["online_sampling"])
        wanted = chosen(embedded, partner)
        named = self.embedders.look_up(classes.gather(1, partner))
        agreement = masked_mean((wanted * named).sum(-1).flatten(), found.flatten())
        by_name = torch.rand(found.shape, device=found.device) < self.hparams["dictionary_share"]
        wanted = torch.where(by_name.unsqueeze(-1), named, wanted)
        return Pairs(features.expand(len(embedded), *features.shape), embedded, wanted, found), agreement

    def slots(self, pairs: Pairs, *, manipulated: bool) -> Tensor:
        """What ``f`` is to be, ``(T, B, (n + 1) k)``: ``[phi_a(x); phi_b(x) …]``, or with ``phi_a(x-)`` first."""
        slots = pairs.embedded[self.order]  # (T, n + 1, B, k)
        if manipulated:
            target = self.order == torch.arange(len(self.order), device=self.order.device).unsqueeze(1)
            slots = torch.where(target[:, :, None, None], pairs.wanted.unsqueeze(1), slots)
        return slots.transpose(1, 2).flatten(2)

    def error(self, difference: Tensor, found: Tensor) -> Tensor:
        """Eqs. 4-5: the norm of each ``(T, B, n)`` difference, averaged over what was found: ``(T,)``."""
        norm: str = self.hparams["norm"]
        if norm == "mse":
            return masked_mean(difference.square().mean(-1), found)
        if norm == "l1":
            return masked_mean(difference.abs().sum(-1), found)
        return masked_mean((difference.square().sum(-1) + 1e-12).sqrt(), found)

    def discriminator_losses(self, pairs: Pairs) -> dict[str, tuple[float, Tensor]]:
        """Eq. 3 and the real part of Eq. 4, each summed over targets; what G makes is data here."""
        with torch.no_grad():
            made = self.generators(pairs.features, pairs.wanted)
        real, matched = self.discriminators(pairs.features)
        fake, fake_matched = self.discriminators(made)
        adversarial = masked_mean(F.logsigmoid(real) + F.logsigmoid(-fake), pairs.found)
        losses = {
            "L_adv": (-self.hparams["adversarial_weight"], adversarial.sum()),
            "M_real": self._matching(matched, pairs, manipulated=False),
        }
        if self.hparams["d_fits_fake"]:
            losses["M_fake_of_D"] = self._matching(fake_matched, pairs, manipulated=True)
        return losses

    def generator_losses(self, pairs: Pairs) -> dict[str, tuple[float, Tensor]]:
        """G's part of Eq. 3, the fake part of Eq. 4, and Eq. 5, each summed over targets; D only passes gradients."""
        made = self.generators(pairs.features, pairs.wanted)
        logit, matched = self.discriminators(made)
        fooled = F.logsigmoid(-logit) if self.hparams["saturating"] else -F.logsigmoid(logit)
        back = self.generators(made, pairs.embedded)
        cycle = self.error(pairs.features - back, pairs.found)
        cosine = masked_mean((pairs.features * back).sum(-1).flatten(), pairs.found.flatten())
        return {
            "G_adv": (self.hparams["adversarial_weight"], masked_mean(fooled, pairs.found).sum()),
            "M_fake": self._matching(matched, pairs, manipulated=True),
            "L_cyc": (self.hparams["cycle_weight"], cycle.sum()),
            "cycle_cosine": (0.0, cosine),  # the paper's measure of convergence
        }

    def _matching(self, matched: Tensor, pairs: Pairs, *, manipulated: bool) -> tuple[float, Tensor]:
        difference = matched - self.slots(pairs, manipulated=manipulated)
        weight, code = self.hparams["target_weight"], self.hparams["code"]
        if weight is None:
            error = self.error(difference, pairs.found)
        else:  # the target's slot comes first
            apart = [self.error(part, pairs.found) for part in (difference[..., :code], difference[..., code:])]
            error = weight * apart[0] + apart[1]
        return self.hparams["match_weight"], error.sum()

    def manipulation_step(self, batch: UnlabelledPositionsBatch) -> dict[str, tuple[float, Tensor]]:
        """One step of all discriminators, then one of all generators."""
        with torch.no_grad():
            pairs, agreement = self.pairs(self.cached[batch.position])
        with self.turn(0) as descend:
            judged = self.discriminator_losses(pairs)
            descend(weighted_sum(judged))
        with self.turn(1) as descend:
            made = self.generator_losses(pairs)
            descend(weighted_sum(made))
        return {**judged, **made, "dictionary_cosine": (0.0, agreement)}

    def manipulation_optimizer(self) -> Any:
        """Two Adams with a warm-up and cosine schedule, D's first."""
        players = (self.discriminators, self.generators)
        return [self.scheduled(Adam(p.parameters(), lr=self.hparams["lr"], betas=(0.5, 0.999))) for p in players]

    # --------------------------------------------------------- what variants share

    def stage_config(self, stage: Stage) -> dict[str, Any]:
        """The embedders depend neither on the generators nor on what they are trained with."""
        if stage is not EMBEDDERS:
            return super().stage_config(stage)
        read = ("code", "embedder_hidden", "margin", "negatives", "embedders_lr", "features", "dim", "values")
        common = {"method": "FLAM", "version": self.version, "attributes": self.hparams["attributes"]}
        return common | {"targets": self.targets} | {name: self.hparams[name] for name in read}

    def stage_state(self, stage: Stage) -> dict[str, Tensor]:
        """Each stage leaves its own networks."""
        left = {EMBEDDERS.name: ("embedders.",), MANIPULATION.name: ("generators.", "discriminators.")}
        if stage.name not in left:
            return super().stage_state(stage)
        return {name: value for name, value in self.state_dict().items() if name.startswith(left[stage.name])}


def slot_order(targets: int, match: Literal["all", "target"], shared: bool) -> Tensor:
    """Which attributes ``(T, n + 1)`` a discriminator's slots stand for: the target first, then the remaining ones.

    A shared discriminator, which is not told the target, has them in one order.
    """
    if shared:
        return torch.arange(targets).repeat(targets, 1)
    first = torch.arange(targets).unsqueeze(1)
    if match == "target":
        return first
    rest = [[other for other in range(targets) if other != target] for target in range(targets)]
    return torch.cat([first, torch.tensor(rest, dtype=torch.long).reshape(targets, -1)], dim=1)


def choose_partners(embedded: Tensor, classes: Tensor, *, online: bool) -> tuple[Tensor, Tensor]:
    """For every feature and target attribute another feature x- of the batch, of another class.

    Args:
        embedded: ``(T, B, k)`` of length 1.
        classes: ``(T, B)``.
        online: the one that is nearest in the remaining attributes, by the sum of their distances; else any one.

    Returns:
        Positions ``(T, B)``, and where there is one ``(T, B)``.
    """
    allowed = classes.unsqueeze(2) != classes.unsqueeze(1)  # (T, B, B)
    if online and len(embedded) > 1:
        cosine = embedded @ embedded.transpose(1, 2)
        score = cosine.sum(0) - cosine  # of the remaining: the larger, the smaller the sum of 1 - cos
    else:
        score = torch.rand(allowed.shape, device=allowed.device)
    return score.masked_fill(~allowed, -torch.inf).argmax(-1), allowed.any(-1)
