"""The other ends of a Manager's connections, which read and write when a test says so."""

from __future__ import annotations

import json
from typing import Any

from msl_network_trio.constants import MANAGER
from msl_network_trio.manager.server import Manager
from msl_network_trio.transport.base import Stream
from tests.protocol.network import encoded, request


class Wire:
    """The end of a connection at which a peer is.

    Args:
        transport: The carrier.

    Attributes:
        transport: The carrier.
        name: The network name of the peer, once it is known.
    """

    def __init__(self, transport: Stream) -> None:
        self.transport = transport
        self.name = ""
        self._received = b""

    async def send(self, *lines: Any) -> None:
        """Send lines: bytes, or fields to be encoded."""
        await self.transport.send_all(b"".join(encoded(line) + b"\r\n" for line in lines))

    async def line(self) -> dict[str, Any]:
        """Wait for the next line."""
        while b"\n" not in self._received:
            data = await self.transport.receive()
            assert data, f"the end has come after {self._received[:200]!r}"
            self._received += data
        line, self._received = self._received.split(b"\n", 1)
        return json.loads(line)

    async def rest(self) -> bytes:
        """Wait for the end, and return what came before it."""
        parts = [self._received]
        while data := await self.transport.receive():
            parts.append(data)
        return b"".join(parts)

    async def lines(self) -> list[dict[str, Any]]:
        """Wait for the end, and return the lines that came before it."""
        *lines, rest = (await self.rest()).split(b"\n")
        assert rest == b""
        return [json.loads(line) for line in lines]

    async def ask(
        self, service: str, attribute: str, *args: Any, uid: str = "1", **kwargs: Any
    ) -> dict[str, Any]:
        """Make a request and wait for the next line, which must be the answer."""
        await self.send(request(service, attribute, *args, uid=uid, **kwargs))
        answer = await self.line()
        assert answer["uid"] == uid
        return answer

    async def enter(self, name: str = "C", kind: str = "client") -> None:
        """Say who we are, and wait until the Manager knows it."""
        question = await self.line()
        assert question["attribute"] == "identity"
        await self.send({"result": {"name": name, "type": kind, "attributes": {}}})
        answer = await self.ask(MANAGER, "unlink", "nobody", uid="hello")
        assert answer["result"] is True
        self.name = answer["requester"]


async def dial(manager: Manager, name: str = "C", kind: str = "client") -> Wire:
    """Connect to a Manager in memory, and say who we are."""
    wire = Wire(await manager.dial())
    await wire.enter(name, kind)
    return wire
