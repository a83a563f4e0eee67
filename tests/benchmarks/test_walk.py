"""Tests of `benchmarks walk`: the files that a call goes through."""

from __future__ import annotations

import sys
import threading

import pytest

from benchmarks import __main__ as program
from benchmarks.walk import BASELINE, COUNTS, METHODS, Step, Walk, walk


def step(text):
    return Step(*text.split(" "))


MADE_UP = Walk(
    [
        step("client/link.py call"),
        step("protocol/client.py make"),
        step("protocol/codec.py encode"),
        step("manager/peer_loop.py receive"),
        step("protocol/codec.py decode"),
        step("protocol/manager/routing.py handle"),
        step("protocol/manager/routing.py forward"),
        step("transport/tcp.py send"),
        step("protocol/service.py receive"),
        step("manager/peer_loop.py receive"),
        step("client/link.py call"),
    ]
)


def test_a_switch_is_a_step_into_another_file_and_belongs_to_a_program():
    assert MADE_UP.counts() == {
        "switches": 9,
        "client": 2,
        "Manager": 3,
        "Service": 0,
        "between": 4,
        "files": 7,
        "functions": 9,
        "entries": 11,
    }


@pytest.mark.parametrize("kind", METHODS)
def test_a_call_is_followed_through_all_programs_and_back(kind):
    walked = walk(METHODS[kind])
    assert walked.steps[0].function == "RemoteMethod.__call__"
    order = [
        role for role, before in zip(walked.roles(), ["", *walked.roles()], strict=False) if role != before
    ]
    assert order == ["client", "Manager", "Service", "Manager", "client"]
    counts = walked.counts()
    assert tuple(counts) == tuple(BASELINE[kind]) == COUNTS
    assert counts["switches"] == sum(counts[name] for name in ("client", "Manager", "Service", "between"))
    assert sys.getprofile() is threading.getprofile() is None


def test_a_call_crosses_at_most_half_as_many_files_as_at_the_baseline():
    limit = BASELINE["async"]["switches"] // 2
    # The scheduler orders tasks at random, and what runs beside the call may add a step.
    assert any(walk(METHODS["async"]).switches <= limit for _ in range(5)), (
        "see python -m benchmarks walk --steps"
    )


def test_it_is_compared_with_an_earlier_commit_and_the_steps_are_listed(capsys):
    assert program.main(["walk", "--method", "async", "--steps"]) == 0
    steps, counts = capsys.readouterr().out.split("\n\n")
    assert steps.startswith("method: async\nclient ")
    assert "Manager  manager/" in steps
    heading, now, before = counts.splitlines()
    assert heading.split() == ["method", "commit", *COUNTS]
    assert now.split()[:2] == ["async", "now"]
    assert before.split()[:3] == ["async", "49ddf9d", "75"]
