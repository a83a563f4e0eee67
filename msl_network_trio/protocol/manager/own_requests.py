"""Requests to the Manager itself: who is there, links, and locks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from msl_network_trio.protocol import codec
from msl_network_trio.protocol.manager.admission import Admission
from msl_network_trio.protocol.manager.peer import Peer
from msl_network_trio.protocol.manager.registry import Registry
from msl_network_trio.protocol.manager.responder import Responder
from msl_network_trio.protocol.messages import RoutedLine

_LARGEST = 65_536
"""The largest request, in bytes: it is decoded as a whole."""


class OwnRequests:
    """Answers the requests that are for the Manager itself.

    Args:
        identity: What the Manager says about itself, without its peers.
        registry: Who is connected.
        responder: Writes the answers.
        admission: Takes the requests for which a peer has to be an administrator.
    """

    def __init__(
        self, identity: dict[str, Any], registry: Registry, responder: Responder, admission: Admission
    ) -> None:
        self._identity = identity
        self._registry = registry
        self._responder = responder
        self._admission = admission
        self._told = (-1, b"")
        self._answers: dict[str, Callable[[Peer, bytes], bytes]] = {
            "identity": self._tell,
            "link": self._link,
            "unlink": self._unlink,
            "acquire_lock": self._acquire_lock,
            "release_lock": self._release_lock,
        }

    def identity(self) -> dict[str, Any]:
        """Who the Manager is, and who is connected to it."""
        services = {name: peer.info for name, peer in self._registry.services.items()}
        return {**self._identity, "clients": self._registry.clients(), "services": services}

    def answer(self, peer: Peer, routed: RoutedLine, line: bytes) -> None:
        """Answer a request, or have somebody log in who must be an administrator to make it."""
        answer = self._answers.get(routed.attribute)
        if len(line) > _LARGEST:
            text = f"ValueError: A request to the Manager has no more than {_LARGEST:,} bytes"
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

    def _tell(self, peer: Peer, line: bytes) -> bytes:
        # Put together once for all who ask before somebody comes or goes: in a large network it takes long.
        changes, told = self._told
        if changes != self._registry.changes:
            clients = _joined((name, peer) for name, peer in self._registry.peers.items() if not peer.service)
            services = _joined(self._registry.services.items())
            own = codec.encode_value(self._identity)[1:-1]  # empty if the Manager has no fields of its own
            told = b"{%b}" % b", ".join(
                part for part in (own, b'"clients": ' + clients, b'"services": ' + services) if part
            )
            self._told = (self._registry.changes, told)
        return told

    def _link(self, peer: Peer, line: bytes) -> bytes:
        name = _service_argument(line)
        self._registry.link(peer, name)
        return _told(self._registry.services[name])

    def _unlink(self, peer: Peer, line: bytes) -> bytes:
        return codec.encode_value(self._registry.unlink(peer, _service_argument(line)))

    def _acquire_lock(self, peer: Peer, line: bytes) -> bytes:
        shared = codec.decode_object(line)["kwargs"]["shared"]
        links = self._registry.acquire_lock(peer, _service_argument(line), shared=bool(shared))
        return codec.encode_value(links)

    def _release_lock(self, peer: Peer, line: bytes) -> bytes:
        return codec.encode_value(self._registry.release_lock(peer, _service_argument(line)))


def _told(peer: Peer) -> bytes:
    """Return what others are told of a peer, which is encoded once: a Service may have much to tell."""
    if not peer.encoded_info:
        peer.encoded_info = codec.encode_value(peer.info)
    return peer.encoded_info


def _joined(peers: Iterable[tuple[str, Peer]]) -> bytes:
    """Return a JSON object with what others are told of peers, by name."""
    return b"{%b}" % b", ".join([b"%b: %b" % (codec.encode_value(name), _told(peer)) for name, peer in peers])


def _service_argument(line: bytes) -> str:
    """The first argument of a request to the Manager, which is the name of a Service."""
    match codec.decode_object(line).get("args"):
        case [str() as name, *_]:
            return name
    raise TypeError("The first argument must be the name of a service")
