"""Tests of our Services at an unmodified Manager of msl-network 1.0.0, with both clients."""

from __future__ import annotations

import functools
import json
import math
import signal
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from msl_network_trio import (
    AuthenticationError,
    ConnectError,
    ConnectionLost,
    Link,
    LinkedClient,
    ManagerError,
    RemoteError,
    Service,
    connect,
)
from msl_network_trio.examples.basic_math import BasicMath
from msl_network_trio.examples.echo import Echo
from msl_network_trio.examples.heartbeat import Heartbeat
from msl_network_trio.examples.my_array import MyArray
from tests.interop.our_services import Ours
from tests.interop.reference import Manager, Process, start_manager
from tests.patience import PATIENCE

pytestmark = pytest.mark.interop

_OURS = Path(__file__).with_name("our_services.py")

_REFERENCE = """
import json, queue, sys, types
from msl.network import connect
client = connect(**json.loads(sys.argv[1]))
def attempt(function, *args, **kwargs):
    try:
        return function(*args, **kwargs)
    except Exception as error:
        return [type(error).__name__, str(error)]
def run():
{code}
print("=>" + json.dumps(run()))
client.disconnect()
"""


def start_ours(manager: Manager, start: dict[str, Any] | None = None, **kwargs: Any) -> Process:
    """Start our Service in a process, and wait until the Manager has accepted it."""
    arguments = [str(_OURS), json.dumps(manager.arguments(**(start or {}))), json.dumps(kwargs)]
    process = Process.start(arguments, manager.home, "is connected to Manager")
    manager.services.append(process)
    return process


def reference(manager: Manager, code: str) -> Any:
    """Run code in the body of a function in a process that has a connected client of msl-network."""
    program = _REFERENCE.format(code=textwrap.indent(textwrap.dedent(code), "    "))
    arguments = {**manager.service_arguments}
    if manager.tls:
        arguments["cert_file"] = str(manager.certificate)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, json.dumps(arguments)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    answers = [line for line in done.stdout.splitlines() if line.startswith("=>")]
    assert answers, f"{done.stdout}\n{done.stderr}"
    return json.loads(answers[0][2:])


@pytest.fixture(scope="module", params=[pytest.param("tcp", marks=pytest.mark.slow), "tls"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Manager]:
    """A Manager of the reference with our Service, as processes; shared, so no test may stop them."""
    manager = start_manager(tmp_path_factory.mktemp(f"served-{request.param}"), tls=request.param == "tls")
    try:
        start_ours(manager)
        yield manager
    finally:
        manager.end()


@pytest.fixture
async def ours(served: Manager, nursery: trio.Nursery):
    client = await connect(**served.arguments(nursery=nursery))
    yield await client.link("Ours")
    await client.disconnect()


@attrs.define
class Run:
    """Our Service in this process."""

    service: Service
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    ended: trio.Event = attrs.field(factory=trio.Event)
    error: Exception | None = None

    async def run(self, *, task_status: trio.TaskStatus[None], **kwargs: Any) -> None:
        try:
            with self.scope:
                await self.service.run(**kwargs, task_status=task_status)
        except Exception as error:
            self.error = error
        finally:
            self.ended.set()


@asynccontextmanager
async def run(manager: Manager, service: Service, **kwargs: Any):
    async with trio.open_nursery() as nursery:
        one = Run(service)
        await nursery.start(functools.partial(one.run, **manager.arguments(**kwargs)))
        try:
            yield one
        finally:
            one.scope.cancel()


# ---- calls, by our client ----


def same(a: object, b: object) -> bool:
    return repr(a) == repr(b)


@pytest.mark.parametrize("method", ["same", "async_same"])
@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        2**63,
        -(10**300),
        -0.0,
        5e-324,
        math.nan,
        [math.inf, None, -math.inf],
        'é\u2028\x00"\\\r\n',
        {"a": [1]},
    ],
    ids=repr,
)
async def test_values_come_back_exactly(ours: Link, method: str, value: object):
    assert same(await ours.request(method, (value,)), value)


async def test_methods_properties_and_values(ours: Link):
    assert await ours.add(1, 2) == await ours.async_add(1, 2) == 3
    assert await ours.echo(1, x=2) == [[1], {"x": 2}]
    assert await ours.const() == 42
    assert await ours.prop() == "p"
    assert await ours.temperature() == {"kelvin": 273.15}
    assert await ours.set_logging_level("silly") is False


@pytest.mark.parametrize("method", ["fail", "async_fail"])
async def test_an_exception_arrives_with_its_type_and_traceback(ours: Link, method: str):
    with pytest.raises(RemoteError) as caught:
        await ours.request(method, ("two\nlines",))
    assert caught.value.type_name == "ValueError"
    assert caught.value.message == "ValueError: two\nlines"
    assert caught.value.traceback_lines[0] == "Traceback (most recent call last):"
    frames = [line for line in caught.value.traceback_lines if line.startswith("  File")]
    assert len(frames) == 1
    assert frames[0].endswith(f"in {method}")


@pytest.mark.parametrize(
    ("method", "type_name"),
    [
        ("exit", "SystemExit"),
        ("unserializable", "TypeError"),
        ("nope", "AttributeError"),
        ("_tick", "PermissionError"),
        ("__init__", "PermissionError"),
        ("start", "PermissionError"),
        ("add", "TypeError"),
    ],
)
async def test_whatever_goes_wrong_is_answered(ours: Link, method: str, type_name: str):
    with pytest.raises(RemoteError) as caught:
        await ours.request(method)
    assert caught.value.type_name == type_name


@pytest.mark.parametrize("method", ["text", "async_text"])
async def test_20_mb_there_and_back(ours: Link, method: str):
    assert len(await ours.request(method, (20_000_000,))) == 20_000_000
    assert await ours.size("é" * 10_000_000) == 10_000_000


async def test_many_requests_at_a_time(ours: Link):
    replies = [(ours.add, ours.async_add)[number % 2](number, 1, asynchronous=True) for number in range(500)]
    assert [await reply for reply in replies] == list(range(1, 501))


async def test_answers_of_all_sizes_from_threads_and_tasks_arrive_whole(served: Manager):
    """Threads and the Trio task of the Service take turns in sending, over one TLS connection for example."""
    sizes = [1, 200, 20_000, 140_000, 900_000, 3]

    async def ask(number: int) -> None:
        async with connect(**served.arguments()) as client, client.link("Ours") as link:
            for turn in range(40):
                size = sizes[(number + turn) % len(sizes)] + number
                text = await (link.text, link.async_text)[turn % 2](size)
                assert text == "x" * size

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(ask, number)


async def test_a_method_knows_who_asks(ours: Link):
    assert await ours.who() == await ours.async_who()
    assert (await ours.who()).startswith("Client[")


@pytest.mark.parametrize("method", ["notify", "notify_threadsafe", "async_notify"])
async def test_notifications_of_methods_come_before_the_answer(ours: Link, method: str):
    async with ours.notifications() as notifications:
        await ours.request(method, (1, [2]), {"a": None})
        notification = await anext(aiter(notifications))
        assert (notification.args, notification.kwargs) == ([1, [2]], {"a": None})
        assert notification.service == "Ours"


async def test_notifications_of_a_task_in_the_background(ours: Link):
    async with ours.notifications() as notifications:
        await ours.tick(3)
        received = aiter(notifications)
        assert [(await anext(received)).args for _ in range(3)] == [[0], [1], [2]]


# ---- calls, by the client of msl-network ----


def test_the_client_of_msl_network_gets_the_same(served: Manager):
    answers = reference(
        served,
        """
        link = client.link("Ours")
        return {
            "repr": repr(link),
            "attributes": link.service_attributes,
            "add": [link.add(1, 2), link.async_add(1, 2)],
            "values": [link.const(), link.prop(), link.temperature(), link.echo(1, x=2)],
            "exact": [link.same(10**300), link.async_same("é\\u2028"), repr(link.same([float("nan"), None]))],
            "fail": attempt(link.fail, "bad"),
            "async_fail": attempt(link.async_fail, "bad"),
            "exit": attempt(link.exit),
            "unserializable": attempt(link.unserializable),
            "private": attempt(getattr(link, "_private")),
            "nope": attempt(link.nope),
            "big": [len(link.text(20_000_000)), len(link.async_text(20_000_000)), link.size("x" * 20_000_000)],
            "futures": sum(f.result() for f in [link.async_add(n, 1, asynchronous=True) for n in range(200)]),
        }
        """,
    )
    assert answers["repr"].startswith("<Link with Ours[")
    assert answers["attributes"]["const"] == 42
    assert answers["attributes"]["async_add"] == "(x, y)"
    assert answers["attributes"]["set_logging_level"].startswith("(level: ")
    assert "_tick" not in answers["attributes"]
    assert answers["add"] == [3, 3]
    assert answers["values"] == [42, "p", {"kelvin": 273.15}, [[1], {"x": 2}]]
    assert answers["exact"] == [10**300, "é\u2028", "[nan, None]"]
    for name in ("fail", "async_fail"):
        kind, text = answers[name]
        assert kind == "RuntimeError"
        assert text.endswith("ValueError: bad")
        assert f"in {name}" in text
    assert "SystemExit" in answers["exit"][1]
    assert "not JSON serializable" in answers["unserializable"][1]
    assert "PermissionError: Cannot request a private attribute" in answers["private"][1]
    assert "AttributeError: 'Ours' object has no attribute 'nope'" in answers["nope"][1]
    assert answers["big"] == [20_000_000] * 3
    assert answers["futures"] == sum(range(1, 201))


def test_the_client_of_msl_network_is_notified(served: Manager):
    received = reference(
        served,
        """
        link = client.link("Ours")
        news = queue.Queue()
        link.notification_handler = lambda *args, **kwargs: news.put([args, kwargs])
        link.notify(1, a=2)
        link.notify_threadsafe(3)
        link.async_notify(4)
        link.tick(2)
        return [news.get(timeout=60) for _ in range(5)]
        """,
    )
    assert received == [[[1], {"a": 2}], [[3], {}], [[4], {}], [[0], {}], [[1], {}]]


@pytest.mark.parametrize("tls", [False, True])
def test_the_client_of_msl_network_can_shut_it_down(start, tls: bool):
    manager: Manager = start(tls=tls)
    process = start_ours(manager)
    answers = reference(
        manager,
        """
        link = client.link("Ours")
        answer = link.shutdown_service(1, 2)
        while "Ours" in client.identities()["services"]:
            pass
        return answer
        """,
    )
    assert answers == ["bye", 1, 2]
    process.wait_for("shutdown_handler was called")
    process.wait_for("start has returned")
    assert process.popen.wait(PATIENCE) == 0


# ---- being known to the Manager ----


@pytest.mark.parametrize("tls", [False, True])
async def test_start_returns_when_clients_can_link(start, tls: bool):
    manager: Manager = start(tls=tls)
    async with connect(**manager.arguments()) as client:
        for _ in range(5):
            async with run(manager, Echo()) as running:
                async with client.link("Echo") as link:
                    assert await link.echo(1) == [[1], {}]
                services = (await client.identities())["services"]
                assert services["Echo"]["attributes"] == running.service.identity()["attributes"]
                assert str(running.service) == f"Echo[{services['Echo']['address']}]"
                assert services["Echo"]["address"].endswith(f":{running.service.port}")
            while "Echo" in (await client.identities())["services"]:
                pass


async def test_a_name_that_is_taken_is_a_rejection(start):
    manager: Manager = start()
    async with run(manager, Echo()) as first:
        text = "NameError: A 'Echo' service is already running on the Manager"
        with pytest.raises(AuthenticationError, match=text):
            await Echo().run(**manager.arguments())
        assert not first.ended.is_set()
        async with (
            run(manager, Echo(), name="Echo 2"),
            connect(**manager.arguments()) as client,
            client.link("Echo 2") as link,
        ):
            assert await link.echo(2) == [[2], {}]


async def test_a_wrong_password_is_a_rejection(start):
    manager: Manager = start(auth_password="se cret")
    with pytest.raises(AuthenticationError, match="Wrong Manager password"):
        await Echo().run(**manager.arguments(password_manager="no"))
    async with run(manager, Echo(), password_manager="se cret") as running:
        assert str(running.service).startswith("Echo[")


async def test_a_manager_with_logins(start_either):
    manager: Manager = start_either(auth_login=True, users=(("alice", "pw-a", False),))
    with pytest.raises(AuthenticationError, match="Unregistered user"):
        await Echo().run(**manager.arguments(username="bob", password="x"))
    async with run(manager, Echo(), username="alice", password="pw-a"):
        pass


async def test_the_wrong_kind_of_connection_says_what_to_do(start):
    manager: Manager = start()
    with pytest.raises(ConnectError, match="Try setting disable_tls=True"):
        await Echo().run(host="localhost", port=manager.port, auto_save=True)


async def test_max_clients_holds(start):
    manager: Manager = start()
    async with (
        run(manager, Echo(name="One", max_clients=1)),
        connect(**manager.arguments()) as first,
        connect(**manager.arguments()) as second,
        first.link("One"),
    ):
        with pytest.raises(ManagerError, match="maximum number of Clients"):
            await second.link("One")


async def test_ignored_attributes_are_not_told_of_and_work(start):
    manager: Manager = start()
    service = Ours(name="Shy", ignore_attributes=["add", "const"])
    async with (
        run(manager, service),
        connect(**manager.arguments()) as client,
        client.link("Shy") as link,
    ):
        assert not {"add", "const"} & link.service_attributes.keys()
        assert await link.add(1, 2) == 3
        assert await link.const() == 42


# ---- the ends ----


async def test_a_client_can_shut_it_down(start):
    manager: Manager = start()
    async with run(manager, Ours()) as running, connect(**manager.arguments()) as client:
        link = await client.link("Ours")
        assert await link.shutdown_service(1) == ["bye", 1]
        await running.ended.wait()
        assert running.error is None
        assert "Ours" not in (await client.identities())["services"]


async def test_when_cancelled_its_clients_are_answered(start):
    manager: Manager = start()
    async with run(manager, Ours()) as running, connect(**manager.arguments()) as client:
        link = await client.link("Ours")
        replies = [link.async_hang(asynchronous=True) for _ in range(5)]
        await link.add(1, 2)
        running.scope.cancel()
        for reply in replies:
            with pytest.raises(RemoteError, match="has ended before 'async_hang' did"):
                await reply
        await running.ended.wait()
        assert running.error is None


@pytest.mark.parametrize("tls", [False, True])
async def test_a_manager_that_is_killed_is_a_lost_connection(start, tls: bool):
    manager: Manager = start(tls=tls)
    async with run(manager, Echo()) as running:
        manager.process.kill()
        await running.ended.wait()
    assert isinstance(running.error, ConnectionLost)


def test_start_raises_when_the_manager_is_killed(start):
    manager: Manager = start()
    process = start_ours(manager, {"reconnect": False})
    manager.process.kill()
    process.wait_for("shutdown_handler was called")
    assert process.popen.wait(PATIENCE) == 1
    assert "ConnectionLost: " in process.log()
    assert "start has returned" not in process.log()


posix_only = pytest.mark.skipif(sys.platform == "win32", reason="a process cannot be sent Ctrl-C alone there")


@posix_only
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_ends_it(start, name):
    manager: Manager = start()
    process = start_ours(manager)
    process.popen.send_signal(getattr(signal, name))
    process.wait_for("shutdown_handler was called")
    process.wait_for("start has returned")
    assert process.popen.wait(PATIENCE) == 0
    assert "Traceback" not in process.log()
    manager.process.wait_for("Ours[")


@posix_only
async def test_a_hung_method_does_not_keep_the_program_from_ending(start):
    manager: Manager = start()
    process = await trio.to_thread.run_sync(start_ours, manager)
    async with connect(**manager.arguments()) as client:
        link = await client.link("Ours")
        reply = link.hang(asynchronous=True)
        await trio.to_thread.run_sync(process.wait_for, "hanging")
        process.popen.send_signal(signal.SIGINT)
        with pytest.raises(RemoteError, match="has ended before 'hang' did"):
            await reply
    await trio.to_thread.run_sync(process.wait_for, "'hang' is still running in its thread")
    assert await trio.to_thread.run_sync(process.popen.wait, PATIENCE) == 0


@posix_only
async def test_a_second_ctrl_c_does_not_wait_for_a_hung_method(start):
    manager: Manager = start()
    process = await trio.to_thread.run_sync(start_ours, manager)
    async with connect(**manager.arguments()) as client:
        link = await client.link("Ours")
        link.hang(asynchronous=True)
        await trio.to_thread.run_sync(process.wait_for, "hanging")
        process.popen.send_signal(signal.SIGINT)
        with trio.fail_after(PATIENCE):
            while True:
                try:  # requests are refused from now on
                    await link.add(1, 2)
                except RemoteError:
                    break
        process.popen.send_signal(signal.SIGINT)
        status = await trio.to_thread.run_sync(process.popen.wait, PATIENCE)
    assert status == -signal.SIGINT
    assert "is still running" not in process.log()


# ---- the examples ----


@pytest.mark.parametrize("tls", [pytest.param(False, marks=pytest.mark.slow), True])
async def test_the_examples_run_as_modules(start, tls: bool):
    manager: Manager = start(tls=tls)
    for name, more in (
        ("echo", ["--name", "E"]),
        ("basic_math", ["--pace", "0"]),
        ("my_array", []),
        ("heartbeat", []),
    ):
        await trio.to_thread.run_sync(manager.start_example_of_ours, name, *more)
    async with connect(**manager.arguments()) as client:
        assert await (await client.link("E")).echo(1) == [[1], {}]
        math_link = await client.link("BasicMath")
        assert await math_link.power(2, 5) == 32
        assert await math_link.pi() == math.pi
        assert await (await client.link("MyArray")).linspace(0, 1, 3) == [0, 0.5, 1]
        heart = await client.link("Heartbeat")
        async with heart.notifications() as beats:
            await heart.set_heart_rate(50)
            await heart.reset()
            received = aiter(beats)
            numbers = [(await anext(received)).args[0] for _ in range(4)]
        assert 0 in numbers
        await heart.kill()


def test_a_module_that_cannot_connect_says_why_in_a_line(start):
    manager: Manager = start()
    arguments = ["--port", str(manager.port), "--auto-save", "--timeout", "2"]
    done = subprocess.run(
        [sys.executable, "-m", "msl_network_trio.examples.echo", *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 1
    assert "Try setting disable_tls=True" in done.stderr
    assert "Traceback" not in done.stderr


# ---- the same class on both ----


def test_the_identity_is_what_msl_network_makes_of_the_same_class():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from msl.network import Service as ReferenceService

    def described(base: Any, call: str) -> dict[str, Any]:
        class Thing(base):
            euler = 2.7
            unsendable = frozenset({1})

            def add(self, x: int, y: int = 2, *args: str, z=None, **kwargs) -> int:
                return x

            @staticmethod
            def static(x):
                return x

            @property
            def prop(self):
                return [1, None]

            @property
            def broken(self):
                raise RuntimeError("no")

            @classmethod
            def of_class(cls):
                pass

            async def wait(self):
                pass

            def shutdown_service(self):
                pass

            def _private(self):
                pass

        thing = Thing(max_clients=2, ignore_attributes="of_class")
        return getattr(thing, call)()

    assert described(Service, "identity") == described(ReferenceService, "_generate_identity")


async def test_linked_clients_work_with_them(start):
    manager: Manager = start()
    async with (
        run(manager, BasicMath(pace=0)),
        LinkedClient("BasicMath", **manager.arguments()) as math_client,
    ):
        assert await math_client.add(1, 2) == 3
    async with run(manager, MyArray()), run(manager, Heartbeat()), connect(**manager.arguments()) as client:
        assert {"MyArray", "Heartbeat"} <= (await client.identities())["services"].keys()
