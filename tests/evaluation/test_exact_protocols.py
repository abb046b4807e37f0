# SPDX-License-Identifier: MIT
"""The papers' protocols: what they are is stored here, and each is asked, answered and judged on small data."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from catalogues import Noise, random_labels

from fm_bench import recipe
from fm_bench.attributes import AttributeSchema
from fm_bench.catalog import Catalog, Dataset, Domain, Split, gallery_of
from fm_bench.data.folds import folded
from fm_bench.data.garments import GarmentsReader
from fm_bench.data.mixed import mixed
from fm_bench.data.requests import exclusions, mine
from fm_bench.data.sample import Room, Sample, sampled
from fm_bench.errors import UserError
from fm_bench.evaluation import Protocol, evaluate
from fm_bench.evaluation.designated import designated, order_of_hits
from fm_bench.evaluation.hits import Hits
from fm_bench.evaluation.relevance import Codes
from fm_bench.questions import (
    alike,
    ask,
    ask_all,
    check_protocols,
    gallery_labels,
    limit_of,
    load_protocol,
    needs,
    sample_of,
)
from fm_bench.recipe import EvaluationConfig

FOLDER = Path(__file__).parents[2] / "benchmarks" / "protocols"
EXACT = {
    "adde_m": ("00b7747d4a", ["shopping100k"]),
    "amgan_darn": ("00bbeda9c3", ["darn"]),
    "amgan_s100k": ("9dd68e5f08", ["shopping100k"]),
    "amgan_timing": ("d09e3e1c3d", []),
    "amnet_darn_1": ("ba09481abe", ["darn"]),
    "amnet_darn_2": ("de23b727ae", ["darn"]),
    "amnet_df_texture": ("633c0616fe", ["deepfashion"]),
    "darn_c2s": ("ffa7f6e1ee", ["darn"]),
    "flam_cls": ("9520f131d2", []),
    "flam_darn": ("e992866018", ["darn"]),
    "flam_fir_c2s": ("becc951893", ["deepfashion-c2s"]),
    "flam_fir_inshop": ("d11774f71b", ["deepfashion-inshop"]),
    "flam_s100k": ("91479119dc", ["shopping100k"]),
    "fsn_df_1": ("19eb99c676", ["deepfashion"]),
    "fsn_df_query": ("2585119c52", ["deepfashion"]),
    "fsn_region": ("e6fff21f94", ["garments"]),
    "fsn_s100k_1": ("e0ce395a21", ["shopping100k"]),
    "fsn_s100k_query": ("1138cc548c", ["shopping100k"]),
}
"""The beginning of each digest, and the data that each is defined on. A change here is a change of the task."""

SEARCHED = [name for name in EXACT if load_protocol(name).kind == "retrieval"]


def test_every_protocol_of_a_paper_is_what_it_was():
    shipped = {name for name in recipe.names("protocols") if load_protocol(name).paper}
    assert shipped == set(EXACT)
    found = {name: load_protocol(name) for name in EXACT}
    assert {
        name: (protocol.digest[:10], list(protocol.sample.data) if protocol.sample else [])
        for name, protocol in found.items()
    } == EXACT


@pytest.mark.parametrize("name", EXACT)
def test_every_protocol_of_a_paper_says_what_it_needs(name):
    protocol = load_protocol(name)
    assert protocol.exact
    assert protocol.description
    told = needs(name)
    assert told.startswith(f"{protocol.paper}; needs ")
    assert all(data in told for data in EXACT[name][1])
    if protocol.sample and protocol.sample.gallery:
        assert f"{protocol.sample.gallery:,}" in told
    assert (Path(__file__).parents[2] / "docs" / "protocols.md").read_text().count(f"`{name}`")


# ------------------------------------------------------------------------------------- on small data


SIZES = {"category": 4, "clothes colour": 3, "pattern": 3, "texture": 3, "shape": 2}


def small(pictures: int = 700, missing: float = 0.0, seed: int = 3) -> Dataset:
    """A catalogue of two shop photos per item and a street photo of every third, with an official split of items."""
    item = np.concatenate((np.arange(pictures) // 2, np.arange(0, pictures // 2, 3)))
    schema = AttributeSchema(tuple(SIZES), tuple(tuple(f"v{i}" for i in range(n)) for n in SIZES.values()))
    labels = random_labels(len(item), tuple(SIZES.values()), missing, seed)
    split = np.array([Split.TRAIN, Split.VAL, Split.TEST, Split.TEST], np.int8)[item % 4]
    domain = (np.arange(len(item)) >= pictures).astype(np.int8)
    image = np.arange(len(item)).astype(np.str_)
    return Dataset(Catalog(schema, image, labels, item, split, domain), Noise())


def as_published(data: Dataset) -> Dataset:
    """Every third shop photo of the test split asks, and is not searched; requests are published."""
    shop = gallery_of(data)
    asking, searched = shop[::3], np.setdiff1d(shop, shop[::3])
    requests = mine(data.catalog, asking, searched, changes=1, limit=50, seed=5)
    return data._replace(queries=asking, requests=requests)


ROOM = Room(200, 60)


def data_for(name: str, room: Room | None = ROOM) -> Dataset:
    if name == "fsn_region":
        return GarmentsReader(train=10, val=10, test=400).read()
    protocol = load_protocol(name)
    data = small() if name == "darn_c2s" or protocol.hit == "attributes" else as_published(small())
    if protocol.requests == "published":
        data = as_published(data)._replace(queries=None)
    data = sampled(data, protocol.sample, name, "x", room)
    return folded(data, 1) if protocol.sample.split == "folds" else data


def vectors(data: Dataset, protocol: Protocol, rows: np.ndarray, requests, how: str) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of gallery and requests: what is looked for itself, or noise."""
    rng = np.random.default_rng(0)
    if how == "random":
        return (rng.standard_normal((n, 16)).astype(np.float32) for n in (len(rows), len(requests)))
    if protocol.hit == "instance":
        place = rng.standard_normal((int(data.catalog.item.max()) + 1, 32)).astype(np.float32)
        return place[data.catalog.item[rows]], place[data.catalog.item[requests.query]]
    one_hot = requests.schema.one_hot
    return tuple(
        one_hot(torch.from_numpy(labels.astype(np.int64))).numpy()
        for labels in (gallery_labels(data, rows, protocol), requests.target)
    )


def report_of(name: str, how: str):
    data, config = data_for(name), EvaluationConfig(gallery=200, requests=60, protocols=[name], shrink=True)
    rows = gallery_of(data)
    asked, notes = ask_all(data, rows, config)
    assert not notes
    protocol, requests = asked[name]
    gallery, queries = vectors(data, protocol, rows, requests, how)
    report = evaluate(
        gallery,
        queries,
        protocol=protocol,
        targets=requests.target,
        gallery_labels=gallery_labels(data, rows, protocol),
        exclude=exclusions(requests, rows) if protocol.exclude_query else None,
        changed=requests.attribute,
        gallery_items=data.catalog.item[rows],
        query_items=data.catalog.item[requests.query],
        gallery_keys=rows,
        infeasible="miss" if protocol.requests == "published" else "error",
        resamples=0,
    )
    return data, protocol, requests, report


@pytest.mark.parametrize("name", SEARCHED)
def test_who_knows_what_is_looked_for_finds_it_first(name):
    data, protocol, requests, report = report_of(name, "oracle")
    first = min(protocol.k)
    assert report.metrics[f"accuracy@{first}"].value == 1
    assert report.requests == len(requests) > 20
    assert (data.catalog.split[requests.query] == Split.TEST).all()
    if protocol.queries == "apart":
        assert not np.isin(requests.query, gallery_of(data)).any()
    if protocol.mrr_item:
        assert report.metrics["mrr@1000"].value == 1 > report.metrics["mrr_item@1000"].value > 0
        assert set(report.by_changes) == {1, 2}
    if protocol.asked:
        assert {requests.schema.names[m] for m in np.unique(requests.attribute[:, 0])} == set(protocol.asked)


@pytest.mark.parametrize("name", ["amgan_s100k", "flam_s100k", "fsn_s100k_1", "flam_fir_inshop"])
def test_guessing_is_chance(name):
    _, protocol, _, report = report_of(name, "random")
    k = protocol.k[-1] if name.startswith("amgan") else 20
    found, chance = (report.metrics[f"{metric}@{k}"].value for metric in ("accuracy", "chance"))
    assert found == pytest.approx(chance, abs=0.2)


def test_what_is_exact_is_not_shrunk_without_leave():
    with pytest.raises(UserError, match="amnet_darn_1 needs 200,000 images searched, 5,000 others ask"):
        data_for("amnet_darn_1", room=None)
    with pytest.raises(UserError, match="flam_fir_inshop needs 12,612 images searched"):
        data_for("flam_fir_inshop", room=None)


def test_how_the_data_must_be_read_is_said_before_and_when_they_are_too_few():
    catalog = Catalog(
        AttributeSchema.from_dict({"texture": ["a", "b"]}),
        np.array([str(i) for i in range(20)]),
        np.zeros((20, 1), np.int16),
        np.arange(20),
        np.full(20, Split.TRAIN, np.int8),
        np.full(20, Domain.SHOP, np.int8),
    )
    advice = "--data.attributes category,texture,fabric,shape,part,style --data.multiple missing"
    sample = load_protocol("amnet_df_texture").sample
    with pytest.raises(UserError, match=rf"holds 20 shop photos: .*read them with {advice}, or try"):
        sampled(Dataset(catalog, Noise()), sample, "amnet_df_texture", "deepfashion")
    assert f"read with {advice}" in needs("amnet_df_texture")


def test_fewer_requests_than_the_paper_asked_are_refused(monkeypatch):
    protocol = replace(
        load_protocol("amnet_darn_1"),
        sample=Sample(("darn",), split="drawn", gallery=200, queries=40),
        requests=80,
        sweep=(),
    )
    monkeypatch.setattr("fm_bench.questions.load_protocol", lambda name: protocol)
    data = sampled(small(), protocol.sample, "p", "x")
    config = EvaluationConfig(protocols=["amnet_darn_1"])
    check_protocols(config, data)
    requests = ask(data, gallery_of(data), protocol, limit_of(config, protocol))
    assert len(requests) == 80
    assert len(np.unique(requests.query)) == 40  # one of every picture comes first
    protocol = replace(protocol, requests=1000)
    with pytest.raises(UserError, match=r"asks 1,000 requests, but these data allow \d+:"):
        check_protocols(config, data)


def test_limits():
    config = EvaluationConfig(requests=100)
    many = [load_protocol(name) for name in ("search", "fsn_s100k_1", "amnet_darn_1", "adde_m")]
    assert [limit_of(config, protocol) for protocol in many] == [100, None, 5000, None]
    assert [limit_of(replace(config, shrink=True), protocol) for protocol in many] == [100, 100, 100, 100]


# ------------------------------------------------------------------------------------- which pictures a run is about


def test_a_run_is_about_one_sample():
    names = ("shopping100k", "shopping100k")
    name, sample = sample_of(["fsn_s100k_1", "fsn_s100k_query"], names)
    assert (name, sample.gallery) == ("fsn_s100k_1", 20_021)
    assert sample_of(["manipulate-1", "search"], names) is None
    with pytest.raises(UserError, match="fsn_s100k_1 and manipulate-1 are not about the same pictures"):
        sample_of(["fsn_s100k_1", "manipulate-1"], names)
    with pytest.raises(UserError, match="fsn_s100k_1 and flam_s100k are not about the same pictures"):
        sample_of(["fsn_s100k_1", "flam_s100k"], names)
    with pytest.raises(UserError, match="darn_c2s is defined on darn, not on garments: give --data darn"):
        sample_of(["darn_c2s"], ("garments", "garments"))


def test_what_is_like_another_has_its_sample():
    for data, gallery in (("darn", 5000), ("shopping100k", 2000)):
        _, sample = sample_of(["flam_cls"], ("mine", data))
        assert sample.gallery == gallery
        assert alike("flam_cls", sample, (data,))
        assert not alike("classification", sample, (data,))
    assert not alike("flam_cls", None, ("garments",))
    assert alike("search", None, ("garments",))


# ------------------------------------------------------------------------------------- mixed requests


def test_mixed_requests_are_one_of_every_picture_in_the_wanted_proportion():
    catalog = small().catalog
    rows = np.flatnonzero(catalog.domain == Domain.SHOP)
    requests = mixed(catalog, rows[:300], rows, one_change=0.24, limit=None, seed=0)
    assert len(np.unique(requests.query)) == len(requests) > 290
    assert (requests.changes == 1).sum() == round(0.24 * len(requests))
    assert set(np.unique(requests.changes)) == {1, 2}
    singles = mine(catalog, rows[:300], rows, changes=1, limit=None, cap=1, seed=0)
    either = dict(zip(singles.query.tolist(), singles.target.tolist(), strict=True))
    ones = requests.select(requests.changes == 1)
    assert all(either[row] == target for row, target in zip(ones.query.tolist(), ones.target.tolist(), strict=True))
    fewer = mixed(catalog, rows[:300], rows, one_change=0.24, limit=40, seed=0)
    assert np.array_equal(fewer.query, requests.query[:40])
    assert mixed(catalog, rows[:300], rows, one_change=0.5, limit=None, seed=0).changes.mean() == pytest.approx(1.5)


def test_pictures_that_allow_one_number_of_changes_get_it():
    schema = AttributeSchema(("a", "b"), (("0", "1"), ("0", "1", "2")))
    zeros = np.zeros(2, np.int8)

    def changes(other: list[int], share: float) -> list[int]:
        labels = np.array([[0, 0], other], np.int16)
        catalog = Catalog(schema, np.array(["0", "1"]), labels, np.arange(2), zeros + 2, zeros)
        rows = np.arange(2)
        return mixed(catalog, rows, rows, one_change=share, limit=None, seed=0).changes.tolist()

    assert changes([0, 2], 0.0) == [1, 1]
    assert changes([1, 2], 0.9) == [2, 2]
    with pytest.raises(UserError, match="no feasible 1-attribute request"):
        changes([0, 0], 0.5)


def test_pictures_that_allow_one_number_count_for_the_share():
    """Two pictures allow one change alone, four allow either; the first three attributes keep the groups apart."""
    labels = [[0, 0, 0, 0, 0], [0, 0, 0, 1, 0], *([1, 1, 1, a, b] for a in (0, 1) for b in (0, 1))]
    schema = AttributeSchema(tuple("vwxab"), (("0", "1"),) * 5)
    zeros, rows = np.zeros(6, np.int8), np.arange(6)
    catalog = Catalog(schema, rows.astype(np.str_), np.array(labels, np.int16), rows, zeros + 2, zeros)
    for share, ones in ((0.5, 3), (0.9, 5), (0.1, 2)):
        requests = mixed(catalog, rows, rows, one_change=share, limit=None, seed=0)
        assert sorted(requests.query.tolist()) == rows.tolist()
        single = requests.query[requests.changes == 1]
        assert len(single) == ones
        assert {0, 1} <= set(single.tolist())


# ------------------------------------------------------------------------------------- the designated image


@pytest.mark.parametrize("excluded", [False, True])
def test_the_designated_image_is_ranked_as_in_the_whole_list(excluded):
    rng = np.random.default_rng(2)
    labels, targets = rng.integers(0, 3, (300, 3)), rng.integers(0, 3, (40, 3))
    gallery, queries = (rng.integers(0, 3, (n, 4)).astype(np.float32) for n in (300, 40))
    exclude = rng.integers(0, 300, 40) if excluded else np.full(40, -1)
    protocol = Protocol("x", 1, k=(5,), ndcg=(), mrr=(), mrr_item=(20, 1000), exclude_query=excluded)
    found = evaluate(
        gallery, queries, protocol=protocol, targets=targets, gallery_labels=labels, exclude=exclude, resamples=0
    )
    hits = Hits(Codes.of(targets, labels, "query_labelled"), exclude, None, 1)
    image = designated(hits, order_of_hits(np.arange(300), np.arange(40), 0))
    assert (labels[image] == targets).all()
    everything = replace(protocol, k=(299,), mrr_item=())
    whole = evaluate(
        gallery, queries, protocol=everything, targets=targets, gallery_labels=labels, exclude=exclude, resamples=0
    )
    rank = np.array([list(ids).index(one) + 1 for ids, one in zip(whole.ranking.ids, image, strict=True)])
    assert np.allclose(found.per_request["mrr_item@1000"], 1 / rank)
    assert np.allclose(found.per_request["mrr_item@20"], np.where(rank <= 20, 1 / rank, 0))
