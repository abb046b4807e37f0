# SPDX-License-Identifier: MIT
"""Words beside rows: of methods that a table's requests are not made for, and of those whose settings were searched."""

from typing import NamedTuple

from fm_bench.leaderboard.record import Record


class Tag(NamedTuple):
    """A word beside the rows of some methods in the tables of some protocols.

    Attributes:
        text: the word.
        methods, protocols: where it stands.
        unless: setting of these methods that does away with it.
    """

    text: str
    methods: frozenset[str]
    protocols: frozenset[str]
    unless: str = ""


_TWO = frozenset({"manipulate-2", "amnet_darn_2", "amgan_s100k", "amgan_darn"})
_WISHES = _TWO | {"manipulate-1", "region", "gallery-sweep-1", "amnet_darn_1", "amnet_df_texture", "fsn_s100k_1"}
_WISHES |= {"fsn_df_1", "fsn_region", "flam_darn", "flam_s100k", "adde_m"}
TAGS = (
    Tag(
        "no manipulation",  # the query is searched as it is, whatever is asked
        frozenset({"darn", "dsift-fisher", "pretrained"}),
        _WISHES,
        unless="substitute",
    ),
    # their papers change one attribute
    Tag("extension", frozenset({"fashionsearchnet", "flam", "cls-concat", "emb-concat"}), _TWO),
)


def tags_of(run: Record, protocol: str) -> tuple[str, ...]:
    """What must be known to read the row of ``run`` in a table of ``protocol``."""
    hyper = run.config.get("hyper", {})
    fitting = tuple(
        tag.text
        for tag in TAGS
        if run.method in tag.methods and protocol in tag.protocols and not (tag.unless and hyper.get(tag.unless))
    )
    return fitting + ((f"tuned: {spent}",) if (spent := search_of(run)) else ())


def search_of(run: Record) -> str:
    """What the search for the settings of ``run`` spent: ``20 trials of 90,000 images``; empty without a search."""
    if not run.tuning:
        return ""
    trials = len(run.tuning["trials"])
    return f"{trials} trial{'s' if trials != 1 else ''} of {run.tuning['images']:,} images"
