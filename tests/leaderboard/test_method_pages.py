# SPDX-License-Identifier: MIT
"""Pages of methods: what stands on them, that text stays text, and that they are what the records say."""

import dataclasses
import random
import re

import pytest
from browser import BROWSER, WHY, dump
from extras import extras, picture
from records import everything, make
from test_site import Page
from test_site_browser import WIDTH

from fm_bench import recipe
from fm_bench.leaderboard.extras import Result, save_extras
from fm_bench.leaderboard.learning import Line, chart
from fm_bench.leaderboard.links import method_page, slug
from fm_bench.leaderboard.method_pages import build_pages, code_spans, render_pages, stale_pages
from fm_bench.leaderboard.record import save

HOME = "../index.html"
EVIL = "</style></script><script>alert(1)</script><img src=x onerror=alert(1)>\"'{{ 7 * 7 }}\ud800"


def kept_of(*records, **changes):
    return {record.fingerprint: (extras(record, **changes), picture()) for record in records}


def words_of(text):
    return " ".join(" ".join(Page(text).text).split())


def test_addresses():
    assert method_page("amnet/no-memory") == "methods/amnet--no-memory.html"
    assert slug("flam") == "flam"
    for evil in ("../../etc/passwd", "/", "..", "a/../b", EVIL, ".hidden"):
        assert re.fullmatch(r"[\w-][\w.-]*", slug(evil), flags=re.ASCII)


def test_one_page_for_every_method_and_variant():
    pages = render_pages(everything((0, 1)), {}, HOME)
    assert sorted(pages) == sorted(f"{slug(r.label)}.html" for r in everything())
    for text in pages.values():
        Page(text)  # tags nest


def test_everything_a_run_left_is_on_its_page():
    record = make()
    said = words_of(render_pages([record], kept_of(record), HOME)["amnet.html"])
    for part in (
        "A memory.",
        "Zhao et al., CVPR 2017.",
        "hyper.memory False True",
        record.command,
        "Stage ranking",
        "Trained elsewhere.",
        "request followed have the wanted value of a changed attribute 25.0 %",
        "as if nothing was asked 30.0 % 20.0–30.0 %",  # noqa: RUF001
        "kept attribute lost have another value of an attribute that was to stay 25.0 %",
        "Of the first 10 results of 1,500 requests",
        "12.5 % 62.5 % 50.0 %",
        "fit – – – 75.0 %",  # noqa: RUF001
        "colour red → blue",
        "1 hit among the first 10; catalogue row 70",
        "colour: red; fit: slim",
        "find alike",
        "The worst requests",
        "Where it looks",
    ):
        assert part in said, part
    assert "no learning curves" not in said


def test_how_settings_were_chosen_is_on_the_page_of_every_trained_method():
    for name in recipe.names("methods"):
        of = recipe.load("methods", name)
        trained = any(stage["share"] > 0 for stage in of.get("stages", {}).values())
        assert str(of.get("chosen", "" if trained else ".")).endswith("."), name
    said = words_of(render_pages([make("amnet")], {}, HOME)["amnet.html"])
    assert recipe.load("methods", "amnet")["chosen"] in said
    assert "settings were chosen" not in render_pages([make("unheard-of")], {}, HOME)["unheard-of.html"]


def test_older_records_say_what_they_lack_and_show_the_rest():
    old, new = make(seed=0), make(seed=1)
    said = words_of(render_pages([old], {}, HOME)["amnet.html"])
    assert "There are no learning curves, examples or rates of failure: it was recorded before" in said
    assert "manipulate-1" in said
    assert "Learning curves" not in said
    both = words_of(render_pages([old, new], kept_of(new), HOME)["amnet.html"])
    assert "Of seed 0 there are no learning curves" in both
    assert "Examples of manipulate-1 Run with seed 1." in both


def test_pictures_stand_once_and_cells_are_found_on_the_sheet():
    record = make()
    text = render_pages([record], kept_of(record), HOME)["amnet.html"]
    assert text.count("data:image/webp;base64,") == 1
    assert "background-size: 200% 200%" in text
    places = re.findall(r"background-position:([\d.% ]+)", text)
    assert places[:4] == ["0.000% 0.000%", "100.000% 0.000%", "0.000% 0.000%", "0.000% 100.000%"]
    assert {place for place in places if place == "100.000% 100.000%"}


def test_examples_are_of_the_run_that_shows_most():
    times, plain, drawn, last = (make(seed=seed) for seed in range(4))
    kept = kept_of(plain, pictures=False) | kept_of(drawn, last)
    kept |= {times.fingerprint: (extras(times, examples=(), looks=(), rates={}, sheet=None, examples_of=""), None)}
    said = words_of(render_pages([times, plain, drawn, last], kept, HOME)["amnet.html"])
    assert (
        "Examples of manipulate-1 Run with seed 2." in said
    )  # the first with prototypes, not one that only took times
    del kept[drawn.fingerprint], kept[last.fingerprint]
    said = words_of(render_pages([times, plain, drawn, last], kept, HOME)["amnet.html"])
    assert "Run with seed 1." in said


def test_data_that_may_not_be_shown_have_no_picture():
    record = make()
    kept = {record.fingerprint: (extras(record, pictures=False), None)}
    text = render_pages([record], kept, HOME)["amnet.html"]
    assert "image/webp" not in text
    assert "not ours to show" in text
    assert "colour: red" in words_of(text)


def test_rates_and_curves_of_seeds_are_put_together():
    records = [make(seed=seed) for seed in (0, 1)]
    kept = kept_of(*records)
    other = extras(records[1])
    rates = other.rates["manipulate-1"]
    total = {name: {end: value + 0.1 for end, value in rate.items()} for name, rate in rates.total.items()}
    changed = {"manipulate-1": rates._replace(total=total)}
    kept[records[1].fingerprint] = (extras(records[1], rates=changed), picture())
    text = render_pages(records, kept, HOME)["amnet.html"]
    said = words_of(text)
    assert "changed attribute 30.0 % 25.0–35.0 %" in said  # noqa: RUF001
    assert "seed 0 seed 1" in said
    assert text.count('class="curve"') == 2 * 2
    assert "seed 1, epoch 2: 0.5" in said


def test_runs_of_one_seed_are_named_by_what_their_training_differs_in():
    config = {"seed": 0, "budget": 90000, "evaluation": {"protocols": ["search"]}}
    first, again = make(config=config), make(config=config, finished="2026-01-02T12:00:00+00:00")
    short = make(config=config | {"budget": 3200, "evaluation": {"protocols": ["latency"]}})
    text = render_pages([first, short], kept_of(first, short), HOME)["amnet.html"]
    assert re.findall(r"<li><b>(.*?)</b>", text)[:2] == ["seed 0", "seed 0, budget 3200"]
    assert "seed 0, budget 3200, epoch 2: 0.5" in words_of(text)
    assert "named with them" in text
    asked = [
        again,
        dataclasses.replace(first, config=config | {"evaluation": {"protocols": []}}, protocols={"search": "dd"}),
    ]
    text = render_pages(asked, kept_of(*asked), HOME)["amnet.html"]
    assert re.findall(r"<li><b>(.*?)</b>", text)[:2] == [f"seed 0, run {run.fingerprint[:8]}" for run in asked]


def test_every_column_head_has_its_definition():
    record = make()
    text = render_pages([record], kept_of(record), HOME)["amnet.html"]
    heads = re.findall(r'<th scope="col".*?</th>', text)
    assert len(heads) > 20
    assert all("<small>" in head for head in heads), [head for head in heads if "<small>" not in head]


def test_text_of_records_and_extras_is_never_markup():
    record = make(
        label=EVIL, data=EVIL, profile=EVIL, command=EVIL, notes=[EVIL], hardware={"cpu": EVIL}, versions={EVIL: EVIL},
        code={"version": EVIL, "digest": EVIL, "git": EVIL}, config={EVIL: EVIL, "stages": {EVIL: {EVIL: EVIL}}},
    )  # fmt: skip
    (text,) = render_pages([record], kept_of(record, text=EVIL), HOME).values()
    found = Page(text)
    assert not any(tag in ("script", "img") for tag, _ in found.tags)
    assert not any(name.startswith("on") for _, attrs in found.tags for name in attrs)
    assert sum(tag == "style" for tag, _ in found.tags) == 1
    assert "{{ 7 * 7 }}" in text
    assert text.count("&lt;script&gt;") > 20
    text.encode("utf-8")


def test_nothing_is_loaded_and_every_link_leads_somewhere():
    records = everything((0, 1))
    for text in render_pages(records, kept_of(*records), HOME).values():
        found = Page(text)
        ids = [attrs["id"] for _, attrs in found.tags if "id" in attrs]
        assert len(ids) == len(set(ids))
        for tag, attrs in found.tags:
            assert "src" not in attrs
            if "href" in attrs:
                assert attrs["href"] in (HOME, "data:,") or attrs["href"].removeprefix("#") in ids, (tag, attrs)
            assert attrs.get("aria-labelledby", ids[0]) in ids
        policy = next(a["content"] for _, a in found.tags if a.get("http-equiv") == "Content-Security-Policy")
        assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
        assert not re.search(r"url\((?!data:image/webp;base64,)", text)


def test_same_records_same_bytes():
    records = everything((0, 1))
    before = render_pages(records, kept_of(*records), HOME)
    random.Random(1).shuffle(records)
    assert render_pages(records, kept_of(*records), HOME) == before


def test_pages_are_built_checked_and_removed(tmp_path, caplog):
    records, out = tmp_path / "records", tmp_path / "methods"
    for name in ("amnet", "oracle"):
        save(make(name), records / f"{name}.json")
    save_extras(extras(make()), picture(), records / "amnet.json")
    assert [path.name for path in stale_pages(records, out)] == ["amnet.html", "oracle.html"]
    assert [path.name for path in build_pages(records, out)] == ["amnet.html", "oracle.html"]
    assert stale_pages(records, out) == []
    assert "Stage ranking" in (out / "amnet.html").read_text()
    (out / "mine.html").write_text("<p>not a page of ours</p>")
    save(make("oracle", seed=1), records / "oracle1.json")
    assert [path.name for path in stale_pages(records, out)] == ["amnet.html", "oracle.html"]  # both show the ceiling
    build_pages(records, out)
    (records / "oracle.json").unlink()
    (records / "oracle1.json").unlink()
    assert [path.name for path in stale_pages(records, out)] == ["amnet.html", "oracle.html"]
    (records / "extras" / "amnet.webp").unlink()
    build_pages(records, out)
    assert sorted(path.name for path in out.iterdir()) == ["amnet.html", "mine.html"]
    assert "amnet.webp could not be read" in caplog.text
    assert "no learning curves" in (out / "amnet.html").read_text()


def test_code_is_marked_and_odd_backticks_stay():
    assert code_spans("a ``b<`` c") == "a <code>b&lt;</code> c"
    assert code_spans("a ``b`` ``c") == "a <code>b</code> ``c"


def test_a_chart_holds_its_points():
    svg = chart([Line("seed 0", "var(--s0)", ((1.0, 0.0), (2.0, 1.0)))], "accuracy <b>")
    path = re.search(r'class="curve" d="M([\d.]+) ([\d.]+)L([\d.]+) ([\d.]+)"', svg)
    x0, y0, x1, y1 = map(float, path.groups())
    assert (x0, x1) == (pytest.approx(46 + 266 / 2), 46 + 266)
    assert (y0, y1) == (190 - 26, 8)
    assert "seed 0, epoch 2: 1" in svg
    assert "accuracy &lt;b&gt;" in svg
    assert chart([Line("a", "red", ((1.0, 5.0),))], "flat").count("<circle") == 1
    long = tuple((float(i), float(i)) for i in range(1, 201))
    assert "<circle" not in chart([Line("a", "red", long)], "long")


def test_many_mistakes_are_told_in_part():
    record = make()
    result = Result(5, False, tuple(f"a{i}: b" for i in range(7)), None)
    example = extras(record).examples[0]._replace(found=(result,))
    kept = {record.fingerprint: (extras(record, examples=(example,)), picture())}
    text = render_pages([record], kept, HOME)["amnet.html"]
    assert 'a3: b; <span title="a4: b; a5: b; a6: b">3 more</span>' in text


@pytest.mark.skipif(BROWSER is None, reason=WHY)
def test_a_page_says_nothing_on_the_console_and_fits_a_phone(tmp_path):
    record = make("amnet/no-memory", notes=["w" * 300], data="d" * 80)
    (tmp_path / "page.html").write_text(render_pages([record], kept_of(record), HOME)["amnet--no-memory.html"])
    probe = """document.querySelector("iframe").addEventListener("load", (event) => {
        const page = event.target.contentDocument;
        page.querySelectorAll("details").forEach((one) => { one.open = true; });
        const wide = [...page.querySelectorAll("body *")].filter((one) => !one.closest(".scroll, svg") &&
            one.getBoundingClientRect().right > event.target.contentWindow.innerWidth + 1);
        document.body.append("WIDE[" + wide.map((one) => one.tagName + "." + one.className).join() + "]");
    });"""
    frame = f'<iframe src="page.html" width="{WIDTH}" height="800" style="border:0"></iframe>'
    (tmp_path / "frame.html").write_text(f"<!DOCTYPE html><body>{frame}<script>{probe}</script></body>")
    done = dump(tmp_path / "frame.html", tmp_path / "profile")
    assert "WIDE[]" in done.stdout
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
