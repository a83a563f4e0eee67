"""LinkedClient, and typical subclasses of users."""

from __future__ import annotations

import gc
import queue
import signal
import sys
import types
from typing import Any

import pytest
import trio

from msl_network_trio import ConnectionLost, ConnectTimeout, Gap, LinkBroken, RemoteError
from msl_network_trio import LinkedClient as AsyncLinkedClient
from msl_network_trio.client.link import link_state
from msl_network_trio.sync import Client, Link, LinkedClient, notifications, request, to_async
from msl_network_trio.sync.wrapped import portal_of, unwrap
from tests.patience import PATIENCE
from tests.sync.manager import NOTHING, FakeManager


@pytest.fixture
def boom(manager: FakeManager) -> None:
    manager.answers["boom"] = lambda session, line: session.fail(line, "ValueError: boom") or NOTHING


def test_it_is_a_client_that_looks_like_its_service(manager: FakeManager):
    linked = LinkedClient("Echo", name="foobar", nonsense=1, **manager.arguments())
    assert linked.is_connected()
    at = f"127.0.0.1:{manager.port}"
    assert repr(linked) == f"<Link[name=foobar] with Echo[vm:1234] at Manager[{at}]>"
    assert linked.add(1, y=2) == 1
    assert linked.add(1, 2) == 3
    assert linked.add(1, 2, asynchronous=True).result(PATIENCE) == 3
    assert request(linked, "add", [1, 2]) == 3
    assert isinstance(linked.client, Client)
    assert isinstance(linked.link, Link)
    assert linked._client is linked.client
    assert linked._link is linked.link
    assert {"add", "const"} <= set(dir(linked))
    assert linked.identity()["name"] == "foobar"
    assert linked.identities()["hostname"] == "vm"
    assert (linked.name, linked.address_manager, linked.port) == ("foobar", at, linked.client.port)
    told = (linked.service_name, linked.service_address, linked.service_max_clients, linked.service_os)
    assert told == ("Echo", "vm:1234", -1, "Linux")
    linked.disconnect(timeout=5)
    linked.disconnect()
    assert not linked.is_connected()
    assert linked.client is None
    assert linked.link is None
    assert linked._client is None
    assert linked._link is None
    assert repr(linked) == "<Un-Linked[name=foobar] from Echo[vm:1234]>"
    assert linked.address_manager == at
    for call in (linked.identities, linked.identity, lambda: linked.admin_request("port")):
        with pytest.raises(ConnectionError, match="^The LinkedClient has been disconnected$"):
            call()
    with pytest.raises(AttributeError, match="^Cannot access 'add' since the link has been broken$"):
        linked.add(1, 2)


def test_it_unlinks_and_stays_connected(manager: FakeManager):
    with LinkedClient("Echo", **manager.arguments()) as linked:
        linked.unlink(timeout=5)
        linked.unlink()
        assert linked._link is None
        assert linked.is_connected()
        with pytest.raises(LinkBroken):
            linked.add(1, 2)


def test_it_locks_and_its_scope_disconnects(manager: FakeManager):
    with LinkedClient("Echo", **manager.arguments()) as linked:
        with linked.acquire_lock(shared=True, timeout=5) as names:
            assert names == ["Client[vm:1]"]
        assert linked.acquire_lock() == ["Client[vm:1]"]
        assert linked.release_lock(timeout=5) == []
        with notifications(linked) as stream:
            linked.notify(1)
            assert next(stream).args == [0]
    assert not linked.is_connected()
    assert manager.session().said_goodbye


def test_a_service_that_does_not_come_is_a_timeout(manager: FakeManager):
    with pytest.raises(ConnectTimeout, match="^The 'Nope' service is not available$"):
        LinkedClient("Nope", **manager.arguments(timeout=0.2))


def test_spawn_makes_one_of_this_class_and_not_of_a_subclass(manager: FakeManager):
    class Mine(LinkedClient):
        pass

    with Mine("Echo", **manager.arguments()) as mine:
        assert mine.name == "Mine"
        with mine.spawn() as other:
            assert type(other) is LinkedClient
            assert other.name == "LinkedClient"
            assert other.add(1, 2) == 3
        with mine.spawn("Third") as third:
            assert third.name == "Third"


def test_shutdown_service_breaks_the_link(manager: FakeManager):
    manager.answers["shutdown_service"] = lambda session, line: ["bye", *line["args"]]
    with LinkedClient("Echo", **manager.arguments()) as linked:
        assert linked.shutdown_service(1, timeout=5) == ["bye", 1]
        assert linked.link is None
        assert linked.is_connected()
        with pytest.raises(
            LinkBroken, match="^Cannot access 'shutdown_service' since the link has been broken"
        ):
            linked.shutdown_service()


def test_one_that_is_forgotten_leaves_the_network(manager: FakeManager):
    linked = LinkedClient("Echo", **manager.arguments())
    session = manager.session()
    assert linked.add(1, 2) == 3
    del linked
    gc.collect()
    assert session.ended.wait(PATIENCE)
    assert session.said_goodbye


def test_ctrl_c_does_not_keep_one_that_is_forgotten(manager: FakeManager, monkeypatch):
    linked = LinkedClient("Echo", **manager.arguments())
    session, portal, unraisable = manager.session(), linked._portal, []
    post = portal.post

    def interrupted(*args: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        post(*args)

    monkeypatch.setattr(portal, "post", interrupted)
    monkeypatch.setattr(sys, "unraisablehook", lambda what: unraisable.append(what.exc_type))
    del linked
    gc.collect()
    assert unraisable == [KeyboardInterrupt]  # Python cannot raise it in any caller
    assert session.ended.wait(PATIENCE)
    assert session.said_goodbye


def test_one_that_cannot_be_made_can_still_be_looked_at(manager: FakeManager):
    seen = []

    class Mine(LinkedClient):
        def __init__(self, **kwargs: Any) -> None:
            seen.append(self)
            super().__init__("Nope", **kwargs)

        def disconnect(self) -> None:  # type: ignore[override]
            if self._client is not None:
                super().disconnect()

    with pytest.raises(TimeoutError):
        Mine(**manager.arguments(timeout=0.1))
    (half,) = seen
    half.disconnect()
    assert half._link is None
    assert not half.is_connected()
    assert "Mine" in repr(half)


# ---- subclasses of users ----


class Shutter(LinkedClient):
    """A subclass with methods and attributes of its own that checks whether it is connected."""

    def __init__(self, position: int, **kwargs: Any) -> None:
        self._client = None
        self._link = None
        self.position = position
        self._name = "my own"
        super().__init__("Echo", **kwargs)

    def move(self, by: int) -> int:
        self.position = self._link.add(self.position, by)
        return self.position

    def disconnect(self) -> None:  # type: ignore[override]
        if self._client is None:
            return
        self.position = 0
        super().disconnect()


def test_a_subclass_with_attributes_of_its_own_and_disconnect_without_parameters(manager: FakeManager):
    shutter = Shutter(5, **manager.arguments())
    assert shutter.move(2) == 7
    assert shutter._name == "my own"
    assert shutter.name == "Shutter"
    shutter.disconnect()
    shutter.disconnect()
    assert shutter.position == 0
    with Shutter(1, **manager.arguments()) as shutter:
        assert shutter.move(1) == 2
    assert shutter._client is None


def test_a_subclass_may_disconnect_after_the_link_is_gone(manager: FakeManager):
    shutter = Shutter(1, **manager.arguments())
    shutter.unlink()
    shutter.disconnect()
    shutter = Shutter(1, **manager.arguments())
    for _ in range(2):
        session = manager.session()
    session.close()
    with pytest.raises(ConnectionError):
        while True:
            shutter.move(1)
    shutter.disconnect()
    assert shutter._client is None
    assert shutter._link is None


class Forwarding(LinkedClient):
    """A subclass that defines a missing attribute itself."""

    def __getattr__(self, item: str) -> Any:
        def service(*args: Any, **kwargs: Any) -> Any:
            return [item, getattr(self._link, item)(*args, **kwargs)]

        return service


def test_a_subclass_with_its_own_getattr(manager: FakeManager):
    with Forwarding("Echo", **manager.arguments()) as forwarding:
        assert forwarding.add(1, 2) == ["add", 3]
        assert forwarding._link.add(1, 2) == 3


class Careful(LinkedClient):
    """A subclass that cleans up and disconnects when the Service raises."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("Echo", **kwargs)
        self.happened: list[Any] = []

    def service_error_handler(self) -> None:
        self.happened.append(self.is_connected())
        self.disconnect()


@pytest.mark.parametrize("way", ["method", "request"])
def test_the_service_error_handler_may_disconnect(manager: FakeManager, boom: None, way: str):
    careful = Careful(**manager.arguments())
    assert careful.add(1, 2) == 3
    with pytest.raises(RemoteError, match="ValueError: boom"):
        careful.boom() if way == "method" else request(careful, "boom")
    assert careful.happened == [True]
    assert careful._client is None
    assert manager.session().said_goodbye


def test_an_exception_of_the_service_error_handler_is_raised(manager: FakeManager, boom: None):
    class Translating(LinkedClient):
        def service_error_handler(self) -> None:
            raise KeyError("my own")

    with Translating("Echo", **manager.arguments()) as translating:
        with pytest.raises(KeyError, match="my own") as caught:
            translating.boom()
        assert isinstance(caught.value.__context__, RemoteError)
        assert translating.add(1, 2) == 3


@pytest.mark.parametrize("way", ["assigned", "method type", "overridden", "assigned before"])
def test_notifications_reach_every_kind_of_handler(manager: FakeManager, way: str):
    received: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def handle(self: LinkedClient, number: int) -> None:
        received.put((self.service_name, number, self.add(number, 10)))

    class Overriding(LinkedClient):
        notification_handler = handle

    class Assigning(LinkedClient):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self.notification_handler = types.MethodType(handle, self)
            super().__init__(*args, **kwargs)

    classes = {"overridden": Overriding, "assigned before": Assigning}
    with classes.get(way, LinkedClient)("Echo", **manager.arguments()) as linked:
        if way == "assigned":
            linked.notification_handler = lambda number: handle(linked, number)
        elif way == "method type":
            linked.notification_handler = types.MethodType(handle, linked)
        linked.notify(2)
        assert [received.get(timeout=PATIENCE) for _ in range(2)] == [("Echo", 0, 10), ("Echo", 1, 11)]


def test_gaps_reach_iterations_and_the_methods_of_a_subclass(manager: FakeManager):
    received: queue.SimpleQueue[Any] = queue.SimpleQueue()

    class Recording(LinkedClient):
        def notification_handler(self, number: int) -> None:
            received.put(number)

        def on_gap(self, gap: Gap) -> None:
            received.put((gap, self.add(1, 2)))

    gap = Gap(1.0, 4e9, "lost", "Echo")
    with Recording("Echo", **manager.arguments()) as linked, notifications(linked, gaps=True) as stream:
        link = link_state(unwrap(linked).link)
        portal_of(linked).do(lambda: link.put_gap(gap, link.session.callback_tasks.start))
        linked.notify(1)
        assert [next(stream).until, next(stream).args] == [4e9, [0]]
        assert [received.get(timeout=PATIENCE) for _ in range(2)] == [(gap, 3), 0]


@pytest.mark.parametrize("name", ["manager", "wait", "send_pending_requests", "raise_latest_error"])
def test_what_msl_network_has_dropped_is_answered_unless_it_is_the_services(manager: FakeManager, name: str):
    with LinkedClient("Echo", **manager.arguments()) as linked:
        with pytest.raises(AttributeError, match="which msl-network has not had since version 1.0; use"):
            getattr(linked, name)()
        linked.service_attributes[name] = "()"
        manager.answers[name] = lambda session, line: "the Service's"
        assert getattr(linked, name)() == "the Service's"


# ---- of the async API ----


def test_the_blocking_form_of_an_async_one(manager: FakeManager, boom: None):
    handled = []

    class Mine(AsyncLinkedClient):
        async def service_error_handler(self) -> None:
            handled.append(await self.add(1, 2))

    async def main() -> None:
        async with Mine("Echo", **manager.arguments()) as mine:
            blocking = mine.sync
            assert isinstance(blocking, LinkedClient)
            assert mine.sync is blocking
            assert to_async(blocking) is mine
            assert await trio.to_thread.run_sync(blocking.add, 3, 4) == 7
            with pytest.raises(RemoteError):
                await trio.to_thread.run_sync(blocking.boom)
            assert handled == [3]
            assert blocking.link is mine.link.sync
            assert await mine.add(1, 2) == 3
        assert not blocking.is_connected()
        with pytest.raises(LinkBroken, match="is not open yet"):
            _ = AsyncLinkedClient("Echo").sync

    with pytest.warns(RuntimeWarning, match="never awaited"):
        trio.run(main)
        gc.collect()


def test_in_a_worker_thread_it_belongs_to_the_application(manager: FakeManager):
    async def main() -> Any:
        linked = await trio.to_thread.run_sync(lambda: LinkedClient("Echo", **manager.arguments()))
        assert (
            to_async(linked)._linked_state.last_client._session.connection.portal.thread_id
            == linked.client.loop_thread_id
        )
        assert await to_async(linked).add(1, 2) == 3
        return linked

    linked = trio.run(main)
    # Its Trio run and the connection have ended, so nothing may hang.
    assert not linked.is_connected()
    assert manager.session().said_goodbye
    with pytest.raises(ConnectionLost):
        linked.add(1, 2)
    linked.disconnect()
    assert linked._client is None
