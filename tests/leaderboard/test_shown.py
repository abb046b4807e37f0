# SPDX-License-Identifier: MIT
"""Tables of protocols that have columns, a headline or marks of their own."""

import io

import pytest
from records import estimate, make, metrics_of
from rich.console import Console
from test_site import Page

from fm_bench.leaderboard.record import Record
from fm_bench.leaderboard.rows import tables
from fm_bench.leaderboard.shown import columns, head, headline, narrow, words
from fm_bench.leaderboard.site import render
from fm_bench.leaderboard.table import markdown_table, print_table

SIZES = (10_000, 25_000, 50_000, 100_000, 200_000)


def sweep(skill):
    metrics = metrics_of(skill)
    for i, size in enumerate(SIZES):
        metrics[f"accuracy@20|{size}"] = estimate(skill * (1 - 0.1 * i))
        metrics[f"chance@20|{size}"] = {"value": 20 / size}
    return metrics | {"increment_ratio@20": {"value": 0.667, "low": 0.6, "high": 0.7}}


def region(skill):
    # the better its success, the worse its accuracy, so that the order shows which of the two ranks
    return metrics_of(1 - skill) | {"success@5": estimate(skill)}


def detection(skill):
    names = ("accuracy@20 detected boxes", "accuracy@20 true boxes", "accuracy@20 full images")
    return {"ap@0.7 shop": estimate(skill), "ap@0.7 street": estimate(skill / 2)} | {
        name: estimate(1 - skill) for name in names
    }


def record(protocol: str, metrics, name: str = "darn", **changes) -> Record:
    fields = {"protocols": {protocol: "ab"}, "metrics": {protocol: metrics}, "by_attribute": {}, "curves": {}}
    return make(name, **(fields | changes))


def text_of(records, width=100):
    file = io.StringIO()
    print_table(records, Console(file=file, width=width))
    assert max(map(len, file.getvalue().splitlines())) <= width
    assert "…" not in file.getvalue()
    return file.getvalue()


@pytest.mark.parametrize(
    ("protocol", "metrics", "expected"),
    [
        ("gallery-sweep", sweep, "accuracy@20|200000"),
        ("gallery-sweep-1", sweep, "accuracy@20|200000"),
        ("region", region, "success@5"),
        ("detection", detection, "ap@0.7 shop"),
        ("instance", metrics_of, "accuracy@20"),
        ("manipulate-2", metrics_of, "accuracy@20"),
        ("another", detection, "ap@0.7 shop"),
    ],
)
def test_the_headline_ranks_the_rows(protocol, metrics, expected):
    assert headline(protocol, metrics(0.5)) == expected
    skills = {"darn/an": 0.4, "darn": 0.6, "darn/arn": 0.5}
    (table,) = tables(record(protocol, metrics(skill), name) for name, skill in skills.items())
    assert table.headline == expected
    assert [row.label for row in table.rows] == ["darn", "darn/arn", "darn/an"]


def test_columns_follow_the_protocol():
    usual = ["accuracy@1", "accuracy@20"]
    assert columns("search", metrics_of(0.5), usual) == usual
    assert columns("gallery-sweep", sweep(0.5), usual) == [
        *(f"accuracy@20|{size}" for size in SIZES),
        "increment_ratio@20",
    ]
    assert columns("instance", metrics_of(0.5), usual) == [
        *(f"accuracy@{k}" for k in (1, 5, 20, 50)),
        "ndcg@20",
    ]
    assert columns("region", region(0.5), usual)[0] == "success@5"
    assert "accuracy@20" in columns("region", region(0.5), usual)
    assert columns("detection", detection(0.5) | {"chance@20": {}}, usual) == list(detection(0.5))
    assert narrow(columns("gallery-sweep", sweep(0.5), usual)) == [
        "accuracy@20|10000",
        "accuracy@20|200000",
        "increment_ratio@20",
    ]
    assert words("accuracy@20|200000") == "accuracy@20 of 200,000"
    assert (head("accuracy@20|200000"), head("ndcg@20")) == ("@20 of\n200,000", "ndcg@20")


@pytest.mark.parametrize("width", [80, 100])
def test_terminal_tables_fit(width):
    text = text_of(
        [
            record("gallery-sweep", sweep(0.6), "darn/conv4-5"),
            record("region", region(0.6), "fashionsearchnet/region-aware"),
            record("detection", detection(0.6), "darn-detector/nin-svr"),
            record("instance", metrics_of(0.6), "pretrained/nin"),
        ],
        width,
    )
    for part in ("200,000", "ratio@20", "success@5", "ap@0.7", "street", "0.667"):
        assert part in text


def test_markdown_names_every_column():
    text = markdown_table([record("gallery-sweep", sweep(0.6))], "gallery-sweep")
    assert "| accuracy@20 of 10,000 |" in text
    assert "| increment_ratio@20 |" in text
    assert "accuracy@20 of 200,000 by chance 0.000" in text
    assert "| *chance* |  | 0.002 | 0.001 | 0.000 | 0.000 | 0.000 |  |" in text


def test_the_page_shows_the_sweep_and_its_curve():
    text = render([record("gallery-sweep", sweep(0.6)), record("gallery-sweep", sweep(0.5), "darn/arn")])
    page = Page(text)
    groups, heads = page.tables[0][:2]
    assert [cell[2].split()[1] for cell in heads[2:8]] == [*(f"{size:,}" for size in SIZES), "ratio"]
    assert [i for i, cell in enumerate(heads) if cell[1].get("aria-sort")] == [6]
    assert groups[1][2].startswith("accuracy@20 by gallery size")
    rows = page.results()[0]
    assert rows["darn"][6][0] == "0.360"
    assert rows["darn"][7] == ["0.667", ".600–.700"]  # noqa: RUF001
    assert rows["chance"][2] == ["0.002"]
    assert "Accuracy in growing galleries" in text
    assert "gallery (images)" in text
    assert "Top-k accuracy" not in text


def test_the_page_shows_boxes_without_a_curve():
    text = render([record("detection", detection(0.6))])
    heads = [cell[2].split() for cell in Page(text).tables[0][1][2:7]]
    assert [words[-1] for words in heads] == ["shop", "street", "boxes", "boxes", "images"]
    assert "<figure" not in text
    assert "ap@0.7 shop 0.600" in text


def test_by_attribute_shows_the_headline():
    parts = {"region": {"colour": {"success@5": estimate(0.3), "accuracy@20": estimate(0.9)}}}
    (table,) = tables([record("region", region(0.6), by_attribute=parts)])
    assert table.rows[0].attribute_cell("colour").value == 0.3


MARKS = {
    ("darn", "manipulate-1"): ("no manipulation",),
    ("darn/identity", "manipulate-2"): ("no manipulation",),
    ("darn/identity", "region"): ("no manipulation",),
    ("darn/attribute-substitute", "manipulate-1"): (),
    ("darn/conv4-5", "instance"): (),
    ("darn", "search"): (),
    ("pretrained/nin", "manipulate-1"): ("no manipulation",),
    ("fashionsearchnet", "manipulate-1"): (),
    ("fashionsearchnet", "manipulate-2"): ("extension",),
    ("fashionsearchnet/no-global", "manipulate-2"): ("extension",),
    ("amnet", "manipulate-2"): (),
}


@pytest.mark.parametrize(("name", "protocol"), MARKS)
def test_marks_of_methods_in_protocols_they_were_not_made_for(name, protocol):
    substitutes = {"config": {"hyper": {"substitute": True}}} if name.endswith("substitute") else {}
    run = record(protocol, metrics_of(0.5), name, **substitutes)
    (table,) = tables([run])
    assert table.rows[0].tags == MARKS[name, protocol]
    for tag in MARKS[name, protocol]:
        assert f"{name} ({tag})" in markdown_table([run], protocol)
        assert f'<span class="tag">{tag}</span>' in render([run])
