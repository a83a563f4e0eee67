"""State machine of a client, a Manager and a Service in memory: whatever happens, in whatever order, is right.

Hypothesis draws the steps with a model of what runs; the program of steps runs at the end of each example, in
a Trio run of its own with a clock that jumps.
"""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from tests.chaos.in_memory import Step, play


class Programs(RuleBasedStateMachine):
    """Draws programs; a subclass says whether the peers reconnect."""

    reconnect: bool

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Step] = []
        self.has_manager = True
        self.has_service = True

    @rule(
        attributes=st.lists(
            st.sampled_from(("hold", "work", "read", "fail", "notify")), min_size=1, max_size=4
        ),
        timeout=st.sampled_from((None, 30.0, 1.0, 0.05)),
        is_settled=st.booleans(),
    )
    def call(self, attributes: list[str], timeout: float | None, is_settled: bool) -> None:
        self.steps += [("call", attribute, timeout) for attribute in attributes]
        if is_settled:  # else the requests may not be written yet, or not received, at the next step
            self.steps.append(("settle",))

    @rule(name=st.sampled_from(("emit", "cut_client", "cut_service", "go_on", "cancel", "settle")))
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


def run(machine: type[Programs]) -> None:
    """Run a state machine with a third of the examples of the profile: each is a Trio run of minutes."""
    run_state_machine_as_test(
        machine, settings=settings(stateful_step_count=20, max_examples=settings().max_examples // 3)
    )


def test_without_reconnection():
    run(WithoutReconnection)


def test_with_reconnection():
    run(WithReconnection)


@pytest.mark.parametrize("reconnect", [False, True])
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
