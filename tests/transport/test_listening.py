"""Listeners: connections that end early, and a transport that is added outside of the package."""

from __future__ import annotations

import socket

import pytest
import trio

from msl_network_trio import connect
from msl_network_trio.dialing import dialers
from msl_network_trio.dialing.address import Scheme
from msl_network_trio.dialing.dialers import Dialer
from msl_network_trio.manager.database import ManagerDatabase
from msl_network_trio.manager.server import Manager
from msl_network_trio.manager.settings import ManagerSettings
from msl_network_trio.manager.tables import IN_MEMORY
from msl_network_trio.transport import base, listening
from msl_network_trio.transport.listening import IncomingConnection, Listener, listen_tcp
from msl_network_trio.transport.memory import MemoryStream, memory_pair
from tests.transport.peers import LIMIT


class Cable:
    """A transport with a Stream, a Listener and a dialer, as one for a serial port would have."""

    port = 0

    def __init__(self) -> None:
        self._put, self._take = trio.open_memory_channel[MemoryStream](10)

    async def dial(self, *_: object) -> MemoryStream:
        ours, theirs = memory_pair()
        await self._put.send(theirs)
        return ours

    async def serve(self, handle, nursery) -> None:
        async for stream in self._take:

            async def open_(_tls, stream=stream):
                await trio.lowlevel.checkpoint()
                return stream

            nursery.start_soon(handle, IncomingConnection("127.0.0.1", 7, "127.0.0.1", open_))

    def close(self) -> None:
        self._take.close()


async def test_a_transport_needs_a_stream_a_listener_and_a_line_in_the_table(monkeypatch):
    cable = Cable()
    monkeypatch.setitem(dialers.DIALERS, "cable", Dialer(cable.dial, {"cable": Scheme(7, has_tls=False)}))
    listener: Listener = cable
    settings = ManagerSettings(in_memory=True)
    manager = Manager(settings, listener.port, None, ManagerDatabase(IN_MEMORY))
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(manager.run, [(listener, None)])
            try:
                async with connect(host="cable://lab", name="Meter") as client:
                    await client.identities()  # a round trip, after which the Manager knows the client
                    assert list(manager.identity()["clients"]) == [f"Meter[{socket.gethostname()}:7]"]
            finally:
                manager.shutdown()


@pytest.mark.parametrize("option", [{"transport": "websocket"}, {"disable_tls": False, "cert_file": "x"}])
async def test_the_scheme_of_an_added_transport_decides(monkeypatch, option):
    monkeypatch.setitem(dialers.DIALERS, "cable", Dialer(Cable().dial, {"cable": Scheme(7, has_tls=False)}))
    with pytest.raises(ValueError, match="contradicts"):
        connect(host="cable://lab", **option)


async def test_a_connection_that_ends_before_it_is_accepted_is_closed_and_not_handled(monkeypatch):
    handled = []
    accepted = trio.Event()

    def gone(stream):
        accepted.set()
        raise OSError("Socket is not connected")

    monkeypatch.setattr(listening, "detach_socket", gone)
    listener = await listen_tcp("127.0.0.1", 0)
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listener.serve, handled.append, nursery)
            async with await trio.open_tcp_stream("127.0.0.1", listener.port) as peer:
                await accepted.wait()
                assert await peer.receive_some() == b""
            nursery.cancel_scope.cancel()
    assert handled == []


async def test_a_listener_that_is_closed_frees_its_port():
    listener = await listen_tcp("127.0.0.1", 0)
    listener.close()
    again = await listen_tcp("127.0.0.1", listener.port)
    assert again.port == listener.port
    again.close()


def test_the_earlier_name_of_stream_remains_for_transports_of_users():
    assert base.Transport is base.Stream
