# SPDX-License-Identifier: MIT
import torch

from fm_bench.methods import METHODS, Context
from fm_bench.methods.attribute_based import MATCH_SCALE, AttributeBased
from fm_bench.methods.bounds import Oracle, Random

ATTRIBUTES = {"colour": ["red", "blue", "green"], "sleeve": ["none", "short"]}


def _context(labels, index=None):
    index = torch.arange(len(labels)) if index is None else index
    return Context(labels, torch.zeros(len(labels), dtype=torch.long), index)


def test_random_vectors_are_reproducible_spread_out_and_unrelated():
    method, labels = Random(ATTRIBUTES), torch.zeros(2000, 2, dtype=torch.long)
    images = torch.zeros(2000, 3, 1, 1)
    gallery = method.embed_gallery(images, _context(labels))
    assert torch.equal(gallery, method.embed_gallery(images, _context(labels)))
    assert gallery.mean().abs() < 0.01
    assert (gallery.T @ gallery / 2000 - torch.eye(64) / 3).abs().max() < 0.05  # uniform on [-1, 1]: variance 1/3
    indicator = method.schema.indicator([("colour", "red")]).expand(2000, -1)
    query = method.embed_query(images, indicator, _context(labels))
    assert (query.T @ gallery / 2000).abs().max() < 0.05
    other = method.embed_query(images, method.schema.indicator([("colour", "blue")]).expand(2000, -1), _context(labels))
    assert not torch.equal(query, other)
    assert not torch.equal(Random(ATTRIBUTES, seed=1).embed_gallery(images, _context(labels)), gallery)


def test_oracle_puts_exact_matches_first_and_missing_labels_match_nothing():
    method = Oracle(ATTRIBUTES)
    gallery = torch.tensor([[1, 0], [1, 1], [-1, 0], [0, -1], [2, 1]])
    query = torch.tensor([[0, 0]])
    h = method.schema.indicator([("colour", "blue")]).unsqueeze(0)
    vectors = method.embed_gallery(torch.zeros(5, 3, 1, 1), _context(gallery))
    wanted = method.embed_query(torch.zeros(1, 3, 1, 1), h, _context(query))
    distances = (vectors - wanted).square().sum(-1)
    assert distances.tolist() == [0, 2, 2, 4, 4]  # two for every attribute that is another or missing

    blind = method.embed_query(torch.zeros(1, 3, 1, 1), h, _context(torch.tensor([[0, -1]])))
    assert (vectors - blind).square().sum(-1).tolist() == [1, 1, 3, 3, 3]  # the query's missing label favours nobody


def test_attribute_based_ranks_by_agreement_then_by_looks(monkeypatch):
    method = AttributeBased(ATTRIBUTES, backbone="resnet10t").eval()
    with torch.no_grad():
        images = torch.randn(40, 3, 32, 32)
        gallery = method.embed_gallery(images)
        query = method.embed_query(images[:1], method.schema.indicator([("colour", "green")]).unsqueeze(0))
    agreement = (gallery[:, :5] @ query[0, :5] / MATCH_SCALE**2).round()
    gallery, query = gallery.double(), query.double()
    looks = (gallery[:, 5:] - query[0, 5:]).square().sum(-1)
    distances = (gallery - query).square().sum(-1)
    order = sorted(range(40), key=lambda i: (-agreement[i].item(), looks[i].item()))
    assert distances.argsort().tolist() == order


def test_attribute_based_may_look_up_the_gallery_labels():
    method = AttributeBased(ATTRIBUTES, backbone="resnet10t", gallery_attributes="labels").eval()
    labels = torch.tensor([[2, 1], [0, 0]])
    with torch.no_grad():
        gallery = method.embed_gallery(torch.randn(2, 3, 32, 32), _context(labels))
    assert torch.equal((gallery[:, :5] > 0).float(), method.schema.one_hot(labels))
    assert method.needs_labels
    assert not AttributeBased(ATTRIBUTES, backbone="resnet10t").needs_labels


def test_every_method_declares_what_the_bench_reads():
    for name, method in METHODS.items():
        assert method.version >= 1, name
        assert len({stage.name for stage in method.stages}) == len(method.stages), name
        assert method.__doc__, name
