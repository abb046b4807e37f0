# SPDX-License-Identifier: MIT
"""The numbers that the papers print, with where they are printed.

They are shown beside ours and never asserted: on other data, galleries or requests they say nothing about ours. What
stands in figures alone has no number here. Of FLAM's tables the rows of all requests are taken, and of its Table 3
neither of the two rows that its authors mark as measured with other attributes.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

from fm_bench.leaderboard.papers.amgan import METRICS, TABLE_3
from fm_bench.leaderboard.papers.claim import AMGAN, AMNET, DARN, FLAM, FSN


@dataclasses.dataclass(frozen=True)
class Reported:
    """A printed number.

    Attributes:
        method: as on the command line.
        value: the number; times are in seconds.
        metric: what we call it.
        data: the recipe of the data it was measured on, or ``not named``.
        exact: the protocol that asks what the paper asked.
        protocol: the protocol of ours that comes nearest.
        paper: authors, venue and year, as the claims name their source.
        source: table or section.
        note: how the number was read, where it is not printed as such.
    """

    method: str
    value: float
    metric: str
    data: str
    exact: str
    protocol: str
    paper: str
    source: str
    note: str = ""


_DROP = "printed as a drop in points"


def _all(rows: Mapping[str, Sequence[float]], metrics: Sequence[str], *rest: str) -> Iterator[Reported]:
    """One number for each method and metric; ``rest`` are the fields from ``data`` on."""
    for method, values in rows.items():
        for metric, value in zip(metrics, values, strict=True):
            yield Reported(method, value, metric, *rest)


def _amnet() -> Iterator[Reported]:
    darn = ("darn", "amnet_darn_1", "manipulate-1", AMNET)
    deepfashion = ("deepfashion", "amnet_df_texture", "manipulate-1", AMNET)
    top = ["accuracy@20"]
    yield from _all({"amnet": [0.545], "amnet/no-memory": [0.230]}, top, *darn, "Section 5.2")
    yield from _all({"amnet/no-ranking": [0.316]}, top, *darn, "Section 5.2", _DROP)
    yield from _all({"amnet": [0.338], "amnet/no-memory": [0.208]}, top, *deepfashion, "Section 5.2")
    yield from _all({"amnet/no-ranking": [0.266]}, top, *deepfashion, "Section 5.2", _DROP)
    names = ("amnet", "amnet/no-memory", "amnet/no-ranking", "attribute-based")
    for place, values in ((darn, (0.46, 0.23, 0.32, 0.33)), (deepfashion, (0.39, 0.23, 0.28, 0.21))):
        ndcg = {name: [value] for name, value in zip(names, values, strict=True)}
        yield from _all(ndcg, ["ndcg@20"], *place, "Table 2")
    two = ("darn", "amnet_darn_2", "manipulate-2", AMNET, "Section 5.5")
    yield from _all({"amnet": [0.464, 0.41]}, ["accuracy@20", "ndcg@20"], *two)
    for place, values in ((darn, (0.374, 0.589, 0.994, 0.330)), (deepfashion, (0.550, 0.743, 0.745, 0.558))):
        growing = {name: [value] for name, value in zip(names, values, strict=True)}
        yield from _all(growing, ["increment_ratio@20"], *place[:2], "gallery-sweep-1", AMNET, "Section 5.4")


def _fsn() -> Iterator[Reported]:
    derived = "from differences in points, some of them rounded"
    given = "fashionsearchnet"
    for data, exact, value, others in (
        ("shopping100k", "fsn_s100k_1", 0.566, (0.512, 0.406, 0.216)),
        ("deepfashion", "fsn_df_1", 0.376, (0.313, 0.246, 0.126)),
    ):
        place = (data, exact, "manipulate-1", FSN, "Section 4.2")
        rest = {
            name: [number]
            for name, number in zip(("fashionsearchnet/no-aam", "amnet", "attribute-based"), others, strict=True)
        }
        yield from _all({given: [value]}, ["accuracy@30"], *place)
        yield from _all(rest, ["accuracy@30"], *place, derived)
    region = {"fashionsearchnet/region-aware": [0.222], given: [0.086], "amnet": [0.012]}
    yield from _all(
        region, ["success@5"], "shopping100k", "fsn_region", "region", FSN, "Table 1", "success rate of a user study"
    )


def _darn() -> Iterator[Reported]:
    place = ("darn", "darn_c2s", "instance", DARN)
    yield from _all({"pretrained/cnn": [0.268], "darn/conv4-5": [0.570]}, ["accuracy@20"], *place, "Section 5.3")
    ndcg = {
        "dsift-fisher": [0.290],
        "dsift-fisher/c128": [0.289],
        "pretrained/cnn": [0.367],
        "pretrained/nin": [0.370],
        "darn/an": [0.415],
        "darn/arn": [0.442],
        "darn": [0.494],
        "darn/conv5": [0.499],
        "darn/conv4-5": [0.505],
    }
    yield from _all(ndcg, ["ndcg@20"], *place, "Table 3")
    growing = {"dsift-fisher": [1.154], "pretrained/nin": [0.638], "darn/arn": [0.645], "darn": [0.282]}
    yield from _all(growing, ["increment_ratio@20"], "darn", "darn_c2s", "gallery-sweep", DARN, "Section 5.5")
    found = {
        "detector/cnn+svm": (0.520, 0.412, 0.560),
        "detector/cnn+svr": (0.545, 0.452, 0.567),
        "detector/nin+svr": (0.601, 0.477, 0.588),
        "detector/an+svr": (0.744, 0.683, 0.635),
    }
    metrics = ("ap@0.7 shop", "ap@0.7 street", "accuracy@20 detected boxes")
    yield from _all(found, metrics, "darn", "detection", "detection", DARN, "Table 2")


def _flam() -> Iterator[Reported]:
    manipulated = {  # Table 3, column All
        "cls-concat": (0.898, 0.874),
        "emb-concat": (0.779, 0.915),
        "flam/s-adv": (0.505, 0.424),
        "flam/m": (0.730, 0.573),
        "flam/m-adv": (0.802, 0.685),
        "flam": (0.822, 0.691),
    }
    for i, (data, exact) in enumerate((("darn", "flam_darn"), ("shopping100k", "flam_s100k"))):
        of_data = {method: [values[i]] for method, values in manipulated.items()}
        yield from _all(of_data, ["accuracy@50"], data, exact, "manipulate-1", FLAM, "Table 3, All")
    first = {
        "cls-concat": (0.284, 0.660, 0.838, 0.932),
        "emb-concat": (0.340, 0.632, 0.732, 0.812),
        "flam": (0.176, 0.458, 0.707, 0.884),
    }
    top = ("accuracy@1", "accuracy@5", "accuracy@20", "accuracy@100")
    yield from _all(first, top, "darn", "flam_darn", "manipulate-1", FLAM, "Table 4")
    same = {
        "cls-concat": (0.043, 0.092, 0.164, 0.301),
        "emb-concat": (0.020, 0.043, 0.083, 0.180),
        "flam": (0.095, 0.200, 0.329, 0.519),
    }
    yield from _all(same, top, "deepfashion-c2s", "flam_fir_c2s", "instance", FLAM, "Table 4")
    backbones = {
        "flam/resnet50": (0.235, 0.733),
        "flam/seresnet50": (0.205, 0.744),
        "flam/seresnext50": (0.240, 0.780),
        "flam/inception-resnet-v2": (0.218, 0.719),
        "flam/densenet121": (0.255, 0.691),
    }
    for i, (data, exact, protocol) in enumerate(
        (("deepfashion-c2s", "flam_fir_c2s", "instance"), ("darn", "flam_darn", "manipulate-1"))
    ):
        of_data = {method: [values[i]] for method, values in backbones.items()}
        yield from _all(of_data, ["accuracy@20"], data, exact, protocol, FLAM, "Table 5")
    others = "of DARN, as FLAM's authors print it"
    top = ("accuracy@1", "accuracy@5", "accuracy@20", "accuracy@50")
    for data, exact, values in (
        ("deepfashion-inshop", "flam_fir_inshop", (0.381, 0.547, 0.675, 0.716)),
        ("deepfashion-c2s", "flam_fir_c2s", (0.036, 0.063, 0.111, 0.152)),
    ):
        yield from _all({"darn": values}, top, data, exact, "instance", FLAM, "Table 2", others)
    mean = "mean of the three attributes"
    for data, read in (("darn", (0.719, 0.6167)), ("shopping100k", (0.8443, 0.7693))):
        metrics = ("manipulated", "original")
        yield from _all({"flam": read}, metrics, data, "flam_cls", "classification", FLAM, "Table 5", mean)


def _amgan() -> Iterator[Reported]:
    for i, (data, exact) in enumerate((("shopping100k", "amgan_s100k"), ("darn", "amgan_darn"))):
        rows = {method: values[i] for method, values in TABLE_3.items()}
        mixed = "one and two changed attributes mixed"
        yield from _all(rows, METRICS, data, exact, "manipulate-1", AMGAN, "Table 3", mixed)
    times = {
        "fcd": (0.180, 0.153, 0.333),
        "amnet": (0.019, 0.928, 0.947),
        "fashionsearchnet": (0.139, 0.940, 1.079),
        "amgan-p": (0.042, 0.149, 0.191),
        "amgan-t": (0.042, 0.149, 0.191),
    }
    metrics = ("t_repr_ms", "t_sea_ms", "t_sum_ms")
    yield from _all(times, metrics, "not named", "amgan_timing", "latency", AMGAN, "Table 4", "seconds")


REPORTED: tuple[Reported, ...] = (*_amnet(), *_fsn(), *_darn(), *_flam(), *_amgan())
"""Every printed number that a method of this benchmark can be set beside, in the order of the claims."""
