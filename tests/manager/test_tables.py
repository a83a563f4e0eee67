"""The database, compared with that of msl-network 1.0.0, which reads and writes the same file."""

from __future__ import annotations

import datetime as dt
import inspect
import sqlite3
import stat
import sys
import threading
import time

import pytest
from msl.network import database as reference

from msl_network_trio.exceptions import DatabaseError, NetworkError
from msl_network_trio.manager import tables
from msl_network_trio.manager.passwords import hash_password, is_password
from msl_network_trio.manager.tables import Database, glance, is_readable_by_others

CLASSES = {
    "users": (tables.UsersTable, reference.UsersTable),
    "hostnames": (tables.HostnamesTable, reference.HostnamesTable),
    "connections": (tables.ConnectionsTable, reference.ConnectionsTable),
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "lab.sqlite3"


@pytest.fixture
def database(path):
    with Database(path) as database:
        yield database


@pytest.fixture
def theirs(path):
    """The tables of the reference in the same file."""
    opened = {name: their_class(database=str(path)) for name, (_, their_class) in CLASSES.items()}
    yield opened
    for table in opened.values():
        table.close()


# ---- one file for both ----


def test_the_tables_are_those_of_the_reference(tmp_path, database):
    other = str(tmp_path / "theirs.sqlite3")
    for name, (_, their_class) in CLASSES.items():
        table = their_class(database=other)
        ours = getattr(database, name)
        assert ours.NAME == table.NAME
        assert ours.table_info(ours.NAME) == table.table_info(table.NAME)
        assert ours.column_names(ours.NAME) == table.column_names(table.NAME)
        assert ours.column_datatypes(ours.NAME) == table.column_datatypes(table.NAME)
        if name == "hostnames":
            assert set(ours.hostnames()) >= set(table.hostnames())
        table.close()
    assert database.users.tables() == ["auth_hostnames", "auth_users", "connections"]
    assert database.users.table_info("nothing'); DROP TABLE auth_users; --") == []


def test_methods_have_the_arguments_of_the_reference():
    for ours, theirs in CLASSES.values():
        for name, method in inspect.getmembers(theirs, inspect.isfunction):
            if (
                name.startswith("_")
                or name in {"close", "execute"}
                or (name, ours.NAME) == ("insert", "connections")
            ):
                continue
            expected, found = (inspect.signature(each).parameters for each in (method, getattr(ours, name)))
            assert list(found) == list(expected)
            for parameter in found:
                assert (found[parameter].default, found[parameter].kind) == (
                    expected[parameter].default,
                    expected[parameter].kind,
                )


@pytest.mark.parametrize("password", ["a", "se cret", "pässwörd \N{PARTY POPPER}", "x" * 1000])
def test_each_reads_the_users_of_the_other(database, theirs, password):
    database.users.insert("ours", password, True)
    theirs["users"].insert("theirs", password, False)
    for users in (database.users, theirs["users"]):
        assert users.users() == [("ours", True), ("theirs", False)]
        assert users.usernames() == ["ours", "theirs"]
        for name in ("ours", "theirs"):
            assert users.is_user_registered(name)
            assert users.is_password_valid(name, password)
            assert not users.is_password_valid(name, f"{password} ")
            assert users.is_admin(name) is (name == "ours")
        assert not users.is_password_valid("nobody", password)
        assert not users.is_admin("nobody")
        assert users.get_user("nobody") is None
    assert database.users.records() == theirs["users"].records()
    assert database.users.get_user("ours") == theirs["users"].get_user("ours")


def test_each_changes_the_users_of_the_other(database, theirs):
    theirs["users"].insert("theirs", "a", False)
    database.users.insert("ours", "a", False)
    database.users.update("theirs", password="b", is_admin=True)
    theirs["users"].update("ours", password="b")
    for users in (database.users, theirs["users"]):
        assert users.is_password_valid("theirs", "b")
        assert users.is_password_valid("ours", "b")
        assert users.users() == [("ours", False), ("theirs", True)]
    database.users.update("ours", is_admin=True)
    assert theirs["users"].is_password_valid("ours", "b")
    assert theirs["users"].is_admin("ours")
    database.users.delete("theirs")
    theirs["users"].delete("ours")
    assert database.users.usernames() == theirs["users"].usernames() == []


def test_each_reads_the_hostnames_of_the_other(database, theirs):
    database.hostnames.insert("lab-3")
    theirs["hostnames"].insert("lab-4")
    for hostnames in (database.hostnames, theirs["hostnames"]):
        assert {"lab-3", "lab-4", "localhost"} <= set(hostnames.hostnames())
        hostnames.insert("lab-4")
    database.hostnames.delete("lab-4")
    theirs["hostnames"].delete("lab-3")
    assert not {"lab-3", "lab-4"} & set(database.hostnames.hostnames())
    assert database.hostnames.is_trusted("localhost")
    assert not database.hostnames.is_trusted("lab-3")


def test_each_reads_the_connections_of_the_other(database, theirs):
    class Peer:
        ip_address, domain, port = "10.0.0.5", "lab-5.example.org", 7

    theirs["connections"].insert(Peer, "connected as a client")
    database.connections.insert_all([("2026-11-26T12:00:00", "10.0.0.6", "lab-6", 8, "disconnected")])
    ours = database.connections.connections()
    assert ours == theirs["connections"].connections()
    assert [record[2:] for record in ours] == [
        ("10.0.0.5", "lab-5.example.org", 7, "connected as a client"),
        ("10.0.0.6", "lab-6", 8, "disconnected"),
    ]
    assert dt.datetime.fromisoformat(ours[0][1])


@pytest.mark.parametrize(
    ("table", "method", "args", "kwargs"),
    [
        ("users", "insert", ("lab:1", "a", True), {}),
        ("users", "insert", ("alice", "a", True), {}),
        ("users", "insert", ("eve", "", True), {}),
        ("users", "insert", ("eve", None, True), {}),
        ("users", "update", ("zed",), {"password": "a"}),
        ("users", "update", ("alice",), {}),
        ("users", "update", ("alice",), {"password": ""}),
        ("users", "delete", ("zed",), {}),
        ("hostnames", "delete", ("nowhere",), {}),
        ("users", "is_admin", (), {}),
        ("users", "insert", ("eve", "a"), {}),
        ("users", "update", ("alice", "a"), {}),
    ],
)
def test_errors_are_those_of_the_reference(database, theirs, table, method, args, kwargs):
    database.users.insert("alice", "a", False)
    found = []
    for each in (getattr(database, table), theirs[table]):
        with pytest.raises((ValueError, TypeError)) as caught:
            getattr(each, method)(*args, **kwargs)
        found.append((caught.type, str(caught.value)))
    assert found[0] == found[1]
    assert database.users.usernames() == ["alice"]


@pytest.mark.parametrize(
    ("args", "error"),
    [(("", "a", False), ValueError), ((5, "a", False), TypeError), (("eve", 5, False), TypeError)],
)
def test_what_no_user_can_be_is_none(database, args, error):
    with pytest.raises(error):
        database.users.insert(*args)
    assert database.users.usernames() == []


def test_what_no_host_can_be_is_none(database):
    with pytest.raises(ValueError, match="empty"):
        database.hostnames.insert("")
    with pytest.raises(TypeError):
        database.hostnames.insert(5)


# ---- connections of a time, which fails in the reference ----

TIMES = ["2026-01-01T10:00:00", "2026-01-02T00:00:00", "2026-01-02T10:00:00", "2026-01-03T10:00:00"]


@pytest.mark.parametrize(
    ("kwargs", "expected"),
    [
        ({}, TIMES),
        ({"start": "2026-01-02"}, TIMES[1:]),
        ({"start": "2026-01-02T10:00:00"}, TIMES[2:]),
        ({"end": "2026-01-02"}, TIMES[:2]),
        ({"end": "2026-01-02T10:00:00"}, TIMES[:3]),
        ({"start": "2026-01-02", "end": "2026-01-02T23:59:59"}, TIMES[1:3]),
        ({"start": dt.datetime(2026, 1, 2), "end": dt.datetime(2026, 1, 2, 10)}, TIMES[1:3]),
        ({"start": "2027-01-01"}, []),
    ],
)
def test_connections_of_a_time(database, theirs, kwargs, expected):
    database.connections.insert_all([(when, "10.0.0.5", "lab-5", 1, "x") for when in TIMES])
    assert [record[1] for record in database.connections.connections(**kwargs)] == expected
    if kwargs:
        with pytest.raises(sqlite3.OperationalError):
            theirs["connections"].connections(**kwargs)


def numbered(numbers):
    return [("2026-11-26T12:00:00", "10.0.0.5", "lab-5", number, "x") for number in numbers]


def test_only_the_latest_connections_are_kept_and_the_reference_reads_them(database, theirs):
    table = database.connections
    for begin in range(0, 30, 10):
        table.insert_all(numbered(range(begin, begin + 10)), at_most=15)
    assert [record[4] for record in table.connections()] == [*range(15, 30)]
    assert theirs["connections"].connections() == table.connections()

    class Peer:
        ip_address, domain, port = "10.0.0.5", "lab-5.example.org", 30

    theirs["connections"].insert(Peer, "connected as a client")
    assert [record[4] for record in table.connections()] == [*range(15, 31)]
    table.insert_all(numbered([31]), at_most=15)
    assert [record[4] for record in table.connections()] == [*range(17, 32)]
    table.insert_all(numbered(range(32, 50)))
    assert len(table.connections()) == 33


def test_a_table_that_is_far_too_large_becomes_smaller_bit_by_bit(database, monkeypatch):
    monkeypatch.setattr(tables, "_DELETE_BATCH", 10)
    table = database.connections
    table.insert_all(numbered(range(100)))
    sizes = []
    for number in range(100, 112):
        table.insert_all(numbered([number]), at_most=5)
        sizes.append(len(table.connections()))
    assert sizes == [91, 82, 73, 64, 55, 46, 37, 28, 19, 10, 5, 5]
    assert [record[4] for record in table.connections()] == [*range(107, 112)]


# ---- passwords ----


def test_two_users_with_the_same_password_have_nothing_in_common():
    first, second = hash_password("a"), hash_password("a")
    assert first[0] != second[0]
    assert first[1] != second[1]
    assert b"a" not in first


def test_to_check_the_password_of_nobody_takes_as_long():
    key, salt = hash_password("right")

    def seconds(*kept) -> float:
        return min(_timed(lambda: is_password("wrong", *kept)) for _ in range(5))

    assert seconds(None, None) > seconds(key, salt) / 3


def _timed(function) -> float:
    start = time.thread_time()
    assert function() is False
    return time.thread_time() - start


def test_a_password_that_is_no_unicode_is_just_wrong():
    assert not is_password("\ud800", *hash_password("a"))


# ---- files ----


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
def test_a_new_file_is_for_its_owner_only(path, database):
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not is_readable_by_others(str(path))
    path.chmod(0o644)
    assert is_readable_by_others(str(path))


def test_folders_that_are_missing_are_made(tmp_path):
    path = tmp_path / "a" / "b" / "lab.sqlite3"
    Database(path).close()
    assert path.exists()


def test_a_database_in_memory_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Database(tables.IN_MEMORY) as database:
        database.users.insert("alice", "a", True)
        assert not is_readable_by_others(database.path)
    assert list(tmp_path.iterdir()) == []


def test_two_that_make_the_same_file_at_the_same_time_both_can_use_it(path):
    errors = []

    def work(number):
        try:
            with Database(path) as database:
                for each in range(5):
                    database.users.insert(f"user-{number}-{each}", "a", False)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with Database(path) as database:
        assert len(database.users.usernames()) == 20


@pytest.mark.parametrize("content", [b"this is no database" * 1000, b"SQLite format 3\0" + b"\xff" * 5000])
def test_what_is_no_database_is_told_with_its_path_and_stays_as_it_is(path, content):
    path.write_bytes(content)
    with pytest.raises(DatabaseError, match="^The database .*lab.sqlite3 cannot be used: ") as caught:
        Database(path)
    assert isinstance(caught.value, NetworkError)
    assert path.read_bytes() == content


def test_a_folder_is_no_database(tmp_path):
    with pytest.raises(DatabaseError, match="cannot be used"):
        Database(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(DatabaseError, match="cannot be used"):
        Database(tmp_path / "file" / "lab.sqlite3")


def test_a_database_that_others_keep_for_themselves_is_told(path, monkeypatch):
    monkeypatch.setattr(tables, "_BUSY_TIMEOUT", 0.05)
    Database(path).close()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(DatabaseError, match="database is locked"):
        Database(path)
    other.close()
    Database(path).close()


def test_a_database_of_another_shape_is_told(path):
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE auth_hostnames (something TEXT);")
    other.close()
    with pytest.raises(DatabaseError, match="no such column: hostname"):
        Database(path)


# ---- at a glance ----


def test_a_glance_makes_nothing_and_raises_nothing(path, tmp_path):
    assert glance(path, "username", "auth_users") == []
    assert not path.exists()
    with Database(path) as database:
        database.users.insert("alice", "a", True)
        assert glance(path, "username", "auth_users") == ["alice"]
    assert glance(path, "nothing", "auth_users") == []
    assert glance(tmp_path, "username", "auth_users") == []
