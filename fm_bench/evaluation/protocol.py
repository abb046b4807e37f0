# SPDX-License-Identifier: MIT
"""What is asked and what is counted: a protocol, read from YAML."""

import itertools
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from fm_bench.data.sample import Sample
from fm_bench.errors import UserError, unknown
from fm_bench.files import digest

Hit = Literal["attributes", "instance"]
Missing = Literal["query_labelled", "strict_equal"]
Queries = Literal["gallery", "street", "apart"]
Asked = int | Literal["all", "published"] | None
Kind = Literal["retrieval", "detection", "classification", "generation", "latency"]
_LATER = frozenset(  # newer than the first records
    {"queries", "sweep", "success", "regions", "kind", "iou", "requests", "asked", "one_change", "mrr_item", "like"}
)
_WORDS = ("description", "paper", "headline")  # for people, and of no influence on a number


@dataclass(frozen=True)
class Protocol:
    """One way to ask and to count.

    Args:
        name: as it stands in tables.
        changes: attributes that each request changes: 0 (search), 1 or 2.
        hit: what counts as found: every labelled attribute of the target (``attributes``) or the item (``instance``).
        k: cut-offs of ``accuracy@k``.
        ndcg: cut-offs of ``ndcg@k`` and ``ndcg_ones@k``.
        mrr: cut-offs of ``mrr@k``; they may exceed the gallery.
        cap: requests per query image, at most; None for every feasible one.
        missing: ``query_labelled`` compares the labelled attributes of the target, and a missing label of a gallery
            image matches nothing; ``strict_equal`` compares all attributes, and missing equals missing.
        exclude_query: whether the query's own image is left out of its ranking.
        description: one line for people.
        queries: whose pictures ask: those of the ``gallery``, as far as they are of the test split; ``street``
            photographs of its items; or those that are kept ``apart`` and never searched (``Dataset.queries``).
        sweep: ascending shares of the gallery, the last 1, that are searched beside the whole (``sweep.py``).
        success: cut-offs of ``success@k``, the share of hits among the first k.
        regions: whether a request speaks of one region of the garment ("sleeves in green").
        kind: ``retrieval`` ranks a gallery. Others look at something else, see ``fm_bench.outcomes``.
        iou: overlap from which a detected box counts as found.
        requests: exactly how many, ``all`` feasible ones, or those that are ``published`` with the data; None for as
            many as the run's configuration says.
        asked: the attributes that may be changed, in plain words (``sample.role``); empty for all.
        one_change: where ``changes`` is 2, the share of requests that change one attribute only. Each picture is asked
            about once then.
        mrr_item: cut-offs of ``mrr_item@k``, where one designated image among those that fit counts alone.
        sample: the pictures that a paper's protocol is about; None for whatever data the run is on.
        like: names of protocols whose sample it shares, that of the first which is defined on the data of the run.
        paper: where the protocol is from, for people.
        headline: the metric that ranks rows, for people; empty for the usual one.

    Raises:
        UserError: if a field has an impossible value.
    """

    name: str
    changes: int
    hit: Hit = "attributes"
    k: tuple[int, ...] = (1, 5, 10, 20, 30, 50)
    ndcg: tuple[int, ...] = (10, 20)
    mrr: tuple[int, ...] = (1000,)
    cap: int | None = 4
    missing: Missing = "query_labelled"
    exclude_query: bool = True
    description: str = ""
    queries: Queries = "gallery"
    sweep: tuple[float, ...] = ()
    success: tuple[int, ...] = ()
    regions: bool = False
    kind: Kind = "retrieval"
    iou: float = 0.7
    requests: Asked = None
    asked: tuple[str, ...] = ()
    one_change: float = 0.0
    mrr_item: tuple[int, ...] = ()
    sample: Sample | None = None
    like: tuple[str, ...] = ()
    paper: str = ""
    headline: str = ""

    def __post_init__(self) -> None:
        if self.changes not in (0, 1, 2):
            raise UserError(
                f"protocol {self.name!r} changes {self.changes!r} attributes, but only 0, 1 or 2 can be asked."
            )
        if self.hit == "instance" and self.changes:
            raise UserError(
                f"protocol {self.name!r} looks for the very same item and changes {self.changes} attributes: "
                "an item keeps its attributes, so let it change 0."
            )
        for field, choice in (("hit", Hit), ("missing", Missing), ("queries", Queries), ("kind", Kind)):
            if getattr(self, field) not in (known := get_args(choice)):
                raise unknown(f"protocol {self.name!r}: {field}", str(getattr(self, field)), known)
        for field in ("k", "ndcg", "mrr", "success", "mrr_item"):
            object.__setattr__(self, field, cutoffs(getattr(self, field), f"protocol {self.name!r}: {field}"))
        if self.kind == "retrieval" and not (self.k or self.ndcg or self.success):
            raise UserError(f"protocol {self.name!r} counts nothing: give k, ndcg or success.")
        if self.cap is not None and (not isinstance(self.cap, int) or self.cap < 1):
            raise UserError(f"protocol {self.name!r} has cap {self.cap!r}, but at least 1 request per image is needed.")
        object.__setattr__(self, "sweep", _shares(self.sweep, f"protocol {self.name!r}: sweep"))
        if not isinstance(self.regions, bool) or (self.regions and not self.changes):
            raise UserError(
                f"protocol {self.name!r} has regions {self.regions!r} and changes {self.changes} attributes, but "
                "regions is true or false, and a request that speaks of a region changes 1 or 2 attributes."
            )
        if not _is_number(self.iou) or not 0 < self.iou <= 1:
            raise UserError(
                f"protocol {self.name!r} has iou {self.iou!r}, but an overlap above 0 and up to 1 is needed."
            )
        self._check_exact()

    def _check_exact(self) -> None:
        """What the protocols of the papers say beside."""
        for field in ("asked", "like"):
            given = getattr(self, field)
            if not isinstance(given, list | tuple) or not all(isinstance(name, str) for name in given):
                raise UserError(f"protocol {self.name!r} has {field} {given!r}: give a list of names.")
            object.__setattr__(self, field, tuple(given))
        number = isinstance(self.requests, int) and not isinstance(self.requests, bool)
        if not (self.requests in (None, "all", "published") or (number and int(self.requests) > 0)):
            raise UserError(
                f"protocol {self.name!r} has requests {self.requests!r}: give a number from 1 up, all, or published."
            )
        if not _is_number(self.one_change) or not 0 <= self.one_change < 1:
            raise UserError(f"protocol {self.name!r} has one_change {self.one_change!r}: give a share below 1.")
        if self.one_change and (self.changes, self.cap) != (2, 1):
            raise UserError(
                f"protocol {self.name!r} mixes requests of one and two changes, one of each picture: "
                "let it say changes: 2 and cap: 1."
            )
        if self.mrr_item and self.hit != "attributes":
            raise UserError(f"protocol {self.name!r} designates an image that fits: let its hit be attributes.")
        if self.like and self.sample is not None:
            raise UserError(f"protocol {self.name!r} has a sample of its own and is like others: give one of the two.")

    @property
    def exact(self) -> bool:
        """Whether it says itself which pictures it is about, as the protocols of papers do."""
        return self.sample is not None or bool(self.like)

    def within(self, images: int) -> "Protocol":
        """The protocol with cut-offs of at most ``images``, for galleries that are smaller than it was made for."""

        def cut(values: tuple[int, ...]) -> tuple[int, ...]:
            return tuple(sorted({min(k, images) for k in values}))

        if self.depth <= images:
            return self
        return replace(self, k=cut(self.k), ndcg=cut(self.ndcg), success=cut(self.success))

    @property
    def depth(self) -> int:
        """Images that must be ranked for accuracy, NDCG and success."""
        return max(self.k + self.ndcg + self.success, default=0)

    @cached_property
    def digest(self) -> str:
        """Changes with whatever can change a number; not with words for people."""
        content = asdict(self)
        del content["sample"]
        if self.sample is not None:
            content["sample"] = self.sample.content
        for word in _WORDS:
            del content[word]
        for field in fields(self):
            if field.name in _LATER and content[field.name] == field.default:
                del content[field.name]  # so that protocols which do not use it keep the digest of their records
        return digest(content)

    @classmethod
    def from_yaml(cls, path: Path) -> "Protocol":
        """Reads a protocol; the file's name without suffix is its name unless it gives another.

        Raises:
            UserError: if the file is missing, not a mapping, or holds an unknown field or an impossible value.
        """
        try:
            content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise UserError(f"{path} could not be read as a protocol ({error}): give a YAML file.") from error
        if not isinstance(content, dict):
            raise UserError(f"{path} is not a protocol: it must hold fields such as `changes: 1`.")
        content.setdefault("name", Path(path).stem)
        known = [field.name for field in fields(cls)]
        for name in content:
            if name not in known:
                raise unknown(f"{path}: field", str(name), known)
        if "sample" in content:
            content["sample"] = Sample.of(content["sample"], f"{path}: sample")
        if "changes" not in content:
            raise UserError(f"{path} does not say how many attributes a request changes: add `changes: 0`, 1 or 2.")
        try:
            return cls(**content)
        except TypeError as error:
            raise UserError(f"{path} is not a protocol: {error}.") from error


def cutoffs(values: Any, where: str) -> tuple[int, ...]:
    """``values`` as ascending cut-offs. Raises UserError unless they are different whole numbers from 1 up."""
    given = list(values) if isinstance(values, list | tuple) else [values]
    if any(isinstance(k, bool) or not isinstance(k, int) or k < 1 for k in given):
        raise UserError(f"{where} is {values!r}, but cut-offs are whole numbers from 1 up.")
    if len(set(given)) != len(given):
        raise UserError(f"{where} names a cut-off twice: {given}.")
    return tuple(sorted(given))


def _shares(values: Any, where: str) -> tuple[float, ...]:
    """``values`` as shares of a gallery. Raises UserError unless they grow from above 0 to 1, two at least."""
    given = list(values) if isinstance(values, list | tuple) else [values]
    if not given:
        return ()
    fine = len(given) > 1 and all(_is_number(share) for share in given) and given[0] > 0 and given[-1] == 1
    if not fine or any(small >= large for small, large in itertools.pairwise(given)):
        raise UserError(
            f"{where} is {values!r}, but ascending shares of the gallery are needed, such as [0.1, 0.5, 1]."
        )
    return tuple(float(share) for share in given)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
