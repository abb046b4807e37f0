# SPDX-License-Identifier: MIT
"""What Shin et al. (BMVC 2019) claim of FLAM.

Their requests change shape, colour or pattern; our ``manipulate-1`` asks for every attribute of the data, of which the
claims look at those three.

Left out: rows against FashionNet and WTB, which are not among our methods (FLM-01 to 12, 14, 16, 18, 20 to 24); FLM-52
and 53, whose order is the reverse on their other data set; FLM-34, 37, 40, 41, 43 and 44, where single attributes
contradict their sentence on one of the two sets; and the first 100 images, which are not counted (FLM-61, 62, 69, 70).
"""

import functools

from fm_bench.leaderboard.papers.claim import FLAM, Claim

_flam = functools.partial(Claim, source=FLAM)
_instance = functools.partial(_flam, protocol="instance")
_classified = functools.partial(
    _flam,
    x="flam",
    y="flam",
    metric="manipulated",
    metric_y="original",
    protocol="classification",
)
_SHAPE, _COLOUR, _PATTERN = ("category", "article_type", "product_type", "shape"), ("colour", "color"), ("pattern",)
_THREE = _SHAPE + _COLOUR + _PATTERN

_LOSSES = (
    _flam(
        "H10 (FLM-25, 29)",
        "Choosing negatives that are alike in the other attributes helps",
        "flam",
        "flam/m-adv",
        "accuracy@50",
        "DARN .822 vs .802; Shopping100k .691 vs .685",
        tie=".006 on Shopping100k",
        attributes=_THREE,
    ),
    _flam(
        "H10 (FLM-26, 30)",
        "The adversarial loss helps",
        "flam/m-adv",
        "flam/m",
        "accuracy@50",
        "DARN .802 vs .730; Shopping100k .685 vs .573",
        attributes=_THREE,
    ),
    _flam(
        "H10 (FLM-27, 31)",
        "Matching all attributes matters more than the adversarial loss",
        "flam/m",
        "flam/s-adv",
        "accuracy@50",
        "DARN .730 vs .505; Shopping100k .573 vs .424",
        attributes=_THREE,
    ),
    _flam(
        "FLM-28, 32",
        "Matching the attributes that stay helps",
        "flam/m-adv",
        "flam/s-adv",
        "accuracy@50",
        "DARN .802 vs .505; Shopping100k .685 vs .424",
        attributes=_THREE,
    ),
    _flam(
        "FLM-33, 36",
        "Matching the attributes that stay helps requests of a shape",
        "flam/m-adv",
        "flam/s-adv",
        "accuracy@50",
        "DARN .799 vs .472; Shopping100k .640 vs .517",
        attributes=_SHAPE,
    ),
    _flam(
        "FLM-39, 42",
        "Matching the attributes that stay helps requests of a colour",
        "flam/m-adv",
        "flam/s-adv",
        "accuracy@50",
        "DARN .872 vs .560; Shopping100k .749 vs .338",
        attributes=_COLOUR,
    ),
    _flam(
        "FLM-45, 48",
        "Matching the attributes that stay helps requests of a pattern",
        "flam/m-adv",
        "flam/s-adv",
        "accuracy@50",
        "DARN .521 vs .375; Shopping100k .628 vs .430",
        attributes=_PATTERN,
    ),
    _flam(
        "FLM-35, 38",
        "The adversarial loss helps requests of a shape",
        "flam/m-adv",
        "flam/m",
        "accuracy@50",
        "DARN .799 vs .612; Shopping100k .640 vs .602",
        attributes=_SHAPE,
    ),
    _flam(
        "FLM-47, 50",
        "The adversarial loss helps requests of a pattern",
        "flam/m-adv",
        "flam/m",
        "accuracy@50",
        "DARN .521 vs .500; Shopping100k .628 vs .483",
        attributes=_PATTERN,
    ),
    _flam(
        "FLM-46",
        "Choosing negatives that are alike in the other attributes helps requests of a pattern",
        "flam",
        "flam/m-adv",
        "accuracy@50",
        "DARN .624 vs .521",
        attributes=_PATTERN,
    ),
    _flam(
        "FLM-49",
        "Choosing negatives that are alike in the other attributes helps requests of a pattern",
        "flam",
        "flam/m-adv",
        "accuracy@50",
        "Shopping100k .633 vs .628",
        tie=".005",
        attributes=_PATTERN,
    ),
)

_INSTANCES = (
    _instance(
        "H11 (FLM-55)",
        "FLAM keeps finding the very same item, concatenated class features do not",
        "flam",
        "cls-concat",
        "accuracy@1",
        ".095 vs .043",
    ),
    _instance(
        "FLM-57",
        "FLAM keeps finding the very same item, concatenated class features do not",
        "flam",
        "cls-concat",
        "accuracy@5",
        ".200 vs .092",
    ),
    _instance(
        "FLM-59",
        "FLAM keeps finding the very same item, concatenated class features do not",
        "flam",
        "cls-concat",
        "accuracy@20",
        ".329 vs .164",
    ),
    _instance(
        "H11 (FLM-56)",
        "Class features find the very same item better than embedded attributes",
        "cls-concat",
        "emb-concat",
        "accuracy@1",
        ".043 vs .020",
    ),
    _instance(
        "FLM-58",
        "Class features find the very same item better than embedded attributes",
        "cls-concat",
        "emb-concat",
        "accuracy@5",
        ".092 vs .043",
    ),
    _instance(
        "FLM-60",
        "Class features find the very same item better than embedded attributes",
        "cls-concat",
        "emb-concat",
        "accuracy@20",
        ".164 vs .083",
    ),
    _instance(
        "FLM-13, 17",
        "FLAM's features find the very same item better than DARN's",
        "flam",
        "darn",
        "accuracy@1",
        ".265 vs .036, DARN as quoted by the paper",
    ),
    _instance(
        "FLM-15, 19",
        "FLAM's features find the very same item better than DARN's",
        "flam",
        "darn",
        "accuracy@20",
        ".664 vs .111, DARN as quoted by the paper",
    ),
)

_BOUNDS = (
    _flam(
        "H11 (FLM-51, 54)",
        "FLAM stays below the supervised class features",
        "cls-concat",
        "flam",
        "accuracy@50",
        "DARN .898 vs .822; Shopping100k .874 vs .691",
        attributes=_THREE,
    ),
    _flam(
        "FLM-64",
        "FLAM stays below the supervised class features",
        "cls-concat",
        "flam",
        "accuracy@1",
        "DARN .284 vs .176",
        attributes=_THREE,
    ),
    _flam(
        "FLM-66",
        "FLAM stays below embedded attributes among the first 5",
        "emb-concat",
        "flam",
        "accuracy@5",
        "DARN .632 vs .458",
        attributes=_THREE,
    ),
    _flam(
        "FLM-68",
        "FLAM stays below embedded attributes among the first 20",
        "emb-concat",
        "flam",
        "accuracy@20",
        "DARN .732 vs .707",
        attributes=_THREE,
    ),
    _flam(
        "FLM-63",
        "Embedded attributes beat class features at the first image",
        "emb-concat",
        "cls-concat",
        "accuracy@1",
        "DARN .340 vs .284",
        attributes=_THREE,
    ),
    _flam(
        "FLM-65",
        "Class features beat embedded attributes among the first 5",
        "cls-concat",
        "emb-concat",
        "accuracy@5",
        "DARN .660 vs .632",
        attributes=_THREE,
    ),
    _flam(
        "FLM-67",
        "Class features beat embedded attributes among the first 20",
        "cls-concat",
        "emb-concat",
        "accuracy@20",
        "DARN .838 vs .732",
        attributes=_THREE,
    ),
)

_CLASSES = (
    _classified(
        "H12 (FLM-82, 86)",
        "After manipulation the asked value is read more often than the own value before",
        reported="DARN .719 vs .617; Shopping100k .844 vs .769, means of three attributes",
        attributes=_THREE,
        alike=True,
    ),
    _classified(
        "FLM-79, 83",
        "After manipulation the asked shape is read more often than the own shape before",
        reported="DARN .577 vs .352; Shopping100k .843 vs .819",
        attributes=_SHAPE,
    ),
    _classified(
        "FLM-80, 84",
        "After manipulation the asked colour is read more often than the own colour before",
        reported="DARN .866 vs .730; Shopping100k .941 vs .675",
        attributes=_COLOUR,
    ),
    _flam(
        "H12 (FLM-81, 85)",
        "After manipulation the asked pattern is read less often than the own pattern before",
        "flam",
        "flam",
        "original",
        "DARN .768 vs .714; Shopping100k .814 vs .749",
        protocol="classification",
        metric_y="manipulated",
        attributes=_PATTERN,
    ),
)

_BACKBONES = (
    _instance(
        "FLM-71",
        "DenseNet-121's features find the very same item better than SE-ResNeXt-50's",
        "flam/densenet121",
        "flam/seresnext50",
        "accuracy@20",
        ".255 vs .240",
    ),
    _instance(
        "FLM-72",
        "SE-ResNeXt-50's features find the very same item better than ResNet-50's",
        "flam/seresnext50",
        "flam/resnet50",
        "accuracy@20",
        ".240 vs .235",
        tie=".005",
    ),
    _instance(
        "FLM-73",
        "ResNet-50's features find the very same item better than Inception-ResNet-v2's",
        "flam/resnet50",
        "flam/inception-resnet-v2",
        "accuracy@20",
        ".235 vs .218",
    ),
    _instance(
        "FLM-74",
        "Inception-ResNet-v2's features find the very same item better than SE-ResNet-50's",
        "flam/inception-resnet-v2",
        "flam/seresnet50",
        "accuracy@20",
        ".218 vs .205",
    ),
    _flam(
        "FLM-75",
        "SE-ResNeXt-50's features are changed better than SE-ResNet-50's",
        "flam/seresnext50",
        "flam/seresnet50",
        "accuracy@20",
        "DARN .780 vs .744",
        attributes=_THREE,
    ),
    _flam(
        "FLM-76",
        "SE-ResNet-50's features are changed better than ResNet-50's",
        "flam/seresnet50",
        "flam/resnet50",
        "accuracy@20",
        "DARN .744 vs .733",
        attributes=_THREE,
    ),
    _flam(
        "FLM-77",
        "ResNet-50's features are changed better than Inception-ResNet-v2's",
        "flam/resnet50",
        "flam/inception-resnet-v2",
        "accuracy@20",
        "DARN .733 vs .719",
        attributes=_THREE,
    ),
    _flam(
        "FLM-78",
        "Inception-ResNet-v2's features are changed better than DenseNet-121's",
        "flam/inception-resnet-v2",
        "flam/densenet121",
        "accuracy@20",
        "DARN .719 vs .691",
        attributes=_THREE,
    ),
)

CLAIMS = (*_LOSSES, *_INSTANCES, *_BOUNDS, *_CLASSES, *_BACKBONES)
