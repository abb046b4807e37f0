# SPDX-License-Identifier: MIT
"""Five folds of one method are one row, and rows are compared fold by fold."""

import io
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from records import make, outcomes, run
from rich.console import Console
from scipy import stats

from fm_bench.errors import UserError
from fm_bench.files import digest
from fm_bench.leaderboard.claims import judge
from fm_bench.leaderboard.compare import differences, fold_test, load_runs, scores
from fm_bench.leaderboard.folds import Paired, holm, paired_t, t_interval
from fm_bench.leaderboard.rows import tables
from fm_bench.leaderboard.site import build
from fm_bench.leaderboard.table import markdown_table, print_folds, print_table, span

SKILLS = (0.61, 0.55, 0.58, 0.66, 0.60)
HITS = "manipulate-1/accuracy@20"


def work(fold, *, folded="the data", seed=0, asked="requests", **settings):
    """What the records of one fold have in common, whichever method ran."""
    config = {"seed": seed, "lr": 0.001, "training_images": 8000 + fold, "fold": fold, "folded": folded}
    return {
        "config": config | settings,
        "data_digest": digest(folded, fold),
        "request_digests": {"search": digest(asked, fold)},
        "gallery": 1000 + fold,
    }


def folds_of(name="amnet", skills=SKILLS, *, seed=0, finished=None, code=None, **changes):
    """The records of a cross-validation, of as many folds as ``skills``."""
    changes |= {"code": code} if code else {}
    return [
        make(
            name,
            seed,
            skill=skill,
            protocols={"search": "cc"},
            finished=finished or f"2026-02-0{fold + 1}T00:00:00",
            requests={"search": 200 + fold},
            **(work(fold, seed=seed) | changes),
        )
        for fold, skill in enumerate(skills)
    ]


def values(records, metric="accuracy@20"):
    return [record.metrics["search"][metric]["value"] for record in records]


# ---------------------------------------------------------------------- rows


def test_five_folds_are_one_row_of_a_table_of_their_own():
    runs = folds_of()
    (table,) = tables([runs[i] for i in (3, 0, 4, 1, 2)])
    assert table.key.data == "garments, 5 folds"
    assert table.key.gallery == 1002
    assert table.requests == sum(range(200, 205))
    (row,) = table.rows
    assert [record.config["fold"] for record in row.records] == [0, 1, 2, 3, 4] == list(row.folds)
    assert row.seeds == 1
    cell = row.cell("accuracy@20")
    low, high = stats.t.interval(0.95, 4, np.mean(values(runs)), stats.sem(values(runs)))
    assert cell.value == pytest.approx(np.mean(values(runs)))
    assert (cell.low, cell.high) == pytest.approx((low, high))
    assert (cell.least, cell.most) == (min(values(runs)), max(values(runs)))
    assert [part.value for part in row.by_fold("accuracy@20")] == values(runs)
    assert row.attribute_cell("colour").value == pytest.approx(0.9 * cell.value)
    assert any("t-intervals over the folds" in note for note in row.notes)
    assert not any("instead of" in note or "newest" in note for note in row.notes)
    assert table.chance["accuracy@20"] == pytest.approx(1 - 0.9965**20)


def test_folds_and_ordinary_runs_share_nothing():
    ordinary = make(protocols={"search": "cc"})
    found = tables([*folds_of(), ordinary, *folds_of("random", (0.1,) * 5)])
    assert [table.key.data for table in found] == ["garments", "garments, 5 folds"]
    assert [len(table.rows) for table in found] == [1, 2]
    assert found[0].rows[0].records == (ordinary,)
    assert found[0].rows[0].folds == ()


@pytest.mark.parametrize("changes", [{"folded": "other data"}, {"asked": "other requests"}])
def test_other_work_in_any_fold_is_another_table(changes):
    other = folds_of("random", (0.1,) * 5)
    changed = make("random", skill=0.1, protocols={"search": "cc"}, requests={"search": 204}, **work(4, **changes))
    keys = [table.key for table in tables([*folds_of(), *other[:4], changed])]
    assert "garments, 5 folds" in [key.data for key in keys]
    assert len(keys) > 1
    assert all(len(table.rows) == 1 for table in tables([*folds_of(), *other[:4], changed]))


def test_an_unfinished_cross_validation_says_so():
    found = tables([*folds_of(), *folds_of("random", (0.1, 0.2))])
    assert [(table.key.data, len(table.rows)) for table in found] == [
        ("garments, 2 of 5 folds", 1),
        ("garments, 5 folds", 1),
    ]
    (alone,) = tables(folds_of(skills=(0.5,)))
    assert alone.rows[0].cell("accuracy@20").low is None  # one fold has no spread


def test_seeds_count_as_their_mean_in_every_fold():
    first, second = folds_of(), folds_of(skills=[skill + 0.1 for skill in SKILLS], seed=1)
    (row,) = tables([*second, *first])[0].rows
    assert row.seeds == 2
    assert [record.seed for record in row.records] == [0] * 5 + [1] * 5
    means = np.mean([values(first), values(second)], axis=0)
    assert [part.value for part in row.by_fold("accuracy@20")] == pytest.approx(means)
    cell = row.cell("accuracy@20")
    assert cell.value == pytest.approx(means.mean())
    assert (cell.low, cell.high) == pytest.approx(t_interval(means))  # five values and not ten
    assert (cell.least, cell.most) == pytest.approx((means.min(), means.max()))


def test_the_newest_run_of_a_fold_counts():
    old, new = folds_of(finished="2026-01-01T00:00:00"), folds_of(skills=(0.7,) * 5)
    (table,) = tables([*new, *old])
    (row,) = table.rows
    assert row.records == tuple(new)
    assert row.notes[-1] == "10 runs of 5 folds were found; the newest run of each fold is shown."


def test_other_settings_or_code_are_other_rows():
    code = {"version": "0.2.0", "digest": "ff" * 32, "git": ""}
    other = [
        make("amnet", skill=skill, protocols={"search": "cc"}, requests={"search": 200 + fold}, **work(fold, lr=0.1))
        for fold, skill in enumerate(SKILLS)
    ]
    (table,) = tables([*folds_of(), *folds_of(code=code), *other])
    assert len(table.rows) == 3
    differing = [note for row in table.rows for note in row.notes if note.startswith("Not the same")]
    assert len(differing) == 2
    assert not any(word in note for note in differing for word in ("fold ", "training_images"))


def test_a_metric_that_one_fold_lacks_is_missing():
    runs = folds_of()
    del runs[2].metrics["search"]["mrr@1000"]
    (row,) = tables(runs)[0].rows
    assert row.cell("mrr@1000") is None
    assert row.by_fold("mrr@1000")[2] is None
    assert row.cell("accuracy@1") is not None


def test_intervals_of_shares_end_at_0_and_1_and_others_do_not():
    runs = folds_of(skills=(0.01, 0.01, 0.01, 0.01, 0.9))
    for record, difference in zip(runs, (-0.1, 0.0, 0.0, 0.0, 0.9), strict=True):
        record.metrics["search"]["difference"] = {"value": difference}
    (row,) = tables(runs)[0].rows
    assert row.cell("accuracy@20").low == 0
    assert row.cell("difference").low < -0.1


# ---------------------------------------------------------------------- tests over folds


def test_the_paired_test_is_the_textbooks():
    x, y = (0.30, 0.34, 0.28, 0.33, 0.31), (0.28, 0.30, 0.27, 0.30, 0.27)
    found = paired_t(x, y)
    reference = stats.ttest_rel(x, y)
    assert found.value == pytest.approx(np.mean(x) - np.mean(y))
    assert found.p == pytest.approx(reference.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(reference.confidence_interval(0.95)))
    assert found.p < 0.05 < stats.ttest_ind(x, y).pvalue  # folds differ more than methods do, and pairing sees it
    assert t_interval(x) == pytest.approx(stats.t.interval(0.95, 4, np.mean(x), stats.sem(x)))
    assert t_interval([0.5]) is None


def test_differences_without_spread():
    assert paired_t([0.3] * 5, [0.3] * 5) == Paired(0.0, 0.0, 0.0, 1.0)
    found = paired_t([0.1, 0.2, 0.3, 0.4, 0.5], [0.0, 0.1, 0.2, 0.3, 0.4])
    assert found == (pytest.approx(0.1), pytest.approx(0.1), pytest.approx(0.1), 0.0)


def test_holm_on_paper():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_never_lowers_a_p_and_keeps_their_order(p):
    adjusted = holm(p)
    assert all(a >= b for a, b in zip(adjusted, p, strict=True))
    assert max(adjusted) <= 1
    order = np.argsort(p, kind="stable")
    assert np.all(np.diff(np.array(adjusted)[order]) >= 0)


def test_methods_are_compared_on_the_means_of_their_folds():
    x, y = folds_of(), folds_of("random", (0.5, 0.5, 0.52, 0.6, 0.55))
    found = fold_test(x[::-1], y, "search", "accuracy@20")
    reference = stats.ttest_rel(values(x), values(y))
    assert found.value == pytest.approx(np.mean(values(x)) - np.mean(values(y)))
    assert found.p == pytest.approx(reference.pvalue)
    swapped = fold_test(y, x, "search", "accuracy@20")
    assert swapped == (pytest.approx(-found.value), pytest.approx(-found.high), pytest.approx(-found.low), found.p)
    seeds = [*x, *folds_of(skills=[2 * 0.6 - skill for skill in SKILLS], seed=1)]
    flat = fold_test(seeds, folds_of("random", (0.6,) * 5), "search", "accuracy@20")
    assert len(set(np.round(values(x), 9))) == 5
    assert flat.low == pytest.approx(flat.high, abs=1e-6)  # the two seeds' means are the same in all folds


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (folds_of("random", (0.1,) * 4), "on the folds 0, 1, 2, 3, 4 and random on 0, 1, 2, 3: run all five"),
        ([make("random", protocols={"search": "cc"})], "random on none"),
        (
            [
                make("random", protocols={"search": "cc"}, **work(fold, asked="others" if fold == 3 else "requests"))
                for fold in range(5)
            ],
            "differ in request digest",
        ),
    ],
)
def test_only_equal_folds_of_equal_work_are_compared(other, says):
    with pytest.raises(UserError, match=says):
        fold_test(folds_of(), other, "search", "accuracy@20")


def test_an_unknown_protocol_or_metric_of_a_fold_is_one_sentence():
    x, y = folds_of(), folds_of("random", (0.1,) * 5)
    with pytest.raises(UserError, match="protocol of amnet"):
        fold_test(x, y, "serch", "accuracy@20")
    with pytest.raises(UserError, match="fold 0 of amnet has no accuracy@7 on search"):
        fold_test(x, y, "search", "accuracy@7")


# ---------------------------------------------------------------------- what is shown


def printed(records, width=80):
    file = io.StringIO()
    print_folds(records, Console(file=file, width=width))
    return file.getvalue()


def test_every_fold_mean_and_interval_are_printed_within_80_columns():
    runs = folds_of("amnet/no-a-variant-of-a-very-long-name-indeed")
    text = printed(runs)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert "garments, 5 folds · quick · common · search" in text
    (line,) = [line for line in text.splitlines() if line.split()[:1] == ["accuracy@20"]]
    cell = tables(runs)[0].rows[0].cell("accuracy@20")
    ends = span(cell.low, cell.high)
    assert line.split() == ["accuracy@20", *(f"{value:.3f}" for value in values(runs)), f"{cell.value:.3f}", ends]
    for metric in ("accuracy@1", "accuracy@10", "ndcg@20", "mrr@1000"):
        assert metric in text
    assert "t-test" not in text  # one method has nobody to be compared with


def test_every_other_method_is_tested_against_the_best():
    x = folds_of()
    others = {
        "fcd": folds_of("fcd", (0.5, 0.5, 0.52, 0.6, 0.55)),
        "flam": folds_of("flam", (0.1, 0.2, 0.3, 0.2, 0.1)),
        "random": folds_of("random", (0.1, 0.1, 0.2, 0.1, 0.1)),
    }
    text = printed([*x, *itertools.chain(*others.values()), *folds_of("oracle", (1.0,) * 5)])
    assert "accuracy@20, difference from the best row, amnet" in text  # the ceiling is nobody's rival
    after = text[text.index("difference from") :]
    assert "against the best row" in " ".join(after.split())
    lines = {
        line.split()[0]: line.split() for line in after.splitlines() if line.split()[:1] and line.split()[0] in others
    }
    assert set(lines) == set(others)
    tests = {name: stats.ttest_rel(values(records), values(x)).pvalue for name, records in others.items()}
    methods = ("fcd", "flam")
    adjusted = dict(zip(methods, holm([tests[name] for name in methods]), strict=True))
    assert adjusted["fcd"] != tests["fcd"] or adjusted["flam"] != tests["flam"]
    for name, line in lines.items():
        shown = ["<.001" if p < 0.001 else f"{p:.3f}"[1:] for p in (tests[name], adjusted.get(name, 1.0))]
        assert line[-2:] == (shown if name in methods else [shown[0], "\N{EN DASH}"]), "floors are in no family"


def test_tables_of_folds_say_what_their_intervals_are_of():
    file = io.StringIO()
    print_table(folds_of(), Console(file=file, width=120))
    assert "t-interval over folds" in file.getvalue()
    (row,) = [line for line in markdown_table(folds_of(), "search").splitlines() if line.startswith("| amnet")]
    assert row.split("|")[2].strip() == "1"  # seeds, not runs


def test_the_page_shows_folds_and_judges_ordinary_runs_only(tmp_path):
    """Claims rest on runs that were asked the same requests: folds never stand for, or beside, such a run."""
    for fold in range(5):
        for name, rate in (("amnet", 0.3), ("attribute-based", 0.6)):  # turned round
            same = work(fold) | {"request_digests": {"manipulate-1": f"fold {fold}"}}
            run(tmp_path / f"fold{fold}", name, {HITS: outcomes(rate, 300 + fold, seed=fold)}, **same)
    for name, rate in (("amnet", 0.6), ("attribute-based", 0.3)):
        run(tmp_path / "whole", name, {HITS: outcomes(rate, 400)})
    runs, problems = load_runs(tmp_path)
    assert len(runs) == 2
    assert not problems
    judged = [verdict for verdict in judge(runs) if verdict.difference is not None]
    assert {verdict.data for verdict in judged} == {"garments"}
    assert any(verdict.outcome == "preserved" for verdict in judged)
    assert not any(verdict.outcome == "violated" for verdict in judged)
    html = build(tmp_path, tmp_path / "page.html").read_text()
    assert "garments, 5 folds" in html


def test_requests_of_different_folds_are_never_averaged(tmp_path):
    def of(name, fold):
        same = work(fold) | {"request_digests": {"manipulate-1": f"fold {fold}"}}
        return run(tmp_path / f"fold{fold}", name, {HITS: outcomes(0.5, 300)}, **same)

    x, y = [of("x", fold) for fold in range(2)], [of("y", fold) for fold in range(2)]
    with pytest.raises(UserError, match="were asked different requests"):
        scores(x, "manipulate-1", "accuracy@20")
    assert scores(x[:1], "manipulate-1", "accuracy@20").mean.mean() == pytest.approx(
        x[0].record.metrics["manipulate-1"]["accuracy@20"]["value"]
    )
    assert differences(x[:1], y[:1], "manipulate-1", ["accuracy@20"])["accuracy@20"].value == 0
    with pytest.raises(UserError, match="differ in data digest, request digest"):
        differences(x[:1], y[1:], "manipulate-1", ["accuracy@20"])
