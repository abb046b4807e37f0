# SPDX-License-Identifier: MIT
"""Tables of protocols that have columns, a headline or marks of their own."""

import dataclasses
import io
import re

import pytest
from records import estimate, make, metrics_of
from rich.console import Console
from test_site import Page

from fm_bench.leaderboard.record import Record
from fm_bench.leaderboard.rows import tables
from fm_bench.leaderboard.shown import columns, head, headline, is_lower, narrow, number, rank, words
from fm_bench.leaderboard.site import render
from fm_bench.leaderboard.table import markdown_table, print_table
from fm_bench.leaderboard.views import timed
from fm_bench.outcomes.latency import GALLERY

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


def classification(skill):
    # the better it is read, the worse before, so that the order shows which of the two ranks
    metrics = {"manipulated": skill, "original": 1 - skill, "kept": 0.8, "kept_original": 0.85}
    return {name: estimate(value) for name, value in metrics.items()} | {
        "difference": {"value": 2 * skill - 1, "low": 2 * skill - 1.1, "high": 2 * skill - 0.9}
    }


def generation(skill):
    return {"exact": estimate(skill)} | {name: estimate(1 - skill) for name in ("changed", "kept", "ssim", "l1")}


def latency(skill):
    times = {"t_sum_ms": 10 / skill, "t_repr_ms": 7 / skill, "t_sea_ms": 3 / skill}
    tails = {
        f"t_{part}_ms_{p}": {"value": 11 / skill} for part in ("sum", "repr", "sea") for p in ("p50", "p95", "p99")
    }
    return {name: estimate(value) for name, value in times.items()} | tails


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
        ("classification", classification, "manipulated"),
        ("generation", generation, "exact"),
        ("latency", latency, "t_sum_ms"),
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
    assert columns("classification", classification(0.5), usual)[:2] == ["manipulated", "original"]
    assert len(columns("classification", classification(0.5), usual)) == 5
    assert columns("generation", generation(0.5), usual) == list(generation(0.5))
    times = [f"t_{part}_ms" for part in ("sum", "repr", "sea")]
    tails = [f"t_sum_ms_{p}" for p in ("p50", "p95", "p99")]
    assert columns("latency", latency(0.5), usual) == [*times, *tails]
    assert narrow([*times, *tails]) == [*times, "t_sum_ms_p95"]
    assert words("t_sum_ms_p95") == "T_sum ms p95"
    assert head("t_sea_ms") == "T_sea\nms"
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
            record("classification", classification(0.6), "flam/shared-generator"),
            record("generation", generation(0.6), "amgan-p/no-vse"),
            record("latency", latency(0.6), "fashionsearchnet/no-global"),
        ],
        width,
    )
    for part in (
        "T_repr",
        "manipulated",
        "ssim",
        "16.7 16.2–17.3",  # noqa: RUF001
        "200,000",
        "ratio@20",
        "success@5",
        "ap@0.7",
        "street",
        "0.667",
    ):
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
    assert [cell[2].split()[0] for cell in heads[2:8]] == [*(f"{size:,}" for size in SIZES), "ratio"]
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


def test_values_are_sorted_best_first_and_written_as_what_they_are():
    assert [is_lower(name) for name in ("t_sum_ms", "t_sea_ms_p95", "l1", "increment_ratio@20")] == [True] * 4
    assert not any(map(is_lower, ("accuracy@20", "ssim", "t_sum", "l10", "manipulated", "kept")))
    assert sorted([0.2, None, 0.4], key=lambda value: rank("l1", value)) == [0.2, 0.4, None]
    assert sorted([0.2, None, 0.4], key=lambda value: rank("ssim", value)) == [0.4, 0.2, None]
    texts = [number("t_sum_ms", value) for value in (0.0, 0.123, 9.876, 98.76, 987.6, 9876.0)]
    assert texts == ["0.00", "0.12", "9.88", "98.8", "988", "9876"]
    assert (number("l1", 0.1234), number("t_sea_ms", -3.456, "+")) == ("0.123", "-3.46")


def test_what_the_benchmark_is_about_comes_first():
    names = ("latency", "search", "another", "manipulate-2", "classification", "manipulate-1")
    found = tables(record(name, metrics_of(0.5)) for name in names)
    assert [table.key.protocol for table in found] == [
        *("manipulate-1", "manipulate-2", "search", "classification", "latency", "another")
    ]


def test_the_page_shows_times_with_the_fastest_first():
    records = [record("latency", latency(skill), name) for skill, name in ((0.05, "amnet"), (0.5, "amgan-p"))]
    text = render(records)
    page = Page(text)
    groups, heads = page.tables[0][:2]
    assert groups[1][2].startswith("milliseconds for one query")
    assert "less is better" in groups[1][2]
    assert [i for i, cell in enumerate(heads) if cell[1].get("aria-sort") == "ascending"] == [2]
    assert [cell[2].split()[0] for cell in heads[5:8]] == ["p50", "p95", "p99"]
    assert not any("query" in cell[2].split() for cell in heads)  # the mean of a batch would contradict them
    rows = page.results()[0]
    assert list(rows) == ["amgan-p", "amnet"]
    assert rows["amgan-p"][2] == ["20.0", "19.4–20.8"]  # noqa: RUF001
    assert rows["amnet"][2] == ["200", "194–208"]  # noqa: RUF001
    lefts = [float(left) for left in re.findall(r'class="bar" aria-hidden="true"><b style="left:([\d.]+)%', text)]
    assert lefts == [pytest.approx(9.3, abs=0.1), pytest.approx(93.3, abs=0.1)]
    assert f"1,500 queries one by one, {GALLERY:,} gallery vectors" in text
    assert "<figure" not in text


def test_times_of_single_queries_stand_beside_rows_whose_vectors_are_as_long():
    asked = {"manipulate-1": "aa" * 32}
    found = [make(name, protocols=asked) for name in ("amnet", "flam")]
    found += [
        record("latency", latency(0.5), "amnet"),
        dataclasses.replace(record("latency", latency(0.5), "flam"), dim=768),
    ]
    page = Page(render(found))
    heads = [cell[2].split()[0] for cell in page.tables[0][1]]
    rows = page.results()[0]
    at = heads.index("T_sum")
    assert rows["amnet"][at] == ["20.0", "19.4–20.8"]  # noqa: RUF001
    assert rows["flam"][at] == ["–"]  # noqa: RUF001


def test_of_several_timed_rows_the_one_with_most_seeds_speaks_then_the_newest():
    fast = record("latency", latency(0.9), "amnet", config={"budget": 100}, finished="2026-01-01T00:00:00+00:00")
    newer = record("latency", latency(0.1), "amnet", config={"budget": 200}, finished="2026-02-01T00:00:00+00:00")
    seeds = [record("latency", latency(0.2), "amnet", seed=seed, config={"budget": 300}) for seed in (0, 1)]
    assert timed(tables([fast, newer]))["amnet", 256].cell("t_sum_ms").value == pytest.approx(100.0)
    assert timed(tables([fast, newer, *seeds]))["amnet", 256].cell("t_sum_ms").value == pytest.approx(50.0)


def test_who_has_no_latency_run_is_named_under_the_picture():
    asked = {"manipulate-1": "aa" * 32}
    found = [make(name, protocols=asked) for name in ("amnet", "flam", "darn", "fcd", "random")]
    every = " ".join(render(found).split())
    assert "not in the picture" not in every  # all have a time of a batch
    times = [record("latency", latency(0.5), name) for name in ("amnet", "flam")]
    text = " ".join(render([*found, *times]).split())
    (note,) = re.findall(r"Without a latency run of its size, and so not in the picture: (.*?)\.", text)
    assert note == "darn, fcd (2)"
    slow = [make("amnet", protocols=asked), make("flam", protocols=asked), make("darn", protocols=asked, query_ms=None)]
    assert "Without a time of its queries, and so not in the picture: darn (1)." in render(slow)


def test_a_detector_that_takes_the_whole_picture_is_a_floor():
    found = [
        record("detection", detection(skill), name) for skill, name in ((0.3, "detector/whole"), (0.6, "detector"))
    ]
    (table,) = tables(found)
    assert {row.label: row.role for row in table.rows} == {"detector/whole": "floor", "detector": "method"}


def test_the_page_shows_what_prototypes_and_classifiers_show():
    text = render(
        [record("generation", generation(0.6), "amgan-p"), record("classification", classification(0.6), "flam")]
    )
    read = Page(text).tables[0]
    assert read[0][1][2].startswith("what classifiers read")
    assert [cell[2].split()[0] for cell in read[1][2:7]] == ["manipulated", "original", "difference", "kept", "kept"]
    rows = Page(text).results()
    worse = render([record("classification", classification(0.4), "flam")])
    assert Page(worse).results()[0]["flam"][4] == ["-0.200", "-.300", "to", "-.100"]
    assert rows[0]["flam"][4] == ["0.200", ".100–.300"]  # noqa: RUF001
    assert rows[1]["amgan-p"][2][0] == "0.600"
    assert "1,500 requests." in text


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
    ("flam", "manipulate-1"): (),
    ("flam/m-adv", "manipulate-2"): ("extension",),
    ("cls-concat", "manipulate-2"): ("extension",),
    ("amgan-p", "manipulate-2"): (),
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


def searched(name: str, trials: int, images: int = 90_000) -> Record:
    """A run with the best of so many trials."""
    tuning = {"trials": [{"number": number} for number in range(trials)], "images": images}
    return record("search", metrics_of(0.5), name, tuning=tuning)


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        ((("flam", 20), ("darn", 20)), ""),
        ((("flam", 20), ("darn", 5)), "flam by 20 trials of 90,000 images; darn by 5 trials of 90,000 images."),
        ((("flam", 1), ("darn", 0)), "flam by 1 trial of 90,000 images; the others have those of their recipes."),
        ((("flam", 20), ("darn", 20, 600)), "flam by 20 trials of 90,000 images"),
        ((("flam", 20), ("random", 0), ("oracle", 0)), ""),  # there is nothing to search
        ((("flam", 0), ("darn", 0)), ""),
    ],
)
def test_a_table_tells_where_settings_were_not_searched_alike(runs, said):
    records = [searched(*run) if run[1] else record("search", metrics_of(0.5), run[0]) for run in runs]
    shown = [markdown_table(records, "search"), " ".join(text_of(records, 100).split()), render(records)]
    for text in shown:
        assert ("Settings were not searched alike" in text) == bool(said)
        assert said in text
        assert ("tuned: " in text) == any(run[1] for run in runs)
    if runs[0][1] == 20:
        assert "flam (tuned: 20 trials of 90,000 images)" in shown[0]
