"""Services that reconnect: what goes on while there is no connection, and how it ends."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from msl_network_trio import AuthenticationError, ConnectError, ConnectionLost, Service, connect
from msl_network_trio.dialing.reconnect import Reconnect
from msl_network_trio.manager.opening import open_manager
from msl_network_trio.service.state import state_of
from tests.patience import PATIENCE
from tests.service.peer import Peer

SOON = Reconnect(first_delay=0.001, longest_delay=0.001)


class Instrument(Service):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(name="Instrument", **kwargs)
        self.ignore_attributes("gate", "entered", "open")
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.open = trio.Event()
        self.running = self.most = 0
        self.calls: list[Any] = []
        self.ended = 0

    def plain(self, x: Any) -> Any:
        self.calls.append(x)
        return x

    def ident(self) -> int:
        return threading.get_ident()

    def block(self) -> str:
        self.running += 1
        self.most = max(self.most, self.running)
        self.entered.set()
        assert self.gate.wait(PATIENCE)
        self.running -= 1
        return "blocked"

    async def wait(self) -> str:
        self.entered.set()
        await self.open.wait()
        self.calls.append("waited")
        return "waited"

    def shutdown_service(self) -> None:
        pass

    def shutdown_handler(self) -> None:
        self.ended += 1


class Network:
    """A network with at most one Manager at a time, which Services and clients dial."""

    def __init__(self) -> None:
        self.manager: Any = None
        self.came = trio.Event()
        self.tries = 0
        self._scope = trio.CancelScope()
        self._gone = trio.Event()
        self.streams: list[Any] = []

    async def dial(self) -> Any:
        self.tries += 1
        if self.manager is None:
            await trio.lowlevel.checkpoint()
            raise ConnectError("nobody listens")
        stream = await self.manager.dial()
        self.streams.append(stream)
        return stream

    def cut(self) -> None:
        """Break all connections, as a Manager that is killed does."""
        for stream in self.streams:
            stream.reset()
        self.streams.clear()

    async def run(self, task_status: Any = trio.TASK_STATUS_IGNORED, **options: Any) -> None:
        """Run a Manager, until `kill`."""
        self._scope, self._gone = trio.CancelScope(), trio.Event()
        with self._scope:
            async with open_manager(in_memory=True, **options) as self.manager:
                task_status.started()
                await trio.sleep_forever()
        self._gone.set()

    async def kill(self) -> None:
        """End the Manager without a goodbye to anybody."""
        self.manager = None
        self.cut()
        await wait_all_tasks_blocked()
        self._scope.cancel()
        await self._gone.wait()


@pytest.fixture
def network() -> Network:
    return Network()


@asynccontextmanager
async def running(network: Network, service: Service, **kwargs: Any) -> AsyncIterator[trio.Nursery]:
    """Run a Manager and a Service, which is shut down by a client at the end."""
    kwargs.setdefault("reconnect", SOON)
    async with trio.open_nursery() as nursery:
        await nursery.start(network.run)
        await nursery.start(partial(service.run, transport=network.dial, **kwargs))
        with trio.fail_after(PATIENCE):
            yield nursery
            state_of(service).stop()
        await trio.lowlevel.checkpoint()
        while state_of(service).is_running:
            await trio.sleep(0.001)
        nursery.cancel_scope.cancel()


async def call(network: Network, attribute: str, *args: Any, **kwargs: Any) -> Any:
    async with connect(transport=network.dial) as client, client.link("Instrument") as link:
        return await getattr(link, attribute)(*args, **kwargs)


async def lose(network: Network, service: Instrument, attribute: str) -> None:
    """Kill the Manager while a client waits for its reply to a request."""

    async def ask() -> None:
        with pytest.raises(ConnectionLost) as lost:
            await call(network, attribute)
        assert lost.value.may_have_run

    async with trio.open_nursery() as callers:
        callers.start_soon(ask)
        while not service.entered.is_set():
            await trio.sleep(0.001)
        await network.kill()


async def back(network: Network, service: Service, nursery: trio.Nursery) -> None:
    """Start a Manager, and wait until the Service is connected to it."""
    await nursery.start(network.run)
    while "Instrument" not in network.manager.identity()["services"] or state_of(service).connection is None:
        await trio.sleep(0.001)


async def test_a_service_serves_again_after_the_manager_was_restarted(network, caplog):
    caplog.set_level(logging.INFO, "msl_network_trio.service")
    service = Instrument()
    started = []

    async def task() -> None:
        started.append(1)
        await trio.sleep_forever()

    service.add_tasks(task)
    async with running(network, service) as nursery:
        assert await call(network, "plain", 1) == 1
        for number in range(3):
            await network.kill()
            await back(network, service, nursery)
            assert await call(network, "plain", number) == number
        assert service.nursery is not None
        assert service.ended == 0
    assert started == [1]
    assert service.ended == 1
    assert service.calls == [1, 0, 1, 2]
    texts = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert sum(level == "WARNING" and "has lost its connection" in text for level, text in texts) == 3
    assert sum(level == "WARNING" and "again, after" in text for level, text in texts) == 3


async def test_without_reconnection_a_loss_ends_it(network):
    service = Instrument()
    with pytest.raises(ExceptionGroup) as caught:
        async with running(network, service, reconnect=False):
            await network.kill()
            await trio.sleep_forever()
    assert caught.group_contains(ConnectionLost)
    assert network.tries == 1
    assert service.ended == 1


async def test_a_method_that_runs_at_the_loss_counts_until_it_returns(network):
    service = Instrument(max_workers=1)
    async with running(network, service) as nursery:
        await lose(network, service, "block")
        await back(network, service, nursery)
        answers = []

        async def ask(*args: Any) -> None:
            answers.append(await call(network, *args))

        async with trio.open_nursery() as callers:
            callers.start_soon(ask, "block")
            callers.start_soon(ask, "plain", 2)
            await wait_all_tasks_blocked(0.05)
            assert (service.most, answers) == (1, [])
            service.gate.set()
        assert sorted(answers, key=str) == [2, "blocked"]
        assert service.most == 1


async def test_requests_that_were_not_started_at_the_loss_are_not_executed(network):
    service = Instrument(max_workers=1)
    async with running(network, service) as nursery:
        async with connect(transport=network.dial) as client:
            link = await client.link("Instrument")
            replies = [link.block(asynchronous=True)]
            await trio.to_thread.run_sync(service.entered.wait, PATIENCE)
            replies += [link.plain(number, asynchronous=True) for number in range(3)]
            pool = state_of(service).connection._dispatcher._methods
            while pool.is_idle:
                await trio.sleep(0.001)
            await network.kill()
            for reply in replies:
                with pytest.raises(ConnectionLost):
                    await reply
        await back(network, service, nursery)
        service.gate.set()
        assert await call(network, "plain", "after") == "after"
    assert service.calls == ["after"]


async def test_the_threads_are_those_of_before(network):
    service = Instrument(max_workers=1)
    async with running(network, service) as nursery:
        idents = {await call(network, "ident")}
        for _ in range(3):
            await network.kill()
            await back(network, service, nursery)
            idents.add(await call(network, "ident"))
    assert len(idents) == 1


async def test_async_methods_go_on_and_their_replies_are_dropped(network):
    service = Instrument()
    async with running(network, service) as nursery:
        await lose(network, service, "wait")
        await back(network, service, nursery)
        service.open.set()
        assert await call(network, "plain", 1) == 1
        assert service.calls == ["waited", 1]


@pytest.mark.parametrize("is_back", [False, True])
async def test_a_client_shuts_it_down_although_the_connection_is_lost_meanwhile(network, is_back):
    class Stopping(Instrument):
        async def shutdown_service(self) -> None:
            await self.wait()

    service = Stopping()
    async with trio.open_nursery() as nursery:
        await nursery.start(network.run)
        run = partial(service.run, transport=network.dial, reconnect=SOON)
        await nursery.start(run)
        with trio.fail_after(PATIENCE):
            await lose(network, service, "shutdown_service")
            if is_back:
                await back(network, service, nursery)
            service.open.set()
            while state_of(service).is_running:
                await trio.sleep(0.001)
        nursery.cancel_scope.cancel()
    assert service.ended == 1


async def test_what_a_method_returns_after_the_loss_is_awaited(network):
    class Passing(Instrument):
        def pass_on(self) -> Any:
            self.block()
            return self.wait()

    service = Passing()
    async with running(network, service) as nursery:
        await lose(network, service, "pass_on")
        await back(network, service, nursery)
        service.entered.clear()
        service.gate.set()
        await trio.to_thread.run_sync(service.entered.wait, PATIENCE)
        service.open.set()
    assert service.calls == ["waited"], "the end waits for it"


@pytest.mark.parametrize("method", ["block", "wait"])
async def test_what_runs_since_before_the_loss_is_waited_for_at_the_end(network, method):
    service = Instrument()
    async with running(network, service) as nursery:
        await lose(network, service, method)
        await back(network, service, nursery)
        state_of(service).stop()
        await wait_all_tasks_blocked(0.02)
        assert state_of(service).is_running
        service.open.set()
        service.gate.set()
    assert service.ended == 1


async def test_notifications_are_dropped_and_counted_while_there_is_no_connection(network, caplog):
    service = Instrument()
    async with running(network, service) as nursery:
        service.emit_notification("before")
        await network.kill()
        service.emit_notification("dropped")
        await trio.to_thread.run_sync(service.emit_notification, "dropped")
        with pytest.raises(TypeError):
            service.emit_notification(object())
        await back(network, service, nursery)
        assert "2 notification(s) were not emitted" in caplog.text
        async with (
            connect(transport=network.dial) as client,
            client.link("Instrument") as link,
            link.notifications() as stream,
        ):
            service.emit_notification("after")
            assert (await anext(stream)).args == ["after"]
    with pytest.raises(ConnectionLost, match="not connected"):
        service.emit_notification("ended")


async def test_a_thread_that_waits_for_room_at_the_loss_goes_on(network, caplog):
    service, peer = Instrument(), Peer.over("memory", capacity=1000)

    async def dial() -> Any:
        return await (network.dial() if peer.service_end._closed else peer.dial())

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            await nursery.start(network.run)
            nursery.start_soon(partial(service.run, transport=dial, reconnect=SOON, max_unsent=1000))
            await peer.shake_hands()
            while (connection := state_of(service).connection) is None:
                await trio.sleep(0.001)
            async with trio.open_nursery() as threads:
                for _ in range(3):
                    threads.start_soon(trio.to_thread.run_sync, service.emit_notification, "x" * 2000)
                while not connection._send_queue._threads_waiting:
                    await trio.sleep(0.001)
                peer.transport.reset()
            while "notification(s) were not emitted" not in caplog.text:
                await trio.sleep(0.001)
            state_of(service).stop()
            while state_of(service).is_running:
                await trio.sleep(0.001)
            nursery.cancel_scope.cancel()
    assert " 0 notification(s)" not in caplog.text


async def test_stopping_while_away_is_immediate(network):
    service, errors = Instrument(), []

    async def emit_at_the_end() -> None:
        try:
            await trio.sleep_forever()
        finally:
            try:
                service.emit_notification("last")
            except ConnectionLost as error:
                errors.append(error)

    service.add_tasks(emit_at_the_end)
    async with running(network, service, reconnect=True):
        await network.kill()
        await trio.sleep(0.01)
    assert service.ended == 1
    assert errors == []


async def test_an_exception_in_a_task_ends_it_while_away(network):
    service = Instrument()
    with pytest.raises(ExceptionGroup) as caught:
        async with running(network, service):
            await network.kill()

            async def fail() -> None:
                await trio.lowlevel.checkpoint()
                raise OverflowError("too hot")

            service.nursery.start_soon(fail)
            await trio.sleep_forever()
    assert caught.group_contains(OverflowError)
    assert service.ended == 1


async def test_it_gives_up_after_the_time_that_the_policy_says(network, autojump_clock):
    service = Instrument()
    policy = Reconnect(give_up_after=30)
    with pytest.raises(ExceptionGroup) as caught:
        async with running(network, service, reconnect=policy):
            began = trio.current_time()
            await network.kill()
            await trio.sleep_forever()
    assert 30 <= trio.current_time() - began < 31
    [error] = caught.value.exceptions
    assert isinstance(error, ConnectionLost)
    assert "gave up reconnecting after 30 s" in str(error)
    assert "nobody listens" in str(error.__cause__)
    assert service.ended == 1


async def test_a_manager_that_does_not_accept_it_any_more_ends_it(network):
    service = Instrument()
    with pytest.raises(ExceptionGroup) as caught:
        async with running(network, service) as nursery:
            await network.kill()
            await nursery.start(partial(network.run, auth_password="secret"))
            await trio.sleep_forever()
    [error] = caught.value.exceptions
    assert isinstance(error, ConnectionLost)
    assert isinstance(error.__cause__, AuthenticationError)
    assert "reconnecting is impossible" in str(error)


async def test_manager_and_service_start_in_any_order(network, autojump_clock, caplog):
    caplog.set_level(logging.INFO, "msl_network_trio.service")
    service = Instrument()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(service.run, transport=network.dial, reconnect=True))
        await trio.sleep(5)
        assert network.tries > 1
        assert "'Instrument' cannot connect yet: nobody listens" in caplog.text
        await back(network, service, nursery)
        nursery.cancel_scope.cancel()
    assert service.ended == 1


async def test_the_first_connection_fails_after_the_timeout_with_the_real_reason(network, autojump_clock):
    service = Instrument()
    with pytest.raises(ConnectError, match="nobody listens"):
        await service.run(transport=network.dial, reconnect=True, timeout=3)
    assert trio.current_time() == pytest.approx(3, abs=0.01)
    assert service.ended == 0
    tries = network.tries
    with pytest.raises(ConnectError):
        await service.run(transport=network.dial)
    assert network.tries == tries + 1


async def test_a_manager_of_this_program_that_has_ended_ends_it_quietly():
    service = Instrument()
    async with trio.open_nursery() as nursery, open_manager(in_memory=True) as manager:
        await nursery.start(partial(service.run, transport=manager.dial, reconnect=SOON))
    assert service.ended == 1


async def test_nothing_is_left_of_lost_connections(network):
    def new_threads() -> int:
        # Without those that Trio keeps for a while: one of an earlier test may end at any time.
        threads = set(threading.enumerate()) - before
        return sum(not thread.name.startswith("Trio thread ") for thread in threads)

    service, before = Instrument(max_workers=2), set(threading.enumerate())
    async with running(network, service) as nursery:
        counts = []
        for _ in range(12):
            assert await call(network, "plain", 1) == 1
            await wait_all_tasks_blocked()
            counts.append((trio.lowlevel.current_statistics().tasks_living, new_threads()))
            await network.kill()
            await back(network, service, nursery)
        assert counts[2:] == counts[2:3] * 10


# ---- heartbeat ----


async def test_a_silent_manager_is_asked_and_then_given_up(autojump_clock):
    service, peer = Instrument(), Peer.over("memory")
    errors = []

    async def run() -> None:
        with pytest.raises(ConnectionLost, match="has sent nothing for 60 seconds") as caught:
            await service.run(transport=peer.dial)
        errors.append(caught.value)

    with trio.fail_after(1000):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            await peer.shake_hands()
            began = trio.current_time()
            ping = await peer.line()
            assert ping["attribute"] == "unlink"
            assert 30 <= trio.current_time() - began <= 40
            await peer.accept(ping["uid"])  # an answer of it, and it may go on
            assert (await peer.line())["attribute"] == "unlink"
            assert 60 <= trio.current_time() - began <= 80
            began = trio.current_time()
            assert await peer.raw_line() is None
            assert trio.current_time() - began == 30
            peer.transport.close()


@pytest.mark.parametrize("heartbeat", [None, 300])
async def test_the_heartbeat_can_be_set_or_switched_off(autojump_clock, heartbeat):
    service, peer = Instrument(), Peer.over("memory")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(service.run, transport=peer.dial, heartbeat=heartbeat))
        await peer.shake_hands()
        with trio.move_on_after(1000):
            await peer.line()
            assert heartbeat
            assert 300 <= trio.current_time() <= 400
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            peer.transport.close()


async def test_requests_are_a_sign_of_life(autojump_clock):
    service, peer = Instrument(), Peer.over("memory")
    service.open.set()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(service.run, transport=peer.dial))
        await peer.shake_hands()
        for _ in range(10):
            await trio.sleep(19)
            assert await peer.call("wait") == "waited"  # and no ping in between
        peer.transport.close()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("value", [0, -1, "x"])
async def test_a_heartbeat_is_a_positive_number(value):
    with pytest.raises((TypeError, ValueError), match="heartbeat"):
        await Instrument().run(heartbeat=value)


async def test_a_manager_that_is_not_read_while_methods_run_is_not_silent(autojump_clock, caplog):
    service, peer = Instrument(), Peer.over("memory")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(service.run, transport=peer.dial, max_unsent=100))
        await peer.shake_hands()
        for _ in range(3):
            await peer.request("wait")
        await trio.sleep(1000)
        connection = state_of(service).connection
        assert connection is not None
        assert connection._dispatcher.reader.is_paused
        service.open.set()
        for _ in range(3):
            assert (await peer.answer())["result"] == "waited"
        peer.transport.close()
        nursery.cancel_scope.cancel()
    assert caplog.text == ""


async def test_a_manager_that_accepts_nothing_is_silent(autojump_clock):
    class Echo(Instrument):
        async def echo(self, x: str) -> str:
            return x

    peer = Peer.over("memory", 100)
    with pytest.raises(ExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(Echo().run, transport=peer.dial, max_unsent=100))
            await peer.shake_hands()
            await peer.request("echo", "x" * 1000)
            await trio.sleep(1000)
    assert caught.group_contains(ConnectionLost, match="has sent nothing")
    peer.transport.close()


async def test_a_reader_that_waits_for_room_ends_with_its_connection(network):
    service = Instrument()
    async with running(network, service, max_unsent=1000):
        for _ in range(2):
            connection = state_of(service).connection
            assert connection is not None
            reader = connection._dispatcher.reader
            with connection._send_queue._mutex:
                connection._send_queue.unsent += 100_000  # as if the Manager read nothing
            async with connect(transport=network.dial) as client:
                link = await client.link("Instrument")
                link.plain("x" * 500, asynchronous=True)
                while not reader.is_paused:
                    await trio.sleep(0.001)
                connection._fail(ConnectionLost("given up, as by the heartbeat"))
                connection._over.set()
                while reader.is_paused:
                    await trio.sleep(0.001)
            while state_of(service).connection in (None, connection):
                await trio.sleep(0.001)
