"""Our Services at both Managers that are killed, stopped and restarted."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from msl_network_trio import AuthenticationError, Client, ConnectionLost, Reconnect, Service, connect
from msl_network_trio.service.state import state_of
from tests.interop.reference import Manager, Process, free_port, start_manager
from tests.patience import PATIENCE

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(sys.platform == "win32", reason="it sends signals that Windows does not have"),
]

SOON = Reconnect(first_delay=0.05, longest_delay=0.05)

_OURS = Path(__file__).with_name("our_services.py")


class Instrument(Service):
    """A Service that runs one plain method at a time, and records what it executes."""

    def __init__(self) -> None:
        super().__init__(name="Ours", max_workers=1)
        self._gate = threading.Event()
        self._entered = threading.Event()
        self._running = 0
        self._executed: list[Any] = []
        self._most = 0
        self._ended = 0
        self._beats = 0
        self.add_tasks(self._beat)

    async def _beat(self) -> None:
        while True:
            self._beats += 1
            self.emit_notification(self._beats)
            await trio.sleep(0.01)

    def measure(self, number: int, wait: bool = False) -> list[int]:
        self._running += 1
        self._most = max(self._most, self._running)
        if wait:
            self._entered.set()
            assert self._gate.wait(PATIENCE)
        self._executed.append(number)
        self._running -= 1
        return [number, threading.get_ident()]

    def shutdown_handler(self) -> None:
        self._ended += 1


@attrs.define
class World:
    """A Manager at one address, which can be killed and restarted."""

    manager: Manager

    def kill(self) -> None:
        self.manager.process.kill()

    def restart(self) -> None:
        old = self.manager
        old.process.end()
        self.manager = start_manager(old.home, tls=old.tls, ours=old.ours, port=old.port)

    def end(self) -> None:
        self.manager.end()


@pytest.fixture
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    kind, _, tls = request.param.partition("-")
    world = World(start_manager(tmp_path / "manager", ours=kind == "ours", tls=bool(tls)))
    yield world
    world.end()


def managers(*names: str) -> pytest.MarkDecorator:
    """Run a test with these Managers, and with the others in CI only."""
    each = [
        pytest.param(name, marks=() if name in names else pytest.mark.slow)
        for name in ("reference", "ours", "reference-tls", "ours-tls")
    ]
    return pytest.mark.parametrize("world", each, indirect=True)


@asynccontextmanager
async def serving(world: World, service: Instrument, **kwargs: Any) -> AsyncIterator[trio.Nursery]:
    """Run a Service in this process, and end it in an orderly way."""
    async with trio.open_nursery() as nursery:
        run = partial(service.run, reconnect=SOON, **world.manager.arguments(), **kwargs)
        with trio.fail_after(PATIENCE):
            await nursery.start(run)
            yield nursery
            state_of(service).stop()
            while state_of(service).is_running:
                await trio.sleep(0.01)


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await trio.sleep(0.01)


async def until_served(client: Client) -> Any:
    """Return a link with the Service as soon as it is connected."""
    while "Ours" not in (await client.identities())["services"]:
        await trio.sleep(0.01)
    return await client.link("Ours")


async def in_thread(function: Callable[[], object]) -> None:
    await trio.to_thread.run_sync(function)


@managers("reference", "ours")
@pytest.mark.parametrize("kills", [1, pytest.param(5, marks=pytest.mark.slow)])
async def test_it_is_back_after_each_kill_with_its_thread_and_its_tasks(world, kills, caplog):
    caplog.set_level(logging.INFO, "msl_network_trio.service")
    service, threads = Instrument(), set()
    async with serving(world, service):
        for number in range(kills):
            async with connect(**world.manager.arguments()) as client:
                link = await until_served(client)
                async with link.notifications() as stream:
                    answer = await link.measure(number)
                    assert answer[0] == number
                    threads.add(answer[1])
                    with trio.fail_after(PATIENCE):
                        await anext(stream)
                world.kill()
            beats = service._beats
            await until(lambda before=beats: service._beats > before + 1)
            await in_thread(world.restart)
        await until(lambda: state_of(service).connection is not None)
        assert service._ended == 0
    assert service._executed == [*range(kills)]
    assert service._ended == 1
    assert len(threads) == 1
    assert caplog.text.count("has lost its connection") == kills
    assert "notification(s) were not emitted" in caplog.text


@managers("reference")
async def test_one_method_at_a_time_also_across_a_loss(world):
    service = Instrument()
    async with serving(world, service):
        async with connect(**world.manager.arguments()) as client:
            link = await until_served(client)
            lost = link.measure(1, wait=True, asynchronous=True)
            queued = link.measure(2, asynchronous=True)
            await in_thread(partial(service._entered.wait, PATIENCE))
            world.kill()
            for reply in (lost, queued):
                with pytest.raises(ConnectionLost) as caught:
                    await reply
                assert caught.value.may_have_run
        await in_thread(world.restart)
        async with connect(**world.manager.arguments()) as client:
            link = await until_served(client)
            reply = link.measure(3, asynchronous=True)
            assert (await client.identities())["services"]["Ours"]["attributes"]  # forwarded by then
            assert service._executed == []
            service._gate.set()
            assert (await reply)[0] == 3
    assert service._most == 1
    assert service._executed in ([1, 3], [1, 2, 3]), "the second one may have been read before the loss"
    assert service._executed.count(2) <= 1


@managers("reference", "ours")
async def test_the_end_while_away_is_orderly(world):
    service = Instrument()
    async with serving(world, service):
        world.kill()
        await until(lambda: state_of(service).connection is None)
    assert service._ended == 1


@managers("ours")
async def test_a_manager_that_is_stopped_is_noticed_and_found_again(world, caplog):
    service = Instrument()
    async with serving(world, service, heartbeat=0.2, timeout=1):
        world.manager.process.pause()
        await until(lambda: "has lost its connection" in caplog.text)
        assert "has sent nothing for" in caplog.text
        world.manager.process.resume()
        await until(lambda: "again, after" in caplog.text)
        async with connect(**world.manager.arguments()) as client:
            link = await until_served(client)
            await link.measure(1)
    assert service._executed == [1]


@managers("reference")
async def test_a_heartbeat_keeps_the_connection_to_a_manager_that_answers(world, caplog):
    service = Instrument()
    async with serving(world, service, heartbeat=0.3):
        connection = state_of(service).connection
        protocol = connection._protocol
        pings = 0
        ping = protocol.ping

        def counted() -> bytes:
            nonlocal pings
            pings += 1
            return ping()

        protocol.ping = counted
        await until(lambda: pings >= 3 or "has lost" in caplog.text)
        assert state_of(service).connection is connection
    assert caplog.text == ""


@pytest.mark.slow
async def test_a_service_that_a_manager_does_not_want_any_more_ends(tmp_path):
    manager = start_manager(tmp_path / "manager", ours=True)
    world, service = World(manager), Instrument()
    try:
        with pytest.raises(ExceptionGroup) as caught:
            async with serving(world, service):
                world.kill()
                world.manager.process.end()
                world.manager = await trio.to_thread.run_sync(
                    partial(start_manager, manager.home, ours=True, port=manager.port, auth_password="secret")
                )
                await trio.sleep_forever()
        [error] = caught.value.exceptions
        assert isinstance(error, ConnectionLost)
        assert isinstance(error.__cause__, AuthenticationError)
        assert "password_manager=" in str(error)
        assert service._ended == 1
    finally:
        world.end()


# ---- programs ----


def program(manager: Manager, announced: str = "is connected to Manager") -> Process:
    """Start our Service in a process."""
    arguments = [str(_OURS), json.dumps(manager.arguments())]
    return Process.start(arguments, manager.home, announced)


@managers("reference")
@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_program_survives_the_manager_and_ends_with_status_0(world, number):
    process = program(world.manager)
    try:
        world.kill()
        process.wait_for("has lost its connection")
        world.restart()
        process.wait_for("again, after")
        process.popen.send_signal(number)
        assert process.popen.wait(PATIENCE) == 0
        process.wait_for("start has returned")
        assert process.log().count("shutdown_handler was called") == 1
    finally:
        process.end()


@managers("ours")
def test_a_program_that_is_ended_while_away_ends_with_status_0(world):
    process = program(world.manager)
    try:
        world.kill()
        process.wait_for("has lost its connection")
        process.popen.send_signal(signal.SIGTERM)
        assert process.popen.wait(PATIENCE) == 0
        process.wait_for("start has returned")
        assert process.log().count("shutdown_handler was called") == 1
    finally:
        process.end()


@pytest.mark.parametrize("ours", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_program_may_be_started_before_the_manager(tmp_path, ours):
    port = free_port()
    home = tmp_path / "manager"
    home.mkdir()
    absent = Manager(None, home, port, False, {}, ours=ours)
    process = Process.start(
        [str(_OURS), json.dumps(absent.arguments(timeout=PATIENCE))], home, "cannot connect yet"
    )
    manager = None
    try:
        manager = start_manager(home, ours=ours, port=port)
        process.wait_for("is connected to Manager")
        process.popen.send_signal(signal.SIGTERM)
        assert process.popen.wait(PATIENCE) == 0
    finally:
        process.end()
        if manager is not None:
            manager.end()


@managers()
def test_without_reconnection_the_exit_status_is_1(world):
    process = world.manager.start_example_of_ours("echo", "--no-reconnect")
    world.kill()
    assert process.popen.wait(PATIENCE) == 1
    process.wait_for("ConnectionLost")


@managers()
def test_start_in_another_thread_raises_at_a_loss(world):
    source = (
        "import json, sys, threading\n"
        "from msl_network_trio.examples.echo import Echo\n"
        "from msl_network_trio import ConnectionLost\n"
        "import logging; logging.basicConfig(level=logging.INFO, stream=sys.stdout)\n"
        "def start():\n"
        "    try:\n"
        "        Echo().start(**json.loads(sys.argv[1]))\n"
        "    except ConnectionLost:\n"
        "        print('lost', flush=True)\n"
        "threading.Thread(target=start).start()\n"
    )
    arguments = ["-c", source, json.dumps(world.manager.arguments())]
    process = Process.start(arguments, world.manager.home, "is connected to Manager")
    try:
        world.kill()
        process.wait_for("lost")
        assert process.popen.wait(PATIENCE) == 0
    finally:
        process.end()


def _name_of_thread(folder: Path) -> str:
    try:
        return (folder / "comm").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return "Trio thread that has just ended"


@pytest.mark.slow
def test_nothing_is_lost_or_left_in_20_kills(tmp_path):
    """Kill the Manager of a Service in a process 20 times, and compare its threads and descriptors."""
    if not sys.platform.startswith("linux"):
        pytest.skip("it reads /proc")
    manager = start_manager(tmp_path / "manager", ours=True)
    world = World(manager)
    process = program(manager)

    def use() -> tuple[int, int]:
        link = "from msl_network_trio.sync import connect; import sys, json\n"
        code = (
            link
            + "client = connect(**json.loads(sys.argv[1])); print(client.link('Ours').add(1, 2))\n"
            + "client.disconnect()"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, json.dumps(world.manager.arguments())],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=True,
        )
        assert done.stdout == "3\n"
        folder = Path("/proc") / str(process.popen.pid)
        names = [_name_of_thread(each) for each in (folder / "task").iterdir()]
        # Trio ends its cached threads after 10 s without work, so their number depends on the computer.
        threads = [name for name in names if not name.startswith("Trio thread ")]
        return len([*(folder / "fd").iterdir()]), len(threads)

    counts = []
    try:
        for number in range(20):
            counts.append(use())
            world.kill()
            world.restart()
            while process.log().count("again, after") <= number:
                threading.Event().wait(0.01)
        process.popen.send_signal(signal.SIGTERM)
        assert process.popen.wait(PATIENCE) == 0
    finally:
        process.end()
        world.end()
    assert len(set(counts[2:])) == 1, counts
