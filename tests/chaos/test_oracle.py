"""Tests of the oracle: it finds what contradicts the guarantees, and excuses what the network has changed."""

from __future__ import annotations

import pytest

from tests.chaos.locks import IN_FLIGHT, check_holders
from tests.chaos.oracle import Oracle
from tests.chaos.records import read_executions


@pytest.fixture
def oracle() -> Oracle:
    return Oracle()


def answer(oracle: Oracle, **more: bool):
    request = oracle.made("Alpha", "work", **more)
    oracle.ok(request, [f"t{request.token}#", "Alpha"])
    return request


def test_a_result_that_was_executed_once_is_right(oracle):
    request = answer(oracle)
    assert oracle.judge({request.token: 1}) == []


@pytest.mark.parametrize(("times", "text"), [(0, "not executed"), (2, "2 times")])
def test_a_result_that_was_not_executed_once_is_found(oracle, times, text):
    [fault] = oracle.judge({answer(oracle).token: times})
    assert text in fault


def test_the_result_of_another_request_is_found(oracle):
    request = oracle.made("Alpha", "work")
    oracle.ok(request, ["t77#", "Alpha"])
    [fault] = oracle.judge({request.token: 1})
    assert "t77#" in fault


def test_an_error_that_denies_an_execution_is_found(oracle):
    request = oracle.made("Alpha", "work")
    oracle.unanswered(request, may_have_run=False)
    [fault] = oracle.judge({request.token: 1})
    assert "may_have_run=False" in fault


@pytest.mark.parametrize("times", [0, 1])
def test_an_error_that_admits_an_execution_is_right_either_way(oracle, times):
    request = oracle.made("Alpha", "work")
    oracle.unanswered(request, may_have_run=True)
    assert oracle.judge({request.token: times}) == []


def test_a_request_without_an_outcome_is_found(oracle):
    oracle.made("Alpha", "work")
    [fault] = oracle.judge({})
    assert "no outcome" in fault


def test_two_outcomes_are_found(oracle):
    request = answer(oracle)
    oracle.unanswered(request, may_have_run=True)
    assert len(oracle.judge({request.token: 1})) == 1


def test_an_idempotent_request_may_be_repeated(oracle):
    request = answer(oracle, is_idempotent=True)
    assert oracle.judge({request.token: 3}) == []
    assert oracle.counts["idempotent requests repeated"] == 1


def test_a_request_that_the_network_has_duplicated_may_be_executed_twice(oracle):
    request = answer(oracle)
    oracle.ledger.duplicated[request.token] += 1
    assert oracle.judge({request.token: 2}) == []


def test_an_error_of_another_request_is_found(oracle):
    request = oracle.made("Alpha", "fail")
    oracle.remote_error(request, "ValueError: t99#")
    assert len(oracle.judge({request.token: 1})) == 1


def test_an_execution_that_nobody_asked_for_is_found(oracle):
    [fault] = oracle.judge({5: 1})
    assert "never made" in fault


# ---- notifications ----


def test_notifications_in_order_are_right(oracle):
    stream = oracle.stream("C", "Alpha")
    for number in (7, 8, 9):
        stream.notification(1, number, has_gap=False)
    assert oracle.judge({}) == []


@pytest.mark.parametrize(
    ("start", "number", "text"),
    [(1, 9, "1 notifications of Alpha.1 are missing"), (2, 1, "restarted"), (1, 7, "came after")],
)
def test_an_unmarked_gap_and_a_repetition_are_found(oracle, start, number, text):
    stream = oracle.stream("C", "Alpha")
    stream.notification(1, 7, has_gap=False)
    stream.notification(start, number, has_gap=False)
    [fault] = oracle.judge({})
    assert text in fault


@pytest.mark.parametrize(("start", "number"), [(1, 9), (2, 1)])
def test_a_marked_gap_is_right(oracle, start, number):
    stream = oracle.stream("C", "Alpha")
    stream.notification(1, 7, has_gap=False)
    stream.notification(start, number, has_gap=True)
    assert oracle.judge({}) == []
    assert dict(oracle.report())["gaps"] == 1


def test_a_gap_does_not_excuse_a_repetition(oracle):
    stream = oracle.stream("C", "Alpha")
    stream.notification(1, 7, has_gap=False)
    stream.notification(1, 7, has_gap=True)
    assert len(oracle.judge({})) == 1


def test_notifications_that_the_network_has_changed_are_excused(oracle):
    stream = oracle.stream("C", "Alpha")
    oracle.ledger.numbers |= {("Alpha", 1, 8), ("Alpha", 1, 9)}
    for number in (7, 9, 9, 10):
        stream.notification(1, number, has_gap=False)
    assert oracle.judge({}) == []


# ---- what Services have executed ----


def test_executions_are_read_from_the_files_of_all_starts(tmp_path):
    (tmp_path / "Alpha-1").write_text("begin t1#\nend t1#\nbegin t2#\n")
    later = "connected 10.0\nholder A 10.5\nconnected 12.0\nholder A 12.5\nholder B 13.0\n"
    (tmp_path / "Alpha-2").write_text(f"begin t2#\nend t2#\ntask t3#\n{later}")
    found = read_executions(tmp_path, frozenset({"Alpha"}))
    assert found.times == {1: 1, 2: 2, 3: 1}
    assert found.overlaps == []
    assert found.holders == {"Alpha-2.1": [("A", 0.5)], "Alpha-2.2": [("A", 0.5), ("B", 1.0)]}


def test_plain_methods_that_overlap_are_found(tmp_path):
    text = "begin t1#\nbegin t2#\nend t2#\nend t1#\n"
    for name in ("Alpha", "Beta"):
        (tmp_path / f"{name}-1").write_text(text)
    [overlap] = read_executions(tmp_path, frozenset({"Alpha"})).overlaps
    assert overlap == "Alpha-1: t2# began while t1# ran"


# ---- locks ----

ALTERNATE = {"Bench-1.1": [("A", 1.0), ("B", 2.0), ("A", 3.0)]}
GOES_ON = {"Bench-1.1": [("A", 1.0)], "Bench-1.2": [("B", 1.0), ("A", IN_FLIGHT + 1)]}


def test_holders_of_a_lock_in_turn_are_right(oracle):
    holders = {"Bench-1.1": [("A", 1.0), ("A", 2.0), ("B", 3.0), ("B", 4.0)], "Bench-2.1": [("C", 1.0)]}
    check_holders(oracle, holders, is_told=True)
    assert oracle.faults == []


def test_a_request_that_was_in_flight_when_the_service_went_is_counted(oracle):
    first, second = [("A", 1.0)], [("B", 1.0), ("A", 2.0), ("B", 3.0)]
    check_holders(oracle, {"Bench-1.1": first, "Bench-1.2": second}, is_told=True)
    assert oracle.faults == []
    assert oracle.counts["requests that were in flight when the locked Service went"] == 1


@pytest.mark.parametrize(
    ("holders", "text"), [(ALTERNATE, "A was held by B, too"), (GOES_ON, "A went on with its lock")]
)
def test_two_holders_and_a_holder_that_goes_on_after_a_restart_are_found(oracle, holders, text):
    check_holders(oracle, holders, is_told=True)
    [fault] = oracle.faults
    assert text in fault


@pytest.mark.parametrize("holders", [ALTERNATE, GOES_ON])
def test_what_the_manager_does_not_tell_is_counted(oracle, holders):
    check_holders(oracle, holders, is_told=False)
    assert oracle.faults == []
    assert oracle.counts["locks that were lost without a word of the Manager"] == 1
