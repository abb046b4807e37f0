# SPDX-License-Identifier: MIT
"""The worked examples of the specification, and torchmetrics where the definitions coincide."""

import itertools

import numpy as np
import pytest
import torch
from torchmetrics.retrieval import RetrievalHitRate, RetrievalMRR, RetrievalNormalizedDCG

from fm_bench.evaluation import metrics, relevance
from fm_bench.evaluation.relevance import Codes, Matches, join, row_codes

NEEDED = np.array([4])


def test_ndcg_of_the_worked_example():
    matched, best = np.array([[4, 2, 0, 3]]), np.array([[4, 4, 3, 3]])  # rel 1, .5, 0, .75 against 1, 1, .75, .75
    ndcg, ones = metrics.ndcg(matched, best, NEEDED)
    assert ndcg[0, 3] == pytest.approx(0.686383, abs=1e-6)
    assert ones[0, 3] == pytest.approx(0.607030, abs=1e-6)
    assert metrics.dcg(metrics.gains(matched, NEEDED))[0, 3] == pytest.approx(1.554972, abs=1e-6)
    assert metrics.dcg(metrics.gains(best, NEEDED))[0, 3] == pytest.approx(2.265458, abs=1e-6)


@pytest.mark.parametrize(("k", "value"), [(4, 2.561606), (5, 2.948459), (10, 4.543559), (20, 7.040268)])
def test_normaliser_of_ones(k, value):
    assert metrics.dcg(np.ones((1, k)))[0, -1] == pytest.approx(value, abs=1e-6)


def test_misprinted_exponent_would_lift_everything_above_one_half():
    matched = np.array([[4, 2, 0, 3]])
    misprint = metrics.dcg(np.exp2(matched / 4 - 1))[0, -1] / metrics.dcg(np.ones((1, 4)))[0, -1]
    _, ones = metrics.ndcg(matched, matched, NEEDED)
    assert misprint == pytest.approx((1 + ones[0, -1]) / 2)
    assert misprint == pytest.approx(0.803515, abs=1e-6)


def test_gallery_normaliser_lies_between_list_and_ones():
    rng = np.random.default_rng(0)
    gallery = rng.integers(0, 5, (50, 200))
    found = gallery[:, :20]
    best = -np.sort(-gallery, axis=1)[:, :20]
    by_gallery, by_ones = metrics.ndcg(found, best, np.full(50, 4))
    by_list, _ = metrics.ndcg(found, -np.sort(-found, axis=1), np.full(50, 4))
    assert (by_ones[:, -1] <= by_gallery[:, -1] + 1e-12).all()
    assert (by_gallery[:, -1] <= by_list[:, -1] + 1e-12).all()


def test_reciprocal_rank_of_the_worked_example():
    rank = np.array([1, 4, 0, 12])
    assert metrics.reciprocal_rank(rank, 10).mean() == pytest.approx(0.3125)
    assert metrics.reciprocal_rank(rank, 1000).mean() == pytest.approx(1 / 3)
    assert metrics.accuracy(rank, 1).mean() == 0.25
    assert metrics.accuracy(rank, 10).mean() == 0.5


def test_reciprocal_rank_is_bounded_by_accuracies():
    rank = np.random.default_rng(0).integers(0, 40, 1000)
    top1, top10 = metrics.accuracy(rank, 1).mean(), metrics.accuracy(rank, 10).mean()
    mrr = metrics.reciprocal_rank(rank, 1000).mean()
    assert top1 + (top10 - top1) / 10 <= mrr <= top1 + (top10 - top1) / 2 + (1 - top10) / 11


def test_first_hit():
    hits = np.array([[0, 1, 1], [0, 0, 0], [1, 0, 0]], bool)
    np.testing.assert_array_equal(metrics.first_hit(hits), [2, 0, 1])


@pytest.mark.parametrize(
    ("n", "m", "k", "value"),
    [(200_000, 10, 20, 0.0010), (5_000, 5, 50, 0.049), (10, 0, 5, 0.0), (10, 6, 5, 1.0), (5, 1, 5, 1.0)],
)
def test_chance_of_the_worked_examples(n, m, k, value):
    chance = metrics.chance(np.array([m]), np.array([n]), k)[0, -1]
    assert chance == pytest.approx(value, abs=0.00051)
    assert value not in (0.0, 1.0) or chance == value


def test_chance_is_what_all_orders_give():
    hits = [sum(i in top for i in (0, 1)) > 0 for top in itertools.combinations(range(6), 3)]
    assert metrics.chance(np.array([2]), np.array([6]), 3)[0, -1] == pytest.approx(np.mean(hits))


def test_agrees_with_torchmetrics():
    rng = np.random.default_rng(0)
    matched, needed = rng.integers(0, 5, (30, 40)), np.full(30, 4)  # in the order of the ranking
    scores = torch.arange(40, 0, -1).float().repeat(30)
    index = torch.arange(30).repeat_interleave(40)
    gains, hits = torch.from_numpy(metrics.gains(matched, needed)).flatten(), torch.from_numpy(matched == 4).flatten()
    rank = metrics.first_hit(matched == 4)
    best = -np.sort(-matched, axis=1)
    for k in (1, 5, 40):
        ndcg, _ = metrics.ndcg(matched[:, :k], best[:, :k], needed)
        theirs = RetrievalNormalizedDCG(top_k=k)(scores, gains, indexes=index)
        assert ndcg[:, -1].mean() == pytest.approx(float(theirs), abs=1e-6)
        theirs = RetrievalHitRate(top_k=k)(scores, hits, indexes=index)
        assert metrics.accuracy(rank, k).mean() == pytest.approx(float(theirs))
        theirs = RetrievalMRR(top_k=k)(scores, hits, indexes=index)
        assert metrics.reciprocal_rank(rank, k).mean() == pytest.approx(float(theirs))


@pytest.mark.parametrize("kept", [relevance._KEPT, 0])
@pytest.mark.parametrize("missing", ["query_labelled", "strict_equal"])
@pytest.mark.parametrize("values", [3, 400])
def test_matches_count_the_whole_gallery(missing, values, kept, monkeypatch):
    monkeypatch.setattr(relevance, "_KEPT", kept)  # pairs beyond that are found anew
    rng = np.random.default_rng(values)
    # 60,000 images make several blocks; few of the values occur, so that there are matches of every size.
    labels = (rng.integers(-1, 3, (60_000, 6)) * (values // 3)).clip(-1)
    targets = labels[rng.integers(0, len(labels), 70)]
    codes = Codes.of(targets, labels, missing)
    matches = Matches(codes, 31)
    strict = missing == "strict_equal"
    equal = (labels[None] == targets[:, None]) & (strict | (targets[:, None] >= 0))
    matched = equal.sum(axis=2)
    needed = np.full(70, 6) if strict else (targets >= 0).sum(axis=1)
    np.testing.assert_array_equal(matches.relevant, (matched == needed[:, None]).sum(axis=1))
    without = np.where(np.arange(70) % 2, matched[:, 0], -1)
    ordered = -np.sort(-matched, axis=1)
    for row, own in enumerate(without):
        best = ordered[row].tolist()
        if own >= 0:
            best.remove(own)
        assert matches.best(30, without)[row].tolist() == best[:30]
    rows = np.array([50, 3, 51, 3])
    pair, image = matches.pairs(rows)
    assert (np.diff(pair) >= 0).all()
    expected = np.argwhere(matched[rows] == needed[rows, None])
    assert sorted(zip(pair.tolist(), image.tolist(), strict=True)) == sorted(map(tuple, expected.tolist()))


def test_pairs_that_were_left_out_once_are_never_taken_for_all(monkeypatch):
    rng = np.random.default_rng(0)
    labels, targets = rng.integers(0, 9, (20_000, 6)), rng.integers(0, 3, (4, 6))
    codes = Codes.of(targets, labels, "query_labelled")
    codes.gallery[-30:] = codes.target[0]  # hits in the last block too
    expected = Matches(codes, 5).pairs(np.arange(4))
    monkeypatch.setattr(relevance, "_KEPT", len(expected[0]) - 1)
    monkeypatch.setattr(relevance, "_WORDS", 1)
    for found, pairs in zip(Matches(codes, 5).pairs(np.arange(4)), expected, strict=True):
        np.testing.assert_array_equal(found, pairs)


@pytest.mark.parametrize("together", [7, 8192])
@pytest.mark.parametrize("first", [1, 4, 64])
@pytest.mark.parametrize("depth", [2, 20, 500])
def test_the_best_are_those_of_comparing_all_labels_however_many_blocks_they_come_from(
    monkeypatch, first, depth, together
):
    rng = np.random.default_rng(3)
    labels = rng.choice(3, (2_000, 7), p=[0.6, 0.3, 0.1])
    targets = np.where(rng.random((80, 7)) < 0.1, -1, labels[rng.integers(0, 2_000, 80)])
    targets[0] = -1
    monkeypatch.setattr(relevance, "_TARGETS", together)
    monkeypatch.setattr(relevance, "_FIRST", first)
    monkeypatch.setattr(relevance, "_WORDS", max(2, first))
    codes = Codes.of(targets, labels, "query_labelled")
    matched = codes.matched(np.tile(np.arange(2_000), (80, 1))).astype(int)
    left_out = matched.argmax(axis=1)  # one of the best
    left_out[::2] = -1
    matches = Matches(codes, depth + 1)
    found = matches.best(depth, np.where(left_out < 0, -1, matched[np.arange(80), left_out]))
    matched[np.flatnonzero(left_out >= 0), left_out[left_out >= 0]] = -1
    np.testing.assert_array_equal(found, -np.sort(-matched, axis=1)[:, :depth])


def test_what_enough_images_reach_is_not_counted_on(monkeypatch):
    floors, reaching = [], relevance.BitPlanes.reaching

    def spy(self, floor, wanted, words, take):
        floors.append(floor)
        assert (floor <= wanted).all()
        reaching(self, floor, wanted, words, take)

    monkeypatch.setattr(relevance.BitPlanes, "reaching", spy)
    rng = np.random.default_rng(0)
    Matches(Codes.of(rng.integers(0, 3, (30, 8)), rng.integers(0, 3, (20_000, 8)), "query_labelled"), 20)
    assert (floors[0] == 0).all()
    assert (floors[-1] >= 5).all()  # 20,000 images of which (at random) one in eleven shares five of eight
    assert all((before <= after).all() for before, after in itertools.pairwise(floors))


def test_the_more_values_targets_have_the_fewer_words_are_counted_at_a_time(monkeypatch):
    rng = np.random.default_rng(1)
    codes = Codes.of(rng.integers(0, 20, (300, 9)), rng.integers(0, 20, (3_000, 9)), "query_labelled")
    expected = Matches(codes, 20)
    taken, sums = [], relevance.BitPlanes.sums

    def spy(self, words):
        made = sums(self, words)
        taken.append(sum(digit.numel() for digits in made.digits for digit in digits))
        return made

    monkeypatch.setattr(relevance.BitPlanes, "sums", spy)
    monkeypatch.setattr("fm_bench.evaluation.bitplanes._SUMS", 10_000)
    found = Matches(codes, 20)
    assert 5_000 < max(taken) <= 10_000  # at most 300 x 3 sets x 2 digits a word: five words of the 47
    np.testing.assert_array_equal(found.best(19, np.full(300, -1)), expected.best(19, np.full(300, -1)))
    np.testing.assert_array_equal(found.relevant, expected.relevant)


def test_row_codes_survive_more_vectors_than_integers():
    rows = np.random.default_rng(0).integers(0, 60_000, (50, 12))
    rows[25:] = rows[:25]
    code = row_codes(rows)
    assert len(np.unique(code)) == 25
    np.testing.assert_array_equal(code[:25], code[25:])


def test_join_finds_all_pairs():
    left, right = np.array([3, 1, 7, 3]), np.array([1, 3, 3, 9])
    assert set(zip(*map(np.ndarray.tolist, join(left, right)), strict=True)) == {(0, 1), (0, 2), (1, 0), (3, 1), (3, 2)}
