"""Minimal client on a socket, with only the part of the protocol that calls need."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Sequence
from typing import Any, Final

from benchmarks.tasks import HOST, SERVICE, Task

PATIENCE: Final = 30.0
"""Maximum seconds without received data."""

_RECEIVE: Final = 65_536
_IDENTITY: Final = {"type": "client", "name": "raw", "language": "none", "os": "none"}


class Connection:
    """A linked connection.

    Args:
        task: The server to connect to.
        context: The return value of `context_of` for the server.

    Attributes:
        socket: The blocking socket, with a timeout of `PATIENCE` seconds.
    """

    def __init__(self, task: Task, context: ssl.SSLContext | None) -> None:
        plain = socket.create_connection((HOST, task.address.port), PATIENCE)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = context.wrap_socket(plain, server_hostname=HOST) if context else plain
        self.send = self.socket.sendall
        self.received: list[bytes] = []
        self._line()
        self._tell({"error": False, "requester": None, "result": _IDENTITY, "uid": ""})
        self._tell(request("Manager", "link", [SERVICE], "link"))
        if (answer := json.loads(self._line()))["error"]:
            raise RuntimeError(f"not linked: {answer['message']}")

    def receive(self) -> int:
        """Wait for data, and return the number of line ends in it."""
        data = self.socket.recv(_RECEIVE)
        if not data:
            raise ConnectionError("the Manager has closed a connection")
        self.received.append(data)
        return data.count(b"\n")

    def take(self) -> list[bytes]:
        """Return the received lines."""
        *lines, rest = b"".join(self.received).split(b"\n")
        self.received = [rest] if rest else []
        return lines

    def _tell(self, message: dict[str, Any]) -> None:
        self.send(json.dumps(message).encode() + b"\r\n")

    def _line(self) -> bytes:
        while not self.receive():
            pass
        (line,) = self.take()
        return line


def context_of(task: Task) -> ssl.SSLContext | None:
    """Return the TLS context for the server of a task; None: no TLS."""
    certificate = task.address.certificate
    return ssl.create_default_context(cafile=certificate) if certificate else None


def request(service: str, attribute: str, args: Sequence[Any], uid: str) -> dict[str, Any]:
    """Return an encoded request."""
    return {
        "args": args,
        "attribute": attribute,
        "error": False,
        "kwargs": {},
        "service": service,
        "uid": uid,
    }
