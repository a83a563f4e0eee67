"""Tests of a part of the fault matrix of `tests.client.test_fault_matrix`, with real Managers of both kinds.

What is written in a cell means the same as there.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterator

import attrs
import pytest
import trio
import trio.testing

from msl_network_trio import Client, ConnectionLost, Link, ServiceLost, connect
from tests.client.faults import Caller, Person
from tests.client.test_fault_matrix import check_that_nothing_is_open, rows
from tests.interop.reference import Manager, Process, start_manager

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(sys.platform == "win32", reason="it sends signals that Windows does not have"),
]

TABLE = """
                     | cancelled | Service killed | Manager killed | Manager stopped
call                 | cancel    | gone?          | lost? x        | lost? x
reply                | -         | gone?          | lost? x        | -
large send           | cancel    | -              | lost? x        | lost? x
admin request, asked | cancel    | -              | -              | lost? x
notifications        | -         | -              | lost x         | -
"""
"""The combinations to run; `-` is left to the other matrix."""

USER = ("alice", "pw", True)

SECONDS = 10.0
"""Seconds within which every error must be raised, on a busy machine too."""


@attrs.define
class Scene:
    """A client of a real Manager with an open operation."""

    manager: Manager
    service: Process
    client: Client
    echo: Link
    """A Service that no fault kills."""
    link: Link
    """The Service that may be killed."""
    person: Person
    nursery: trio.Nursery
    caller: Caller = attrs.field(factory=Caller)

    async def wait_in(self, call: Callable[[], Awaitable[object]]) -> None:
        self.nursery.start_soon(self.caller.run, call)
        await trio.testing.wait_all_tasks_blocked()


@pytest.fixture(scope="module", params=["reference", "ours"])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Manager]:
    """A shared Manager, which a test may stop and resume, but not kill."""
    manager = start_manager(tmp_path_factory.mktemp("faults"), users=(USER,), ours=request.param == "ours")
    try:
        manager.start_service()
        yield manager
    finally:
        manager.end()


# ---- moments ----


async def call(scene: Scene) -> None:
    await scene.wait_in(lambda: scene.link.slow(60))
    assert await scene.echo.add(1, 2) == 3  # the Manager has read all earlier lines


async def reply(scene: Scene) -> None:
    handle = scene.link.slow(60, asynchronous=True)
    await scene.wait_in(lambda: handle)
    assert await scene.echo.add(1, 2) == 3


async def large_send(scene: Scene) -> None:
    scene.manager.process.pause()
    await scene.wait_in(lambda: scene.echo.size("x" * 20_000_000))
    assert scene.client._session.connection._queue.rest_size


async def admin_request_asked(scene: Scene) -> None:
    await scene.wait_in(lambda: scene.client.admin_request("port"))
    await scene.person.asked.wait()


async def notifications(scene: Scene) -> None:
    async def consume() -> None:
        async with scene.echo.notifications() as stream:
            async for _ in stream:
                pass

    await scene.wait_in(consume)


MOMENTS: dict[str, Callable[[Scene], Awaitable[None]]] = {
    "call": call,
    "reply": reply,
    "large send": large_send,
    "admin request, asked": admin_request_asked,
    "notifications": notifications,
}


# ---- faults ----


def cancelled(scene: Scene) -> None:
    scene.caller.scope.cancel()


def service_killed(scene: Scene) -> None:
    scene.service.kill()


def manager_killed(scene: Scene) -> None:
    scene.manager.process.kill()


def manager_stopped(scene: Scene) -> None:
    scene.manager.process.pause()
    scene.person.answers.set()  # no timeout while the user answers, but for the Manager's next line


FAULTS: dict[str, tuple[Callable[[Scene], None], dict[str, float]]] = {
    "cancelled": (cancelled, {}),
    "Service killed": (service_killed, {"probe_after": 0.5}),
    "Manager killed": (manager_killed, {}),
    "Manager stopped": (manager_stopped, {"probe_after": 0.2, "unresponsive_after": 0.5}),
}
"""The faults, and the arguments of connect() with which they are noticed soon."""

OUTCOMES = {"lost": ConnectionLost, "gone": ServiceLost}


@pytest.mark.parametrize(
    ("moment", "fault", "cell"),
    [pytest.param(*row, id=f"{row[0]}: {row[1]}") for row in rows(TABLE) if row[2] != "-"],
)
async def test_whatever_goes_wrong_the_caller_is_told(start, shared: Manager, moment, fault, cell: str):
    break_it, arguments = FAULTS[fault]
    manager, expected = shared, cell.removesuffix(" x")
    if fault == "Manager killed":
        manager = start(users=(USER,), ours=shared.ours)
        manager.start_service()
    victim = manager.services[0]
    if fault == "Service killed":
        victim = manager.start_service(f"Victim of {moment}")
    tasks = trio.lowlevel.current_statistics().tasks_living
    person = Person()
    try:
        async with (
            trio.open_nursery() as nursery,
            connect(**manager.arguments(prompts=person, **arguments)) as client,
        ):
            echo = await client.link("Echo")
            link = await client.link(f"Victim of {moment}") if fault == "Service killed" else echo
            scene = Scene(manager, victim, client, echo, link, person, nursery)
            with trio.fail_after(SECONDS):
                await MOMENTS[moment](scene)
            assert not scene.caller.done.is_set()
            break_it(scene)
            with trio.fail_after(SECONDS):
                await scene.caller.done.wait()
            check_what_the_caller_was_told(scene.caller, expected)
            if fault != "Manager killed":
                manager.process.resume()
            with trio.fail_after(SECONDS):
                if cell.endswith("x"):
                    await check_that_it_is_dead(scene)
                else:
                    await check_that_it_is_of_use(scene)
    finally:
        if fault != "Manager killed":
            manager.process.resume()
    await trio.testing.wait_all_tasks_blocked()
    assert trio.lowlevel.current_statistics().tasks_living == tasks


def check_what_the_caller_was_told(caller: Caller, expected: str) -> None:
    assert caller.cancelled == (expected == "cancel"), caller.error
    if expected == "cancel":
        assert caller.error is None
    else:
        assert type(caller.error) is OUTCOMES[expected.removesuffix("?")], repr(caller.error)
        assert caller.error.may_have_run == expected.endswith("?")


async def check_that_it_is_of_use(scene: Scene) -> None:
    client = scene.client
    assert client.is_connected()
    assert await scene.echo.size("x" * 1_000_000) == 1_000_000
    assert await scene.echo.add(1, 2) == 3
    await trio.testing.wait_all_tasks_blocked()
    if scene.link is not scene.echo:
        with pytest.raises(ServiceLost):
            await scene.link.add(1, 2)


async def check_that_it_is_dead(scene: Scene) -> None:
    client = scene.client
    await client._session.connection.closed.wait()
    assert not client.is_connected()
    for again in (scene.echo.add, client.identities):
        with pytest.raises(ConnectionLost) as lost:
            await again()
        assert lost.value.may_have_run is False
    check_that_nothing_is_open(client)
    if scene.manager.process.popen.poll() is None:
        async with client.spawn() as other, other.link("Echo") as link:
            assert await link.add(1, 2) == 3
