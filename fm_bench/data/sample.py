# SPDX-License-Identifier: MIT
"""The pictures of a paper's protocol: so many are searched, so many others ask, and the rest trains.

What is drawn depends on the pictures' names alone, so that every method, seed and machine draws the same. Pictures of
one item, and files that are byte-identical, are all trained on or all held out.
"""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from fm_bench.attributes import MISSING, AttributeSchema
from fm_bench.catalog import Catalog, Dataset, Domain, Split, gallery_of
from fm_bench.data.folds import lots, together
from fm_bench.errors import UserError, unknown

VALIDATION = 0.05
"""Share of what is neither searched nor asked with that validates; the papers, AMGAN's apart, name none."""

_Split = Literal["own", "drawn", "folds"]
_SHRUNK = 0.5  # of the pictures there are, what is held out at most where sizes shrink
_ANOTHER = "this is not the task of the paper"
_CHUNKS = 10  # of a cross-validation
_WORDS = ("data", "read")  # of no influence on a number


@dataclass(frozen=True)
class Sample:
    """Which pictures a paper's protocol is about.

    Args:
        data: names of the data sets that it is defined on; like ``read`` they change no number, and so no digest.
        split: ``own`` takes the data's own split, ``drawn`` draws one, and ``folds`` is a 5-fold cross-validation in
            which all pictures are searched, those of training included.
        gallery: pictures that are searched, no more and no less; None for whatever the data hold.
        queries: pictures that ask and are not searched; None where those that are searched ask, or for whatever the
            data's authors ask with.
        street: the pictures that ask are street photos of as many different items that are searched.
        attributes: what they are about, in plain words (``color`` finds "clothes colour"); the others are left out,
            and these are called so. Empty for all.
        values: each attribute's most frequent values that are kept; pictures with another one count as unlabelled.
            None for all.
        labelled: pictures that are searched or ask have every attribute labelled.
        read: how the data must be read to fill the sizes, as options of their reader, for people.
        part: what all pictures are of, such as ``tops``, where the data hold other pictures too. Nothing tells them
            apart here: data with more pictures than ``gallery`` are refused.

    Raises:
        UserError: if a field has an impossible value, or two contradict each other.
    """

    data: tuple[str, ...]
    split: _Split = "own"
    gallery: int | None = None
    queries: int | None = None
    street: bool = False
    attributes: tuple[str, ...] = ()
    values: int | None = None
    labelled: bool = False
    part: str = ""
    read: str = ""

    def __post_init__(self) -> None:
        for field in ("data", "attributes"):
            given = getattr(self, field)
            if not isinstance(given, list | tuple) or not all(isinstance(name, str) for name in given):
                raise UserError(f"a protocol's sample has {field} {given!r}: give a list of names.")
            object.__setattr__(self, field, tuple(given))
        if not self.data:
            raise UserError("a protocol's sample names no data: say on which data sets it is defined.")
        if self.split not in (known := get_args(_Split)):
            raise unknown("a protocol's sample: split", str(self.split), known)
        for field in ("gallery", "queries", "values"):
            number = getattr(self, field)
            if number is not None and (isinstance(number, bool) or not isinstance(number, int) or number < 1):
                raise UserError(f"a protocol's sample has {field} {number!r}: give a whole number from 1 up.")
        if self.split != "own" and self.gallery is None:
            raise UserError(f"a protocol's sample is {self.split}, but says not how many pictures are searched.")
        if self.street and (self.split, self.queries is None) != ("drawn", False):
            raise UserError("a protocol's sample draws street photos: say split: drawn, and how many are queries.")
        if self.split == "folds" and self.queries is not None:
            raise UserError("a protocol's sample is of folds, of which a tenth asks: leave queries out.")

    @classmethod
    def of(cls, content: Any, where: str) -> "Sample":
        """From plain YAML. Raises UserError, which begins with ``where``, if that is no sample."""
        if not isinstance(content, dict):
            raise UserError(f"{where} is {content!r}: give fields such as `data: [darn]`.")
        known = [field.name for field in fields(cls)]
        for name in content:
            if name not in known:
                raise unknown(f"{where}: field", str(name), known)
        if "data" not in content:
            raise UserError(f"{where} names no data: say on which data sets it is defined.")
        return cls(**content)

    @property
    def content(self) -> dict[str, Any]:
        """What can change a number, and is not as usual."""
        plain = asdict(self)
        return {f.name: plain[f.name] for f in fields(self) if f.name not in _WORDS and plain[f.name] != f.default}

    def sizes(self) -> str:
        """How many pictures it takes, in words; empty where it takes whatever there is."""
        if self.split == "folds":
            what = self.part or "images"
            return f"{self.gallery:,} {what}, all of them searched, a tenth asks in each of 5 folds (--folds 5)"
        searched = f"{self.gallery:,} images searched" if self.gallery else ""
        kind = "street photos ask" if self.street else "others ask" if self.gallery else "ask"
        asking = f"{self.queries:,} {kind}" if self.queries else "each of them asks" if self.split == "drawn" else ""
        return ", ".join(part for part in (searched, asking) if part)


class Room(NamedTuple):
    """What a run that may shrink a sample has room for: at most so many pictures searched, and so many that ask."""

    gallery: int | None
    queries: int


def sampled(dataset: Dataset, sample: Sample, protocol: str, data: str, room: Room | None = None) -> Dataset:
    """The data set as a protocol needs it: its attributes, its split, and exactly what is searched and asked with.

    Args:
        dataset: as a reader gives it.
        sample: which pictures there must be.
        protocol: its name, for messages.
        data: name of the data, for messages.
        room: where given, the sample shrinks to it and to half of what the data hold, and a note says so. Otherwise it
            is as large as in the paper.

    Raises:
        UserError: if the data do not hold what is needed.
    """
    dataset = _described(dataset, sample)
    whose = _Whose(protocol, data)
    if sample.split == "own":
        return _counted(dataset, sample, whose, room)
    if sample.split == "folds":
        return _everything(dataset, sample, whose, room)
    return _drawn(dataset, sample, whose, room)


class _Whose(NamedTuple):
    protocol: str
    data: str

    def lacks(self, sample: Sample, found: str) -> UserError:
        read = f", read them with {sample.read}" if sample.read else ""
        return UserError(
            f"{self.protocol} needs {sample.sizes()}, but {self.data} holds {found}: a smaller sample is another task, "
            f"so get all of the data (docs/data/{self.data}.md){read}, or try it out with --profile smoke."
        )

    def shrunk(self, sample: Sample, gallery: int, queries: int | None) -> str:
        asking = "" if queries is None else f" and {queries:,} queries"
        return f"shrunk: {gallery:,} images{asking} instead of {sample.sizes()}; {_ANOTHER}"


# ------------------------------------------------------------------------------------------------- attributes


def role(schema: AttributeSchema, name: str) -> int:
    """The attribute that ``name`` means: the one called so, or the only one that has it among its words.

    Raises:
        UserError: if there is none, or several.
    """
    words = [set(re.findall(r"[a-z0-9]+", each.lower().replace("colour", "color"))) for each in schema.names]
    wanted = set(re.findall(r"[a-z0-9]+", name.lower().replace("colour", "color")))
    exact = [m for m, have in enumerate(words) if have == wanted]
    found = exact or [m for m, have in enumerate(words) if wanted <= have]
    if len(found) != 1:
        told = "several" if found else "none"
        raise UserError(
            f"the protocol asks for the attribute {name!r}, but of {', '.join(schema.names)} {told} can be meant: "
            "read the data with one attribute of this name."
        )
    return found[0]


def _described(dataset: Dataset, sample: Sample) -> Dataset:
    """The data set with the sample's attributes and values alone."""
    catalog = dataset.catalog
    chosen = [role(catalog.schema, name) for name in sample.attributes]
    if not chosen and sample.values is None:
        return dataset
    names: Sequence[str] = sample.attributes
    if not chosen:
        names, chosen = catalog.schema.names, list(range(catalog.schema.num_attributes))
    labels, values = catalog.labels[:, chosen].copy(), []
    for column, m in zip(labels.T, chosen, strict=True):
        kept = most_frequent(column, catalog.schema.sizes[m], sample.values)
        number = np.full(catalog.schema.sizes[m] + 1, MISSING, dtype=np.int16)  # the last entry serves MISSING
        number[kept] = np.arange(len(kept))
        column[:] = number[column]
        values.append(tuple(catalog.schema.values[m][value] for value in kept))
    schema = AttributeSchema(tuple(names), tuple(values))
    changed = Catalog(schema, catalog.image, labels, catalog.item, catalog.split, catalog.domain, catalog.box)
    return dataset._replace(catalog=changed, regions=None, requests=None)  # both speak of the attributes as they were


def most_frequent(labels: NDArray[np.int16], size: int, number: int | None) -> NDArray[np.int64]:
    """The ``number`` most frequent of ``size`` values in ``labels (N,)``, ascending; of equals the first ones."""
    if number is None or number >= size:
        return np.arange(size)
    count = np.bincount(labels[labels != MISSING], minlength=size)
    return np.sort(np.argsort(-count, kind="stable")[:number])


# ------------------------------------------------------------------------------------------------- pictures


def _counted(dataset: Dataset, sample: Sample, whose: _Whose, room: Room | None) -> Dataset:
    """The data's own split, if it is as large as the paper's. What shrinks is left to the gallery's size of the run."""
    gallery, queries = gallery_of(dataset), 0 if dataset.queries is None else len(dataset.queries)
    found = f"{len(gallery):,} images to search" + (f" and {queries:,} that ask" if sample.queries else "")
    whole = (sample.gallery or len(gallery), sample.queries or queries) == (len(gallery), queries)
    if not whole and room is None:
        raise whose.lacks(sample, found)
    if room is not None and (not whole or len(gallery) > (room.gallery or len(gallery))):
        told = f", and not {sample.sizes()}" if not whole else ""
        return _noted(dataset, f"shrunk: of {found}{told}, a run has no more than it has room for; {_ANOTHER}")
    return dataset._replace(searched=gallery)


def _everything(dataset: Dataset, sample: Sample, whose: _Whose, room: Room | None) -> Dataset:
    """Shop photos, as many as the sample has, for a cross-validation in which all of them are searched."""
    catalog, wanted = dataset.catalog, sample.gallery or 0
    shop = np.flatnonzero(catalog.domain == Domain.SHOP)
    if sample.labelled:
        shop = shop[(catalog.labels[shop] != MISSING).all(axis=1)]
    if len(shop) < wanted and not room:
        raise whose.lacks(sample, f"{len(shop):,}")
    if len(shop) > wanted and sample.part:
        raise UserError(
            f"{whose.protocol} is about {wanted:,} {sample.part}, but {whose.data} was read with {len(shop):,} shop "
            f"photos: read it with a table of {sample.part} alone (--data.table)."
        )
    size = min(wanted, len(shop), wanted if room is None else _CHUNKS * room.queries)
    kept = np.sort(shop[_shuffled(catalog, shop, "sample")[:size]])
    dataset = select(dataset, kept)
    dataset = dataset._replace(searched=np.arange(size), queries=None, requests=None)
    return dataset if size == wanted else _noted(dataset, whose.shrunk(sample, size, None))


def _drawn(dataset: Dataset, sample: Sample, whose: _Whose, room: Room | None) -> Dataset:
    """A split with exactly so many pictures that are searched, and so many that ask."""
    catalog = dataset.catalog
    group = together(dataset)
    of_lot = np.argsort(np.array(lots("sample", catalog.image, group)))  # groups in the order of the draw
    turn = np.empty(len(of_lot), dtype=np.int64)
    turn[of_lot] = np.arange(len(of_lot))
    pictures = _Pictures(catalog, turn[group], _eligible(catalog, sample))
    available = pictures.pairs() if sample.street else len(pictures.shop)
    gallery, queries = sample.gallery or 0, sample.queries or 0
    if room is not None:
        gallery, queries = _shrink(sample, room, pictures, available)
    needed = (len(pictures.shop) < gallery, available < queries) if sample.street else (available < gallery + queries,)
    if any(needed) or gallery == 0:
        raise whose.lacks(sample, _found(sample, pictures, available))
    taken = pictures.street_sample(gallery, queries) if sample.street else pictures.sample(gallery, queries)
    split = _split(pictures.turn, taken.held_out, VALIDATION if room is None else _SHRUNK)
    if not (split == Split.TRAIN).any():
        raise whose.lacks(sample, f"{len(catalog):,}, so that nothing is left to train on")
    dataset = dataset._replace(
        catalog=replace(catalog, split=split),
        searched=np.sort(taken.searched),
        queries=np.sort(taken.asking) if queries else None,
        requests=None,
    )
    full = (gallery, queries) == (sample.gallery, sample.queries or 0)
    return dataset if full else _noted(dataset, whose.shrunk(sample, gallery, queries if sample.queries else None))


def _eligible(catalog: Catalog, sample: Sample) -> NDArray[np.bool_]:
    return (catalog.labels != MISSING).all(axis=1) if sample.labelled else np.ones(len(catalog), dtype=np.bool_)


def _found(sample: Sample, pictures: "_Pictures", available: int) -> str:
    if sample.street:
        return f"{len(pictures.shop):,} shop photos and {available:,} items with street photos of theirs"
    return f"{available:,} such images" if sample.labelled or sample.values else f"{available:,} shop photos"


def _shrink(sample: Sample, room: Room, pictures: "_Pictures", available: int) -> tuple[int, int]:
    gallery = min(sample.gallery or 0, room.gallery or len(pictures.shop))
    queries = min(sample.queries or 0, room.queries)
    if sample.street:
        return min(gallery, int(_SHRUNK * len(pictures.shop))), max(1, min(queries, int(_SHRUNK * available)))
    share = min(1.0, _SHRUNK * available / (gallery + queries))
    return int(share * gallery), max(1, int(share * queries)) if queries else 0


class _Taken(NamedTuple):
    searched: NDArray[np.int64]  # rows
    asking: NDArray[np.int64]  # rows
    held_out: NDArray[np.bool_]  # (groups,) by turn


class _Pictures:
    """The pictures in the order in which their groups are drawn.

    Args:
        catalog: of all pictures.
        turn: ``(N,)`` when each picture's group is drawn.
        eligible: ``(N,)`` which may be searched or ask.
    """

    def __init__(self, catalog: Catalog, turn: NDArray[np.int64], eligible: NDArray[np.bool_]) -> None:
        self.catalog, self.turn, self.eligible = catalog, turn, eligible
        self.shop = self._of(Domain.SHOP)
        """Rows of shop photos, by turn."""

    def _of(self, domain: Domain) -> NDArray[np.int64]:
        rows = np.flatnonzero(self.eligible & (self.catalog.domain == domain))
        rows = rows[np.argsort(self.catalog.image[rows], kind="stable")]  # whatever the order of the rows
        return rows[np.argsort(self.turn[rows], kind="stable")]

    def pairs(self) -> int:
        """Groups of pictures with both a street and a shop photo of one item."""
        return len(self._asking())

    def _asking(self) -> NDArray[np.int64]:
        """One street photo of every group that has one of an item with a shop photo, by turn."""
        street = self._of(Domain.STREET)
        street = street[np.isin(self.catalog.item[street], self.catalog.item[self.shop])]
        return street[np.unique(self.turn[street], return_index=True)[1]]

    def sample(self, gallery: int, queries: int) -> _Taken:
        """The first groups with ``gallery + queries`` shop photos; which of these ask is drawn among them."""
        rows = self.shop[: gallery + queries]
        rows = rows[_shuffled(self.catalog, rows, "queries")]
        return _Taken(rows[queries:], rows[:queries], self._groups(rows))

    def street_sample(self, gallery: int, queries: int) -> _Taken:
        """The first ``queries`` groups of pairs, and other shop photos up to ``gallery``, by turn."""
        asking = self._asking()[:queries]
        wanted = np.isin(self.turn[self.shop], self.turn[asking])
        searched = np.concatenate((self.shop[wanted], self.shop[~wanted]))[: max(gallery, int(wanted.sum()))]
        return _Taken(searched, asking, self._groups(np.concatenate((searched, asking))))

    def _groups(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        groups = np.zeros(int(self.turn.max()) + 1, dtype=np.bool_)
        groups[self.turn[rows]] = True
        return groups


def _split(turn: NDArray[np.int64], held_out: NDArray[np.bool_], validation: float) -> NDArray[np.int8]:
    """``(N,)`` test for what is held out, validation for this share of the rest, training for what is left."""
    split = np.where(held_out[turn], Split.TEST, Split.TRAIN).astype(np.int8)
    size = np.bincount(turn, minlength=len(held_out)) * ~held_out
    validates = ~held_out & (size.cumsum() <= validation * size.sum())
    split[validates[turn]] = Split.VAL
    return split


def _shuffled(catalog: Catalog, rows: NDArray[np.int64], purpose: str) -> NDArray[np.int64]:
    """An order of ``rows`` that is drawn from the pictures' names."""
    return np.argsort(np.array(lots(purpose, catalog.image[rows], np.arange(len(rows)))))


def select(dataset: Dataset, rows: NDArray[np.int64]) -> Dataset:
    """The data set of the given rows alone, in the given order; its queries and requests go on meaning the same ones.

    Args:
        dataset: whose ``searched``, ``queries`` and ``requests``, as far as they are there, are renumbered; requests on
            other pictures are left out.
        rows: all different.
    """
    place = np.full(len(dataset.catalog), -1, dtype=np.int64)
    place[rows] = np.arange(len(rows))

    def kept(some: NDArray[np.int64] | None) -> NDArray[np.int64] | None:
        return None if some is None else np.sort(place[some][place[some] >= 0])

    requests, regions = dataset.requests, dataset.regions
    if requests is not None:
        chosen = requests.select(np.flatnonzero(place[requests.query] >= 0))
        requests = replace(chosen, query=place[chosen.query])
    return dataset._replace(
        catalog=dataset.catalog.select(rows),
        regions=None if regions is None else regions.select(rows),
        queries=kept(dataset.queries),
        requests=requests,
        searched=kept(dataset.searched),
    )


def _noted(dataset: Dataset, note: str) -> Dataset:
    return dataset._replace(notes=(*dataset.notes, note))
