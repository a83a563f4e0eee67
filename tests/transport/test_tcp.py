"""TCP and TLS streams on real sockets: data, cancellation, the end, connecting, accepting."""

from __future__ import annotations

import contextlib
import random
import re
import socket
import ssl
import sys
from unittest.mock import ANY

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from msl_network_trio.dialing.trust import client_context
from msl_network_trio.exceptions import ConnectError, ConnectionLost
from msl_network_trio.transport import listening, liveness, tcp, tls, tls_handshake
from msl_network_trio.transport.tcp import TcpStream
from msl_network_trio.transport.tcp_connect import cannot_connect, detach_socket, open_socket, open_tcp
from msl_network_trio.transport.tls import TlsStream
from msl_network_trio.transport.tls_handshake import accept_tls, open_tls
from msl_network_trio.visible import visible
from tests.transport.certificates import ordinary
from tests.transport.peers import LIMIT, PLAIN, WIRES, connected, reset, serving, socket_of, stay

SECURE = [wire for wire in WIRES if wire != PLAIN]
RECORD = 16_384
BLOCK = random.Random(1875).randbytes(1_000_003)
"""Data whose length is a prime number, so that pieces of any size differ."""

RESET_IS_SEEN_BY_SSL = sys.version_info >= (3, 13) or sys.version_info >= (3, 12, 3)
"""Whether `ssl` reports a reset as an error; earlier versions report the end of the stream (gh-115627; 3.11 has it since 3.11.9)."""
if sys.version_info[:2] == (3, 11):
    RESET_IS_SEEN_BY_SSL = sys.version_info >= (3, 11, 9)


def noise(size: int) -> bytes:
    return (BLOCK * (size // len(BLOCK) + 1))[:size]


async def receive_exactly(receive, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = await receive()
        assert part, f"the stream ended after {len(data)} of {size} bytes"
        data += part
    return bytes(data)


def trust() -> ssl.SSLContext:
    return client_context(ordinary().pem, check_hostname=True)


@pytest.fixture(params=WIRES)
async def pair(request):
    async with connected(request.param) as pair:
        yield pair


@pytest.fixture(params=SECURE)
async def secure_pair(request):
    async with connected(request.param) as pair:
        yield pair


@contextlib.asynccontextmanager
async def accepted(wire):
    """Yield an accepted stream, and the stream of its peer."""
    put, take = trio.open_memory_channel(1)
    version = WIRES[wire]

    async def accept(stream):
        sock = detach_socket(stream)
        context = ordinary().server_context(version)
        put.send_nowait(TcpStream(sock) if version is None else await accept_tls(sock, context))

    async with serving(accept) as server:
        peer = await trio.open_tcp_stream("127.0.0.1", server.port)
        if version is not None:
            peer = trio.SSLStream(peer, trust(), server_hostname="localhost", https_compatible=True)
            await peer.do_handshake()
        transport = await take.receive()
        yield transport, peer
        transport.close()
        socket_of(peer).close()


@pytest.fixture(params=[f"{who} {wire}" for who in ("connected", "accepted") for wire in WIRES])
async def any_pair(request):
    """A stream that was opened, or accepted."""
    who, wire = request.param.split(" ", 1)
    async with {"connected": connected, "accepted": accepted}[who](wire) as pair:
        yield pair


# ---- bytes ----


@pytest.mark.parametrize("wire", WIRES)
async def test_50_mb_arrive_in_order_both_ways_at_once_however_slow_the_peer(wire):
    size = 50_000_000
    data = noise(size)
    ours = memoryview(data)
    waits = 0
    waiting = receiving = False
    with trio.fail_after(3 * LIMIT):
        async with connected(wire) as (transport, peer), trio.open_nursery() as nursery:

            async def write():
                nonlocal waits, waiting
                rest = ours
                while True:
                    rest = rest[transport.send_nowait(rest) :]
                    if not rest:
                        break
                    waits += 1
                    waiting = True
                    await transport.wait_send()
                    waiting = False

            async def read():
                nonlocal receiving
                position = 0
                while position < size:
                    receiving = True
                    part = await transport.receive()
                    receiving = False
                    assert part == ours[position : position + len(part)], f"after {position} bytes"
                    assert part
                    position += len(part)
                assert position == size

            async def peer_reads():
                position = stop = 0
                while position < size:
                    if position >= stop:  # block the event loop
                        await wait_all_tasks_blocked()
                        stop += size // 8
                    part = await peer.receive_some(100_000)
                    assert part == ours[position : position + len(part)], f"after {position} bytes"
                    assert part
                    position += len(part)
                assert position == size

            async def peer_writes():
                for begin in range(0, size, 1_000_000):
                    await peer.send_all(ours[begin : begin + 1_000_000])

            nursery.start_soon(write)
            nursery.start_soon(read)
            await wait_all_tasks_blocked()
            assert receiving  # both tasks wait for the same socket now
            assert waiting
            nursery.start_soon(peer_reads)
            nursery.start_soon(peer_writes)
    assert waits > 1


@settings(max_examples=12)
@given(
    wire=st.sampled_from(list(WIRES)),
    sizes=st.lists(st.integers(0, 40_000) | st.integers(0, 1_500_000), min_size=1, max_size=6),
    reads=st.integers(500, 300_000),
)
async def test_messages_of_any_size_arrive_whole_and_in_order(wire, sizes, reads):
    whole = noise(sum(sizes))
    with trio.fail_after(LIMIT):
        # With 20,000 bytes Linux may drop segments of both ends repeatedly for more than a minute.
        async with connected(wire, buffers=100_000) as (transport, peer), trio.open_nursery() as nursery:

            async def write():
                rest = memoryview(whole)
                for size in sizes:
                    await transport.send_all(rest[:size])
                    rest = rest[size:]

            async def echo():
                echoed = 0
                while echoed < len(whole):
                    part = await peer.receive_some(reads)
                    echoed += len(part)
                    await peer.send_all(part)

            nursery.start_soon(write)
            nursery.start_soon(echo)
            assert await receive_exactly(transport.receive, len(whole)) == whole


@pytest.mark.parametrize("wire", SECURE)
@pytest.mark.parametrize("piece", [100, RECORD + 1, 700_000])
async def test_tls_goes_on_after_want_write_with_the_rest(wire, piece):
    with trio.fail_after(LIMIT):
        async with connected(wire, buffers=20_000) as (transport, peer):
            data = noise(max(400_000, 4 * piece))
            rest = memoryview(data)
            while count := transport.send_nowait(rest[:piece]):
                rest = rest[count:]
            assert transport.send_nowait(rest[:piece]) == 0  # idempotent
            assert rest

            async with trio.open_nursery() as nursery:

                async def finish():
                    nonlocal rest
                    while rest:
                        await transport.wait_send()
                        rest = rest[transport.send_nowait(rest[:piece]) :]

                nursery.start_soon(finish)
                assert await receive_exactly(peer.receive_some, len(data)) == data


async def test_send_nowait_relock_to_other_tasks_however_much_the_kernel_takes():
    class Bottomless(socket.socket):
        def send(self, data):
            return len(data)

    with Bottomless() as sock:
        transport = TcpStream(sock)
        assert transport.send_nowait(bytes(50_000_000)) <= 2_000_000


async def test_to_send_nothing_is_harmless(pair):
    transport, peer = pair
    await transport.send_all(b"")
    await transport.send_all(b"x")
    assert await peer.receive_some() == b"x"


async def test_many_tls_records_are_all_received_without_the_peer_sending_more(secure_pair):
    transport, peer = secure_pair
    data = noise(20 * RECORD)
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.send_all, data)
            assert await receive_exactly(transport.receive, len(data)) == data


async def test_many_small_tls_records_take_few_receives(secure_pair):
    transport, peer = secure_pair
    for number in range(200):
        await peer.send_all(b"%03d" % number)
    received, times = b"", 0
    with trio.fail_after(LIMIT):
        while len(received) < 600:
            received += await transport.receive()
            times += 1
    assert received == b"".join(b"%03d" % number for number in range(200))
    assert times < 40  # single records until two have arrived together


async def test_records_that_arrived_together_are_received_together(secure_pair):
    transport, peer = secure_pair
    data = noise(3 * RECORD + 1000)
    await peer.send_all(data)
    await wait_all_tasks_blocked(0.01)
    assert await transport.receive() == data


async def test_a_message_of_just_the_size_of_a_tls_record_is_received(pair):
    transport, peer = pair
    data = noise(RECORD)
    await peer.send_all(data)
    await wait_all_tasks_blocked(0.01)
    with trio.fail_after(LIMIT):
        assert await transport.receive() == data


async def test_bytes_that_are_left_in_the_tls_layer_are_received_without_waiting(secure_pair):
    transport, peer = secure_pair
    transport._size = 1000  # less than a record
    data = noise(2500)
    await peer.send_all(data)
    with trio.fail_after(LIMIT):
        assert await transport.receive() == data[:1000]
        assert transport._sock.pending() == 1500
        with trio.CancelScope() as scope:  # data left in the socket is not lost by cancellation
            scope.cancel()
            await transport.receive()
        assert scope.cancelled_caught
        assert await transport.receive() == data[1000:2000]
        with trio.testing.assert_checkpoints():
            assert await transport.receive() == data[2000:]


@pytest.mark.parametrize("size", [16_383, 16_384, 16_385, 32_768])
async def test_the_end_after_a_full_record_is_received(secure_pair, size):
    transport, peer = secure_pair
    data = noise(size)
    await peer.send_all(data)
    received = b""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.unwrap)  # sends close_notify and keeps the connection open
        with trio.fail_after(LIMIT):
            while more := await transport.receive():
                received += more
            assert await transport.receive() == b""
        nursery.cancel_scope.cancel()
    assert received == data


async def test_port_is_the_one_that_the_peer_sees(pair):
    transport, peer = pair
    assert transport.port == socket_of(peer).getpeername()[1]


async def test_small_messages_are_not_held_back(pair):
    transport, _ = pair
    assert transport._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


# ---- waiting and cancellation ----


async def test_a_receive_that_is_cancelled_while_it_waits_loses_nothing(pair):
    transport, peer = pair
    for data in (b"first", b"second"):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(transport.receive)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        await peer.send_all(data)
        with trio.fail_after(LIMIT):
            assert await transport.receive() == data


async def test_a_receive_that_is_cancelled_when_bytes_are_there_loses_nothing(pair):
    transport, peer = pair
    data = noise(100_000)
    await peer.send_all(data)
    for _ in range(3):
        with trio.CancelScope() as scope:
            scope.cancel()
            await transport.receive()
        assert scope.cancelled_caught
    with trio.fail_after(LIMIT):
        assert await receive_exactly(transport.receive, len(data)) == data


async def test_a_wait_send_that_is_cancelled_is_harmless(pair):
    transport, peer = pair
    data = noise(20_000_000)
    rest = memoryview(data)
    while count := transport.send_nowait(rest):
        rest = rest[count:]
    for _ in range(2):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(transport.wait_send)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:

            async def finish():
                nonlocal rest
                while rest:
                    await transport.wait_send()
                    rest = rest[transport.send_nowait(rest) :]

            nursery.start_soon(finish)
            assert await receive_exactly(peer.receive_some, len(data)) == data


async def test_wait_send_is_a_checkpoint_even_if_there_is_room(pair):
    transport, _ = pair
    with trio.testing.assert_checkpoints():
        await transport.wait_send()


async def test_receive_is_a_checkpoint_even_if_bytes_are_there(pair):
    transport, peer = pair
    await peer.send_all(b"x")
    await wait_all_tasks_blocked(0.01)
    with trio.testing.assert_checkpoints():
        assert await transport.receive() == b"x"


@contextlib.contextmanager
def socket_pair():
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        yield near, far


async def wait_for(readiness, name, woken):
    await readiness.wait()
    woken.append(name)


async def test_two_tasks_that_wait_for_one_socket_both_wake():
    with socket_pair() as (near, far):
        readiness = tls._Readiness(trio.lowlevel.wait_readable, near.fileno())
        woken = []
        with trio.fail_after(LIMIT):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait_for, readiness, 1, woken)
                nursery.start_soon(wait_for, readiness, 2, woken)
                await wait_all_tasks_blocked()
                assert woken == []
                far.send(b"x")
    assert sorted(woken) == [1, 2]


async def test_when_the_first_of_two_waiting_tasks_is_cancelled_the_second_becomes_the_one_that_waits():
    with socket_pair() as (near, far):
        readiness = tls._Readiness(trio.lowlevel.wait_readable, near.fileno())
        received = []

        async def receive():
            while True:
                try:
                    received.append(near.recv(10))
                    return
                except BlockingIOError:
                    await readiness.wait()

        with trio.fail_after(LIMIT):
            async with trio.open_nursery() as nursery:
                first = trio.CancelScope()

                async def cancelled():
                    with first:
                        await readiness.wait()

                nursery.start_soon(cancelled)
                await wait_all_tasks_blocked()
                nursery.start_soon(receive)
                await wait_all_tasks_blocked()
                first.cancel()
                await wait_all_tasks_blocked()
                assert received == []
                far.send(b"x")
    assert received == [b"x"]


async def test_when_the_second_of_two_waiting_tasks_is_cancelled_the_first_goes_on_waiting():
    with socket_pair() as (near, far):
        readiness = tls._Readiness(trio.lowlevel.wait_readable, near.fileno())
        woken = []
        with trio.fail_after(LIMIT):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait_for, readiness, 1, woken)
                await wait_all_tasks_blocked()
                async with trio.open_nursery() as inner:
                    inner.start_soon(wait_for, readiness, 2, woken)
                    await wait_all_tasks_blocked()
                    inner.cancel_scope.cancel()
                assert woken == []
                far.send(b"x")
    assert woken == [1]


class WantsToRead(socket.socket):
    """A TLS socket that has to read before it can send, as in a renegotiation."""

    wants = 0

    def pending(self):
        return 0

    def send(self, data):
        if self.wants:
            self.wants -= 1
            raise ssl.SSLWantReadError
        return super().send(data)


@contextlib.contextmanager
def wants_to_read():
    near, far = socket.socketpair()
    with far, WantsToRead(near.family, near.type, near.proto, fileno=near.detach()) as near:
        near.setblocking(False)
        near.wants = 1
        near.getsockname = lambda: ("", 0)  # an option of TCP that a socket pair does not have
        yield near, far


async def test_a_send_that_has_to_read_first_waits_for_the_peer_beside_a_receiver():
    with wants_to_read() as (near, far):
        transport = TlsStream(near)
        received = []
        sent = trio.Event()

        async def receive():
            received.append(await transport.receive())

        async def send():
            await transport.send_all(b"request")
            sent.set()

        with trio.fail_after(LIMIT):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(receive)
                await wait_all_tasks_blocked()
                nursery.start_soon(send)
                await wait_all_tasks_blocked()
                assert not sent.is_set()
                far.send(b"from the peer")
                await sent.wait()
        assert received == [b"from the peer"]
        assert far.recv(100) == b"request"


async def test_after_a_send_that_had_to_read_the_next_one_waits_for_room_again():
    with wants_to_read() as (near, far):
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 20_000)
        transport = TlsStream(near)
        assert transport.send_nowait(b"x") == 0
        far.send(b"x")
        with trio.fail_after(LIMIT):
            await transport.wait_send()
            assert await transport.receive() == b"x"
            sent = transport.send_nowait(bytes(200_000))
            assert 0 < sent < 200_000  # a part was sent, so there is no "want write"
            assert len(far.recv(1_000_000)) > 0
            far.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while far.recv(1_000_000):
                    pass
            await transport.wait_send()  # writable, but not readable


async def test_a_receive_that_has_to_write_first_waits_for_room():
    class WantsToWrite(socket.socket):
        wants = 1

        def pending(self):
            return 0

        def recv(self, size):
            if self.wants:
                self.wants -= 1
                raise ssl.SSLWantWriteError
            return super().recv(size)

    near, far = socket.socketpair()
    with far, WantsToWrite(near.family, near.type, near.proto, fileno=near.detach()) as near:
        near.setblocking(False)
        near.getsockname = lambda: ("", 0)
        far.send(b"x")
        with trio.fail_after(LIMIT):
            assert await TlsStream(near).receive() == b"x"
            assert near.wants == 0
            # receive_nowait() does not wait; receive() then waits to write.
            near.wants = 2
            far.send(b"y")
            transport = TlsStream(near)
            with transport.lock:
                assert transport.receive_nowait() is None
            assert transport.has_received()
            assert await transport.receive() == b"y"
            assert not transport.has_received()
        assert near.wants == 0


async def test_decrypted_data_is_received_although_the_socket_is_not_readable(secure_pair, monkeypatch):
    near, far = secure_pair
    monkeypatch.setattr(tls, "_RECEIVE", RECORD)  # else all records arrive at once
    with trio.fail_after(LIMIT):
        await far.send_all(noise(3 * RECORD))
        data = b""
        while len(data) < 3 * RECORD:
            if not near.has_received():
                await trio.lowlevel.wait_readable(near.fileno())
            with near.lock:
                data += near.receive_nowait() or b""
    assert data == noise(3 * RECORD)
    near.close()
    assert near.fileno() == -1


async def test_the_end_of_a_stream_is_there_to_be_received_again(pair):
    near, far = pair
    assert not near.has_received()
    await far.aclose()
    with trio.fail_after(LIMIT):
        assert await near.receive() == b""
    assert near.has_received()


# ---- the end ----


async def test_the_end_of_the_stream_follows_the_last_bytes_and_is_permanent(pair):
    transport, peer = pair
    data = noise(3 * RECORD)
    await peer.send_all(data)
    await peer.aclose()
    with trio.fail_after(LIMIT):
        assert await receive_exactly(transport.receive, len(data)) == data
        assert await transport.receive() == b""
        assert await transport.receive() == b""


async def test_the_end_without_close_notify_is_the_end_of_the_stream(secure_pair):
    transport, peer = secure_pair
    data = noise(3 * RECORD)
    await peer.send_all(data)
    socket_of(peer).close()
    with trio.fail_after(LIMIT):
        assert await receive_exactly(transport.receive, len(data)) == data
        assert await transport.receive() == b""
        assert await transport.receive() == b""


def readable(error: ConnectionLost) -> bool:
    """Return whether an error text is readable: without an errno or a line of OpenSSL's source."""
    return bool(re.fullmatch(r"(Connection reset by peer|Broken pipe|The peer closed .*)", str(error)))


async def test_a_reset_is_a_loss_with_a_readable_text(pair):
    transport, peer = pair
    async with trio.open_nursery() as nursery:

        async def receive():
            if isinstance(peer, trio.SSLStream) and not RESET_IS_SEEN_BY_SSL:
                assert await transport.receive() == b""
                return
            with pytest.raises(ConnectionLost, match="^Connection reset by peer$"):
                await transport.receive()

        nursery.start_soon(receive)
        await wait_all_tasks_blocked()
        reset(peer)


@pytest.mark.skipif(not RESET_IS_SEEN_BY_SSL, reason="this Python takes a reset of TLS for an end")
async def test_a_reset_after_full_tls_records_is_an_error_and_not_the_end(secure_pair):
    transport, peer = secure_pair
    data = noise(2 * RECORD)
    await peer.send_all(data)
    reset(peer)
    await wait_all_tasks_blocked(0.01)
    with trio.fail_after(LIMIT):
        assert await receive_exactly(transport.receive, len(data)) == data
        with pytest.raises(ConnectionLost, match="^Connection reset by peer$"):
            await transport.receive()


async def test_an_error_after_full_records_is_raised_after_their_bytes(secure_pair, monkeypatch):
    transport, peer = secure_pair
    data = noise(2 * RECORD)
    await peer.send_all(data)
    await wait_all_tasks_blocked(0.01)
    recv, calls = transport._sock.recv, []

    def breaks(size):
        calls.append(size)
        if len(calls) == 3:
            raise ConnectionResetError(104, "Connection reset by peer")
        return recv(size) if len(calls) < 3 else b""

    monkeypatch.setattr(transport._sock, "recv", breaks)
    monkeypatch.setattr(tcp, "_CALLERS_OF_SYSTEM", {*tcp._CALLERS_OF_SYSTEM, __name__})
    with trio.fail_after(LIMIT):
        assert await transport.receive() == data
        with pytest.raises(ConnectionLost, match="^Connection reset by peer$"):
            await transport.receive()


@pytest.mark.parametrize("size", [1, 1_000_000])
async def test_to_send_to_a_peer_that_reset_is_a_loss_with_a_readable_text(pair, size):
    transport, peer = pair
    reset(peer)
    await wait_all_tasks_blocked(0.01)
    for _ in range(2):
        with pytest.raises(ConnectionLost) as raised:
            transport.send_nowait(bytes(size))
        assert readable(raised.value), str(raised.value)
        assert isinstance(raised.value.__cause__, OSError)


async def test_to_send_to_a_peer_that_closed_is_a_loss(pair):
    transport, peer = pair
    socket_of(peer).close()
    with trio.fail_after(LIMIT), pytest.raises(ConnectionLost) as raised:
        while True:  # the kernel accepts data until the reset arrives
            transport.send_nowait(b"x")
            await transport.wait_send()
    assert readable(raised.value), str(raised.value)


async def test_a_waiting_sender_gets_an_error_when_the_connection_breaks(pair):
    transport, peer = pair
    async with trio.open_nursery() as nursery:

        async def send():
            with trio.fail_after(LIMIT), pytest.raises(ConnectionLost):
                await transport.send_all(bytes(50_000_000))

        nursery.start_soon(send)
        await wait_all_tasks_blocked()
        reset(peer)


async def test_after_send_eof_the_peer_receives_what_was_sent_then_the_end_and_can_still_send(any_pair):
    transport, peer = any_pair
    data = noise(100_000)
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            # It also reads the session tickets that a TLS server sends after the handshake.
            nursery.start_soon(transport.receive)
            await peer.send_all(b"x")
        await transport.send_all(data)
        transport.send_eof()
        assert await receive_exactly(peer.receive_some, len(data)) == data
        assert await peer.receive_some() == b""
        for _ in range(2):
            await peer.send_all(data)
            assert await receive_exactly(transport.receive, len(data)) == data
        await peer.aclose()
        assert await transport.receive() == b""


@pytest.mark.parametrize("size", [1, 1000, RECORD, 200_000])
async def test_data_that_a_peer_sent_before_it_received_the_end_is_not_lost(any_pair, size):
    transport, peer = any_pair
    data = noise(size)
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.send_all, data)
            await wait_all_tasks_blocked(0.01)
            await transport.send_all(b"last words")
            transport.send_eof()
            assert await receive_exactly(transport.receive, size) == data
        assert await receive_exactly(peer.receive_some, 10) == b"last words"
        assert await peer.receive_some() == b""


async def test_decrypted_data_is_not_lost_by_send_eof(secure_pair):
    transport, peer = secure_pair
    transport._size = 1000  # less than a record
    data = noise(2500)
    await peer.send_all(data)
    with trio.fail_after(LIMIT):
        assert await transport.receive() == data[:1000]
        transport.send_eof()
        assert await receive_exactly(transport.receive, 1500) == data[1000:]


async def test_after_send_eof_nothing_can_be_sent(any_pair):
    transport, _ = any_pair
    transport.send_eof()
    for _ in range(2):
        with pytest.raises(ConnectionLost):
            transport.send_nowait(b"in the clear, for example")


async def test_send_eof_never_fails(any_pair):
    transport, peer = any_pair
    with trio.fail_after(LIMIT):
        while transport.send_nowait(noise(1_000_000)):
            pass
    transport.send_eof()  # in the middle of a message
    transport.send_eof()
    reset(peer)
    await wait_all_tasks_blocked(0.01)
    transport.send_eof()
    transport.close()
    transport.send_eof()


async def test_close_twice_is_harmless_and_the_peer_sees_the_end(pair):
    transport, peer = pair
    transport.close()
    transport.close()
    with trio.fail_after(LIMIT):
        assert await peer.receive_some() == b""


async def read_to_the_end(peer) -> tuple[int, str]:
    """Return the number of bytes that a peer receives, and the kind of end."""
    size = 0
    while True:
        try:
            data = await peer.receive_some()
        except trio.BrokenResourceError as error:
            cause = error.__cause__
            while cause.__cause__ is not None:
                cause = cause.__cause__
            return size, "reset" if isinstance(cause, ConnectionResetError) else repr(cause)
        if not data:
            return size, "end"
        size += len(data)


@pytest.mark.parametrize("how", ["abort", "end, cut off", "a send that is cancelled"])
async def test_a_connection_is_reset_in_the_middle_of_a_line(any_pair, how):
    transport, peer = any_pair
    with trio.fail_after(LIMIT):
        if how == "a send that is cancelled":
            with trio.CancelScope() as scope:
                scope.cancel()
                await transport.send_all(noise(5_000_000))
        else:
            transport.send_nowait(b"half a li")
            transport.end(cut_off=True) if how == "end, cut off" else transport.abort()
        assert await read_to_the_end(peer) == (ANY, "reset")
        with pytest.raises(ConnectionLost, match="The connection has been closed"):
            await transport.receive()
    transport.abort()
    transport.close()


def lingers(transport) -> bool:
    """Return whether the connection is reset when the program ends."""
    data = transport._sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, tcp._LINGER.size)
    return tcp._LINGER.unpack(data) == (1, 0)


async def test_a_program_that_ends_while_it_waits_to_send_the_rest_resets_the_connection(pair):
    transport, peer = pair
    assert not lingers(transport)
    while transport.send_nowait(BLOCK):
        pass
    transport._mark_complete()  # as if the last message had been sent completely
    assert not lingers(transport)
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(transport.wait_send)
            await wait_all_tasks_blocked()
            assert lingers(transport)
            nursery.cancel_scope.cancel()
        assert not lingers(transport)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(transport.wait_send)
            await peer.receive_some()
            while lingers(transport):
                await peer.receive_some()


@pytest.mark.parametrize("in_thread", [False, True])
@pytest.mark.parametrize("size", [tcp.PIECE // 2, 5 * tcp.PIECE])
async def test_a_program_that_ends_when_it_has_sent_a_part_resets_the_connection(any_pair, in_thread, size):
    transport, peer = any_pair

    def send(data: bytes | memoryview) -> int:
        if not in_thread:
            return transport.send_nowait(data)
        sent: list[int] = []
        with transport.lock:
            transport.send_in_thread(bytes(data), sent)
        return sum(sent)

    rest = memoryview(bytes(size))
    while sent := send(rest):
        assert lingers(transport) == (sent < len(rest))
        rest = rest[sent:] or memoryview(bytes(size))
    received = 0
    with trio.fail_after(LIMIT):
        while rest:
            assert lingers(transport) == (len(rest) < size or (in_thread and size > tcp.PIECE))
            received += len(await peer.receive_some())
            rest = rest[send(rest) :]
        assert not lingers(transport)
        transport.end(cut_off=False)
        assert (await read_to_the_end(peer))[1] == "end"


async def test_a_connection_is_closed_normally_after_a_complete_line(any_pair):
    transport, peer = any_pair
    await transport.send_all(b"line\n")
    transport.end(cut_off=False)
    transport.abort()  # too late
    with trio.fail_after(LIMIT):
        assert await read_to_the_end(peer) == (5, "end")


async def test_a_connection_that_the_peer_has_reset_can_be_aborted(pair):
    transport, peer = pair
    reset(peer)
    transport.abort()


async def test_a_closed_stream_raises_connection_lost(pair):
    transport, _ = pair
    transport.close()
    with trio.fail_after(LIMIT):
        for _ in range(2):
            with pytest.raises(ConnectionLost):
                transport.send_nowait(b"x")
            with pytest.raises(ConnectionLost):
                await transport.receive()
            with pytest.raises(ConnectionLost):
                await transport.wait_send()


async def test_a_closed_transport_does_not_touch_the_socket_that_has_its_number_now(pair):
    transport, _ = pair
    number = transport._sock.fileno()
    transport.close()
    near, far = socket.socketpair()
    with near, far:
        assert number in {near.fileno(), far.fileno()}
        (far if number == near.fileno() else near).send(b"not for the closed transport")
        with trio.fail_after(LIMIT), pytest.raises(ConnectionLost):
            await transport.receive()


async def test_close_wakes_waiting_tasks_with_connection_lost(pair):
    transport, _ = pair
    while transport.send_nowait(bytes(1_000_000)):
        pass

    async def is_lost(wait):
        with pytest.raises(ConnectionLost):
            await wait()

    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(is_lost, transport.receive)
            nursery.start_soon(is_lost, transport.wait_send)
            await wait_all_tasks_blocked()
            transport.close()


def test_a_transport_can_be_closed_when_trio_has_ended():
    async def main():
        async with serving() as server:
            return await open_tcp("127.0.0.1", server.port)

    transport = trio.run(main)
    transport.close()
    assert transport._sock.fileno() == -1


# ---- connecting ----


@pytest.fixture
def dead_port():
    """Yield a port number, reserved at all addresses of this computer, without a listener."""
    with socket.socket(socket.AF_INET6) as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(("::", 0))
        yield sock.getsockname()[1]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1", "[::1]", "LocalHost"])
async def test_a_refused_connection_to_this_computer_suggests_to_start_a_manager(host, dead_port):
    with trio.fail_after(LIMIT), pytest.raises(ConnectError) as raised:
        await open_socket(host, dead_port)
    reason, hint, where = str(raised.value).split("\n")
    assert "Connection refused" in reason
    assert where == f"Cannot connect to {host}:{dead_port}"
    assert hint == "Make sure a Manager is running on this computer"


async def test_a_refused_connection_to_the_own_hostname_suggests_to_start_a_manager(dead_port, monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "127.0.0.5")
    with pytest.raises(ConnectError, match="\nMake sure a Manager is running on this computer\n"):
        await open_socket("127.0.0.5", dead_port)


async def test_a_purpose_comes_before_the_hint(dead_port):
    with pytest.raises(ConnectError) as raised:
        await open_socket("127.0.0.1", dead_port, purpose=" to get the certificate")
    _, where, hint = str(raised.value).split("\n")
    assert where == f"Cannot connect to 127.0.0.1:{dead_port} to get the certificate"
    assert hint == "Make sure a Manager is running on this computer"


def test_an_address_of_this_computer_is_here(monkeypatch):
    bound = []

    class Sock:
        def __init__(self, family: int, kind: int) -> None:
            self.family = family

        def bind(self, address: tuple[str, int]) -> None:
            bound.append((self.family, address))
            if address[0] not in {"192.0.2.7", "2001:db8::7"}:
                raise OSError("Cannot assign requested address")

        def __enter__(self) -> Sock:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(socket, "socket", Sock)
    hint = "Make sure a Manager is running on this computer\n"
    for host in ("192.0.2.7", "[2001:db8::7]"):
        assert cannot_connect(host, 1) == f"{hint}Cannot connect to {host}:1"
    for host in ("192.0.2.8", "2001:db8::8", "lab-3"):
        assert cannot_connect(host, 1) == f"Cannot connect to {host}:1"
    assert [family for family, _ in bound] == [socket.AF_INET, socket.AF_INET6] * 2


async def test_a_refused_connection_to_another_computer_has_no_hint_about_this_one(dead_port):
    with pytest.raises(ConnectError) as raised:
        await open_socket("127.0.0.5", dead_port)
    assert "Connection refused" in str(raised.value)
    assert str(raised.value).endswith(f"\nCannot connect to 127.0.0.5:{dead_port}")


async def test_a_refused_connection_has_the_same_error_with_tls(dead_port):
    with pytest.raises(ConnectError, match="Connection refused(.|\n)*Make sure a Manager") as raised:
        await open_tls("127.0.0.1", dead_port, trust())
    assert "disable_tls" not in str(raised.value)


@pytest.mark.parametrize(
    "host",
    [
        "no-such-host.invalid",
        "",
        "a..b",
        ".a",
        "x" * 64,
        "x" * 5000,
        " ",
        "\udc80",
        "ä" * 70,
        "[]",
        "127.0.0.1\0x",
    ],
    ids=ascii,
)
async def test_a_host_that_does_not_exist_or_cannot_is_a_connect_error_that_names_it(host):
    async with serving() as server:
        with trio.fail_after(LIMIT), pytest.raises(ConnectError) as raised:
            await open_socket(host, server.port)
        assert str(raised.value).endswith("\n" + visible(f"Cannot connect to {host}:{server.port}"))
        assert len(str(raised.value).split("\n")[0]) > 0
        assert server.accepted == 0


@pytest.mark.parametrize("host", ["::1", "[::1]"])
async def test_an_ipv6_address_may_be_written_with_brackets_or_without(host):
    async def greet(stream):
        await stream.send_all(b"identity?")

    async with serving(greet, host="::1") as server:
        transport = await open_tcp(host, server.port)
        assert await transport.receive() == b"identity?"
        transport.close()


async def test_localhost_reaches_a_manager_that_has_only_ipv4():
    async def greet(stream):
        await stream.send_all(b"identity?")

    async with serving(greet) as server:
        transport = await open_tcp("localhost", server.port)
        assert await transport.receive() == b"identity?"
        transport.close()


async def test_a_socket_is_open_and_does_not_block():
    async with serving() as server:
        with await open_socket("127.0.0.1", server.port) as sock:
            assert not sock.getblocking()
            assert sock.getpeername()[1] == server.port


# ---- failed TLS handshakes ----


async def test_open_tls_relock_the_certificate_that_the_peer_showed():
    async with serving(context=ordinary().server_context()) as server:
        transport, der = await open_tls("localhost", server.port, trust())
        transport.close()
        assert der == ordinary().der


async def test_tls_to_a_plain_peer_that_speaks_first_names_the_argument_that_mends_it():
    async def speak(stream):
        await stream.send_all(b'{"attribute": "identity", "args": [], "kwargs": {}}\r\n')
        await stay(stream)

    async with serving(speak) as server:
        with trio.fail_after(LIMIT), pytest.raises(ConnectError) as raised:
            await open_tls("127.0.0.1", server.port, trust())
        assert str(raised.value).endswith("\nTry setting disable_tls=True")
        assert f"Cannot connect to 127.0.0.1:{server.port}" in str(raised.value)


async def receive_and_close(stream):
    await stream.receive_some()
    await stream.aclose()


async def receive_and_reset(stream):
    await stream.receive_some()
    reset(stream)


async def close_at_once(stream):
    await stream.aclose()


async def reset_at_once(stream):
    reset(stream)


@pytest.mark.parametrize("handler", [receive_and_close, receive_and_reset, close_at_once, reset_at_once])
async def test_a_peer_that_ends_the_tls_handshake_is_a_connect_error_with_a_readable_text(handler):
    async with serving(handler) as server:
        for _ in range(5):
            with trio.fail_after(LIMIT), pytest.raises(ConnectError) as raised:
                await open_tls("127.0.0.1", server.port, trust())
            assert f"Cannot connect to 127.0.0.1:{server.port}" in str(raised.value)
            assert "_ssl.c" not in str(raised.value)
            assert "Try setting disable_tls=True" in str(raised.value)


async def test_a_peer_that_resets_before_the_tls_handshake_is_a_connect_error(monkeypatch):
    real = tls_handshake.open_socket

    async def wait_for_the_reset(host, port, **purpose):
        sock = await real(host, port, **purpose)
        await trio.lowlevel.wait_readable(sock)
        return sock

    monkeypatch.setattr(tls_handshake, "open_socket", wait_for_the_reset)
    async with serving(reset_at_once) as server:
        with trio.fail_after(LIMIT), pytest.raises(ConnectError) as raised:
            await open_tls("127.0.0.1", server.port, trust())
        assert f"Cannot connect to 127.0.0.1:{server.port}" in str(raised.value)


async def test_a_name_that_tls_refuses_is_a_connect_error(monkeypatch):
    real = tls_handshake.open_socket

    async def resolve(host, port, **_):
        return await real("127.0.0.1", port)

    monkeypatch.setattr(tls_handshake, "open_socket", resolve)
    async with serving() as server:
        with pytest.raises(ConnectError, match=f"Cannot connect to .lab:{server.port}"):
            await open_tls(".lab", server.port, trust())


async def test_a_certificate_that_is_not_trusted_is_left_to_the_caller():
    async with serving(context=ordinary().server_context()) as server:
        with pytest.raises(ssl.SSLCertVerificationError):
            await open_tls("127.0.0.1", server.port, ssl.create_default_context())


async def test_cancelling_the_handshake_of_a_client_closes_the_socket():
    hello, ended = trio.Event(), trio.Event()

    async def listen(stream):
        assert await stream.receive_some()
        hello.set()
        with contextlib.suppress(trio.BrokenResourceError):
            assert await stream.receive_some() == b""
        ended.set()

    with trio.fail_after(LIMIT):
        async with serving(listen) as server:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(open_tls, "127.0.0.1", server.port, trust())
                    await hello.wait()
                    await wait_all_tasks_blocked()
                    scope.cancel()
            assert scope.cancelled_caught
            await ended.wait()


@contextlib.asynccontextmanager
async def tls_by_hand(send, respond):
    """Run a TLS server that splits or delays its bytes.

    Args:
        send: Sends the bytes of the handshake to a stream.
        respond: Sends the TLS bytes of a reply.
    """
    context = ordinary().server_context()

    async def answer(stream):
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        peer = context.wrap_bio(incoming, outgoing, server_side=True)

        async def until_done(step):
            while True:
                try:
                    return step()
                except ssl.SSLWantReadError:
                    await send(stream, outgoing.read())
                    incoming.write(await stream.receive_some())

        await until_done(peer.do_handshake)
        request = await until_done(lambda: peer.read(100))
        peer.write(request.upper())
        await respond(stream, outgoing.read())
        await stay(stream)

    async with serving(answer) as server:
        yield server


async def at_once(stream, data):
    await stream.send_all(data)


async def one_by_one(stream, data):
    for byte in data:
        await stream.send_all(bytes([byte]))


async def in_two_halves(stream, data):
    middle = len(data) // 2
    await stream.send_all(data[:middle])
    await wait_all_tasks_blocked(0.01)  # the client has received a part of a record now
    await stream.send_all(data[middle:])


@pytest.mark.parametrize(
    ("send", "respond"), [(one_by_one, at_once), (at_once, one_by_one), (in_two_halves, in_two_halves)]
)
async def test_tls_waits_for_the_rest_of_a_partial_record(send, respond):
    with trio.fail_after(LIMIT):
        async with tls_by_hand(send, respond) as server:
            transport, _ = await open_tls("127.0.0.1", server.port, trust())
            await transport.send_all(b"identity")
            assert await transport.receive() == b"IDENTITY"
            transport.close()


async def test_a_tls_handshake_that_finds_no_room_to_write_waits_for_it(monkeypatch):
    real, calls = ssl.SSLSocket.do_handshake, []

    def no_room_at_first(sock):
        calls.append(sock)
        if len(calls) == 1:
            raise ssl.SSLWantWriteError
        real(sock)

    async with serving(context=ordinary().server_context()) as server:
        with monkeypatch.context() as patch, trio.fail_after(LIMIT):
            patch.setattr(ssl.SSLSocket, "do_handshake", no_room_at_first)
            transport, _ = await open_tls("127.0.0.1", server.port, trust())
        transport.close()
    assert len(calls) > 1


async def test_ctrl_c_between_dialling_and_tls_closes_the_socket():
    class CtrlC(BaseException):
        pass

    class Interrupted:
        def wrap_socket(self, sock, **options):
            self.sock = sock
            raise CtrlC

    context = Interrupted()
    async with serving() as server:
        with pytest.raises(CtrlC):
            await open_tls("127.0.0.1", server.port, context)
    assert context.sock.fileno() == -1


@pytest.fixture
def sockets_without_options(monkeypatch):
    """Sockets whose options cannot be set any more, as on macOS after a reset; yields them."""
    sockets = []

    def fail(sock):
        sockets.append(sock)
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(liveness, "detect_dead_peer", fail)
    return sockets


async def test_a_connection_that_is_reset_at_once_is_a_connect_error(sockets_without_options):
    async with serving() as server:
        with pytest.raises(ConnectError, match="Invalid argument"):
            await open_tcp("127.0.0.1", server.port)
    assert [sock.fileno() for sock in sockets_without_options] == [-1]


# ---- accepting ----


class ResetSocket(socket.socket):
    """A socket without a local address, as on macOS after a reset."""

    def getsockname(self):
        raise OSError(22, "Invalid argument")


async def test_a_peer_that_is_gone_when_its_stream_is_made_is_lost():
    sock = ResetSocket()
    with pytest.raises(ConnectionLost, match="Invalid argument"):
        await listening._open(sock, None)
    assert sock.fileno() == -1


async def test_a_peer_that_is_gone_after_the_tls_handshake_is_lost(monkeypatch):
    monkeypatch.setattr(ssl.SSLSocket, "getsockname", ResetSocket.getsockname, raising=False)
    with trio.fail_after(LIMIT):
        async with waiting_to_accept() as (sock, peer), trio.open_nursery() as nursery:
            client = trio.SSLStream(peer, trust(), server_hostname="localhost")
            nursery.start_soon(client.do_handshake)
            with pytest.raises(ConnectionLost, match="Invalid argument"):
                await accept_tls(sock, ordinary().server_context(ssl.TLSVersion.TLSv1_2))


async def test_a_peer_that_is_gone_before_it_is_accepted_is_closed(sockets_without_options):
    listener = await listening.listen_tcp("127.0.0.1", 0)
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listener.serve, pytest.fail, nursery)
            async with await trio.open_tcp_stream("127.0.0.1", listener.port) as peer:
                assert await peer.receive_some() == b""
            nursery.cancel_scope.cancel()
    assert [sock.fileno() for sock in sockets_without_options] == [-1]


@contextlib.asynccontextmanager
async def waiting_to_accept():
    """Yield an accepted socket before TLS, and the stream of its peer."""
    put, take = trio.open_memory_channel(1)

    async def accept(stream):
        put.send_nowait(detach_socket(stream))

    async with serving(accept) as server, await trio.open_tcp_stream("127.0.0.1", server.port) as peer:
        sock = await take.receive()
        yield sock, peer
        assert sock.fileno() < 0, "the socket was left open"


async def test_a_peer_that_opens_a_connection_is_answered(any_pair):
    transport, peer = any_pair
    data = noise(300_000)
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(transport.send_all, data)
            nursery.start_soon(peer.send_all, data)
            assert await receive_exactly(peer.receive_some, len(data)) == data
            assert await receive_exactly(transport.receive, len(data)) == data


@pytest.mark.parametrize(
    "sent", [b"GET / HTTP/1.1\r\n\r\n", b"\0" * 100, b""], ids=["HTTP", "zeros", "nothing"]
)
async def test_a_peer_that_opens_a_connection_and_speaks_no_tls_is_lost(sent):
    with trio.fail_after(LIMIT):
        async with waiting_to_accept() as (sock, peer):
            await peer.send_all(sent)
            await peer.send_eof()
            with pytest.raises(ConnectionLost):
                await accept_tls(sock, ordinary().server_context())


async def test_a_peer_that_does_not_trust_our_certificate_is_lost():
    with trio.fail_after(LIMIT):
        async with waiting_to_accept() as (sock, peer), trio.open_nursery() as nursery:
            stream = trio.SSLStream(peer, ssl.create_default_context(), server_hostname="localhost")

            async def handshake():
                with pytest.raises(trio.BrokenResourceError):
                    await stream.do_handshake()
                socket_of(stream).close()

            nursery.start_soon(handshake)
            with pytest.raises(ConnectionLost):
                # With TLS 1.3, the server completes the handshake before the client has verified it.
                transport = await accept_tls(sock, ordinary().server_context(ssl.TLSVersion.TLSv1_2))
                pytest.fail(f"{transport}")


async def test_a_peer_that_has_reset_the_connection_before_tls_is_lost():
    with trio.fail_after(LIMIT):
        async with waiting_to_accept() as (sock, peer):
            reset(peer)
            await wait_all_tasks_blocked(0.01)
            with pytest.raises(ConnectionLost):
                await accept_tls(sock, ordinary().server_context())


async def test_cancelling_the_handshake_of_a_server_closes_the_socket():
    async with waiting_to_accept() as (sock, _):
        with trio.move_on_after(0.05) as scope:
            await accept_tls(sock, ordinary().server_context())
        assert scope.cancelled_caught


async def test_of_many_handshakes_few_steps_are_done_in_each_turn_of_the_loop():
    turn = 0
    steps = []

    class Step:
        """A socket whose peer has sent its first TLS message."""

        def __init__(self, sock):
            self.fileno = sock.fileno

        def do_handshake(self):
            steps.append(turn)

    async def count():
        nonlocal turn
        while True:
            turn += 1
            await trio.lowlevel.checkpoint()

    ours, theirs = socket.socketpair()
    with contextlib.ExitStack() as stack:
        stack.enter_context(theirs)
        theirs.send(b"hello")
        # In Trio, one task may wait for a descriptor.
        peers = [stack.enter_context(sock) for sock in (ours, *(ours.dup() for _ in range(19)))]
        lock = trio.Lock()
        with trio.fail_after(LIMIT):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(count)
                async with trio.open_nursery() as handshakes:
                    for peer in peers:
                        handshakes.start_soon(tls_handshake._do_handshake, Step(peer), lock)
                nursery.cancel_scope.cancel()
    assert len(steps) == 20
    # Trio shuffles the tasks of a turn: the counter may run before one step and after the next.
    assert max(map(steps.count, steps)) <= 2
