"""Dead and stalled peers: socket options and timeouts on each platform."""

from __future__ import annotations

import socket
import struct
import sys

import pytest
import trio

from msl_network_trio.exceptions import ConnectionLost
from msl_network_trio.manager import peer_loop
from msl_network_trio.manager.opening import open_manager
from msl_network_trio.transport import liveness
from msl_network_trio.transport.base import Stream
from msl_network_trio.transport.liveness import ALWAYS_ALIVE, SEND_TIMEOUT, STALL_CHECK_INTERVAL, PeerActivity
from msl_network_trio.transport.memory import memory_pair
from msl_network_trio.transport.tcp import TcpStream
from msl_network_trio.transport.tcp_connect import detach_socket
from tests.manager.wires import Wire
from tests.transport.peers import LIMIT, WIRES, connected, serving, socket_of
from tests.transport.test_tcp import accepted
from tests.transport.websockets import one_end, opened

__all__ = ["one_end", "opened"]

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="these are options of Linux")
TWO_MINUTES = 120


class FakeSocket:
    """A socket that records its options and returns a `tcp_info` of the test.

    Args:
        fails: The number of an option that raises an error.
    """

    def __init__(self, fails: int | None = None) -> None:
        self.options: dict[int, object] = {}
        self.info = b""
        self._fails = fails

    def setsockopt(self, level: int, option: int, value: object) -> None:
        assert level in {socket.SOL_SOCKET, socket.IPPROTO_TCP}
        if option == self._fails and value != 10:  # the number 5 is also the interval of keepalive
            raise OSError("there is no such option")
        self.options[option] = value

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        if not self.info:
            raise OSError("it is closed")
        return self.info[:size]

    def is_at(self, *, probes: int = 0, owed: int = 0, unsent: int = 0, data: int = 0, ack: int = 0) -> None:
        """Set the fields of `tcp_info`; times in milliseconds."""
        words = [0] * 24
        words[4], words[11], words[12] = owed, data, ack
        self.info = struct.pack("=8B24I4Q3I", 0, 0, 0, probes, 0, 0, 0, 0, *words, *[0] * 6, unsent)


@pytest.mark.parametrize(
    ("platform", "option", "limit"),
    [("linux", 18, SEND_TIMEOUT * 1000), ("darwin", 0x80, SEND_TIMEOUT), ("win32", 5, SEND_TIMEOUT)],
)
def test_each_system_has_a_limit_of_less_than_two_minutes(monkeypatch, platform, option, limit):
    monkeypatch.setattr(liveness.sys, "platform", platform)
    sock = FakeSocket()
    liveness.detect_dead_peer(sock)
    assert sock.options[option] == limit
    assert SEND_TIMEOUT < TWO_MINUTES


@pytest.mark.parametrize(("platform", "option"), [("linux", 18), ("darwin", 0x80), ("win32", 5)])
def test_a_system_that_has_no_such_limit_after_all_is_put_up_with(monkeypatch, platform, option):
    monkeypatch.setattr(liveness.sys, "platform", platform)
    sock = FakeSocket(fails=option)
    liveness.detect_dead_peer(sock)
    assert socket.SO_KEEPALIVE in sock.options


def test_a_system_without_such_a_limit_has_keepalive(monkeypatch):
    monkeypatch.setattr(liveness.sys, "platform", "sunos5")
    sock = FakeSocket()
    liveness.detect_dead_peer(sock)
    assert sock.options[socket.SO_KEEPALIVE]
    sock.is_at()
    assert liveness.peer_activity(sock) is None
    assert not liveness.start_probe(sock)
    assert liveness.extend_send_timeout(sock, 0, None) is None


@linux_only
@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("who", [connected, accepted])
async def test_every_connection_has_these_limits(wire, who):
    async with who(wire) as (transport, _):
        sock = transport._sock

        def option(name: str) -> int:
            return sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))

        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert option("TCP_KEEPIDLE") + option("TCP_KEEPCNT") * option("TCP_KEEPINTVL") <= TWO_MINUTES
        assert option("TCP_USER_TIMEOUT") == SEND_TIMEOUT * 1000


@pytest.mark.parametrize("wire", WIRES)
async def test_where_the_system_does_not_give_up_the_program_does(wire, autojump_clock, monkeypatch):
    monkeypatch.setattr(liveness, "HAS_SEND_TIMEOUT", False)
    async with connected(wire) as (transport, _):
        with pytest.raises(ConnectionLost, match="accepted no data for 105 seconds"):
            await transport.send_all(b"x" * 50_000_000)
        assert SEND_TIMEOUT <= trio.current_time() <= TWO_MINUTES


@pytest.mark.parametrize("wire", WIRES)
async def test_where_the_system_gives_up_the_program_does_not(wire, autojump_clock):
    async with connected(wire) as (transport, _):
        with trio.move_on_after(10_000) as scope:
            await transport.send_all(b"x" * 50_000_000)
        assert scope.cancelled_caught


# ---- a stalled peer ----


@linux_only
def test_a_peer_that_takes_nothing_is_spared_as_long_as_its_system_answers():
    sock = FakeSocket()
    sock.is_at(unsent=5)
    since, now = None, 1000.0
    for _ in range(100):
        since = liveness.extend_send_timeout(sock, now, since)
        assert since == 1000.0
        left = sock.options[18] / 1000 - (now - since)
        now += STALL_CHECK_INTERVAL
        # The window may have been closed since the check before the first one.
        assert left > 2 * STALL_CHECK_INTERVAL
        assert left <= SEND_TIMEOUT
    sock.is_at(unsent=5, probes=1)
    before = dict(sock.options)
    assert liveness.extend_send_timeout(sock, now, since) == since
    assert sock.options == before  # the timeout applies if the probe stays unanswered
    sock.is_at(unsent=5, owed=1)
    assert liveness.extend_send_timeout(sock, now, since) is None
    assert sock.options[18] == SEND_TIMEOUT * 1000


@linux_only
@pytest.mark.parametrize("state", [{}, {"owed": 3}, {"owed": 3, "unsent": 9}])
def test_the_send_timeout_of_a_peer_that_accepts_data_is_not_extended(state):
    sock = FakeSocket()
    sock.is_at(**state)
    assert liveness.extend_send_timeout(sock, 5.0, None) is None
    assert sock.options == {}


@linux_only
@pytest.mark.parametrize("wire", WIRES)
async def test_wait_send_extends_the_send_timeout(wire, autojump_clock, monkeypatch):
    async with connected(wire) as (transport, _):
        looks = []

        def extend_send_timeout(sock, now, since):
            looks.append((round(now / STALL_CHECK_INTERVAL), since))
            return 5.0

        monkeypatch.setattr(liveness, "extend_send_timeout", extend_send_timeout)
        with trio.move_on_after(3.5 * STALL_CHECK_INTERVAL):
            await transport.send_all(b"x" * 20_000_000)
        assert looks == [(1, None), (2, 5.0), (3, 5.0)]


@linux_only
async def test_a_manager_looks_after_its_peers(monkeypatch):
    looked = trio.Event()
    monkeypatch.setattr(peer_loop, "STALL_CHECK_INTERVAL", 0.001)
    monkeypatch.setattr(TcpStream, "extend_send_timeout", lambda self: looked.set())
    async with open_manager(host="127.0.0.1", port=0, disable_tls=True, database=":memory:") as manager:
        sock = socket.create_connection(("127.0.0.1", manager.port))
        sock.setblocking(False)
        wire = Wire(TcpStream(sock))
        await wire.enter()
        with trio.fail_after(LIMIT):
            await looked.wait()
        wire.transport.close()


# ---- activity of the peer ----


@linux_only
@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({"data": 3000, "ack": 2000}, PeerActivity(2.0, False)),
        ({"data": 500, "ack": 2000}, PeerActivity(0.5, False)),
        ({"data": 9000, "ack": 9000, "owed": 1}, PeerActivity(9.0, True)),
        ({"data": 9000, "ack": 9000, "probes": 2}, PeerActivity(9.0, True)),
    ],
)
def test_peer_activity_from_tcp_info(state, expected):
    sock = FakeSocket()
    sock.is_at(**state)
    assert liveness.peer_activity(sock) == expected
    assert liveness.start_probe(sock)
    assert sock.options[socket.TCP_KEEPIDLE] == 1
    liveness.end_probe(sock)
    assert sock.options[socket.TCP_KEEPIDLE] > 1


@linux_only
@pytest.mark.parametrize("wire", WIRES)
async def test_a_peer_that_is_there_is_heard_of(wire):
    """The system of a peer answers, also if its program is blocked."""
    async with connected(wire) as (transport, _):
        with trio.fail_after(LIMIT):
            assert transport.start_probe()
            began = trio.current_time()
            while transport.peer_activity().silence >= trio.current_time() - began:
                await trio.sleep(0.05)
            transport.end_probe()


def test_in_memory_a_peer_is_always_there():
    transport, _ = memory_pair()
    assert transport.start_probe()
    assert transport.peer_activity() is ALWAYS_ALIVE
    transport.extend_send_timeout()
    transport.end_probe()


async def test_of_a_websocket_its_carrier_knows(one_end):
    end, carrier = await one_end()
    asked = []

    class Known(Stream):
        def start_probe(self):
            asked.append("request")
            return False

        def peer_activity(self):
            return None

        def end_probe(self):
            asked.append("end")

        def extend_send_timeout(self):
            asked.append("look")

        def close(self):
            pass

        send_nowait = wait_send = receive = send_eof = None

    own, end._carrier = end._carrier, Known()
    assert end.start_probe() is False
    assert end.peer_activity() is None
    end.extend_send_timeout()
    end.end_probe()
    assert asked == ["request", "look", "end"]
    end._carrier = own
    carrier.close()


# ---- resets ----


@pytest.mark.parametrize("wire", WIRES)
async def test_a_peer_sees_that_the_connection_was_reset(wire):
    with trio.fail_after(LIMIT):
        async with connected(wire) as (transport, peer):
            sock = socket_of(peer)
            transport.send_nowait(b"what the peer has not read")
            transport.abort()
            transport.abort()
            transport.close()
            with pytest.raises(ConnectionResetError):
                while await sock.recv(100):
                    pass
            with pytest.raises(ConnectionLost, match="closed"):
                await transport.receive()


async def test_a_websocket_is_reset_without_a_word(one_end):
    end, carrier = await one_end()
    end.abort()
    end.abort()
    with pytest.raises(ConnectionLost):
        end.send_nowait(b"x\n")
    received = b""
    try:
        while data := await carrier.receive():
            received += data
    except ConnectionLost:
        pass
    assert received == b""


async def test_a_socket_that_is_taken_over_has_the_limits():
    put, take = trio.open_memory_channel(1)

    async def accept(stream):
        put.send_nowait(detach_socket(stream))

    with trio.fail_after(LIMIT):
        async with serving(accept) as server, await trio.open_tcp_stream("127.0.0.1", server.port):
            with await take.receive() as sock:
                assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
