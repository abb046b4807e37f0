# SPDX-License-Identifier: MIT
"""What Ak et al. (CVPR 2018) claim of FashionSearchNet."""

import functools

from fm_bench.leaderboard.papers.claim import FSN, Claim

_fsn = functools.partial(Claim, source=FSN)

CLAIMS = (
    _fsn(
        "H5 (FSN-01)",
        "Attribute activation maps help",
        "fashionsearchnet",
        "fashionsearchnet/no-aam",
        "accuracy@30",
        "Shopping100k .566 vs .512; DeepFashion .376 vs .313",
    ),
    _fsn(
        "H6 (FSN-04)",
        "FashionSearchNet beats AMNet",
        "fashionsearchnet",
        "amnet",
        "accuracy@30",
        "Shopping100k .566 vs about .406; DeepFashion .376 vs about .246",
    ),
    _fsn(
        "H6 (FSN-02)",
        "FashionSearchNet beats AMNet even without activation maps",
        "fashionsearchnet/no-aam",
        "amnet",
        "accuracy@30",
        "Shopping100k .512 vs about .406; DeepFashion .313 vs about .246",
    ),
    _fsn(
        "H6 (FSN-03)",
        "AMNet beats retrieval by classified attributes",
        "amnet",
        "attribute-based",
        "accuracy@30",
        "Shopping100k about .406 vs .216; DeepFashion about .246 vs .126",
    ),
    _fsn(
        "H7 (FSN-13)",
        "Region awareness helps requests that speak of a region",
        "fashionsearchnet/region-aware",
        "fashionsearchnet",
        "success@5",
        "Shopping100k .222 vs .086, users picking",
        protocol="region",
    ),
    _fsn(
        "H7 (FSN-14)",
        "FashionSearchNet beats AMNet on requests that speak of a region",
        "fashionsearchnet",
        "amnet",
        "success@5",
        "Shopping100k .086 vs .012, users picking",
        protocol="region",
    ),
)
