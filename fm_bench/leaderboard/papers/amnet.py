# SPDX-License-Identifier: MIT
"""What Zhao et al. (CVPR 2017) claim of AMNet."""

import functools

from fm_bench.leaderboard.papers.claim import AMNET, Claim

_amnet = functools.partial(Claim, source=AMNET)
_amnet_growing = functools.partial(_amnet, protocol="gallery-sweep-1", lower=True)

CLAIMS = (
    _amnet(
        "H1",
        "The memory helps",
        "amnet",
        "amnet/no-memory",
        "accuracy@20",
        "DARN .545 vs .230; DeepFashion .338 vs .208",
    ),
    _amnet(
        "H2",
        "The ranking loss helps",
        "amnet",
        "amnet/no-ranking",
        "accuracy@20",
        "DARN .545 vs .316; DeepFashion .338 vs .266",
    ),
    # The loss without memory minus the loss without ranking is (X - no-memory) - (X - no-ranking): X cancels.
    _amnet(
        "H3",
        "Removing the memory costs more than removing the ranking loss",
        "amnet/no-ranking",
        "amnet/no-memory",
        "accuracy@20",
        "DARN .316 vs .230; DeepFashion .266 vs .208",
    ),
    _amnet(
        "H3",
        "Removing the memory costs more than removing the ranking loss",
        "amnet/no-ranking",
        "amnet/no-memory",
        "ndcg@20",
        "DARN .32 vs .23; DeepFashion .28 vs .23",
    ),
    _amnet(
        "H4",
        "Requests that change two attributes are harder than those that change one",
        "amnet",
        "amnet",
        "accuracy@20",
        "DARN .545 vs .464",
        protocol_y="manipulate-2",
    ),
    _amnet(
        "H4",
        "Requests that change two attributes are harder than those that change one",
        "amnet",
        "amnet",
        "ndcg@20",
        "DARN .46 vs .41",
        protocol_y="manipulate-2",
    ),
    _amnet(
        "AMN-07",
        "AMNet beats retrieval by classified attributes",
        "amnet",
        "attribute-based",
        "accuracy@20",
        "DARN .545 vs a lower curve without a printed value",
    ),
    _amnet(
        "AMN-10",
        "AMNet beats retrieval by classified attributes",
        "amnet",
        "attribute-based",
        "ndcg@20",
        "DARN .46 vs .33",
    ),
    _amnet_growing(
        "AMN-19",
        "A growing gallery hurts retrieval by classified attributes less",
        "attribute-based",
        "amnet",
        "increment_ratio@20",
        "DARN .330 vs .374 (DeepFashion the reverse, .558 vs .550)",
    ),
    _amnet_growing(
        "AMN-20",
        "Without memory a growing gallery hurts more",
        "amnet",
        "amnet/no-memory",
        "increment_ratio@20",
        "DARN .374 vs .589; DeepFashion .550 vs .743",
    ),
    _amnet_growing(
        "AMN-21",
        "Without the ranking loss a growing gallery hurts more than without memory",
        "amnet/no-memory",
        "amnet/no-ranking",
        "increment_ratio@20",
        "DARN .589 vs .994; DeepFashion .743 vs .745",
    ),
)
