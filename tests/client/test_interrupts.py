"""Ctrl-C at each step of operations of a client, a Service or a Manager."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from msl_network_trio import AuthenticationError, Client, Link, LinkedClient, Service, connect, open_manager
from msl_network_trio.manager.server import Manager
from tests.injector import FOLDER, Injector, numbers
from tests.patience import PATIENCE

pytestmark = pytest.mark.usefixtures("ignored_interrupts")

LIMIT = PATIENCE
SAMPLE = 5
FILES = (
    FOLDER,
    *(os.path.join("trio", *name) for name in (["_sync.py"], ["_timeouts.py"], ["_core", "_parking_lot.py"])),
)
"""Files in which Ctrl-C is injected: this package, and the waits of Trio."""


class Echo(Service):
    def __init__(self) -> None:
        super().__init__(name="Echo")

    async def echo(self, value: Any) -> Any:
        return value

    async def emit(self, count: int) -> int:
        for number in range(count):
            self.emit_notification(number)
        return count


class Errors(logging.Handler):
    """A log handler that collects errors."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


class Bench:
    """Objects for an operation."""

    def __init__(self, manager: Manager, client: Client, link: Link, nursery: trio.Nursery) -> None:
        self.manager, self.client, self.link, self.nursery = manager, client, link, nursery

    @property
    def arguments(self) -> dict[str, Any]:
        return {"transport": self.manager.dial}


async def request(bench: Bench) -> None:
    assert await bench.link.echo(7) == 7


async def request_with_timeout(bench: Bench) -> None:
    assert await bench.link.echo(7, timeout=LIMIT) == 7


async def handle(bench: Bench) -> None:
    replies = [bench.link.echo(number, asynchronous=True) for number in range(3)]
    assert [await reply for reply in replies] == [0, 1, 2]


async def cancelled_handle(bench: Bench) -> None:
    bench.link.echo(1, asynchronous=True).cancel()


async def notifications(bench: Bench) -> None:
    async with bench.link.notifications() as stream:
        await bench.link.emit(2)
        async for notification in stream:
            if notification.args == [1]:
                break


async def lock_scope(bench: Bench) -> None:
    async with bench.link.acquire_lock():
        assert await bench.link.echo(3) == 3


async def lock_waited_for(bench: Bench) -> None:
    async with bench.link.acquire_lock(wait=True, timeout=LIMIT):
        pass


async def lock_awaited(bench: Bench) -> None:
    try:
        await bench.link.acquire_lock()
        await bench.link.release_lock()
    except KeyboardInterrupt:
        await bench.link.release_lock()  # it may have been interrupted as well
        raise


async def link_scope(bench: Bench) -> None:
    async with bench.client.link("Echo") as link:
        assert await link.echo(3) == 3


async def link_awaited(bench: Bench) -> None:
    link = await bench.client.link("Echo")
    await link.unlink()


async def identities(bench: Bench) -> None:
    assert "Echo" in await bench.client.identities(as_string=True)


async def admin_request(bench: Bench) -> None:
    with contextlib.suppress(AuthenticationError):
        await bench.client.admin_request("port")


class NobodyThere:
    """Prompts that decline to answer after a while."""

    async def username(self, manager: str) -> str:
        await trio.sleep(0)
        raise AuthenticationError("nobody is there")


async def client_scope(bench: Bench) -> None:
    async with connect(**bench.arguments) as client:
        await client.identities()


async def client_awaited(bench: Bench) -> None:
    client = await connect(**bench.arguments)
    await client.disconnect()


async def client_in_nursery(bench: Bench) -> None:
    async with connect(**bench.arguments, nursery=bench.nursery):
        pass


async def spawned(bench: Bench) -> None:
    async with bench.client.spawn("Other"):
        pass


async def linked_client(bench: Bench) -> None:
    async with LinkedClient("Echo", **bench.arguments) as client:
        assert await client.echo(1) == 1


async def service(bench: Bench) -> None:
    service = Echo()
    with trio.CancelScope() as scope:
        await service.run(name="Another", **bench.arguments, task_status=Cancelling(scope))


class Cancelling:
    """A Service that ends itself as soon as it runs."""

    def __init__(self, scope: trio.CancelScope) -> None:
        self._scope = scope

    def started(self, _: object = None) -> None:
        self._scope.cancel()


async def manager_scope(bench: Bench) -> None:
    async with open_manager(in_memory=True) as manager, connect(transport=manager.dial) as client:
        await client.identities()


OPERATIONS = [
    request,
    request_with_timeout,
    handle,
    cancelled_handle,
    notifications,
    lock_scope,
    lock_waited_for,
    lock_awaited,
    link_scope,
    link_awaited,
    identities,
    admin_request,
    client_scope,
    client_awaited,
    client_in_nursery,
    spawned,
    linked_client,
    service,
    manager_scope,
]


def interrupted(operation: Callable[[Bench], Awaitable[None]], number: int) -> tuple[Injector, list[str]]:
    """Inject Ctrl-C at a step of an operation; return the injector and the problems found."""
    wrong: list[str] = []
    raised = 0
    press = partial(signal.raise_signal, signal.SIGINT)
    injector = Injector(number, press)

    async def main() -> None:
        nonlocal raised, injector
        task = trio.lowlevel.current_task()

        def is_main() -> bool:
            try:
                return trio.lowlevel.current_task() is task
            except RuntimeError:
                return False

        injector = Injector(number, press, FILES, is_main)
        async with open_manager(in_memory=True) as manager, trio.open_nursery() as nursery:
            service = Echo()
            await nursery.start(partial(service.run, transport=manager.dial))
            async with connect(transport=manager.dial, prompts=NobodyThere()) as client:
                link = await client.link("Echo")
                try:
                    with injector:
                        await operation(Bench(manager, client, link, nursery))
                    await trio.sleep(0)  # raised here if the operation has ended
                except KeyboardInterrupt:
                    raised += 1
                await trio.sleep(0)
                with trio.fail_after(LIMIT):
                    for value in ("a", "b", "c"):
                        result = await link.echo(value)
                        if result != value:
                            wrong.append(f"echo({value!r}) returned {result!r}")
                    # A lock left behind would exclude others.
                    async with connect(transport=manager.dial) as other, other.link("Echo") as link:
                        await link.echo(1)
            nursery.cancel_scope.cancel()

    try:
        trio.run(main)
    except BaseException as error:
        wrong.append(f"trio.run() raised {error!r}")
    if injector.where is not None and raised != 1:
        wrong.append(f"KeyboardInterrupt arrived {raised} times")
    return injector, wrong


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")  # interrupted before its await
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
def test_ctrl_c_at_any_step_is_raised_once_and_leaves_everything_in_order(operation):
    errors = Errors()
    logger = logging.getLogger("msl_network_trio")
    logger.addHandler(errors)
    try:
        for number in numbers(lambda: interrupted(operation, 0)[0].steps, SAMPLE):
            errors.texts.clear()
            injector, wrong = interrupted(operation, number)
            assert not wrong, f"at step {number}, {injector.where}: {wrong}"
            assert not errors.texts, f"at step {number}, {injector.where}: {errors.texts}"
    finally:
        logger.removeHandler(errors)


# ---- during dialing ----


@pytest.mark.parametrize("form", ["scope", "await", "nursery", "LinkedClient"])
@pytest.mark.parametrize("tls", [False, True], ids=["TCP", "TLS"])
def test_ctrl_c_while_connecting_leaves_the_run_as_it_is(form: str, tls: bool):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        arguments: dict[str, Any] = {
            "host": "127.0.0.1",
            "port": silent.getsockname()[1],
            "disable_tls": not tls,
        }

        async def press() -> None:
            await wait_all_tasks_blocked(0.05)
            signal.raise_signal(signal.SIGINT)

        async def main() -> None:
            trio.lowlevel.spawn_system_task(press)
            if form == "scope":
                async with connect(**arguments):
                    pass
            elif form == "await":
                await connect(**arguments)
            elif form == "LinkedClient":
                await LinkedClient("Echo", **arguments)
            else:
                nursery = trio.lowlevel.current_root_task().child_nurseries[0]
                await connect(**arguments, nursery=nursery)

        with pytest.raises(KeyboardInterrupt):
            trio.run(main)


def test_ctrl_c_while_addresses_race_is_in_no_group(monkeypatch):
    async def race(*_: object, **__: object) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            await trio.sleep_forever()

    monkeypatch.setattr(trio, "open_tcp_stream", race)

    async def press() -> None:
        await wait_all_tasks_blocked()
        signal.raise_signal(signal.SIGINT)

    async def main() -> None:
        trio.lowlevel.spawn_system_task(press)
        await connect(host="127.0.0.1", disable_tls=True)

    with pytest.raises(KeyboardInterrupt):
        trio.run(main)
