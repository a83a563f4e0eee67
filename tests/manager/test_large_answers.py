"""Tests of large answers to administrators: they are correct, and block no other peer."""

from __future__ import annotations

import errno
import json
import tempfile

import pytest
import trio
import trio.testing

from msl_network_trio import RemoteError, connect
from msl_network_trio.constants import MANAGER
from msl_network_trio.manager import admin, large_answers
from msl_network_trio.manager.large_answers import ListOfPages, Spool, encode_large, is_small
from msl_network_trio.manager.opening import open_manager
from msl_network_trio.manager.tables import ConnectionsTable, Database
from tests.manager.wires import dial
from tests.protocol.network import Network, read, request

LIMIT = 60


@pytest.fixture
def in_memory_limit(monkeypatch):
    """Limit the bytes of an answer in memory, so that a file is used."""
    monkeypatch.setattr(large_answers, "_IN_MEMORY", 100)


@pytest.fixture(params=["in memory", "in a file"])
def place(request, monkeypatch):
    monkeypatch.setattr(large_answers, "_IN_MEMORY", 100 if request.param == "in a file" else 10**9)


VALUES = {
    "rows": [[number, f"text {number}", None] for number in range(1001)],
    "tuples": tuple((number, "é") for number in range(400)),
    "an object": {f"name {number}": {"a": [1.5, True]} for number in range(601)},
    "an empty list": [],
    "an empty object": {},
    "a text": "x" * 1000,
    "a number": 5,
    "one item": [[1]],
}


@pytest.mark.parametrize("name", VALUES)
def test_a_value_is_the_same_when_it_is_encoded_in_pieces(place, name, monkeypatch):
    monkeypatch.setattr(large_answers, "_REST", 0)
    value = VALUES[name]
    assert json.loads(bytes(encode_large(value).value)) == json.loads(json.dumps(value))


@pytest.mark.parametrize("sizes", [[], [0], [3], [3, 0, 2], [1] * 50])
def test_pages_are_one_list(place, sizes):
    spool, expected = Spool(), []
    pages = ListOfPages(spool)
    for size in sizes:
        items = [(len(expected) + number, "x" * 20) for number in range(size)]
        pages.add(items)
        expected += [list(item) for item in items]
    pages.end()
    assert json.loads(bytes(spool.take().value)) == expected


def test_what_cannot_be_encoded_leaves_no_file_open(monkeypatch, in_memory_limit):
    monkeypatch.setattr(large_answers, "_REST", 0)
    files = []

    def make():
        files.append(tempfile.NamedTemporaryFile())  # noqa: SIM115 - closed by what is tested
        return files[-1]

    monkeypatch.setattr(large_answers.tempfile, "TemporaryFile", make)
    with pytest.raises(TypeError, match="object"):
        encode_large([*range(1000), object()])
    assert [file.closed for file in files] == [True]


@pytest.mark.parametrize(
    ("value", "small"),
    [
        (5, True),
        ("x" * 1000, True),
        ("x" * 100_000, False),
        ([1] * 500, True),
        ([1] * 5000, False),
        ({"a": {"b": ["x" * 100_000]}}, False),
        ([[1] * 40] * 40, False),
        ({number: number for number in range(400)}, True),
        ({number: number for number in range(600)}, False),
    ],
)
def test_what_is_small(value, small):
    assert is_small(value) is small


# ---- a table ----


def filled(path, count):
    """Make a database with an administrator and so many records of connections, one a minute."""
    with Database(path) as database:
        database.users.insert("alice", "pw-a", True)
        database.connections.insert_all(
            (f"2026-01-01T{number // 60:02}:{number % 60:02}:00", "127.0.0.1", "host", number, "text")
            for number in range(count)
        )
    return path


def open_here(path):
    return open_manager(in_memory=True, database=path)


def as_admin(manager):
    return connect(**manager.connect_kwargs(), username="alice", password="pw-a")


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 20, 25])
async def test_all_pages_of_a_table_are_told(tmp_path, monkeypatch, in_memory_limit, count):
    monkeypatch.setattr(admin, "_PAGE", 10)
    with trio.fail_after(LIMIT):
        async with open_here(filled(tmp_path / "lab.sqlite3", count)) as manager, as_admin(manager) as client:
            rows = await client.admin_request("connections_table.connections", end="2026-01-02")
            assert [row[4] for row in rows] == list(range(count))
            with Database(tmp_path / "lab.sqlite3") as database:
                assert rows == [list(row) for row in database.connections.connections(end="2026-01-02")]


async def test_a_time_may_be_in_the_midst_of_pages(tmp_path, monkeypatch):
    monkeypatch.setattr(admin, "_PAGE", 10)
    with trio.fail_after(LIMIT):
        async with open_here(filled(tmp_path / "lab.sqlite3", 100)) as manager, as_admin(manager) as client:
            times = {"start": "2026-01-01T00:33:00", "end": "2026-01-01T01:17:00"}
            rows = await client.admin_request("connections_table.connections", **times)
            assert [row[4] for row in rows] == list(range(33, 78))


@pytest.mark.parametrize(
    ("args", "kwargs", "text"),
    [
        (("2026-01-01",), {}, "TypeError: .*connections.*positional"),
        ((), {"begin": "2026"}, "TypeError: .*connections.*'begin'"),
        ((), {"start": 5}, "TypeError: .*time"),
    ],
)
async def test_mistakes_are_told(tmp_path, args, kwargs, text):
    with trio.fail_after(LIMIT):
        async with open_here(filled(tmp_path / "lab.sqlite3", 1)) as manager, as_admin(manager) as client:
            with pytest.raises(RemoteError, match=text):
                await client.admin_request("connections_table.connections", *args, **kwargs)


async def test_the_database_is_free_for_others_between_two_pages(tmp_path, monkeypatch):
    """A second administrator is answered before the last page is read."""
    monkeypatch.setattr(admin, "_PAGE", 10)
    pages = 0
    page = ConnectionsTable.page

    def counted(*args, **kwargs):
        nonlocal pages
        pages += 1
        return page(*args, **kwargs)

    monkeypatch.setattr(ConnectionsTable, "page", counted)
    with trio.fail_after(LIMIT):
        async with (
            open_here(filled(tmp_path / "lab.sqlite3", 1000)) as manager,
            as_admin(manager) as client,
            as_admin(manager) as other,
        ):
            assert await other.admin_request("port") == 0
            rows = client.admin_request("connections_table.connections", end="2026-01-02")
            async with trio.open_nursery() as nursery:
                answer = []

                async def ask():
                    answer.extend(await rows)

                nursery.start_soon(ask)
                while not pages:
                    await trio.lowlevel.checkpoint()
                assert await other.admin_request("users_table.usernames") == ["alice"]
                assert pages < 100
            assert len(answer) == 1000


async def test_a_full_disk_costs_the_answer_and_nothing_else(tmp_path, monkeypatch, in_memory_limit):
    def full():
        raise OSError(errno.ENOSPC, "No space left on device")

    with trio.fail_after(LIMIT):
        async with open_here(filled(tmp_path / "lab.sqlite3", 50)) as manager, as_admin(manager) as client:
            monkeypatch.setattr(large_answers.tempfile, "TemporaryFile", full)
            with pytest.raises(RemoteError, match="No space left on device"):
                await client.admin_request("connections_table.connections")
            assert await client.admin_request("port") == 0


async def test_requests_behind_a_large_answer_wait_until_it_is_taken(tmp_path, monkeypatch):
    """Otherwise a hundred of them could be created at once, each for a large line."""
    monkeypatch.setattr(large_answers, "_REST", 0)
    made = []
    with trio.fail_after(LIMIT):
        async with open_here(filled(tmp_path / "lab.sqlite3", 20_000)) as manager:
            wire = await dial(manager, "reader")
            last_number = ConnectionsTable.last_number

            def noted(table):
                made.append(1)
                return last_number(table)

            monkeypatch.setattr(ConnectionsTable, "last_number", noted)
            await wire.send(*[request(MANAGER, "connections_table.connections")] * 3)
            for answer in ("alice", "pw-a"):
                assert (await wire.line())["attribute"] in {"username", "password"}
                await wire.send({"result": answer})
            while not made:
                await trio.sleep(0.001)
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert len(made) == 1
            for _ in range(3):
                assert len((await wire.line())["result"]) >= 20_000
            assert len(made) == 3


# ---- other requests ----


async def test_large_results_are_not_encoded_by_the_task_of_the_peer(tmp_path, monkeypatch):
    monkeypatch.setattr(large_answers, "_SMALL", 30)
    with Database(path := filled(tmp_path / "lab.sqlite3", 0)) as database:
        for number in range(30):
            database.hostnames.insert(f"host-{number:02}")
        expected = database.hostnames.hostnames()
    encoded = []

    def encode(value):
        encoded.append(len(value))
        return encode_large(value)

    monkeypatch.setattr(admin, "encode_large", encode)
    with trio.fail_after(LIMIT):
        async with open_here(path) as manager, as_admin(manager) as client:
            assert await client.admin_request("hostnames_table.hostnames") == expected
            assert encoded == [len(expected)]
            assert await client.admin_request("users_table.users") == [["alice", True]]
            assert encoded == [len(expected)]


async def test_links_are_collected_with_turns_for_others(monkeypatch, tmp_path):
    monkeypatch.setattr(admin, "_NAMES", 0)
    with trio.fail_after(LIMIT):
        async with open_here(filled(tmp_path / "lab.sqlite3", 0)) as manager, as_admin(manager) as client:
            services = [await dial(manager, name, "service") for name in ("A", "B")]
            linked = await client.link("A")
            assert await client.admin_request("service_links") == {"A": [str(client)], "B": []}
            await linked.unlink()
            services[0].transport.close()
            while (await client.admin_request("service_locks")) != {"B": []}:
                pass


def test_the_identity_that_is_put_together_is_that_of_all_peers():
    network = Network()
    for number in range(3):
        network.peer(f"client {number} é")
        network.peer(f"S{number}", "service", attributes={"add": "(x, y)"})
    client = network.peer("asks")
    network.send(client, request(MANAGER, "link", "S1"))
    network.send(client, request(MANAGER, "identity"))
    link, answer = read(client)
    identity = json.loads(json.dumps(network.protocol.identity()))
    assert answer["result"] == identity
    assert link["result"] == identity["services"]["S1"]
    assert len(identity["clients"]) == 4
