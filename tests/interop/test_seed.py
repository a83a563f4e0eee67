"""Tests of every name of the reference's client module: its parameters, and its effect on a real Manager."""

from __future__ import annotations

import inspect
import json
import types
from collections.abc import Callable, Iterator
from inspect import Parameter
from operator import attrgetter
from types import ModuleType
from typing import Any

import pytest
import trio
import trio.testing

import msl_network_trio
from msl_network_trio import (
    Client,
    ConnectionLost,
    Link,
    LinkBroken,
    LinkedClient,
    ManagerError,
    RemoteError,
    connect,
    filter_client_connect_kwargs,
    sync,
)
from msl_network_trio.constants import SHUTDOWN_MANAGER
from tests.interop.conftest import USERS
from tests.interop.reference import Manager, Process, start_manager
from tests.patience import PATIENCE

pytestmark = pytest.mark.interop

# The documentation of msl.network.client 1.0.0, name by name.


def _connect(
    *,
    name="Client",
    host="localhost",
    port=1875,
    timeout=10,
    username=None,
    password=None,
    password_manager=None,
    read_limit=None,
    disable_tls=False,
    cert_file=None,
    assert_hostname=True,
    auto_save=False,
): ...


CLASSES = ["Client", "Link", "LinkedClient"]
FUNCTIONS: dict[str, Callable[..., None]] = {
    "connect": _connect,
    "filter_client_connect_kwargs": lambda **kwargs: None,
    "Client.admin_request": lambda self, attrib, *args, **kwargs: None,
    "Client.disconnect": lambda self, timeout=None: None,
    "Client.is_connected": lambda self: None,
    "Client.link": lambda self, service, *, timeout=None: None,
    "Client.identities": lambda self, *, as_string=False, indent=2, timeout=None: None,
    "Link.acquire_lock": lambda self, shared=False, timeout=None: None,
    "Link.notification_handler": lambda self, *args, **kwargs: None,
    "Link.shutdown_service": lambda self, *args, **kwargs: None,
    "LinkedClient.acquire_lock": lambda self, shared=False, timeout=None: None,
    "LinkedClient.admin_request": lambda self, attrib, *args, **kwargs: None,
    "LinkedClient.disconnect": lambda self, timeout=None: None,
    "LinkedClient.identities": lambda self, *, as_string=False, indent=2, timeout=None: None,
    "LinkedClient.is_connected": lambda self: None,
    "LinkedClient.notification_handler": lambda self, *args, **kwargs: None,
    "LinkedClient.service_error_handler": lambda self: None,
    "LinkedClient.shutdown_service": lambda self, *args, **kwargs: None,
    "LinkedClient.spawn": lambda self, name="LinkedClient": None,
    "LinkedClient.unlink": lambda self, timeout=None: None,
    "LinkedClient.release_lock": lambda self, timeout=None: None,
}
PROPERTIES = [
    "Link.service_max_clients",
    "LinkedClient.address_manager",
    "LinkedClient.service_address",
    "LinkedClient.service_attributes",
    "LinkedClient.service_language",
    "LinkedClient.service_max_clients",
    "LinkedClient.service_name",
    "LinkedClient.service_os",
]
# Names that this documentation refers to ("See Link.unlink for more details"), or that are inherited.
REFERRED_FUNCTIONS: dict[str, Callable[..., None]] = {
    "Client.identity": lambda self: None,
    "Client.shutdown_handler": lambda self: None,
    "Client.spawn": lambda self, name="Client": None,
    "Client.unlink": lambda self, link, *, timeout=None: None,
    "Link.disconnect": lambda self, timeout=None: None,
    "Link.release_lock": lambda self, timeout=None: None,
    "Link.unlink": lambda self, timeout=None: None,
    "LinkedClient.identity": lambda self: None,
}
REFERRED_PROPERTIES = [
    "Client.address_manager",
    "Client.name",
    "Client.port",
    "Link.service_address",
    "Link.service_attributes",
    "Link.service_language",
    "Link.service_name",
    "Link.service_os",
    "LinkedClient.client",
    "LinkedClient.link",
    "LinkedClient.name",
    "LinkedClient.port",
]
ALL_FUNCTIONS = FUNCTIONS | REFERRED_FUNCTIONS
ALL_PROPERTIES = PROPERTIES + REFERRED_PROPERTIES

SHOWN: set[str] = set()


def shows(*names: str) -> Callable[[Any], Any]:
    """Record that a test calls these names and checks their results."""
    SHOWN.update(names)
    return lambda test: test


# ---- names and parameters ----


def described(function: Callable[..., Any]) -> list[tuple[str, Any, Any]]:
    parameters = inspect.signature(function).parameters.values()
    # As in Python, but `self` as a keyword is an argument for the Service.
    by_position = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    return [
        (
            parameter.name,
            "self" if parameter.name == "self" and parameter.kind in by_position else parameter.kind,
            parameter.default,
        )
        for parameter in parameters
    ]


async_and_blocking = pytest.mark.parametrize("api", [msl_network_trio, sync], ids=["async", "blocking"])


@async_and_blocking
@pytest.mark.parametrize("name", ALL_FUNCTIONS)
def test_a_function_has_the_parameters_and_defaults_of_the_seed(api: ModuleType, name: str):
    seed = described(ALL_FUNCTIONS[name])
    ours = described(attrgetter(name)(api))
    known = {parameter for parameter, _, _ in seed}
    more = [parameter for parameter in ours if parameter[0] not in known]
    assert [parameter for parameter in ours if parameter[0] in known] == seed
    assert all(kind is Parameter.KEYWORD_ONLY for _, kind, _ in more)
    assert all(default is not Parameter.empty for _, _, default in more)


@async_and_blocking
def test_a_linked_client_is_made_with_the_parameters_of_the_seed(api: ModuleType):
    assert described(api.LinkedClient) == [
        ("service_name", Parameter.POSITIONAL_OR_KEYWORD, Parameter.empty),
        ("kwargs", Parameter.VAR_KEYWORD, Parameter.empty),
    ]


@async_and_blocking
@pytest.mark.parametrize("name", ALL_PROPERTIES)
def test_a_property_of_the_seed_is_one_of_ours(api: ModuleType, name: str):
    assert isinstance(attrgetter(name)(api), property)


@async_and_blocking
@pytest.mark.parametrize("name", CLASSES)
def test_a_class_of_the_seed_is_one_of_ours(api: ModuleType, name: str):
    assert isinstance(getattr(api, name), type)
    assert name in api.__all__


def test_every_name_of_the_seed_is_shown_below():
    assert {*CLASSES, *ALL_FUNCTIONS, *ALL_PROPERTIES} == SHOWN


# ---- a Manager for all tests but those that end it ----


@pytest.fixture(scope="module", params=["reference", "ours"])
def manager(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Manager]:
    manager = start_manager(tmp_path_factory.mktemp("seed"), users=USERS, ours=request.param == "ours")
    try:
        manager.start_service("Echo")
        manager.start_service("Two", max_clients=2)
        yield manager
    finally:
        manager.end()


@pytest.fixture
async def client(manager: Manager, nursery: trio.Nursery):
    async with connect(**manager.arguments(username="alice", password="pw-a", nursery=nursery)) as client:
        yield client


@pytest.fixture
async def linked(manager: Manager, nursery: trio.Nursery):
    arguments = manager.arguments(username="alice", password="pw-a", nursery=nursery)
    async with LinkedClient("Echo", **arguments) as linked:
        yield linked


class Received:
    """A record of notifications that can be waited for."""

    def __init__(self) -> None:
        self.all: list[Any] = []
        self.changed = trio.Event()

    def put(self, what: Any) -> None:
        self.all.append(what)
        self.changed.set()
        self.changed = trio.Event()

    async def wait_until(self, condition: Callable[[list[Any]], object]) -> None:
        with trio.fail_after(PATIENCE):
            while not condition(self.all):
                await self.changed.wait()


# ---- connect ----


@shows("connect", "filter_client_connect_kwargs", "Client", "Client.name", "Client.port")
async def test_connect_with_every_argument_of_the_seed(start):
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
    del arguments["password_manager"]
    filtered = filter_client_connect_kwargs(auth_password="se cret", **arguments)
    assert filtered == {**arguments, "password_manager": "se cret"}
    async with connect(**filtered) as client:
        assert isinstance(client, Client)
        assert client.name == "All of them"
        clients = (await client.identities())["clients"]
        assert [entry["name"] for entry in clients.values()] == ["All of them"]
        assert list(clients) == [str(client)]
        assert str(client).startswith("All of them[")
        assert str(client).endswith(f":{client.port}]")
        assert await client.admin_request("port") == manager.port


@shows("connect")
async def test_connect_with_no_argument_but_the_port_asks_for_tls_and_trust(start, own_home):
    manager: Manager = start(tls=True)
    async with connect(port=manager.port, auto_save=True) as client:
        assert client.address_manager == f"localhost:{manager.port}"
    assert (own_home / "certs" / "localhost.crt").exists()


# ---- Client ----


@shows("Client.link", "Link", "Client.unlink", "Client.address_manager", "Client.identity")
async def test_link_gives_a_link_whose_attributes_are_the_services(client: Client, manager: Manager):
    link = await client.link("Echo", timeout=5)
    assert isinstance(link, Link)
    assert await link.add(1, y=2, timeout=5) == 3
    assert await link.echo(1, x=2) == [[1], {"x": 2}]
    reply = link.add(1, 2, asynchronous=True)
    assert await reply == 3
    with pytest.raises(RuntimeError, match="boom"):
        await link.fail()
    address = (await client.identities())["services"]["Echo"]["address"]
    assert client.address_manager == f"localhost:{manager.port}"
    assert repr(link) == f"<Link with Echo[{address}] at Manager[localhost:{manager.port}]>"
    await client.unlink(link, timeout=5)
    assert repr(link) == f"<Un-Linked from Echo[{address}]>"
    with pytest.raises(AttributeError, match="^Cannot access 'add' since the link has been broken$"):
        await link.add(1, 2)
    with pytest.raises(TypeError, match="^Must pass in a Link object"):
        await client.unlink("Echo")  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="the 'Nope' service does not exist"):
        await client.link("Nope")
    entry = (await client.identities())["clients"][str(client)]
    assert {**client.identity(), "address": entry["address"]} == {**entry, "type": "client"}


@shows("Client.disconnect", "Client.is_connected", "Client.spawn", "Client.shutdown_handler")
async def test_disconnect_takes_the_client_off_the_network(client: Client):
    ended = []
    other = await client.spawn("Other")
    other.shutdown_handler = lambda: ended.append("handled")
    assert other.is_connected()
    assert repr(other) == f"<Other manager={client.address_manager} port={other.port}>"
    echo = await other.link("Echo")
    assert str(other) in (await client.identities())["clients"]
    await other.disconnect(timeout=5)
    assert not other.is_connected()
    assert repr(other) == "<Other disconnected>"
    assert str(other) not in (await client.identities())["clients"]
    await other.disconnect()
    await trio.testing.wait_all_tasks_blocked()
    assert ended == ["handled"]
    disconnected = rf"^Disconnected from Manager\[{client.address_manager}\], cannot send request to "
    with pytest.raises(ConnectionError, match=f"{disconnected}'Echo'$"):
        await echo.add(1, 2)
    with pytest.raises(ConnectionError, match=f"{disconnected}'Manager'$"):
        await other.identities()
    default = await client.spawn()
    assert default.name == "Client"
    await default.disconnect()


_IDENTITIES = """
import json, sys, time
from msl.network import connect
client = connect(**json.loads(sys.argv[1]))
texts = [client.identities(as_string=True, indent=indent) for indent in range(5)]
print("TEXTS " + json.dumps([client.identities(as_string=True), *texts]))
time.sleep(60)
"""


@shows("Client.identities", "LinkedClient.identities")
async def test_identities_are_word_for_word_those_of_the_reference(client, linked, manager: Manager):
    arguments = json.dumps(manager.arguments(name="Of the reference"))
    process = await trio.to_thread.run_sync(
        Process.start, ["-c", _IDENTITIES, arguments], manager.home, "TEXTS "
    )
    try:
        # All clients are connected when each of them asks, so the answers are equal.
        expected = json.loads(process.wait_for("TEXTS ").removeprefix("TEXTS "))
        assert str(client) in expected[0]
        assert "Of the reference[" in expected[0]
        for asked in (client, linked):
            ours = [await asked.identities(as_string=True, indent=indent, timeout=5) for indent in range(5)]
            assert [await asked.identities(as_string=True), *ours] == expected
    finally:
        process.end()
    identities = await linked.identities()
    assert identities["port"] == manager.port
    assert set(identities["services"]) == {"Echo", "Two"}


@shows("Client.admin_request", "LinkedClient.admin_request")
async def test_admin_requests_of_the_seeds_examples(client: Client, linked: LinkedClient, manager: Manager):
    for admin in (client, linked):
        assert await admin.admin_request("users_table.usernames") == ["alice", "bob"]
        assert await admin.admin_request("users_table.is_user_registered", "N.Bohr", timeout=5) is False
        assert await admin.admin_request("users_table.is_user_registered", username="alice") is True
        assert await admin.admin_request("port") == manager.port
        with pytest.raises(ValueError, match="^Cannot make asynchronous requests to a Manager$"):
            await admin.admin_request("port", asynchronous=True)
        with pytest.raises(RuntimeError, match="nope"):
            await admin.admin_request("users_table.nope")
    async with connect(**manager.arguments(username="bob", password="pw-b")) as bob:
        with pytest.raises(RuntimeError, match="You must be an administrator"):
            await bob.admin_request("users_table.usernames")


@shows("Client.admin_request", "LinkedClient.admin_request")
@pytest.mark.parametrize("linked", [False, True])
async def test_an_administrator_can_shut_down_the_manager(start_either, linked: bool):
    manager: Manager = start_either(users=USERS)
    manager.start_service("Echo")
    arguments = manager.arguments(username="alice", password="pw-a")
    opening = LinkedClient("Echo", **arguments) if linked else connect(**arguments)
    async with opening as client:
        assert await client.admin_request(SHUTDOWN_MANAGER) is None
        assert not client.is_connected()
        with pytest.raises(ConnectionError, match="^Disconnected from Manager"):
            await client.identities()
    assert await trio.to_thread.run_sync(manager.process.popen.wait, PATIENCE) == 0


# ---- Link ----


SERVICE_PROPERTIES = ("address", "attributes", "language", "max_clients", "os")


@shows(
    "Link.service_address",
    "Link.service_attributes",
    "Link.service_language",
    "Link.service_max_clients",
    "Link.service_name",
    "Link.service_os",
)
async def test_a_link_tells_what_the_manager_tells_of_the_service(client: Client):
    services = (await client.identities())["services"]
    for name, max_clients in (("Echo", -1), ("Two", 2)):
        link = await client.link(name)
        told = {key: getattr(link, f"service_{key}") for key in SERVICE_PROPERTIES}
        assert told == {key: services[name][key] for key in SERVICE_PROPERTIES}
        assert link.service_max_clients == max_clients
        assert link.service_name == name
        assert link.service_attributes["add"] == "(x, y)"
        await link.unlink()
        assert link.service_max_clients == max_clients


@shows("Link.unlink", "Link.disconnect")
async def test_unlinking_makes_room_for_others(client: Client):
    async with client.spawn("Second") as second, client.spawn("Third") as third:
        first_link, second_link = await client.link("Two"), await second.link("Two")
        with pytest.raises(RuntimeError, match="The maximum number of Clients"):
            await third.link("Two")
        await first_link.unlink(timeout=5)
        await first_link.unlink()
        assert await (await third.link("Two")).add(1, 2) == 3
        with pytest.raises(RuntimeError, match="The maximum number of Clients"):
            await client.link("Two")
        await second_link.disconnect(timeout=5)
        assert await (await client.link("Two")).add(1, 2) == 3


@shows("Link.acquire_lock", "Link.release_lock")
async def test_locks_keep_others_out_until_all_are_released(client: Client):
    link = await client.link("Echo")
    async with client.spawn("Second") as second:
        assert await link.acquire_lock() == [str(client)]
        with pytest.raises(RuntimeError, match="'Echo' service is locked"):
            await second.link("Echo")
        assert await link.release_lock() == []
        second_link = await second.link("Echo")
        with pytest.raises(RuntimeError, match="there are 2 links"):
            await link.acquire_lock(timeout=5)
        both = sorted([str(client), str(second)])
        assert sorted(await link.acquire_lock(True, 5)) == both
        assert sorted(await second_link.acquire_lock(shared=True, timeout=5)) == both
        assert await link.release_lock(timeout=5) == [str(second)]
        async with client.spawn("Third") as third:
            with pytest.raises(RuntimeError, match="'Echo' service is locked"):
                await third.link("Echo")
            assert await second_link.release_lock() == []
            assert await (await third.link("Echo")).add(1, 2) == 3


@shows("Link.notification_handler")
async def test_the_heartbeat_example_of_the_seed(start):
    manager: Manager = start()
    manager.start_example("Heartbeat")
    received = Received()

    def print_notification(self, *args, **kwargs):
        received.put(f"The {self.service_name} Service emitted {args} {kwargs}")

    def beat(number: int) -> str:
        return f"The Heartbeat Service emitted ({number},) {{}}"

    async with connect(**manager.arguments()) as client:
        heartbeat = await client.link("Heartbeat")
        assert heartbeat.notification_handler() is None
        heartbeat.notification_handler = types.MethodType(print_notification, heartbeat)
        assert await heartbeat.set_heart_rate(100) is None
        await received.wait_until(lambda beats: len(beats) >= 5)
        before = [int(text.split("(")[1].split(",")[0]) for text in received.all]
        assert received.all == [beat(number) for number in before]
        assert before == list(range(before[0], before[0] + len(before)))
        assert await heartbeat.reset() is None
        await received.wait_until(lambda beats: beat(0) in beats)
        since_the_reset = received.all.index(beat(0))
        await received.wait_until(lambda beats: len(beats) >= since_the_reset + 7)
        assert received.all[since_the_reset:][:7] == [beat(number) for number in range(7)]
        assert await heartbeat.kill() is None
        with pytest.raises(RemoteError, match="'Heartbeat' object has no attribute 'shutdown_service'"):
            await heartbeat.shutdown_service()
        assert await heartbeat.reset() is None  # a shutdown that failed leaves the link
    assert not client.is_connected()


async def gone(client: Client | LinkedClient, service: str) -> bool:
    """Wait until a Service has disconnected."""
    with trio.fail_after(PATIENCE):
        while service in (await client.identities())["services"]:
            await trio.lowlevel.checkpoint()
    return True


@shows("Link.shutdown_service")
async def test_shutdown_service_says_what_the_service_returns_and_breaks_the_link(start):
    manager: Manager = start()
    manager.start_service("Echo")
    async with connect(**manager.arguments()) as client:
        link = await client.link("Echo")
        assert await link.shutdown_service(1, 2, timeout=5) == ["bye", 1, 2]
        assert repr(link).startswith("<Un-Linked from Echo[")
        with pytest.raises(LinkBroken, match="^Cannot access 'shutdown_service' since"):
            await link.shutdown_service()
        assert await gone(client, "Echo")


# ---- LinkedClient ----


@shows("LinkedClient", "LinkedClient.is_connected", "LinkedClient.disconnect", "LinkedClient.identity")
async def test_a_linked_client_is_a_client_that_looks_like_its_service(manager: Manager, client: Client):
    linked = await LinkedClient("Echo", name="foobar", nonsense=1, **manager.arguments())
    address = linked.service_address
    assert linked.is_connected()
    assert repr(linked) == f"<Link[name=foobar] with Echo[{address}] at Manager[localhost:{manager.port}]>"
    assert await linked.add(1, y=2, timeout=5) == 3
    assert await linked.echo(1, x=2) == [[1], {"x": 2}]
    reply = linked.add(1, 2, asynchronous=True)
    assert await reply == 3
    network_name = str(linked.client)
    entry = (await client.identities())["clients"][network_name]
    assert {**linked.identity(), "address": entry["address"]} == {**entry, "type": "client"}
    await linked.disconnect(timeout=5)
    await linked.disconnect()
    assert not linked.is_connected()
    assert network_name not in (await client.identities())["clients"]
    assert repr(linked) == f"<Un-Linked[name=foobar] from Echo[{address}]>"
    for call in (linked.identities, lambda: linked.admin_request("port")):
        with pytest.raises(ConnectionError, match="^The LinkedClient has been disconnected$"):
            await call()
    with pytest.raises(ConnectionLost, match="^The LinkedClient has been disconnected$"):
        linked.identity()
    with pytest.raises(AttributeError, match="^Cannot access 'add' since the link has been broken$"):
        await linked.add(1, 2)


@shows(
    "LinkedClient.address_manager",
    "LinkedClient.client",
    "LinkedClient.link",
    "LinkedClient.name",
    "LinkedClient.port",
    "LinkedClient.service_address",
    "LinkedClient.service_attributes",
    "LinkedClient.service_language",
    "LinkedClient.service_max_clients",
    "LinkedClient.service_name",
    "LinkedClient.service_os",
)
async def test_the_properties_of_a_linked_client_are_there_also_afterwards(manager: Manager, client: Client):
    identities = await client.identities()
    linked = await LinkedClient("Two", **manager.arguments())

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
    assert isinstance(linked.client, Client)
    assert isinstance(linked.link, Link)
    assert str(linked.client) == f"LinkedClient[{identities['hostname']}:{linked.port}]"
    await linked.unlink()
    assert told() == expected
    assert linked.link is None
    assert linked.client is not None
    await linked.disconnect()
    assert told() == expected
    assert linked.client is None


@shows("LinkedClient.unlink", "LinkedClient.spawn")
async def test_a_linked_client_unlinks_and_spawns(manager: Manager):
    async with (
        LinkedClient("Two", name="First", **manager.arguments()) as first,
        first.spawn() as second,
    ):
        assert type(second) is LinkedClient
        assert (second.name, second.service_name) == ("LinkedClient", "Two")
        assert second.port != first.port
        assert await second.add(1, 2) == 3
        with pytest.raises(ManagerError, match="The maximum number of Clients"):
            await first.spawn("Third")
        await first.unlink(timeout=5)
        await first.unlink()
        with pytest.raises(LinkBroken, match="^Cannot access 'add' since the link has been broken$"):
            await first.add(1, 2)
        assert first.is_connected()
        async with first.spawn("Third") as third:
            assert third.name == "Third"
            assert await third.add(1, 2) == 3


@shows("LinkedClient.acquire_lock", "LinkedClient.release_lock")
async def test_a_linked_client_locks_its_service(linked: LinkedClient):
    assert await linked.acquire_lock() == [str(linked.client)]
    with pytest.raises(ManagerError, match="'Echo' service is locked"):
        await linked.spawn("Second")
    assert await linked.release_lock() == []
    async with linked.spawn("Second") as second:
        with pytest.raises(RuntimeError, match="there are 2 links"):
            await linked.acquire_lock(timeout=5)
        both = sorted([str(linked.client), str(second.client)])
        assert sorted(await linked.acquire_lock(True, 5)) == both
        assert await linked.release_lock(timeout=5) == []


@shows("LinkedClient.notification_handler")
async def test_a_linked_client_handles_notifications(linked: LinkedClient, manager: Manager):
    class Overridden(LinkedClient):
        def notification_handler(self, *args, **kwargs):
            received.put((self.name, args, kwargs))

    def handle(self, *args, **kwargs):
        received.put((self.name, args, kwargs))

    received = Received()
    linked.notification_handler = types.MethodType(handle, linked)
    async with Overridden("Echo", **manager.arguments()) as overridden:
        assert await overridden.notify(1, x=[2]) == "notified"
        await received.wait_until(lambda everything: len(everything) == 2)
    assert sorted(received.all) == [("LinkedClient", (1,), {"x": [2]}), ("Overridden", (1,), {"x": [2]})]
    await linked.notify()
    await received.wait_until(lambda everything: len(everything) == 3)
    assert received.all[-1] == ("LinkedClient", (), {})


@shows("LinkedClient.service_error_handler")
async def test_the_service_error_handler_is_called_before_the_exception_is_raised(manager: Manager):
    class Careful(LinkedClient):
        def __init__(self, **kwargs):
            super().__init__("Echo", **kwargs)
            self.happened = []

        def service_error_handler(self):
            self.happened.append("handled")

    async with Careful(**manager.arguments()) as careful:
        assert await careful.add(1, 2) == 3
        try:
            await careful.fail("bad")
        except RuntimeError as error:
            careful.happened.append(str(error).splitlines()[-1])
        assert careful.happened == ["handled", "ValueError: bad"]
        assert await careful.add(1, 2) == 3  # the Service goes on


@shows("LinkedClient.shutdown_service")
async def test_a_linked_client_shuts_its_service_down(start):
    manager: Manager = start()
    manager.start_service("Echo")
    async with LinkedClient("Echo", **manager.arguments()) as linked:
        assert await linked.shutdown_service(1, timeout=5) == ["bye", 1]
        assert linked.link is None
        assert linked.is_connected()
        with pytest.raises(LinkBroken, match="^Cannot access 'shutdown_service' since the link has been"):
            await linked.shutdown_service()
        assert await gone(linked, "Echo")


@shows("LinkedClient")
async def test_a_linked_client_waits_for_a_service_that_starts_later(start):
    manager: Manager = start()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, manager.start_service, "Late")
        async with LinkedClient("Late", timeout=20, **manager.arguments()) as late:
            assert await late.add(1, 2) == 3
    with pytest.raises(TimeoutError, match="^The 'Nope' service is not available$"):
        await LinkedClient("Nope", timeout=0.3, **manager.arguments())
