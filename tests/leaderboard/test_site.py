# SPDX-License-Identifier: MIT
import html.parser
import logging
import random
import re
from pathlib import Path

import pytest
from records import everything, make, outcomes, run

from fm_bench.errors import UserError
from fm_bench.leaderboard import site
from fm_bench.leaderboard.charts import COLOURS
from fm_bench.leaderboard.claims import judge
from fm_bench.leaderboard.record import save
from fm_bench.leaderboard.site import breakable, build, build_page, is_stale, refresh_page, render

VOID = {"meta", "link", "br", "wbr", "img", "input", "hr"}


class Page(html.parser.HTMLParser):
    """Checks that tags nest, and collects tables as rows of (tag, attributes, text) cells."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.tables, self.text = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append([tag, dict(attrs), ""])

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
        if "td" in self.open or "th" in self.open:
            self.tables[-1][-1][-1][2] += data + " "

    def results(self):
        """Result tables as {row label: [cell texts]}."""
        found = []
        for table in self.tables:
            if table[0][0][1].get("colspan") in ("2", "3"):
                found.append({row[0][1]["data-v"]: [cell[2].split() for cell in row] for row in table[2:]})
        return found


def test_one_table_for_each_protocol_with_every_column_and_yardstick():
    page = Page(render(everything()))
    tables = page.results()
    assert len(tables) == 3
    row = tables[0]["amnet"]
    assert len(row) == 15
    assert row[1] == ["1"]
    assert row[5][:2] == ["0.676", ".652–.700"]  # noqa: RUF001
    assert row[10:] == [["256"], ["2.8", "M"], ["4.2", "min"], ["1.84"], ["1.59"]]
    assert tables[0]["chance"][5] == ["0.068"]
    classes = {row[0][1]["data-v"]: tag for tag, row in reversed(_rows(page))}  # those of the first table
    assert classes["oracle"] == "ceiling"
    assert classes["random"] == classes["identity"] == classes["chance"] == "floor"
    assert classes["amnet"] == "method"


def _rows(page):
    classes = [attrs.get("class") for tag, attrs in page.tags if tag == "tr"]
    rows = [row for table in page.tables for row in table]
    return [(c, row) for c, row in zip(classes, rows, strict=True) if c in ("floor", "ceiling", "method")]


def test_every_column_head_has_its_definition():
    page = Page(render(everything()))
    groups, heads = page.tables[0][:2]
    assert [cell[2].split()[0] for cell in groups[1:]] == ["accuracy@k", "ndcg@k", "mrr@k", "size"]
    assert all(len(cell[2].split()) > 4 for cell in groups[1:])
    assert sum(int(cell[1]["colspan"]) for cell in groups) == len(heads) == 15
    assert all(cell[1]["title"] for cell in heads[2:])
    assert sum(tag == "small" for tag, _ in page.tags) > 100
    assert [i for i, cell in enumerate(heads) if cell[1].get("aria-sort")] == [5]
    assert all(cell[1]["scope"] == "col" for cell in heads)


def test_data_modes_protocols_and_digests_are_never_mixed():
    records = [
        make("amnet"),
        make("attribute-based", mode="paper"),
        make("identity", data="fashion-product"),
        make("oracle", data_digest="99" * 32),
        make("random", protocols={"manipulate-1": "77" * 32}),
    ]
    text = render(records)
    tables = Page(text).results()
    assert sorted(len(set(table) - {"chance"}) for table in tables) == [1] * 13
    assert "data 99999999" in text
    assert "protocol 77777777" in text


def test_tables_of_one_protocol_are_called_by_what_sets_them_apart():
    asked = {"manipulate-1": "5" * 64, "search": "6" * 64}
    protocols = {"manipulate-1": "aa", "search": "bb"}
    one = make("amnet", protocols=protocols, request_digests=asked)
    other = make("flam", protocols=protocols, request_digests=asked | {"manipulate-1": "7" * 64})
    page = render([one, other])
    assert re.findall(r"<h3 id=.*?>(.*?)</h3>", page) == [
        "manipulate-1 (requests 55555555)", "manipulate-1 (requests 77777777)", "search",
    ]  # fmt: skip
    assert page.count(">manipulate-1 (requests 55555555)</a>") == 1


def test_tables_of_data_that_were_read_in_different_ways_say_how():
    protocols = {"search": "bb"}
    whole = make(protocols=protocols, config={"reader": {"root": "/a", "min_count": 20}, "loader": {"batch_size": 8}})
    crops = make(
        protocols=protocols,
        data_digest="99" * 32,
        config={"reader": {"root": "/b", "min_count": 20}, "loader": {"batch_size": 32, "crop": "true"}},
    )
    assert re.findall(r"<h3 id=.*?>(.*?)</h3>", render([whole, crops])) == [
        "search (data 99999999, crop true)", "search (data dddddddd)",
    ]  # fmt: skip


def test_seeds_are_one_row_with_mean_and_spread():
    text = render([make(seed=seed) for seed in (0, 1, 2)])
    row = Page(text).results()[0]["amnet"]
    assert row[1] == ["3"]
    assert row[5] == ["0.680", ".656–.704", "seeds", ".676–.684"]  # noqa: RUF001
    assert text.count("fm-bench bench amnet --data garments --profile quick --seed 2") == 3  # once for each protocol


def test_text_of_records_is_never_markup():
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'{{ 7 * 7 }}\ud800"
    record = make(
        "amnet",
        label=evil,
        data=evil,
        profile=evil,
        command=evil,
        notes=[evil],
        hardware={"cpu": evil},
        versions={evil: evil},
        protocols={evil: evil},
        code={"version": evil, "digest": evil, "git": evil},
    )
    text = render([record], problems=[evil])
    page = Page(text)
    assert sum(tag == "script" for tag, _ in page.tags) == 1
    assert not any(tag == "img" for tag, _ in page.tags)
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert "<img" not in text
    assert "{{ 7 * 7 }}" in text
    text.encode("utf-8")


def test_nothing_is_loaded_from_anywhere():
    page = Page(render(everything((0, 1))))
    for tag, attrs in page.tags:
        for name in ("src", "href", "xlink:href", "srcset", "action", "data"):
            assert attrs.get(name, "#").startswith(("#", "data:")), (tag, attrs)
    policy = next(attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert "url(http" not in render(everything())


def test_ids_are_unique_and_every_link_leads_somewhere():
    records = [*everything(), make(seed=5, notes=["one"]), make("attribute-based", 3, notes=["two"], mode="paper")]
    page = Page(render(records))
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    for tag, attrs in page.tags:
        if tag == "a":
            assert attrs["href"][1:] in ids
        for name in ("aria-labelledby",):
            assert attrs.get(name, ids[0]) in ids
        for reference in re.findall(r"url\(#([^)]*)\)", attrs.get("clip-path", "")):
            assert reference in ids


def test_same_records_same_bytes(tmp_path):
    records = everything((0, 1))
    build_page(records, tmp_path / "a.html")
    random.Random(1).shuffle(records)
    build_page(records, tmp_path / "b.html")
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_twenty_records_stay_small(tmp_path):
    records = [
        make(name, data=f"data {i}") for i in range(4) for name in ("amnet", "oracle", "random", "identity", "x")
    ]
    build_page(records, tmp_path / "page.html")
    assert (tmp_path / "page.html").stat().st_size < 1_000_000


def test_notes_and_differences_are_footnotes_of_their_row():
    text = render([make(seed=0, notes=["Trained on half the images."]), make(seed=1, config={"model": {"lr": 0.1}})])
    page = Page(text)
    assert "Trained on half the images." in page.text
    assert any("model.lr 0.1 instead of 0.001" in part for part in page.text)
    assert text.count('href="#t1-n1"') == 1
    assert text.count('href="#t1-n2"') == 1


def test_metrics_that_no_row_has_take_no_column():
    metrics = {"search": {"accuracy@20": {"value": 0.5, "low": 0.4, "high": 0.6}}}
    (table,) = Page(render([make(protocols={"search": "cc"}, metrics=metrics, query_ms=None, curves={})])).results()
    assert len(table["amnet"]) == 2 + 1 + 4
    assert "<figure" not in render([make(curves={})])


def test_claims_stand_in_the_section_of_their_runs(tmp_path):
    results = {"amnet": 0.6, "amnet/no-memory": 0.4}
    runs = [run(tmp_path, name, {"manipulate-1/accuracy@20": outcomes(rate, 300)}) for name, rate in results.items()]
    text = render([r.record for r in runs], verdicts=judge(runs))
    page = Page(text)
    claims = next(table for table in page.tables if table[0][1][2].startswith("verdict"))
    paper, h1 = claims[1:]
    assert paper[0][2].split() == ["Zhao", "et", "al.,", "CVPR", "2017", "1", "preserved"]
    assert h1[1][2].split()[0] == "preserved"
    assert "DARN .545 vs .230" in text
    untested = text.partition("claims not tested here")[2]
    assert "amnet/no-ranking on manipulate-1 was not run on the same work." in untested
    assert "amnet against amnet/no-memory" not in untested
    assert 'href="#s1-claims"' in text or text.count("claims</h3>") <= 1
    other = render([make(data="other")], verdicts=judge(runs))
    assert "DARN .545 vs .230" not in other


def test_a_page_without_records_says_what_to_do():
    assert "make bench" in render([])


def test_build_keeps_the_good_records_and_names_the_damaged(tmp_path, caplog):
    run(tmp_path / "runs", "amnet", {"manipulate-1/accuracy@20": outcomes(0.6, 300)})
    save(make("attribute-based"), tmp_path / "runs" / "b" / "record.json")
    (tmp_path / "runs" / "c").mkdir()
    (tmp_path / "runs" / "c" / "record.json").write_text("<html>")
    with caplog.at_level(logging.WARNING):
        page = refresh_page(tmp_path / "runs")
    assert page == tmp_path / "runs" / "leaderboard.html"
    text = page.read_text()
    assert "attribute-based" in text
    assert "1 file could not be shown" in text
    assert str(Path("c") / "record.json") in text
    assert "record.json is not JSON" in caplog.text
    assert not is_stale(tmp_path / "runs", page)
    save(make("oracle"), tmp_path / "runs" / "d" / "record.json")
    assert is_stale(tmp_path / "runs", page)
    assert is_stale(tmp_path / "runs", tmp_path / "none.html")
    with pytest.raises(UserError, match="not a folder"):
        build(tmp_path / "none", page)
    with pytest.raises(UserError, match="could not be written"):
        build(tmp_path / "runs", tmp_path / "runs" / "d" / "record.json" / "page.html")


def test_pictures_and_tables_need_no_script_and_filters_wait_for_it():
    text = render(everything((0, 1)))
    without = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    assert without.count('<svg class="chart"') == 6  # curves and latency of three protocols
    assert without.count('<div class="tools" hidden>') == 3


def test_text_stands_out_from_its_background_in_light_and_dark():
    css = Path(site.__file__).with_name("templates").joinpath("page.css").read_text()
    light, dark = (
        dict(re.findall(r"--([\w]+): (#[0-9a-f]+);", block)) for block in re.findall(r":root \{(.*?)\}", css, re.S)
    )
    assert light.keys() == dark.keys()
    for theme in (light, dark):
        for name in ("ink", "muted", "accent", "good", "bad", "warn", *(f"s{i}" for i in range(COLOURS))):
            for ground in ("bg", "soft"):
                assert _contrast(theme[name], theme[ground]) >= 4.5, (name, ground)


def _contrast(a, b):
    """Contrast ratio of two colours (WCAG 2.2, 1.4.3)."""

    def luminance(colour):
        digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
        parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def test_versions_of_the_code_and_recipes_are_told_under_the_table():
    old = make("flam", code={"version": "0.1.0", "digest": "11" * 32, "git": ""})
    said = " ".join(Page(render([make("amnet"), old])).text)
    assert "different rows of up to 2" in said
    assert "settings were searched by" in said
    said = " ".join(Page(render([make("amnet"), make("flam")])).text)
    assert "different rows of up to" not in said


def test_names_break_after_slash_and_underscore_and_are_escaped():
    assert breakable("a/b_<c>") == "a/<wbr>b_<wbr>&lt;c&gt;"
