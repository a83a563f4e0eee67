"""Clients that reconnect: states, requests before, during and after a loss, and the end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from msl_network_trio import (
    AuthenticationError,
    CertificateError,
    Client,
    ConnectError,
    ConnectionLost,
    Link,
    LinkBroken,
    LinkedClient,
    LockLost,
    Reconnect,
    ReplyTimeout,
    ServiceLost,
    StateChange,
    Unanswered,
    connect,
)
from msl_network_trio.client import connecting as client_connecting
from msl_network_trio.client.presence import Presence
from msl_network_trio.dialing import connect as connecting
from msl_network_trio.protocol.messages import refusal
from tests.client.peer import ECHO, Network, Peer

POLICY = Reconnect(first_delay=0.1, longest_delay=1.0)


class Manager:
    """A Manager that can be stopped and started again.

    Args:
        network: Makes the connections.
    """

    def __init__(self, network: Network) -> None:
        self.peers: list[Peer] = []
        self.error: Exception | None = None
        """Raised when a client dials; None: it is connected."""
        self.password: str | None = None
        """The password that is asked for."""
        self.tries = 0
        self.rejects = False
        """Whether connections are closed after the handshake."""
        self.added: list[list[Any]] = []
        """The arguments of each executed ``add``."""
        self.is_mute = False
        """Whether ``add`` is executed without a reply."""
        self.has_service = True
        self.reads: trio.Event | None = None
        """Set when it reads on after the next line; None: it does so at once."""
        self._network = network
        self._server = trio.CancelScope()

    async def dial(self, *_: Any) -> Any:
        self.tries += 1
        if self.error is not None:
            await trio.lowlevel.checkpoint()
            raise self.error
        return await self._network.dial()

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                nursery.start_soon(self._serve, await self._network.accept())

    async def _serve(self, peer: Peer) -> None:
        self.peers.append(peer)
        try:
            if self.password is not None:
                peer.ask("password", "Manager[vm:1875]")
                line = await peer.line()
                if line is None or line["result"] != self.password:
                    peer.fail("", "ValueError: Wrong Manager password", requester="Manager[vm:1875]")
                    peer.transport.close()
                    return
            await peer.shake_hands()
            if not self.rejects:
                await self._answer(peer)
        except ConnectionLost:
            pass  # the test has closed this end
        peer.transport.close()

    async def _answer(self, peer: Peer) -> None:
        while (line := await peer.line()) is not None:
            if self.reads is not None:
                await self.reads.wait()
            uid = line["uid"]
            match line["attribute"]:
                case "link" if not self.has_service:
                    peer.fail(uid, "KeyError: \"the 'Echo' service does not exist\"")
                case "link":
                    peer.reply(uid, ECHO)
                case "add" if not self.has_service:
                    peer.fail("", refusal("Echo", "Manager[vm:1875]"), requester="Manager[vm:1875]")
                case "add":
                    self.added.append(line["args"])
                    if not self.is_mute:
                        peer.reply(uid, sum(line["args"]))
                case "acquire_lock" | "release_lock":
                    peer.reply(uid, [])
                case "__disconnect__":
                    return
                case _:
                    peer.reply(uid, True)

    def stop(self) -> None:
        """End the connections, and refuse further ones."""
        self.error = ConnectError("refused")
        for peer in self.peers:
            peer.transport.close()

    def start(self) -> None:
        """Accept connections again."""
        self.error = None

    def requests(self, number: int = -1) -> list[str]:
        """Return the attributes that a client has requested over a connection, without pings."""
        lines = [line for line in self.peers[number].received if "attribute" in line]
        return [line["attribute"] for line in lines if "nobody is called" not in str(line["args"])]


@pytest.fixture
async def manager(network: Network, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> Manager:
    manager = Manager(network)
    monkeypatch.setattr(connecting, "_open_stream", manager.dial)
    nursery.start_soon(manager.run)
    return manager


@asynccontextmanager
async def linked(
    policy: bool | Reconnect = POLICY, *, idempotent: tuple[str, ...] = (), **more: Any
) -> AsyncIterator[tuple[Client, Link]]:
    async with (
        connect(reconnect=policy, **more) as client,
        client.link("Echo", idempotent=idempotent) as link,
    ):
        yield client, link


async def lose(manager: Manager, client: Client) -> None:
    """Stop the Manager, and wait until the client has noticed that."""
    manager.stop()
    await trio.testing.wait_all_tasks_blocked()
    assert client.state == "away"
    assert not client.is_connected()


async def outcome(call: Callable[[], Any]) -> Any:
    """Return the result of a call, or its error."""
    try:
        return await call()
    except Exception as error:
        return error


# ---- states ----


async def test_each_change_of_the_state_is_reported_in_order(manager, nursery, autojump_clock):
    called: list[StateChange] = []
    changes: list[StateChange] = []
    ended = trio.Event()

    async def listen(stream: Any) -> None:
        async for change in stream:
            changes.append(change)
        ended.set()

    async with connect(reconnect=Reconnect(on_change=called.append)) as client:
        nursery.start_soon(listen, client.states())
        assert client.state == "connected"
        await lose(manager, client)
        manager.start()
        await trio.sleep(2)
        assert client.state == "connected"
        assert client.is_connected()
    await ended.wait()
    assert client.state == "closed"
    assert [change.state for change in changes] == ["away", "connected", "closed"]
    assert called == changes
    assert isinstance(changes[0].reason, ConnectionLost)
    assert changes[2].reason is None
    assert client.statistics().reconnections == 1
    with pytest.raises(StopAsyncIteration):
        await anext(client.states())


async def test_a_client_that_does_not_reconnect_is_closed_by_the_loss(manager, autojump_clock):
    async with connect() as client:
        stream = client.states()
        manager.stop()
        change = await anext(stream)
    assert change.state == client.state == "closed"
    assert "closed" in str(change.reason) or "lost" in str(change.reason)


async def test_a_manager_that_rejects_after_the_handshake_is_tried_with_growing_delays(
    manager, autojump_clock
):
    async with connect(reconnect=POLICY) as client:
        await lose(manager, client)
        manager.rejects = True
        manager.start()
        before = manager.tries
        await trio.sleep(30)
        assert client.state == "away"
        assert 20 < manager.tries - before < 120
        manager.rejects = False
        await trio.sleep(3)
        assert client.state == "connected"


# ---- requests ----


async def test_a_request_made_while_away_waits(manager, nursery, autojump_clock):
    async with linked() as (client, link):
        await lose(manager, client)
        results: list[Any] = []

        async def call() -> None:
            results.append(await link.add(1, 2))

        nursery.start_soon(call)
        await trio.sleep(5)
        assert results == []
        manager.start()
        await trio.sleep(3)
        assert results == [3]
        assert await link.add(3, 4) == 7
    assert manager.requests() == ["link", "add", "add", "unlink", "__disconnect__"]


async def test_a_request_waits_no_longer_than_its_timeout_and_is_not_sent_later(manager, autojump_clock):
    async with linked() as (client, link):
        await lose(manager, client)
        before = trio.current_time()
        with pytest.raises(ReplyTimeout, match="was not sent") as raised:
            await link.add(1, 2, timeout=7)
        assert trio.current_time() - before == pytest.approx(7)
        assert not raised.value.may_have_run
        assert isinstance(raised.value.__cause__, ConnectionLost)
        assert client.statistics().errors == {"ReplyTimeout": 1}
        manager.start()
        await trio.sleep(3)
        assert await link.add(3, 4) == 7
    assert manager.added == [[3, 4]]


async def test_a_cancelled_request_is_not_sent_later(manager, autojump_clock):
    async with linked() as (client, link):
        await lose(manager, client)
        with trio.move_on_after(1) as scope:
            await link.add(1, 2)
        assert scope.cancelled_caught
        manager.start()
        await trio.sleep(3)
        assert await link.add(3, 4) == 7
    assert manager.added == [[3, 4]]


async def test_a_request_that_may_have_been_executed_raises(manager, nursery, autojump_clock):
    async with linked() as (client, link):
        manager.is_mute = True
        results: list[Any] = []

        async def call() -> None:
            results.append(await outcome(lambda: link.add(1, 2)))

        nursery.start_soon(call)
        await trio.testing.wait_all_tasks_blocked()
        await lose(manager, client)
        manager.is_mute = False
        manager.start()
        await trio.sleep(3)
    [error] = results
    assert isinstance(error, ConnectionLost)
    assert isinstance(error, Unanswered)
    assert error.may_have_run
    assert manager.added == [[1, 2]]


async def test_an_idempotent_request_is_repeated(manager, nursery, autojump_clock):
    async with linked(idempotent=("add",)) as (client, link):
        manager.is_mute = True
        results: list[Any] = []

        async def call() -> None:
            arguments = [1, 2]
            nursery.start_soon(change, arguments)
            results.append(await link.request("add", arguments))

        async def change(arguments: list[int]) -> None:
            arguments[:] = [100, 200]

        nursery.start_soon(call)
        await trio.testing.wait_all_tasks_blocked()
        await lose(manager, client)
        manager.is_mute = False
        manager.start()
        await trio.sleep(3)
    assert results == [3]
    assert manager.added == [[1, 2], [1, 2]]


async def test_an_idempotent_request_that_times_out_may_have_been_executed(manager, nursery, autojump_clock):
    async with linked(idempotent=("add",)) as (client, link):
        manager.is_mute = True
        results: list[Any] = []

        async def call() -> None:
            results.append(await outcome(lambda: link.add(1, 2, timeout=5)))

        nursery.start_soon(call)
        await trio.testing.wait_all_tasks_blocked()
        await lose(manager, client)
        await trio.sleep(6)
    [error] = results
    assert isinstance(error, ReplyTimeout)
    assert error.may_have_run


async def test_an_idempotent_request_of_a_client_that_gives_up_may_have_been_executed(
    manager, nursery, autojump_clock
):
    policy = Reconnect(give_up_after=5)
    async with linked(policy, idempotent=("add",)) as (client, link):
        manager.is_mute = True
        results: list[Any] = []

        async def call() -> None:
            results.append(await outcome(lambda: link.add(1, 2)))

        nursery.start_soon(call)
        await trio.testing.wait_all_tasks_blocked()
        await lose(manager, client)
        await trio.sleep(6)
    [error] = results
    assert isinstance(error, ConnectionLost)
    assert error.may_have_run
    assert "Echo.add may have been executed" in str(error)


async def test_a_request_that_was_not_written_is_sent_later(network, manager, nursery, autojump_clock):
    network.capacity = 1000
    async with linked() as (client, link):
        results: dict[str, Any] = {}
        manager.reads = trio.Event()

        async def call(name: str, *arguments: Any) -> None:
            results[name] = await outcome(lambda: link.add(*arguments))

        nursery.start_soon(call, "first", 1)  # after which the Manager does not read any more
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(call, "long", *([1] * 2000))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(call, "queued", 3, 4)
        await trio.testing.wait_all_tasks_blocked()
        manager.reads.set()
        await lose(manager, client)
        manager.start()
        await trio.sleep(3)
    assert results["queued"] == 7
    assert isinstance(results["long"], ConnectionLost)
    assert results["long"].may_have_run
    assert manager.added.count([3, 4]) == 1


async def test_a_request_that_was_not_written_is_not_sent_later_without_the_lock(
    network, manager, nursery, autojump_clock
):
    network.capacity = 1000
    async with linked(idempotent=("add",)) as (client, link):
        await link.acquire_lock()
        results: dict[str, Any] = {}
        manager.reads = trio.Event()

        async def call(name: str, *arguments: Any) -> None:
            results[name] = await outcome(lambda: link.add(*arguments))

        made = link.add(5, 6)  # before the loss, and awaited behind it
        nursery.start_soon(call, "first", 1)  # after which the Manager does not read any more
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(call, "long", *([1] * 2000))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(call, "queued", 3, 4)
        await trio.testing.wait_all_tasks_blocked()
        manager.reads.set()
        await lose(manager, client)
        with pytest.raises(LockLost):
            await made
        manager.start()
        await trio.sleep(3)
        assert client.state == "connected"
        assert isinstance(results["queued"], LockLost)
        # Repeated, although idempotent, it would be executed without the lock.
        assert isinstance(results["long"], ConnectionLost)
        assert results["long"].may_have_run
        assert [3, 4] not in manager.added
        await link.release_lock()
        assert await link.add(7, 8) == 15


async def test_a_request_that_the_manager_refuses_is_sent_when_the_service_is_back(
    manager, nursery, autojump_clock
):
    async with linked() as (client, link):
        manager.has_service = False
        results: list[Any] = []

        async def call() -> None:
            results.append(await outcome(lambda: link.add(1, 2)))

        nursery.start_soon(call)
        await trio.sleep(10)
        assert results == []
        manager.has_service = True
        await trio.sleep(5)
        assert results == [3]
        assert client.state == "connected"
    assert manager.added == [[1, 2]]


async def test_while_away_requests_raise_if_the_policy_says_so(manager, autojump_clock):
    async with linked(Reconnect(while_away="raise")) as (client, link):
        await lose(manager, client)
        before = trio.current_time()
        with pytest.raises(ConnectionLost, match=r"Echo\.add was not sent") as raised:
            await link.add(1, 2)
        assert not raised.value.may_have_run
        assert trio.current_time() == before
        manager.start()
        await trio.sleep(3)
        assert await link.add(1, 2) == 3


async def test_an_asynchronous_request_never_waits_for_a_connection(manager, autojump_clock):
    async with linked(idempotent=("add",)) as (client, link):
        manager.is_mute = True
        reply = link.add(1, 2, asynchronous=True)
        await trio.testing.wait_all_tasks_blocked()
        await lose(manager, client)
        with pytest.raises(ConnectionLost) as raised:
            await reply
        assert raised.value.may_have_run
        with pytest.raises(ConnectionLost, match="was not sent") as raised:
            link.add(1, 2, asynchronous=True)
        assert not raised.value.may_have_run


async def test_requests_to_the_manager_wait_too(manager, nursery, autojump_clock):
    async with connect(reconnect=POLICY) as client:
        await lose(manager, client)
        results: list[Any] = []

        async def ask() -> None:
            async with client.link("Echo") as link:
                results.append(await link.add(1, 2))
            results.append(await client.admin_request("port"))

        nursery.start_soon(ask)
        await trio.sleep(4)
        assert results == []
        manager.start()
        await trio.sleep(3)
        assert results == [3, True]
        manager.stop()
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(ReplyTimeout):
            await client.admin_request("port", timeout=2)


# ---- links ----


async def test_a_link_that_is_broken_while_away_is_not_made_again(manager, autojump_clock):
    async with connect(reconnect=POLICY) as client:
        kept, broken = await client.link("Echo"), await client.link("Echo")
        await lose(manager, client)
        before = trio.current_time()
        await broken.unlink()
        await kept.unlink()
        assert trio.current_time() == before
        with pytest.raises(LinkBroken):
            await kept.add(1, 2)
        manager.start()
        await trio.sleep(3)
    assert manager.requests() == ["__disconnect__"]


async def test_a_linked_client_reconnects_and_its_copies_too(manager, autojump_clock):
    async with LinkedClient("Echo", reconnect=POLICY, idempotent={"add"}) as echo:
        assert echo.client is not None
        await lose(manager, echo.client)
        manager.start()
        assert await echo.add(1, 2) == 3
        async with echo.spawn() as other:
            assert other.client is not None
            await lose(manager, other.client)
            manager.start()
            assert await other.add(1, 2) == 3


# ---- the first connection ----


async def test_the_first_connection_is_tried_until_the_timeout(manager, nursery, autojump_clock):
    manager.stop()

    async def start() -> None:
        await trio.sleep(7)
        manager.start()

    nursery.start_soon(start)
    async with connect(reconnect=True, timeout=20) as client:
        assert client.state == "connected"
        assert 7 <= trio.current_time() < 15


async def test_the_first_connection_raises_the_last_error_at_the_timeout(manager, autojump_clock):
    manager.stop()
    before = trio.current_time()
    with pytest.raises(ConnectError, match="^refused"):
        await connect(reconnect=True, timeout=4)
    assert trio.current_time() - before == pytest.approx(4, abs=0.1)
    assert manager.tries > 3


async def test_without_reconnection_a_refused_connection_raises_at_once(manager, autojump_clock):
    manager.stop()
    before = trio.current_time()
    with pytest.raises(ConnectError, match="^refused"):
        await connect(timeout=4)
    assert (trio.current_time(), manager.tries) == (before, 1)


@pytest.mark.parametrize("error", [CertificateError("not trusted"), AuthenticationError("ValueError: wrong")])
async def test_an_error_that_no_try_can_mend_is_raised_at_once(manager, autojump_clock, error):
    manager.error = error
    with pytest.raises(type(error)):
        await connect(reconnect=True, timeout=4)
    assert manager.tries == 1


# ---- the end ----


async def test_after_a_final_error_everything_raises_it(manager, nursery, autojump_clock, caplog):
    async with linked() as (client, link):
        ended: list[str] = []
        client.shutdown_handler = lambda: ended.append(client.state)
        results: list[Any] = []

        async def call() -> None:
            results.append(await outcome(lambda: link.add(1, 2)))

        await lose(manager, client)
        assert ended == []
        nursery.start_soon(call)
        await trio.testing.wait_all_tasks_blocked()
        manager.error = CertificateError("not trusted any more")
        await trio.sleep(5)
        assert client.state == "closed"
        assert ended == ["closed"]
        [logged] = [record for record in caplog.records if record.levelname == "ERROR"]
        assert "not trusted any more" in logged.message
        for error in (*results, await outcome(lambda: link.add(1, 2))):
            assert isinstance(error, ConnectionLost)
            assert not error.may_have_run
            assert "not trusted any more" in str(error)
            assert isinstance(error.__cause__, CertificateError)


async def test_it_gives_up_after_the_time_of_the_policy(manager, autojump_clock):
    async with linked(Reconnect(give_up_after=12)) as (client, link):
        stream = client.states()
        await lose(manager, client)
        before = trio.current_time()
        with pytest.raises(ConnectionLost) as raised:
            await link.add(1, 2)
        assert trio.current_time() - before == pytest.approx(12, abs=0.1)
        assert isinstance(raised.value.__cause__, ConnectError)
        assert [change.state async for change in stream] == ["away", "closed"]


async def test_disconnecting_while_away_ends_everything_at_once(manager, nursery, autojump_clock):
    client = await connect(reconnect=POLICY)
    link = await client.link("Echo")
    results: list[Any] = []

    async def call() -> None:
        results.append(await outcome(lambda: link.add(1, 2)))

    await lose(manager, client)
    nursery.start_soon(call)
    await trio.testing.wait_all_tasks_blocked()
    before = trio.current_time()
    await client.disconnect()
    await trio.testing.wait_all_tasks_blocked()
    assert trio.current_time() == before
    assert client.state == "closed"
    [error] = results
    assert isinstance(error, ConnectionLost)
    assert not error.may_have_run


async def test_disconnecting_at_the_moment_of_the_new_connection_closes_it(
    manager, nursery, autojump_clock, monkeypatch
):
    client = await connect(reconnect=POLICY)

    async def dial(*arguments: Any, **more: Any) -> Any:
        dialed = await connecting.dial(*arguments, **more)
        nursery.start_soon(client.disconnect)
        with trio.CancelScope(shield=True):
            await trio.testing.wait_all_tasks_blocked()  # it has cancelled the tries, too late
        return dialed

    monkeypatch.setattr(client_connecting, "dial", dial)
    await lose(manager, client)
    manager.start()
    with trio.fail_after(10):
        while client.state != "closed":
            await trio.sleep(0.1)


@pytest.mark.parametrize("in_a_try", [False, True])
async def test_a_scope_that_is_cancelled_while_away_ends_at_once(
    manager, autojump_clock, monkeypatch, in_a_try
):
    with trio.CancelScope() as scope:
        async with linked() as (client, link):
            await lose(manager, client)
            if in_a_try:
                monkeypatch.setattr(connecting, "_open_stream", lambda *_: trio.sleep_forever())
                await trio.sleep(2)
            before = trio.current_time()
            scope.cancel()
            await link.add(1, 2)
    assert trio.current_time() == before
    assert client.state == "closed"


async def test_a_nursery_that_is_cancelled_while_away_ends_at_once(manager, autojump_clock):
    async with trio.open_nursery() as own:
        client = await connect(reconnect=POLICY, nursery=own)
        await lose(manager, client)
        before = trio.current_time()
        own.cancel_scope.cancel()
    assert trio.current_time() == before
    assert client.state == "closed"


# ---- credentials ----


class Person:
    """Prompts that count how often a person is asked."""

    def __init__(self) -> None:
        self.asked = 0

    async def username(self, manager: str) -> str:
        raise AssertionError

    async def password(self, name: str) -> str:
        self.asked += 1
        return "secret"

    async def trust(self, certificate: object) -> bool:
        raise AssertionError


async def test_a_person_is_asked_for_the_first_connection_only(manager, autojump_clock):
    manager.password = "secret"
    person = Person()
    async with connect(reconnect=POLICY, prompts=person) as client:
        await lose(manager, client)
        manager.start()
        await trio.sleep(3)
        assert client.state == "connected"
        assert person.asked == 1


async def test_a_question_that_is_new_after_a_loss_is_final(manager, autojump_clock):
    person = Person()
    async with connect(reconnect=POLICY, prompts=person) as client:
        await lose(manager, client)
        manager.password = "secret"
        manager.start()
        stream = client.states()
        change = await anext(stream)
        assert change.state == "closed"
        assert "password_manager=" in str(change.reason)
        assert person.asked == 0


async def test_an_error_of_a_lost_service_is_one_that_a_loop_can_catch():
    assert issubclass(ServiceLost, Unanswered)
    assert issubclass(ReplyTimeout, Unanswered)


async def test_an_internal_error_ends_the_client_and_leaves_nobody_waiting(
    manager, nursery, autojump_clock, monkeypatch, caplog
):
    async def fail(*_: Any, **__: Any) -> None:
        await trio.sleep(1)
        raise ZeroDivisionError

    monkeypatch.setattr(client_connecting, "dial_again", fail)
    client = await connect(reconnect=POLICY)
    link = await client.link("Echo")
    await lose(manager, client)
    with trio.fail_after(10):
        with pytest.raises(ConnectionLost, match="failed: ZeroDivisionError"):
            await link.add(1, 2)
        await client.disconnect()
    assert client.state == "closed"
    assert any(record.exc_info for record in caplog.records)


async def test_an_internal_error_beside_a_new_connection_closes_it(
    manager, nursery, autojump_clock, monkeypatch
):
    def fail(_: object) -> None:
        raise ZeroDivisionError

    client = await connect(reconnect=POLICY)
    link = await client.link("Echo")
    await lose(manager, client)
    monkeypatch.setattr(Presence, "connection_restored", fail)
    manager.start()
    with trio.fail_after(100):
        with pytest.raises(ConnectionLost, match="failed: ZeroDivisionError"):
            await link.add(1, 2)
        await client.disconnect()
    assert client.state == "closed"
    assert not client.is_connected()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
async def test_an_interrupt_in_a_try_to_connect_leaves_nobody_waiting(
    manager, autojump_clock, monkeypatch, error
):
    async def fail(*_: Any, **__: Any) -> None:
        await trio.sleep(1)
        raise error

    monkeypatch.setattr(client_connecting, "dial_again", fail)
    with trio.fail_after(100), pytest.raises(BaseException) as caught:  # noqa: PT011 - perhaps in a group
        async with connect(reconnect=POLICY) as client:
            link = await client.link("Echo")
            await lose(manager, client)
            with pytest.raises(ConnectionLost, match=f"was interrupted: {error.__name__}"):
                await link.add(1, 2)
            await trio.sleep_forever()
    assert isinstance(caught.value, error)
    assert client.state == "closed"
