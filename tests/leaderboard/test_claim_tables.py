# SPDX-License-Identifier: MIT
"""The tables of claims against the papers, the protocols and the methods that there are."""

import re
from pathlib import Path

import pytest
import yaml

from fm_bench.data.garments import SCHEMA
from fm_bench.data.readers.fashion_product import REQUIRED
from fm_bench.evaluation import Protocol
from fm_bench.leaderboard.claims import CLAIMS
from fm_bench.leaderboard.shown import is_lower
from fm_bench.leaderboard.tags import TAGS

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
OF_KIND = {
    "detection": {"ap@0.7 shop", "ap@0.7 street", "accuracy@20 detected boxes"},
    "classification": {"manipulated", "original"},
    "latency": {"t_sum_ms", "t_sea_ms", "t_repr_ms"},
}


def metrics_of(name):
    """Every metric of the protocol that a claim may be about."""
    protocol = Protocol.from_yaml(BENCHMARKS / "protocols" / f"{name}.yaml")
    if protocol.kind != "retrieval":
        return OF_KIND[protocol.kind]
    cutoffs = {"accuracy": protocol.k, "ndcg": protocol.ndcg, "success": protocol.success, "mrr": protocol.mrr}
    found = {f"{family}@{k}" for family, ks in cutoffs.items() for k in ks}
    return found | ({"increment_ratio@20"} if protocol.sweep else set())


def test_every_claim_names_a_metric_of_its_protocols():
    for claim in CLAIMS:
        assert claim.metric in metrics_of(claim.protocol), claim
        assert claim.metric_y in metrics_of(claim.protocol_y), claim
        assert claim.lower == is_lower(claim.metric) == is_lower(claim.metric_y)
    places = [(c.of_x, c.of_y, c.protocol, c.protocol_y, bool(c.tie)) for c in CLAIMS]
    assert len(places) == len(set(places))
    assert {claim.id.split()[0] for claim in CLAIMS} >= {f"H{n}" for n in range(1, 16)}


def test_attributes_of_claims_are_those_of_the_data():
    data = {"garments": SCHEMA.names, "fashion-product": REQUIRED}
    for claim in CLAIMS:
        for names in data.values() if claim.attributes else ():
            assert len(set(claim.attributes) & set(names)) in ((3,) if "pattern" in claim.attributes[1:] else (1,)), (
                claim
            )


TIES = {
    "H8 (DARN-14)": ".003",
    "H8 (DARN-16)": ".001",
    "H9 (DARN-09)": ".006",
    "H9 (DARN-10)": ".005",
    "DARN-27": ".007",
    "DARN-35": ".007",
    "H10 (FLM-25, 29)": ".006 on Shopping100k",
    "FLM-49": ".005",
    "FLM-72": ".005",
    "H14 (AMG-04, 16)": ".0088, .0084",
    "H14 (AMG-05, 17)": ".0085, .0053",
    "H14 (AMG-14)": ".0103",
    "H14 (AMG-19)": ".0089",
    "H14 (AMG-20)": ".0100",
    "H14 (AMG-23)": ".0075",
    "H15 (AMG-67)": ".004 s",
    "H15 (AMG-69)": ".012 s",
}  # the rows that the list of claims marks as a tie, a gap or a small gap, with the printed difference


def test_ties_are_the_claims_whose_printed_difference_is_small():
    assert {claim.id: claim.tie for claim in CLAIMS if claim.tie} == TIES


def test_a_tie_prints_the_difference_it_names():
    """In words alone nothing is small: a claim without printed numbers is no tie."""
    checked = 0
    for claim in CLAIMS:
        printed = [(float(x), float(y)) for x, y in re.findall(r"([.\d]+)(?: s)? vs ([.\d]+)", claim.reported)]
        small = [float(part) for part in re.findall(r"\.\d+", claim.tie)]
        gaps = [abs(x - y) for x, y in printed]
        if claim.tie:
            assert len(small) <= len(gaps), claim
            assert all(min(abs(gap - each) for gap in gaps) < 1e-6 for each in small), claim
            checked += 1
        elif gaps and claim.protocol != "latency":
            assert max(gaps) > 0.011, claim
    assert checked >= len(TIES)


AMG = [claim for claim in CLAIMS if claim.source == "Yang et al., SIGIR 2020"]


@pytest.mark.parametrize(
    ("rows", "x", "y", "metric", "reported"),
    [  # of the list of claims, typed off
        ("04, 16", "amgan-p", "amgan-p/no-vse", "accuracy@10", "Shopping100k .4805 vs .4717; DARN .3051 vs .2967"),
        ("05, 17", "amgan-p", "amgan-p/no-l1", "accuracy@10", "Shopping100k .4805 vs .4720; DARN .3051 vs .2998"),
        ("02", "amgan-p", "amgan-p/no-l1", "accuracy@1", "Shopping100k .1873 vs .1652"),
        ("14", "amgan-p", "amgan-p/no-l1", "accuracy@1", "DARN .0978 vs .0875"),
        ("09, 21", "amgan-p/no-l1", "amgan-p/no-cls", "ndcg@10", "Shopping100k .7551 vs .6693; DARN .7067 vs .5856"),
        ("12", "amgan-p/no-l1", "amgan-p/no-cls", "mrr@1000", "Shopping100k .2324 vs .1008"),
        ("24", "amgan-p/no-vse", "amgan-p/no-cls", "mrr@1000", "DARN .1486 vs .0324"),
        ("27", "amgan-t/no-l1", "amgan-t/no-cls", "accuracy@1", "Shopping100k .1368 vs .0714"),
        ("39", "amgan-t/no-vse", "amgan-t/no-cls", "accuracy@1", "DARN .0681 vs .0164"),
        ("34, 46", "amgan-t", "amgan-t/no-vse", "mrr@1000", "Shopping100k .2351 vs .2015; DARN .1505 vs .1230"),
    ],
)
def test_ablations_of_amgan_are_the_rows_of_its_table(rows, x, y, metric, reported):
    (claim,) = [c for c in AMG if f"(AMG-{rows})" in c.id and c.protocol == "manipulate-1"]
    assert (claim.x, claim.y, claim.metric, claim.reported) == (x, y, metric, reported)


def test_every_row_of_amgans_ablations_is_cited_once():
    ablations = [c for c in AMG if c.id.startswith("H14") and c.protocol == "manipulate-1"]
    cited = [row for c in ablations for row in c.id.partition("AMG-")[2].rstrip(")").split(", ")]
    assert sorted(cited) == [f"{row:02d}" for row in range(1, 49)]
    without = {(c.x.split("/")[1], c.id) for c in ablations if c.y.endswith("no-cls") and "," not in c.id}
    on_darn = {("no-vse", f"H14 (AMG-{row})") for row in (24, 39, 42, 45, 48)}
    assert without == on_darn | {("no-l1", f"H14 (AMG-{row})") for row in (12, 27, 30, 33, 36)}


def test_both_schemes_of_amgan_beat_every_baseline_and_share_their_times():
    for scheme in ("amgan-p", "amgan-t"):
        beaten = {c.y for c in AMG if c.x == scheme and "AMG-57" in c.id and c.protocol == "manipulate-2"}
        assert beaten == {"amnet", "fashionsearchnet", "fcd", "cgan-p", "cgan-t"}
        times = {c.id for c in AMG if scheme in (c.x, c.y) and c.protocol == "latency"}
        assert times == {f"H15 (AMG-{row})" for row in (64, 67, 70, 71)}
    assert {c.id for c in AMG if c.protocol == "latency"} == {f"H15 (AMG-{row})" for row in range(64, 73)}


def test_every_claim_and_mark_names_methods_that_there_are():
    known = set()
    for path in (BENCHMARKS / "methods").glob("*.yaml"):
        variants = yaml.safe_load(path.read_text()).get("variants", {})
        known |= {path.stem, *(f"{path.stem}/{variant}" for variant in variants)}
    assert {name for claim in CLAIMS for name in (claim.x, claim.y)} <= known
    assert {method for tag in TAGS for method in tag.methods} <= known
    assert {"substitute", ""} >= {tag.unless for tag in TAGS}
