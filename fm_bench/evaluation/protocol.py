# SPDX-License-Identifier: MIT
"""What is asked and what is counted: a protocol, read from YAML."""

from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from fm_bench.errors import UserError, unknown
from fm_bench.files import digest

Hit = Literal["attributes", "instance"]
Missing = Literal["query_labelled", "strict_equal"]


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

    def __post_init__(self) -> None:
        if self.changes not in (0, 1, 2):
            raise UserError(
                f"protocol {self.name!r} changes {self.changes!r} attributes, but only 0, 1 or 2 can be asked."
            )
        for field, known in (("hit", get_args(Hit)), ("missing", get_args(Missing))):
            if getattr(self, field) not in known:
                raise unknown(f"protocol {self.name!r}: {field}", str(getattr(self, field)), known)
        for field in ("k", "ndcg", "mrr"):
            object.__setattr__(self, field, cutoffs(getattr(self, field), f"protocol {self.name!r}: {field}"))
        if not self.k and not self.ndcg:
            raise UserError(f"protocol {self.name!r} counts nothing: give k or ndcg.")
        if not isinstance(self.cap, int) or self.cap < 1:
            raise UserError(f"protocol {self.name!r} has cap {self.cap!r}, but at least 1 request per image is needed.")

    @property
    def depth(self) -> int:
        """Images that must be ranked for accuracy and NDCG."""
        return max(self.k + self.ndcg)

    @cached_property
    def digest(self) -> str:
        """Changes with whatever can change a number; not with the description."""
        content = asdict(self)
        del content["description"]
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
