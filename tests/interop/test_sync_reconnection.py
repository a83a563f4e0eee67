"""Reconnection with the blocking API: Managers and Services that are killed and started again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from msl_network_trio import Gap, LateReply, LockLost, ReplyTimeout, ServiceLost, Unanswered
from msl_network_trio.sync import LinkedClient, connect, notifications
from tests.interop.reference import Manager
from tests.patience import PATIENCE
from tests.sync.test_reconnection import Call

pytestmark = pytest.mark.interop


def test_a_script_survives_the_restart_of_the_manager_and_of_the_service(
    start_either: Callable[..., Manager],
):
    lab = start_either()
    lab.start_service("Echo")
    with connect(reconnect=True, **lab.arguments()) as client:
        states = client.states()
        link = client.link("Echo", idempotent={"slow"})
        with notifications(link, gaps=True) as stream:
            link.notify(1)
            assert next(stream).args == [1]
            open_call = Call(link.slow, 0.5, "idempotent")
            lab.end()
            assert next(states).state == "away"
            waiting = [Call(link.add, number, 1) for number in range(3)]
            again = start_either(port=lab.port)
            again.start_service("Echo")
            assert [call.outcome() for call in waiting] == [1, 2, 3]
            assert open_call.outcome() == "idempotent"
            assert next(states).state == "connected"
            gap = next(stream)
            assert isinstance(gap, Gap)
            link.notify(2)
            assert next(stream).args == [2]
        assert link.add(1, 2, asynchronous=True).result() == 3
        found = client.statistics()
        assert found.reconnections >= 1
        assert found.gaps == {"Echo": 1}


def test_a_call_that_may_have_run_raises_and_the_next_one_waits(start_either: Callable[..., Manager]):
    lab = start_either()
    service = lab.start_service("Echo")
    with LinkedClient("Echo", reconnect=True, probe_after=0.2, **lab.arguments()) as linked:
        call = Call(linked.slow, 60)
        assert linked.add(1, 2) == 3  # so the call has reached the Service
        service.kill()
        error = call.outcome()
        assert isinstance(error, ServiceLost)
        assert error.may_have_run
        waiting = Call(linked.add, 2, 3)
        lab.start_service("Echo")
        assert waiting.outcome() == 5


@pytest.mark.slow
def test_a_loop_does_not_continue_without_its_lock(start_either: Callable[..., Manager]):
    lab = start_either()
    lab.start_service("Echo")
    with connect(reconnect=True, **lab.arguments()) as client:
        states = client.states()
        link = client.link("Echo")
        with pytest.raises(LockLost), link.acquire_lock():
            assert link.add(1, 2) == 3
            lab.end()
            again = start_either(port=lab.port)
            again.start_service("Echo")
            assert next(states).state == "away"
            with pytest.raises(LockLost):
                while True:
                    try:
                        link.add(1, 2)
                    except Unanswered:
                        pass
        assert link.add(1, 2) == 3


@pytest.mark.slow
def test_a_late_reply_reaches_the_program(start_either: Callable[..., Manager]):
    lab = start_either()
    lab.start_service("Echo")
    arrived = threading.Event()
    got: list[LateReply] = []

    def take(late: LateReply) -> Any:
        got.append(late)
        arrived.set()

    with connect(on_late_reply=take, **lab.arguments()) as client:
        link = client.link("Echo")
        with pytest.raises(ReplyTimeout) as caught:
            link.slow(0.3, value=7, timeout=0.1)
        assert caught.value.may_have_run
        assert arrived.wait(PATIENCE)
        assert client.statistics().late_replies == 1
    (late,) = got
    assert (late.attribute, late.args, late.kwargs, late.result) == ("slow", (0.3,), {"value": 7}, 7)
