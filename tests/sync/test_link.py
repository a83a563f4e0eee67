"""Links, locks and notifications in the blocking API."""

from __future__ import annotations

import copy
import inspect
import logging
import pickle
import queue
import threading
import time
import types
from typing import Any

import pytest

from msl_network_trio import ConnectionLost, Gap, LinkBroken, Notification
from msl_network_trio.client.client import client_session
from msl_network_trio.client.link import link_state
from msl_network_trio.sync import Client, Link, LinkedClient, connect, notifications, to_async
from msl_network_trio.sync.wrapped import portal_of, unwrap
from tests.patience import PATIENCE
from tests.sync.manager import FakeManager


def texts(session: Any) -> list[str]:
    return [line["attribute"] for line in session.lines]


# ---- texts and views ----


def test_texts_are_those_of_msl_network(manager: FakeManager):
    client = connect(name="foobar", **manager.arguments())
    link = client.link("Echo")
    at = f"127.0.0.1:{manager.port}"
    assert repr(client) == f"<foobar manager={at} port={client.port}>"
    assert repr(link) == f"<Link with Echo[vm:1234] at Manager[{at}]>"
    assert client.address_manager == at
    assert client.name == "foobar"
    assert client.loop_thread_id in {thread.ident for thread in threading.enumerate()}
    link.unlink()
    assert repr(link) == "<Un-Linked from Echo[vm:1234]>"
    client.disconnect()
    client.disconnect()
    assert repr(client) == "<foobar disconnected>"
    assert client.loop_thread_id is None


def test_a_link_and_its_client_know_each_other(client: Client, link: Link):
    assert isinstance(link, Link)
    assert isinstance(client, Client)
    assert link._client is client
    link.unlink()
    assert link._client is None


def test_a_link_tells_what_the_service_tells(link: Link):
    assert link.service_name == "Echo"
    assert link.service_address == "vm:1234"
    assert link.service_attributes == {"add": "(x, y)", "const": 42}
    assert link.service_language == "Python 3.11.7"
    assert link.service_max_clients == -1
    assert link.service_os == "Linux"
    assert {"add", "const"} <= set(dir(link))
    assert str(inspect.signature(link.add)) == "(x, y)"
    assert repr(link.add) == "<Echo.add(x, y)>"


def test_a_method_tells_what_the_identity_tells_of_it(link: Link, manager: FakeManager):
    with LinkedClient("Echo", **manager.arguments()) as linked:
        for method in (link.add, linked.add):
            assert inspect.getdoc(method) == "<Echo.add(x, y)>, requested from a Service of MSL-Network."
            assert str(inspect.signature(method)) == "(x, y)"


def test_copying_and_pickling_do_not_call_the_service(client: Client, link: Link, manager: FakeManager):
    session = manager.session()
    before = len(session.lines)
    for thing in (client, link):
        with pytest.raises(TypeError, match="cannot be"):
            pickle.dumps(thing)
        with pytest.raises(TypeError, match="cannot be"):
            copy.deepcopy(thing)
    with pytest.raises(AttributeError):
        _ = link._private
    assert len(session.lines) == before


@pytest.mark.parametrize("name", ["manager", "wait", "send_pending_requests", "raise_latest_error"])
def test_what_msl_network_has_dropped_is_answered_with_the_new_way(client: Client, name: str):
    with pytest.raises(
        AttributeError, match=f"{name!r}, which msl-network has not had since version 1.0; use"
    ):
        getattr(client, name)
    with pytest.raises(AttributeError, match="'Client' object has no attribute 'nothing'$"):
        _ = client.nothing


def test_what_tests_of_msl_network_use_is_there_though_it_is_private(client: Client, link: Link):
    assert client._loop._thread_id == client.loop_thread_id
    assert client._new_request("Echo", "add", 1, 2) == 3
    assert client._new_request("Echo", "echo", 1, x=2, timeout=10) == [[1], {"x": 2}]
    assert client._new_request("Echo", "add", 1, 2, asynchronous=True).result(PATIENCE) == 3
    assert client._new_request("Manager", "release_lock", "Echo") == []


def test_unlink_wants_a_link(client: Client):
    for wrong in ("Echo", None):
        with pytest.raises(TypeError, match="^Must pass in a Link object"):
            client.unlink(wrong)  # type: ignore[arg-type]


def test_a_method_is_looked_up_once_until_the_link_is_broken(link: Link):
    add = link.add
    assert link.add is add
    assert link.made_up is not link.made_up
    link.unlink()
    with pytest.raises(LinkBroken, match="Cannot access 'add' since the link has been broken"):
        _ = link.add
    with pytest.raises(LinkBroken, match="Cannot access 'add' since the link has been broken"):
        add(1, 2)


def test_the_async_and_the_blocking_form_lead_to_each_other(client: Client, link: Link):
    assert to_async(client).sync is client
    assert to_async(link).sync is link


# ---- scopes ----


def test_the_scope_of_a_link_unlinks_at_its_end(client: Client, manager: FakeManager):
    session = manager.session()
    with client.link("Echo") as outer:
        with client.link("Echo") as inner:
            assert inner.add(1, 2) == 3
        assert repr(inner).startswith("<Un-Linked")
        assert "unlink" not in texts(session)  # the outer one is still linked
        assert outer.add(1, 2) == 3
    assert texts(session).count("unlink") == 1


def test_the_scope_of_a_lock_releases_it_at_its_end(link: Link, manager: FakeManager):
    session = manager.session()
    with pytest.raises(ZeroDivisionError), link.acquire_lock() as names:
        assert names == ["Client[vm:1]"]
        assert isinstance(names, list)
        raise ZeroDivisionError
    assert texts(session)[-1] == "release_lock"
    assert link.acquire_lock(shared=True, timeout=5) == ["Client[vm:1]"]
    assert session.lines[-1]["kwargs"] == {"shared": True}
    assert link.release_lock(timeout=5) == []


def test_scopes_end_quietly_when_the_connection_has_ended(client: Client):
    with client, client.link("Echo") as link, link.acquire_lock():
        client.disconnect()
    assert not client.is_connected()


def test_the_scope_of_a_client_disconnects_at_its_end(manager: FakeManager):
    with pytest.raises(ZeroDivisionError), connect(**manager.arguments()):
        raise ZeroDivisionError
    session = manager.session()
    assert session.ended.wait(PATIENCE)
    assert session.said_goodbye


def test_spawn_makes_another_client_with_the_same_arguments(client: Client, manager: FakeManager):
    with client.spawn("Other") as other:
        assert isinstance(other, Client)
        assert other.name == "Other"
        assert other.port != client.port
        assert other.link("Echo").add(1, 2) == 3
    assert client.spawn().name == "Client"


# ---- notifications ----


def test_a_handler_is_called_in_order_and_always_in_the_same_thread(link: Link):
    received: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def handle(self: Link, number: int) -> None:
        received.put((self.service_name, number, threading.current_thread()))

    link.notification_handler = types.MethodType(handle, link)  # type: ignore[method-assign]
    assert link.notify(200) == "notified"
    got = [received.get(timeout=PATIENCE) for _ in range(200)]
    assert [number for _, number, _ in got] == list(range(200))
    assert {name for name, _, _ in got} == {"Echo"}
    assert len({thread for _, _, thread in got}) == 1
    assert got[0][2] is not threading.current_thread()
    link.notification_handler = None  # type: ignore[method-assign, assignment]
    link.notify(3)
    assert received.empty()


def test_a_handler_may_call_its_own_link(link: Link):
    received: queue.SimpleQueue[Any] = queue.SimpleQueue()
    link.notification_handler = lambda number: received.put(link.add(number, 10))  # type: ignore[method-assign]
    link.notify(3)
    assert [received.get(timeout=PATIENCE) for _ in range(3)] == [10, 11, 12]


def test_a_handler_that_takes_long_delays_no_reply(link: Link):
    entered, leave = threading.Event(), threading.Event()

    def handle(number: int) -> None:
        entered.set()
        leave.wait(PATIENCE)

    link.notification_handler = handle  # type: ignore[method-assign]
    link.notify(1)
    assert entered.wait(PATIENCE)
    assert [link.add(n, 1) for n in range(100)] == [n + 1 for n in range(100)]
    leave.set()


def test_an_exception_in_a_handler_is_logged_and_ends_nothing(link: Link, caplog):
    done = threading.Event()

    def handle(number: int) -> None:
        if number == 1:
            done.set()
        else:
            raise ZeroDivisionError("in the handler")

    with caplog.at_level(logging.ERROR, "msl_network_trio"):
        link.notification_handler = handle  # type: ignore[method-assign]
        link.notify(2)
        assert done.wait(PATIENCE)
    assert "in the handler" in caplog.text
    assert "exception in the notification handler for 'Echo': <function" in caplog.text
    assert link.add(1, 2) == 3


def test_a_handler_may_disconnect(link: Link, client: Client, manager: FakeManager):
    done = threading.Event()

    def handle(number: int) -> None:
        client.disconnect()
        done.set()

    link.notification_handler = handle  # type: ignore[method-assign]
    try:
        link.notify(1)
    except ConnectionLost:
        pass
    assert done.wait(PATIENCE)
    assert not client.is_connected()
    assert manager.session().said_goodbye


def test_an_async_handler_runs_in_the_event_loop(link: Link, client: Client):
    received: queue.SimpleQueue[Any] = queue.SimpleQueue()

    async def handle(number: int) -> None:
        received.put((await to_async(link).add(number, 10), threading.get_ident()))

    link.notification_handler = handle  # type: ignore[method-assign]
    link.notify(1)
    assert received.get(timeout=PATIENCE) == (10, client.loop_thread_id)


def test_notifications_can_be_iterated(link: Link):
    with notifications(link) as stream:
        link.notify(3)
        got = [next(stream) for _ in range(3)]
        assert all(isinstance(notification, Notification) for notification in got)
        assert [notification.args for notification in got] == [[0], [1], [2]]
        assert stream.dropped == 0
        link.unlink()
        assert list(stream) == []


def put_gap(link: Link, number: int) -> Gap:
    """Put a gap where a reconnected client would."""
    gap = Gap(time.time() + number, time.time() + number, f"loss {number}", "Echo")
    client = unwrap(link._client)
    start = client_session(client).callback_tasks.start
    portal_of(link).do(lambda: link_state(unwrap(link)).put_gap(gap, start))
    return gap


class Recorder:
    """A handler with a method for gaps, which notes the thread."""

    def __init__(self) -> None:
        self.got: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def handle(self, number: int) -> None:
        self.got.put((number, threading.current_thread()))

    def on_gap(self, gap: Gap) -> None:
        self.got.put((gap, threading.current_thread()))
        if gap.reason == "loss 2":
            raise ZeroDivisionError("in on_gap")


def test_a_handler_is_called_with_gaps_in_order_and_in_its_thread(link: Link, caplog):
    recorder = Recorder()
    link.notification_handler = recorder.handle  # type: ignore[method-assign]
    gaps = [put_gap(link, 0)]
    link.notify(2)
    gaps += [put_gap(link, 1)]
    link.notify(1)
    gaps += [put_gap(link, 2)]
    link.notify(1)
    got = [recorder.got.get(timeout=PATIENCE) for _ in range(7)]
    assert [each for each, _ in got] == [gaps[0], 0, 1, gaps[1], 0, gaps[2], 0]
    assert len({thread for _, thread in got}) == 1
    assert got[0][1] is not threading.current_thread()
    assert "in on_gap" in caplog.text


def test_gaps_are_iterated_if_asked_for(link: Link):
    with notifications(link, gaps=True) as stream, notifications(link) as plain:
        link.notify(1)
        gap = put_gap(link, 1)
        link.notify(1)
        assert [next(stream) for _ in range(3)] == [
            Notification("Echo", [0], {}),
            gap,
            Notification("Echo", [0], {}),
        ]
        assert [next(plain).gap for _ in range(2)] == [None, gap]


def test_a_notification_that_a_thread_has_read_reaches_the_handler(link: Link):
    received: queue.SimpleQueue[int] = queue.SimpleQueue()
    link.notification_handler = received.put  # type: ignore[method-assign]
    for _ in range(100):
        link.notify(1)
    assert [received.get(timeout=PATIENCE) for _ in range(100)] == [0] * 100


def test_a_notification_arrives_also_right_after_many_calls(link: Link, manager: FakeManager):
    received: queue.SimpleQueue[int] = queue.SimpleQueue()
    link.notification_handler = received.put  # type: ignore[method-assign]
    session = manager.session()
    for number in range(20):
        for _ in range(20):
            link.add(1, 2)
        session.notify(number)  # no call is open, so only the event loop can read it
        assert received.get(timeout=PATIENCE) == number


def test_the_shutdown_handler_is_called_when_the_connection_has_ended(manager: FakeManager):
    ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
    client = connect(**manager.arguments())
    assert client.shutdown_handler() is None
    client.shutdown_handler = lambda: ended.put(client.is_connected())  # type: ignore[method-assign]
    manager.session().close()
    assert ended.get(timeout=PATIENCE) is False
