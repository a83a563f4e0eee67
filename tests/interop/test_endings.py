"""Tests of Services of msl-network 1.0.0 and of both Managers that die, stall, shut down and restart."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio
import trio.testing

from msl_network_trio import (
    Client,
    ConnectError,
    ConnectionLost,
    LinkBroken,
    ReplyTimeout,
    ServiceLost,
    connect,
)
from msl_network_trio.constants import SHUTDOWN_MANAGER
from tests.client.test_requests import Outcome
from tests.interop.reference import Manager
from tests.patience import PATIENCE

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(sys.platform == "win32", reason="it sends signals that Windows does not have"),
]


async def until_gone(client: Client, service: str) -> None:
    """Wait until the Manager has noticed that a Service is gone, which it does not announce."""
    with trio.fail_after(PATIENCE):
        while service in (await client.identities())["services"]:
            await trio.sleep(0.01)


@pytest.fixture(params=[pytest.param(False, marks=pytest.mark.slow), True], ids=["tcp", "tls"])
def tls(request: pytest.FixtureRequest) -> bool:
    return request.param


# ---- a Service ----


async def test_a_service_that_is_killed_and_comes_back(start_either, tls: bool):
    manager: Manager = start_either(tls=tls)
    service = manager.start_service()
    async with connect(**manager.arguments()) as client:
        link = await client.link("Echo")
        running, limited = Outcome(), Outcome()

        async def slow_with_timeout() -> object:
            return await link.slow(30, timeout=0.5)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(running.capture, link.slow, 30)
            nursery.start_soon(limited.capture, slow_with_timeout)
            await trio.testing.wait_all_tasks_blocked()
            assert await link.add(1, 2) == 3  # both calls of slow() have been forwarded
            service.kill()
            await limited.done.wait()
            # Our Manager reports it at once, that of the reference never.
            assert isinstance(limited.error, ServiceLost if manager.ours else ReplyTimeout)
            assert limited.error.may_have_run
            await until_gone(client, "Echo")
            with pytest.raises(ServiceLost, match="'Echo' Service is not connected") as lost:
                await link.add(1, 2)
            assert lost.value.may_have_run is False
        # The open call fails as soon as the Manager refuses another one.
        assert isinstance(running.error, ServiceLost)
        assert running.error.may_have_run is True
        manager.start_service()
        with trio.fail_after(PATIENCE):
            while "Echo" not in (await client.identities())["services"]:
                await trio.sleep(0.01)
        assert await link.add(1, 2) == 3  # an old link reaches the new Service of that name
        assert await (await client.link("Echo")).add(3, 4) == 7


async def test_a_service_that_another_client_shuts_down(start_either):
    manager: Manager = start_either()
    manager.start_service()
    async with connect(**manager.arguments()) as client, client.spawn("Other") as other:
        link = await client.link("Echo")
        theirs = await other.link("Echo")
        assert await theirs.shutdown_service("now") == ["bye", "now"]
        assert repr(theirs).startswith("<Un-Linked from Echo[")
        with pytest.raises(LinkBroken):
            await theirs.add(1, 2)
        await until_gone(client, "Echo")
        with pytest.raises(ServiceLost) as caught:
            await link.add(1, 2)
        assert caught.value.may_have_run is False
        await link.unlink()


async def test_a_service_that_ends_itself_in_a_call_costs_that_call_and_no_more(start_either):
    manager: Manager = start_either()
    manager.start_service()
    async with connect(**manager.arguments()) as client:
        link = await client.link("Echo")
        with pytest.raises(ServiceLost if manager.ours else ReplyTimeout):
            await link.die(timeout=5 if manager.ours else 0.5)
        await until_gone(client, "Echo")
        assert client.is_connected()


async def test_a_service_killed_under_a_pipelining_client_leaves_no_call_hanging(start_either):
    manager: Manager = start_either()
    service = manager.start_service()
    async with connect(**manager.arguments()) as client:
        link = await client.link("Echo")
        calls = [Outcome() for _ in range(500)]
        async with trio.open_nursery() as nursery:
            for number, call in enumerate(calls):
                nursery.start_soon(call.capture, link.add, number, 0)
            await calls[10].done.wait()
            service.kill()
            # Open calls fail when the next call is refused, or
            # when the Manager has closed our connection with the Service's, as 1.0.0 may do.
            with trio.fail_after(PATIENCE):
                while not all(call.done.is_set() for call in calls):
                    probe = Outcome()
                    await probe.capture(link.add, 1, 1)
                    await trio.sleep(0.01)
        for number, call in enumerate(calls):
            assert call.value == number or isinstance(call.error, ServiceLost | ConnectionLost)
    async with connect(**manager.arguments()) as client:
        assert client.is_connected()


# ---- a Manager ----


async def test_a_manager_that_is_killed(start_either, tls: bool):
    manager: Manager = start_either(tls=tls)
    manager.start_service()
    async with connect(**manager.arguments()) as client:
        link = await client.link("Echo")
        calls = [Outcome() for _ in range(5)]
        async with trio.open_nursery() as nursery:
            for call in calls:
                nursery.start_soon(call.capture, link.slow, 30)
            await trio.testing.wait_all_tasks_blocked()
            assert await link.add(1, 2) == 3
            manager.process.kill()
        assert all(isinstance(call.error, ConnectionLost) and call.error.may_have_run for call in calls)
        assert not client.is_connected()
        with pytest.raises(ConnectionLost, match=r"Disconnected from Manager\[localhost:\d+\], cannot send"):
            await link.add(1, 2)
    with pytest.raises(ConnectError, match="Make sure a Manager is running on this computer"):
        await connect(**manager.arguments())


async def test_a_manager_that_is_stopped_and_goes_on(start_either, tls: bool):
    manager: Manager = start_either(tls=tls)
    manager.start_service()
    async with connect(**manager.arguments()) as client:
        link = await client.link("Echo")
        manager.process.pause()
        with pytest.raises(ReplyTimeout):
            await link.add(1, 2, timeout=0.2)
        large = Outcome()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(large.capture, link.size, "x" * 20_000_000)
            await trio.testing.wait_all_tasks_blocked(0.05)
            large.scope.cancel()  # in the middle of its line
            await large.done.wait()
            with pytest.raises(ReplyTimeout) as caught:
                await link.add(3, 4, timeout=0.1)
            assert caught.value.may_have_run is False  # it was queued, and withdrawn
            manager.process.resume()
            assert await link.add(5, 6) == 11


async def test_connecting_to_a_stopped_manager_is_a_timeout(start_either, tls: bool):
    manager: Manager = start_either(tls=tls)
    manager.process.pause()
    with pytest.raises(ConnectError, match="within 0.3 seconds"):
        await connect(**manager.arguments(timeout=0.3))


async def test_a_stopped_manager_does_not_hold_up_the_end_of_a_scope(start_either):
    manager: Manager = start_either()
    with trio.fail_after(PATIENCE):
        async with connect(**manager.arguments()):
            manager.process.pause()


async def test_an_administrator_shuts_the_manager_down(start_either):
    manager: Manager = start_either(users=(("alice", "pw", True),))
    async with connect(**manager.arguments()) as other:
        async with connect(**manager.arguments(username="alice", password="pw")) as client:
            assert await client.admin_request(SHUTDOWN_MANAGER) is None
            assert not client.is_connected()
        with trio.fail_after(PATIENCE):
            await other._session.connection.closed.wait()
        with pytest.raises(ConnectionLost):
            await other.identities()


async def test_disconnecting_takes_the_client_out_of_the_registry(start_either):
    manager: Manager = start_either()
    async with connect(**manager.arguments()) as watcher:
        client = await connect(**manager.arguments(name="Leaving"))
        await client.disconnect()
        clients = (await watcher.identities())["clients"].values()
        assert [client["name"] for client in clients] == ["Client"]


# ---- the end of the program ----

PROGRAM = """
import json, signal, sys, trio
from msl_network_trio import connect

# The tests may have been started with SIGINT ignored, as by shells in the background.
signal.signal(signal.SIGINT, signal.default_int_handler)

arguments, form = json.loads(sys.argv[1]), sys.argv[2]

async def work(client):
    link = await client.link("Echo")
    assert await link.add(1, 2) == 3
    print("ready", flush=True)
    if sys.argv[3] == "wait":
        await link.slow(60)

async def main():
    if form == "scope":
        async with connect(**arguments) as client:
            await work(client)
    elif form == "await":
        await work(await connect(**arguments))
    else:
        async with trio.open_nursery() as nursery:
            await work(await connect(nursery=nursery, **arguments))
            nursery.cancel_scope.cancel()

trio.run(main)
"""


@contextmanager
def running_program(manager: Manager, form: str, then: str) -> Iterator[subprocess.Popen[str]]:
    program = subprocess.Popen(
        [
            sys.executable,
            "-X",
            "dev",
            "-W",
            "error",
            "-c",
            PROGRAM,
            json.dumps(manager.arguments()),
            form,
            then,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    )
    assert program.stdout is not None
    try:
        assert program.stdout.readline() == "ready\n"
        yield program
    finally:
        program.kill()
        program.communicate()


@pytest.mark.parametrize(
    "form",
    ["scope", pytest.param("await", marks=pytest.mark.slow), pytest.param("nursery", marks=pytest.mark.slow)],
)
def test_ctrl_c_while_waiting_for_a_reply_ends_the_program_at_once(start_either, form: str):
    manager: Manager = start_either()
    manager.start_service()
    with running_program(manager, form, "wait") as program:
        program.send_signal(signal.SIGINT)
        _, errors = program.communicate(timeout=PATIENCE)
    assert "KeyboardInterrupt" in errors
    # A nursery of the program wraps it into a group, for which Python's exit code differs.
    assert program.returncode == (1 if form == "nursery" else -signal.SIGINT)
    assert "ResourceWarning" not in errors
    assert "never awaited" not in errors
    manager.process.wait_for("connection closed")


@pytest.mark.parametrize(
    "form",
    ["scope", pytest.param("await", marks=pytest.mark.slow), pytest.param("nursery", marks=pytest.mark.slow)],
)
def test_a_program_that_never_disconnects_ends_with_a_goodbye_and_without_a_word(start_either, form: str):
    manager: Manager = start_either()
    manager.start_service()
    with running_program(manager, form, "end") as program:
        output, errors = program.communicate(timeout=PATIENCE)
    assert (output, errors, program.returncode) == ("", "", 0)
    manager.process.wait_for("has been removed from the registry")
