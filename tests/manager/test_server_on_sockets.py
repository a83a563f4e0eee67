"""A Manager on real sockets, plain and with TLS: it listens, and survives whatever connects."""

from __future__ import annotations

import contextlib
import errno
import socket
import ssl
import struct

import pytest
import trio
import trio.testing

from msl_network_trio import connect
from msl_network_trio.constants import MANAGER
from msl_network_trio.exceptions import AuthenticationError, CertificateError, ConnectionLost
from msl_network_trio.manager.database import ManagerDatabase
from msl_network_trio.manager.hostnames import Hostnames
from msl_network_trio.manager.opening import open_manager
from msl_network_trio.manager.server import Manager
from msl_network_trio.manager.settings import ManagerSettings
from msl_network_trio.protocol.manager.peer import Host
from msl_network_trio.transport.listening import listen_tcp
from msl_network_trio.transport.tcp import TcpStream
from tests.manager.sockets import LIMIT, dial, others_are_served, reach
from tests.protocol.network import notification, request
from tests.transport.certificates import ordinary


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this computer has no IPv6")


async def until_only_others_are_known(manager: Manager) -> None:
    while (
        manager._protocol.registry.peers.keys() != {"Echo", "Good"}
        and len(manager._protocol.registry.peers) > 2
    ):
        await trio.sleep(0.01)


def reset(transport: TcpStream) -> None:
    """Close a connection such that the other end sees it reset."""
    transport._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.close()


# ---- listening ----


@needs_ipv6
async def test_any_free_port_is_the_same_one_for_ipv4_and_ipv6():
    async with open_manager(port=0, disable_tls=True) as manager:
        assert manager.port > 0
        assert manager.name.endswith(f":{manager.port}]")
        with trio.fail_after(LIMIT):
            for host in ("127.0.0.1", "::1", "localhost"):
                wire = await reach(manager, host)
                await wire.enter(host)
                # This computer's own name, whichever way it comes.
                assert wire.name == f"{host}[{socket.gethostname()}:{wire.transport.port}]"


async def test_a_port_that_is_not_free_at_all_addresses_is_not_taken(monkeypatch):
    """If port 0 gives different ports, one is tried for all addresses, and if it is in use, another one."""
    real, calls, opened = trio.open_tcp_listeners, [], []

    async def open_tcp_listeners(port, *, host):
        calls.append(port)
        if port:
            if len(calls) < 4:
                raise OSError(errno.EADDRINUSE, "in use")
            return await real(port, host="127.0.0.1")
        opened.extend([*await real(0, host="127.0.0.1"), *await real(0, host="127.0.0.1")])
        return opened[-2:]

    monkeypatch.setattr(trio, "open_tcp_listeners", open_tcp_listeners)
    listener = await listen_tcp(None, 0)
    assert listener.port == calls[-1]
    assert [port == 0 for port in calls] == [True, False, True, False]
    assert all(old.socket.fileno() < 0 for old in opened)
    listener.close()


async def test_if_no_port_is_free_at_all_addresses_it_is_an_error(monkeypatch):
    real, opened = trio.open_tcp_listeners, []

    async def open_tcp_listeners(port, *, host):
        if port:
            raise OSError(errno.EADDRINUSE, "in use")
        opened.extend([*await real(0, host="127.0.0.1"), *await real(0, host="127.0.0.1")])
        return opened[-2:]

    monkeypatch.setattr(trio, "open_tcp_listeners", open_tcp_listeners)
    with pytest.raises(OSError, match="no port is free at all addresses of this computer"):
        async with open_manager(port=0, disable_tls=True):
            pytest.fail("entered")
    assert all(listener.socket.fileno() < 0 for listener in opened)


async def test_to_be_cancelled_while_it_looks_for_a_port_leaves_nothing_open(monkeypatch):
    real = trio.open_tcp_listeners
    opened = [*await real(0, host="127.0.0.1"), *await real(0, host="127.0.0.1")]

    async def open_tcp_listeners(port, *, host):
        if port:
            return await real(port, host=host)
        return opened

    monkeypatch.setattr(trio, "open_tcp_listeners", open_tcp_listeners)
    with trio.CancelScope() as scope:
        scope.cancel()
        await listen_tcp("127.0.0.1", 0)
    assert scope.cancelled_caught
    assert all(listener.socket.fileno() < 0 for listener in opened)


async def test_a_port_in_use_is_an_error_and_free_again_afterwards(open_here):
    async with open_here() as manager:
        with pytest.raises(OSError, match="in use|only one usage") as caught:
            async with open_here(port=manager.port):
                pytest.fail("entered")
        assert caught.value.errno == errno.EADDRINUSE
    with trio.fail_after(LIMIT):
        async with open_here(port=manager.port) as again:
            assert again.port == manager.port
            await dial(again)


async def test_a_host_that_is_none_of_this_computer_is_an_error():
    with pytest.raises(OSError, match=r"203\.0\.113\.1|assign|address|context"):
        async with open_manager(host="203.0.113.1", port=0, disable_tls=True):
            pytest.fail("entered")


async def test_if_there_is_no_certificate_nobody_listens(tmp_path):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    with pytest.raises(CertificateError, match="does not exist"):
        async with open_manager(host="127.0.0.1", port=port, cert_file=tmp_path / "none.pem"):
            pytest.fail("entered")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        (None, "localhost"),
        ("", "localhost"),
        ("0.0.0.0", "localhost"),
        ("::", "localhost"),
        ("lab-3", "lab-3"),
    ],
)
def test_how_it_is_reached_from_this_computer(host, expected):
    assert Manager(ManagerSettings(host=host), 1, None, ManagerDatabase(None)).host == expected


async def test_a_client_connects_with_what_the_manager_says(open_here, tls):
    async with open_here(auth_password="secret") as manager:
        kwargs = manager.connect_kwargs()
        assert ("cert_file" in kwargs) == tls
        assert kwargs.get("disable_tls", False) == (not tls)
        with trio.fail_after(LIMIT):
            async with connect(**kwargs) as client:
                assert (await client.identities())["port"] == manager.port


async def test_a_certificate_stays_saved_whatever_becomes_of_the_login(tmp_path, monkeypatch):
    """It was the right one."""
    monkeypatch.setenv("MSL_NETWORK_HOME", str(tmp_path / "home"))
    path = tmp_path / "manager.pem"
    path.write_text(ordinary().key + ordinary().pem)
    with trio.fail_after(LIMIT):
        async with open_manager(host="localhost", port=0, auth_password="right", cert_file=path) as manager:
            arguments = {"host": "localhost", "port": manager.port, "auto_save": True}
            with pytest.raises(AuthenticationError):
                async with connect(password_manager="wrong", **arguments):
                    raise AssertionError("it was let in")
            assert (tmp_path / "home" / "certs" / "localhost.crt").read_text() == ordinary().pem
            async with connect(password_manager="right", **arguments):
                pass


async def test_after_its_end_nobody_listens_and_all_have_seen_the_end(open_here):
    with trio.fail_after(LIMIT):
        async with open_here() as manager:
            service, client = await dial(manager, "Echo", "service"), await dial(manager)
        assert [len(await wire.lines()) for wire in (service, client)] == [1, 1]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", manager.port))


async def test_shutdown_in_the_middle_of_a_large_line_is_the_end_of_it_and_a_reset(open_here, tls):
    with trio.fail_after(LIMIT):
        async with open_here() as manager:
            service, client = await dial(manager, "Echo", "service"), await dial(manager)
            await client.send(request("Echo", "e", "x" * 30_000_000))
            line = await service.transport.receive()
        is_reset = False
        try:
            while data := await service.transport.receive():
                line += data
        except ConnectionLost:
            is_reset = True
    assert is_reset or tls  # which Pythons before 3.12.3 take for an end
    assert len(line) < 30_000_000
    assert set(line[-1000:]) == {ord("x")}  # no last word in the middle of it


# ---- whatever connects ----


async def test_who_starts_no_tls_handshake_is_given_up_and_harms_nobody(open_here, tls):
    async with open_here(tls_timeout=0.2) as manager, others_are_served(manager):
        stream = await trio.open_tcp_stream("127.0.0.1", manager.port)
        if tls:
            assert await stream.receive_some() == b""
        else:
            assert b"identity" in await stream.receive_some()
        await stream.aclose()


async def test_who_stops_half_way_in_the_tls_handshake_is_given_up_and_harms_nobody(tmp_path):
    hello, _ = ssl.MemoryBIO(), None
    incoming = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        ssl.create_default_context().wrap_bio(incoming, hello, server_hostname="localhost").do_handshake()
    path = tmp_path / "manager.pem"
    path.write_text(ordinary().key + ordinary().pem)
    path.chmod(0o600)
    async with (
        open_manager(host="127.0.0.1", port=0, cert_file=path, tls_timeout=0.2) as manager,
        others_are_served(manager),
    ):
        stream = await trio.open_tcp_stream("127.0.0.1", manager.port)
        await stream.send_all(hello.read())
        answered = 0
        while data := await stream.receive_some():
            answered += len(data)
        assert answered > 100
        await stream.aclose()


async def test_the_wait_for_the_handshakes_of_others_does_not_count(tmp_path, mock_clock, caplog):
    caplog.set_level("INFO")
    path = tmp_path / "manager.pem"
    path.write_text(ordinary().key + ordinary().pem)
    path.chmod(0o600)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    settings = {"host": "127.0.0.1", "port": 0, "cert_file": path, "database": ":memory:", "tls_timeout": 10}
    async with open_manager(**settings) as manager, trio.open_nursery() as nursery:
        stream = await trio.open_ssl_over_tcp_stream("127.0.0.1", manager.port, ssl_context=context)
        turns = manager._acceptor._tls.lock
        async with turns:
            nursery.start_soon(stream.do_handshake)
            while not turns.statistics().tasks_waiting:
                await trio.sleep(0)
            mock_clock.jump(1000)
            await trio.testing.wait_all_tasks_blocked()
        assert b"identity" in await stream.receive_some()
        await stream.aclose()
        # Who waits for nobody, and says nothing, has no more time than before.
        async with await trio.open_tcp_stream("127.0.0.1", manager.port) as mute:
            while not len(manager._unauthenticated):
                await trio.sleep(0)
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(11)
            assert await mute.receive_some() == b""
        assert "the handshake took longer than 10 seconds (tls_timeout)" in caplog.text


@pytest.mark.parametrize(
    "rubbish", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\xa5", b"\0" * 1000, b"\r\n", b'{"result":']
)
async def test_who_sends_rubbish_is_sent_away_and_harms_nobody(open_here, rubbish):
    async with open_here() as manager, others_are_served(manager):
        async with await trio.open_tcp_stream("127.0.0.1", manager.port) as stream:
            with contextlib.suppress(trio.BrokenResourceError):
                await stream.send_all(rubbish)
                await stream.send_eof()
                while await stream.receive_some():
                    pass
        await until_only_others_are_known(manager)


async def test_who_resets_the_connection_before_it_is_accepted_harms_nobody(open_here):
    async with open_here() as manager, others_are_served(manager):
        for _ in range(3):
            sock = socket.create_connection(("127.0.0.1", manager.port))
            reset(TcpStream(sock))  # all this before the Manager runs again


@pytest.mark.parametrize("when", ["before the handshake", "after it", "with an answer on its way"])
async def test_who_resets_the_connection_is_forgotten_and_harms_nobody(open_here, when):
    async with open_here() as manager, others_are_served(manager):
        wire = await reach(manager)
        if when != "before the handshake":
            await wire.enter("Bad", "service")
            assert "Bad" in manager.identity()["services"]
        if when == "with an answer on its way":
            await wire.send(*[request(MANAGER, "identity")] * 1000)
        reset(wire.transport)
        await until_only_others_are_known(manager)
        assert set(manager.identity()["services"]) == {"Echo"}


async def test_a_mistake_before_a_connection_is_served_costs_only_this_connection(
    open_here, monkeypatch, caplog
):
    async with open_here() as manager, others_are_served(manager):

        async def host(self, address, own_address):
            raise RuntimeError("a mistake")

        with monkeypatch.context() as patch:
            patch.setattr(Hostnames, "host", host)
            wire = await reach(manager)
            assert await wire.rest() == b""
    assert "RuntimeError: a mistake" in caplog.text


async def test_a_peer_that_is_gone_when_its_name_is_known_harms_nobody(open_here, monkeypatch):
    async with open_here() as manager, others_are_served(manager):
        gone = trio.Event()

        async def host(self, address, own_address):
            await gone.wait()
            return Host("vm", "127.0.0.1", "localhost", "localhost")

        with monkeypatch.context() as patch:
            patch.setattr(Hostnames, "host", host)
            wire = await reach(manager)
            reset(wire.transport)
            gone.set()
            await until_only_others_are_known(manager)


async def test_to_shut_down_while_a_name_is_looked_up_closes_the_connection(open_here, monkeypatch):
    looking = trio.Event()

    async def host(self, address, own_address):
        looking.set()
        await trio.sleep_forever()

    monkeypatch.setattr(Hostnames, "host", host)
    with trio.fail_after(LIMIT):
        async with open_here() as manager:
            wire = await reach(manager)
            await looking.wait()
        assert await wire.rest() == b""


# ---- last words ----


@pytest.mark.parametrize(
    "size",
    [
        0,
        pytest.param(1_000, marks=pytest.mark.slow),
        pytest.param(200_000, marks=pytest.mark.slow),
        5_000_000,
    ],
)
async def test_why_a_peer_is_rejected_arrives_although_it_goes_on_sending(open_here, size):
    """To close a connection with unread bytes would reset it, and what was sent last would be lost."""
    async with open_here() as manager, others_are_served(manager):
        wire = await reach(manager)
        await wire.line()

        async def send():
            with contextlib.suppress(ConnectionLost):
                await wire.send({"result": {"name": "C", "type": "robot"}}, b"x" * size)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            [line] = await wire.lines()
        assert line["message"].startswith("TypeError: Unknown connection type 'robot'")


async def test_that_a_line_is_too_long_arrives_although_the_rest_of_it_is_on_its_way(open_here):
    async with open_here(read_limit=100_000) as manager, others_are_served(manager):
        wire = await dial(manager)

        async def send():
            with contextlib.suppress(ConnectionLost):
                await wire.transport.send_all(b"x" * 5_000_000)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            [line] = await wire.lines()
        assert line["message"] == "ValueError: The line is longer than the limit of 100,000 bytes"


async def test_answers_on_their_way_arrive_before_the_end_that_goodbye_brings(open_here):
    async with open_here() as manager, others_are_served(manager):
        wire = await dial(manager, "Bad", "service")
        line = notification("Bad", "x" * 3_000_000)
        client = await dial(manager)
        await client.ask(MANAGER, "link", "Bad")
        await wire.send(line, line)
        await client.send(request(MANAGER, "unlink", "nobody", uid="2"), request("", "__disconnect__"))
        seen = [len(str(line["result"])) for line in await client.lines()]
        assert seen[-1:] == [len("True")] or len(seen) <= 3
