# SPDX-License-Identifier: MIT
"""What Yang et al. (SIGIR 2020) claim of AMGAN.

Their requests change one attribute (24 %) or two, mixed; ours are apart, and the first 10 images are compared on both.
Figures 4 and 5 show curves without values: there the first 10 images and their order stand for all of its metrics.

Left out: AMGAN-P against AMGAN-T (AMG-49 to 56), where the winner changes with metric and data set; and one data set
against the other (AMG-61), since results of different data are never compared here.
"""

import functools
import itertools
from collections.abc import Iterator, Sequence

from fm_bench.leaderboard.papers.claim import AMGAN, Claim

_amgan = functools.partial(Claim, source=AMGAN)
METRICS = ("accuracy@1", "accuracy@10", "ndcg@10", "mrr@1000")
_CHANGES = {"manipulate-1": "one attribute", "manipulate-2": "two attributes"}
_NAMES = {
    "amgan-p": "AMGAN",
    "amgan-t": "AMGAN",
    "amnet": "AMNet",
    "fashionsearchnet": "FashionSearchNet",
    "fcd": "FCD",
    "cgan-p": "a conditional GAN (pairs)",
    "cgan-t": "a conditional GAN (triplets)",
}
_HELPS = {
    "no-vse": "The visual-semantic embedding helps",
    "no-l1": "The pixel loss helps",
    "no-cls": "The attribute classifiers matter most",
}
_WORDS = "Figures 4 and 5, without values"
_SMALL = 0.011  # printed differences of about .01 or less are noise
_DATA = ("Shopping100k", "DARN")
TABLE_3 = {  # values of METRICS on Shopping100k, then on DARN
    "amgan-p": ((0.1873, 0.4805, 0.7715, 0.2624), (0.0978, 0.3051, 0.7167, 0.1678)),
    "amgan-p/no-vse": ((0.1609, 0.4717, 0.7567, 0.2417), (0.0857, 0.2967, 0.7078, 0.1486)),
    "amgan-p/no-l1": ((0.1652, 0.4720, 0.7551, 0.2324), (0.0875, 0.2998, 0.7067, 0.1603)),
    "amgan-p/no-cls": ((0.0649, 0.2824, 0.6693, 0.1008), (0.0144, 0.1175, 0.5856, 0.0324)),
    "amgan-t": ((0.1582, 0.4811, 0.7384, 0.2351), (0.1051, 0.3876, 0.7004, 0.1505)),
    "amgan-t/no-vse": ((0.1390, 0.4476, 0.7222, 0.2015), (0.0681, 0.3141, 0.6681, 0.1230)),
    "amgan-t/no-l1": ((0.1368, 0.4317, 0.7154, 0.2001), (0.0690, 0.3172, 0.6692, 0.1231)),
    "amgan-t/no-cls": ((0.0714, 0.3053, 0.6565, 0.1275), (0.0164, 0.1219, 0.5805, 0.0559)),
}


def _ablations(protocol: str, metrics: Sequence[str]) -> Iterator[Claim]:
    """Table 3: 12 rows of each scheme on Shopping100k, then on DARN, three for each metric.

    Without classifiers it is worst of all: on each data set compared with the lesser of the other two. What is small on
    one data set and not on the other is two claims.
    """
    for (scheme, first), metric in itertools.product({"amgan-p": 1, "amgan-t": 25}.items(), metrics):
        i = METRICS.index(metric)
        vse, l1, cls = (f"{scheme}/{variant}" for variant in _HELPS)
        rows: dict[tuple[str, str, bool], list[tuple[int, int]]] = {}
        for data, row in enumerate((first + 3 * i, first + 3 * i + 12)):
            least = min(vse, l1, key=lambda name: TABLE_3[name][data][i])
            for number, (x, y) in enumerate(((scheme, vse), (scheme, l1), (least, cls))):
                small = TABLE_3[x][data][i] - TABLE_3[y][data][i] < _SMALL
                rows.setdefault((x, y, small), []).append((row + number, data))
        for (x, y, small), places in rows.items():
            split = ", as on " + _DATA[places[0][1]] if len(places) == 1 and (x, y, not small) in rows else ""
            printed = [(_DATA[data], TABLE_3[x][data][i], TABLE_3[y][data][i]) for _, data in places]
            yield _amgan(
                f"H14 (AMG-{', '.join(f'{row:02d}' for row, _ in places)})",
                f"{_HELPS[y.partition('/')[2]]}{split} ({_CHANGES[protocol]} changed)",
                x,
                y,
                metric,
                "; ".join(f"{data} {_short(a)} vs {_short(b)}" for data, a, b in printed),
                protocol=protocol,
                tie=", ".join(_short(a - b) for _, a, b in printed) if small else "",
            )


def _figures(protocol: str, metric: str) -> Iterator[Claim]:
    """Figures 4 and 5: AMGAN above everything, FCD below everything."""
    changed = f"({_CHANGES[protocol]} changed)"
    rows = "57, 63"
    for scheme, other in itertools.product(("amgan-p", "amgan-t"), ("amnet", "fashionsearchnet", "fcd")):
        statement = f"Prototypes beat {_NAMES[other]} {changed}"
        yield _amgan(f"H13 (AMG-{rows})", statement, scheme, other, metric, _WORDS, protocol=protocol)
    for (row, scheme), other in itertools.product(((58, "p"), (59, "t")), "pt"):
        x, y = f"amgan-{scheme}", f"cgan-{other}"
        same = scheme == other
        statement = "Training generator and retrieval together helps" if same else f"Prototypes beat {_NAMES[y]}"
        cited = f"57, {row}, 63" if same else rows
        yield _amgan(f"H13 (AMG-{cited})", f"{statement} {changed}", x, y, metric, _WORDS, protocol=protocol)
    for other in ("amnet", "fashionsearchnet", "cgan-p", "cgan-t"):
        statement = f"{_NAMES[other]} beats value vectors added to a joint space {changed}"
        yield _amgan(
            "H13 (AMG-60)", statement[0].upper() + statement[1:], other, "fcd", metric, _WORDS, protocol=protocol
        )


def _harder() -> Iterator[Claim]:
    """Figure 5: one changed attribute is easier than two, for most methods."""
    for method in ("amgan-p", "amgan-t", "cgan-p", "cgan-t", "fcd", "fashionsearchnet"):
        yield _amgan(
            "AMG-62",
            "Requests that change two attributes are harder than those that change one",
            method,
            method,
            "accuracy@10",
            "in words only, for most methods",
            protocol_y="manipulate-2",
        )


def _times() -> Iterator[Claim]:
    """Table 4: seconds for 1,000 queries in a gallery of 50,000."""
    printed = {
        "t_sum_ms": ("amgan-p .191", "fcd .333", "amnet .947", "fashionsearchnet 1.079"),
        "t_sea_ms": ("amgan-p .149", "fcd .153", "amnet .928", "fashionsearchnet .940"),
        "t_repr_ms": ("amnet .019", "amgan-p .042", "fashionsearchnet .139", "fcd .180"),
    }
    statements = {
        "t_sum_ms": "answers faster than",
        "t_sea_ms": "searches faster than",
        "t_repr_ms": "makes its query vector faster than",
    }
    rows = itertools.count(64)
    for metric, order in printed.items():
        for (better, fewer), (worse, more) in itertools.pairwise(entry.split() for entry in order):
            row = next(rows)
            statement = f"{_NAMES[better]} {statements[metric]} {_NAMES[worse]}"
            for x, y in dict.fromkeys((_of(better, scheme), _of(worse, scheme)) for scheme in "pt"):
                yield _amgan(
                    f"H15 (AMG-{row})",
                    statement[0].upper() + statement[1:],
                    x,
                    y,
                    metric,
                    f"{fewer} s vs {more} s for 1,000 queries",
                    protocol="latency",
                    lower=True,
                    tie={67: ".004 s", 69: ".012 s"}.get(row, ""),
                )


def _of(method: str, scheme: str) -> str:
    """The method; AMGAN in ``scheme``: Table 4 gives both the same times."""
    return f"amgan-{scheme}" if method == "amgan-p" else method


def _short(value: float) -> str:
    return f"{value:.4f}".removeprefix("0")


CLAIMS = (
    *_figures("manipulate-1", "accuracy@10"),
    *_figures("manipulate-2", "accuracy@10"),
    *_figures("manipulate-1", "ndcg@10"),
    *_ablations("manipulate-1", METRICS),
    *_ablations("manipulate-2", ("accuracy@10",)),
    *_harder(),
    *_times(),
)
