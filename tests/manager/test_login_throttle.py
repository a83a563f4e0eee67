"""LoginThrottle at a Manager in memory: right ones are not refused because of each other, and guesses are bounded."""

from __future__ import annotations

import sqlite3
import threading
from collections import Counter
from contextlib import closing

import pytest
import trio

from msl_network_trio import AuthenticationError, connect
from msl_network_trio.exceptions import ManagerError
from msl_network_trio.limits.login_throttle import Outcome
from msl_network_trio.manager import password_checks, passwords
from msl_network_trio.manager.opening import open_manager
from msl_network_trio.manager.tables import Database
from tests.manager.wires import Wire, dial
from tests.protocol.network import request


@pytest.fixture
def hashed(monkeypatch):
    """Replace the hashes by fast ones, and return the passwords hashed."""
    monkeypatch.setattr(passwords, "_ITERATIONS", 10)
    found: list[str] = []
    lock, real = threading.Lock(), password_checks.is_password

    def is_password(password, key, salt):
        with lock:
            found.append(password)
        return real(password, key, salt)

    monkeypatch.setattr(password_checks, "is_password", is_password)
    return found


@pytest.fixture
def many(hashed, tmp_path):
    """The file of a database with many users, and one administrator."""
    path = tmp_path / "lab.sqlite3"
    with Database(path) as database:
        database.users.insert("alice", "pw-a", True)
    rows = [(f"user-{number}", *passwords.hash_password(f"pw-{number}")) for number in range(60)]
    with closing(sqlite3.connect(path)) as connection, connection:  # at once, which is fast
        connection.executemany("INSERT INTO auth_users VALUES(NULL, ?, ?, ?, 0)", rows)
    return path


@pytest.fixture
async def lab(many):
    with trio.fail_after(60):
        async with open_manager(in_memory=True, database=many, auth_login=True, login_delay=0) as manager:
            yield manager


async def log_in(manager, username, password):
    """Return what the Manager says: ``"identity"``, or an error line."""
    wire = Wire(await manager.dial())
    await wire.send({"result": username})
    line = await wire.line()
    while line.get("attribute") in {"username", "password"}:
        if line["attribute"] == "password":
            await wire.send({"result": password})
        line = await wire.line()
    wire.transport.close()
    return line if line["error"] else line["attribute"]


async def all_of(manager, *logins):
    """Log in at the same moment, and return what the Manager says, counted."""
    said = Counter()

    async def one(username, password):
        line = await log_in(manager, username, password)
        said[line if isinstance(line, str) else line["message"]] += 1

    async with trio.open_nursery() as nursery:
        for login in logins:
            nursery.start_soon(one, *login)
    return said


async def test_any_number_of_right_logins_of_one_user_share_one_hash(lab, hashed):
    assert await all_of(lab, *[("alice", "pw-a")] * 150) == {"identity": 150}
    assert hashed == ["pw-a"]


async def test_many_users_of_one_host_get_in_at_the_same_moment(lab, hashed):
    logins = [(f"user-{number}", f"pw-{number}") for number in range(60)]
    assert await all_of(lab, *logins * 3) == {"identity": 180}
    assert len(hashed) == 60


async def test_among_failures_of_others_right_logins_get_in(lab):
    right = [(f"user-{number}", f"pw-{number}") for number in range(50)]
    wrong = [("alice", "guess")] * 9 + [(f"nobody-{number}", "guess") for number in range(30)]
    said = await all_of(lab, *right, *wrong)
    assert said == {
        "identity": 50,
        "ValueError: Wrong login password": 9,
        "ValueError: Unregistered user": 30,
    }
    assert await log_in(lab, "alice", "pw-a") == "identity"


async def test_guesses_at_the_same_moment_are_no_way_around_the_limit(lab, hashed):
    said = await all_of(lab, *[("alice", f"guess-{number}") for number in range(50)])
    assert said.pop("ValueError: Wrong login password") == 10
    assert sum(name.startswith("guess") for name in hashed) == 10
    [(text, count)] = said.items()
    assert text.startswith("ValueError: Too many logins from ")
    assert count == 40
    line = await log_in(lab, "alice", "pw-a")
    assert line["message"].startswith("ValueError: Too many logins from ")
    assert 0 < line["again"] <= 60
    assert f"the next one may begin in {line['again']} s" in line["message"]
    assert await log_in(lab, "user-1", "pw-1") == "identity"
    assert lab.status()["limits"]["login_attempts"]["hits"] == 41


async def test_who_has_logged_in_before_is_not_refused_because_of_guesses_of_many_users(lab):
    assert await log_in(lab, "alice", "pw-a") == "identity"
    said = await all_of(lab, *[(f"nobody-{number}", "x") for number in range(150)])
    assert said.pop("ValueError: Unregistered user") == 100
    assert list(said.values()) == [50]
    assert await log_in(lab, "alice", "pw-a") == "identity"
    assert "Too many logins" in (await log_in(lab, "user-1", "pw-1"))["message"]


async def test_a_login_is_delayed_after_failures_of_the_same_user(many, monkeypatch):
    slept = []
    real = trio.sleep

    async def sleep(seconds):
        if seconds >= 1:
            slept.append(seconds)
            seconds = 0
        await real(seconds)

    async with open_manager(in_memory=True, database=many, auth_login=True, login_delay=2) as manager:
        for _ in range(3):
            manager._protocol.logins.begin("127.0.0.1", "alice").end(Outcome.FAILED)
        monkeypatch.setattr(trio, "sleep", sleep)
        assert await log_in(manager, "alice", "pw-a") == "identity"
        assert slept == [5]
        slept.clear()
        assert await log_in(manager, "user-1", "pw-1") == "identity"
        assert slept == []


async def test_a_changed_password_counts_at_once(lab, many, hashed):
    assert await log_in(lab, "user-1", "pw-1") == "identity"
    with Database(many) as database:
        database.users.update("user-1", password="new")
    assert (await log_in(lab, "user-1", "pw-1"))["message"] == "ValueError: Wrong login password"
    assert await log_in(lab, "user-1", "new") == "identity"
    assert hashed == ["pw-1", "pw-1", "new"]


async def test_who_goes_while_it_waits_for_its_turn_leaves_nothing_behind(lab, monkeypatch):
    go_on = threading.Event()
    monkeypatch.setattr(password_checks, "is_password", lambda *_: go_on.wait() and False)
    wires = []
    for number in range(15):
        wires.append(Wire(await lab.dial()))
        await wires[-1].send({"result": "alice"}, {"result": f"guess-{number}"})
    with trio.fail_after(20):
        while sum(attempt_counts(lab)) < 15:
            await trio.sleep(0.001)
    assert attempt_counts(lab) == (10, 5)
    lab._peer_loops._unauthenticated.evict_all("the test wants it")
    with trio.fail_after(20):
        while sum(attempt_counts(lab)):
            await trio.sleep(0.001)
    go_on.set()
    assert lab._protocol.logins.refused == 0
    for wire in wires:
        wire.transport.close()


def attempt_counts(manager):
    """Return the numbers of attempts in progress and of queued ones."""
    hosts = manager._protocol.logins._hosts.values()
    return (
        sum(sum(host.in_progress.values()) for host in hosts),
        sum(len(queue) for host in hosts for queue in host.queued.values()),
    )


# ---- clients that are connected ----


async def test_failures_of_others_do_not_disconnect_who_makes_an_admin_request(many):
    with trio.fail_after(60):
        async with open_manager(in_memory=True, database=many, login_delay=0) as manager:
            kwargs = {**manager.connect_kwargs(), "username": "alice", "password": "pw-a"}
            service = await dial(manager, "Echo", "service")
            async with connect(**kwargs) as client:
                link = await client.link("Echo")
                await link.acquire_lock()
                for number in range(10):
                    with pytest.raises(ManagerError, match="Unregistered user"):
                        await admin_request(manager, f"nobody-{number}", "x")
                assert await client.admin_request("port") == 0
                for number in range(10):
                    with pytest.raises(ManagerError, match="Wrong login password"):
                        await admin_request(manager, "alice", f"guess-{number}")
                with pytest.raises(ManagerError, match="Too many logins"):
                    await admin_request(manager, "alice", "pw-a")
                assert await client.admin_request("service_locks") == {"Echo": [str(client)]}
            service.transport.close()


async def admin_request(manager, username, password):
    async with connect(**manager.connect_kwargs(), username=username, password=password) as client:
        try:
            await client.admin_request("port")
        finally:
            assert await client.identities()  # it is still connected


async def test_a_client_that_is_throttled_keeps_its_links_and_locks_and_calls(many):
    with trio.fail_after(60):
        async with open_manager(in_memory=True, database=many, login_delay=0) as manager:
            service, wire = await dial(manager, "Echo", "service"), await dial(manager)
            await wire.ask("Manager", "link", "Echo")
            await wire.ask("Manager", "acquire_lock", "Echo", shared=False)
            await wire.send(request("Echo", "e", uid="open"))
            routed = await service.line()
            for number in range(12):
                await wire.send(request("Manager", "port", uid=f"admin {number}"))
                assert (await wire.line())["attribute"] == "username"
                await wire.send({"result": "alice"})
                line = await wire.line()
                if line["error"]:
                    break
                await wire.send({"result": "guess"})
                line = await wire.line()
                assert line["uid"] == f"admin {number}"
                assert line["message"] == "ValueError: Wrong login password"
            assert number == 10
            assert (line["uid"], line["error"]) == ("admin 10", True)
            assert 0 < line["again"] <= 60
            await service.send({"error": False, "requester": routed["requester"], "result": 1, "uid": "open"})
            assert (await wire.line())["result"] == 1
            service.transport.close()
            wire.transport.close()


async def test_a_person_is_asked_again_after_a_login_was_refused(many):
    class Prompts:
        answers = iter(["zed", "alice", "wrong", "alice", "pw-a", "never"])

        def username(self, _):
            return next(self.answers)

        def password(self, _):
            return next(self.answers)

    async with (
        open_manager(in_memory=True, database=many, login_delay=0) as manager,
        connect(**manager.connect_kwargs(), prompts=Prompts()) as client,
    ):
        for text in ("Unregistered user", "Wrong login password"):
            with pytest.raises(ManagerError, match=text):
                await client.admin_request("port")
        for _ in range(2):
            assert await client.admin_request("port") == 0
    async with open_manager(in_memory=True, database=many, auth_login=True) as manager:
        with pytest.raises(AuthenticationError, match="Wrong login password"):
            await connect(**manager.connect_kwargs(), username="alice", password="x")


async def test_the_password_of_the_manager_is_throttled_as_before(many, monkeypatch):
    async with open_manager(in_memory=True, database=many, auth_password="pw", login_delay=0) as manager:
        for number in range(11):
            wire = Wire(await manager.dial())
            await wire.line()
            await wire.send({"result": "guess"})
            line = await wire.line()
            wire.transport.close()
            assert line["message"].startswith(
                "ValueError: " + ("Wrong" if number < 10 else "Too many logins")
            )
        assert 0 < line["again"] <= 60
