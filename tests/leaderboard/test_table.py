# SPDX-License-Identifier: MIT
import io

import numpy as np
from records import everything, make
from rich.console import Console

from fm_bench.evaluation.evaluator import evaluate
from fm_bench.evaluation.protocol import Protocol
from fm_bench.leaderboard.rows import Cell
from fm_bench.leaderboard.table import (
    count,
    duration,
    interval,
    markdown_table,
    print_report,
    print_table,
)


def printed(*args, color=False, **kwargs):
    file = io.StringIO()
    print_table(
        *args, Console(file=file, width=100, force_terminal=color, color_system="standard" if color else None), **kwargs
    )
    return file.getvalue()


def test_the_caption_tells_seeds_only_where_there_are_several():
    several, one = (" ".join(printed(everything(seeds)).split()) for seeds in ((0, 1), (0,)))
    assert "; mean over seeds with 95 % interval over requests" in several
    assert "; 95 % interval over requests" in one
    assert "over seeds" not in one


def test_terminal_table_fits_100_columns_and_has_every_part():
    text = printed([*everything((0, 1)), make("a-method-with-a-very-long-name/and-a-long-variant")])
    assert max(map(len, text.splitlines())) <= 100
    for part in (
        "accuracy@1 ",
        "accuracy@10",
        "accuracy@20",
        "ndcg@20",
        "mrr@1000",
        "chance",
        "oracle (ceiling)",
        "0.068",
    ):
        assert part in text
    for protocol in ("manipulate-1", "manipulate-2", "search"):
        assert f"garments · quick · common · {protocol}" in text
    assert "…" not in text


def test_only_the_new_run_is_highlighted():
    old, new = make("amnet"), make("attribute-based")
    lines = printed([old, new], color=True, new=[new.fingerprint]).splitlines()
    styled = [line for line in lines if "\x1b[1;32m" in line]
    assert styled
    assert all("attribute-based" in line for line in styled)


def test_markup_in_a_name_is_only_text():
    assert "[red]x[/]" in printed(make(label="[red]x[/]"))


def test_markdown_cannot_be_broken_by_a_name():
    text = markdown_table([make(label="a|b\n<script>*")], "search")
    row = next(line for line in text.splitlines() if "script" in line)
    assert row.startswith("| a\\|b &lt;script&gt;\\* | 1 |")
    assert "manipulate-1" not in text


def test_markdown_holds_values_command_and_machine():
    text = markdown_table(everything((0, 1, 2)), "manipulate-1")
    assert "| amnet | 3 | 0.442 | 0.615 | 0.680 .656–.704 | 0.612 | 0.340 | 256 | 4.2 min | 1.84 ms |" in text  # noqa: RUF001
    assert "| *chance* |" in text
    assert "`fm-bench bench amnet --data garments --profile quick --seed 0`" in text
    assert "Machine: Example CPU, 2 cores, 15 GiB memory." in text


def test_markdown_never_mixes():
    text = markdown_table([make("amnet"), make("attribute-based", mode="paper")], "search")
    assert text.count("| method |") == 2


def test_a_report_is_printed_with_intervals_and_by_attribute():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, (60, 2))
    report = evaluate(
        np.eye(3, dtype=np.float32)[labels].reshape(60, -1),
        rng.normal(size=(30, 6)).astype(np.float32),
        protocol=Protocol("manipulate-1", 1, k=(1, 20)),
        targets=labels[:30],
        gallery_labels=labels,
        changed=np.stack((np.arange(30) % 2, np.full(30, -1)), axis=1),
        attribute_names=("colour", "[red]sleeve"),
        resamples=100,
    )
    file = io.StringIO()
    print_report(report, "manipulate-1", Console(file=file, width=100))
    lines = file.getvalue().splitlines()
    assert "manipulate-1: 30 requests, 60 gallery images" in lines[0]
    estimate = report.metrics["accuracy@20"]
    assert any(
        line.split()[:3] == ["accuracy@20", f"{estimate.value:.3f}", interval(Cell(*estimate))] for line in lines
    )
    assert any("accuracy@20, [red]sleeve changed" in line for line in lines)
    assert any(len(line.split()) == 2 for line in lines if "chance@20" in line)


def test_words_for_numbers():
    assert [duration(s) for s in (None, 0.04, 8.44, 89.9, 90, 331, 5400, 36000)] == [
        "–", "0.0 s", "8.4 s", "89.9 s", "1.5 min", "5.5 min", "1.5 h", "10.0 h",  # noqa: RUF001
    ]  # fmt: skip
    assert [count(n) for n in (0, 850, 9999, 12_345, 11_200_000, 2.5e9)] == [
        "0", "850", "9999", "12.3 k", "11.2 M", "2.5 G",
    ]  # fmt: skip
    assert interval(Cell(0.5, 0.25, 1.0)) == ".250–1.000"  # noqa: RUF001
    assert interval(Cell(0.5)) == interval(None) == ""
