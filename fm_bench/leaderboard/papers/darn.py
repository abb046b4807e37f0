# SPDX-License-Identifier: MIT
"""What Huang et al. (ICCV 2015) claim of DARN and of its detector."""

import functools

from fm_bench.leaderboard.papers.claim import DARN, Claim

_darn = functools.partial(Claim, source=DARN, protocol="instance")
_darn_growing = functools.partial(_darn, protocol="gallery-sweep", lower=True)

_RETRIEVAL = (
    _darn(
        "H8 (DARN-05)",
        "Two sub-networks, one per domain, beat one",
        "darn",
        "darn/arn",
        "accuracy@20",
        "9.9 points",
    ),
    _darn(
        "H8 (DARN-11)",
        "Two sub-networks, one per domain, beat one",
        "darn",
        "darn/arn",
        "ndcg@20",
        ".494 vs .442",
    ),
    _darn(
        "H8 (DARN-04)",
        "The ranking loss helps",
        "darn/arn",
        "darn/an",
        "accuracy@20",
        "5.0 points",
    ),
    _darn(
        "H8 (DARN-12)",
        "The ranking loss helps",
        "darn/arn",
        "darn/an",
        "ndcg@20",
        ".442 vs .415",
    ),
    _darn(
        "H8 (DARN-03)",
        "Learned attributes beat ImageNet features",
        "darn/an",
        "pretrained/nin",
        "accuracy@20",
        "11.6 points",
    ),
    _darn(
        "H8 (DARN-13)",
        "Learned attributes beat ImageNet features",
        "darn/an",
        "pretrained/nin",
        "ndcg@20",
        ".415 vs .370",
    ),
    _darn(
        "DARN-01",
        "Learned features beat ImageNet features",
        "darn/conv4-5",
        "pretrained/cnn",
        "accuracy@20",
        ".570 vs .268",
    ),
    _darn(
        "DARN-02",
        "Network in network is a little better than AlexNet",
        "pretrained/nin",
        "pretrained/cnn",
        "accuracy@20",
        "in words only",
    ),
    _darn(
        "H8 (DARN-14)",
        "Network in network is a little better than AlexNet",
        "pretrained/nin",
        "pretrained/cnn",
        "ndcg@20",
        ".370 vs .367",
        tie=".003",
    ),
    _darn(
        "H8 (DARN-08)",
        "Deep features beat dense SIFT with Fisher vectors",
        "pretrained/cnn",
        "dsift-fisher",
        "accuracy@20",
        ".268 vs a lower curve without a printed value",
    ),
    _darn(
        "H8 (DARN-08)",
        "Deep features beat dense SIFT with Fisher vectors",
        "pretrained/cnn",
        "dsift-fisher/c128",
        "accuracy@20",
        ".268 vs a lower curve without a printed value",
    ),
    _darn(
        "H8 (DARN-15)",
        "Deep features beat dense SIFT with Fisher vectors",
        "pretrained/cnn",
        "dsift-fisher",
        "ndcg@20",
        ".367 vs .290",
    ),
    _darn(
        "H8 (DARN-16)",
        "64 Fisher centres do as well as 128",
        "dsift-fisher",
        "dsift-fisher/c128",
        "ndcg@20",
        ".290 vs .289",
        tie=".001",
    ),
    _darn(
        "H9 (DARN-06)",
        "Local features of Conv5 help a little",
        "darn/conv5",
        "darn",
        "accuracy@20",
        "in words only",
    ),
    _darn(
        "H9 (DARN-10)",
        "Local features of Conv5 help a little",
        "darn/conv5",
        "darn",
        "ndcg@20",
        ".499 vs .494",
        tie=".005",
    ),
    _darn(
        "H9 (DARN-07)",
        "Local features of Conv4 and Conv5 help a little",
        "darn/conv4-5",
        "darn",
        "accuracy@20",
        ".570 vs at most that",
    ),
    _darn(
        "H9 (DARN-09)",
        "Local features of Conv4 help a little beside those of Conv5",
        "darn/conv4-5",
        "darn/conv5",
        "ndcg@20",
        ".505 vs .499",
        tie=".006",
    ),
    _darn_growing(
        "DARN-34",
        "A growing gallery hurts two sub-networks less than ImageNet features",
        "darn",
        "pretrained/nin",
        "increment_ratio@20",
        ".282 vs .638",
    ),
    _darn_growing(
        "DARN-35",
        "A growing gallery hurts ImageNet features as much as one sub-network",
        "pretrained/nin",
        "darn/arn",
        "increment_ratio@20",
        ".638 vs .645",
        tie=".007",
    ),
    _darn_growing(
        "DARN-36",
        "A growing gallery hurts one sub-network less than dense SIFT with Fisher vectors",
        "darn/arn",
        "dsift-fisher",
        "increment_ratio@20",
        ".645 vs 1.154",
    ),
)

_DETECTORS = (
    "detector/an+svr",
    "detector/nin+svr",
    "detector/cnn+svr",
    "detector/cnn+svm",
)  # best first, as in Table 2
_BETTER = (
    "Attribute-aware features find garments better than ImageNet features",
    "Network in network finds garments better than AlexNet",
    "Regression on the overlap finds garments better than R-CNN's classification",
)
_TABLE_2 = (
    (17, "ap@0.7 shop", (".744", ".601", ".545", ".520")),
    (21, "ap@0.7 street", (".683", ".477", ".452", ".412")),
    (25, "accuracy@20 detected boxes", (".635", ".588", ".567", ".560")),
)
_DETECTION = tuple(
    _darn(
        f"DARN-{first + i}",
        statement,
        _DETECTORS[i],
        _DETECTORS[i + 1],
        metric,
        f"{reported[i]} vs {reported[i + 1]}",
        protocol="detection",
        tie=".007" if first + i == 27 else "",
    )
    for first, metric, reported in _TABLE_2
    for i, statement in enumerate(_BETTER)
)

CLAIMS = (*_RETRIEVAL, *_DETECTION)
