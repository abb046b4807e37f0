# SPDX-License-Identifier: MIT
"""DARN: one network per domain, attribute branches in each, and a ranking loss that ties the two together."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD

from fm_bench.catalog import Catalog, Domain, Split
from fm_bench.data.batches import CrossDomainBatch, LabelledBatch
from fm_bench.errors import UserError
from fm_bench.methods.attribute_based import matching_code
from fm_bench.methods.attribute_network import predict_labels
from fm_bench.methods.base import Context, Method, Stage
from fm_bench.nn.backbones import build_maps
from fm_bench.nn.gather import gathered
from fm_bench.nn.losses import attribute_cross_entropy, triplet_margin
from fm_bench.nn.pca import PrincipalComponents
from fm_bench.nn.reservoir import Reservoir

ATTRIBUTES = Stage("attributes", LabelledBatch, shared=True)
RANKING = Stage("ranking", CrossDomainBatch, monitor="val/accuracy@20", shared=True)
COMPONENTS = Stage("components", LabelledBatch, trained=False)

_NO_PAIRS = (
    "the training split has street photos, but no item with a street and a shop photo: "
    "two networks have nothing to learn from each other, run darn/arn."
)
CELLS = 3  # maps are max-pooled to 3 x 3


class Responses(NamedTuple):
    """What a sub-network says of pictures."""

    parts: dict[str, Tensor]  # ``fc1 (B, width)``, ``conv4 (B, 9 C4)`` and ``conv5 (B, 9 C5)``
    logits: list[Tensor]  # one (B, C_m) block per attribute


class SubNetwork(nn.Module):
    """The network of one domain (Sec. 3.2): convolutions, FC1, FC2, and a branch of its own for every attribute.

    Args:
        backbone: name for ``build_maps``.
        weights: of the convolutions, see ``build_maps``; fully connected layers start anew.
        width: length of FC1 and FC2.
        branch: length of each branch's hidden layer.
        dropout: behind FC1, FC2 and the branches' hidden layers.
        sizes: values of each attribute, ``C_m``.
    """

    def __init__(
        self, backbone: str, weights: str | None, width: int, branch: int, dropout: float, sizes: Sequence[int]
    ) -> None:
        super().__init__()
        self.maps = build_maps(backbone, weights)
        self.fc1 = nn.Linear(self.maps.pooled, width)
        self.fc2 = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Linear(width, branch), nn.ReLU(), nn.Dropout(dropout), nn.Linear(branch, size))
            for size in sizes
        )

    @property
    def widths(self) -> dict[str, int]:
        """Length of each part of the retrieval feature."""
        cells = CELLS * CELLS
        return {
            "fc1": self.fc1.out_features,
            "conv4": cells * self.maps.conv4_width,
            "conv5": cells * self.maps.conv5_width,
        }

    def forward(self, images: Tensor) -> Responses:
        """Responses to normalised images ``(B, 3, H, W)``."""
        conv4, conv5, pooled = self.maps(images)
        fc1 = F.relu(self.fc1(pooled))
        fc2 = self.dropout(F.relu(self.fc2(self.dropout(fc1))))
        parts = {"fc1": fc1, "conv4": local_features(conv4), "conv5": local_features(conv5)}
        return Responses(parts, [branch(fc2) for branch in self.branches])


class DARN(Method):
    """Huang et al., Cross-domain Image Retrieval with a Dual Attribute-aware Ranking Network, ICCV 2015.

    Follows: two sub-networks of one structure without shared weights, one per domain; tree-structured branches that
    predict the attributes, missing labels giving no gradient; the triplet ranking loss (Eq. 1) between a street
    picture, its item's shop picture and one of another item, added to the attribute losses of all three; FC1 and
    pooled Conv4 and Conv5 as feature, normalised part by part, then reduced by PCA without whitening.

    Differs: the paper starts every network from ImageNet weights, which nobody has for them; here one network is first
    trained on attributes, over pictures of both domains, and both sub-networks start from it. Ranking acts on the
    feature that is searched, normalised as it is searched: the paper names FC1 and the concatenation, and its margin of
    0.3 means nothing on raw responses. Nothing is printed on widths, rates and epochs. The PCA sees pictures of both
    domains in equal numbers; one that keeps the feature's length would be a rotation and is left out.

    DARN has no attribute manipulation: it ignores what a request asks to change, or, with ``substitute``, looks up its
    own predictions with the requested values put in.

    Args:
        attributes: the schema, ``{attribute: [value, …]}``.
        domains: domains of the training split; with one there is one network, whatever ``dual`` says.
        pairs: what makes a training pair, see ``CrossDomainSampler``.
        backbone: ``nin5`` (the paper's shape), ``alexnet`` or a timm ResNet, see ``build_maps``.
        weights: None, ``imagenet`` or a file, for the convolutions.
        width: length of FC1 and FC2.
        branch: hidden length of the attribute branches.
        dropout: behind every fully connected layer but the last.
        dual: False is one network for both domains: the paper's ARN, or AN.
        rank: False trains on attributes alone, over the same pictures: AN.
        features: what is ranked and searched.
        margin: of Eq. 1, in distance units.
        normalize_in_loss: L2-normalise the parts in the ranking loss, too; retrieval always does.
        pca: length that longer features are reduced to; None keeps them.
        pca_domains: whose training pictures the components are fitted on, ``both`` in equal numbers.
        pca_images: at most so many of them.
        substitute: predict attributes, put the requested values in, and rank the gallery by agreement.
        attributes_lr: peak learning rate of the convolutions in the first stage.
        attributes_new_lr: the same for fully connected layers and branches.
        lr: peak learning rate of the convolutions in the ranking stage.
        new_lr: the same for fully connected layers and branches.
        weight_decay: L2 penalty on everything.
    """

    stages: ClassVar[tuple[Stage, ...]] = (ATTRIBUTES, RANKING, COMPONENTS)
    version = 2
    validates: ClassVar[Literal["manipulation", "query"]] = "query"

    pca: PrincipalComponents | None

    def __init__(
        self,
        attributes: Mapping[str, Sequence[str]],
        domains: int = 2,
        pairs: Literal["domains", "items", "labels"] = "domains",
        backbone: str = "resnet18",
        weights: str | None = None,
        width: int = 4096,
        branch: int = 512,
        dropout: float = 0.5,
        dual: bool = True,
        rank: bool = True,
        features: Literal["fc1", "fc1+conv5", "fc1+conv4+conv5", "fc1+conv4"] = "fc1",
        margin: float = 0.3,
        normalize_in_loss: bool = True,
        pca: int | None = 4096,
        pca_domains: Literal["both", "shop"] = "both",
        pca_images: int = 20_000,
        substitute: bool = False,
        attributes_lr: float = 0.05,
        attributes_new_lr: float = 0.05,
        lr: float = 0.02,
        new_lr: float = 0.02,
        weight_decay: float = 5e-4,
    ) -> None:
        super().__init__(attributes)
        self.save_hyperparameters()
        for name, number, least in (("pca", pca, 1), ("pca_images", pca_images, 4), ("width", width, 1)):
            if number is not None and number < least:
                raise UserError(f"--method.{name} is {number}: give at least {least}.")
        self.dual = dual and domains > 1
        if self.dual and pairs != "domains":
            raise UserError(_NO_PAIRS)
        self.networks = nn.ModuleDict(
            {name: SubNetwork(backbone, weights, width, branch, dropout, self.schema.sizes) for name in self._names()}
        )
        self.parts = features.split("+")
        length = sum(self.network("shop").widths[part] for part in self.parts)
        self.pca = None if pca is None or length <= pca else PrincipalComponents(length, pca)

    @classmethod
    def obstacle(cls, catalog: Catalog, hyper: Mapping[str, Any]) -> str | None:
        """Two networks need items that both domains show."""
        rows = catalog.rows(Split.TRAIN)
        street = catalog.domain[rows] == Domain.STREET
        one_domain = street.all() or not street.any()
        if not hyper["dual"] or one_domain or np.isin(catalog.item[rows][street], catalog.item[rows][~street]).any():
            return None
        return _NO_PAIRS

    def _names(self) -> list[str]:
        return ["shop", "street"] if self.dual else ["shop"]

    def network(self, domain: Literal["shop", "street"]) -> SubNetwork:
        """The sub-network of a domain; one serves both where there is only one."""
        network = self.networks[domain if self.dual else "shop"]
        assert isinstance(network, SubNetwork)
        return network

    @property
    def row_notes(self) -> list[str]:
        """What readers of the row must know."""
        notes = []
        if self.hparams["dual"] and not self.dual:
            notes.append("one domain: this is ARN, a single network")
        if self.hparams["rank"] and self.hparams["pairs"] == "items":
            notes.append("ranking pairs two photos of an item: there are none from both domains")
        if self.hparams["rank"] and self.hparams["pairs"] == "labels":
            notes.append("every item has one photo: ranking takes images with the same full label vector as one item")
        if self.hparams["substitute"]:
            notes.append("no trained manipulation: requested values are put into predicted attributes")
        else:
            notes.append("no manipulation: what a request asks to change is ignored")
        return notes

    # --------------------------------------------------------- Sec. 3.2: the feature

    def feature(self, parts: Mapping[str, Tensor], normalize: bool = True) -> Tensor:
        """The chosen parts, each scaled to length 1, side by side: ``(B, D)``, at most ``2 sqrt(parts)`` apart."""
        chosen = [parts[name].float() for name in self.parts]
        return torch.cat([F.normalize(part, dim=-1) if normalize else part for part in chosen], dim=-1)

    def routed(self, images: Tensor, context: Context | None) -> tuple[Tensor, Tensor]:
        """Feature ``(B, D)`` and predicted labels ``(B, A)``, of every picture by its own domain's network."""
        street = None if context is None else context.domain == Domain.STREET
        if not self.dual or street is None or not street.any():
            return self._described("shop", images)
        if street.all():
            return self._described("street", images)
        found = [self._described("shop", images[~street]), self._described("street", images[street])]
        places = torch.cat([(~street).nonzero(), street.nonzero()]).flatten().argsort()
        features, labels = (torch.cat(both)[places] for both in zip(*found, strict=True))
        return features, labels

    def _described(self, domain: Literal["shop", "street"], images: Tensor) -> tuple[Tensor, Tensor]:
        parts, logits = self.network(domain)(images)
        return self.feature(parts), predict_labels(logits)

    def reduced(self, features: Tensor) -> Tensor:
        """Features after PCA: neither whitened nor normalised again."""
        if self.pca is None:
            return features
        with torch.autocast(features.device.type, enabled=False):
            reduced: Tensor = self.pca(features)
        return reduced

    def embed_gallery(self, images: Tensor, context: Context | None = None) -> Tensor:
        """The feature; with ``substitute`` the code of the predicted attributes beside it."""
        return self._embed(images, None, context)

    def embed_query(self, images: Tensor, indicator: Tensor, context: Context | None = None) -> Tensor:
        """The same; with ``substitute`` the requested values replace the predicted ones, else they are ignored."""
        return self._embed(images, indicator, context)

    def _embed(self, images: Tensor, indicator: Tensor | None, context: Context | None) -> Tensor:
        features, labels = self.routed(images, context)
        if self.stage is RANKING:  # its checkpoint is shared, so it must not depend on what comes later
            return features
        features = self.reduced(features)
        if not self.hparams["substitute"]:
            return features
        labels = labels if indicator is None else self.schema.edit(labels, indicator)
        return matching_code(self.schema, labels, features)

    # --------------------------------------------------------- in the place of pre-training: attributes alone

    def attributes_step(self, batch: LabelledBatch) -> dict[str, tuple[float, Tensor]]:
        """One network over pictures of both domains."""
        return {"L_attr": (1.0, attribute_cross_entropy(self.network("shop")(batch.image).logits, batch.labels))}

    def attributes_optimizer(self) -> Any:
        """SGD; convolutions and new layers in groups of their own."""
        return self._optimizer(["shop"], self.hparams["attributes_lr"], self.hparams["attributes_new_lr"])

    # --------------------------------------------------------- Secs. 3.2-3.3: attributes and ranking together

    def on_ranking_start(self, batches: Any) -> None:
        """Both sub-networks start from the network that knows attributes, and go their own ways from there."""
        if self.dual:
            self.network("street").load_state_dict(self.network("shop").state_dict())

    def ranking_step(self, batch: CrossDomainBatch) -> dict[str, tuple[float, Tensor]]:
        """Eq. 1 plus the attribute losses of all three pictures, each with weight 1."""
        responses = self._split_by_domain(batch)
        logits = [torch.cat(blocks) for blocks in zip(*(each.logits for each in responses), strict=True)]
        labels = torch.cat([batch.street_labels, batch.shop_labels, batch.other_labels])
        losses = {"L_attr": (1.0, attribute_cross_entropy(logits, labels))}
        if self.hparams["rank"]:
            normalize = self.hparams["normalize_in_loss"]
            features = torch.cat([self.feature(each.parts, normalize) for each in responses])
            a, b, c = features.chunk(3)
            losses["L_rank"] = (1.0, triplet_margin(a, b, c, self.hparams["margin"]))
        return losses

    def _split_by_domain(self, batch: CrossDomainBatch) -> list[Responses]:
        """Every network once, on all its pictures; together they answer in the order street, shop, other."""
        if not self.dual:
            return [self.network("shop")(torch.cat([batch.street, batch.shop, batch.other]))]
        return [self.network("street")(batch.street), self.network("shop")(torch.cat([batch.shop, batch.other]))]

    def ranking_optimizer(self) -> Any:
        """The same over all sub-networks."""
        return self._optimizer(self._names(), self.hparams["lr"], self.hparams["new_lr"])

    def _optimizer(self, names: Sequence[str], lr: float, new_lr: float) -> dict[str, Any]:
        parameters = [item for name in names for item in self.networks[name].named_parameters()]
        groups = [
            {"params": [value for name, value in parameters if name.startswith("maps.")], "lr": lr},
            {"params": [value for name, value in parameters if not name.startswith("maps.")], "lr": new_lr},
        ]
        optimizer = SGD(groups, momentum=0.9, nesterov=True, weight_decay=self.hparams["weight_decay"])
        return self.scheduled(optimizer)

    # --------------------------------------------------------- Sec. 3.4: principal components

    def on_components_start(self, batches: Iterable[LabelledBatch]) -> None:
        """Fits the PCA on features of training pictures, in equal numbers of each domain that it is to see."""
        if self.pca is None:
            return
        seen = [Domain.SHOP, Domain.STREET][: self.hparams["domains"] if self.hparams["pca_domains"] == "both" else 1]
        size = -(-self.hparams["pca_images"] // (len(seen) * self.trainer.world_size))  # each process sees its share
        samples = [Reservoir(size, self.stage_seed + domain) for domain in seen]
        for batch in batches:
            context = Context(None, batch.domain, batch.index)
            features, _ = self.routed(batch.image, context)
            for sample, domain in zip(samples, seen, strict=True):
                sample.add(features[(batch.domain == domain) | (self.hparams["domains"] == 1)])
        rows = [gathered(self.trainer, sample.rows().to(self.device)) for sample in samples]
        fewest = min(map(len, rows))
        self.pca.fit(torch.cat([part[:fewest] for part in rows]), self.stage_seed)

    # --------------------------------------------------------- what stages share

    def stage_config(self, stage: Stage) -> dict[str, Any]:
        """A stage depends on what it reads: all variants share the first, identity and substitution the second, too."""
        settings = super().stage_config(stage)
        if stage is COMPONENTS:
            return settings
        later = {"pca", "pca_domains", "pca_images", "substitute", "domains", "pairs"}
        if stage is ATTRIBUTES:
            later |= {"dual", "rank", "features", "margin", "normalize_in_loss", "lr", "new_lr"}
        kept = {name: value for name, value in settings.items() if name not in later}
        return kept | ({"dual": self.dual} if stage is RANKING else {})

    def stage_state(self, stage: Stage) -> dict[str, Tensor]:
        """The first stage leaves one network, the second all of them, the third the principal components."""
        prefix = {ATTRIBUTES: "networks.shop.", RANKING: "networks."}.get(stage, "pca.")
        return {name: value for name, value in super().stage_state(stage).items() if name.startswith(prefix)}


def local_features(responses: Tensor) -> Tensor:
    """A map ``(B, C, h, w)`` max-pooled to 3 x 3 cells, ``(B, 9 C)``."""
    return F.adaptive_max_pool2d(responses, CELLS).flatten(1)
