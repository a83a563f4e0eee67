"""LinkedClient: its three forms, subclasses, handlers, waiting for the Service, and members."""

from __future__ import annotations

import copy
import gc
import inspect
import logging
import math
import re
import signal
import types
from collections.abc import Coroutine
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from msl_network_trio import (
    ConnectError,
    ConnectionLost,
    ConnectTimeout,
    Gap,
    LinkBroken,
    LinkedClient,
    ManagerError,
    NetworkError,
    RemoteError,
    ReplyTimeout,
)
from msl_network_trio.client.link import link_state
from msl_network_trio.dialing import connect as connecting
from tests.client.peer import ECHO, Network, Peer
from tests.client.test_requests import start

BROKEN = "^Cannot access '{}' since the link has been broken$"
DISCONNECTED = "^The LinkedClient has been disconnected$"
LINKED = "<Link[name={}] with Echo[vm:1234] at Manager[localhost:1875]>"
UNLINKED = "<Un-Linked[name={}] from Echo[vm:1234]>"


class Manager:
    """Manager whose Services the test sets."""

    def __init__(self) -> None:
        self.services: dict[str, dict[str, Any]] = {"Echo": ECHO}
        self.refusals: list[str] = []
        """Errors for the next link requests."""
        self.mute: set[str] = set()
        """Attributes whose requests are not answered."""
        self.asks_password = False
        self.peers: list[Peer] = []

    @property
    def peer(self) -> Peer:
        """The most recent connection."""
        return self.peers[-1]

    def requests(self, number: int = -1) -> list[str]:
        """Return the attributes that a client has requested, in order."""
        return [line["attribute"] for line in self.peers[number].received if "attribute" in line]

    def client_identity(self, number: int = -1) -> dict[str, Any]:
        return next(
            line["result"] for line in self.peers[number].received if isinstance(line["result"], dict)
        )

    async def accept(self, network: Network, nursery: trio.Nursery) -> None:
        while True:
            nursery.start_soon(self.serve, await network.accept())

    async def serve(self, peer: Peer) -> None:
        self.peers.append(peer)
        try:
            await self.converse(peer)
        except ConnectionLost:
            pass  # the test has closed this end

    async def converse(self, peer: Peer) -> None:
        if self.asks_password:
            peer.ask("password", "Manager[vm:1875]")
            await peer.line()
        await peer.shake_hands()
        while (line := await peer.line()) is not None:
            attribute = line["attribute"]
            if attribute == "__disconnect__" and attribute not in self.mute:
                break
            if attribute not in self.mute:
                self.answer(peer, attribute, line)
        peer.transport.close()

    def answer(self, peer: Peer, attribute: str, line: dict[str, Any]) -> None:
        uid, args, kwargs = line["uid"], line["args"], line["kwargs"]
        match line["service"], attribute:
            case "Manager", "identity":
                here = {"clients": {}, "services": self.services, "language": "Python 3.11.7", "os": "Linux"}
                peer.reply(uid, {"hostname": "vm", "port": 1875, "attributes": {}, **here})
            case "Manager", "link":
                if self.refusals:
                    peer.fail(uid, self.refusals.pop(0))
                elif args[0] in self.services:
                    peer.reply(uid, self.services[args[0]])
                else:
                    peer.fail(uid, f"KeyError: the {args[0]!r} service does not exist")
            case "Manager", "unlink":
                peer.reply(uid, True)
            case "Manager", "acquire_lock":
                peer.reply(uid, ["LinkedClient[vm:1]", kwargs])
            case "Manager", "release_lock":
                peer.reply(uid, [])
            case "Manager", _:
                peer.reply("", [attribute, args, kwargs])
            case _, "add":
                peer.reply(uid, sum(args))
            case _, "fail":
                peer.fail(uid, "ValueError: boom")
            case _, _:
                peer.reply(uid, [attribute, args, kwargs])

    def notify(self, *args: Any, number: int = -1, **kwargs: Any) -> None:
        fields = {"uid": "notification", "service": "Echo", "result": [args, kwargs]}
        self.peers[number].send(error=False, requester="Client[vm:1]", **fields)


@pytest.fixture
async def manager(network: Network):
    async with trio.open_nursery() as nursery:
        manager = Manager()
        nursery.start_soon(manager.accept, network, nursery)
        yield manager
        nursery.cancel_scope.cancel()


# ---- await it, enter it, start it ----


async def test_awaited_it_is_open_until_it_is_disconnected(manager: Manager):
    client = await LinkedClient("Echo")
    assert isinstance(client, LinkedClient)
    assert await client.add(1, 2) == 3
    assert client.is_connected()
    await client.disconnect()
    assert not client.is_connected()
    assert manager.requests() == ["link", "add", "__disconnect__"]


async def test_entered_it_disconnects_at_the_end_of_the_scope(manager: Manager):
    async with LinkedClient("Echo") as client:
        assert await client.add(1, 2) == 3
        assert repr(client) == LINKED.format("LinkedClient")
    assert not client.is_connected()
    assert repr(client) == UNLINKED.format("LinkedClient")
    assert (client.client, client.link) == (None, None)
    assert manager.requests() == ["link", "add", "__disconnect__"]


async def test_entering_and_awaiting_give_the_object_that_was_made(manager: Manager):
    made = LinkedClient("Echo")
    async with made as entered:
        assert entered is made
    made = LinkedClient("Echo")
    assert await made is made
    await made.disconnect()


async def test_an_exception_of_the_body_is_raised_unchanged(manager: Manager):
    error = ValueError("mine")
    with pytest.raises(ValueError, match="mine") as caught:
        async with LinkedClient("Echo"):
            raise error
    assert caught.value is error
    assert manager.requests()[-1] == "__disconnect__"


async def test_a_cancelled_body_still_says_goodbye(manager: Manager, autojump_clock):
    with trio.move_on_after(5) as scope:
        async with LinkedClient("Echo"):
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert manager.requests()[-1] == "__disconnect__"


async def test_with_a_nursery_the_connection_is_one_of_its_tasks(manager: Manager):
    async with trio.open_nursery() as nursery:
        client = await LinkedClient("Echo", nursery=nursery)
        assert len(nursery.child_tasks) == 1
        await client.disconnect()
    async with trio.open_nursery() as nursery, LinkedClient("Echo", nursery=nursery) as client:
        assert len(nursery.child_tasks) == 1
        assert await client.add(1, 2) == 3


async def test_a_nursery_can_start_it(network: Network, manager: Manager):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(LinkedClient, "Echo")
        nursery.start_soon(partial(LinkedClient, "Echo", name="Second"))
    assert [manager.requests(number) for number in (0, 1)] == [["link"]] * 2
    assert {manager.client_identity(number)["name"] for number in (0, 1)} == {"LinkedClient", "Second"}
    for ours, _ in network.opened:
        ours.close()
    await trio.testing.wait_all_tasks_blocked()


def test_it_is_what_trio_can_run(monkeypatch: pytest.MonkeyPatch):
    manager = Manager()

    async def serve(peer: Peer) -> None:
        with trio.CancelScope(shield=True):
            await manager.serve(peer)

    async def dial(*_: object) -> object:
        network = Network()
        transport = await network.dial()
        trio.lowlevel.spawn_system_task(serve, await network.accept())
        return transport

    monkeypatch.setattr(connecting, "_open_stream", dial)
    client = trio.run(LinkedClient, "Echo")
    assert isinstance(client, LinkedClient)
    assert not client.is_connected()
    assert manager.requests() == ["link", "__disconnect__"]


def test_it_is_a_coroutine_that_can_be_given_up():
    unused = LinkedClient("Echo")
    assert isinstance(unused, Coroutine)
    assert inspect.isawaitable(unused)
    unused.close()


def test_a_forgotten_await_warns_with_the_name_of_the_class():
    class Thermometer(LinkedClient):
        pass

    for linked_client in (LinkedClient, Thermometer):
        with pytest.warns(RuntimeWarning, match=f"'{linked_client.__name__}' was never awaited"):
            linked_client("Echo")
            gc.collect()


async def test_it_is_used_once(manager: Manager):
    class Thermometer(LinkedClient):
        pass

    awaited = await Thermometer("Echo")
    with pytest.raises(RuntimeError, match="cannot reuse"):
        await awaited
    with pytest.raises(RuntimeError, match="Thermometer was used already"):
        async with awaited:
            pass
    assert await awaited.add(1, 2) == 3
    await awaited.disconnect()
    with pytest.raises(RuntimeError, match="Thermometer was used already"):
        async with awaited:
            pass
    async with Thermometer("Echo") as entered:
        with pytest.raises(RuntimeError, match="Thermometer was used already"):
            async with entered:
                pass
        assert await entered.add(1, 2) == 3
    with pytest.raises(RuntimeError, match="cannot reuse"):
        await entered
    assert len(manager.peers) == 2


async def test_what_is_not_open_yet_says_so_and_opens_nothing(manager: Manager):
    client = LinkedClient("Echo")
    assert repr(client) == "<LinkedClient for 'Echo': await it, or enter it with 'async with'>"
    assert (client.name, client.service_name) == ("LinkedClient", "Echo")
    assert not client.is_connected()
    assert (client.client, client.link) == (None, None)
    for name in ("add", "port", "address_manager", "service_address", "service_attributes", "service_os"):
        with pytest.raises(LinkBroken, match="is not open yet"):
            getattr(client, name)
    with pytest.raises(LinkBroken, match="is not open yet"):
        client.identity()
    await client.unlink()
    await client.disconnect()
    client.close()
    assert not manager.peers


# ---- the arguments ----


async def test_the_name_is_that_of_the_class_if_none_is_given(manager: Manager):
    class Thermometer(LinkedClient):
        pass

    for linked_client, arguments, name in [
        (LinkedClient, {}, "LinkedClient"),
        (Thermometer, {}, "Thermometer"),
        (Thermometer, {"name": "foobar"}, "foobar"),
    ]:
        async with linked_client("Echo", **arguments) as client:
            assert client.name == name
            assert repr(client) == LINKED.format(name)
        assert repr(client) == UNLINKED.format(name)
        assert manager.client_identity()["name"] == name


async def test_unknown_arguments_are_ignored_and_auth_password_is_the_managers(manager: Manager):
    manager.asks_password = True
    arguments = {"max_clients": 3, "certfile": "x", "auth_password": "se cret"}
    async with LinkedClient("Echo", **arguments) as client:
        assert await client.add(1, 2) == 3
    assert manager.peer.received[0]["result"] == "se cret"


async def test_wrong_arguments_raise_before_dialing(manager: Manager):
    with pytest.raises(ValueError, match="timeout must be"):
        await LinkedClient("Echo", timeout=-1)
    with pytest.raises(ValueError, match="port must be"):
        async with LinkedClient("Echo", port=0):
            pass
    assert not manager.peers


# ---- subclasses ----


class Adder(LinkedClient):
    """A typical subclass of a user."""

    def __init__(self, offset: int, **kwargs: Any) -> None:
        self.before = "before"
        super().__init__("Echo", **kwargs)
        self.offset = offset
        self.history: list[int] = []

    async def add_offset(self, number: int) -> int:
        """Call a method of the Service in an own method."""
        result: int = await self.add(number, self.offset)
        self.history.append(result)
        return result

    @property
    def last(self) -> int:
        return self.history[-1]


async def test_a_subclass_has_attributes_properties_and_methods_of_its_own(manager: Manager):
    async with Adder(10, name="Ten") as ten:
        assert (ten.before, ten.offset, ten.history) == ("before", 10, [])
        assert await ten.add_offset(1) == 11
        assert (ten.last, ten.name) == (11, "Ten")
        ten.offset = 20
        assert await ten.add_offset(1) == 21
    one = await Adder(1)
    assert await one.add_offset(1) == 2
    assert repr(one) == LINKED.format("Adder")
    await one.disconnect()
    assert (one.history, ten.history) == ([2], [11, 21])
    with pytest.raises(LinkBroken, match=BROKEN.format("add")):
        await one.add_offset(1)
    assert manager.requests() == ["link", "add", "__disconnect__"]


async def test_an_attrs_class_can_derive_from_it(manager: Manager):
    import attrs

    @attrs.define(eq=False, slots=False, init=False, repr=False)
    class Attrs(LinkedClient):
        unit: str = "K"

        def __init__(self, unit: str) -> None:
            super().__init__("Echo")
            self.unit = unit

    async with Attrs("mK") as client:
        assert client.unit == "mK"
        assert await client.add(1, 2) == 3


@pytest.mark.parametrize("name", ["_handler", "_opening", "_state", "_timeout", "_scope"])
async def test_a_subclass_may_have_private_attributes_that_the_reference_leaves_to_it(manager, name: str):
    class Private(LinkedClient):
        def __init__(self) -> None:
            super().__init__("Echo")
            self.give_up = self.close
            setattr(self, name, lambda *_: called.append("what is the subclass's own"))

    called: list[str] = []
    client = Private()
    try:
        async with client:
            manager.notify(1)
            assert await client.add(1, 2) == 3
            await trio.testing.wait_all_tasks_blocked()
    finally:
        client.give_up()
    assert called == []


async def test_a_service_whose_attributes_are_hidden_is_warned_about(manager: Manager, caplog):
    hidden = {"spawn": "()", "unlink": "()", "port": 5, "shutdown_service": "()", "add": "(x, y)"}
    manager.services["Echo"] = ECHO | {"attributes": hidden}
    async with LinkedClient("Echo") as client:
        assert await client.request("spawn") == ["spawn", [], {}]
    warned = set(re.findall(r"\w+", " ".join(record.getMessage() for record in caplog.records)))
    assert warned & hidden.keys() == {"spawn", "unlink", "port"}


async def test_instances_are_hashable_by_identity(manager: Manager):
    async with LinkedClient("Echo") as one, LinkedClient("Echo") as other:
        assert len({one, other, one}) == 2
        assert one != other


async def test_probing_and_copying_does_not_call_the_service(manager: Manager):
    async with LinkedClient("Echo") as client:
        for name in ("_repr_html_", "__len__", "__wrapped__", "_private"):
            assert not hasattr(client, name)
        with pytest.raises(AttributeError, match="'LinkedClient' object has no attribute '_private'"):
            client._private
        assert copy.copy(client).service_name == "Echo"
    half_built = LinkedClient.__new__(LinkedClient)
    assert not hasattr(half_built, "anything")
    assert not hasattr(half_built, "send")
    assert manager.requests() == ["link", "__disconnect__"]


# ---- an overridden disconnect ----


class PlainDisconnect(LinkedClient):
    calls = 0

    def disconnect(self, timeout: float | None = None) -> None:
        self.calls += 1


class CoroutineDisconnect(LinkedClient):
    calls = 0

    def disconnect(self, timeout: float | None = None) -> Any:
        self.calls += 1
        return super().disconnect(timeout)


class AsyncDisconnect(LinkedClient):
    calls = 0

    async def disconnect(self, timeout: float | None = None) -> None:
        self.calls += 1
        await self.last_words()
        await super().disconnect(timeout)


@pytest.mark.parametrize("linked_client", [PlainDisconnect, CoroutineDisconnect, AsyncDisconnect])
async def test_an_overridden_disconnect_is_called_once_at_the_end_of_a_scope(manager, linked_client, caplog):
    async with linked_client("Echo") as client:
        assert client.calls == 0
    assert client.calls == 1
    assert not client.is_connected()
    assert (client.client, client.link) == (None, None)
    assert manager.requests()[-1] == "__disconnect__"
    assert manager.requests().count("last_words") == (linked_client is AsyncDisconnect)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_an_overridden_disconnect_can_be_called_after_awaiting(manager: Manager):
    client = await AsyncDisconnect("Echo")
    await client.disconnect()
    assert client.calls == 1
    assert not client.is_connected()
    assert manager.requests() == ["link", "last_words", "__disconnect__"]


async def test_an_overridden_disconnect_has_its_last_words_also_if_the_body_is_cancelled(
    manager, autojump_clock
):
    with trio.move_on_after(5) as scope:
        async with AsyncDisconnect("Echo"):
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert manager.requests()[-2:] == ["last_words", "__disconnect__"]


@pytest.mark.parametrize("is_async", [False, True])
async def test_what_an_overridden_disconnect_raises_is_logged_and_the_body_has_its_own(
    manager, is_async, caplog
):
    class Plain(LinkedClient):
        def disconnect(self, timeout: float | None = None) -> Any:
            raise ZeroDivisionError("the disconnect")

    class Async(LinkedClient):
        async def disconnect(self, timeout: float | None = None) -> None:
            raise ZeroDivisionError("the disconnect")

    linked_client = Async if is_async else Plain
    async with linked_client("Echo"):
        pass
    with pytest.raises(KeyError, match="of the body"):
        async with linked_client("Echo"):
            raise KeyError("of the body")
    assert caplog.text.count("ZeroDivisionError: the disconnect") == 2
    assert [manager.requests(number)[-1] for number in (0, 1)] == ["__disconnect__"] * 2


async def test_an_overridden_disconnect_that_never_ends_is_left_after_ten_seconds(manager, autojump_clock):
    class Stuck(LinkedClient):
        async def disconnect(self, timeout: float | None = None) -> None:
            await trio.sleep_forever()

    before = trio.current_time()
    async with Stuck("Echo") as client:
        pass
    assert trio.current_time() - before == pytest.approx(10)
    assert not client.is_connected()


async def test_an_overridden_disconnect_is_not_called_if_it_never_opened(manager: Manager, autojump_clock):
    async def opened() -> None:
        async with AsyncDisconnect("Nope") as client:
            pytest.fail(f"opened {client}")

    with pytest.raises(TimeoutError):
        await opened()
    assert manager.requests()[-1] == "__disconnect__"
    assert "last_words" not in manager.requests()


# ---- the service error handler ----


class PlainHandler(LinkedClient):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__("Echo", **kwargs)
        self.handled: list[str] = []

    def service_error_handler(self) -> Any:
        self.handled.append("handled")


class AsyncHandler(PlainHandler):
    async def service_error_handler(self) -> None:
        await trio.lowlevel.checkpoint()
        self.handled.append("handled")


class RequestingHandler(PlainHandler):
    async def service_error_handler(self) -> None:
        assert await self.add(1, 2) == 3
        self.handled.append("handled")


class RaisingHandler(PlainHandler):
    def service_error_handler(self) -> Any:
        self.handled.append("handled")
        raise ZeroDivisionError("the handler")


class AsyncRaisingHandler(PlainHandler):
    async def service_error_handler(self) -> None:
        self.handled.append("handled")
        raise ZeroDivisionError("the handler")


class DisconnectingHandler(PlainHandler):
    async def service_error_handler(self) -> None:
        await self.disconnect()
        self.handled.append("handled")


HANDLERS = [
    PlainHandler,
    AsyncHandler,
    RequestingHandler,
    RaisingHandler,
    AsyncRaisingHandler,
    DisconnectingHandler,
]


@pytest.mark.parametrize("linked_client", HANDLERS)
@pytest.mark.parametrize("by_request", [False, True])
async def test_the_service_error_handler_is_called_before_the_exception_is_raised(
    manager, linked_client, by_request, caplog
):
    async with linked_client() as client:
        assert await client.add(1, 2) == 3
        assert await client.request("add", [1, 2]) == 3
        assert client.handled == []
        try:
            await (client.request("fail") if by_request else client.fail())
        except RemoteError as error:
            client.handled.append("raised")
            assert (error.type_name, error.message) == ("ValueError", "ValueError: boom")
            assert error.__context__ is None
        assert client.handled == ["handled", "raised"]
        assert client.is_connected() == (linked_client is not DisconnectingHandler)
    raises = linked_client in {RaisingHandler, AsyncRaisingHandler}
    assert caplog.text.count("ZeroDivisionError: the handler") == raises
    assert ("exception in the service error handler" in caplog.text) == raises


async def test_the_service_error_handler_is_called_for_every_failure_of_an_awaited_request(
    manager, autojump_clock
):
    manager.mute = {"silent"}
    async with PlainHandler() as client:
        with pytest.raises(ReplyTimeout):
            await client.silent(timeout=1)
        assert client.handled == ["handled"]
        with pytest.raises(TypeError, match="JSON"):
            await client.add({1, 2})
        assert client.handled == ["handled"] * 2
        manager.peer.transport.close()
        with pytest.raises(ConnectionLost):
            await client.add(1, 2)
        assert client.handled == ["handled"] * 3


async def test_the_service_error_handler_is_not_called_for_a_cancelled_call(manager: Manager, autojump_clock):
    manager.mute = {"silent"}
    async with PlainHandler() as client:
        with trio.move_on_after(1) as scope:
            await client.silent()
        assert scope.cancelled_caught
        assert client.handled == []


async def test_the_service_error_handler_is_not_called_for_replies_and_the_manager(manager: Manager):
    async with PlainHandler() as client:
        reply = client.fail(asynchronous=True)
        with pytest.raises(RemoteError):
            await reply
        with pytest.raises(ManagerError):
            await client.client.link("Other")
        with pytest.raises(RemoteError):
            await client.link.fail()  # the link is broken
        assert client.handled == []


async def test_a_service_error_handler_may_be_assigned(manager: Manager):
    handled = []
    async with LinkedClient("Echo") as client:
        client.service_error_handler = lambda: handled.append("handled")
        with pytest.raises(RemoteError):
            await client.fail()
    assert handled == ["handled"]


async def test_without_an_override_an_error_is_just_raised(manager: Manager, caplog):
    async with LinkedClient("Echo") as client:
        with pytest.raises(RemoteError, match="boom"):
            await client.fail()
        assert await client.add(1, 2) == 3
        assert client.service_error_handler() is None
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


# ---- notifications ----


class Heard:
    """A record of notifications, with a way to wait for them."""

    def __init__(self) -> None:
        self.all: list[Any] = []
        self.changed = trio.Event()

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        self.all.append((args, kwargs))
        self.changed.set()
        self.changed = trio.Event()

    async def wait(self, number: int) -> list[Any]:
        with trio.fail_after(5):
            while len(self.all) < number:
                await self.changed.wait()
        return self.all


async def test_a_handler_that_was_assigned_before_opening_is_there_for_the_link(manager: Manager):
    for opens in ("await", "async with"):
        heard = Heard()
        made = LinkedClient("Echo")
        made.notification_handler = heard
        client = await made if opens == "await" else await made.__aenter__()
        manager.notify(1, x=2)
        manager.notify()
        assert await heard.wait(2) == [((1,), {"x": 2}), ((), {})]
        await (client.disconnect() if opens == "await" else client.__aexit__(None, None, None))


async def test_a_handler_that_is_assigned_after_opening_is_called_from_then_on(manager: Manager):
    async with LinkedClient("Echo") as client:
        manager.notify("nobody listens")
        await client.add(1, 2)
        first, second = Heard(), Heard()
        client.notification_handler = first
        manager.notify(1)
        assert await first.wait(1) == [((1,), {})]
        client.notification_handler = second
        manager.notify(2)
        assert await second.wait(1) == [((2,), {})]
        assert len(first.all) == 1
        assert client.link.notification_handler is second


async def test_a_handler_that_a_subclass_overrides_is_called(manager: Manager):
    class Plain(LinkedClient):
        def notification_handler(self, *args: Any, **kwargs: Any) -> Any:
            heard(self, *args, **kwargs)

    class Async(LinkedClient):
        async def notification_handler(self, *args: Any, **kwargs: Any) -> None:
            heard(self, await self.add(1, 2), *args, **kwargs)

    heard = Heard()
    async with Plain("Echo") as plain:
        manager.notify(1, x=2)
        assert (await heard.wait(1))[-1] == ((plain, 1), {"x": 2})
    async with Async("Echo") as uses_the_service:
        manager.notify(1, x=2)
        assert (await heard.wait(2))[-1] == ((uses_the_service, 3, 1), {"x": 2})


async def test_a_handler_that_is_assigned_goes_before_the_one_of_the_class(manager: Manager):
    class Overridden(LinkedClient):
        def __init__(self) -> None:
            super().__init__("Echo")
            self.notification_handler = heard

        def notification_handler(self, *args: Any, **kwargs: Any) -> Any:
            pytest.fail("this one was replaced")

    heard = Heard()
    async with Overridden():
        manager.notify(1)
        assert await heard.wait(1) == [((1,), {})]


async def test_a_handler_may_be_a_bound_method_made_of_a_function(manager: Manager):
    def print_notification(self: LinkedClient, *args: Any, **kwargs: Any) -> None:
        heard(self.service_name, *args, **kwargs)

    heard = Heard()
    before = LinkedClient("Echo")
    before.notification_handler = types.MethodType(print_notification, before)
    async with before, LinkedClient("Echo") as after:
        after.notification_handler = types.MethodType(print_notification, after)
        manager.notify(1, number=0)
        manager.notify(1, number=1)
        assert await heard.wait(2) == [(("Echo", 1), {})] * 2


async def test_assigning_a_handler_to_a_broken_link_says_so(manager: Manager):
    async with LinkedClient("Echo") as client:
        await client.unlink()
        with pytest.raises(LinkBroken, match=BROKEN.format("notification_handler")):
            client.notification_handler = print


async def test_the_handler_of_the_class_does_nothing(manager: Manager):
    async with LinkedClient("Echo") as client:
        assert client.notification_handler(1, x=2) is None
        manager.notify(1)
        assert await client.add(1, 2) == 3


async def test_notifications_can_be_iterated_over(manager: Manager):
    async with LinkedClient("Echo") as client:
        async with client.notifications(max_buffer_size=2) as stream:
            for number in range(3):
                manager.notify(number)
            await client.add(1, 2)
            assert stream.dropped == 1
            assert [(await anext(stream)).args for _ in range(2)] == [[1], [2]]
        await client.unlink()
        with pytest.raises(LinkBroken, match=BROKEN.format("notifications")):
            client.notifications()


async def test_gaps_reach_streams_and_the_methods_of_a_subclass(manager: Manager):
    got: list[object] = []

    class Recording(LinkedClient):
        def notification_handler(self, number: int) -> None:
            got.append(number)

        def on_gap(self, gap: Gap) -> None:
            got.append(gap)

    gap = Gap(1.0, 4e9, "lost", "Echo")
    async with Recording("Echo") as client, client.notifications(gaps=True) as stream:
        link = link_state(client.link)
        link.put_gap(gap, link.session.callback_tasks.start)
        manager.notify(1)
        await client.add(1, 2)
        assert [(await anext(stream)).until, (await anext(stream)).args] == [4e9, [1]]
        await trio.testing.wait_all_tasks_blocked()
        assert got == [gap, 1]


# ---- waiting for the Service ----


async def opened(way: str, *args: Any, **kwargs: Any) -> tuple[LinkedClient, float]:
    """Open a LinkedClient, use it, disconnect, and return it and the seconds that opening took."""
    before = trio.current_time()
    if way == "await":
        client = await LinkedClient(*args, **kwargs)
        took = trio.current_time() - before
        assert await client.add(1, 2) == 3
        await client.disconnect()
    else:
        async with LinkedClient(*args, **kwargs) as client:
            took = trio.current_time() - before
            assert await client.add(1, 2) == 3
    return client, took


WAYS = pytest.mark.parametrize("way", ["await", "async with"])


@WAYS
@pytest.mark.parametrize(("after", "timeout"), [(4, 10), (9.85, 10), (100, 101), (300, None), (7, math.inf)])
async def test_it_waits_for_its_service(manager: Manager, nursery, autojump_clock, way, after, timeout):
    async def appear() -> None:
        await trio.sleep(after)
        manager.services["Late"] = ECHO

    nursery.start_soon(appear)
    _, took = await opened(way, "Late", timeout=timeout)
    assert after <= took < after + 1.01  # the longest delay between two requests
    assert manager.requests().count("link") <= after + 5


@WAYS
@pytest.mark.parametrize(("arguments", "seconds"), [({}, 10), ({"timeout": 3}, 3), ({"timeout": 0.5}, 0.5)])
async def test_a_service_that_does_not_come_in_time_is_a_timeout(
    network, manager, autojump_clock, way, arguments, seconds
):
    before = trio.current_time()
    with pytest.raises(TimeoutError, match=r"^The 'Nope' service is not available$") as caught:
        await opened(way, "Nope", **arguments)
    assert trio.current_time() - before == pytest.approx(seconds, abs=0.2)
    assert isinstance(caught.value, ConnectTimeout)
    assert isinstance(caught.value, NetworkError)
    network.assert_all_closed()
    assert manager.requests()[-1] == "__disconnect__"


class SlowPerson:
    """Prompts that enter the Manager's password after half a minute."""

    async def username(self, manager: str) -> str:
        raise AssertionError

    async def password(self, name: str) -> str:
        await trio.sleep(30)
        return "se cret"

    def trust(self, certificate: object) -> bool:
        return True


@WAYS
async def test_the_time_in_which_a_person_is_asked_does_not_count(
    manager: Manager, nursery, autojump_clock, way
):
    async def appear() -> None:
        await trio.sleep(33)
        manager.services["Late"] = ECHO

    manager.asks_password = True
    nursery.start_soon(appear)
    _, took = await opened(way, "Late", timeout=10, prompts=SlowPerson())
    assert 33 <= took < 34.01


@WAYS
@pytest.mark.parametrize("attribute", ["link"])
async def test_a_manager_that_does_not_answer_is_a_timeout_too(
    network, manager: Manager, autojump_clock, way, attribute
):
    manager.mute = {attribute}
    before = trio.current_time()
    with trio.fail_after(1000), pytest.raises(TimeoutError):
        await opened(way, "Echo", timeout=10, unresponsive_after=None)
    assert trio.current_time() - before <= 10 + 3  # the time of the goodbye is limited
    network.assert_all_closed()


@WAYS
async def test_a_service_that_goes_between_two_questions_is_waited_for(manager: Manager, autojump_clock, way):
    manager.refusals = ["KeyError: \"the 'Echo' service does not exist\""]
    _, took = await opened(way, "Echo")
    assert 0 < took < 1
    assert manager.requests()[:2] == ["link", "link"]


@WAYS
@pytest.mark.parametrize("refusal", ["PermissionError: 'Echo' service is locked", "PermissionError: The max"])
async def test_a_link_that_is_refused_raises_at_once_and_disconnects(
    network, manager, autojump_clock, way, refusal
):
    manager.refusals = [refusal]
    before = trio.current_time()
    with pytest.raises(ManagerError) as caught:
        await opened(way, "Echo")
    assert caught.value.type_name == "PermissionError"
    assert trio.current_time() == before
    network.assert_all_closed()
    assert manager.requests() == ["link", "__disconnect__"]


@WAYS
async def test_a_connection_that_is_lost_while_waiting_says_so(
    network, manager, nursery, autojump_clock, way
):
    async def crash() -> None:
        await trio.sleep(3)
        manager.peer.transport.close()

    nursery.start_soon(crash)
    with pytest.raises(ConnectionLost):
        await opened(way, "Nope")
    network.assert_all_closed()


@WAYS
@pytest.mark.parametrize("mute", [set(), {"link"}], ids=["waiting", "link"])
async def test_cancelled_while_waiting_it_leaves_nothing_open(
    network, manager, autojump_clock, way, mute: set[str]
):
    manager.mute = mute
    with trio.move_on_after(3) as scope:
        await opened(way, "Echo" if mute else "Nope")
    assert scope.cancelled_caught
    network.assert_all_closed()
    await trio.testing.wait_all_tasks_blocked()
    assert manager.requests()[-1] == "__disconnect__"


@WAYS
async def test_cancelled_while_connecting_it_leaves_nothing_open(network: Network, autojump_clock, way):
    with trio.move_on_after(3) as scope:  # there is no Manager, so there is no handshake
        await opened(way, "Echo")
    assert scope.cancelled_caught
    network.assert_all_closed()


@WAYS
async def test_a_failure_to_connect_raises(monkeypatch: pytest.MonkeyPatch, way):
    async def refuse(*_: object) -> None:
        raise ConnectError("Cannot connect to localhost:1875")

    monkeypatch.setattr(connecting, "_open_stream", refuse)
    with pytest.raises(ConnectionError, match="Cannot connect to localhost:1875"):
        await opened(way, "Echo")


@WAYS
def test_ctrl_c_while_waiting_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch, way):
    async def main() -> None:
        network, manager = Network(), Manager()
        monkeypatch.setattr(connecting, "_open_stream", network.dial)

        async def interrupt() -> None:
            peer = await network.accept()
            trio.lowlevel.spawn_system_task(manager.serve, peer)
            await trio.sleep(3)
            signal.raise_signal(signal.SIGINT)

        trio.lowlevel.spawn_system_task(interrupt)
        with pytest.raises(KeyboardInterrupt):
            await opened(way, "Nope")
        network.assert_all_closed()
        assert manager.requests()[-1] == "__disconnect__"
        async with trio.open_nursery():  # raises an error if a scope was left open
            pass
        assert not trio.lowlevel.current_task().child_nurseries

    # The tests may have been started with SIGINT ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    finally:
        signal.signal(signal.SIGINT, before)


@WAYS
async def test_a_nursery_that_was_given_gets_rid_of_the_task_of_a_client_that_never_opened(
    manager: Manager, autojump_clock, way
):
    async with trio.open_nursery() as nursery:
        with pytest.raises(TimeoutError):
            await opened(way, "Nope", nursery=nursery)
        await trio.testing.wait_all_tasks_blocked()
        assert not nursery.child_tasks


# ---- its members ----


PROPERTIES = {
    "address_manager": "localhost:1875",
    "name": "LinkedClient",
    "port": 0,
    "service_address": "vm:1234",
    "service_attributes": {"add": "(x, y)", "const": 42},
    "service_language": "Python 3.11.7",
    "service_max_clients": -1,
    "service_name": "Echo",
    "service_os": "Linux",
}


def properties(client: LinkedClient) -> dict[str, Any]:
    return {name: getattr(client, name) for name in PROPERTIES}


async def test_the_properties_survive_unlinking_and_disconnecting(manager: Manager):
    client = await LinkedClient("Echo")
    assert properties(client) == PROPERTIES
    await client.unlink()
    assert properties(client) == PROPERTIES
    assert client.is_connected()
    await client.disconnect()
    assert properties(client) == PROPERTIES


async def test_the_properties_survive_the_scope_and_a_lost_connection(manager: Manager):
    async with LinkedClient("Echo") as client:
        manager.peer.transport.close()
        with pytest.raises(ConnectionLost):
            await client.add(1, 2)
        assert not client.is_connected()
        assert properties(client) == PROPERTIES
    assert properties(client) == PROPERTIES


async def test_client_and_link_are_there_while_they_work(manager: Manager):
    client = await LinkedClient("Echo")
    assert client.client is not None
    assert client.link is not None
    assert client.client.name == client.name
    assert repr(client.client) == "<LinkedClient manager=localhost:1875 port=0>"
    assert await client.link.add(1, 2) == 3
    await client.unlink()
    assert client.link is None
    assert client.client is not None
    await client.disconnect()
    assert client.client is None


async def test_a_broken_link_says_what_cannot_be_accessed(manager: Manager):
    async with LinkedClient("Echo") as client:
        add, broken = client.add, client.link
        await client.unlink()
        await client.unlink()
        assert repr(client) == UNLINKED.format("LinkedClient")
        assert repr(broken) == "<Un-Linked from Echo[vm:1234]>"
        for name in ("add", "send", "anything"):
            with pytest.raises(LinkBroken, match=BROKEN.format(name)) as caught:
                getattr(client, name)
            assert isinstance(caught.value, AttributeError)
            assert not hasattr(client, name)
        with pytest.raises(LinkBroken, match=BROKEN.format("add")):
            await add(1, 2)
        with pytest.raises(LinkBroken, match=BROKEN.format("acquire_lock")):
            client.acquire_lock()
        for call, name in [
            (client.release_lock, "release_lock"),
            (client.shutdown_service, "shutdown_service"),
            (partial(client.request, "add"), "add"),
        ]:
            with pytest.raises(LinkBroken, match=BROKEN.format(name)):
                await call()
        assert (await client.identities())["port"] == 1875
    assert manager.requests() == ["link", "unlink", "identity", "__disconnect__"]


async def test_after_disconnecting_the_client_says_so(manager: Manager):
    client = await LinkedClient("Echo")
    await client.disconnect()
    for call in (client.identities, partial(client.admin_request, "port")):
        with pytest.raises(ConnectionError, match=DISCONNECTED) as caught:
            await call()
        assert isinstance(caught.value, ConnectionLost)
        assert caught.value.may_have_run is False
    with pytest.raises(ConnectionError, match=DISCONNECTED):
        client.identity()
    with pytest.raises(LinkBroken, match=BROKEN.format("add")):
        await client.add(1, 2)
    await client.unlink()
    assert repr(client) == UNLINKED.format("LinkedClient")


async def test_disconnecting_again_does_no_harm(manager: Manager):
    client = await LinkedClient("Echo")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.disconnect)
        nursery.start_soon(client.disconnect)
    await client.disconnect()
    await client.disconnect(timeout=1)
    async with LinkedClient("Echo") as entered:
        await entered.disconnect()
        await entered.disconnect()
    await entered.disconnect()
    assert [manager.requests(number).count("__disconnect__") for number in (0, 1)] == [1, 1]


async def test_disconnect_waits_for_its_timeout(manager: Manager, autojump_clock):
    manager.mute = {"__disconnect__"}
    client = await LinkedClient("Echo")
    before = trio.current_time()
    await client.disconnect(timeout=17)
    assert trio.current_time() - before == pytest.approx(17)


async def test_a_cancelled_disconnect_has_disconnected(network: Network, manager: Manager):
    manager.mute = {"__disconnect__"}
    client = await LinkedClient("Echo")
    with trio.CancelScope() as scope:
        scope.cancel()
        await client.disconnect(timeout=math.inf)
    assert scope.cancelled_caught
    assert (client.client, client.link, client.is_connected()) == (None, None, False)
    network.assert_all_closed()


async def test_a_disconnect_with_a_wrong_timeout_leaves_the_client_as_it_is(manager: Manager):
    client = await LinkedClient("Echo")
    with pytest.raises(ValueError, match="timeout must be a number of seconds from 0"):
        await client.disconnect(timeout=-1)
    assert client.is_connected()
    await client.disconnect()
    assert not client.is_connected()


async def test_requests_to_the_manager_go_through_its_client(manager: Manager):
    async with LinkedClient("Echo") as client:
        assert set((await client.identities())["services"]) == {"Echo"}
        text = await client.identities(as_string=True, indent=3, timeout=5)
        assert text.startswith("Manager[vm:1875]\n   attributes:\n")
        assert await client.admin_request("users_table.insert", 1, x=2, timeout=5) == [
            "users_table.insert",
            [1],
            {"x": 2},
        ]
        with pytest.raises(ValueError, match="^Cannot make asynchronous requests to a Manager$"):
            await client.admin_request("port", asynchronous=True)
        identity = client.identity()
        assert (identity["type"], identity["name"]) == ("client", "LinkedClient")
        assert {**identity, "follows": ["services"]} == manager.client_identity()


async def test_locks_are_those_of_the_link(manager: Manager):
    async with LinkedClient("Echo") as client:
        assert await client.acquire_lock() == ["LinkedClient[vm:1]", {"shared": False}]
        assert await client.release_lock() == []
        assert await client.acquire_lock(True, 5) == ["LinkedClient[vm:1]", {"shared": True}]
        assert await client.release_lock(timeout=5) == []
        async with client.acquire_lock(shared=True, timeout=5) as names:
            assert names == ["LinkedClient[vm:1]", {"shared": True}]
    locks = [name for name in manager.requests() if "lock" in name]
    assert locks == ["acquire_lock", "release_lock"] * 3


async def test_a_request_has_the_arguments_that_are_ours_and_reaches_every_name(manager: Manager):
    async with LinkedClient("Echo") as client:
        assert await client.anything(1, x=2, timeout=5) == ["anything", [1], {"x": 2}]
        reply = client.add(1, 2, asynchronous=True)
        assert await reply == 3
        assert await client.request("unlink", (1,), {"timeout": 2}, timeout=5) == [
            "unlink",
            [1],
            {"timeout": 2},
        ]


async def test_a_call_is_a_real_coroutine_that_can_be_given_up(manager: Manager):
    async with LinkedClient("Echo") as client:
        call = client.add(1, 2)
        assert inspect.iscoroutine(call)
        call.close()
        del call
        gc.collect()
        call = client.request("add", (1, 2))
        assert inspect.iscoroutine(call)
        call.close()
    assert manager.requests() == ["link", "__disconnect__"]


async def test_shutdown_service_breaks_the_link_and_gives_what_the_service_says(manager: Manager):
    async with LinkedClient("Echo") as client:
        assert await client.shutdown_service(1, x=2, timeout=5) == ["shutdown_service", [1], {"x": 2}]
        assert client.link is None
        assert client.is_connected()
        assert repr(client) == UNLINKED.format("LinkedClient")
        with pytest.raises(LinkBroken, match=BROKEN.format("add")):
            client.add
    assert manager.requests() == ["link", "shutdown_service", "__disconnect__"]


async def test_a_shutdown_service_that_fails_keeps_the_link(manager: Manager, autojump_clock):
    manager.mute = {"shutdown_service"}
    async with LinkedClient("Echo") as client:
        with pytest.raises(ReplyTimeout):
            await client.shutdown_service(timeout=1)
        assert await client.add(1, 2) == 3


async def test_names_of_coroutines_are_those_of_the_service_once_it_is_open(manager: Manager):
    for way in ("await", "async with"):
        made = LinkedClient("Echo")
        assert inspect.ismethod(made.close)  # the method of the coroutine
        client = await made if way == "await" else await made.__aenter__()
        for name in ("send", "throw", "close"):
            assert await getattr(client, name)(1, x=2) == [name, [1], {"x": 2}]
        assert client.is_connected()
        await (client.disconnect() if way == "await" else client.__aexit__(None, None, None))
        for name in ("send", "throw", "close"):
            with pytest.raises(LinkBroken, match=BROKEN.format(name)):
                getattr(client, name)


def test_before_it_is_open_they_are_the_coroutines():
    assert LinkedClient.send is vars(LinkedClient)["send"]
    thrown = LinkedClient("Echo")
    with pytest.raises(KeyError):
        thrown.throw(KeyError())
    sent = LinkedClient("Echo")
    with pytest.raises(TypeError, match="can't send non-None value"):
        sent.send(1)
    sent.close()


async def test_dir_lists_our_names_and_those_of_the_service(manager: Manager):
    made = LinkedClient("Echo")
    assert "const" not in dir(made)
    async with made as client:
        names = dir(client)
        assert {"add", "const", "disconnect", "spawn", "service_name"} <= set(names)
        assert names == sorted(set(names))
    assert "const" in dir(client)


async def test_a_method_tells_its_signature(manager: Manager):
    async with LinkedClient("Echo") as client:
        assert str(inspect.signature(client.add)) == "(x, y)"
        assert client.add.__name__ == "add"
        assert repr(client.add) == "<Echo.add(x, y)>"


async def test_spawn_makes_another_one_with_the_same_arguments(manager: Manager):
    async with LinkedClient("Echo", name="First", request_timeout=5) as client:
        async with client.spawn() as second:
            assert type(second) is LinkedClient
            assert (second.name, second.service_name) == ("LinkedClient", "Echo")
            assert second.address_manager == client.address_manager
            assert await second.add(1, 2) == 3
        third = await client.spawn(name="Third")
        assert third.name == "Third"
        assert await third.add(1, 2) == 3
        await client.unlink()
        await client.disconnect()
        fourth = await third.spawn("Fourth")
        assert await fourth.add(1, 2) == 3
        for spawned in (third, fourth):
            await spawned.disconnect()
    names = [manager.client_identity(number)["name"] for number in range(4)]
    assert names == ["First", "LinkedClient", "Third", "Fourth"]


async def test_a_subclass_spawns_a_linked_client_and_may_do_so_when_disconnected(manager: Manager):
    async with Adder(10) as ten:
        pass
    async with ten.spawn() as spawned:
        assert type(spawned) is LinkedClient
        assert await spawned.add(1, 2) == 3


async def test_many_tasks_may_use_one(manager: Manager):
    async with LinkedClient("Echo") as client, trio.open_nursery() as nursery:
        calls = [await start(nursery, client.add, number, 1) for number in range(20)]
    assert [call.value for call in calls] == [number + 1 for number in range(20)]
