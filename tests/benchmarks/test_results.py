from __future__ import annotations

import json
from dataclasses import replace

import pytest

from benchmarks import results, table
from benchmarks.commands import compare


def test_a_run_is_the_same_when_it_is_read_again(run, tmp_path):
    path = tmp_path / "run.json"
    results.save(run, path)
    assert results.load(path) == run


def test_the_file_tells_the_ratios_to_readers_of_other_kinds(run, tmp_path):
    path = tmp_path / "run.json"
    results.save(run, path)
    first, second = json.loads(path.read_text(encoding="utf-8"))["cases"]
    assert first["key"] == "client-one-tcp"
    assert first["ratios"][0]["median"] == pytest.approx(2.2)
    assert second["ratios"][0]["values"] == [0.0, 0.0, 0.0]


def test_of_several_runs_the_last_of_each_case_counts(run):
    other = results.Results({"machine": "another"}, 2, False, "latency", "again", [run.cases[1]], [])
    both = results.merged([run, other])
    assert both.cases == run.cases
    assert (both.environment, both.rounds, both.skipped) == (other.environment, 2, run.skipped)
    assert both.command == "python -m benchmarks; again"
    assert results.merged([run]) == run
    earlier, later = (replace(run, environment={"machine": "m", "commit": name}) for name in ("abc", "def"))
    merged = results.merged([earlier, later, earlier])
    assert merged.environment == {"machine": "m", "commit": "abc, def"}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 1}', "\x00"])
def test_another_file_is_refused(text, tmp_path):
    path = tmp_path / "run.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(results.UnreadableResults, match="does not hold the results"):
        results.load(path)


def test_another_schema_is_refused(run, tmp_path):
    run.schema = 99
    path = tmp_path / "run.json"
    results.save(run, path)
    with pytest.raises(results.UnreadableResults, match="schema 99"):
        results.load(path)


def test_the_table_has_ratios_goals_verdicts_and_what_was_skipped(run):
    text = table.as_text(run)
    one = next(line for line in text.splitlines() if line.startswith("one call"))
    assert one.split("  ")[0] == "one call at a time, TCP *"
    assert (
        one.split()[-13:]
        == [
            "2.00",
            "2.20",
            "3.00",
            "2.00",
            "2.00",
            "2.50",
            "-",
            "floor",
            "met;",
            "target",
            "NOT",
            "met,",
            "12%",
            "short",
        ][-13:]
    )
    threads = next(line for line in text.splitlines() if line.startswith("a further"))
    assert threads.endswith("floor met")
    assert "at most" in threads
    assert "skipped: a peer: it is not installed" in text
    assert "a machine" in text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (0.123, "0.12"), (9.949, "9.95"), (12.34, "12.3"), (346.4, "346")]
)
def test_numbers_have_the_digits_that_mean_something(value, text):
    assert table.number(value) == text


def test_what_changed_between_two_runs_is_told_with_whether_chance_may_explain_it(run, tmp_path, capsys):
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    results.save(run, old)
    run.cases[0].costs["reference"]["seconds"] = [4e-5, 8e-5, 4e-5]
    run.environment["machine"] = "another machine"
    results.save(run, new)
    assert compare.main([str(old), str(new)]) == 0
    text = capsys.readouterr().out
    assert "another machine" in text
    one = next(line for line in text.splitlines() if line.startswith("one call"))
    assert one.split()[-7:] == ["2.20", "4.00", "+82%", "greater", "in", "all", "rounds"]
    assert next(line for line in text.splitlines() if line.startswith("a further")).endswith(
        "within the spread"
    )


def test_what_only_one_of_two_runs_has_is_told(run):
    other = results.Results(**{**run.__dict__, "cases": run.cases[:1]})
    changes, alone = compare.changes(run, other)
    assert [change.name for change in changes] == ["one call at a time, TCP *"]
    assert alone == ["a further connection, TCP, threads"]


def test_comparing_what_cannot_be_read_fails_with_a_reason(tmp_path, capsys):
    assert compare.main([str(tmp_path / "none.json"), str(tmp_path / "none.json")]) == 1
    assert "none.json" in capsys.readouterr().err
