"""Safe states and lost locks in the blocking API."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest
import trio

from msl_network_trio import ConnectionLost, LockLost, Unanswered
from msl_network_trio.sync import Link, connect, safe_state
from tests.patience import PATIENCE
from tests.sync.manager import NOTHING, FakeManager, Session
from tests.sync.waiting import wait_until


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Let Ctrl-C raise `KeyboardInterrupt`, since the tests may have been started with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def requested(session: Session) -> list[str]:
    return [line["attribute"] for line in session.lines]


def test_functions_are_called_in_the_calling_thread_and_in_order(link: Link, manager: FakeManager):
    called: list[object] = []
    manager.answers["off"] = lambda session, line: called.append("off")
    state = safe_state(
        link, lambda: called.append(threading.get_ident()), "off", lambda: called.append("end")
    )
    with pytest.raises(ZeroDivisionError), state:
        raise ZeroDivisionError
    assert called == [threading.get_ident(), "off", "end"]


def test_after_a_normal_end_nothing_is_executed(link: Link):
    with safe_state(link, lambda: pytest.fail("called")):
        pass


def test_an_async_function_is_refused(link: Link):
    async def close() -> None:
        """Do nothing."""

    with pytest.raises(TypeError, match="close is an async function"):
        safe_state(link, close)


@pytest.mark.usefixtures("ctrl_c")
def test_a_second_ctrl_c_ends_the_wait(link: Link, manager: FakeManager):
    session = manager.sessions.get()

    def press(session: Session, line: object) -> object:
        if hasattr(signal, "pthread_kill"):
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        else:
            signal.raise_signal(signal.SIGINT)
        return NOTHING

    manager.answers["measure"] = manager.answers["off"] = press
    with pytest.raises(KeyboardInterrupt), safe_state(link, "off", ("set_voltage", 0)):
        link.measure()
    wait_until(lambda: "set_voltage" in requested(session))
    assert [name for name in requested(session) if name in {"measure", "off", "set_voltage"}] == [
        "measure",
        "off",
        "set_voltage",
    ]


def test_the_actions_are_executed_over_another_connection(link: Link, manager: FakeManager):
    first = manager.sessions.get()
    manager.answers["off"] = lambda session, line: None
    with pytest.raises(ConnectionLost) as raised, safe_state(link, "off"):
        first.close()
        link.silent()
    assert not hasattr(raised.value, "__notes__")
    assert "off" in requested(manager.sessions.get())


# ---- lost locks ----


def test_the_end_of_a_block_reports_that_its_lock_was_lost(link: Link, manager: FakeManager):
    session = manager.sessions.get()
    with pytest.raises(LockLost, match="'Echo' Service was lost") as raised, link.acquire_lock():
        session.close()
        with pytest.raises(Unanswered):
            link.silent()
    assert raised.value.service == "Echo"


def test_another_exception_of_the_block_has_the_lost_lock_as_a_note(link: Link, manager: FakeManager):
    session = manager.sessions.get()
    with pytest.raises(ConnectionLost) as raised, link.acquire_lock():
        session.close()
        link.silent()
    (note,) = raised.value.__notes__
    assert "The lock on the 'Echo' Service was lost" in note


def test_a_lock_that_is_no_scope_is_only_logged(link: Link, manager: FakeManager, caplog):
    session = manager.sessions.get()
    link.acquire_lock()
    session.close()
    with pytest.raises(ConnectionLost):
        link.silent()
    assert "the lock on 'Echo' is lost" in caplog.text


def test_the_actions_are_executed_in_a_worker_thread_whose_task_is_cancelled(manager: FakeManager):
    executed: list[str] = []
    manager.answers["off"] = lambda session, line: executed.append("off")

    def work() -> None:
        with connect(**manager.arguments()) as client, safe_state(client.link("Echo"), "off"):
            client.link("Echo").silent()

    async def main() -> None:
        token = trio.lowlevel.current_trio_token()
        with trio.fail_after(PATIENCE), trio.CancelScope() as scope:

            def cancel(session: Session, line: object) -> object:
                token.run_sync_soon(scope.cancel)
                return NOTHING

            manager.answers["silent"] = cancel
            await trio.to_thread.run_sync(work)
        assert scope.cancelled_caught

    trio.run(main)
    assert executed == ["off"]
