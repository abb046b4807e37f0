# SPDX-License-Identifier: MIT
"""Words that agree with numbers."""


def form(count: int, one: str, several: str) -> str:
    """The words that agree with ``count``: ``picture is`` for 1, ``pictures are`` for 0."""
    return one if count == 1 else several


def counted(count: int, one: str, several: str | None = None) -> str:
    """The number with them: ``1 picture``, ``2,000 pictures``; ``several`` where that is not ``one`` with an s."""
    return f"{count:,} {form(count, one, several or f'{one}s')}"
