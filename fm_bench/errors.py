# SPDX-License-Identifier: MIT
"""The one exception for mistakes that a user can mend, and the one for pictures that cannot be read."""

import difflib
from collections.abc import Iterable

SHOWN = 20
"""Names listed in one message; DeepFashion has a thousand values."""


class UserError(Exception):
    """What was found, where, and what to do, in one sentence.

    The command line prints the message without a traceback and ends with exit status 2.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


class UnreadableImageError(Exception):
    """One picture cannot be read; the message says what was found there."""


def printable(text: str) -> str:
    """``text`` from elsewhere without what would command a terminal: control characters but line ends show as �."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """An error for a name that does not exist, with the nearest ones that do.

    Args:
        kind: what the name should have been, e.g. ``"method"``.
        name: what was given.
        known: every valid name.
    """
    known = sorted(known)
    folded = {each.casefold(): each for each in known}
    near = [folded[each] for each in difflib.get_close_matches(name.casefold(), folded, n=3, cutoff=0.5)]
    shown = ", ".join(known[:SHOWN]) + (f" and {len(known) - SHOWN} more" if len(known) > SHOWN else "")
    hint = f"did you mean {' or '.join(near)}?" if near else f"choose one of {shown}."
    return UserError(f"{kind} {name!r} is not known: {hint}")
