# SPDX-License-Identifier: MIT
"""Every column of every protocol is defined where anyone can read it, and is called so that it can be told apart."""

import re
from functools import cache
from pathlib import Path

import pytest
from records import estimate, make
from test_shown import latency
from test_site import Page

from fm_bench import recipe
from fm_bench.evaluation.sweep import RATIO
from fm_bench.leaderboard.columns import _metric, columns_of, glossary, group_head
from fm_bench.leaderboard.method_pages import render_pages
from fm_bench.leaderboard.record import Record, load_all
from fm_bench.leaderboard.rows import tables
from fm_bench.leaderboard.shown import like
from fm_bench.leaderboard.site import render
from fm_bench.leaderboard.views import timed
from fm_bench.questions import load_protocol

PROTOCOLS = recipe.names("protocols")
RECORDS = Path(__file__).parents[2] / "leaderboards" / "records"


@cache
def recorded() -> dict[str, list[str]]:
    """What published records hold of every protocol."""
    found: dict[str, list[str]] = {}
    for record in load_all(RECORDS)[0]:
        for name, metrics in record.metrics.items():
            found[name] = list(dict.fromkeys([*found.get(name, []), *metrics]))
    return found


def metrics(name: str) -> list[str]:
    """What a record holds of a protocol, by its definition; of a kind of its own, by what records have of that kind."""
    asked = load_protocol(name)
    if asked.kind != "retrieval":
        return recorded()[like(name)]
    cuts = {"accuracy": asked.k, "chance": asked.k, "success": asked.success, "mrr": asked.mrr}
    cuts |= {"ndcg": asked.ndcg, "ndcg_ones": asked.ndcg, "mrr_item": asked.mrr_item}
    sizes = [f"accuracy@20|{round(5000 * share)}" for share in asked.sweep]
    return [f"{family}@{k}" for family, ks in cuts.items() for k in ks] + (sizes and [*sizes, RATIO])


def record(name: str) -> Record:
    parts = {"protocols": {name: "ab" * 32}, "metrics": {name: {metric: estimate(0.5) for metric in metrics(name)}}}
    return make(**parts, by_attribute={}, curves={})


def records(name: str) -> list[Record]:
    """Results of a protocol, with the times of single queries where these are shown beside it."""
    parts = {"protocols": {"latency": "ab"}, "metrics": {"latency": latency(0.5)}}
    return [record(name), *([] if like(name) == "latency" else [make(**parts, by_attribute={}, curves={})])]


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_column_has_a_definition_that_is_not_its_name(name):
    every = tables(records(name))
    (table,) = (one for one in every if one.key.protocol == name)
    columns = columns_of(table, timed(every))
    assert len(columns) > 3
    for column in columns:
        assert len(column.definition.split()) >= 4, column.name
        assert "does not know" not in column.definition
        assert not column.definition.startswith((column.name, column.head))
        assert "{" not in column.definition
        assert column.head in column.name  # what is seen is what may be said to a machine that listens
        assert len(group_head(column.group, name)[1].split()) >= 4
    names = [column.name for column in columns]
    assert len(set(names)) == len(names)
    assert list(glossary(columns, table.headline)) == ["method", "rank", "seeds", *names]


@pytest.mark.parametrize("name", PROTOCOLS)
def test_definitions_stand_on_the_page_and_heads_are_called_apart(name):
    text = render(records(name))
    article = next(part for part in text.split("<article")[1:] if f">{name}</h3>" in part)
    heads = re.findall(r'<th scope="col".*?<button type="button"(?: aria-label="(.*?)")?>(.*?)</button>', article)
    said = [label or shown for label, shown in heads]
    assert len(set(said)) == len(said)
    entries = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", article)
    assert [term for term, _ in entries] == said
    assert all(len(definition.split()) >= 3 for _, definition in entries)
    assert article.index("</table>") < article.index("<summary>What the columns mean")


def test_the_columns_of_detectors_are_told_apart_by_name():
    heads = [attrs.get("aria-label") for tag, attrs in Page(render([record("detection")])).tags if tag == "button"]
    names = ("ap@0.7 shop", "ap@0.7 street", "recall@0.7 shop", "found@0.7 street", "accuracy@20 true boxes")
    assert set(names) <= set(heads)


def test_what_is_not_known_is_not_made_up():
    parts = {"protocols": {"another": "ab"}, "metrics": {"another": {"beauty@3": estimate(0.5)}}}
    page = Page(render([make(**parts, by_attribute={}, curves={})]))
    assert "amnet" in page.results()[0]
    for name in ("beauty@3", "found@0.7 elsewhere", "accuracy@20 found boxes"):
        assert "does not know" in _metric(name, "detection").definition


def test_a_page_of_a_method_defines_every_column_once():
    both = [record("detection"), record("manipulate-1")]
    (text,) = render_pages(both, {}, "../index.html").values()
    terms = re.findall(r"<dt>(.*?)</dt>", text)
    assert len(set(terms)) == len(terms)
    assert {"seeds", "accuracy@20", "recall@0.7 shop", "size"} <= set(terms)
    assert "rank" not in terms  # there is no such column
