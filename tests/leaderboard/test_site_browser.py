# SPDX-License-Identifier: MIT
"""The page as it is published, in a headless browser and in a frame as narrow as a phone.

A browser opens once for all of these tests: a page around the frame drives what is in it and writes what it saw.
"""

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest
from browser import BROWSER, WHY, dump
from records import make, outcomes, run

from fm_bench.leaderboard.claims import judge
from fm_bench.leaderboard.site import render

WIDTH = 360

pytestmark = pytest.mark.skipif(BROWSER is None, reason=WHY)

DRIVER = """
const frame = document.querySelector("iframe"), seen = {};
frame.addEventListener("load", () => {
  try { look(frame.contentDocument, frame.contentWindow); } catch (error) { seen.error = String(error.stack); }
  const out = document.createElement("pre");
  out.id = "log";
  out.textContent = JSON.stringify(seen);
  document.body.append(out);
});
function look(page, view) {
  const all = (selector, root = page) => [...root.querySelectorAll(selector)];
  seen.width = page.documentElement.scrollWidth;
  seen.wide = all("body *").filter((one) => !one.closest(".scroll, .sr, .skip, svg") &&
    one.getBoundingClientRect().right > view.innerWidth + 1).map((one) => one.outerHTML.slice(0, 90));
  seen.requests = view.performance.getEntriesByType("resource").map((entry) => entry.name);
  seen.dead = all("a[href^='#']").map((a) => a.hash.slice(1)).filter((id) => !page.getElementById(id));
  seen.pages = all("a:not([href^='#'])").map((a) => a.getAttribute("href"));
  seen.first = page.querySelector("a, button, input, summary, [tabindex='0']").textContent;
  const article = page.querySelector("[data-row='amnet/no-memory']").closest("article");
  const table = article.querySelector("table.sortable");
  const heads = [...table.tHead.rows[1].cells], body = table.tBodies[0];
  const column = (name) => heads.findIndex((head) => head.querySelector("button").lastChild.textContent === name);
  const order = () => [...body.rows].map((row) => row.cells[0].dataset.v);
  const press = (name) => { const b = heads[column(name)].querySelector("button"); b.focus(); b.click(); return b; };
  const sorted = () => heads.map((head) => head.getAttribute("aria-sort")).map((s, i) => s && [i, s]).filter(Boolean);
  const visible = (one) => one.getClientRects().length;
  const shown = (root) => all("[data-row]", root).filter(visible).map((one) => one.dataset.row).sort();
  seen.columns = Object.fromEntries(["method", "rank", "@20", "query"].map((name) => [name, column(name)]));
  seen.sorts = [[order(), sorted()]];
  for (const name of ["method", "method", "rank", "query", "query"]) {
    const button = press(name);
    seen.focused = page.activeElement === button;
    seen.outline = view.getComputedStyle(button).outlineStyle;
    seen.sorts.push([order(), sorted()]);
  }
  const tools = article.querySelector(".tools"), box = tools.querySelector("input[type=search]");
  const type = (text) => { box.value = text; box.dispatchEvent(new view.Event("input", {bubbles: true})); };
  const look_at = () => [shown(body), shown(article.querySelector("svg")),
    tools.querySelector("output").textContent];
  seen.filters = [look_at()];
  for (const text of ["AMNET ", "no-memory, oracle", "nothing"]) { type(text); seen.filters.push(look_at()); }
  type("");
  for (const tick of all("input[type=checkbox]", tools)) { tick.click(); seen.filters.push(look_at()); }
}
"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory) -> dict[str, Any]:
    """What the driver saw, with ``messages`` of the console."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "page.html").write_text(made_up(folder))
    frame = f'<body><iframe src="page.html" width="{WIDTH}" height="800" style="border:0"></iframe>'
    (folder / "frame.html").write_text(f"<!DOCTYPE html>{frame}<script>{DRIVER}</script></body>")
    done = dump(folder / "frame.html", folder / "profile")
    found = re.search(r'<pre id="log">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    result = json.loads(html.unescape(found[1]))
    assert "error" not in result, result["error"]
    return result | {"messages": [line for line in done.stderr.splitlines() if "CONSOLE" in line]}


def made_up(folder: Path) -> str:
    """A page with everything on it: ranks, attributes, claims, pictures, method pages, hostile and long names."""
    rates = {"amnet": 0.7, "amnet/no-memory": 0.5, "flam": 0.3, "oracle": 0.98, "random": 0.05}
    speed = {"amnet": 9.5, "amnet/no-memory": None, "flam": 10.25}
    runs = [
        run(
            folder / "runs", name, {"manipulate-1/accuracy@20": outcomes(rate, 400)}, query_ms=speed.get(name, 0.5),
            by_attribute={"manipulate-1": {"colour": {"accuracy@20": {"value": rate, "low": 0.0, "high": 1.0}}}},
            curves={"manipulate-1": {"k": [1, 5, 20], "accuracy": [rate / 3, rate / 2, rate]}},
        )
        for name, rate in rates.items()
    ]  # fmt: skip
    others = [make(f"<b>{'long' * 20}</b>", data="d" * 80, notes=["w" * 300]), make("flam", data="other data")]
    records = [*(one.record for one in runs), *others]
    return render(records, ["x" * 200], judge(runs), runs, {"methods/amnet--no-memory.html"})


def test_nothing_is_said_on_the_console_and_nothing_is_loaded(seen):
    assert seen["messages"] == []
    assert seen["requests"] == []


def test_every_link_leads_somewhere(seen):
    assert seen["dead"] == []
    assert set(seen["pages"]) == {"methods/amnet--no-memory.html"}


def test_nothing_but_tables_and_pictures_is_wider_than_a_phone(seen):
    assert seen["wide"] == []
    assert seen["width"] <= WIDTH


def test_heads_sort_when_pressed(seen):
    method, rank, headline, query = (seen["columns"][name] for name in ("method", "rank", "@20", "query"))
    best_first = ["oracle", "amnet", "amnet/no-memory", "flam", "random"]
    names = sorted(best_first)
    orders = [order for order, _ in seen["sorts"]]
    assert orders[:3] == [best_first, names, names[::-1]]
    assert orders[3][:3] == ["amnet", "amnet/no-memory", "flam"]  # yardsticks have no rank and stay last
    assert orders[4][:2] == ["flam", "amnet"]
    assert orders[4][-1] == orders[5][-1] == "amnet/no-memory"  # no time is known
    assert orders[5][-3:-1] == ["amnet", "flam"]
    assert [marks for _, marks in seen["sorts"]] == [
        [[headline, "descending"]], [[method, "ascending"]], [[method, "descending"]],
        [[rank, "ascending"]], [[query, "descending"]], [[query, "ascending"]],
    ]  # fmt: skip
    assert seen["focused"]
    assert seen["outline"] not in ("none", "")
    assert seen["first"] == "Skip to the tables"


def test_rows_are_filtered_in_tables_and_pictures(seen):
    every = sorted(["amnet", "amnet/no-memory", "flam", "oracle", "random"])
    rows, drawn, counts = zip(*seen["filters"], strict=True)
    assert rows[0] == drawn[0] == every
    assert rows[1] == drawn[1] == ["amnet", "amnet/no-memory"]
    assert rows[2] == drawn[2] == ["amnet/no-memory", "oracle"]
    assert rows[3] == drawn[3] == []
    assert rows[4] == drawn[4] == ["amnet", "flam", "oracle", "random"]  # no variants
    assert rows[5] == drawn[5] == ["amnet", "flam"]  # no floors and ceilings either
    assert counts == tuple(f"{n} of 5 rows" for n in (5, 2, 2, 0, 4, 2))
