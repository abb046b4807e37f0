# SPDX-License-Identifier: MIT
"""What protocols ask of a data set, and what methods are told of it."""

import numpy as np
import pytest

from fm_bench.catalog import Domain, Split
from fm_bench.data.garments import GarmentsReader
from fm_bench.data.regions import REGIONS, WHOLE
from fm_bench.errors import UserError
from fm_bench.evaluation.protocol import Protocol
from fm_bench.questions import ask, ask_all, check_protocols, gallery_labels, load_protocol, wishes
from fm_bench.recipe import EvaluationConfig


@pytest.fixture(scope="module")
def street():
    return GarmentsReader(train=20, val=20, test=600, street=0.3).read()


def gallery_of(dataset) -> np.ndarray:
    rows = dataset.catalog.rows(Split.TEST)
    return rows[dataset.catalog.domain[rows] == Domain.SHOP]


def test_instance_requests_are_street_photos_whose_item_is_on_offer(street):
    catalog, gallery = street.catalog, gallery_of(street)
    requests = ask(street, gallery, load_protocol("instance"), None)
    assert (catalog.domain[requests.query] == Domain.STREET).all()
    assert (catalog.split[requests.query] == Split.TEST).all()
    assert np.isin(catalog.item[requests.query], catalog.item[gallery]).all()
    assert len(np.unique(requests.query)) == len(requests) > 100
    assert (requests.changes == 0).all()
    assert np.array_equal(requests.target, catalog.labels[requests.query])
    fewer = ask(street, gallery, load_protocol("instance"), 40)
    assert np.array_equal(fewer.query, requests.query[:40])


def test_only_items_of_the_searched_gallery_are_asked_for(street):
    catalog, gallery = street.catalog, gallery_of(street)[:50]
    requests = ask(street, gallery, load_protocol("instance"), None)
    everyone = ask(street, gallery_of(street), load_protocol("instance"), None)
    inside = np.isin(catalog.item[everyone.query], catalog.item[gallery])
    assert sorted(requests.query) == sorted(everyone.query[inside])
    assert len(requests) < len(everyone)


def test_a_picture_does_not_find_itself(street):
    """Shop photos as queries of their own gallery need another picture of their item there."""
    catalog, gallery = street.catalog, gallery_of(street)
    requests = ask(street, gallery, Protocol("twins", 0, hit="instance"), None)
    items, count = np.unique(catalog.item[gallery], return_counts=True)
    assert np.isin(catalog.item[requests.query], items[count > 1]).all()
    assert len(requests) == count[count > 1].sum()


def test_data_without_street_photos_cannot_answer():
    plain = GarmentsReader(train=20, val=20, test=100).read()
    with pytest.raises(UserError, match="instance search needs data with several pictures of an item"):
        ask(plain, gallery_of(plain), load_protocol("instance"), None)
    asked, problems = ask_all(plain, gallery_of(plain), EvaluationConfig(protocols=["search", "instance"]))
    assert list(asked) == ["search"]
    assert problems[0].startswith("instance: ")
    with pytest.raises(UserError, match="instance search needs"):
        check_protocols(EvaluationConfig(protocols=["instance"]), plain)
    with pytest.raises(UserError, match=r"looks at k = 50 images, but the gallery has 30"):
        check_protocols(EvaluationConfig(protocols=["search"], gallery=30), plain)


def test_requests_about_regions_name_value_and_region(street):
    catalog, gallery, protocol = street.catalog, gallery_of(street), load_protocol("region")
    requests = ask(street, gallery, protocol, 80)
    labels = gallery_labels(street, gallery, protocol)
    A = catalog.schema.num_attributes
    assert labels.shape == (len(gallery), A + 2)
    assert np.array_equal(labels[:, :A], catalog.labels[gallery])
    assert (requests.attribute[:, 0] >= A).all()
    match = ((labels[None] == requests.target[:, None]) | (requests.target[:, None] < 0)).all(-1)
    match &= gallery[None] != requests.query[:, None]
    assert match.any(1).all()
    attribute, region = wishes(requests, catalog.schema, street.regions)
    colour = catalog.schema.attribute("colour")
    assert (attribute == [colour, -1]).all()
    assert {REGIONS[r] for r in region} == {"sleeves", "collar"}
    plain = ask(street, gallery, load_protocol("manipulate-1"), 80)
    attribute, region = wishes(plain, catalog.schema, None)
    assert np.array_equal(attribute, plain.attribute)
    assert (region == WHOLE).all()
