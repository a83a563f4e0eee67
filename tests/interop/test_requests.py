"""Tests of requests, links and admin requests, with a Manager of msl-network 1.0.0 and with our own."""

from __future__ import annotations

import math

import pytest
import trio
import trio.testing

from msl_network_trio import (
    Client,
    Link,
    ManagerError,
    RemoteError,
    ReplyTimeout,
    ServiceLost,
    connect,
)
from tests.client.test_requests import Outcome
from tests.interop.reference import Manager
from tests.patience import PATIENCE

pytestmark = pytest.mark.interop


@pytest.fixture
async def client(lab: Manager, nursery: trio.Nursery):
    client = await connect(**lab.arguments(nursery=nursery, username="alice", password="pw-a"))
    yield client
    await client.disconnect()


@pytest.fixture
async def echo(client: Client):
    return await client.link("Echo")


def same(a: object, b: object) -> bool:
    return repr(a) == repr(b)


# ---- requests to a Service ----


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (2**63, 2**63),
        (-(10**300), -(10**300)),
        (1.5, 1.5),
        (-0.0, -0.0),
        (5e-324, 5e-324),
        (math.nan, math.nan),
        (math.inf, math.inf),
        ([math.nan, None, -math.inf], [math.nan, None, -math.inf]),
        ('é\u2028\u2029\x00\x7f\U0001f600"\\\r\n', 'é\u2028\u2029\x00\x7f\U0001f600"\\\r\n'),
        ("", ""),
        ((1, (2, 3)), [1, [2, 3]]),
        ({1: 1, True: 2, None: 3, 1.5: 4}, {"1": 2, "null": 3, "1.5": 4}),
        (
            {"uid": "notification", "result": 1, "error": True},
            {"uid": "notification", "result": 1, "error": True},
        ),
    ],
    ids=repr,
)
async def test_a_value_comes_back_as_json_brings_it(echo: Link, value: object, expected: object):
    assert same(await echo.same(value), expected)


async def test_positional_and_keyword_arguments_arrive(echo: Link):
    assert await echo.echo(1, "a", x=[1], y={"z": None}) == [[1, "a"], {"x": [1], "y": {"z": None}}]


async def test_a_property_and_a_constant_are_read_by_calling_them(echo: Link):
    assert await echo.const() == 42
    assert await echo.prop() == "p"


async def test_an_attribute_that_the_identity_leaves_out_may_be_called(echo: Link):
    assert "identity" not in echo.service_attributes
    assert (await echo.identity())["name"] == "Echo"


async def test_any_client_may_call_any_service_by_name(client: Client):
    assert await client._session.connection.requests.request("Echo", "add", (1, 2)) == 3


async def test_results_that_are_not_plain_json(echo: Link):
    assert same(await echo.nan(), [math.nan, math.inf, -math.inf])
    assert await echo.big_integer() == 2**200
    assert await echo.temperature() == {"kelvin": 273.15}


@pytest.mark.parametrize(
    ("attribute", "args", "type_name", "message"),
    [
        ("fail", ("bad",), "ValueError", "bad"),
        ("fail_in_two_lines", (), "RuntimeError", "outer\nsecond line"),
        ("add", (1,), "TypeError", "missing 1 required positional argument"),
        ("nope", (), "AttributeError", "has no attribute 'nope'"),
        ("_private", (), "PermissionError", "Cannot request a private attribute"),
        ("__init__", (), "PermissionError", "Cannot request a private attribute"),
        ("unserializable", (), "TypeError", "not JSON serializable"),
    ],
)
async def test_what_the_service_raises(echo: Link, attribute, args, type_name, message):
    with pytest.raises(RemoteError) as caught:
        await echo.request(attribute, args)
    assert caught.value.type_name == type_name
    assert message in caught.value.message
    assert str(caught.value).startswith(
        f"Manager[{echo._state.session.settings.manager}] returned the following"
    )
    assert await echo.add(1, 2) == 3


async def test_arguments_named_timeout_and_asynchronous_reach_the_service(echo: Link):
    assert await echo.request("timeout", (), {"timeout": 1, "asynchronous": 2}) == [1, 2]


async def test_a_method_that_never_answers_is_a_timeout(echo: Link):
    with pytest.raises(ReplyTimeout) as caught:
        await echo.sysexit(timeout=0.2)
    assert caught.value.may_have_run
    assert await echo.add(1, 2) == 3


async def test_twenty_megabytes_there_and_back(echo: Link):
    text = "x" * 20_000_000
    assert await echo.size(text) == len(text)
    assert await echo.same(text) == text


async def test_hundreds_of_handles_from_one_task(echo: Link):
    replies = [echo.add(n, n, asynchronous=True) for n in range(300)]
    assert [await reply for reply in replies] == [2 * n for n in range(300)]


async def test_a_caller_cancelled_inside_a_large_send_leaves_the_connection_whole(echo: Link):
    text = "x" * 20_000_000  # more than fits into the buffers of the system
    for deadline in (0.0, 0.001, 0.01, 0.05, 0.1):
        with trio.move_on_after(deadline):
            await echo.size(text)
        assert await echo.add(1, 2) == 3


async def test_a_line_that_the_manager_cannot_parse_fails_its_request(client: Client, echo: Link):
    # Deep enough to fail in a Manager on Python 3.11, not in ours; newer Pythons may read it.
    value: object = 1
    for _ in range(960):
        value = [value]
    try:
        with trio.fail_after(PATIENCE):
            assert await echo.same(value) == value
    except RemoteError as error:
        assert error.type_name == "RecursionError"
    except ValueError as error:
        assert "nested too deeply" in str(error)
    assert await echo.add(1, 2) == 3
    assert client.is_connected()


# ---- requests to the Manager ----


async def test_the_identity_of_the_manager(client: Client, lab: Manager):
    identity = await client.identities()
    assert identity["port"] == lab.port
    assert {"Echo", "One"} <= set(identity["services"])
    assert identity["clients"][str(client)]["name"] == "Client"
    text = await client.identities(as_string=True)
    assert text.startswith(
        f"Manager[{identity['hostname']}:{lab.port}]\n  attributes:\n    identity() -> dict\n"
    )
    assert "      add(x, y)\n" in text


async def test_the_network_name_is_what_the_manager_calls_us(client: Client):
    before = str(client)
    assert str(client) in (await client.identities())["clients"]
    assert before == str(client)


async def test_linking_with_a_service_that_does_not_exist(client: Client, lab: Manager):
    with pytest.raises(ManagerError, match="the 'Nope' service does not exist") as caught:
        await client.link("Nope")
    assert caught.value.type_name == "KeyError"
    assert lab.ours or caught.value.traceback_lines


async def test_linking_again_is_fine(client: Client, echo: Link):
    again = await client.link("Echo")
    assert again is not echo
    await again.unlink()
    with pytest.raises(ManagerError, match="was not linked with 'Echo'"):
        await echo.unlink()
    assert await echo.add(1, 2) == 3  # a Manager does not require a link


async def test_unlinking_from_a_service_that_is_not_there_is_fine(client: Client):
    assert await client._session.connection.requests.request("Manager", "unlink", ("nobody",)) is True


async def test_a_service_takes_as_many_clients_as_it_says(client: Client):
    async with client.link("One") as one:
        assert one.service_max_clients == 1
        async with client.spawn("Second") as second:
            with pytest.raises(ManagerError, match=r"The maximum number of Clients(?s:.*)Client\["):
                await second.link("One")
    async with client.spawn("Third") as third:
        await third.link("One")
    assert (await client.link("One")).service_name == "One"  # disconnecting frees a link


async def test_a_locked_service_cannot_be_linked_with_but_by_who_locked_it(client: Client, echo: Link):
    request = client._session.connection.requests.request
    assert await request("Manager", "acquire_lock", ("Echo",), {"shared": False}) == [str(client)]
    async with client.spawn("Second") as second:
        with pytest.raises(ManagerError, match="'Echo' service is locked"):
            await second.link("Echo")
        await client.link("Echo")
        assert await request("Manager", "release_lock", ("Echo",)) == []
        await second.link("Echo")
        with pytest.raises(ManagerError, match="there are 2 links"):
            await request("Manager", "acquire_lock", ("Echo",), {"shared": False})
        both = await request("Manager", "acquire_lock", ("Echo",), {"shared": True})
        assert sorted(both) == sorted([str(client), str(second)])
    assert await request("Manager", "release_lock", ("Echo",)) == []
    for attribute in ("acquire_lock", "release_lock"):
        with pytest.raises(ManagerError, match="'Nope' service does not exist"):
            await request("Manager", attribute, ("Nope",), {"shared": True})


# ---- a Service that is not there ----


async def test_a_service_that_is_not_there_is_service_lost_and_surely_did_not_run(client: Client):
    with pytest.raises(ServiceLost, match="'Gone' Service is not connected") as caught:
        await client._session.connection.requests.request("Gone", "add", (1, 2))
    assert caught.value.may_have_run is False


async def test_many_requests_to_a_service_that_is_not_there_all_fail_and_no_other(client: Client, echo: Link):
    async with trio.open_nursery() as nursery:
        lost, kept = [Outcome() for _ in range(20)], [Outcome() for _ in range(20)]
        for number in range(20):
            nursery.start_soon(lost[number].capture, client._session.connection.requests.request, "Gone", "x")
            nursery.start_soon(kept[number].capture, echo.add, number, 1)
    assert all(isinstance(call.error, ServiceLost) for call in lost)
    assert [call.value for call in kept] == [number + 1 for number in range(20)]
    protocol = client._session.connection.protocol
    assert await echo.add(1, 1) == 2
    assert not protocol._refusals.barriers
    assert protocol.in_flight == 0


# ---- admin requests ----


@pytest.mark.parametrize(
    ("attribute", "args", "expected"),
    [
        ("users_table.usernames", (), ["alice", "bob"]),
        ("users_table.is_admin", ("bob",), False),
        ("password", (), None),
        ("set_logging_level", ("INFO",), True),
    ],
)
async def test_admin_requests(client: Client, attribute, args, expected):
    assert await client.admin_request(attribute, *args) == expected


async def test_an_admin_request_for_what_others_may_ask_too(client: Client, lab: Manager):
    assert (await client.admin_request("identity"))["port"] == lab.port
    assert (await client.admin_request("link", "Echo"))["attributes"]
    assert await client.admin_request("port") == lab.port


@pytest.mark.parametrize(
    ("attribute", "args", "type_name"),
    [
        ("nope", (), "AttributeError"),
        ("users_table.nope", (), "AttributeError"),
        ("users_table.is_admin", (), "TypeError"),
        ("client_writers", (), "TypeError"),
    ],
)
async def test_admin_requests_that_fail(client: Client, echo: Link, attribute, args, type_name):
    with pytest.raises(ManagerError) as caught:
        await client.admin_request(attribute, *args)
    assert caught.value.type_name == type_name
    assert await echo.add(1, 2) == 3


async def test_admin_and_other_requests_started_together_each_get_their_own_answer(
    client: Client, echo: Link
):
    calls: list[tuple[Outcome, object]] = []
    async with trio.open_nursery() as nursery:

        def call(expected: object, function, *args: object) -> None:
            outcome = Outcome()
            calls.append((outcome, expected))
            nursery.start_soon(outcome.capture, function, *args)

        for number in range(20):
            call(number + 0.5, echo.add, number, 0.5)
            if number == 5:
                call(["alice", "bob"], client.admin_request, "users_table.usernames")
            if number == 15:
                call(True, client.admin_request, "users_table.is_admin", "alice")
    assert [outcome.value for outcome, _ in calls] == [expected for _, expected in calls]


async def test_two_administrators_get_their_own_answers(client: Client):
    async with client.spawn("Second") as second, trio.open_nursery() as nursery:
        calls = []
        for number in range(20):
            outcome = Outcome()
            user = ("alice", "bob")[number % 2]
            calls.append((outcome, user == "alice"))
            asker = (client, second)[number // 2 % 2]
            nursery.start_soon(outcome.capture, asker.admin_request, "users_table.is_admin", user)
    assert [outcome.value for outcome, _ in calls] == [expected for _, expected in calls]


async def test_who_is_no_administrator_is_told_so_and_stays_connected(lab: Manager):
    async with connect(**lab.arguments(username="bob", password="pw-b")) as client:
        for _ in range(2):
            with pytest.raises(ManagerError, match="You must be an administrator"):
                await client.admin_request("port")
        assert await (await client.link("Echo")).add(1, 2) == 3


@pytest.mark.parametrize(
    ("username", "password", "message"),
    [("zed", "x", "Unregistered user"), ("alice", "x", "Wrong login password")],
)
async def test_wrong_credentials_end_only_connections_with_msl_network(lab, username, password, message):
    async with connect(**lab.arguments(username=username, password=password)) as client:
        with pytest.raises(ManagerError, match=message):
            await client.admin_request("port")
        if lab.ours:
            assert await client.identities()
        else:
            with trio.fail_after(PATIENCE):
                await client._session.connection.closed.wait()
        assert client.is_connected() == lab.ours
    async with connect(**lab.arguments()) as client:
        assert client.is_connected()


class Undecided:
    """Prompts that never answer."""

    def __init__(self, question: str) -> None:
        self.question = question
        self.asked = trio.Event()

    async def username(self, manager: str) -> str:
        return await self.answer("username", "alice")

    async def password(self, name: str) -> str:
        return await self.answer("password", "pw-a")

    async def answer(self, question: str, text: str) -> str:
        if question == self.question:
            self.asked.set()
            await trio.sleep_forever()
        return text

    def trust(self, certificate: object) -> bool:
        return True


@pytest.mark.parametrize("question", ["username", "password"])
async def test_an_admin_login_cancelled_half_way_leaves_the_connection_usable(lab: Manager, question: str):
    undecided = Undecided(question)
    async with connect(**lab.arguments(prompts=undecided)) as client:
        link = await client.link("Echo")
        async with trio.open_nursery() as nursery:
            admin, waiting = Outcome(), Outcome()
            nursery.start_soon(admin.capture, client.admin_request, "port")
            await undecided.asked.wait()
            nursery.start_soon(waiting.capture, link.add, 1, 2)
            await trio.testing.wait_all_tasks_blocked()
            admin.scope.cancel()
        assert waiting.value == 3
        undecided.question = "none"
        assert await client.admin_request("port") == lab.port
