"""Tests of the blocking API with a real Manager: every example of msl-network's documentation, literally."""

from __future__ import annotations

import code
import concurrent.futures
import contextlib
import io
import json
import queue
import re
import threading
import time
import types
from collections.abc import Iterator
from typing import Any

import pytest

from msl_network_trio import (
    AuthenticationError,
    ConnectionLost,
    LinkBroken,
    ManagerError,
    sync,
)
from msl_network_trio.constants import SHUTDOWN_MANAGER
from msl_network_trio.sync import Client, Link, LinkedClient, connect, dropped, filter_client_connect_kwargs
from tests.interop.conftest import USERS
from tests.interop.reference import Manager, Process, start_manager
from tests.interop.test_seed import (
    _IDENTITIES,
    FUNCTIONS,
    SERVICE_PROPERTIES,
    described,
)
from tests.patience import PATIENCE

pytestmark = pytest.mark.interop


# ---- notifications and calls ----


def test_handlers_have_returned_when_a_call_returns(lab: Manager):
    with connect(**lab.arguments()) as client, client.link("Echo") as link:
        with LinkedClient("Echo", **lab.arguments()) as linked:
            for each in (link, linked):
                got: list[int] = []
                each.notify_many(0)  # its reply follows the notifications that the other link has requested
                each.notification_handler = got.append
                for count in (1, 10, 100):
                    got.clear()
                    assert each.notify_many(count) == "notified"
                    assert got == list(range(count))
                got.clear()
                assert each.notify_many(2000, asynchronous=True).result() == "notified"
                assert got == list(range(2000))
                each.notification_handler = None
        assert client.dropped("Echo") == dropped(link) == dropped(linked) == 0


# ---- the examples of the seed, typed at the prompt ----


class Prompt:
    """An interactive Python session and its output."""

    def __init__(self, **names: Any) -> None:
        self._console = code.InteractiveConsole(names)
        self.printed: queue.SimpleQueue[str] = queue.SimpleQueue()

    def type(self, source: str) -> str:
        """Enter the lines after the prompts of a session, and return the immediate output."""
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            for line in source.splitlines():
                more = self._console.push(line)
            assert not more, source
        return out.getvalue()


def test_the_heartbeat_example(start):
    manager: Manager = start()
    manager.start_example("Heartbeat")
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    # Only the import, the arguments, and print(), which another thread calls, differ from the documentation.
    prompt = Prompt(kwargs=manager.arguments(), print=lambda *what: lines.put(" ".join(map(str, what))))
    shown = prompt.type(
        "import types\n"
        "from msl_network_trio.sync import connect\n"
        "cxn = connect(**kwargs)\n"
        "heartbeat = cxn.link('Heartbeat')\n"
        "def print_notification(self, *args, **kwargs):\n"
        "    print(f'The {self.service_name} Service emitted', args, kwargs)\n"
        "\n"
        "heartbeat.notification_handler = types.MethodType(print_notification, heartbeat)\n"
        "heartbeat.set_heart_rate(20)\n"
    )
    assert shown == ""
    numbers = []
    for _ in range(6):
        match = re.fullmatch(r"The Heartbeat Service emitted \((\d+),\) {}", lines.get(timeout=PATIENCE))
        assert match is not None
        numbers.append(int(match[1]))
    assert numbers == list(range(numbers[0], numbers[0] + 6))
    assert prompt.type("heartbeat.reset()\n") == ""
    while lines.get(timeout=PATIENCE) != "The Heartbeat Service emitted (0,) {}":
        pass
    for number in range(1, 7):
        assert lines.get(timeout=PATIENCE) == f"The Heartbeat Service emitted ({number},) {{}}"
    assert prompt.type("heartbeat.kill()\ncxn.disconnect()\ncxn\n") == "<Client disconnected>\n"


def test_the_admin_request_example(start):
    users = [("admin", "a", True)] + [
        (name, name.lower(), False) for name in ("Alice", "Bob", "Charlie", "Eve")
    ]
    manager: Manager = start(users=tuple(users))
    prompt = Prompt(kwargs=manager.arguments(username="admin", password="a"))
    assert (
        prompt.type(
            "from msl_network_trio.sync import connect\n"
            "cxn = connect(**kwargs)\n"
            "sorted(cxn.admin_request('users_table.usernames'))\n"
            "cxn.admin_request('users_table.is_user_registered', 'N.Bohr')\n"
        )
        == "['Alice', 'Bob', 'Charlie', 'Eve', 'admin']\nFalse\n"
    )
    assert (
        prompt.type(
            "from msl_network_trio.constants import SHUTDOWN_MANAGER\ncxn.admin_request(SHUTDOWN_MANAGER)\ncxn\n"
        )
        == "<Client disconnected>\n"
    )
    assert manager.process.popen.wait(PATIENCE) == 0


# ---- a Manager for all tests but those that end it ----


@pytest.fixture(scope="module", params=[pytest.param("tcp", marks=pytest.mark.slow), "tls"])
def manager(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Manager]:
    home = tmp_path_factory.mktemp(f"sync-seed-{request.param}")
    manager = start_manager(home, users=USERS, tls=request.param == "tls")
    try:
        manager.start_service("Echo")
        manager.start_service("Two", max_clients=2)
        yield manager
    finally:
        manager.end()


@pytest.fixture
def client(manager: Manager) -> Iterator[Client]:
    with connect(**manager.arguments(username="alice", password="pw-a")) as client:
        yield client


@pytest.fixture
def linked(manager: Manager) -> Iterator[LinkedClient]:
    with LinkedClient("Echo", **manager.arguments(username="alice", password="pw-a")) as linked:
        yield linked


# ---- connect ----


def test_connect_with_every_argument_of_the_seed(start):
    manager: Manager = start(tls=True, auth_password="se cret", users=USERS)
    arguments = {
        "name": "All of them",
        "host": "localhost",
        "port": manager.port,
        "timeout": 20,
        "username": "alice",
        "password": "pw-a",
        "password_manager": "se cret",
        "read_limit": 1_000_000,
        "disable_tls": False,
        "cert_file": str(manager.certificate),
        "assert_hostname": True,
        "auto_save": True,
    }
    assert list(arguments) == [name for name, _, _ in described(FUNCTIONS["connect"])]
    assert filter_client_connect_kwargs(**arguments, certfile="x", debug=True) == arguments
    with connect(**filter_client_connect_kwargs(**arguments)) as client:
        assert client.name == "All of them"
        assert list(client.identities()["clients"]) == [str(client)]
        assert str(client).startswith("All of them[")
        assert str(client).endswith(f":{client.port}]")
        assert client.admin_request("port") == manager.port


def test_connect_saves_the_certificate(start, own_home):
    manager: Manager = start(tls=True)
    with connect(port=manager.port, auto_save=True) as client:
        assert client.address_manager == f"localhost:{manager.port}"
    assert (own_home / "certs" / "localhost.crt").exists()


def test_the_question_of_trust_is_asked_in_the_calling_thread(start, own_home):
    manager: Manager = start(tls=True)
    asked = []

    class Prompts:
        def __init__(self, answer: bool) -> None:
            self.answer = answer

        def trust(self, certificate: Any) -> bool:
            asked.append(threading.current_thread())
            return self.answer

    with pytest.raises(ConnectionRefusedError, match="^SSL certificate required$"):
        connect(port=manager.port, prompts=Prompts(False))  # type: ignore[arg-type]
    with connect(port=manager.port, prompts=Prompts(True)) as client:  # type: ignore[arg-type]
        assert client.is_connected()
    with connect(port=manager.port) as client:  # the certificate is saved now
        assert client.is_connected()
    assert asked == [threading.current_thread()] * 2


def test_wrong_credentials_are_a_value_error(start):
    manager: Manager = start(auth_login=True, users=USERS)
    with pytest.raises(ValueError, match="Wrong login password") as caught:
        connect(**manager.arguments(username="alice", password="wrong"))
    assert isinstance(caught.value, AuthenticationError)


# ---- Client ----


def test_link_gives_a_link_whose_attributes_are_the_services(client: Client, manager: Manager):
    link = client.link("Echo", timeout=5)
    assert isinstance(link, Link)
    assert link.add(1, y=2, timeout=5) == 3
    assert link.echo(1, x=2) == [[1], {"x": 2}]
    assert link.const() == 42
    assert link.prop() == "p"
    assert link.add(1, 2, asynchronous=True).result() == 3
    with pytest.raises(RuntimeError, match="boom"):
        link.fail()
    with pytest.raises(TypeError, match="^Object of type set is not JSON serializable$"):
        link.echo({1})
    assert sync.request(link, "timeout", kwargs={"timeout": 1, "asynchronous": 2}) == [1, 2]
    address = client.identities()["services"]["Echo"]["address"]
    assert repr(link) == f"<Link with Echo[{address}] at Manager[localhost:{manager.port}]>"
    client.unlink(link, timeout=5)
    assert repr(link) == f"<Un-Linked from Echo[{address}]>"
    with pytest.raises(AttributeError, match="^Cannot access 'add' since the link has been broken$"):
        link.add(1, 2)
    with pytest.raises(TypeError, match="^Must pass in a Link object"):
        client.unlink("Echo")  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="the 'Nope' service does not exist"):
        client.link("Nope")
    entry = client.identities()["clients"][str(client)]
    assert {**client.identity(), "address": entry["address"]} == {**entry, "type": "client"}


def test_a_remote_error_has_the_text_of_the_reference(client: Client, manager: Manager):
    with pytest.raises(RuntimeError) as caught:
        client.link("Echo").fail("bad")
    begin = f"Manager[localhost:{manager.port}] returned the following exception:\n\n"
    assert str(caught.value).startswith(begin[:-1])
    assert str(caught.value).splitlines()[-1] == "ValueError: bad"


def test_disconnect_takes_the_client_off_the_network(client: Client):
    ended = threading.Event()
    other = client.spawn("Other")
    other.shutdown_handler = ended.set  # type: ignore[method-assign]
    assert repr(other) == f"<Other manager={client.address_manager} port={other.port}>"
    assert str(other) in client.identities()["clients"]
    echo = other.link("Echo")
    other.disconnect(timeout=5)
    assert not other.is_connected()
    assert repr(other) == "<Other disconnected>"
    assert str(other) not in client.identities()["clients"]
    other.disconnect()
    assert ended.wait(PATIENCE)
    disconnected = rf"^Disconnected from Manager\[{client.address_manager}\], cannot send request to "
    with pytest.raises(ConnectionError, match=f"{disconnected}'Echo'$"):
        echo.add(1, 2)
    with pytest.raises(ConnectionError, match=f"{disconnected}'Manager'$"):
        other.identities()
    with client.spawn() as default:
        assert default.name == "Client"


def test_identities_are_word_for_word_those_of_the_reference(client, linked, manager: Manager):
    arguments = json.dumps(manager.arguments(name="Of the reference"))
    process = Process.start(["-c", _IDENTITIES, arguments], manager.home, "TEXTS ")
    try:
        expected = json.loads(process.wait_for("TEXTS ").removeprefix("TEXTS "))
        for asked in (client, linked):
            ours = [asked.identities(as_string=True, indent=indent, timeout=5) for indent in range(5)]
            assert [asked.identities(as_string=True), *ours] == expected
    finally:
        process.end()
    assert set(linked.identities()["services"]) == {"Echo", "Two"}


def test_admin_requests(client: Client, linked: LinkedClient, manager: Manager):
    for admin in (client, linked):
        assert admin.admin_request("users_table.usernames") == ["alice", "bob"]
        assert admin.admin_request("users_table.is_user_registered", "N.Bohr", timeout=5) is False
        assert admin.admin_request("users_table.is_user_registered", username="alice") is True
        with pytest.raises(ValueError, match="^Cannot make asynchronous requests to a Manager$"):
            admin.admin_request("port", asynchronous=True)
        with pytest.raises(RuntimeError, match="nope"):
            admin.admin_request("users_table.nope")
    bob = connect(**manager.arguments(username="bob", password="pw-b"))
    with bob, pytest.raises(RuntimeError, match="You must be an administrator"):
        bob.admin_request("users_table.usernames")


def test_admin_requests_and_others_of_many_threads_do_not_mix(client: Client, manager: Manager):
    link = client.link("Echo")

    def work(number: int) -> bool:
        if number % 4 == 0:
            return all(client.admin_request("port") == manager.port for _ in range(20))
        return [link.add(number, n) for n in range(100)] == [number + n for n in range(100)]

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


@pytest.mark.parametrize("linked", [False, True])
def test_an_administrator_can_shut_down_the_manager(start, linked: bool):
    manager: Manager = start(users=USERS)
    manager.start_service("Echo")
    arguments = manager.arguments(username="alice", password="pw-a")
    with LinkedClient("Echo", **arguments) if linked else connect(**arguments) as client:
        assert client.admin_request(SHUTDOWN_MANAGER) is None
        assert not client.is_connected()
        with pytest.raises(ConnectionError, match="^Disconnected from Manager"):
            client.identities()
    assert manager.process.popen.wait(PATIENCE) == 0


# ---- Link ----


def test_a_link_tells_what_the_manager_tells_of_the_service(client: Client):
    services = client.identities()["services"]
    for name, max_clients in (("Echo", -1), ("Two", 2)):
        link = client.link(name)
        told = {key: getattr(link, f"service_{key}") for key in SERVICE_PROPERTIES}
        assert told == {key: services[name][key] for key in SERVICE_PROPERTIES}
        assert link.service_max_clients == max_clients
        assert link.service_name == name
        link.unlink()
        assert link.service_max_clients == max_clients


def test_unlinking_makes_room_for_others(client: Client):
    with client.spawn("Second") as second, client.spawn("Third") as third:
        first_link, second_link = client.link("Two"), second.link("Two")
        with pytest.raises(RuntimeError, match="The maximum number of Clients"):
            third.link("Two")
        first_link.unlink(timeout=5)
        first_link.unlink()
        with third.link("Two") as third_link:
            assert third_link.add(1, 2) == 3
        second_link.disconnect(timeout=5)
        assert client.link("Two").add(1, 2) == 3


def test_locks_keep_others_out_until_all_are_released(client: Client):
    link = client.link("Echo")
    with client.spawn("Second") as second:
        assert link.acquire_lock() == [str(client)]
        with pytest.raises(RuntimeError, match="'Echo' service is locked"):
            second.link("Echo")
        assert link.release_lock() == []
        second_link = second.link("Echo")
        with pytest.raises(RuntimeError, match="there are 2 links"):
            link.acquire_lock(timeout=5)
        both = sorted([str(client), str(second)])
        assert sorted(link.acquire_lock(True, 5)) == both
        assert sorted(second_link.acquire_lock(shared=True, timeout=5)) == both
        assert link.release_lock(timeout=5) == [str(second)]
        with client.spawn("Third") as third:
            with pytest.raises(RuntimeError, match="'Echo' service is locked"):
                third.link("Echo")
            assert second_link.release_lock() == []
            assert third.link("Echo").add(1, 2) == 3


def gone(client: Client | LinkedClient, service: str) -> bool:
    """Wait until a Service has disconnected."""
    deadline = time.monotonic() + 10
    while service in client.identities()["services"]:
        assert time.monotonic() < deadline
    return True


def test_shutdown_service_says_what_the_service_returns_and_breaks_the_link(start):
    manager: Manager = start()
    manager.start_service("Echo")
    with connect(**manager.arguments()) as client:
        link = client.link("Echo")
        assert link.shutdown_service(1, 2, timeout=5) == ["bye", 1, 2]
        assert repr(link).startswith("<Un-Linked from Echo[")
        assert link._client is None
        with pytest.raises(LinkBroken, match="^Cannot access 'shutdown_service' since"):
            link.shutdown_service()
        assert gone(client, "Echo")


def test_a_service_that_dies_does_not_keep_a_thread_waiting(start):
    manager: Manager = start()
    service = manager.start_service("Echo")
    with connect(**manager.arguments(probe_after=0.2)) as client:
        link = client.link("Echo")
        future = link.slow(30, asynchronous=True)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            call = pool.submit(link.slow, 30)
            time.sleep(0.2)  # the result is the same before and after the call's arrival at the Service
            service.kill()
            for waiting in (call, future):
                with pytest.raises(RuntimeError, match="Service has gone|is not connected"):
                    waiting.result(PATIENCE)
        assert client.is_connected()


# ---- LinkedClient ----


def test_a_linked_client_is_a_client_that_looks_like_its_service(manager: Manager, client: Client):
    linked = LinkedClient("Echo", name="foobar", nonsense=1, **manager.arguments())
    address = linked.service_address
    assert repr(linked) == f"<Link[name=foobar] with Echo[{address}] at Manager[localhost:{manager.port}]>"
    assert linked.add(1, y=2, timeout=5) == 3
    assert linked.echo(1, x=2) == [[1], {"x": 2}]
    assert linked.add(1, 2, asynchronous=True).result() == 3
    network_name = str(linked.client)
    entry = client.identities()["clients"][network_name]
    assert {**linked.identity(), "address": entry["address"]} == {**entry, "type": "client"}
    linked.disconnect(timeout=5)
    linked.disconnect()
    assert network_name not in client.identities()["clients"]
    assert repr(linked) == f"<Un-Linked[name=foobar] from Echo[{address}]>"
    for call in (linked.identities, lambda: linked.admin_request("port"), linked.identity):
        with pytest.raises(ConnectionError, match="^The LinkedClient has been disconnected$"):
            call()
    with pytest.raises(AttributeError, match="^Cannot access 'add' since the link has been broken$"):
        linked.add(1, 2)


def test_the_properties_of_a_linked_client_are_there_also_afterwards(manager: Manager, client: Client):
    identities = client.identities()
    linked = LinkedClient("Two", **manager.arguments())

    def told() -> dict[str, object]:
        mine = ("address_manager", "name", "port", "service_name")
        return {key: getattr(linked, key) for key in mine} | {
            key: getattr(linked, f"service_{key}") for key in SERVICE_PROPERTIES
        }

    expected = {
        "address_manager": f"localhost:{manager.port}",
        "name": "LinkedClient",
        "port": linked.client.port,
        "service_name": "Two",
        **{key: identities["services"]["Two"][key] for key in SERVICE_PROPERTIES},
    }
    assert told() == expected
    linked.unlink()
    assert told() == expected
    assert linked.link is None
    assert linked.client is not None
    linked.disconnect()
    assert told() == expected
    assert linked.client is None


def test_a_linked_client_unlinks_and_spawns(manager: Manager):
    with LinkedClient("Two", name="First", **manager.arguments()) as first, first.spawn() as second:
        assert type(second) is LinkedClient
        assert (second.name, second.service_name) == ("LinkedClient", "Two")
        assert second.add(1, 2) == 3
        with pytest.raises(ManagerError, match="The maximum number of Clients"):
            first.spawn("Third")
        first.unlink(timeout=5)
        with pytest.raises(LinkBroken, match="^Cannot access 'add' since the link has been broken$"):
            first.add(1, 2)
        assert first.is_connected()
        with first.spawn("Third") as third:
            assert third.name == "Third"
            assert third.add(1, 2) == 3


def test_a_linked_client_locks_its_service(linked: LinkedClient):
    assert linked.acquire_lock() == [str(linked.client)]
    with pytest.raises(ManagerError, match="'Echo' service is locked"):
        linked.spawn("Second")
    assert linked.release_lock() == []
    with linked.spawn("Second") as second:
        with pytest.raises(RuntimeError, match="there are 2 links"):
            linked.acquire_lock(timeout=5)
        assert sorted(linked.acquire_lock(True, 5)) == sorted([str(linked.client), str(second.client)])
        assert linked.release_lock(timeout=5) == []


def test_a_linked_client_handles_notifications(linked: LinkedClient):
    received: queue.SimpleQueue[Any] = queue.SimpleQueue()
    linked.notification_handler = types.MethodType(  # type: ignore[method-assign]
        lambda self, *args, **kwargs: received.put((self.service_name, args, kwargs, self.add(1, 2))), linked
    )
    assert linked.notify(1, x=[2]) == "notified"
    assert received.get(timeout=PATIENCE) == ("Echo", (1,), {"x": [2]}, 3)
    assert linked.notify_many(500) == "notified"
    assert [received.get(timeout=PATIENCE)[1] for _ in range(500)] == [(n,) for n in range(500)]


def test_the_service_error_handler_is_called_before_the_exception_is_raised(manager: Manager):
    happened = []

    class Careful(LinkedClient):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__("Echo", **kwargs)

        def service_error_handler(self) -> None:
            happened.append(self.add(1, 2))
            self.disconnect()

    careful = Careful(**manager.arguments())
    try:
        careful.fail("bad")
    except RuntimeError as error:
        happened.append(str(error).splitlines()[-1])
    assert happened == [3, "ValueError: bad"]
    assert careful._client is None


def test_a_linked_client_shuts_its_service_down(start):
    manager: Manager = start()
    manager.start_service("Echo")
    with LinkedClient("Echo", **manager.arguments()) as linked:
        assert linked.shutdown_service(1, timeout=5) == ["bye", 1]
        assert linked.link is None
        assert linked.is_connected()
        with pytest.raises(LinkBroken, match="^Cannot access 'shutdown_service' since the link has been"):
            linked.shutdown_service()
        assert gone(linked, "Echo")


def test_a_linked_client_waits_for_a_service_that_starts_later(start):
    manager: Manager = start()
    starting = threading.Thread(target=manager.start_service, args=("Late",))
    starting.start()
    with LinkedClient("Late", timeout=20, **manager.arguments()) as late:
        assert late.add(1, 2) == 3
    starting.join()
    with pytest.raises(TimeoutError, match="^The 'Nope' service is not available$"):
        LinkedClient("Nope", timeout=0.3, **manager.arguments())


# ---- threads ----


def test_eight_threads_of_500_calls_get_their_own_answers(client: Client):
    link = client.link("Echo")

    def work(number: int) -> bool:
        mine = [number * 1000 + n for n in range(500)]
        return [link.add(n, 1, timeout=60) for n in mine] == [n + 1 for n in mine]

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


def test_eight_threads_of_500_futures_get_their_own_answers(client: Client):
    link = client.link("Echo")

    def work(number: int) -> bool:
        mine = [number * 1000 + n for n in range(500)]
        futures = [link.add(n, 1, asynchronous=True) for n in mine]
        return [future.result(PATIENCE) for future in futures] == [n + 1 for n in mine]

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


def test_large_and_small_messages_of_threads_do_not_mix(client: Client):
    link = client.link("Echo")

    def large(number: int) -> bool:
        text = str(number) * 300_000
        return all(link.same(text) == text for _ in range(4))

    def small(number: int) -> bool:
        return [link.add(number, n) for n in range(200)] == [number + n for n in range(200)]

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        works = [pool.submit(large if number % 2 else small, number) for number in range(6)]
        assert all(work.result() for work in works)


def test_a_killed_manager_ends_every_wait(start):
    manager: Manager = start()
    manager.start_service("Echo")
    with connect(**manager.arguments()) as client:
        link = client.link("Echo")
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            calls = [pool.submit(link.slow, 30) for _ in range(3)]
            futures = [link.slow(30, asynchronous=True) for _ in range(3)]
            manager.process.kill()
            for waiting in (*calls, *futures):
                with pytest.raises(ConnectionLost):
                    waiting.result(PATIENCE)
        assert not client.is_connected()
    with pytest.raises(ConnectionError):
        link.add(1, 2)
