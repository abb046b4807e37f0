# SPDX-License-Identifier: MIT
"""The one exception for mistakes that a user can mend."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """What was found, where, and what to do, in one sentence.

    The command line prints the message without a traceback and ends with exit status 2.
    """


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """An error for a name that does not exist, with the nearest ones that do.

    Args:
        kind: what the name should have been, e.g. ``"method"``.
        name: what was given.
        known: every valid name.
    """
    known = sorted(known)
    near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"choose one of {', '.join(known)}."
    return UserError(f"{kind} {name!r} is not known: {hint}")
