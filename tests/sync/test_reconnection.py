"""Reconnection as programs with the blocking API see it."""

from __future__ import annotations

import queue
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from msl_network_trio import (
    ConnectionLost,
    LateReply,
    LockLost,
    Reconnect,
    ReplyTimeout,
    StateChange,
    Unanswered,
)
from msl_network_trio.sync import Client, LinkedClient, connect, notifications
from tests.patience import PATIENCE
from tests.sync.manager import FakeManager

SOON = Reconnect(first_delay=0.01, longest_delay=0.05)


@pytest.fixture
def client(manager: FakeManager):
    with connect(reconnect=SOON, **manager.arguments()) as client:
        yield client


class Call(threading.Thread):
    """A call in a thread of its own.

    Args:
        function: The function to call.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
    """

    def __init__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        super().__init__(daemon=True)
        self._call = (function, args, kwargs)
        self.value: Any = None
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        function, args, kwargs = self._call
        try:
            self.value = function(*args, **kwargs)
        except BaseException as error:
            self.error = error

    def outcome(self) -> Any:
        """Return the outcome; the error if there is one."""
        self.join(PATIENCE)
        assert not self.is_alive(), "it still waits"
        return self.value if self.error is None else self.error


def away(client: Client, manager: FakeManager) -> None:
    """Let the client lose its connection, and none be made until `FakeManager.restart`."""
    states = client.states()
    manager.close()
    assert next(states).state == "away"


# ---- requests ----


def test_calls_wait_while_the_client_is_away(client: Client, manager: FakeManager):
    link = client.link("Echo")
    assert link.add(1, 2) == 3
    away(client, manager)
    assert not client.is_connected()
    assert client.state == "away"
    calls = [Call(link.add, number, 1) for number in range(5)]
    manager.restart()
    assert [call.outcome() for call in calls] == [1, 2, 3, 4, 5]
    assert client.state == "connected"
    assert link.add(1, 2) == 3
    assert client.statistics().reconnections == 1


def test_the_timeout_of_a_call_includes_the_time_without_connection(client: Client, manager: FakeManager):
    link = client.link("Echo")
    away(client, manager)
    with pytest.raises(ReplyTimeout, match=r"within 0\.02 seconds; it was not sent") as caught:
        link.add(1, 2, timeout=0.02)
    assert not caught.value.may_have_run
    assert caught.value.seconds == 0.02


def test_a_call_that_may_have_run_is_not_repeated(client: Client, manager: FakeManager):
    link = client.link("Echo")
    call = Call(link.hold, 1)
    manager.next_held()
    manager.close()
    manager.restart()
    error = call.outcome()
    assert isinstance(error, ConnectionLost)
    assert error.may_have_run
    assert link.add(1, 2) == 3
    assert manager.held.empty()


def test_a_call_that_is_declared_idempotent_is_repeated(client: Client, manager: FakeManager):
    link = client.link("Echo", idempotent={"hold"})
    call = Call(link.hold, 1)
    manager.next_held()
    manager.close()
    manager.restart()
    session, line = manager.next_held()
    session.reply(line, "done")
    assert call.outcome() == "done"


def test_a_call_is_repeated_with_the_arguments_that_it_was_made_with(client: Client, manager: FakeManager):
    link = client.link("Echo", idempotent={"hold"})
    values = [1]
    call = Call(link.hold, values)
    manager.next_held()
    values.append(2)
    manager.close()
    manager.restart()
    session, line = manager.next_held()
    assert line["args"] == [[1]]
    session.reply(line, "done")
    assert call.outcome() == "done"


def test_a_repeated_call_that_times_out_may_have_run(client: Client, manager: FakeManager):
    link = client.link("Echo", idempotent={"hold"})
    call = Call(link.hold, timeout=0.2)
    manager.next_held()
    manager.close()
    error = call.outcome()
    assert isinstance(error, ReplyTimeout)
    assert error.may_have_run
    assert error.seconds == 0.2


def test_calls_raise_if_they_are_not_to_wait(manager: FakeManager):
    policy = Reconnect(first_delay=0.01, longest_delay=0.05, while_away="raise")
    with connect(reconnect=policy, **manager.arguments()) as client:
        link = client.link("Echo")
        away(client, manager)
        with pytest.raises(ConnectionLost, match=r"Echo\.add was not sent") as caught:
            link.add(1, 2)
        assert not caught.value.may_have_run
        states = client.states()
        manager.restart()
        assert next(states).state == "connected"
        while True:  # the link is made again a moment later
            try:
                assert link.add(1, 2) == 3
                break
            except Unanswered as error:
                assert not error.may_have_run


def test_futures_never_wait_for_a_connection(client: Client, manager: FakeManager):
    link = client.link("Echo", idempotent={"hold"})
    future = link.hold(1, asynchronous=True)
    done: queue.SimpleQueue[object] = queue.SimpleQueue()
    future.add_done_callback(done.put)

    def send() -> None:  # what waits to be sent; it may be cut off itself
        with suppress(Unanswered):
            link.add(1, 2)

    threading.Thread(target=send, daemon=True).start()
    manager.next_held()
    away(client, manager)
    assert isinstance(future.exception(PATIENCE), ConnectionLost)
    assert done.get(timeout=PATIENCE) is future
    with pytest.raises(ConnectionLost, match=r"Echo\.hold was not sent") as caught:
        link.hold(1, asynchronous=True)
    assert not caught.value.may_have_run
    manager.restart()
    assert link.add(1, 2) == 3
    future = link.add(1, 2, asynchronous=True)
    future.add_done_callback(done.put)
    assert done.get(timeout=PATIENCE) is future
    assert future.result() == 3


def test_a_loop_that_catches_what_is_unanswered_goes_on(client: Client, manager: FakeManager):
    link = client.link("Echo")
    answered = 0
    for number in range(200):
        if number % 40 == 20:
            manager.close()
            manager.restart()
        try:
            assert link.add(number, 1, timeout=PATIENCE) == number + 1
            answered += 1
        except Unanswered as error:
            assert error.may_have_run
    assert answered >= 195
    assert client.statistics().reconnections >= 4


def test_late_replies_arrive_at_clients_that_reconnect(manager: FakeManager):
    got: queue.SimpleQueue[LateReply] = queue.SimpleQueue()
    with connect(reconnect=SOON, on_late_reply=got.put, **manager.arguments()) as client:
        link = client.link("Echo", idempotent={"hold"})
        call = Call(link.hold, 1, timeout=0.2)
        manager.next_held()
        manager.close()
        manager.restart()
        assert isinstance(call.outcome(), ReplyTimeout)
        session, line = manager.next_held()  # the repeated one
        session.reply(line, "done")
        late = got.get(timeout=PATIENCE)
        assert (late.args, late.result) == ((1,), "done")


# ---- the end ----


def test_disconnecting_ends_calls_that_wait(client: Client, manager: FakeManager):
    link = client.link("Echo")
    away(client, manager)
    call = Call(link.add, 1, 2)
    states = client.states()
    client.disconnect()
    error = call.outcome()
    assert isinstance(error, ConnectionLost)
    assert not error.may_have_run
    assert client.state == "closed"
    assert [change.state for change in states] == ["closed"]
    with pytest.raises(ConnectionLost):
        link.add(1, 2)


def test_giving_up_ends_calls_that_wait(manager: FakeManager):
    policy = Reconnect(first_delay=0.01, longest_delay=0.02, give_up_after=0.1)
    with connect(reconnect=policy, **manager.arguments()) as client:
        link = client.link("Echo")
        states = client.states()
        manager.close()
        error = Call(link.add, 1, 2).outcome()
        assert isinstance(error, ConnectionLost)
        assert [change.state for change in states] == ["away", "closed"]
        assert client.state == "closed"
        assert not client.is_connected()


def test_ctrl_c_interrupts_a_call_that_waits(client: Client, manager: FakeManager):
    link = client.link("Echo")
    away(client, manager)
    main = threading.main_thread().ident
    interrupt = threading.Timer(0.05, signal.pthread_kill, [main, signal.SIGINT])
    interrupt.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            link.add(1, 2)
            raise AssertionError("the call has returned")
    finally:
        interrupt.join()
    manager.restart()
    assert link.add(1, 2) == 3
    requests = [line for session in manager._all for line in session.lines if line["attribute"] == "add"]
    assert len(requests) == 1


def test_unlinking_while_away_is_local_and_final(client: Client, manager: FakeManager):
    link = client.link("Echo")
    with client.link("Echo") as scoped:
        away(client, manager)
        link.unlink()
    assert "Un-Linked" in repr(link)
    assert "Un-Linked" in repr(scoped)
    manager.restart()
    client.identities()
    assert all(line["attribute"] != "link" for line in manager._all[-1].lines)
    assert client.link("Echo").add(1, 2) == 3


# ---- states ----


def test_states_and_on_change_tell_all_changes(manager: FakeManager):
    changes: queue.SimpleQueue[tuple[StateChange, threading.Thread]] = queue.SimpleQueue()

    def on_change(change: StateChange) -> None:
        changes.put((change, threading.current_thread()))
        assert client.state in ("connected", "away", "closed")  # it may use the client

    policy = Reconnect(first_delay=0.01, longest_delay=0.05, on_change=on_change)
    with connect(reconnect=policy, **manager.arguments()) as client:
        assert client.state == "connected"
        states = client.states()
        away(client, manager)
        manager.restart()
        first, second = next(states), next(states)
    assert (first.state, second.state) == ("away", "connected")
    assert isinstance(first.reason, ConnectionLost)
    assert second.reason is None
    assert first.when <= second.when
    assert [change.state for change in states] == ["closed"]
    told = [changes.get(timeout=PATIENCE) for _ in range(3)]
    assert [change.state for change, _ in told] == ["away", "connected", "closed"]
    assert len({thread for _, thread in told}) == 1
    assert told[0][1] is not threading.main_thread()
    assert client.state == "closed"
    assert list(client.states()) == []


def test_a_client_that_does_not_reconnect_has_states_too(manager: FakeManager):
    with connect(**manager.arguments()) as client:
        states = client.states()
        assert client.state == "connected"
        manager.close()
        (change,) = states
    assert change.state == "closed"
    assert isinstance(change.reason, ConnectionLost)


def test_the_first_connection_is_tried_until_the_manager_is_there(manager: FakeManager):
    manager.close()
    call = Call(connect, reconnect=SOON, **manager.arguments(timeout=PATIENCE))
    manager.restart()
    client = call.outcome()
    assert isinstance(client, Client)
    assert client.link("Echo").add(1, 2) == 3
    client.disconnect()


# ---- notifications and locks ----


def test_streams_and_handlers_continue_with_a_gap(client: Client, manager: FakeManager):
    link = client.link("Echo")
    got: queue.SimpleQueue[object] = queue.SimpleQueue()

    class Handler:
        def __call__(self, number: int) -> None:
            got.put(number)

        def on_gap(self, gap: object) -> None:
            got.put("gap")

    link.notification_handler = Handler()
    with notifications(link, gaps=True) as stream:
        manager.session()
        assert link.notify(1) == "notified"
        assert next(stream).args == [0]
        away(client, manager)
        manager.restart()
        session = manager.session()
        gap = next(stream)
        session.notify(7)
        assert next(stream).args == [7]
    assert gap.since <= gap.until
    assert gap.reason
    assert [got.get(timeout=PATIENCE) for _ in range(3)] == [0, "gap", 7]
    assert client.statistics().gaps == {"Echo": 1}


def test_requests_raise_until_a_lost_lock_is_let_go(client: Client, manager: FakeManager):
    link = client.link("Echo")
    with pytest.raises(LockLost, match="Echo"), link.acquire_lock():
        away(client, manager)
        manager.restart()
        for _ in range(3):
            with pytest.raises(LockLost, match="Echo"):
                link.add(1, 2)
    assert link.add(1, 2) == 3
    link.acquire_lock()
    away(client, manager)
    with pytest.raises(LockLost):
        link.add(1, 2)
    with pytest.raises(LockLost):
        link.add(1, 2, asynchronous=True)
    states = client.states()
    manager.restart()
    assert next(states).state == "connected"
    link.release_lock()
    assert link.add(1, 2) == 3


# ---- linked clients ----


def test_a_linked_client_reconnects_as_well(manager: FakeManager):
    with LinkedClient("Echo", reconnect=SOON, idempotent={"hold"}, **manager.arguments()) as linked:
        assert linked.add(1, 2) == 3
        call = Call(linked.hold, 1)
        manager.next_held()
        away(linked.client, manager)
        second = Call(linked.add, 2, 3)
        manager.restart()
        session, line = manager.next_held()
        session.reply(line, "done")
        assert call.outcome() == "done"
        assert second.outcome() == 5


def test_a_forked_process_has_no_connection(client: Client, manager: FakeManager, monkeypatch):
    monkeypatch.setattr(type(client._portal), "is_inherited", True)
    assert client.state == "closed"
