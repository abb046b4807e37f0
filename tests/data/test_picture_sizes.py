# SPDX-License-Identifier: MIT
import fakes
import numpy as np
import pytest

from fm_bench.data import contents
from fm_bench.data.contents import content_digests, picture_sizes


def test_sizes_come_from_headers_and_are_zero_without_a_picture(tmp_path):
    names = fakes.pictures(tmp_path, 2)
    whole = fakes.png(fakes.picture((1, 2, 3), 1, (31, 57)))
    (tmp_path / "cut.png").write_bytes(whole[:60])  # the size is in the first bytes
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "pointer.jpg").write_bytes(fakes.LFS_POINTER)
    (tmp_path / "page.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 20\n%%EndComments\n")
    asked = np.array([*names, "cut.png", "empty.jpg", "pointer.jpg", "page.eps", "absent.jpg", "nul\0.jpg", names[0]])
    expected = [[60, 80], [60, 80], [57, 31], *[[0, 0]] * 5, [60, 80]]
    assert picture_sizes(tmp_path, asked).tolist() == expected
    assert len(set(content_digests(tmp_path, asked))) == 8
    assert picture_sizes(tmp_path, np.array([], dtype=np.str_)).shape == (0, 2)


def test_sizes_are_remembered_apart_from_digests_until_a_file_changes(tmp_path, monkeypatch):
    names = np.array(fakes.pictures(tmp_path, 3))
    monkeypatch.setattr(contents, "_RACY_NS", -(10**12))
    first = picture_sizes(tmp_path, names)
    digests = content_digests(tmp_path, names)
    with monkeypatch.context() as patch:
        patch.setattr(contents.Image, "open", lambda path, **_: pytest.fail(f"opened {path} again"))
        assert (picture_sizes(tmp_path, names) == first).all()
    (tmp_path / names[1]).write_bytes(fakes.jpeg(fakes.picture((1, 2, 3), 1, (20, 10))))
    assert picture_sizes(tmp_path, names).tolist() == [[60, 80], [10, 20], [60, 80]]
    assert (content_digests(tmp_path, names) == digests).tolist() == [True, False, True]
