# SPDX-License-Identifier: MIT
"""Category and Attribute Prediction, coarse and fine."""

import json
import shutil
from pathlib import Path

import fakes
import fakes_deepfashion as fake
import numpy as np
import pytest
from catalogues import values
from commands import bench

from fm_bench.catalog import Split
from fm_bench.cli import main
from fm_bench.data.readers.deepfashion import DeepFashionReader
from fm_bench.errors import UserError
from fm_bench.leaderboard.record import load

PARTITION = "Eval/list_eval_partition.txt"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake.write(tmp_path_factory.mktemp("deepfashion") / "benchmark")


@pytest.fixture
def copy(root: Path, tmp_path: Path) -> Path:
    """Lists that may be edited, beside the same pictures."""
    for folder in ("Anno_coarse", "Anno_fine", "Eval"):
        shutil.copytree(root / folder, tmp_path / folder)
    shutil.copytree(root / "img", tmp_path / "img", copy_function=shutil.copyfile)
    return tmp_path


def edit(path: Path, old: str, new: str, times: int = 1) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, times))


def read(root: Path, **options):
    return DeepFashionReader(str(root), **options).read()


def test_coarse_labels_are_those_of_the_lists(root):
    data = read(root)
    catalog = data.catalog
    kept = [i for i in range(300) if i % 10]  # the others have two textures
    assert len(catalog) == 270
    assert catalog.image[0] == "img/Striped_Pleated-Front_Blouse_0/img_00000002.jpg"
    assert values(catalog, "category") == [("Blouse", "Jeans", "Dress", "Dress")[i % 4] for i in kept]  # Cape merged
    assert values(catalog, "texture") == [("abstract chevron print", "floral", "striped")[i % 3] for i in kept]
    shapes = [("a-line", "boxy", "maxi")[i // 2 % 3] if i % 7 else None for i in kept]
    assert values(catalog, "shape") == shapes
    status = ("train", "train", "train", "train", "test", "test", "test", "val")
    assert [Split(s).name.lower() for s in catalog.split] == [status[i % 8] for i in kept]
    np.testing.assert_allclose(catalog.box[0], [3 / 30, 10 / 40, 21 / 30, 30 / 40])
    assert len(np.unique(catalog.item)) == 270  # a folder is no item
    assert any("30 images with several values of one attribute: left out" in note for note in data.notes)
    assert data.source.read(catalog.image[0], (40, 32)).shape == (40, 32, 3)


def test_several_values_count_for_the_attributes_that_are_used(root):
    assert len(read(root, attributes="category,shape").catalog) == 300
    data = read(root, attributes=["texture"], multiple="missing")
    assert [i for i, value in enumerate(values(data.catalog, "texture")) if value is None] == list(range(0, 300, 10))
    assert any("30 images with several values" in note and "kept" in note for note in data.notes)


def test_styles_with_spaces_several_or_none(root):
    """The fifth type of attributes, whose names hold spaces; 0 is as little a style as −1 is."""
    data = read(root, attributes="style,category", multiple="missing")
    lines = (root / "Anno_coarse/list_attr_img.txt").read_text().splitlines()[2:]
    told = [frozenset(line.split()[1:][9::2]) for line in lines]  # columns 9 and 11
    assert {frozenset(["-1"]), frozenset(["-1", "0"]), frozenset(["1", "-1"]), frozenset(["1", "0"])} <= set(told)
    styles = [("art deco", "summer")[i // 4 % 2] if i % 9 and i % 11 else None for i in range(300)]
    assert values(data.catalog, "style") == styles
    assert data.catalog.schema.to_dict()["style"] == ["art deco", "summer"]
    kept = read(root, attributes="style").catalog
    assert len(kept) == 300 - 28  # every eleventh has both
    assert values(kept, "style").count(None) == sum(i % 9 == 0 and i % 11 != 0 for i in range(300))


def test_every_group_and_none_that_does_not_exist(root):
    schema = read(root, attributes="part,fabric", multiple="missing").catalog.schema.to_dict()
    assert schema["part"] == ["bell sleeve", "v neck"]
    assert schema["fabric"] == ["chiffon", "denim"]
    with pytest.raises(UserError, match=r"'textur' is not in the coarse annotations .*choose among texture"):
        read(root, attributes="textur")
    with pytest.raises(UserError, match=r"'sleeves' is not in the fine annotations .*choose among sleeve"):
        read(root, annotations="fine", attributes="sleeves")


def test_an_empty_folder_hides_no_pictures(root, copy):
    (copy / "Img/img").mkdir(parents=True)
    assert np.array_equal(read(copy).catalog.labels, read(root).catalog.labels)


def test_folders_may_be_called_otherwise_and_lists_be_in_another_order(root, copy):
    (copy / "Anno_coarse").rename(copy / "Anno")
    (copy / "Img").mkdir()
    (copy / "img").rename(copy / "Img/img")
    for name in ("list_attr_img.txt", "list_category_img.txt", "list_bbox.txt"):
        lines = (copy / "Anno" / name).read_text().splitlines()
        (copy / "Anno" / name).write_text("\n".join([*lines[:2], *reversed(lines[2:])]))
    there, here = read(root), read(copy)
    assert here.catalog.digest == there.catalog.digest
    assert here.source.digest == there.source.digest


@pytest.mark.parametrize(
    ("name", "old", "new", "says"),
    [
        (PARTITION, "test\n", "tset\n", r"partition\.txt line 7 has 'tset' as evaluation_status"),
        (PARTITION, "img_00000002.jpg", "../../../x.jpg", r"partition\.txt line 4 names .* outside"),
        (PARTITION, "img/Striped", "/etc/Striped", r"partition\.txt line 3 names .* outside"),
        (PARTITION, "img_00000002.jpg", "img_00000001.jpg", r"partition\.txt line 4 repeats"),
        (PARTITION, "300", "289222", r"partition\.txt says 289,222 rows on its first line but holds 300"),
        (
            "Anno_coarse/list_category_img.txt",
            "jpg        3",
            "jpg        11",
            r"line 3 has the category 11, .*1 to 10",
        ),
        ("Anno_coarse/list_category_img.txt", "jpg        3", "jpg        0", r"line 3 has the category 0"),
        ("Anno_coarse/list_category_img.txt", "img_00000002", "img_99", r"no row for .*img_00000002\.jpg"),
        ("Anno_coarse/list_bbox.txt", "003 010", "0x3 010", r"list_bbox\.txt line 3 has '0x3' as x_1"),
        (
            "Anno_coarse/list_attr_cloth.txt",
            "print       1",
            "print",
            r"cloth\.txt line 4 has 'print' as attribute_type",
        ),
        ("Anno_coarse/list_attr_cloth.txt", "12 \n", "13 \n", r"says 13 rows on its first line but holds 12"),
    ],
)
def test_mistakes_in_the_lists_name_file_and_line(copy, name, old, new, says):
    edit(copy / name, old, new)
    with pytest.raises(UserError, match=says):
        read(copy)


@pytest.mark.parametrize("name", ["list_attr_img.txt", "list_bbox.txt", "list_category_cloth.txt"])
def test_pointers_and_absent_lists(copy, name):
    (copy / "Anno_coarse" / name).write_bytes(fakes.LFS_POINTER)
    with pytest.raises(UserError, match=rf"{name} should be .* Git LFS pointer"):
        read(copy)
    (copy / "Anno_coarse" / name).unlink()
    with pytest.raises(UserError, match=rf"has no Anno_coarse/{name} or Anno/{name}: ask for DeepFashion"):
        read(copy)


def test_boxes_beyond_or_without_a_picture(copy):
    listed = copy / "Anno_coarse/list_bbox.txt"
    for number, box in ((2, "-05 010 021 999"), (3, "021 010 021 030")):
        edit(listed, f"Blouse_0/img_{number:08d}.jpg 003 010 021 030", f"Blouse_0/img_{number:08d}.jpg {box}")
    (copy / "img/Striped_Pleated-Front_Blouse_0/img_00000004.jpg").unlink()
    data = read(copy)
    np.testing.assert_allclose(data.catalog.box[:3], [[0, 0.25, 0.7, 1], [0, 0, 1, 1], [0, 0, 1, 1]])
    for said in ("1 picture is missing", "1 box reaches beyond", "1 box is empty"):
        assert any(said in note for note in data.notes)


def test_files_that_are_the_same_are_one_item(copy):
    photos = copy / "img/Striped_Pleated-Front_Blouse_0"
    (photos / "img_00000003.jpg").write_bytes((photos / "img_00000002.jpg").read_bytes())
    data = read(copy)
    assert data.catalog.item[0] == data.catalog.item[1]
    assert len(np.unique(data.catalog.item)) == 269
    assert any("2 images are byte-identical to another one, in 1 group" in note for note in data.notes)


def test_links_out_of_the_folder(copy, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "photo.jpg"
    outside.write_bytes(b"")
    photo = copy / "img/Striped_Pleated-Front_Blouse_0/img_00000003.jpg"
    photo.unlink()
    photo.symlink_to(outside)
    with pytest.raises(UserError, match=r"partition\.txt line 5 names .* outside"):
        read(copy)


def test_near_misses_of_the_root(root, tmp_path):
    with pytest.raises(UserError, match=r"nowhere does not exist: ask for DeepFashion"):
        read(tmp_path / "nowhere")
    with pytest.raises(UserError, match=rf"pass --data\.root {root}\."):
        read(root.parent)
    with pytest.raises(UserError, match=rf"pass --data\.root {root}\."):
        read(root.parent, annotations="fine")
    shutil.copytree(root / "Eval", tmp_path / "Eval")
    with pytest.raises(UserError, match=r"no folder img/ or Img/img/ with the pictures: unpack img\.zip"):
        read(tmp_path)


# ------------------------------------------------------------------------------------------------------------ fine


def test_fine_labels_are_those_in_the_same_place(root):
    catalog = read(root, annotations="fine").catalog
    assert catalog.schema.names == ("category", "texture", "sleeve", "length", "neckline", "fabric", "fit")
    assert np.bincount(catalog.split).tolist() == [122, 29, 89]
    names = [name for name, _ in fake.FINE]
    signs = [list(map(int, line.split())) for line in (root / "Anno_fine/test_attr.txt").read_text().splitlines()]
    rows = catalog.rows(Split.TEST)
    assert catalog.image[rows].tolist() == (root / "Anno_fine/test.txt").read_text().split()
    for m, name in enumerate(("texture", "sleeve", "length", "neckline", "fabric", "fit"), 1):
        group = [i for i, (_, kind) in enumerate(fake.FINE) if kind == m]
        assert np.array(values(catalog, name))[rows].tolist() == [
            next(names[i] for i in group if sign[i]) for sign in signs
        ]
    assert "Cape" not in catalog.schema.values[0]
    np.testing.assert_allclose(catalog.box[rows[0]], [3 / 30, 10 / 40, 21 / 30, 30 / 40])


def test_fine_with_column_names_several_values_and_none(copy):
    anno = copy / "Anno_fine"
    before = read(copy, annotations="fine").catalog
    for name, header in (("train", "picture_filename"), ("train_attr", "a b"), ("train_cate", "category")):
        (anno / f"{name}.txt").write_text(f"{header}\n" + (anno / f"{name}.txt").read_text())
    assert read(copy, annotations="fine").catalog.digest == before.digest
    lines = (anno / "train_attr.txt").read_text().splitlines()
    lines[1] = "1 1 " + lines[1][4:]
    lines[2] = "0 0 0 0 0 0 0 " + lines[2][14:]
    (anno / "train_attr.txt").write_text("\n".join(lines))
    data = read(copy, annotations="fine")
    assert len(data.catalog) == 239
    assert values(data.catalog, "texture")[0] is None
    assert len(read(copy, annotations="fine", attributes="fit,category").catalog) == 240


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("val_attr", lambda lines: lines[:-1], r"val_attr\.txt has 28 rows, but val\.txt names 29 images"),
        ("val_attr", lambda lines: [*lines[:-1], lines[-1] + "1"], r"val_attr\.txt line 29 has 27 cells instead of 26"),
        ("val_attr", lambda lines: ["2" + lines[0][1:], *lines[1:]], r"val_attr\.txt line 1 has a number that stands"),
        ("val_cate", lambda lines: ["51", *lines[1:]], r"val_cate\.txt line 1 has the category 51"),
        ("val", lambda lines: ["../" * 9 + "x.jpg", *lines[1:]], r"val\.txt line 1 names .* outside"),
    ],
)
def test_mistakes_in_fine_annotations(copy, name, change, says):
    path = copy / "Anno_fine" / f"{name}.txt"
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")
    with pytest.raises(UserError, match=says):
        read(copy, annotations="fine")


def test_column_names_without_rows_in_fine_annotations(tmp_path):
    fake.write_repack(tmp_path)
    (tmp_path / "split/val.txt").write_text("picture_filename\n")
    with pytest.raises(UserError, match=r"val\.txt line 1 names columns and no row follows"):
        read(tmp_path, annotations="fine")


@pytest.mark.parametrize("kind", ["bbox", "cate"])
def test_what_one_fine_split_has_all_must_have(copy, kind):
    (copy / f"Anno_fine/test_{kind}.txt").unlink()
    with pytest.raises(UserError, match=rf"test_{kind}\.txt could not be read"):
        read(copy, annotations="fine")


def test_the_repack_with_six_numbers(tmp_path):
    data = read(fake.write_repack(tmp_path), annotations="fine")
    assert data.catalog.schema.names == ("texture", "sleeve", "length", "neckline", "fabric", "fit")
    assert values(data.catalog, "texture")[:3] == ["floral", "graphic", "striped"]
    assert values(data.catalog, "fit")[59:62] == ["conventional", "tight", "loose"]
    assert np.bincount(data.catalog.split).tolist() == [60, 20, 40]
    assert data.catalog.box is None
    edit(tmp_path / "split/val_attr.txt", "category6\n4 ", "category6\n7 ")  # 0 to 6 exist
    with pytest.raises(UserError, match=r"val_attr\.txt line 2 has a number that stands for no value"):
        read(tmp_path, annotations="fine")
    edit(tmp_path / "split/val_attr.txt", "category6\n7 ", "category6\n-1 ")  # none
    assert values(read(tmp_path, annotations="fine").catalog, "texture")[60] is None
    edit(tmp_path / "split/val_attr.txt", "category6\n-1 ", "category6\n-2 ")
    with pytest.raises(UserError, match=r"val_attr\.txt line 2 has a number that stands for no value"):
        read(tmp_path, annotations="fine")


# ------------------------------------------------------------------------------------------------------- end to end


def test_through_the_command_line(root, tmp_path, capsys):
    given = ["--data.root", str(root)]
    assert main(["data", "info", "deepfashion", *given, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["splits"]["test"]["images"] == 97
    asked = ["--evaluation.requests", "40", "--evaluation.protocols", "[manipulate-1]", "--loader.crop", "true"]
    short = ["--budget", "120"]
    out = tmp_path / "run"
    assert bench("amnet", "--data", "deepfashion", *given, *asked, *short, out=out) == 0
    record = load(out / "record.json")
    assert record.gallery == 97
    assert 0 < record.metrics["manipulate-1"]["accuracy@20"]["value"] <= 1
    fine = [*given, "--data.annotations", "fine", "--data.attributes", "category,fit"]
    assert bench("identity", "--budget", "32", "--data", "deepfashion", *fine, *asked, out=tmp_path / "fine") == 0


def test_missing_pictures_are_named_or_left_out(copy, tmp_path, capsys):
    (copy / "img/Striped_Pleated-Front_Blouse_0/img_00000002.jpg").unlink()
    (copy / "img/Striped_Pleated-Front_Blouse_0/img_00000003.jpg").write_bytes(fakes.LFS_POINTER)
    given = ["--data", "deepfashion", "--data.root", str(copy), "--evaluation.protocols", "[search]"]
    assert bench("random", *given, out=tmp_path / "run") == 2
    assert "--data.on_error skip" in capsys.readouterr().err.replace("\n", " ")
    assert main(["data", "validate", "deepfashion", "--data.root", str(copy)]) == 1
    assert "Git LFS pointer" in capsys.readouterr().out
