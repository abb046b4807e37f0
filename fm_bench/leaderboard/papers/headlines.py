# SPDX-License-Identifier: MIT
"""The papers' main claims, each of which one or more comparisons of ``CLAIMS`` test: those whose id begins alike."""

from typing import NamedTuple

from fm_bench.leaderboard.papers.claim import AMGAN, AMNET, DARN, FLAM, FSN


class Headline(NamedTuple):
    """A main claim.

    Attributes:
        id: ``H1`` to ``H15``.
        statement: the claim in words.
        reported: the paper's numbers, on its own data.
        source: the paper.
    """

    id: str
    statement: str
    reported: str
    source: str


HEADLINES = (
    Headline("H1", "AMNet's memory helps", "accuracy@20 on DARN .545 > .230; DeepFashion .338 > .208", AMNET),
    Headline("H2", "AMNet's ranking loss helps", "accuracy@20 on DARN .545 > .316; DeepFashion .338 > .266", AMNET),
    Headline(
        "H3",
        "Without its memory AMNet loses more than without its ranking loss",
        "losses of accuracy@20 on DARN .315 > .229; DeepFashion .130 > .072",
        AMNET,
    ),
    Headline("H4", "Requests that change two attributes are harder", "AMNet's accuracy@20 on DARN .545 > .464", AMNET),
    Headline(
        "H5",
        "FashionSearchNet's attribute activation maps help",
        "accuracy@30 on Shopping100k .566 > .512; DeepFashion .376 > .313",
        FSN,
    ),
    Headline(
        "H6",
        "FashionSearchNet beats AMNet, which beats retrieval by classified attributes",
        "accuracy@30 on Shopping100k .566 > .406 > .216; DeepFashion .376 > .246 > .126",
        FSN,
    ),
    Headline(
        "H7",
        "Region awareness helps requests of a region; plain FashionSearchNet still beats AMNet there",
        "users found .222 > .086 > .012 of them",
        FSN,
    ),
    Headline(
        "H8",
        "Two sub-networks beat one, and so on down to hand-made features",
        "ndcg@20 .494 > .442 > .415 > .370 > .367 > .290",
        DARN,
    ),
    Headline("H9", "Local features of Conv4 and Conv5 help DARN a little", "ndcg@20 .505, .499, .494", DARN),
    Headline(
        "H10",
        "FLAM's sampling, its adversarial loss and matching all attributes help",
        "accuracy@50 on DARN .822 > .802 > .730 > .505; Shopping100k .691 > .685 > .573 > .424",
        FLAM,
    ),
    Headline(
        "H11",
        "FLAM finds the same item best, while Cls-Concat manipulates better",
        "accuracy@1 of the item .095 > .043 > .020; accuracy@50 on DARN .822 < .898",
        FLAM,
    ),
    Headline(
        "H12",
        "A manipulated vector shows the asked value better than the unchanged one, but not of a pattern",
        "+.102 on DARN, +.075 on Shopping100k; pattern -.054 and -.065",
        FLAM,
    ),
    Headline("H13", "AMGAN beats every baseline, and FCD is the worst", "Figure 4, without values", AMGAN),
    Headline(
        "H14",
        "AMGAN needs its embedding, its pixel loss and, above all, its classifiers",
        "accuracy@1 on Shopping100k .1873 > .1652, .1609 > .0649",
        AMGAN,
    ),
    Headline("H15", "AMGAN answers fastest", "T_sum .191 < .333 < .947 < 1.079 seconds", AMGAN),
)
