"""The client and the Services of msl-network 1.0.0, unmodified, at our Manager."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.interop.reference import Manager, _environment, start_manager

pytestmark = pytest.mark.interop

ANSWER = 20.0
"""How many seconds the client may take for one line; a call that would wait for ever fails then."""


class RemoteFailure(Exception):
    """What the reference's client raised."""


class ReferenceClient:
    """A process with the reference's client in it."""

    def __init__(self, manager: Manager, **more: Any) -> None:
        arguments = {**manager.arguments(), **more}
        self.popen = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("reference_client.py")), json.dumps(arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=_environment(manager.home),
        )

    def __call__(self, code: str) -> Any:
        assert self.popen.stdin is not None
        assert self.popen.stdout is not None
        self.popen.stdin.write(json.dumps(code) + "\n")
        self.popen.stdin.flush()
        timer = threading.Timer(ANSWER, self.popen.kill)
        timer.start()
        try:
            line = self.popen.stdout.readline()
        finally:
            timer.cancel()
        assert line, f"no answer to {code}"
        answer = json.loads(line)
        if "error" in answer:
            raise RemoteFailure(f"{answer['error']}: {answer['text']}")
        return answer["value"]

    def end(self) -> None:
        self.popen.kill()
        self.popen.wait(10)
        for pipe in (self.popen.stdin, self.popen.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except BrokenPipeError:
                pass


@pytest.fixture(scope="module", params=["tcp", "tls"])
def manager(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Manager]:
    tls = request.param == "tls"
    manager = start_manager(tmp_path_factory.mktemp("peers"), tls=tls, ours=True, auth_password="se cret")
    try:
        manager.start_service("Echo")
        manager.start_service("One", max_clients=1)
        manager.start_example("Heartbeat")
        yield manager
    finally:
        manager.end()


@pytest.fixture
def client(manager: Manager) -> Iterator[ReferenceClient]:
    client = ReferenceClient(manager, password_manager="se cret")
    client("cxn = connect(**arguments)")
    client("echo = cxn.link('Echo')")
    yield client
    client.end()


def test_the_identity(client, manager):
    identity = client("cxn.identities()")
    assert identity["port"] == manager.port
    assert set(identity["services"]) >= {"Echo", "One", "Heartbeat"}
    assert client("str(cxn)") in identity["clients"]
    assert "Echo[" in client("cxn.identities(as_string=True)")


@pytest.mark.parametrize(
    ("code", "value"),
    [
        ("echo.add(1, 2)", 3),
        ("echo.const()", 42),
        ("echo.prop()", "p"),
        ("echo.echo(1, x=[None, True, 'é\\u2028'])", [[1], {"x": [None, True, "é\u2028"]}]),
        ("repr(echo.nan())", "[nan, inf, -inf]"),
        ("echo.same(2**200)", 2**200),
        ("echo.temperature()", {"kelvin": 273.15}),
        ("len(echo.same('x' * 20_000_000))", 20_000_000),
        ("[f.result() for f in [echo.add(n, 1, asynchronous=True) for n in range(200)]][-1]", 200),
    ],
)
def test_requests(client, code, value):
    assert client(code) == value


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("echo.fail('bad')", "RuntimeError: .*ValueError: bad"),
        ("echo.unserializable()", "TypeError: Object of type set is not JSON serializable"),
        ("cxn._new_request('Echo', '_x')", "PermissionError: Cannot request a private attribute"),
        ("echo.nope()", "AttributeError"),
        ("cxn._new_request('Gone', 'x', timeout=10)", "the 'Gone' Service is not connected to Manager"),
        ("cxn.link('Nope')", "the 'Nope' service does not exist"),
        ("cxn._new_request('Manager', 'link', timeout=10)", "the name of a service"),
        ("cxn._new_request('Manager', 'unlink', 'One', timeout=10)", "it was not linked with 'One'"),
        ("cxn._new_request('Manager', 'acquire_lock', 'One', shared=True, timeout=10)", "it is not linked"),
        ("cxn._new_request('Manager', 'acquire_lock', 'Nope', shared=True, timeout=10)", "does not exist"),
        ("cxn._new_request('Manager', 'release_lock', 'Nope', timeout=10)", "does not exist"),
    ],
)
def test_errors_reach_the_caller_and_the_connection_goes_on(client, code, text):
    with pytest.raises(RemoteFailure, match=f"(?s){text}"):
        client(code)
    assert client("echo.add(1, 2)") == 3


def test_links_and_locks_of_two_clients(client):
    client("other = cxn.spawn('Other')")
    client("one = cxn.link('One')")
    with pytest.raises(RemoteFailure, match="maximum number of Clients are already linked with 'One'"):
        client("other.link('One')")
    assert client("one.acquire_lock()") == [client("str(cxn)")]
    assert client("cxn.link('One').service_name") == "One"
    assert client("one.release_lock()") == []
    assert client("one.unlink()") is None
    client("mine = other.link('One')")
    client("both = other.link('Echo')")
    with pytest.raises(RemoteFailure, match="there are 2 links with the 'Echo' service"):
        client("both.acquire_lock()")
    assert len(client("both.acquire_lock(shared=True)")) == 2
    client("third = cxn.spawn('Third')")
    with pytest.raises(RemoteFailure, match="'Echo' service is locked"):
        client("third.link('Echo')")
    client("other.disconnect()")
    client("third.link('Echo')")  # who vanishes frees its locks
    client("third.link('One')")


def test_notifications_come_in_order_and_before_the_reply(client):
    client("seen = []")
    client("echo.notification_handler = lambda *args, **kwargs: seen.append([args, kwargs])")
    assert client("echo.notify(1, a=2)") == "notified"
    assert client("seen") == [[[1], {"a": 2}]]
    client("echo.notify_many(100)")
    assert client("[args[0] for args, _ in seen[1:]]") == list(range(100))


def test_the_example_services_work(client):
    client("beats, beaten = [], threading.Event()")
    client("heartbeat = cxn.link('Heartbeat')")
    client("heartbeat.notification_handler = lambda n: (beats.append(n), len(beats) == 3 and beaten.set())")
    client("heartbeat.set_heart_rate(20)")
    assert client("beaten.wait(15)") is True
    assert client("beats[1] - beats[0]") == 1


def test_a_linked_client(client):
    client("linked = LinkedClient('Echo', **arguments)")
    assert client("linked.add(1, 2)") == 3
    client("linked.disconnect()")


def test_a_wrong_password_is_told(manager):
    client = ReferenceClient(manager, password_manager="guess")
    try:
        with pytest.raises(RemoteFailure, match="ValueError: Wrong Manager password"):
            client("connect(**arguments)")
    finally:
        client.end()


def test_a_service_that_dies_does_not_hang_its_callers(client, manager):
    process = manager.start_service("Mortal")
    client("mortal = cxn.link('Mortal')")
    client("future = mortal.slow(60, asynchronous=True)")
    assert client("mortal.add(1, 2)") == 3
    process.kill()
    with pytest.raises(RemoteFailure, match="the 'Mortal' Service has gone from Manager"):
        client("future.result(timeout=15)")
    assert client("echo.add(1, 2)") == 3


def test_a_service_is_shut_down_and_its_name_is_free_again(client, manager):
    process = manager.start_service("Short")
    client("short = cxn.link('Short')")
    assert client("short.shutdown_service(1)") == ["bye", 1]
    process.popen.wait(15)
    manager.start_service("Short").kill()


def test_a_name_that_is_taken_is_told_to_the_service(manager):
    process = manager.start_service("Echo")  # it says that it is connected before it is told
    process.popen.wait(15)
    process.wait_for("A 'Echo' service is already running on the Manager")
