from __future__ import annotations

import json

import pytest

from benchmarks import __main__ as program
from benchmarks import guard, runner
from benchmarks.suites import all_cases
from tests.benchmarks.conftest import case, measured


def with_cpu(reference):
    return [
        measured(
            case(),
            {
                "ours": [{"seconds": 9.0, "cpu": 1.0}] * 3,
                "reference": [{"seconds": 1.0, "cpu": cpu} for cpu in reference],
            },
        )
    ]


def test_what_counts_is_the_median_ratio_of_cpu_times_and_not_of_times():
    assert guard.ratios(with_cpu([2.0, 3.0, 100.0])) == {"client-one-tcp ours": 3.0}


def test_a_floor_is_a_part_of_what_was_measured():
    assert guard.floors({"a": 4.0}) == {"a": 4.0 * guard.MARGIN}


def test_what_nothing_is_recorded_of_is_an_error_and_not_a_pass():
    with pytest.raises(KeyError, match="new"):
        guard.findings({"new": 1.0}, {})
    with pytest.raises(KeyError, match="gone"):
        guard.findings({}, {"gone": 1.0})


def test_everything_that_is_guarded_exists_and_has_a_floor():
    cases = {each.key: each for each in all_cases()}
    assert set(guard.CASES) <= cases.keys()
    assert {name.split(" ")[0] for name in guard.load()} == set(guard.CASES)
    assert all(floor > 0 for floor in guard.load().values())


@pytest.mark.parametrize(("ratio", "status"), [(2.0, 0), (1.3, 1)])
def test_it_fails_if_a_floor_is_broken_and_says_which(ratio, status, monkeypatch, tmp_path, capsys):
    path = tmp_path / "floors.json"
    monkeypatch.setattr(guard, "FILE", path)
    monkeypatch.setattr(runner, "run", lambda cases, plan, progress: with_cpu([2.0] * 3))
    assert program.main(["guard", "--record"]) == 0
    assert json.loads(path.read_text(encoding="utf-8")) == {"client-one-tcp ours": 1.4}
    monkeypatch.setattr(runner, "run", lambda cases, plan, progress: with_cpu([ratio] * 3))
    capsys.readouterr()
    assert program.main(["guard"]) == status
    out, err = capsys.readouterr()
    assert ("BROKEN" in out) == bool(status)
    assert err == ("1 of 1 floors are broken\n" if status else "")
