"""Followers: clients that receive a notice when a Service disconnects or connects. Pure state.

A client asks for notices in its identity, with ``"follows": ["services"]``. msl-network 1.0.0 has neither
this field nor notices. They are notifications of the Manager itself, without positional arguments; the
keyword argument is

- ``tells=["services"]``, once after the admission: this Manager sends notices;
- ``gone=NAME`` to clients that were linked with a Service when it disconnected;
- ``came=NAME`` to those clients when the Service is connected again, and to clients whose request for a link
  was refused since the Service was not connected. A client that unlinks waits no more.

Other clients and all Services receive nothing; those of msl-network would log or drop such lines.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from msl_network_trio.constants import MANAGER, NOTIFICATION_UID
from msl_network_trio.protocol.manager import answers
from msl_network_trio.protocol.manager.identity import MAX_NAME, SERVICES
from msl_network_trio.protocol.manager.peer import Peer

_MAX_AWAITED: Final = 1000
"""Maximum number of Services that one client waits for. Of further ones it gets no notice."""


class Followers:
    """The clients that wait for Services which are not connected."""

    def __init__(self) -> None:
        self._waiting: dict[str, dict[Peer, None]] = {}
        """The clients that wait for a Service, by its name."""
        self._awaited: dict[Peer, dict[str, None]] = {}
        """The names of the Services that a client waits for."""

    def admit(self, peer: Peer) -> None:
        """Send the notices that follow from the admission of a peer."""
        if peer.follows:
            _send([peer], {"tells": [SERVICES]})
        if peer.service and peer.service in self._waiting:
            clients = self._waiting.pop(peer.service)
            for client in clients:
                self._forget_name(client, peer.service)
            _send(clients, {"came": peer.service})

    def wait(self, client: Peer, name: str) -> None:
        """Let a client wait for a Service; no effect if it is no follower."""
        if not client.follows or len(name) > MAX_NAME:
            return
        names = self._awaited.setdefault(client, {})
        if name in names or len(names) < _MAX_AWAITED:
            names[name] = None
            self._waiting.setdefault(name, {})[client] = None

    def unwait(self, client: Peer, name: str) -> None:
        """Let a client wait no more for a Service; no effect if it does not wait for it."""
        clients = self._waiting.get(name)
        if clients is not None and client in clients:
            self._forget_client(client, name)
            self._forget_name(client, name)

    def lose(self, service: Peer) -> None:
        """Send the notices that a peer disconnects, if it is a Service; before its links are removed."""
        clients = [linked for linked in service.links if linked.follows]
        _send(clients, {"gone": service.service})
        for client in clients:
            self.wait(client, service.service)

    def forget(self, client: Peer) -> None:
        """Remove a client that has disconnected."""
        for name in self._awaited.pop(client, ()):
            self._forget_client(client, name)

    def _forget_client(self, client: Peer, name: str) -> None:
        clients = self._waiting[name]
        del clients[client]
        if not clients:
            del self._waiting[name]

    def _forget_name(self, client: Peer, name: str) -> None:
        names = self._awaited[client]
        del names[name]
        if not names:
            del self._awaited[client]


def _send(clients: Collection[Peer], kwargs: dict[str, Any]) -> None:
    """Queue a notice for clients."""
    # Without positional arguments: clients take the first one for the reason of a shutdown.
    fields = {"error": False, "result": [[], kwargs], "service": MANAGER, "uid": NOTIFICATION_UID}
    line = answers.line(fields) if clients else b""
    for client in clients:
        client.route.put(line)
