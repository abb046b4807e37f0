# SPDX-License-Identifier: MIT
"""What the papers claim, as a table of orders between methods of this benchmark."""

import dataclasses
import functools


@dataclasses.dataclass(frozen=True)
class Claim:
    """``x`` beats ``y`` on ``metric`` of ``protocol``; ``y`` may be judged on a protocol of its own.

    Attributes:
        id: short name, shared by the metrics of one claim; a headline with the row of the full list it summarises.
        statement: the claim in words.
        x, y: methods as on the command line.
        metric: what is compared.
        reported: the paper's numbers, x against y.
        source: where they are printed.
        protocol, protocol_y: where x and y are judged; y where x is unless it is given.
        lower: whether lower values are better.
        tie: whether the printed difference is so small, or the words so weak, that only the reverse would speak
            against the claim.
    """

    id: str
    statement: str
    x: str
    y: str
    metric: str
    reported: str
    source: str
    protocol: str = "manipulate-1"
    protocol_y: str = ""
    lower: bool = False
    tie: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "protocol_y", self.protocol_y or self.protocol)


_amnet = functools.partial(Claim, source="Zhao et al., CVPR 2017")
_amnet_growing = functools.partial(_amnet, protocol="gallery-sweep-1", lower=True)
_fsn = functools.partial(Claim, source="Ak et al., CVPR 2018")
_darn = functools.partial(Claim, source="Huang et al., ICCV 2015", protocol="instance")
_darn_growing = functools.partial(_darn, protocol="gallery-sweep", lower=True)
_OF_AMNET = (
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
        tie=True,
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

_OF_FASHIONSEARCHNET = (
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

_OF_DARN = (
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
        tie=True,
    ),
    _darn(
        "H8 (DARN-14)",
        "Network in network is a little better than AlexNet",
        "pretrained/nin",
        "pretrained/cnn",
        "ndcg@20",
        ".370 vs .367",
        tie=True,
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
        tie=True,
    ),
    _darn(
        "H9 (DARN-06)",
        "Local features of Conv5 help a little",
        "darn/conv5",
        "darn",
        "accuracy@20",
        "in words only",
        tie=True,
    ),
    _darn(
        "H9 (DARN-10)",
        "Local features of Conv5 help a little",
        "darn/conv5",
        "darn",
        "ndcg@20",
        ".499 vs .494",
        tie=True,
    ),
    _darn(
        "H9 (DARN-07)",
        "Local features of Conv4 and Conv5 help a little",
        "darn/conv4-5",
        "darn",
        "accuracy@20",
        ".570 vs at most that",
        tie=True,
    ),
    _darn(
        "H9 (DARN-09)",
        "Local features of Conv4 help a little beside those of Conv5",
        "darn/conv4-5",
        "darn/conv5",
        "ndcg@20",
        ".505 vs .499",
        tie=True,
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
        tie=True,
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
_OF_DETECTION = tuple(
    _darn(
        f"DARN-{first + i}",
        statement,
        _DETECTORS[i],
        _DETECTORS[i + 1],
        metric,
        f"{reported[i]} vs {reported[i + 1]}",
        protocol="detection",
        tie=first + i == 27,  # .567 vs .560
    )
    for first, metric, reported in _TABLE_2
    for i, statement in enumerate(_BETTER)
)

CLAIMS: tuple[Claim, ...] = (*_OF_AMNET, *_OF_FASHIONSEARCHNET, *_OF_DARN, *_OF_DETECTION)
"""Every claim that the methods of this benchmark can be asked about, in the order of the page."""
