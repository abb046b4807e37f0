# SPDX-License-Identifier: MIT
import io

import fakes
import numpy as np
import pytest
from PIL import ExifTags, Image

from fm_bench.data import contents
from fm_bench.data.contents import content_digests, picture_frames
from fm_bench.data.images import decode
from fm_bench.data.readers.deepfashion_files import boxes


def turned(orientation: object) -> bytes:
    """A grey JPEG of 64 x 48 pixels with a red box from (8, 4) to (24, 44), and EXIF data that turn it."""
    picture = np.full((48, 64, 3), 128, np.uint8)
    picture[4:44, 8:24] = (255, 0, 0)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=95, subsampling=0, exif=exif)
    return file.getvalue()


def test_sizes_come_from_headers_and_are_zero_without_a_picture(tmp_path):
    names = fakes.pictures(tmp_path, 2)
    whole = fakes.png(fakes.picture((1, 2, 3), 1, (31, 57)))
    (tmp_path / "cut.png").write_bytes(whole[:60])  # the size is in the first bytes
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "pointer.jpg").write_bytes(fakes.LFS_POINTER)
    (tmp_path / "page.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 20\n%%EndComments\n")
    asked = np.array([*names, "cut.png", "empty.jpg", "pointer.jpg", "page.eps", "absent.jpg", "nul\0.jpg", names[0]])
    expected = [[60, 80, 1], [60, 80, 1], [57, 31, 1], *[[0, 0, 0]] * 5, [60, 80, 1]]
    assert picture_frames(tmp_path, asked).tolist() == expected
    assert len(set(content_digests(tmp_path, asked))) == 8
    assert picture_frames(tmp_path, np.array([], dtype=np.str_)).shape == (0, 3)


def test_sizes_are_remembered_apart_from_digests_until_a_file_changes(tmp_path, monkeypatch):
    names = np.array(fakes.pictures(tmp_path, 3))
    monkeypatch.setattr(contents, "_RACY_NS", -(10**12))
    first = picture_frames(tmp_path, names)
    digests = content_digests(tmp_path, names)
    with monkeypatch.context() as patch:
        patch.setattr(contents.Image, "open", lambda path, **_: pytest.fail(f"opened {path} again"))
        assert (picture_frames(tmp_path, names) == first).all()
    (tmp_path / names[1]).write_bytes(fakes.jpeg(fakes.picture((1, 2, 3), 1, (20, 10))))
    assert picture_frames(tmp_path, names).tolist() == [[60, 80, 1], [10, 20, 1], [60, 80, 1]]
    assert (content_digests(tmp_path, names) == digests).tolist() == [True, False, True]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_turn_with_their_picture(tmp_path, orientation):
    (tmp_path / "a.jpg").write_bytes(turned(orientation))
    box, told = boxes(tmp_path, np.array(["a.jpg"]), np.array([[8, 4, 24, 44]]))
    picture = decode(turned(orientation))
    assert told == []
    assert picture.shape == ((48, 64, 3) if orientation < 5 else (64, 48, 3))
    ys, xs = np.nonzero(picture[..., 0].astype(int) - picture[..., 1] > 128)
    seen = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]) / np.tile(picture.shape[1::-1], 2)
    np.testing.assert_allclose(box[0], seen, atol=1e-6)


def test_exif_data_that_mean_nothing_turn_nothing(tmp_path):
    (tmp_path / "a.jpg").write_bytes(turned(9))
    whole = turned(6)
    (tmp_path / "b.jpg").write_bytes(whole.replace(b"Exif\0\0MM\0*", b"Exif\0\0XX\0*"))
    assert picture_frames(tmp_path, np.array(["a.jpg", "b.jpg"])).tolist() == [[64, 48, 1]] * 2
