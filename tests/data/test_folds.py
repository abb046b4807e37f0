# SPDX-License-Identifier: MIT
"""Five splits of the same data: disjoint tests, nothing that belongs together apart, the same draw for everyone."""

from dataclasses import replace

import fakes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fm_bench.catalog import Dataset, Domain, Split
from fm_bench.config import configure, cross_validation
from fm_bench.data.folds import CHUNKS, FOLDS, NOTE, chunks, folded, whole_digest
from fm_bench.data.garments import GarmentsReader
from fm_bench.data.readers.fashion_product import FashionProductReader
from fm_bench.data.readers.table import TableReader
from fm_bench.errors import UserError
from fm_bench.run_folder import digest_of
from tests.data.catalogues import dataset


def names(data: Dataset, split: Split) -> set[str]:
    catalog = data.catalog
    return set(catalog.image[catalog.rows(split)].tolist())


def parted(data: Dataset, groups: np.ndarray) -> bool:
    """Whether a split parts a group."""
    return any(len(set(data.catalog.split[groups == group].tolist())) > 1 for group in np.unique(groups))


def test_five_disjoint_tests_of_a_tenth_each_beside_as_much_validation():
    whole = dataset((300, 100, 100))
    folds = [folded(whole, fold) for fold in range(FOLDS)]
    tests, vals = ([names(data, split) for data in folds] for split in (Split.TEST, Split.VAL))
    held_out = [*tests, *vals]
    assert all(len(part) == 50 for part in held_out)
    assert len(set.union(*held_out)) == 500  # ten chunks that do not overlap, and everything is in one of them
    chunk = chunks(whole.catalog.image, whole.catalog.item)
    for fold, (data, test, val) in enumerate(zip(folds, tests, vals, strict=True)):
        assert test == set(whole.catalog.image[chunk == 2 * fold].tolist())
        assert val == set(whole.catalog.image[chunk == 2 * fold + 1].tolist())
        assert names(data, Split.TRAIN) == set(whole.catalog.image.tolist()) - test - val
        assert data.notes == (*whole.notes, NOTE)
        assert data.source is whole.source
        for column in ("image", "labels", "item", "domain"):
            assert np.array_equal(getattr(data.catalog, column), getattr(whole.catalog, column))


def test_the_draw_knows_neither_the_readers_split_nor_the_order_of_rows():
    whole = dataset()
    other = whole._replace(catalog=replace(whole.catalog, split=whole.catalog.split[::-1].copy()))
    turned = whole._replace(catalog=whole.catalog.select(np.arange(len(whole.catalog))[::-1].copy()))
    for fold in range(FOLDS):
        split = folded(whole, fold).catalog.split
        assert np.array_equal(split, folded(whole, fold).catalog.split)
        assert np.array_equal(split, folded(other, fold).catalog.split)
        assert np.array_equal(split, folded(turned, fold).catalog.split[::-1])


def test_another_data_set_is_drawn_otherwise():
    """Chunks follow names, so that equal positions in two catalogues are not tested together."""
    whole = dataset()
    renamed = whole._replace(catalog=replace(whole.catalog, image=np.char.add("x", whole.catalog.image)))
    assert not np.array_equal(folded(whole, 0).catalog.split, folded(renamed, 0).catalog.split)


@given(arrays(np.int64, st.integers(10, 200), elements=st.integers(0, 39)))
def test_chunks_are_as_equal_as_whole_groups_allow(group):
    group = np.unique(group, return_inverse=True)[1].astype(np.int64)
    image = np.arange(len(group)).astype(np.str_)
    if group.max() + 1 < CHUNKS:
        with pytest.raises(UserError, match=r"groups .* at least 10"):
            chunks(image, group)
        return
    chunk = chunks(image, group)
    sizes = np.bincount(chunk, minlength=CHUNKS)
    assert sizes.min() > 0
    assert sizes.max() - sizes.min() <= np.bincount(group).max()
    assert all(len(set(chunk[group == number].tolist())) == 1 for number in range(group.max() + 1))


def test_items_of_several_views_and_both_domains_stay_together():
    whole = GarmentsReader(train=300, val=80, test=120, street=0.33).read()
    for fold in range(FOLDS):
        data = folded(whole, fold)
        assert not parted(data, data.catalog.item)
        assert data.regions is whole.regions
        for split in Split:
            assert set(data.catalog.domain[data.catalog.rows(split)].tolist()) == {Domain.SHOP, Domain.STREET}
        sizes = np.bincount(data.catalog.split)
        assert abs(sizes[Split.TEST] - 50) <= 3
        assert abs(sizes[Split.VAL] - 50) <= 3


def test_identical_photos_of_a_catalogue_stay_together(tmp_path):
    root = fakes.fashion_product(tmp_path, items=120)
    original = (root / "images" / "1000.jpg").read_bytes()
    for number in range(1001, 1013):
        (root / "images" / f"{number}.jpg").write_bytes(original)
    whole = FashionProductReader(str(root), min_count=2).read()
    same = np.isin(whole.catalog.image, [f"images/{number}.jpg" for number in range(1000, 1013)])
    assert same.sum() == 13
    for fold in range(FOLDS):
        assert len(set(folded(whole, fold).catalog.split[same].tolist())) == 1


def test_identical_photos_under_two_item_numbers_stay_together(tmp_path):
    """A table's own item column does not know that files are the same; its reader's split does, and so do folds."""
    for number in range(60):
        (tmp_path / f"{number}.png").write_bytes(fakes.png(fakes.picture((200, 40, 40), number // 2)))
    lines = [f"{number}.png,item{number},{'red' if number // 2 % 3 else 'blue'}" for number in range(60)]
    (tmp_path / "table.csv").write_text("\n".join(["path,item,colour", *lines]) + "\n")
    whole = TableReader(str(tmp_path), "table.csv", "path", item="item", min_count=1).read()
    assert len(np.unique(whole.catalog.item)) == 60
    pair = np.array([int(name.removesuffix(".png")) // 2 for name in whole.catalog.image])
    assert not parted(whole, pair)
    for fold in range(FOLDS):
        assert not parted(folded(whole, fold), pair)


def test_too_few_groups_are_one_sentence():
    whole = dataset((4, 3, 2))
    with pytest.raises(UserError, match="have 9 groups of pictures"):
        folded(whole, 0)
    assert len(folded(dataset((4, 3, 3)), 4).catalog.rows(Split.TEST)) == 1


@pytest.mark.parametrize("fold", [-1, 5])
def test_there_are_five_folds(fold):
    with pytest.raises(UserError, match="give 0 to 4"):
        folded(dataset(), fold)


def test_every_fold_has_a_digest_of_its_own_and_all_know_what_they_are_folds_of():
    whole = dataset()
    folds = [folded(whole, fold) for fold in range(FOLDS)]
    assert len({digest_of(data) for data in [whole, *folds]}) == FOLDS + 1
    assert len({whole_digest(data) for data in [whole, *folds]}) == 1
    labels = whole.catalog.labels.copy()
    labels[0, 0] = 1 - labels[0, 0]
    assert whole_digest(whole._replace(catalog=replace(whole.catalog, labels=labels))) != whole_digest(whole)
    assert whole_digest(dataset(unreadable=(3,))) != whole_digest(whole)  # other pictures


# ---------------------------------------------------------------------- runs


def small(*options: str):
    sizes = ["--data.train", "100", "--data.val", "40", "--data.test", "60"]
    return configure("random", "garments", "smoke", "common", 0, [*sizes, *options])


def test_runs_of_a_cross_validation_differ_in_the_fold_alone():
    plain = small()
    runs = cross_validation(plain)
    assert [run.fold for run in runs] == [0, 1, 2, 3, 4]
    for run in runs:
        numeric = run.numeric()
        assert numeric.pop("fold") == run.fold
        assert numeric.pop("folded") == whole_digest(plain.read())
        assert numeric == plain.numeric()
        assert type(run).from_dict(run.to_dict()) == run
        assert np.array_equal(run.read().catalog.split, folded(plain.read(), run.fold).catalog.split)


def test_ordinary_runs_hold_no_trace_of_folds():
    """Their configurations and digests are what they were before there were folds, so that records stay comparable."""
    plain = small()
    assert not {"fold", "folded"} & set(plain.numeric())
    stored = {name: value for name, value in plain.to_dict().items() if name not in ("fold", "folded")}
    assert type(plain).from_dict(stored) == plain  # as written before there were folds
    assert np.array_equal(plain.read().catalog.split, np.repeat([0, 1, 2], [100, 40, 60]))


def test_folds_of_cut_pictures_are_cut():
    run = cross_validation(small("--loader.crop", "true"))[1]
    data = run.read()
    assert "cut to the garment's box" in data.notes[-1]
    assert run.folded != cross_validation(small())[1].folded


def test_data_that_change_between_folds_are_refused():
    run = cross_validation(small())[2]
    with pytest.raises(UserError, match="have changed since their cross-validation began"):
        replace(run, reader=run.reader | {"seed": 7}).read()
