# SPDX-License-Identifier: MIT
"""What the README says is what the records say, between its markers and nowhere else."""

import dataclasses

import pytest
from records import everything, make, outcomes, run

from fm_bench.errors import UserError
from fm_bench.leaderboard.claims import judge
from fm_bench.leaderboard.readme import claims_table, update_readme

BEGIN, END = "<!-- results:begin manipulate-1 search -->", "<!-- results:end -->"
CLAIMS = "<!-- claims:begin -->", "<!-- claims:end -->"


def test_readme_is_updated_between_its_markers_only(tmp_path):
    path = tmp_path / "README.md"
    path.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    records = everything()
    assert update_readme(path, records, check=True)
    assert "old" in path.read_text()
    assert update_readme(path, records)
    text = path.read_text()
    assert text.startswith(f"before\n{BEGIN}\n")
    assert text.endswith(f"{END}\nafter\n")
    assert "old" not in text
    assert text.index("manipulate-1**") < text.index("· search")
    assert not update_readme(path, list(reversed(records)), check=True)
    assert update_readme(path, records[:2], check=True)


def test_the_markers_say_what_is_shown(tmp_path):
    path = tmp_path / "README.md"
    records = everything()
    assert any(record.variant for record in records)
    path.write_text(f"{BEGIN.replace(' search', ' without-variants')}\n{END}\n")
    update_readme(path, records)
    text = path.read_text()
    assert "· search" not in text
    for record in records:
        assert (f"| {record.name} " in text) == (not record.variant), record.name


@pytest.mark.parametrize("text", ["no markers", f"{BEGIN} only", f"{END} {BEGIN}", f"<!-- results:begin -->\n{END}"])
def test_a_readme_without_markers_is_a_users_error(tmp_path, text):
    path = tmp_path / "README.md"
    path.write_text(text)
    with pytest.raises(UserError, match="results:begin manipulate-1"):
        update_readme(path, [make()])
    with pytest.raises(UserError, match=r"none\.md"):
        update_readme(tmp_path / "none.md", [make()])
    path.write_text(f"{BEGIN.replace('search', 'serach')}\n{END}")
    with pytest.raises(UserError, match="serach"):
        update_readme(path, [make()])


def test_every_pair_of_markers_is_kept_up_to_date_and_none_is_alone(tmp_path):
    path = tmp_path / "README.md"
    path.write_text(f"{BEGIN}\n{END}\nwords\n<!-- results:begin manipulate-2 -->\n| a lie |\n{END}\nend\n")
    assert update_readme(path, everything())
    text = path.read_text()
    assert "a lie" not in text
    assert text.count("· manipulate-2") == 1
    assert text.endswith(f"{END}\nend\n")
    assert not update_readme(path, everything(), check=True)
    for mark in (*CLAIMS, BEGIN, END):  # without its other half it would be left as it is for ever
        path.write_text(f"{text}{mark}\nold\n")
        with pytest.raises(UserError, match="without its counterpart"):
            update_readme(path, everything())


def test_halves_of_characters_are_written_as_escapes(tmp_path):
    path = tmp_path / "README.md"
    path.write_text(f"{BEGIN}\n{END}\n")
    records = [make(command="fm-bench bench \ud800")]
    assert update_readme(path, records)
    assert "fm-bench bench \\ud800" in path.read_text()
    assert not update_readme(path, records, check=True)


@pytest.fixture
def verdicts(tmp_path):
    runs = []
    for name, rate in {"amnet": 0.4, "amnet/no-memory": 0.6, "amnet/no-ranking": 0.4}.items():
        for seed in range(3 if "ranking" not in name else 1):
            results = {f"manipulate-1/{m}": outcomes(rate, 600, seed=9 * seed) for m in ("accuracy@20", "ndcg@20")}
            runs.append(run(tmp_path / f"{name.replace('/', '-')}{seed}", name, results, seed))
    return judge(runs)


def test_claims_that_were_tested_have_one_row_each(verdicts):
    lines = claims_table(verdicts).splitlines()
    assert lines[0].count("|") == 5
    assert [line[:6] for line in lines[2:]] == ["| H1 T", "| H2 T", "| H3 R"]
    memory = lines[2]
    assert "**violated**, -.1" in memory
    assert memory.endswith("(3 seeds) |")
    assert "amnet &gt; amnet/no-memory | accuracy@20" in memory
    assert "seeds" not in lines[3]
    assert "ndcg" not in lines[4], "of several metrics the first"
    assert claims_table([]).count("\n") == 1


def test_claims_that_print_the_same_order_twice_show_one_verdict_each(verdicts):
    first = next(verdict for verdict in verdicts if verdict.claim.id == "H1" and verdict.difference)
    claim = dataclasses.replace(first.claim, id="H1 (DARN)", statement="The memory helps, as on DARN", tie=".003")
    twice = [first, dataclasses.replace(first, claim=claim, outcome="preserved")]
    (row,) = claims_table(twice).splitlines()[2:]
    assert "violated" in row
    assert "preserved" not in row, "that is another claim than the one the row names"


def test_claims_are_updated_where_the_file_has_room_for_them(tmp_path, verdicts):
    path = tmp_path / "README.md"
    marks = f"{BEGIN}\n{END}\nwords\n"
    path.write_text(marks)
    update_readme(path, everything(), verdicts)
    assert "violated" not in path.read_text()
    path.write_text(f"{marks}{CLAIMS[0]}\nold\n{CLAIMS[1]}\nend\n")
    assert update_readme(path, everything(), verdicts)
    assert "**violated**" in path.read_text()
    assert path.read_text().endswith(f"{CLAIMS[1]}\nend\n")
    assert not update_readme(path, everything(), verdicts, check=True)
    assert update_readme(path, everything(), verdicts[:1], check=True)
