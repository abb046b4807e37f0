# SPDX-License-Identifier: MIT
"""Recipes: the YAML files under ``benchmarks/`` that say what is run, and how they combine.

Later wins: the code's defaults, profile, data set, method, its variant, its mode, the variant's own part of that mode,
and at last the command line.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml

from fm_bench.errors import UserError, unknown

EXACT = "exact"
"""The index that compares a query with every image."""
MILVUS = "milvus"
KINDS = ("methods", "data", "profiles", "protocols")
_KEYS = {
    "methods": {
        *("description", "chosen", "default", "method", "stages", "variants", "modes", "data", "loader", "evaluation")
    },
    "data": {"description", "reader", "data", "loader", "evaluation"},
    "profiles": {"description", "budget", "method", "loader", "evaluation", "trainer", "data"},
}


class MilvusPlace(NamedTuple):
    """A collection's index type, and the file or address where it is kept."""

    kind: str
    uri: str


def milvus_place(index: str) -> MilvusPlace | None:
    """``milvus/FLAT:gallery.db`` in parts, whose type is HNSW where none is given; None for other indexes."""
    name, _, uri = index.partition(":")
    name, _, kind = name.partition("/")
    return MilvusPlace(kind or "HNSW", uri) if name == MILVUS else None


def benchmarks_dir() -> Path:
    """The folder with the recipes: beside the package in a checkout, inside it when installed from a wheel."""
    here = Path(__file__).resolve().parent
    return next(path for path in (here / "benchmarks", here.parent / "benchmarks") if (path / "methods").is_dir())


_joined: dict[str, dict[str, Any]] = {}
"""Recipes of methods that are not the suite's own, by name, see ``fm_bench.third_party``."""


def names(kind: str) -> list[str]:
    """Every recipe of a kind, e.g. ``names("profiles")``."""
    own = {path.stem for path in (benchmarks_dir() / kind).glob("*.yaml")}
    return sorted(own.union(_joined) if kind == "methods" else own)


def join(name: str, content: dict[str, Any]) -> None:
    """Makes the recipe of a method known that is not the suite's own."""
    _joined[name] = content


def is_joined(name: str) -> bool:
    """Whether the recipe of a method came by ``join``."""
    return name in _joined


def load(kind: str, name: str) -> dict[str, Any]:
    """One recipe as a dictionary.

    Raises:
        UserError: if there is no such recipe (with the nearest names), or it has a key that means nothing.
    """
    if kind == "methods" and name in _joined:
        return _joined[name]
    if name not in names(kind):
        raise unknown(kind.removesuffix("s"), name, names(kind))
    return checked(kind, benchmarks_dir() / kind / f"{name}.yaml")


@cache
def checked(kind: str, path: Path) -> dict[str, Any]:
    """The recipe in a file. Raises UserError if it has a key that means nothing."""
    content = yaml.safe_load(path.read_text()) or {}
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no keys with values: use {', '.join(sorted(_KEYS[kind]))}.")
    surplus = set(content) - _KEYS.get(kind, set(content))
    if surplus:
        raise UserError(f"{path} has the unknown key {sorted(surplus)[0]!r}: use {', '.join(sorted(_KEYS[kind]))}.")
    return dict(content)


def reader_name(data: str) -> str:
    """The reader that a data recipe asks for: the one of its own name unless it says otherwise."""
    return str(load("data", data).get("reader", data))


@dataclass(frozen=True)
class StageBudget:
    """How long a stage trains.

    Args:
        share: of the profile's training images, in [0, 1]; a triplet counts as three images, a quadruplet as four.
        epochs: number of epochs that share is cut into; None makes an epoch one pass over the training images.
        batch_size: images, triplets or features per step, over all processes; None for the loader's.
        passes: stages on features, which read no images: passes over the training images in each epoch.
    """

    share: float = 1.0
    epochs: int | None = None
    batch_size: int | None = None
    passes: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise UserError(f"a stage's share of the training images is {self.share}: give a number from 0 to 1.")
        _positive("a stage's epochs", self.epochs)
        _positive("a stage's batch_size", self.batch_size)
        _positive("a stage's passes", self.passes)


@dataclass(frozen=True)
class LoaderConfig:
    """How pictures reach the method.

    Args:
        image_size: shorter side in pixels; the longer one follows from the data set's aspect.
        batch_size: training images or triplets per step, over all processes.
        eval_batch_size: pictures per step when embedding.
        num_workers: loader processes; 0 loads in the training process, which is best on few cores.
        val_requests: validation requests, cut from the training split.
        changes: how many attributes a training triplet or a validation request changes; as many as protocols ask for.
        crop: show whole pictures (``full``), or each cut to the garment's box that comes with the data (``true``).
    """

    image_size: int = 64
    batch_size: int = 64
    eval_batch_size: int = 256
    num_workers: int = 0
    val_requests: int = 500
    changes: list[int] = field(default_factory=lambda: [1, 2])
    crop: Literal["full", "true"] = "full"

    def __post_init__(self) -> None:
        for name in ("image_size", "batch_size", "eval_batch_size", "val_requests"):
            _positive(f"--loader.{name}", getattr(self, name))
        if not self.changes or not {1, 2}.issuperset(self.changes):
            raise UserError(f"--loader.changes is {self.changes}: give [1], [2] or [1, 2].")
        if self.num_workers < 0:
            raise UserError(f"--loader.num_workers is {self.num_workers}: give 0 or more.")


@dataclass(frozen=True)
class EvaluationConfig:
    """What is asked of the trained method.

    Args:
        gallery: images of the test split to search, None for all.
        requests: requests per protocol.
        protocols: names under ``benchmarks/protocols``.
        also: further ones, which are left out without a word where the data cannot answer them.
        index: what the gallery is searched with, see ``fm_bench.retrieval.openers``.
        shrink: let protocols of papers, which otherwise say exactly how much is searched and asked, shrink to
            ``gallery``, ``requests`` and what the data hold. The row says so.
    """

    gallery: int | None = None
    requests: int = 1500
    protocols: list[str] = field(default_factory=lambda: ["manipulate-1", "manipulate-2", "search"])
    also: list[str] = field(default_factory=list)
    index: str = EXACT
    shrink: bool = False

    def __post_init__(self) -> None:
        for name in ("gallery", "requests"):
            _positive(f"--evaluation.{name}", getattr(self, name))
        if self.index.startswith(MILVUS) and re.search(r"://.*@", self.index):  # before it is written anywhere
            raise UserError(
                "--index names Milvus with a user or password in its address: leave them out, and put user:password "
                "or the token into the environment variable MILVUS_TOKEN."
            )
        for name in self.every:
            protocol = load("protocols", name)
            counts = "in galleries of many sizes" if protocol.get("sweep") else "the rank of one designated image"
            if (protocol.get("sweep") or protocol.get("mrr_item")) and self.index != EXACT:
                raise UserError(
                    f"protocol {name!r} counts {counts}, which only exact search can: "
                    f"leave out the protocol, or --index {self.index}."
                )
        if not self.protocols:
            raise UserError("--evaluation.protocols is empty: name at least one, see `fm-bench list protocols`.")

    @property
    def index_name(self) -> str:
        """``index``; of Milvus ``milvus/HNSW`` or ``milvus-lite/HNSW``, without the place, which changes no number.

        Those two are not the same: milvus-lite builds indexes with settings of its own.
        """
        place = milvus_place(self.index)
        if place is None:
            return self.index
        return f"{MILVUS if '://' in place.uri else f'{MILVUS}-lite'}/{place.kind}"

    @property
    def every(self) -> list[str]:
        """``protocols`` and ``also``, each once."""
        return list(dict.fromkeys([*self.protocols, *self.also]))


def _positive(what: str, number: int | None) -> None:
    """Raises UserError unless ``number`` is 1 or more, or not given."""
    if number is not None and number < 1:
        raise UserError(f"{what} is {number}: give 1 or more.")


def split_method(spec: str) -> tuple[str, str]:
    """``amnet/no-memory`` to ``("amnet", "no-memory")``; the variant is empty where none is named, or the ``default``.

    Raises:
        UserError: if the method or the variant does not exist.
    """
    method, _, variant = spec.partition("/")
    variants = load("methods", method).get("variants", {}) if method in names("methods") else None
    if variants is None:
        raise unknown("method", method, names("methods"))
    if variant and variant == load("methods", method).get("default"):
        return method, ""
    if variant and variant not in variants:
        known = sorted(f"{method}/{name}" for name in variants)
        if not known:
            raise UserError(f"method {method!r} has no variant {variant!r}: it has none at all.")
        raise unknown("method", spec, [method, *known])
    return method, variant


def defaults(method: str, variant: str, data: str, profile: str, mode: str) -> dict[str, Any]:
    """All recipes of a run merged: keys ``budget method loader evaluation trainer data stages``.

    Raises:
        UserError: if a name is unknown or the method has no such mode.
    """
    base, of_data, of_method = load("profiles", profile), load("data", data), load("methods", method)
    merged: dict[str, Any] = {key: {} for key in ("method", "loader", "evaluation", "trainer", "data", "stages")}
    merged = merge(merged, {key: value for key, value in base.items() if key not in ("description", "data")})
    sizes = base.get("data") or {}
    merged = merge(merged, {"data": sizes.get(data, sizes.get(reader_name(data))) or {}})
    merged = merge(merged, {key: value for key, value in of_data.items() if key not in ("description", "reader")})
    parts = [of_method]
    of_variant = of_method["variants"][variant] if variant else {}
    parts.append(of_variant)
    if mode != "common":
        modes = of_method.get("modes", {})
        if mode not in modes:
            raise unknown("mode", mode, ["common", *modes])
        parts.append(modes[mode])  # after the variant, whose rates are tuned for common mode
        parts.append(of_variant.get("modes", {}).get(mode, {}))  # what makes the variant what it is in that mode, too
    for part in parts:
        merged = merge(
            merged, {key: part[key] for key in ("method", "stages", "loader", "data", "evaluation") if key in part}
        )
    return merged


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``over`` on top, dictionaries merged key by key, everything else replaced."""
    merged = dict(base)
    for key, value in over.items():
        mine = merged.get(key)
        merged[key] = merge(mine, value) if isinstance(mine, Mapping) and isinstance(value, Mapping) else value
    return merged
