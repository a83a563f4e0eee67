"""Tests of rights that are revoked from users and hosts with open connections."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio

from msl_network_trio import AuthenticationError, connect
from msl_network_trio.exceptions import ManagerError
from msl_network_trio.manager import passwords, rights
from msl_network_trio.manager.opening import open_manager
from msl_network_trio.manager.tables import Database
from tests.manager.wires import Wire, dial
from tests.protocol.network import request

NO_ADMIN = "You must be an administrator to send this request to the Manager"


@pytest.fixture
def users(tmp_path, monkeypatch):
    monkeypatch.setattr(passwords, "_ITERATIONS", 10)
    path = tmp_path / "lab.sqlite3"
    with Database(path) as database:
        for name in ("alice", "eve"):
            database.users.insert(name, f"pw-{name}", True)
        database.users.insert("bob", "pw-bob", False)
    return path


@pytest.fixture
def open_lab(users):
    @asynccontextmanager
    async def open_one(**settings):
        with trio.fail_after(60):
            async with open_manager(in_memory=True, database=users, login_delay=0, **settings) as manager:
                yield manager

    return open_one


def enter(manager, username="alice", **more):
    return connect(**{**manager.connect_kwargs(), "username": username, "password": f"pw-{username}", **more})


async def dial_as(manager, username):
    """Log in, say who we are, and wait until the Manager knows it."""
    wire = Wire(await manager.dial())
    for answer in (username, f"pw-{username}"):
        await wire.line()
        await wire.send({"result": answer})
    await wire.enter()
    return wire


class ByAdmin:
    """Changes that an administrator requests."""

    def __init__(self, client, path):
        self._client = client

    async def __call__(self, request, *args, **kwargs):
        await self._client.admin_request(request, *args, **kwargs)


class ByProgram:
    """Changes that another program makes, such as the command ``user``."""

    def __init__(self, client, path):
        self._path = path

    async def __call__(self, request, *args, **kwargs):
        table, method = request.split(".")
        with Database(self._path) as database:
            table = {"users_table": database.users, "hostnames_table": database.hostnames}[table]
            getattr(table, method)(*args, **kwargs)


@pytest.fixture(params=[ByAdmin, ByProgram])
def change_by(request, monkeypatch):
    if request.param is ByProgram:
        monkeypatch.setattr(rights, "_INTERVAL", 0.02)
    return request.param


@pytest.mark.parametrize("auth_login", [False, True])
async def test_who_is_demoted_is_no_administrator_any_more(open_lab, users, change_by, auth_login):
    async with (
        open_lab(auth_login=auth_login) as manager,
        enter(manager) as alice,
        enter(manager, "eve") as eve,
    ):
        assert await eve.admin_request("port") == 0
        await change_by(alice, users)("users_table.update", "eve", is_admin=False)
        with pytest.raises(ManagerError, match=NO_ADMIN):
            await eve.admin_request("users_table.usernames")
        assert await eve.identities()
        assert await alice.admin_request("port") == 0
        await change_by(alice, users)("users_table.update", "eve", is_admin=True)
        assert await eve.admin_request("port") == 0


@pytest.mark.parametrize("again", [False, True])
async def test_a_user_who_is_deleted_is_no_administrator_any_more(open_lab, users, change_by, again):
    async with open_lab() as manager, enter(manager) as alice, enter(manager, "eve") as eve:
        assert await eve.admin_request("port") == 0
        await change_by(alice, users)("users_table.delete", "eve")
        if again:  # which is another user, even if it has the same name
            await change_by(alice, users)("users_table.insert", "eve", "new", True)
        with pytest.raises(ManagerError, match="the user 'eve' was deleted|Unregistered|Wrong"):
            await eve.admin_request("port")
        assert await eve.identities()


@pytest.mark.parametrize("username", ["eve", "bob"])
async def test_the_connections_of_a_deleted_user_that_needed_the_login_are_closed(
    open_lab, users, change_by, username
):
    async with open_lab(auth_login=True) as manager, enter(manager) as alice:
        wires = [await dial_as(manager, username) for _ in range(2)]
        await change_by(alice, users)("users_table.delete", username)
        for wire in wires:
            [line] = await wire.lines()
            assert line["message"] == f"ConnectionAbortedError: the user '{username}' was deleted"
            wire.transport.close()
        assert await alice.admin_request("port") == 0
        with pytest.raises(AuthenticationError, match="Unregistered user"):
            await enter(manager, username)


async def test_a_changed_password_takes_admin_rights_away_until_the_next_login(open_lab, users, change_by):
    async with open_lab(auth_login=True) as manager, enter(manager) as alice, enter(manager, "eve") as eve:
        assert await eve.admin_request("port") == 0
        await change_by(alice, users)("users_table.update", "eve", password="new")
        with pytest.raises(ManagerError, match="the password of 'eve' was changed, log in again|Wrong login"):
            await eve.admin_request("port")
        assert await eve.identities()
        async with enter(manager, "eve", password="new") as again:
            assert await again.admin_request("port") == 0


async def test_a_request_that_waits_for_room_is_refused_if_the_rights_are_taken_away_meanwhile(
    open_lab, users
):
    with Database(users) as database:
        for number in range(100):
            database.hostnames.insert(f"{number:x>50000}")
    async with open_lab(auth_login=True) as manager, enter(manager) as alice:
        wire = await dial_as(manager, "eve")
        await wire.send(request("Manager", "hostnames_table.hostnames", uid="large"))
        await wire.send(request("Manager", "users_table.insert", "mallory", "pw", True, uid="late"))
        begin = (
            await wire.transport.receive()
        )  # the rest of the answer waits for us, and the next request for that
        await alice.admin_request("users_table.update", "eve", is_admin=False)
        wire._received = begin + wire._received
        assert len((await wire.line())["result"]) > 100
        answer = await wire.line()
        assert (answer["uid"], answer["error"]) == ("late", True)
        assert "'eve' is no administrator any more" in answer["message"]
        assert "mallory" not in await alice.admin_request("users_table.usernames")


async def test_who_changes_its_own_password_stays_an_administrator_on_that_connection_only(open_lab):
    async with open_lab() as manager, enter(manager) as one, enter(manager) as other:
        assert await other.admin_request("port") == 0
        for kwargs in [{"password": "new"}, {"password": "newer", "is_admin": True}]:
            await one.admin_request("users_table.update", "alice", **kwargs)
            assert await one.admin_request("port") == 0
        await one.admin_request("users_table.update", username="alice", password="newest")
        assert await one.admin_request("port") == 0
        with pytest.raises(ManagerError, match="was changed, log in again|Wrong login password"):
            await other.admin_request("port")
        await one.admin_request("users_table.update", "alice", is_admin=False)
        with pytest.raises(ManagerError, match=NO_ADMIN):
            await one.admin_request("port")


async def test_who_deletes_itself_gets_the_answer(open_lab):
    async with open_lab(auth_login=True) as manager:
        wire = await dial_as(manager, "alice")
        await wire.send(request("Manager", "users_table.delete", "alice", uid="7"))
        answer, last = await wire.lines()
        assert (answer["uid"], answer["error"]) == ("7", False)
        assert last["message"] == "ConnectionAbortedError: the user 'alice' was deleted"
        wire.transport.close()


async def test_connections_of_a_host_that_is_not_trusted_any_more_are_closed_but_for_administrators(
    open_lab, users, change_by
):
    async with open_lab(auth_hostname=True) as manager, enter(manager) as alice:
        assert await alice.admin_request("port") == 0
        wire = await dial(manager)
        await change_by(alice, users)("hostnames_table.delete", "localhost")
        [line] = await wire.lines()
        assert line["message"] == "ValueError: 'localhost' is not a trusted hostname any more"
        wire.transport.close()
        await alice.admin_request("hostnames_table.insert", "localhost")  # it was a mistake
        async with connect(**manager.connect_kwargs()) as client:
            assert await client.identities()


async def test_without_the_login_a_user_who_is_deleted_stays_connected(open_lab, users, monkeypatch):
    looked = trio.Event()
    real = rights.Rights._enforce

    async def enforce(self):
        await real(self)
        looked.set()

    monkeypatch.setattr(rights.Rights, "_enforce", enforce)
    async with open_lab() as manager, enter(manager) as alice, enter(manager, "eve") as eve:
        assert await eve.admin_request("port") == 0
        await alice.admin_request("users_table.delete", "eve")
        await looked.wait()
        assert await eve.identities()


async def test_a_database_that_cannot_be_used_takes_nobody_s_rights(open_lab, users, monkeypatch):
    monkeypatch.setattr(rights, "_INTERVAL", 0.01)
    failed = trio.Event()
    async with open_lab(auth_login=True) as manager, enter(manager) as alice:
        assert await alice.admin_request("port") == 0
        database = manager._database
        real = database.call

        async def fail(function):
            failed.set()
            raise rights.DatabaseError("the disk is on fire")

        monkeypatch.setattr(database, "call", fail)
        await failed.wait()
        with pytest.raises(ManagerError, match="the disk is on fire"):
            await alice.admin_request("port")
        monkeypatch.setattr(database, "call", real)
        assert await alice.admin_request("port") == 0


async def test_as_long_as_nobody_has_rights_the_database_is_left_alone(open_lab, monkeypatch):
    monkeypatch.setattr(rights, "_INTERVAL", 0.0)
    calls = []
    monkeypatch.setattr(rights.Rights, "_enforce", lambda self: calls.append(1))
    async with open_lab() as manager, connect(**manager.connect_kwargs()) as client:
        for _ in range(20):
            await client.identities()
    assert calls == []


async def test_who_logs_in_while_the_database_is_looked_at_is_not_taken_for_deleted(
    open_lab, users, monkeypatch
):
    async with open_lab(auth_login=True) as manager:
        await dial_as(manager, "bob")
        database = manager._rights._database
        call, came, looked = database.call, [], trio.Event()

        async def call_and_be_late(function):
            found = await call(function)
            if function.__name__ == "look_up" and not came:
                with Database(users) as other:
                    other.users.insert("new", "pw-new", False)
                came.append(await dial_as(manager, "new"))
                looked.set()
            return found

        monkeypatch.setattr(database, "call", call_and_be_late)
        manager._rights.change()
        await looked.wait()
        answer = await came[0].ask("Manager", "identity", uid="7")
        assert (answer["error"], answer["uid"]) == (False, "7")
