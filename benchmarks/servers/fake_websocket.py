"""WebSocket connections of the fake Manager: each message is a line."""

from __future__ import annotations

import asyncio
from typing import cast

from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Event, Message, Ping, Request

from benchmarks.servers.fake_conversation import HELLO, answer


class WebSocketConversation(asyncio.Protocol):
    """Connection to one client."""

    _transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the client's handshake."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclasses of it
        self._connection = WSConnection(ConnectionType.SERVER)
        self._unfinished: list[str] = []

    def data_received(self, data: bytes) -> None:
        """Answer every complete message, in a single write."""
        self._connection.receive_data(data)
        sent: list[bytes] = []
        alive = True
        for event in self._connection.events():
            alive = self._meet(event, sent) and alive
        if sent:
            self._transport.write(b"".join(sent))
        if not alive:
            self._transport.close()

    def _meet(self, event: Event, sent: list[bytes]) -> bool:
        """Append the answer to an event; return False if the client disconnects."""
        send = self._connection.send
        if isinstance(event, Message):
            self._unfinished.append(event.data)
            if not event.message_finished:
                return True
            line = "".join(self._unfinished).encode()
            self._unfinished.clear()
            answers: list[bytes | memoryview] = []
            alive = answer(line, answers)
            sent += [send(Message(data=line.decode())) for line in b"".join(answers).splitlines()]
            return alive
        if isinstance(event, Request):
            subprotocol = event.subprotocols[0] if event.subprotocols else None
            sent.append(send(AcceptConnection(subprotocol=subprotocol)))
            sent.append(send(Message(data=HELLO.decode().rstrip())))
        elif isinstance(event, CloseConnection):
            sent.append(send(event.response()))
            return False
        elif isinstance(event, Ping):
            sent.append(send(event.response()))
        return True
