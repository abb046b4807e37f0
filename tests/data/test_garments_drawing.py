import cv2
import numpy as np
import pytest

from fm_bench.catalog import Domain
from fm_bench.data.garments import SCHEMA, GarmentSource, GarmentsReader
from fm_bench.data.garments.tones import COLLAR_SHARE, SLEEVE_SHARE
from fm_bench.data.garments.vocabulary import COLOURS, PALETTE
from fm_bench.data.preview import contact_sheet
from fm_bench.errors import UserError


@pytest.fixture(scope="module")
def source():
    return GarmentSource((200, 20, 20), street=0.3)


def _rows(source, domain, count=12):
    return np.flatnonzero(source.domain == domain)[:count].tolist()


def test_pictures_are_deterministic_and_of_the_asked_size(source):
    again = GarmentSource((200, 20, 20), street=0.3)
    for row in range(20):
        name = source.name(row)
        picture = source.read(name, (48, 40))
        assert picture.shape == (48, 40, 3)
        assert picture.dtype == np.uint8
        assert np.array_equal(picture, again.read(name, (48, 40)))


@pytest.mark.parametrize("domain", list(Domain))
def test_a_garment_looks_the_same_at_every_resolution(source, domain):
    for row in _rows(source, domain):
        small, large = (source.read(source.name(row), (side, side)).astype(float) for side in (64, 128))
        down = cv2.resize(large, (64, 64), interpolation=cv2.INTER_AREA)
        blurred = [cv2.GaussianBlur(picture, (0, 0), 0.8) for picture in (small, down)]
        assert np.abs(blurred[0] - blurred[1]).mean() < 5, source.name(row)
        others = source.read(source.name((row + 40) % 200), (64, 64)).astype(float)
        assert np.abs(small - down).mean() < 0.5 * np.abs(small - others).mean()


def test_two_pictures_of_an_item_differ(source):
    first = np.flatnonzero((source.item[1:] == source.item[:-1]) & (source.split[1:] == source.split[:-1]))[0]
    one, two = (source.read(source.name(int(row)), (64, 64)) for row in (first, first + 1))
    assert not np.array_equal(one, two)


@pytest.mark.parametrize("attribute", SCHEMA.names)
def test_every_value_of_every_attribute_is_drawn_differently(source, attribute):
    # Rows that hide as little as possible of each other's details.
    plain = {
        "category": "t-shirt",
        "pattern": "plain",
        "fabric": "jersey",
        "fastening": "none",
        "collar": "none",
        "pocket": "none",
    }
    plain |= {"length": "thigh", "sleeve length": "elbow", "colour": "red"}
    plain.pop(attribute, None)
    row = _rows(source, Domain.SHOP)[3]
    values = SCHEMA.values[SCHEMA.attribute(attribute)]
    pictures = [source.redraw(row, plain | {attribute: value}, (64, 64)).astype(float) for value in values]
    for i, one in enumerate(pictures):
        for j in range(i):
            changed = np.abs(one - pictures[j]).max(-1) > 24
            assert changed.sum() >= 12, (values[i], values[j])


@pytest.mark.parametrize("domain", list(Domain))
def test_redrawing_nothing_changes_nothing(source, domain):
    for row in _rows(source, domain):
        name = source.name(row)
        same = {n: SCHEMA.values[m][source.true_labels[row, m]] for m, n in enumerate(SCHEMA.names)}
        assert np.array_equal(source.redraw(row, {}, (64, 64)), source.read(name, (64, 64)))
        assert np.array_equal(source.redraw(name, same, (64, 64)), source.read(name, (64, 64)))


@pytest.mark.parametrize("domain", list(Domain))
def test_changing_the_colour_leaves_the_background_identical(source, domain):
    for row in _rows(source, domain):
        old = SCHEMA.values[1][source.true_labels[row, 1]]
        new = "yellow" if old != "yellow" else "navy"
        before, after = source.redraw(row, {}, (64, 64)), source.redraw(row, {"colour": new}, (64, 64))
        garment = np.any(list(source.parts(row, (64, 64)).values()), axis=0).astype(np.uint8)
        near = cv2.dilate(garment, np.ones((5, 5))) > 0
        assert np.array_equal(before[~near], after[~near])
        assert (np.abs(before.astype(int) - after)[garment > 0].max(-1) > 20).mean() > 0.3


@pytest.mark.parametrize(
    "change", [{"collar": "bow"}, {"pocket": "four pockets"}, {"sleeve length": "sleeveless"}, {"length": "cropped"}]
)
def test_changing_a_detail_leaves_what_lies_outside_both_garments_identical(source, change):
    for row in _rows(source, Domain.STREET, 6) + _rows(source, Domain.SHOP, 6):
        left, top, right, bottom = (source.boxes()[row] * 64).tolist()
        before, after = source.redraw(row, {}, (64, 64)), source.redraw(row, change, (64, 64))
        outside = np.ones((64, 64), bool)
        outside[max(0, int(top) - 4) : int(bottom) + 5, max(0, int(left) - 4) : int(right) + 5] = False
        assert np.array_equal(before[outside], after[outside])
        assert not np.array_equal(before, after) or "sleeve length" in change


def test_unknown_names_are_refused_with_the_nearest(source):
    with pytest.raises(UserError, match="colour"):
        source.redraw(0, {"color": "red"})
    with pytest.raises(UserError, match="V-neck"):
        source.redraw(0, {"neckline": "v-nek"})
    with pytest.raises(UserError, match="does not exist"):
        source.redraw(10_000, {})


def test_parts_lie_in_the_box_and_do_not_overlap(source):
    boxes = source.boxes()
    for row in _rows(source, Domain.SHOP, 25) + _rows(source, Domain.STREET, 25):
        masks = source.parts(row, (96, 96))
        stack = np.stack(list(masks.values()))
        assert stack.sum(0).max() == 1
        assert masks["torso"].mean() > 0.02
        y, x = np.nonzero(stack.any(0))
        left, top, right, bottom = boxes[row] * 96
        assert x.min() >= left - 2
        assert x.max() <= right + 2
        assert y.max() <= bottom + 2
        assert y.min() >= top - 2
        if source.domain[row] == Domain.SHOP:  # in the street something may stand in front
            assert x.min() <= left + 3
            assert x.max() >= right - 3
            assert y.min() <= top + 3
            assert y.max() >= bottom - 3


def test_parts_follow_the_labels(source):
    row = _rows(source, Domain.SHOP)[0]
    labels = dict(zip(SCHEMA.names, source.true_labels[row].tolist(), strict=True))
    masks = source.parts(row, (128, 128))
    assert masks["hood"].any() == (labels["category"] == SCHEMA.value("category", "hoodie"))
    assert masks["collar"].any() == (labels["collar"] != SCHEMA.value("collar", "none"))
    assert masks["pockets"].any() == (labels["pocket"] != SCHEMA.value("pocket", "none"))


def test_part_colours_are_what_the_picture_shows():
    source = GarmentSource((1500, 0, 0), street=0.0)
    plain = (source.true_labels[:, 2] == 0) & (source.true_labels[:, 3] == 0)
    names = list(COLOURS)
    sleeved = ~np.isin(
        source.true_labels[:, 6], [SCHEMA.value("sleeve length", "sleeveless"), SCHEMA.value("sleeve length", "cap")]
    )
    right, contrasting = [], 0
    for row in np.flatnonzero(plain & sleeved & (source.view == 0))[:120].tolist():
        picture, masks, colours = (
            source.read(source.name(row), (96, 96)),
            source.parts(row, (96, 96)),
            source.part_colours(row),
        )
        contrasting += colours["sleeves"] != colours["torso"]
        for part in ("torso", "sleeves"):
            seen = np.median(picture[masks[part]].astype(float), axis=0)
            order = np.argsort(((PALETTE - seen) ** 2).sum(1))[:4]
            right.append(names.index(colours[part]) in order)
    assert np.mean(right) > 0.8
    assert contrasting / 120 == pytest.approx(SLEEVE_SHARE, abs=0.1)
    collars = [source.part_colours(row) for row in range(0, 1500, 4)]
    assert np.mean([c["collar"] != c["torso"] for c in collars]) == pytest.approx(COLLAR_SHARE, abs=0.08)


def test_contact_sheet_is_written_for_any_dataset(tmp_path):
    dataset = GarmentsReader(train=20, val=4, test=8, street=0.3, missing=0.1).read()
    contact_sheet(dataset, tmp_path / "sheet.png", count=8)
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    assert sheet is not None
    assert min(sheet.shape[:2]) > 300
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]
