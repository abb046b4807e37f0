# SPDX-License-Identifier: MIT
"""In-shop and Consumer-to-shop Clothes Retrieval."""

import json
import shutil
from pathlib import Path

import fakes
import fakes_deepfashion as fake
import numpy as np
import pytest
from catalogues import values
from commands import bench

from fm_bench.catalog import Domain, Split
from fm_bench.cli import main
from fm_bench.data.readers.deepfashion_c2s import ConsumerToShopReader
from fm_bench.data.readers.deepfashion_inshop import InShopReader
from fm_bench.errors import UserError
from fm_bench.leaderboard.record import load

PARTITION = "Eval/list_eval_partition.txt"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake.write_inshop(tmp_path_factory.mktemp("inshop") / "benchmark")


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake.write_c2s(tmp_path_factory.mktemp("c2s") / "benchmark")


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """An In-shop of few items, to be edited."""
    return fake.write_inshop(tmp_path / "benchmark", items=12)


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """A Consumer-to-shop of few items, to be edited."""
    return fake.write_c2s(tmp_path / "benchmark", items=12)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


# --------------------------------------------------------------------------------------------------------- In-shop


def test_inshop_queries_gallery_and_a_validation_split_by_items(shop):
    data = InShopReader(str(shop)).read()
    catalog = data.catalog
    assert len(catalog) == 320
    assert catalog.image[0] == "img/MEN/Denim/id_00000001/01_1_front.jpg"
    assert data.queries.tolist() == [4 * n + 1 for n in range(0, 80, 2)]
    assert (catalog.split[data.queries] == Split.TEST).all()
    assert (catalog.split[np.arange(320) // 4 % 2 == 0] == Split.TEST).all()
    assert (catalog.domain == Domain.SHOP).all()
    by_item = catalog.split.reshape(80, 4)
    assert (by_item == by_item[:, :1]).all()
    assert (by_item[:, 0] == Split.VAL).sum() == 2  # 6 % of 40
    assert (catalog.item.reshape(80, 4) == np.arange(80)[:, None]).all()
    other = InShopReader(str(shop), split_seed=1).read().catalog
    assert (other.split != catalog.split).any()
    assert InShopReader(str(shop)).read().catalog.digest == catalog.digest


def test_inshop_items_that_share_a_file_are_on_one_side_of_the_validation_split(small):
    images = np.array([line.split()[0] for line in (small / PARTITION).read_text().splitlines() if "train" in line])
    first, second = images[:4], images[4:8]  # all of one item, and of another
    (small / "Img" / first[0]).write_bytes((small / "Img" / second[0]).read_bytes())
    seen = set()
    for seed in range(8):
        catalog = InShopReader(str(small), min_count=1, val_share=0.4, split_seed=seed).read().catalog
        together = catalog.split[np.isin(catalog.image, [*first, *second])]
        assert len(set(together.tolist())) == 1
        seen.add(int(together[0]))
    assert seen == {Split.TRAIN, Split.VAL}


def test_inshop_labels_are_those_of_the_files(shop):
    catalog = InShopReader(str(shop), min_count=1).read().catalog
    items = [n // 4 for n in range(320)]
    assert catalog.schema.names == ("gender", "category", "colour", "clothes_type")
    assert values(catalog, "gender") == [("MEN", "WOMEN", "WOMEN")[n % 3] for n in items]
    assert values(catalog, "category") == [("Denim", "Dresses", "Blouses_Shirts")[n % 3] for n in items]
    colours = [fake.COLOURS[n % 4] + ("" if n % 2 else " & White") for n in items]
    assert values(catalog, "colour") == colours
    assert values(catalog, "clothes_type") == [("upper_body", "lower_body", "full_body")[n % 3] for n in items]
    np.testing.assert_allclose(catalog.box[5], [3 / 30, 10 / 40, 22 / 30, 30 / 40])


def test_inshop_attributes_of_items_by_their_name(shop):
    catalog = InShopReader(str(shop), attributes="machine wash cold,pose,v-neck", min_count=1).read().catalog
    lines = (shop / "Anno/attributes/list_attr_items.txt").read_text().splitlines()[2:]
    told = {"1": "yes", "-1": "no", "0": None}
    for name, column in (("machine wash cold", 3), ("v-neck", 4)):
        assert values(catalog, name)[::4] == [told[line.split()[column]] for line in lines]
    assert values(catalog, "pose")[:4] == ["front", "side", "back", "zoom_out"]
    with pytest.raises(UserError, match=r"'machine wash warm' is not in .*choose among machine wash cold"):
        InShopReader(str(shop), attributes="machine wash warm").read()


def test_inshop_of_an_older_download(small):
    newer = InShopReader(str(small), min_count=1).read().catalog
    (small / "Anno/attributes/list_color_cloth.txt").unlink()
    for path in (small / "Anno/attributes").iterdir():
        path.rename(small / "Anno" / path.name)
    catalog = InShopReader(str(small), min_count=1).read().catalog
    assert values(catalog, "colour") == [fake.COLOURS[n // 4 % 4] for n in range(48)]  # the item's
    assert InShopReader(str(small), attributes="floral print", min_count=1).read().catalog.schema.num_values == 2
    entries = json.loads((small / "Anno/list_description_inshop.json").read_text())
    other = [entries[0] | {"color": "Zebra"}, entries[1]]  # another colour of the first item, the second one's again
    (small / "Anno/list_description_inshop.json").write_text(json.dumps(entries + other))
    colours = values(InShopReader(str(small), min_count=1).read().catalog, "colour")
    assert colours == [None if n < 4 else fake.COLOURS[n // 4 % 4] for n in range(48)]
    (small / "Anno/list_description_inshop.json").write_text("[" * 200_000)
    with pytest.raises(UserError, match="is not readable JSON"):
        InShopReader(str(small)).read()
    for content in ([{"id": entry["item"]} for entry in entries], {"items": []}, [1, None]):
        (small / "Anno/list_description_inshop.json").write_text(json.dumps(content))
        data = InShopReader(str(small), min_count=1).read()
        assert "colour" not in data.catalog.schema.names
        assert any("colour: the files do not say" in note for note in data.notes)
    shutil.rmtree(small / "Anno")
    data = InShopReader(str(small), min_count=1).read()
    assert data.catalog.schema.names == ("gender", "category")
    assert data.catalog.box is None
    assert "the annotations have no boxes" in data.notes
    assert data.catalog.split.tolist() == newer.split.tolist()
    with pytest.raises(UserError, match="'floral print' is not in"):
        InShopReader(str(small), attributes="floral print").read()


@pytest.mark.parametrize(
    ("name", "old", "new", "says"),
    [
        (PARTITION, "gallery", "galery", r"partition\.txt line 3 has 'galery' as evaluation_status"),
        (PARTITION, "img/MEN", "../MEN", r"partition\.txt line 3 names .* outside"),
        (
            PARTITION,
            " id_00000001 query",
            " id_00000099 query",
            r"line 4 has the item 'id_00000099', which .* not list",
        ),
        (PARTITION, "01_2_side", "01_1_front", r"partition\.txt line 4 repeats"),
        ("Anno/list_item_inshop.txt", "12 \n", "7982\n", r"says 7,982 rows on its first line but holds 12"),
        ("Anno/list_bbox_inshop.txt", "jpg  1  1", "jpg  4  1", r"inshop\.txt line 3 has '4' as clothes_type"),
        ("Anno/list_bbox_inshop.txt", "  003  010", "  010", r"inshop\.txt line 3 has 6 cells instead of 7"),
        ("Anno/list_description_inshop.json", '[{"item"', '[{"item', r"inshop\.json is not readable JSON"),
    ],
)
def test_mistakes_in_inshop_name_file_and_line(small, name, old, new, says):
    if name.endswith("json"):
        (small / "Anno/attributes/list_color_cloth.txt").unlink()
    edit(small / name, old, new)
    with pytest.raises(UserError, match=says):
        InShopReader(str(small), min_count=1).read()


def test_what_lists_of_inshop_leave_out_is_missing(small):
    listed = small / "Anno/list_bbox_inshop.txt"
    lines = listed.read_text().splitlines()
    listed.write_text("\n".join(["47", *lines[1:7], *lines[8:]]))  # without the sixth image
    edit(small / "Anno/attributes/list_attr_items.txt", "id_00000001", "id_99999999")
    catalog = InShopReader(str(small), attributes="clothes_type,v-neck", min_count=1).read().catalog
    types = values(catalog, "clothes_type")
    assert types == [("upper_body", "lower_body", "full_body")[i // 4 % 3] if i != 5 else None for i in range(48)]
    assert values(catalog, "v-neck")[:4] == [None] * 4
    np.testing.assert_array_equal(catalog.box[5], [0, 0, 1, 1])
    np.testing.assert_allclose(catalog.box[6], [3 / 30, 10 / 40, 22 / 30, 30 / 40])


def test_inshop_says_what_does_not_fit(small):
    text = (small / PARTITION).read_text().replace("gallery", "query")
    (small / PARTITION).write_text(text)
    (small / "Anno/list_bbox_inshop.txt").write_text("1\nhead\nimg/x.jpg 1 1 0 0 1 1\n")
    data = InShopReader(str(small), min_count=1).read()
    assert any("24 queries are of items that are not in the gallery" in note for note in data.notes)
    assert any("48 boxes are empty or not listed" in note for note in data.notes)
    with pytest.raises(UserError, match="must not be negative"):
        InShopReader(str(small), val_share=1.5).read()
    with pytest.raises(UserError, match=rf"pass --data\.root {small}\."):
        InShopReader(str(small.parent)).read()
    (small / PARTITION).write_bytes(fakes.LFS_POINTER)
    with pytest.raises(UserError, match="Git LFS pointer"):
        InShopReader(str(small)).read()


def test_inshop_through_the_command_line(shop, tmp_path, capsys):
    given = ["--data.root", str(shop)]
    assert main(["data", "info", "deepfashion-inshop", *given, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["items"] == 80
    asked = ["--evaluation.requests", "40", "--evaluation.protocols", "[search]"]
    trained = ["identity", "--budget", "32", "--evaluation.also", "[]"]
    assert bench(*trained, "--data", "deepfashion-inshop", *given, *asked, out=tmp_path / "run") == 0
    assert load(tmp_path / "run/record.json").gallery == 120  # four photos of 40 items, less one that asks


# ------------------------------------------------------------------------------------------------ Consumer-to-shop


def test_c2s_pairs_become_images_of_items_in_two_domains(street):
    data = ConsumerToShopReader(str(street)).read()
    catalog = data.catalog
    assert len(catalog) == len(np.unique(catalog.image)) == 560
    consumers = np.array(["comsumer" in name for name in catalog.image])
    np.testing.assert_array_equal(catalog.domain == Domain.STREET, consumers)
    numbers = [int(name.split("/")[3][3:]) - 1 for name in catalog.image]
    assert len(set(zip(numbers, catalog.item.tolist(), strict=True))) == 160
    status = ("train", "train", "val", "test", "test")
    assert [Split(s).name.lower() for s in catalog.split] == [status[n % 5] for n in numbers]
    assert data.queries is None
    np.testing.assert_allclose(catalog.box[0], [3 / 30, 10 / 40, 21 / 30, 30 / 40])


def test_c2s_labels_are_those_of_folders_and_items(street):
    catalog = ConsumerToShopReader(str(street)).read().catalog
    numbers = [int(name.split("/")[3][3:]) - 1 for name in catalog.image]
    assert catalog.schema.names == ("department", "category", "clothes_type", "neckline", "main_color")
    assert values(catalog, "category") == [("T_Shirt", "Lace_Dress", "Blazer")[n % 3] for n in numbers]
    assert values(catalog, "clothes_type") == [("upper_body", "lower_body", "full_body")[n % 3] for n in numbers]
    necks = ("round neck", "deep v neck", "lapel")
    assert values(catalog, "neckline") == [necks[n % 3] if n % 9 else None for n in numbers]  # every ninth has two
    assert values(catalog, "main_color") == [("red", "blue", "green", "black")[n % 4] for n in numbers]


@pytest.mark.parametrize(
    ("types", "kinds", "expected"),
    [
        (["领型 neckline 1", "颜色 main color 2"], (1, 2), ["neckline", "main_color"]),
        (["颜色 main color 2", "领型 neckline 1"], (1, 2), ["neckline", "main_color"]),  # numbers, not places
        (["领型 neckline", "颜色 (主) main color"], (0, 1), ["neckline", "main_color"]),  # counted from 0
        (["领型", "颜色"], (1, 2), ["type_1", "type_2"]),
        (None, (1, 2), ["type_1", "type_2"]),
    ],
)
def test_c2s_names_of_types(pairs, types, kinds, expected):
    anno = pairs / "Anno"
    rows = [f"{c} {e}     {kinds[k - 1]}" for c, e, k in fake.C2S_ATTRIBUTES]
    text = fake.write_list(anno / "list_attr_cloth.txt", rows, "head").read_text()
    (anno / "list_attr_cloth.txt").write_bytes(text.encode("gb18030"))  # only the English part is looked at
    (anno / "list_attr_type.txt").unlink()
    if types:
        fake.write_list(anno / "list_attr_type.txt", types, "head")
    schema = ConsumerToShopReader(str(pairs), min_count=1).read().catalog.schema
    assert list(schema.names[3:]) == expected
    assert "deep v neck" in schema.values[3]


@pytest.mark.parametrize(
    ("name", "old", "new", "says"),
    [
        (PARTITION, "train", "Train", r"partition\.txt line 3 has 'Train' as evaluation_status"),
        (PARTITION, "id_00000001    train", "id_00000001    test", r"line 4 gives .* another split than line 3"),
        (PARTITION, "id_00000001    train", "id_00000002    train", r"line 4 gives .* another item than line 3"),
        (PARTITION, "/shop_01.jpg", "/comsumer_02.jpg", r"line 3 gives .*comsumer_02.jpg' another kind than line 4"),
        (PARTITION, "img/TOPS", "../img/TOPS", r"partition\.txt line 3 names .* outside"),
        ("Anno/list_item_consumer2shop.txt", "id_00000001", "id_99", r"line 3 has the item 'id_00000001', which"),
        ("Anno/list_bbox_consumer2shop.txt", "    1    2 ", "    1    3 ", r"line 3 has '3' as source_type"),
        ("Anno/list_attr_items.txt", "id_00000001  1", "id_00000001  5", r"items\.txt line 3 has the cell '5'"),
    ],
)
def test_mistakes_in_c2s_name_file_and_line(pairs, name, old, new, says):
    edit(pairs / name, old, new)
    with pytest.raises(UserError, match=says):
        ConsumerToShopReader(str(pairs), min_count=1).read()


def test_c2s_items_that_the_table_leaves_out_have_no_values(tmp_path):
    root = fake.write_c2s(tmp_path / "benchmark", items=10)
    edit(root / "Anno/list_attr_items.txt", "id_00000002", "id_99999999")
    data = ConsumerToShopReader(str(root), min_count=1).read()
    mine = [i for i, name in enumerate(data.catalog.image) if "id_00000002" in name]
    assert [values(data.catalog, "main_color")[i] for i in mine] == [None] * 4
    assert any(note.startswith("7 images have several values") for note in data.notes)  # of the first and last item


def test_c2s_with_less_than_everything(pairs):
    listed = pairs / "Anno/list_bbox_consumer2shop.txt"
    edit(listed, "comsumer_01.jpg    1    2", "comsumer_01.jpg    1    1")
    data = ConsumerToShopReader(str(pairs), min_count=1).read()
    assert any("source_type contradicts the pairs for 1 image:" in note for note in data.notes)
    assert data.catalog.domain[0] == Domain.STREET
    edit(pairs / "Anno/list_attr_items.txt", "id_00000001", "id_99999999")
    colours = values(
        ConsumerToShopReader(str(pairs), attributes="main_color", min_count=1).read().catalog, "main_color"
    )
    assert colours[0] is None
    assert colours[2] is not None
    with pytest.raises(UserError, match=r"'main_colour' is not in .*choose among main_color"):
        ConsumerToShopReader(str(pairs), attributes="main_colour").read()
    shutil.rmtree(pairs / "Anno")
    catalog, _, notes, *_ = ConsumerToShopReader(str(pairs), min_count=1).read()
    assert catalog.schema.names == ("department", "category")
    assert catalog.box is None
    assert "the annotations have no boxes" in notes
    assert any("items have no attributes of their own" in note for note in notes)


def test_c2s_through_the_command_line(street, tmp_path, capsys):
    given = ["--data.root", str(street)]
    assert main(["data", "info", "deepfashion-c2s", *given, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["domains"]["street"] == 320
    asked = ["--evaluation.requests", "40", "--evaluation.protocols", "[instance]"]
    trained = ["identity", "--budget", "32", "--evaluation.also", "[]"]
    assert bench(*trained, "--data", "deepfashion-c2s", *given, *asked, out=tmp_path / "run") == 0
    record = load(tmp_path / "run/record.json")
    assert record.gallery == 96
    assert set(record.metrics) == {"instance"}
