# SPDX-License-Identifier: MIT
import numpy as np
import pytest
from records import outcomes, run

from fm_bench.errors import UserError
from fm_bench.evaluation.significance import paired_difference
from fm_bench.leaderboard.compare import differences, load_run, load_runs, scores
from fm_bench.leaderboard.resampling import Noise, Scores, contrast, sample

HITS = "manipulate-1/accuracy@20"


def difference(x, y, protocol="manipulate-1", metric="accuracy@20"):
    return differences(x, y, protocol, [metric])[metric]


def alone(values, requests, row="x"):
    return sample({"": one_seed(values, row)}, requests)[""]


def one_seed(values, row="x"):
    return Scores(row, (values.astype(float),))


def test_paired_difference_sees_what_separate_intervals_cannot(tmp_path):
    # The same requests, 3 % of which only x answers: far inside both intervals (±2.5 %), and yet certain.
    x = run(tmp_path, "x", {HITS: outcomes(0.53)})
    y = run(tmp_path, "y", {HITS: outcomes(0.50)})
    found = difference([x], [y])
    assert found.value == pytest.approx(outcomes(0.53).mean() - outcomes(0.50).mean(), abs=1e-6)
    assert 0 < found.low < found.value < found.high < 0.06
    assert found.wins == round(1500 * found.value)
    assert found.ties == 1500 - found.wins
    assert found.losses == 0
    unpaired = contrast(alone(outcomes(0.53), "some"), alone(outcomes(0.50), "others", "y"), Noise())
    assert unpaired.low < 0 < unpaired.high
    reference = paired_difference(outcomes(0.53), outcomes(0.50))
    assert (found.low, found.high) == pytest.approx((reference.low, reference.high), abs=1e-3)
    other = difference([y], [x])
    assert (other.value, other.wins) == (pytest.approx(-found.value), 0)


def test_unpaired_interval_is_that_of_two_independent_means():
    x, y = alone(outcomes(0.6, 1000), "some"), alone(outcomes(0.3, 800, seed=1), "others", "y")
    found = contrast(x, y, Noise())
    spread = (0.6 * 0.4 / 1000 + 0.3 * 0.7 / 800) ** 0.5
    assert found.high - found.low == pytest.approx(2 * 1.96 * spread, rel=0.05)
    assert found == contrast(alone(outcomes(0.6, 1000), "some"), y, Noise())


def test_seeds_are_averaged_request_by_request_and_do_not_narrow_the_interval(tmp_path):
    same = [run(tmp_path, "x", {HITS: outcomes(0.5)}, seed=seed) for seed in range(4)]
    y = run(tmp_path, "y", {HITS: outcomes(0.4, seed=9)})
    assert scores(same, "manipulate-1", "accuracy@20").mean.shape == (1500,)
    assert difference(same, [y]) == pytest.approx(difference(same[:1], [y]), abs=1e-12)


def seeds(folder, name, rates):
    """Runs whose seeds differ by training alone: a higher rate hits a superset of the requests."""
    return [run(folder, name, {HITS: outcomes(rate)}, seed) for seed, rate in enumerate(rates)]


@pytest.mark.parametrize(
    ("rates", "against", "decided"),
    [
        ((0.80, 0.45, 0.45), (0.5,), False),  # wins with one seed and loses with two
        ((0.80, 0.45, 0.45), (0.5, 0.5, 0.5), False),
        ((0.80, 0.45, 0.45), (0.5, 0.5), False),
        ((0.60, 0.57, 0.55), (0.5,), False),  # another seed of the other might score as much
        ((0.60, 0.59, 0.58), (0.5,), True),
        ((0.60, 0.57, 0.55), (0.51, 0.5, 0.49), True),
        ((0.60, 0.59, 0.57), (0.51, 0.5), True),
        ((0.60, 0.57, 0.55), (0.65, 0.5, 0.36), False),  # the other side's seeds are as doubtful
        ((0.57,), (0.65, 0.5, 0.36), False),
    ],
)
def test_seeds_count_on_either_side_however_many_there_are(tmp_path, rates, against, decided):
    x, y = seeds(tmp_path, "x", rates), seeds(tmp_path, "y", against)
    found, turned = difference(x, y), difference(y, x)
    assert found.value == pytest.approx(np.mean(rates) - np.mean(against), abs=0.02)
    assert found.value > 0.03
    assert (found.low > 0) == decided
    assert found.high > found.value
    assert (turned.high < 0) == decided


def test_requests_without_the_metric_do_not_count(tmp_path):
    x, y = (outcomes(rate, 400) for rate in (0.6, 0.5))
    kept = contrast(*sample({0: one_seed(x[:300]), 1: one_seed(y[:300], "y")}, "some").values(), Noise())
    x[300:] = y[300:] = np.nan
    holed = [run(tmp_path, name, {HITS: values}) for name, values in (("x", x), ("y", y))]
    found = difference(holed[:1], holed[1:])
    assert found.value == pytest.approx(kept.value)
    assert (found.low, found.high) == pytest.approx((kept.low, kept.high), abs=0.01)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"request_digests": {"manipulate-1": "others"}}, "request digest"),
        ({"data_digest": "others"}, "data digest"),
        ({"protocols": {"manipulate-1": "others"}}, "protocol digest"),
        ({"mode": "paper"}, "mode"),
        ({"gallery": 7}, "gallery"),
    ],
)
def test_runs_that_were_not_asked_the_same_are_refused(tmp_path, changes, named):
    x = run(tmp_path, "x", {HITS: outcomes(0.5)})
    y = run(tmp_path, "y", {HITS: outcomes(0.5)}, **changes)
    with pytest.raises(UserError, match=f"differ in {named}"):
        difference([x], [y])


def test_an_unknown_protocol_or_metric_names_the_known_ones(tmp_path):
    x = run(tmp_path, "x", {HITS: outcomes(0.5)})
    with pytest.raises(UserError, match="did you mean manipulate-1"):
        difference([x], [x], "manipulate-3", "accuracy@20")
    with pytest.raises(UserError, match="did you mean manipulate-1/accuracy@20"):
        x.per_request("manipulate-1", "accuracy@21")
    assert differences([x], [x], "manipulate-1", ["accuracy@21"]) == {}


@pytest.mark.parametrize(
    ("results", "named"),
    [
        (outcomes(0.5, 10), "has shape"),
        (np.full(1500, np.nan), "none at all"),
        (np.append(outcomes(0.5, 1499), np.inf), "has infinite"),
        (outcomes(0.6), "has mean"),
        (np.array([{}] * 1500), "could not be read"),
    ],
)
def test_requests_of_another_run_are_found_out(tmp_path, results, named):
    x = run(tmp_path, "x", {HITS: outcomes(0.5)})
    np.savez(x.path, **{HITS: results})
    with pytest.raises(UserError, match=named) as error:
        x.per_request("manipulate-1", "accuracy@20")
    assert str(x.path) in str(error.value)


def test_missing_and_damaged_requests_are_users_errors(tmp_path):
    x = run(tmp_path, "x", {HITS: outcomes(0.5)})
    for data in (b"", b"PK\x03\x04 truncated", x.path.read_bytes()[:-50]):
        x.path.write_bytes(data)
        with pytest.raises(UserError, match=r"requests\.npz"):
            x.per_request("manipulate-1", "accuracy@20")
    x.path.unlink()
    with pytest.raises(UserError, match="is missing"):
        x.per_request("manipulate-1", "accuracy@20")


def test_of_a_run_that_lies_there_twice_the_newest_counts(tmp_path):
    for folder, finished in (("a", "2026-01-01"), ("b", "2026-01-03"), ("c", "2026-01-02")):
        run(tmp_path / folder, "x", {HITS: outcomes(0.5)}, fingerprint="f" * 64, finished=f"{finished}T00:00:00+00:00")
    (found,), problems = load_runs(tmp_path)
    assert found.path.is_relative_to(tmp_path / "b")
    assert problems == []


def test_runs_are_found_with_their_requests_and_filed_ones_too(tmp_path):
    x = run(tmp_path / "runs", "x", {HITS: outcomes(0.5)})
    y = run(tmp_path / "runs", "y", {HITS: outcomes(0.5)})
    y.path.unlink()
    (tmp_path / "runs" / "z").mkdir()
    (tmp_path / "runs" / "z" / "record.json").write_text("{")
    (tmp_path / "runs" / "z" / "requests.npz").write_bytes(b"")
    runs, problems = load_runs(tmp_path / "runs")
    assert runs == [x]
    assert len(problems) == 1
    filed = tmp_path / "filed" / "x.json"
    filed.parent.mkdir()
    for name, kept in (("record.json", filed), ("requests.npz", filed.with_suffix(".npz"))):
        kept.write_bytes((x.path.parent / name).read_bytes())
    (again,) = load_runs(tmp_path / "filed")[0]
    assert again == load_run(filed)
    np.testing.assert_array_equal(again.per_request("manipulate-1", "accuracy@20"), outcomes(0.5))
