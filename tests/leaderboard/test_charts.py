# SPDX-License-Identifier: MIT
import itertools
import re
import xml.etree.ElementTree as ET

import pytest

from fm_bench.leaderboard.charts import LABELLED, Axes, Mark, lines, scatter

AXES = Axes("title", "k", "accuracy@k")
CURVES = [
    Mark("a", [1, 5, 20], [0.1, 0.2, 0.3]),
    Mark("b/<x>", [1, 5], [0.5, 0.6]),
    Mark("chance", [1], [0.01], "floor"),
]


def texts(svg):
    return [element.text for element in ET.fromstring(svg).iter("text")]


@pytest.mark.parametrize("draw", [lines, scatter])
def test_pictures_take_their_colours_from_the_page_and_are_the_same_each_time(draw):
    svg = draw(CURVES, AXES)
    assert svg == draw(CURVES, AXES)
    assert {"a", "b/<x>", "chance", "k", "accuracy@k"} <= set(texts(svg))
    assert not re.search(r"#[0-9a-f]{3}|style=|\bid=|href|e-\d", svg)
    assert "yardstick" in svg


def test_lines_end_where_their_values_are():
    paths = [g.find("path").get("d") for g in ET.fromstring(lines(CURVES, AXES)).iter("g")]
    ends = {path.split("L")[-1]: path for path in paths}
    assert len(paths) == 3
    a = next(path for path in paths if path.count("L") == 2)
    heights = [float(point.split()[1]) for point in a[1:].split("L")]
    assert heights == sorted(heights, reverse=True)
    assert heights[0] - heights[1] == pytest.approx(heights[1] - heights[2], abs=0.2)
    assert len(ends) == 3


def test_labels_do_not_overlap_and_stay_inside():
    marks = [Mark(f"m{i}", [1, 10], [0.1, 0.5 + i / 1e4]) for i in range(LABELLED)]
    heights = sorted(
        float(element.get("y")) for g in ET.fromstring(lines(marks, AXES)).iter("g") for element in g.iter("text")
    )
    assert min(b - a for a, b in itertools.pairwise(heights)) > 12
    assert heights[0] > 10
    assert heights[-1] < 330


def test_labels_of_points_keep_clear_of_each_other():
    marks = [Mark(f"method{i}", [2 + i / 50], [0.5 + i / 500]) for i in range(8)]
    boxes = [
        (float(t.get("x")), float(t.get("y")))
        for g in ET.fromstring(scatter(marks, AXES)).iter("g")
        for t in g.iter("text")
    ]
    for i, (x, y) in enumerate(boxes):
        assert all(abs(x - u) > 40 or abs(y - v) >= 12 for u, v in boxes[:i])


def test_rows_are_told_apart_without_colour():
    marks = [Mark(str(i), [1, 2], [0.1, 0.2]) for i in range(LABELLED)]
    groups = list(ET.fromstring(lines(marks, AXES)).iter("g"))
    looks = {(g.find("path").get("stroke-dasharray"), g.findall("path")[1].get("d")) for g in groups}
    assert len(looks) >= 10
    assert all(g.find("text") is not None for g in groups)


def test_variants_among_many_are_thin_and_named_when_pointed_at():
    marks = [Mark(f"m{i}", [1, 2], [0.1, 0.2], "variant" if i % 2 else "method") for i in range(LABELLED + 2)]
    svg = lines(marks, AXES)
    assert "m0" in texts(svg)
    assert "m1" not in texts(svg)
    assert "<title>m1</title>" in svg


def test_one_point_and_equal_points_are_drawn():
    assert "nan" not in scatter([Mark("a", [3], [0.5]), Mark("b", [3], [0.5])], AXES)
    assert "nan" not in lines([Mark("a", [1, 5], [0.0, 0.0])], AXES)


def test_points_that_lie_close_together_are_looked_at_closely():
    marks = [Mark("a", [9.3], [0.91], low=0.90, high=0.92), Mark("b", [11.0], [0.95], low=0.94, high=0.96)]
    ticks = [text for text in texts(scatter(marks, AXES)) if re.fullmatch(r"[\d.]+", text or "")]
    values, times = [float(t) for t in ticks[:6]], [float(t) for t in ticks[6:]]
    assert values[0] > 0.8
    assert values[-1] <= 1
    assert len(times) > 2
    assert all(8 < time < 13 for time in times)
