"""Tests of the unmodified client and Services of msl-network 1.0.0 at our Manager."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.interop.conftest import USERS
from tests.interop.reference import Manager, _environment, start_manager
from tests.patience import PATIENCE

pytestmark = pytest.mark.interop

ANSWER = 20.0
"""Maximum seconds for the client to execute one line; a call that hangs fails then."""


class RemoteFailure(Exception):
    """An exception of the reference's client."""


class ReferenceClient:
    """A process that runs the reference's client."""

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
        self.popen.wait(PATIENCE)
        for pipe in (self.popen.stdin, self.popen.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except BrokenPipeError:
                pass


CREDENTIALS: dict[str, dict[str, Any]] = {
    "none": {},
    "password": {"auth_password": "se cret"},
    "hostname": {"auth_hostname": True},
    "login": {"auth_login": True},
}
"""The kinds of authentication, and the arguments of a Manager for them."""


@pytest.fixture(
    scope="module",
    params=[
        "tcp none",
        pytest.param("tls password", marks=pytest.mark.slow),
        pytest.param("tls hostname", marks=pytest.mark.slow),
        "tcp login",
    ],
    ids=lambda name: name,
)
def manager(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Manager]:
    """Our Manager with each kind of authentication, and a database created by the reference."""
    transport, authentication = request.param.split()
    manager = start_manager(
        tmp_path_factory.mktemp("peers"),
        tls=transport == "tls",
        ours=True,
        users=USERS,
        **CREDENTIALS[authentication],
    )
    try:
        manager.start_service("Echo")
        manager.start_service("One", max_clients=1)
        manager.start_example("Heartbeat")
        yield manager
    finally:
        manager.end()


@pytest.fixture(scope="module")
def client(manager: Manager) -> Iterator[ReferenceClient]:
    """A client with a link to Echo, which logs in as an administrator if asked."""
    client = ReferenceClient(manager, password_manager="se cret", username="alice", password="pw-a")
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
    client("third.link('Echo')")  # a lost connection releases its locks
    client("third.link('One')")
    client("third.disconnect()")


def test_links_and_locks_of_one_client(client):
    assert client("cxn._new_request('Manager', 'unlink', 'Nope', timeout=10)") is True
    assert client("[len(echo.acquire_lock()) for _ in range(2)]") == [1, 1]
    assert client("cxn.link('Echo').add(1, 2)") == 3  # again, and while it is locked
    assert client("[echo.release_lock() for _ in range(2)]") == [[], []]
    assert client("cxn._new_request('Manager', 'identity', timeout=10)['language'][:6]") == "Python"


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
    assert client("beaten.wait(60)") is True
    assert client("beats[1] - beats[0]") == 1


def test_a_linked_client(client):
    client("linked = LinkedClient('Echo', **arguments)")
    assert client("linked.add(1, 2)") == 3
    client("linked.disconnect()")


# ---- administrators ----


@pytest.mark.parametrize(
    ("code", "value"),
    [
        ("cxn.admin_request('users_table.usernames')", ["alice", "bob"]),
        ("cxn.admin_request('users_table.users')", [["alice", True], ["bob", False]]),
        ("cxn.admin_request('users_table.is_user_registered', 'N.Bohr')", False),
        ("cxn.admin_request('users_table.is_password_valid', 'bob', password='pw-b')", True),
        ("cxn.admin_request('users_table.get_user', 'bob')", [2, "bob", None, None, False]),
        ("'localhost' in cxn.admin_request('hostnames_table.hostnames')", True),
        ("cxn.admin_request('connections_table.connections', start='2020-01-01')[0][0]", 1),
        ("cxn.admin_request('connections_table.connections', end='2020-01-01')", []),
        ("sorted(cxn.admin_request('services')) == sorted(cxn.identities()['services'])", True),
        ("str(cxn) in cxn.admin_request('clients')", True),
        ("cxn.admin_request('set_logging_level', 'INFO')", True),
        ("cxn.admin_request('identity')['hostname'] == cxn.identities()['hostname']", True),
    ],
)
def test_admin_requests(client, code, value):
    assert client(code) == value


def test_what_the_manager_is_started_with_is_told(client, manager, request):
    authentication = request.node.callspec.params["manager"].split()[1]
    assert client("cxn.admin_request('port')") == manager.port
    assert client("cxn.admin_request('login')") == (authentication == "login" or None)
    assert client("cxn.admin_request('password')") == ("se cret" if authentication == "password" else None)
    assert bool(client("cxn.admin_request('hostnames')")) == (authentication == "hostname")


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("cxn.admin_request('nope')", "AttributeError: 'Manager' object has no attribute 'nope'"),
        (
            "cxn.admin_request('users_table.nope')",
            "AttributeError: 'UsersTable' object has no attribute 'nope'",
        ),
        ("cxn.admin_request('users_table.is_admin')", "TypeError: UsersTable.is_admin.. missing 1 required"),
        ("cxn.admin_request('users_table.delete', 'zed')", "ValueError: Cannot delete 'zed'"),
        ("cxn.admin_request('client_writers')", "TypeError: Object of type StreamWriter is not JSON"),
    ],
)
def test_admin_requests_that_fail(client, code, text):
    with pytest.raises(RemoteFailure, match=f"(?s)RuntimeError: .*{text}"):
        client(code)
    assert client("echo.add(1, 2)") == 3


def test_users_are_managed_by_admin_requests(client):
    client("cxn.admin_request('users_table.insert', 'eve', 'pw-e', False)")
    client("cxn.admin_request('users_table.update', 'eve', is_admin=True)")
    client("eve = connect(**{**arguments, 'username': 'eve', 'password': 'pw-e'})")
    assert client("eve.admin_request('users_table.is_admin', 'eve')") is True
    client("eve.disconnect()")
    client("cxn.admin_request('users_table.delete', 'eve')")
    assert client("cxn.admin_request('users_table.usernames')") == ["alice", "bob"]


@pytest.mark.parametrize(
    ("username", "text"), [("zed", "Unregistered user"), ("alice", "Wrong login password")]
)
def test_a_login_for_an_admin_request_that_fails_leaves_the_client_connected(client, username, text, request):
    if "login" in request.node.callspec.id.split("-")[0]:
        pytest.skip("there nobody is connected who has not logged in")
    client(f"other = connect(**{{**arguments, 'username': {username!r}, 'password': 'wrong'}})")
    client("linked = other.link('Echo')")
    for _ in range(2):
        with pytest.raises(RemoteFailure, match=f"ValueError: {text}"):
            client("other.admin_request('port')")
    assert client("linked.add(1, 2)") == 3
    client("other.disconnect()")


def test_who_is_no_administrator_is_told_so_and_stays_connected(client):
    client("bob = connect(**{**arguments, 'username': 'bob', 'password': 'pw-b'})")
    for _ in range(2):
        with pytest.raises(RemoteFailure, match="ValueError: You must be an administrator"):
            client("bob.admin_request('port')")
    assert client("bob.link('Echo').add(1, 2)") == 3
    client("bob.disconnect()")


@pytest.mark.parametrize(
    ("username", "password", "text"),
    [("zed", "x", "ValueError: Unregistered user"), ("alice", "x", "ValueError: Wrong login password")],
)
def test_a_wrong_login_is_told(client, username, password, text):
    code = f"connect(**{{**arguments, 'username': {username!r}, 'password': {password!r}}})"
    with pytest.raises(RemoteFailure, match=text):
        client(f"{code}.admin_request('port')")


def test_a_wrong_password_is_told(client, request):
    if request.node.callspec.params["manager"].endswith("password"):
        with pytest.raises(RemoteFailure, match="ValueError: Wrong Manager password"):
            client("connect(**{**arguments, 'password_manager': 'guess'})")
    else:
        client(
            "connect(**{**arguments, 'password_manager': 'guess'}).disconnect()"
        )  # the Manager does not ask for it


def test_admin_requests_and_others_do_not_disturb_each_other(client):
    client("mixed = cxn.spawn('Mixed')")
    client("link = mixed.link('Echo')")
    client("futures = [link.add(n, 1, asynchronous=True) for n in range(20)]")
    assert client("mixed.admin_request('users_table.usernames')") == ["alice", "bob"]
    assert client("[f.result() for f in futures]") == list(range(1, 21))
    client("mixed.disconnect()")


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
    process.popen.wait(PATIENCE)
    manager.start_service("Short").kill()


def test_a_name_that_is_taken_is_told_to_the_service(manager):
    process = manager.start_service("Echo", is_wanted=False)
    process.popen.wait(PATIENCE)
    process.wait_for("A 'Echo' service is already running on the Manager")


def test_an_administrator_shuts_the_manager_down(client, manager):
    """This test must be the last one, since it shuts the Manager down."""
    assert client("cxn.admin_request('shutdown_manager')") is None
    assert manager.process.popen.wait(PATIENCE) == 0
    manager.process.wait_for("shutting down the Network Manager")
