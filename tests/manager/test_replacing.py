"""Tests of a Service that reconnects while the Manager still has its old connection, dead or alive."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from msl_network_trio import ConnectionLost, RemoteError, ServiceLost, connect
from msl_network_trio.cli.main import main
from msl_network_trio.constants import MANAGER
from msl_network_trio.manager.opening import open_manager
from msl_network_trio.manager.replacing import SILENCE
from msl_network_trio.transport import liveness
from msl_network_trio.transport.liveness import PeerActivity
from msl_network_trio.transport.memory import MemoryStream
from msl_network_trio.transport.tcp import TcpStream
from tests.manager.wires import Wire, dial
from tests.protocol.network import request

TAKEN = "NameError: A 'S' service is already running on the Manager"
AFTER = 5.0


class Cable:
    """The state of TCP, faked for every connection in memory.

    Attributes:
        heard: When it has heard of the peer last.
        is_owed: Whether the peer has yet to acknowledge something.
        tells: Whether the system tells all that.
        requests: How many requests for an acknowledgement go on.
    """

    def __init__(self) -> None:
        self.heard = -1.0
        self.is_owed = True
        self.tells = True
        self.requests = 0

    def request(self, _transport) -> bool:
        self.requests += 1
        return self.tells

    def end(self, _transport) -> None:
        self.requests -= 1

    def peer_activity(self, _transport) -> PeerActivity | None:
        return PeerActivity(trio.current_time() - self.heard, self.is_owed) if self.tells else None


@pytest.fixture
def cable(monkeypatch):
    cable = Cable()
    monkeypatch.setattr(MemoryStream, "start_probe", lambda self: cable.request(self))
    monkeypatch.setattr(MemoryStream, "end_probe", lambda self: cable.end(self))
    monkeypatch.setattr(MemoryStream, "peer_activity", lambda self: cable.peer_activity(self))
    return cable


async def come_back(manager, leave: str = "end") -> tuple[Wire | None, float]:
    """Start the Service S once more.

    Args:
        manager: The Manager.
        leave: How the connection ends when this is cancelled: ``"end"`` or ``"reset"``.

    Returns:
        The Service, or None if the name is taken, and how many seconds that took.
    """
    began = trio.current_time()
    wire = Wire(await manager.dial())
    await wire.line()
    await wire.send({"result": {"name": "S", "type": "service", "attributes": {}}})
    await wire.send(request(MANAGER, "unlink", "nobody", uid="hello"))
    try:
        answer = await wire.line()
    except trio.Cancelled:
        wire.transport.close() if leave == "end" else wire.transport.reset()
        raise
    assert answer.get("message") in {None, TAKEN}
    return None if answer["error"] else wire, trio.current_time() - began


async def test_one_that_is_gone_is_replaced(cable, caplog, autojump_clock):
    caplog.set_level(logging.INFO)
    async with open_manager(in_memory=True) as manager:
        old = await dial(manager, "S", "service")
        async with connect(**manager.connect_kwargs()) as client:
            link = await client.link("S")
            await link.acquire_lock()
            errors = []

            async def ask():
                with pytest.raises(ServiceLost) as lost:
                    await link.add(1, 2)
                errors.append(lost.value)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask)
                await wait_all_tasks_blocked()
                new, seconds = await come_back(manager)
            assert seconds == pytest.approx(AFTER)
            assert new is not None
            assert [error.may_have_run for error in errors] == [True]
            assert manager.identity()["services"]["S"]["address"].endswith(str(new.transport.port))
            assert await client.link("S")  # the lock is gone, too
        with pytest.raises(ConnectionLost, match="reset"):
            await old.line()
        assert manager.status()["limits"]["replace_after"] == {"limit": AFTER, "hits": 1}
        [record] = [r for r in caplog.records if getattr(r, "event_fields", {}).get("event") == "replaced"]
        assert record.levelname == "WARNING"
        assert record.event_fields["replaced"] == old.name
        assert record.event_fields["service"] == "S"
        assert cable.requests == 0


async def test_seconds_are_as_one_wants(cable, autojump_clock):
    async with open_manager(in_memory=True, replace_after=60) as manager:
        await dial(manager, "S", "service")
        new, seconds = await come_back(manager)
        assert new is not None
        assert seconds == pytest.approx(60)


async def test_none_is_replaced_if_one_wants_that(cable, autojump_clock):
    async with open_manager(in_memory=True, replace_after=None) as manager:
        await dial(manager, "S", "service")
        assert await come_back(manager) == (None, 0)


async def test_in_memory_nobody_is_gone(autojump_clock):
    async with open_manager(in_memory=True) as manager:
        await dial(manager, "S", "service")
        assert await come_back(manager) == (None, 0)


@pytest.mark.parametrize("when", [0.0, 0.3, 4.9])
@pytest.mark.parametrize("what", ["an acknowledgement", "data", "nothing is owed"])
async def test_one_that_is_heard_of_keeps_its_name(cable, autojump_clock, when, what):
    async with open_manager(in_memory=True) as manager, trio.open_nursery() as nursery:
        old = await dial(manager, "S", "service")
        cable.is_owed = what != "nothing is owed"

        async def be_heard():
            await trio.sleep(when + 0.001)
            if what == "data":
                await old.send(b"")
            elif cable.is_owed:
                cable.heard = trio.current_time()

        nursery.start_soon(be_heard)
        new, seconds = await come_back(manager)
        assert new is None
        assert seconds == pytest.approx(AFTER) if what == "nothing is owed" else when < seconds < when + 0.3
        assert (await old.ask(MANAGER, "unlink", "nobody"))["result"] is True
        assert cable.requests == 0
        assert manager.status()["limits"]["replace_after"]["hits"] == 0


async def test_one_that_goes_meanwhile_has_made_room(cable, caplog, autojump_clock):
    async with open_manager(in_memory=True) as manager, trio.open_nursery() as nursery:
        old = await dial(manager, "S", "service")

        async def go():
            await trio.sleep(1)
            old.transport.close()

        nursery.start_soon(go)
        new, seconds = await come_back(manager)
        assert new is not None
        assert 1 <= seconds < 1.5
        assert "is replaced" not in caplog.text


@pytest.mark.parametrize("how", ["end", "reset"])
async def test_one_that_waits_no_longer_frees_the_name_and_is_not_announced(
    cable, caplog, autojump_clock, how
):
    caplog.set_level(logging.INFO)
    async with open_manager(in_memory=True) as manager:
        await dial(manager, "S", "service")
        with trio.move_on_after(AFTER - 1):
            await come_back(manager, how)
            pytest.fail("it was admitted")
        await trio.sleep(2)
        assert manager.identity()["services"] == {}
        assert "while its name was taken" in caplog.text
        new, seconds = await come_back(manager)
        assert (new is not None, seconds) == (True, 0)
        records = [getattr(record, "event_fields", {}) for record in caplog.records]
        assert [each["event"] for each in records].count("connected") == 2
        assert manager.status()["limits"]["replace_after"]["hits"] == 1


async def test_what_one_sends_while_its_name_is_taken_is_handled_later(cable, autojump_clock):
    async with open_manager(in_memory=True) as manager:
        await dial(manager, "S", "service")
        wire = Wire(await manager.dial())
        await wire.line()
        await wire.send({"result": {"name": "S", "type": "service", "attributes": {}}})
        for uid in ("1", "2", "3"):
            await trio.sleep(1)
            await wire.send(request(MANAGER, "unlink", "nobody", uid=uid))
        assert [(await wire.line())["uid"] for _ in range(3)] == ["1", "2", "3"]


@pytest.mark.parametrize("answers", [True, False])
async def test_where_the_system_does_not_tell_the_program_is_asked(cable, autojump_clock, answers):
    cable.tells = False
    async with open_manager(in_memory=True) as manager, trio.open_nursery() as nursery:
        old = await dial(manager, "S", "service")

        async def answer():
            asked = await old.line()
            assert asked["attribute"] == "identity"
            if answers:
                await trio.sleep(SILENCE - 1)
                await old.send({"result": {}, "error": False, "requester": asked["requester"], "uid": ""})

        nursery.start_soon(answer)
        new, seconds = await come_back(manager)
        assert (new is None) is answers
        assert seconds == pytest.approx(SILENCE, abs=1.3)


async def test_of_two_newcomers_one_has_the_name(cable, autojump_clock):
    async with open_manager(in_memory=True) as manager, trio.open_nursery() as nursery:
        await dial(manager, "S", "service")
        got = []

        async def try_it():
            got.append((await come_back(manager))[0])

        nursery.start_soon(try_it)
        nursery.start_soon(try_it)
        with trio.fail_after(AFTER + 1):
            while len(got) < 2:
                await trio.sleep(0.1)
        assert got.count(None) == 1
        assert len(manager.identity()["services"]) == 1


async def test_the_newcomer_may_give_up(cable, autojump_clock):
    async with open_manager(in_memory=True) as manager:
        await dial(manager, "S", "service")
        wire = Wire(await manager.dial())
        await wire.line()
        await wire.send({"result": {"name": "S", "type": "service", "attributes": {}}})
        await wait_all_tasks_blocked()
        wire.transport.close()
        await trio.sleep(AFTER + 1)
        assert manager.identity()["services"] == {}


# ---- sockets ----


def on_sockets(**more):
    return open_manager(host="127.0.0.1", port=0, disable_tls=True, database=":memory:", **more)


async def reach(manager) -> Wire:
    sock = await trio.to_thread.run_sync(socket.create_connection, ("127.0.0.1", manager.port))
    sock.setblocking(False)
    return Wire(TcpStream(sock))


async def test_one_that_is_stopped_keeps_its_name_as_its_system_answers():
    """The peer does not read, as in a debugger, and its buffers are full."""
    with trio.fail_after(30):
        async with on_sockets(replace_after=0.5) as manager:
            old = await reach(manager)
            await old.enter("S", "service")
            client = await reach(manager)
            await client.enter()
            await client.send(*[request("S", "x", "y" * 100_000, uid=str(number)) for number in range(9)])
            wire = await reach(manager)
            await wire.line()
            await wire.send({"result": {"name": "S", "type": "service", "attributes": {}}})
            assert (await wire.line())["message"] == TAKEN
            for transport in (old.transport, client.transport, wire.transport):
                transport.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what it acknowledges")
async def test_linux_tells_what_was_acknowledged():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = socket.create_connection(listener.getsockname())
        sock, _ = listener.accept()
        with peer, sock:
            liveness.detect_dead_peer(sock)
            assert liveness.start_probe(sock)
            before = liveness.peer_activity(sock)
            assert before.silence < 10
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 1
            liveness.end_probe(sock)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) > 1
        assert liveness.peer_activity(sock) is None
        assert not liveness.start_probe(sock)
        liveness.end_probe(sock)


@pytest.mark.skipif(
    sys.platform != "linux"
    or os.geteuid() != 0
    or not (shutil.which("unshare") and shutil.which("iptables")),
    reason="this needs root, unshare and iptables, for a network of its own",
)
def test_one_whose_network_is_gone_is_replaced():
    made = subprocess.run(["unshare", "-n", "true"], capture_output=True, timeout=20)
    if made.returncode:
        pytest.skip("this needs network namespaces")
    told = subprocess.run(
        ["unshare", "-n", sys.executable, "-m", "tests.manager.silent_network"],
        capture_output=True,
        cwd=Path(__file__).parents[2],
        text=True,
        timeout=60,
    )
    if told.returncode == 77:
        pytest.skip(told.stdout)
    assert told.returncode == 0, told.stdout + told.stderr


# ---- administrators ----


def as_user(manager, name="alice"):
    return connect(**manager.connect_kwargs(), username=name, password=f"pw-{name[0]}")


@pytest.mark.parametrize("how", ["name", "address", "IP address", "Service"])
async def test_an_administrator_closes_a_connection(users, how):
    with trio.fail_after(30):
        async with open_manager(in_memory=True, database=users) as manager, as_user(manager) as admin:
            service = await dial(manager, "S", "service")
            link = await admin.link("S")
            port = service.name.rpartition(":")[2][:-1]
            name = {
                "name": service.name,
                "address": service.name[2:-1],
                "IP address": f"127.0.0.1:{port}",
                "Service": "S",
            }[how]
            assert await admin.admin_request("disconnect_peer", name) == [service.name]
            [told] = await service.lines()
            assert told["message"].startswith("ConnectionAbortedError: ")
            assert told["message"].endswith("an administrator, has closed this connection")
            assert manager.identity()["services"] == {}
            with pytest.raises(ServiceLost):
                await link.add(1, 2)


async def test_a_connection_that_takes_nothing_is_closed_at_once(users):
    with trio.fail_after(30):
        async with open_manager(in_memory=True, database=users) as manager, as_user(manager) as admin:
            service, client = await dial(manager, "S", "service"), await dial(manager, "C")
            await client.send(request("S", "x", "y" * 500_000))
            await wait_all_tasks_blocked(0.01)
            assert await admin.admin_request("disconnect_peer", "S") == [service.name]
            assert "may have been executed" in (await client.line())["message"]


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (("nobody",), "ValueError: No peer is connected as 'nobody'"),
        (("",), "ValueError: No peer is connected as ''"),
        ((None,), "TypeError: The peer must be text"),
        ((["x"],), "TypeError: The peer must be text"),
        ((), "TypeError: .*missing 1 required"),
        (("me",), "ValueError: .* is the connection of this request"),
    ],
)
async def test_a_connection_that_cannot_be_closed_is_told(users, args, text):
    with trio.fail_after(30):
        async with open_manager(in_memory=True, database=users) as manager, as_user(manager) as admin:
            args = (str(admin),) if args == ("me",) else args
            with pytest.raises(RemoteError, match=text):
                await admin.admin_request("disconnect_peer", *args)
            assert await admin.identities()


async def test_an_administrator_releases_a_lock(users):
    with trio.fail_after(30):
        async with (
            open_manager(in_memory=True, database=users) as manager,
            as_user(manager) as admin,
            connect(**manager.connect_kwargs()) as holder,
        ):
            await dial(manager, "S", "service")
            await (await holder.link("S")).acquire_lock()
            with pytest.raises(RemoteError, match="locked"):
                await admin.link("S")
            assert await admin.admin_request("release_locks", "S") == [str(holder)]
            assert await admin.link("S")
            assert await admin.admin_request("release_locks", "S") == []
            with pytest.raises(RemoteError, match="KeyError: .*'T' service does not exist"):
                await admin.admin_request("release_locks", "T")


@pytest.mark.parametrize("attribute", ["disconnect_peer", "release_locks"])
async def test_both_take_an_administrator(users, attribute):
    with trio.fail_after(30):
        async with open_manager(in_memory=True, database=users) as manager, as_user(manager, "bob") as bob:
            service = await dial(manager, "S", "service")
            with pytest.raises(RemoteError, match="must be an administrator"):
                await bob.admin_request(attribute, "S")
            assert (await service.ask(MANAGER, "unlink", "nobody"))["result"] is True


async def test_commands_close_a_connection_and_release_locks(users, capsys):
    async def run(*words):
        options = ["-H", "127.0.0.1", "-p", str(manager.port), "--disable-tls", "-u", "alice", "-P", "pw-a"]
        status = await trio.to_thread.run_sync(main, [*words, *options])
        told = capsys.readouterr()
        return status, told.out, told.err

    with trio.fail_after(60):
        async with open_manager(host="127.0.0.1", port=0, disable_tls=True, database=users) as manager:
            service = await reach(manager)
            await service.enter("S", "service")
            async with connect(**manager.connect_kwargs()) as holder:
                await (await holder.link("S")).acquire_lock()
                status, _, text = await run("unlock", "S", "--holder", "nobody")
                assert (status, "nobody holds no lock on 'S'" in text) == (1, True)
                told = f"Released the lock of {holder} on S\n"
                assert await run("unlock", "S", "--holder", str(holder)) == (0, told, "")
                assert await run("unlock", "S") == (0, "There is no lock on S\n", "")
                assert await run("disconnect", str(holder)) == (0, f"Disconnected {holder}\n", "")
            assert await run("disconnect", "S") == (0, f"Disconnected {service.name}\n", "")
            status, _, text = await run("disconnect", "S")
            assert (status, "No peer is connected as 'S'" in text) == (1, True)
            service.transport.close()
