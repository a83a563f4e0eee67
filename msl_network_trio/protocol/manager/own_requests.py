"""Requests to the Manager itself: its identity, links and locks. Pure state."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from msl_network_trio.protocol import codec
from msl_network_trio.protocol.manager.admission import Admission
from msl_network_trio.protocol.manager.followers import Followers
from msl_network_trio.protocol.manager.peer import Peer
from msl_network_trio.protocol.manager.registry import Registry
from msl_network_trio.protocol.manager.responder import Responder
from msl_network_trio.protocol.messages import RoutedLine

_MAX_REQUEST = 65_536
"""Maximum bytes of a request, which is decoded as a whole."""


class OwnRequests:
    """Answers requests to the Manager itself.

    Args:
        identity: The Manager's identity without its peers.
        registry: The admitted peers.
        responder: Answers requests.
        admission: Handles the other requests, which need an administrator.
        followers: The clients that wait for Services.
    """

    def __init__(
        self,
        identity: dict[str, Any],
        registry: Registry,
        responder: Responder,
        admission: Admission,
        followers: Followers,
    ) -> None:
        self._identity = identity
        self._registry = registry
        self._responder = responder
        self._admission = admission
        self._followers = followers
        self._encoded = (-1, b"")
        self._answers: dict[str, Callable[[Peer, bytes], bytes]] = {
            "identity": self._identity_of_all,
            "link": self._link,
            "unlink": self._unlink,
            "acquire_lock": self._acquire_lock,
            "release_lock": self._release_lock,
        }

    def identity(self) -> dict[str, Any]:
        """Return the identity of the Manager with its clients and Services."""
        services = {name: peer.info for name, peer in self._registry.services.items()}
        return {**self._identity, "clients": self._registry.clients(), "services": services}

    def answer(self, peer: Peer, routed: RoutedLine, line: bytes) -> None:
        """Answer a request, or leave it to the admission if it needs an administrator."""
        answer = self._answers.get(routed.attribute)
        if len(line) > _MAX_REQUEST:
            text = f"ValueError: A request to the Manager has no more than {_MAX_REQUEST:,} bytes"
            self._responder.refuse(peer, routed.uid, text)
            return
        if answer is None:
            self._admission.request(peer, routed, line)
            return
        try:
            result = answer(peer, line)
        except (KeyError, PermissionError, TypeError, ValueError) as error:
            self._responder.refuse(peer, routed.uid, f"{type(error).__name__}: {error}")
        else:
            self._responder.answer(peer, routed.uid, result)

    def _identity_of_all(self, peer: Peer, line: bytes) -> bytes:
        # Cached until a peer connects or disconnects: in a large network it takes long.
        changes, encoded = self._encoded
        if changes != self._registry.changes:
            clients = _joined((name, peer) for name, peer in self._registry.peers.items() if not peer.service)
            services = _joined(self._registry.services.items())
            own = codec.encode_value(self._identity)[1:-1]  # empty if the Manager has no fields of its own
            encoded = b"{%b}" % b", ".join(
                part for part in (own, b'"clients": ' + clients, b'"services": ' + services) if part
            )
            self._encoded = (self._registry.changes, encoded)
        return encoded

    def _link(self, peer: Peer, line: bytes) -> bytes:
        name = _service_argument(line)
        try:
            self._registry.link(peer, name)
        except KeyError:
            self._followers.wait(peer, name)
            raise
        return _encoded_info(self._registry.services[name])

    def _unlink(self, peer: Peer, line: bytes) -> bytes:
        name = _service_argument(line)
        self._followers.unwait(peer, name)
        return codec.encode_value(self._registry.unlink(peer, name))

    def _acquire_lock(self, peer: Peer, line: bytes) -> bytes:
        shared = codec.decode_object(line)["kwargs"]["shared"]
        links = self._registry.acquire_lock(peer, _service_argument(line), shared=bool(shared))
        return codec.encode_value(links)

    def _release_lock(self, peer: Peer, line: bytes) -> bytes:
        return codec.encode_value(self._registry.release_lock(peer, _service_argument(line)))


def _encoded_info(peer: Peer) -> bytes:
    """Return the encoded identity of a peer. It is cached, since that of a Service may be large."""
    if not peer.encoded_info:
        peer.encoded_info = codec.encode_value(peer.info)
    return peer.encoded_info


def _joined(peers: Iterable[tuple[str, Peer]]) -> bytes:
    """Return a JSON object with the identities of peers, by name."""
    return b"{%b}" % b", ".join(
        [b"%b: %b" % (codec.encode_value(name), _encoded_info(peer)) for name, peer in peers]
    )


def _service_argument(line: bytes) -> str:
    """Return the first argument of a request to the Manager: the name of a Service."""
    match codec.decode_object(line).get("args"):
        case [str() as name, *_]:
            return name
    raise TypeError("The first argument must be the name of a service")
