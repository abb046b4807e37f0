# SPDX-License-Identifier: MIT
"""Errors that name what would have been right."""

from fm_bench.errors import unknown


def test_the_nearest_names_are_offered_whatever_their_case() -> None:
    assert str(unknown("method", "amnte", ["flam", "amnet"])) == "method 'amnte' is not known: did you mean amnet?"
    assert "did you mean XL?" in str(unknown("value of 'size'", "xl", ["S", "XL"]))


def test_without_a_near_name_all_are_listed() -> None:
    assert str(unknown("method", "zzz", ["flam", "amnet"])).endswith("choose one of amnet, flam.")


def test_a_thousand_names_are_not_all_listed() -> None:
    message = str(unknown("value", "?", [f"v{i:04}" for i in range(1050)]))
    assert "and 1030 more." in message
    assert len(message) < 300
