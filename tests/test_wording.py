# SPDX-License-Identifier: MIT
"""Words agree with their numbers."""

import pytest

from fm_bench.wording import counted


@pytest.mark.parametrize(
    ("count", "words", "text"),
    [
        (0, ("image",), "0 images"),
        (1, ("image",), "1 image"),
        (2_000, ("image",), "2,000 images"),
        (1, ("image is", "images are"), "1 image is"),
        (3, ("image is", "images are"), "3 images are"),
    ],
)
def test_words_agree_with_numbers(count: int, words: tuple[str, ...], text: str) -> None:
    assert counted(count, *words) == text
