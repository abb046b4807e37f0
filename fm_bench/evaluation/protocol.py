# SPDX-License-Identifier: MIT
"""What is asked and what is counted: a protocol, read from YAML."""

import itertools
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from fm_bench.errors import UserError, unknown
from fm_bench.files import digest

Hit = Literal["attributes", "instance"]
Missing = Literal["query_labelled", "strict_equal"]
Queries = Literal["gallery", "street"]
Kind = Literal["retrieval", "detection", "classification", "generation", "latency"]
_LATER = frozenset({"queries", "sweep", "success", "regions", "kind", "iou"})  # newer than the first records


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
        cap: requests per query image, at most.
        missing: ``query_labelled`` compares the labelled attributes of the target, and a missing label of a gallery
            image matches nothing; ``strict_equal`` compares all attributes, and missing equals missing.
        exclude_query: whether the query's own image is left out of its ranking.
        description: one line for people.
        queries: whose pictures ask: those of the ``gallery``'s own domain, or ``street`` photographs of its items.
        sweep: ascending shares of the gallery, the last 1, that are searched beside the whole (``sweep.py``).
        success: cut-offs of ``success@k``, the share of hits among the first k.
        regions: whether a request speaks of one region of the garment ("sleeves in green").
        kind: ``retrieval`` ranks a gallery. Others look at something else, see ``fm_bench.outcomes``.
        iou: overlap from which a detected box counts as found.

    Raises:
        UserError: if a field has an impossible value.
    """

    name: str
    changes: int
    hit: Hit = "attributes"
    k: tuple[int, ...] = (1, 5, 10, 20, 30, 50)
    ndcg: tuple[int, ...] = (10, 20)
    mrr: tuple[int, ...] = (1000,)
    cap: int = 4
    missing: Missing = "query_labelled"
    exclude_query: bool = True
    description: str = ""
    queries: Queries = "gallery"
    sweep: tuple[float, ...] = ()
    success: tuple[int, ...] = ()
    regions: bool = False
    kind: Kind = "retrieval"
    iou: float = 0.7

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
        for field in ("k", "ndcg", "mrr", "success"):
            object.__setattr__(self, field, cutoffs(getattr(self, field), f"protocol {self.name!r}: {field}"))
        if self.kind == "retrieval" and not (self.k or self.ndcg or self.success):
            raise UserError(f"protocol {self.name!r} counts nothing: give k, ndcg or success.")
        if not isinstance(self.cap, int) or self.cap < 1:
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

    @property
    def depth(self) -> int:
        """Images that must be ranked for accuracy, NDCG and success."""
        return max(self.k + self.ndcg + self.success)

    @cached_property
    def digest(self) -> str:
        """Changes with whatever can change a number; not with the description."""
        content = asdict(self)
        del content["description"]
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
