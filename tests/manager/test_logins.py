"""A Manager in memory with a database in a file: logins, admin requests, and a database that does not work."""

from __future__ import annotations

import logging
import re
import sqlite3
from contextlib import asynccontextmanager, closing

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from msl_network_trio import AuthenticationError, connect
from msl_network_trio.constants import SHUTDOWN_MANAGER
from msl_network_trio.exceptions import ConnectionLost, DatabaseError, ManagerError
from msl_network_trio.manager import database as database_module
from msl_network_trio.manager import tables
from msl_network_trio.manager.opening import open_manager
from msl_network_trio.manager.tables import Database
from msl_network_trio.service.service import Service
from tests.manager.wires import Wire, dial
from tests.protocol.network import request


class Echo(Service):
    async def same(self, value):
        return value


@pytest.fixture
def open_lab(users):
    """Open a Manager in memory with the database."""

    @asynccontextmanager
    async def open_one(**settings):
        with trio.fail_after(60):
            async with open_manager(in_memory=True, database=users, **settings) as manager:
                yield manager

    return open_one


def admin(manager, **more):
    return connect(**{**manager.connect_kwargs(), "username": "alice", "password": "pw-a", **more})


@asynccontextmanager
async def locked(path):
    """Keep the database from all others."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield


# ---- authentication ----


async def test_clients_and_services_log_in(open_lab):
    async with open_lab(auth_login=True) as manager, trio.open_nursery() as nursery:
        run = Echo().run
        kwargs = {**manager.connect_kwargs(), "username": "bob", "password": "pw-b"}
        nursery.start_soon(lambda: _run(run, kwargs))
        async with connect(**kwargs) as client:
            while not (await client.identities())["services"]:
                await trio.sleep(0.01)
            link = await client.link("Echo")
            assert await link.same(5) == 5
        for username, password, text in (
            ("zed", "x", "Unregistered user"),
            ("alice", "pw-b", "Wrong login password"),
        ):
            with pytest.raises(AuthenticationError, match=f"ValueError: {text}"):
                await admin(manager, username=username, password=password)
        nursery.cancel_scope.cancel()


async def _run(run, kwargs):
    await run(**kwargs)


async def test_everything_from_the_login_to_the_first_admin_request_may_come_at_once(open_lab):
    async with open_lab(auth_login=True) as manager:
        wire = Wire(await manager.dial())
        identity = {"result": {"type": "client", "name": "C"}}
        lines = [request("Manager", "port", uid="7"), request("Manager", "login", uid="8")]
        await wire.send({"result": "alice"}, {"result": "pw-a"}, identity, *lines)
        told = [await wire.line() for _ in range(5)]
        assert [line.get("attribute") for line in told[:3]] == ["username", "password", "identity"]
        assert [(line["uid"], line["result"]) for line in told[3:]] == [("7", 0), ("8", True)]
        wire.transport.close()


async def test_who_has_said_everything_before_it_was_asked_is_let_in_and_need_not_say_more(open_lab):
    async with open_lab(auth_login=True) as manager:
        wire = Wire(await manager.dial())
        await wire.send({"result": "alice"}, {"result": "pw-a"}, {"result": {"type": "client", "name": "C"}})
        assert [(await wire.line())["attribute"] for _ in range(3)] == ["username", "password", "identity"]
        await wait_all_tasks_blocked()
        peers = manager.status()["peers"]
        # Else it would have to go when the time for the handshake is over.
        assert (peers["clients"], peers["unauthenticated"]) == (1, 0)
        wire.transport.close()


async def test_an_admin_request_of_who_has_logged_in_right_behind_the_identity_is_answered(open_lab):
    async with open_lab(auth_login=True) as manager:
        wire = Wire(await manager.dial())
        await wire.send({"result": "alice"}, {"result": "pw-a"})
        told = [await wire.line() for _ in range(3)]
        assert told[-1]["attribute"] == "identity"
        await wire.send({"result": {"type": "client", "name": "C"}}, request("Manager", "port", uid="7"))
        assert (await wire.line())["uid"] == "7"
        wire.transport.close()


async def test_an_admin_request_right_behind_the_identity_is_answered(open_lab):
    async with open_lab() as manager:
        wire = Wire(await manager.dial())
        await wire.line()
        await wire.send({"result": {"type": "client", "name": "C"}}, request("Manager", "port", uid="7"))
        assert (await wire.line())["attribute"] == "username"
        await wire.send(
            {"result": "alice"}, request("Manager", "unlink", "nobody", uid="8"), {"result": "pw-a"}
        )
        told = [await wire.line() for _ in range(3)]
        assert [(line.get("attribute"), line["uid"]) for line in told] == [
            ("password", ""),
            (None, "8"),
            (None, "7"),
        ]
        wire.transport.close()


async def test_a_mistake_of_ours_lets_nobody_in_and_is_logged(open_lab, monkeypatch, caplog):
    async def fail(*_):
        await trio.lowlevel.checkpoint()
        raise LookupError("a mistake")

    monkeypatch.setattr(database_module.ManagerDatabase, "is_known", fail)
    async with open_lab(auth_login=True) as manager:
        with pytest.raises(AuthenticationError, match="cannot check who you are: a mistake"):
            await admin(manager)
    assert any("a mistake" in str(record.exc_info) for record in caplog.records)


async def test_a_user_who_is_added_meanwhile_can_log_in_at_once(open_lab, users):
    async with open_lab(auth_login=True) as manager:
        with Database(users) as database:
            database.users.insert("eve", "pw-e", False)
        async with admin(manager, username="eve", password="pw-e") as client:
            assert client.is_connected()


async def test_a_login_without_users_makes_no_sense(tmp_path):
    for database in (tmp_path / "new.sqlite3", None):
        with pytest.raises(AuthenticationError, match="'auth_users' table of the database is empty"):
            async with open_manager(in_memory=True, database=database, auth_login=True):
                pass
    with pytest.raises(ValueError, match="Cannot specify multiple authentication methods"):
        open_manager(in_memory=True, auth_login=True, auth_hostname=True)


async def test_hosts_are_trusted_or_not_as_the_database_says_now(open_lab):
    async with open_lab(auth_hostname=True) as manager, admin(manager) as client:
        assert "localhost" in await client.admin_request("hostnames")
        await client.admin_request("hostnames_table.delete", "localhost")
        with pytest.raises(AuthenticationError, match="ValueError: 'localhost' is not a trusted hostname"):
            await admin(manager)
        await client.admin_request("hostnames_table.insert", "localhost")
        async with admin(manager) as other:
            assert other.is_connected()


# ---- admin requests ----


@pytest.mark.parametrize(
    ("attribute", "args", "kwargs", "expected"),
    [
        ("users_table.usernames", (), {}, ["alice", "bob"]),
        ("users_table.users", (), {}, [["alice", True], ["bob", False]]),
        ("users_table.is_admin", ("bob",), {}, False),
        ("users_table.is_user_registered", (), {"username": "alice"}, True),
        ("users_table.is_password_valid", ("alice", "pw-a"), {}, True),
        ("users_table.is_password_valid", ("zed", "pw-a"), {}, False),
        ("users_table.get_user", ("alice",), {}, [1, "alice", None, None, True]),
        ("users_table.get_user", ("zed",), {}, None),
        ("users_table.records", (), {}, [[1, "alice", None, None, True], [2, "bob", None, None, False]]),
        ("users_table.NAME", (), {}, "auth_users"),
        ("users_table.tables", (), {}, ["auth_hostnames", "auth_users", "connections"]),
        ("hostnames_table.column_names", ("auth_hostnames",), {}, ["hostname"]),
        (
            "connections_table.column_datatypes",
            ("auth_users",),
            {},
            ["INTEGER", "TEXT", "BLOB", "BLOB", "BOOLEAN"],
        ),
        ("port", (), {}, 0),
        ("port", ("ignored",), {}, 0),
        ("login", (), {}, None),
        ("hostnames", (), {}, None),
        ("password", (), {}, None),
        ("services", (), {}, {}),
        ("service_links", (), {}, {}),
        ("service_locks", (), {}, {}),
        ("set_logging_level", ("20",), {}, True),
        ("set_logging_level", ("loud",), {}, False),
    ],
)
async def test_results(open_lab, attribute, args, kwargs, expected):
    level = logging.getLogger("msl_network_trio").level
    try:
        async with open_lab() as manager, admin(manager) as client:
            assert await client.admin_request(attribute, *args, **kwargs) == expected
    finally:
        logging.getLogger("msl_network_trio").setLevel(level)


async def test_what_depends_on_how_the_manager_was_started(open_lab, users):
    async with open_lab(auth_login=True) as manager, admin(manager) as client:
        assert await client.admin_request("login") is True
    async with open_lab(auth_password="secret") as manager, admin(manager) as client:
        assert await client.admin_request("password") == "secret"
        assert await client.admin_request("users_table.path") == str(users)
        assert list(await client.admin_request("clients")) == [str(client)]


async def test_links_and_locks_are_told(open_lab):
    async with open_lab() as manager, admin(manager) as client:
        service = await dial(manager, "Echo", "service")
        link = await client.link("Echo")
        assert await client.admin_request("service_links") == {"Echo": [str(client)]}
        assert await client.admin_request("service_locks") == {"Echo": []}
        await link.acquire_lock()
        assert await client.admin_request("service_locks") == {"Echo": [str(client)]}
        assert list(await client.admin_request("services")) == ["Echo"]
        service.transport.close()


@pytest.mark.parametrize(
    ("attribute", "args", "message"),
    [
        ("nope", (), "AttributeError: 'Manager' object has no attribute 'nope'"),
        ("users_table.nope", (), "AttributeError: 'UsersTable' object has no attribute 'nope'"),
        ("users_table.execute", ("DROP TABLE auth_users",), "AttributeError"),
        ("users_table.close", (), "AttributeError"),
        ("users_table._connection", (), "AttributeError"),
        ("users_table.__class__", (), "AttributeError"),
        ("users_table.usernames.__self__", (), "AttributeError"),
        ("users_table.connection.close", (), "AttributeError"),
        ("hostnames.remove", ("localhost",), "AttributeError"),
        ("__class__", (), "AttributeError"),
        ("_database", (), "AttributeError"),
        ("shutdown", (), "AttributeError"),
        ("users_table", (), "TypeError: Object of type UsersTable is not JSON serializable"),
        ("users_table.is_admin", (), "TypeError: UsersTable.is_admin() missing 1 required positional"),
        ("users_table.is_admin", ({},), "ProgrammingError|InterfaceError"),
        ("users_table.is_admin", (2**70,), "OverflowError"),
        ("users_table.is_admin", ("x", "y"), "TypeError"),
        ("users_table.delete", ("zed",), "ValueError: Cannot delete 'zed'. This user is not in the table."),
        (
            "users_table.insert",
            ("alice", "x", True),
            "ValueError: A user with the name 'alice' already exists",
        ),
        (
            "hostnames_table.delete",
            ("x",),
            "ValueError: Cannot delete 'x'. This hostname is not in the table.",
        ),
        ("connections_table.connections", ("2026",), "TypeError"),
        ("set_logging_level", (), "TypeError"),
    ],
)
async def test_errors(open_lab, attribute, args, message):
    async with open_lab() as manager, admin(manager) as client:
        with pytest.raises(ManagerError) as caught:
            await client.admin_request(attribute, *args)
        found = caught.value.message
        assert any(found.startswith(each) for each in message.split("|"))
        assert await client.admin_request("users_table.usernames") == ["alice", "bob"]


async def test_users_are_managed_from_afar(open_lab, users):
    async with open_lab() as manager, admin(manager) as client:
        assert await client.admin_request("users_table.insert", "eve", "pw-e", True) is None
        async with admin(manager, username="eve", password="pw-e") as eve:
            assert await eve.admin_request("port") == 0
        await client.admin_request("users_table.update", "eve", password="new", is_admin=False)
        await client.admin_request("users_table.delete", "bob")
    with Database(users) as database:
        assert database.users.users() == [("alice", True), ("eve", False)]
        assert database.users.is_password_valid("eve", "new")


async def test_secrets_are_not_logged(open_lab, caplog):
    caplog.set_level(logging.DEBUG)
    async with open_lab(auth_password="geheim-1") as manager, admin(manager) as client:
        await client.admin_request("users_table.insert", "eve", "geheim-2", False)
        await client.admin_request("users_table.update", "eve", password="geheim-3")
    async with open_lab(auth_login=True) as manager:
        with pytest.raises(AuthenticationError):
            await admin(manager, password="geheim-4")
    assert "geheim" not in caplog.text
    assert "pw-a" not in caplog.text


async def test_an_administrator_shuts_the_manager_down(open_lab):
    async with open_lab() as manager, connect(**manager.connect_kwargs()) as other:
        async with admin(manager) as client:
            assert await client.admin_request(SHUTDOWN_MANAGER) is None
        await manager.wait_closed()
        with pytest.raises(ConnectionLost):
            await other.identities()


async def test_who_is_no_administrator_shuts_nothing_down(open_lab):
    async with open_lab() as manager, admin(manager, username="bob", password="pw-b") as client:
        with pytest.raises(ManagerError, match="You must be an administrator"):
            await client.admin_request(SHUTDOWN_MANAGER)
        assert client.is_connected()


# ---- who has connected ----


async def test_connections_are_recorded_and_told(open_lab, users):
    async with open_lab() as manager, admin(manager) as client:
        wire = await dial(manager, "Echo", "service")
        wire.transport.close()
        while manager.identity()["services"]:
            await trio.sleep(0.01)
        records = await client.admin_request("connections_table.connections")
        assert [record[0] for record in records] == list(range(1, len(records) + 1))
        assert {tuple(record[2:5]) for record in records if record[4] == client.port} == {
            ("127.0.0.1", "localhost", client.port)
        }
        messages = [record[5] for record in records]
        assert messages == [
            "new connection request",
            "connected as a client",
            "new connection request",
            "connected as a service",
            "disconnected",
        ]
        year = records[0][1][:4]
        assert await client.admin_request("connections_table.connections", start=year) == records
        assert await client.admin_request("connections_table.connections", end=year) == []
    with Database(users) as database:
        assert database.connections.connections()[-1][5] == "disconnected"  # written in the end


async def test_a_manager_in_memory_keeps_nothing_unless_it_is_told_where(home):
    async with open_manager(in_memory=True) as manager, admin(manager) as client:
        with pytest.raises(ManagerError, match="Unregistered user"):
            await client.admin_request("port")
    assert not home.exists()


# ---- a database that does not work ----


async def test_a_database_that_cannot_be_used_is_told_when_the_manager_starts(tmp_path):
    path = tmp_path / "text"
    path.write_text("no database " * 1000)
    with pytest.raises(DatabaseError, match="cannot be used: file is not a database"):
        async with open_manager(in_memory=True, database=path):
            pass


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(tables, "_BUSY_TIMEOUT", 0.05)


@pytest.mark.parametrize("settings", [{"auth_login": True}, {"auth_hostname": True}])
async def test_while_the_database_is_locked_who_connects_is_told_and_afterwards_all_is_well(
    open_lab, users, impatient, settings
):
    async with open_lab(**settings) as manager:
        async with locked(users):
            with pytest.raises(AuthenticationError, match="cannot check who you are") as caught:
                await admin(manager)
            assert "database is locked" in str(caught.value)
            assert str(users) not in str(caught.value)
        async with admin(manager) as client:
            assert await client.admin_request("port") == 0


async def test_while_the_database_is_locked_everything_else_goes_on(open_lab, users, impatient, caplog):
    async with open_lab() as manager, admin(manager) as client:
        assert await client.admin_request("port") == 0
        async with locked(users):
            with pytest.raises(ManagerError, match="database is locked"):
                await client.admin_request("users_table.usernames")
            async with connect(**manager.connect_kwargs()) as other:
                assert await other.identities()
            with pytest.raises(ManagerError, match="database is locked"):
                await client.admin_request("users_table.insert", "eve", "x", False)
        assert await client.admin_request("users_table.usernames") == ["alice", "bob"]
        other_port = other.port
    assert caplog.text.count("connections cannot be recorded") <= 2
    with Database(users) as database:  # what could not be written then was later
        kept = [record[5] for record in database.connections.connections() if record[4] == other_port]
    assert kept == ["new connection request", "connected as a client", "disconnected"]


async def test_records_that_cannot_be_written_do_not_fill_the_memory(
    open_lab, users, impatient, caplog, monkeypatch
):
    monkeypatch.setattr(database_module, "_RECORD_LIMIT", 20)
    async with open_lab() as manager:
        async with locked(users):
            for _ in range(30):
                async with connect(**manager.connect_kwargs()):
                    pass
            while "connections cannot be recorded" not in caplog.text:
                await trio.sleep(0.01)
        async with admin(manager) as client:
            # Of 90; as many again may be in the hands of the worker thread.
            assert len(await client.admin_request("connections_table.connections")) <= 45
            while "connections are recorded in the database again" not in caplog.text:
                async with connect(**manager.connect_kwargs()):
                    pass
    assert re.search("again, [1-9][0-9]* records are lost", caplog.text)


async def test_a_slow_database_does_not_hold_up_anybody_but_who_asks(open_lab, monkeypatch):
    started, go_on = trio.Event(), trio.Event()
    token = trio.lowlevel.current_trio_token()
    real = tables.UsersTable.usernames

    def slow(self):
        trio.from_thread.run_sync(started.set, trio_token=token)
        trio.from_thread.run(go_on.wait, trio_token=token)
        return real(self)

    async with open_lab() as manager, admin(manager) as client, trio.open_nursery() as nursery:
        assert await client.admin_request("port") == 0
        monkeypatch.setattr(tables.UsersTable, "usernames", slow)

        async def ask():
            assert await client.admin_request("users_table.usernames") == ["alice", "bob"]
            answered.set()

        answered = trio.Event()
        nursery.start_soon(ask)
        await started.wait()
        async with connect(**manager.connect_kwargs()) as other:
            for _ in range(10):
                await other.identities()
        assert not answered.is_set()
        go_on.set()
        await answered.wait()


async def test_a_database_that_never_answers_is_given_up(open_lab, monkeypatch):
    go_on = trio.Event()
    token = trio.lowlevel.current_trio_token()

    def stuck(self):
        trio.from_thread.run(go_on.wait, trio_token=token)

    async with open_lab() as manager, admin(manager) as client:
        assert await client.admin_request("port") == 0
        monkeypatch.setattr(database_module, "WAIT", 0.1)
        monkeypatch.setattr(tables.UsersTable, "usernames", stuck)
        for attribute in ("users_table.usernames", "hostnames_table.hostnames"):
            with pytest.raises(ManagerError, match="the database does not answer within 0.1 seconds"):
                await client.admin_request(attribute)
        go_on.set()
        monkeypatch.setattr(database_module, "WAIT", 10)
        assert "localhost" in await client.admin_request("hostnames_table.hostnames")


async def test_the_manager_may_end_while_the_database_is_at_work(open_lab, monkeypatch):
    started, go_on = trio.Event(), trio.Event()
    token = trio.lowlevel.current_trio_token()
    monkeypatch.setattr(database_module, "_CLOSE_TIMEOUT", 0.1)

    def stuck(self):
        trio.from_thread.run_sync(started.set, trio_token=token)
        trio.from_thread.run(go_on.wait, trio_token=token)

    monkeypatch.setattr(tables.HostnamesTable, "hostnames", lambda self: ["localhost"])
    async with open_lab() as manager:
        monkeypatch.setattr(tables.UsersTable, "usernames", stuck)
        wire = await dial(manager)
        for line in (request("Manager", "users_table.usernames"), {"result": "alice"}, {"result": "pw-a"}):
            await wire.send(line)
        await started.wait()
        manager.shutdown()
        await manager.wait_closed()
    go_on.set()


async def test_a_peer_that_goes_while_its_password_is_checked_harms_nobody(open_lab):
    async with open_lab(auth_login=True) as manager:
        for _ in range(5):
            wire = Wire(await manager.dial())
            await wire.send(
                {"result": "alice"}, {"result": "pw-a"}, {"result": {"type": "client", "name": "C"}}
            )
            wire.transport.close()
        async with admin(manager) as client:
            assert await client.admin_request("port") == 0
            while len(manager.identity()["clients"]) > 1:
                await trio.sleep(0.01)
