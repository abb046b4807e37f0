# SPDX-License-Identifier: MIT
"""Schemas, one-hot codes, indicators, edited labels and label codes."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fm_bench.attributes import AttributeSchema
from fm_bench.errors import UserError

SCHEMA = AttributeSchema(
    ("colour", "sleeve", "fit"), (("red", "blue", "green"), ("long", "short"), ("slim", "loose", "boxy", "tight"))
)


def test_sizes_offsets_and_positions() -> None:
    assert SCHEMA.sizes == (3, 2, 4)
    assert SCHEMA.offsets == (0, 3, 5, 9)
    assert (SCHEMA.num_attributes, SCHEMA.num_values) == (3, 9)
    assert SCHEMA.attribute("sleeve") == 1
    assert SCHEMA.value("fit", "boxy") == SCHEMA.value(2, "boxy") == 2


@pytest.mark.parametrize(
    ("names", "values", "found"),
    [
        ((), (), "0 attribute names"),
        (("a", "b"), (("x",),), "2 attribute names came with 1"),
        (("a", "a"), (("x",), ("y",)), "given twice"),
        (("a",), ((),), "no value left"),
        (("a",), (("x", "x"),), "names a value twice"),
    ],
)
def test_impossible_schemas_are_refused(
    names: tuple[str, ...], values: tuple[tuple[str, ...], ...], found: str
) -> None:
    with pytest.raises(UserError, match=found):
        AttributeSchema(names, values)


def test_unknown_names_come_with_the_nearest_ones() -> None:
    with pytest.raises(UserError, match="attribute 'color' is not known: did you mean colour"):
        SCHEMA.attribute("color")
    with pytest.raises(UserError, match="value of 'colour' 'bleu' is not known: did you mean blue"):
        SCHEMA.indicator([("colour", "bleu")])


def test_dictionary_round_trip_keeps_order() -> None:
    turned = AttributeSchema(SCHEMA.names[::-1], SCHEMA.values[::-1])
    assert AttributeSchema.from_dict(SCHEMA.to_dict()) == SCHEMA
    assert AttributeSchema.from_dict(turned.to_dict()) == turned


def test_digest_changes_with_names_and_with_order() -> None:
    turned = AttributeSchema(SCHEMA.names[::-1], SCHEMA.values[::-1])
    values = AttributeSchema(SCHEMA.names, (("blue", "red", "green"), *SCHEMA.values[1:]))
    assert len({SCHEMA.digest, turned.digest, values.digest}) == 3
    assert SCHEMA.digest == AttributeSchema.from_dict(SCHEMA.to_dict()).digest


def test_one_hot_leaves_missing_blocks_at_zero() -> None:
    code = SCHEMA.one_hot(torch.tensor([[1, -1, 3], [0, 1, 0]]))
    assert code.tolist() == [[0, 1, 0, 0, 0, 0, 0, 0, 1], [1, 0, 0, 0, 1, 1, 0, 0, 0]]
    assert SCHEMA.one_hot(torch.full((2, 4, 3), -1)).shape == (2, 4, 9)
    assert SCHEMA.one_hot(torch.empty(0, 3)).shape == (0, 9)


def test_indicator_marks_wanted_values_by_name_or_position() -> None:
    by_name = SCHEMA.indicator([("colour", "green"), ("fit", "tight")])
    assert by_name.tolist() == [0, 0, 1, 0, 0, 0, 0, 0, 1]
    assert torch.equal(SCHEMA.indicator([(0, 2), (np.int64(2), np.int16(3))]), by_name)
    assert SCHEMA.indicator([]).sum() == 0


@pytest.mark.parametrize("change", [(0, 3), (1, -1), (3, 0), (-1, 0)])
def test_indicator_refuses_positions_that_would_hit_another_attribute(change: tuple[int, int]) -> None:
    with pytest.raises(IndexError):
        SCHEMA.indicator([change])


def test_edit_replaces_only_what_is_asked() -> None:
    """AMNet's invariant 10: y = (2, 0, 5), request (1, 3) gives (2, 3, 5)."""
    schema = AttributeSchema(("a", "b", "c"), tuple(tuple(f"{m}{i}" for i in range(6)) for m in "abc"))
    labels = torch.tensor([[2, 0, 5], [2, -1, -1]])
    edited = schema.edit(labels, torch.stack([schema.indicator([(1, 3)]), schema.indicator([(1, 0), (0, 0)])]))
    assert edited.tolist() == [[2, 3, 5], [0, 0, -1]]
    assert torch.equal(schema.edit(labels, torch.zeros(2, schema.num_values)), labels)
    assert edited.dtype == labels.dtype


@given(st.lists(st.tuples(st.integers(-1, 2), st.integers(-1, 1), st.integers(-1, 3)), max_size=20))
def test_codes_are_equal_exactly_where_label_vectors_are(rows: list[tuple[int, int, int]]) -> None:
    codes = SCHEMA.codes(np.array(rows, dtype=np.int16).reshape(-1, 3))
    assert codes.dtype == np.int64
    for i, one in enumerate(rows):
        for j, other in enumerate(rows):
            assert (codes[i] == codes[j]) == (one == other)


def test_codes_refuse_to_overflow() -> None:
    wide = AttributeSchema(tuple(f"a{i}" for i in range(64)), (("x", "y"),) * 64)
    with pytest.raises(ValueError, match="64 attributes"):
        wide.codes(np.zeros((1, 64), dtype=np.int16))
