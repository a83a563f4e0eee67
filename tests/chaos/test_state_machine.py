"""State machine of a client, a Manager and a Service in memory: whatever happens, in whatever order, is right.

Hypothesis draws the steps with a model of what runs; the program of steps runs at the end of each example, in
a Trio run of its own with a clock that jumps.
"""

from __future__ import annotations

import inspect

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from msl_network_trio import connect
from tests.chaos.in_memory import Step, play

HAS_RECONNECTION = "reconnect" in inspect.signature(connect).parameters


class Programs(RuleBasedStateMachine):
    """Draws programs; a subclass says whether the peers reconnect."""

    reconnect: bool

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Step] = []
        self.has_manager = True
        self.has_service = True

    @rule(
        attribute=st.sampled_from(("work", "read", "fail", "hold", "notify")),
        timeout=st.sampled_from((None, 0.05, 1.0, 30.0)),
    )
    def call(self, attribute: str, timeout: float | None) -> None:
        self.steps.append(("call", attribute, timeout))

    @rule()
    def cancel(self) -> None:
        self.steps.append(("cancel",))

    @rule(name=st.sampled_from(("settle", "emit", "go_on", "cut_client", "cut_service")))
    def do(self, name: str) -> None:
        self.steps.append((name,))

    @rule(seconds=st.sampled_from((0.001, 0.1, 0.5, 3.0, 70.0)))
    def sleep(self, seconds: float) -> None:
        self.steps.append(("sleep", seconds))

    @precondition(lambda self: self.has_manager)
    @rule()
    def kill_manager(self) -> None:
        self.has_manager = False
        self.steps.append(("kill_manager",))

    @precondition(lambda self: not self.has_manager)
    @rule()
    def start_manager(self) -> None:
        self.has_manager = True
        self.steps.append(("start_manager",))

    @precondition(lambda self: self.has_service)
    @rule()
    def kill_service(self) -> None:
        self.has_service = False
        self.steps.append(("kill_service",))

    @precondition(lambda self: not self.has_service)
    @rule()
    def start_service(self) -> None:
        self.has_service = True
        self.steps.append(("start_service",))

    def teardown(self) -> None:
        assert play(self.steps, reconnect=self.reconnect) == [], self.steps


class WithoutReconnection(Programs):
    reconnect = False


class WithReconnection(Programs):
    reconnect = True


def test_without_reconnection():
    run_state_machine_as_test(WithoutReconnection, settings=settings(stateful_step_count=30))


@pytest.mark.skipif(not HAS_RECONNECTION, reason="not there yet")
def test_with_reconnection():
    run_state_machine_as_test(WithReconnection, settings=settings(stateful_step_count=30))


@pytest.mark.parametrize(
    "reconnect",
    [False, pytest.param(True, marks=pytest.mark.skipif(not HAS_RECONNECTION, reason="not there yet"))],
)
@pytest.mark.parametrize(
    "steps",
    [
        [],
        [("call", "hold", None), ("settle",), ("kill_manager",), ("sleep", 3.0), ("start_manager",)],
        [("call", "hold", None), ("settle",), ("kill_service",), ("sleep", 3.0), ("start_service",)],
        [("emit",), ("cut_client",), ("emit",), ("sleep", 1.0), ("emit",), ("sleep", 3.0), ("emit",)],
        [("emit",), ("cut_service",), ("emit",), ("sleep", 1.0), ("emit",), ("sleep", 3.0), ("emit",)],
    ],
)
def test_a_program(steps, reconnect):
    assert play(steps, reconnect=reconnect) == []
