# SPDX-License-Identifier: MIT
"""What the papers claim, as tables of orders between methods of this benchmark, one module for each paper."""

from fm_bench.leaderboard.papers import amgan, amnet, darn, fashionsearchnet, flam
from fm_bench.leaderboard.papers.claim import Claim, Measure

__all__ = ["CLAIMS", "Claim", "Measure"]

CLAIMS: tuple[Claim, ...] = (
    *amnet.CLAIMS,
    *fashionsearchnet.CLAIMS,
    *darn.CLAIMS,
    *flam.CLAIMS,
    *amgan.CLAIMS,
)
"""Every claim that the methods of this benchmark can be asked about, in the order of the page."""
