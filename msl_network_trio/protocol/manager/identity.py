"""Identities of peers: checks of the fields that they send about themselves. Pure functions."""

from __future__ import annotations

from typing import Any, Final

import attrs

from msl_network_trio.protocol import codec

_MARGIN = 100
"""Maximum levels by which the answers that contain an identity are nested deeper than the identity."""

SERVICES: Final = "services"
"""The element of the field ``follows`` with which a client asks for notices about Services."""

MAX_NAME: Final = 1000
"""Maximum characters of a name, which is a part of every request of its peer."""

_MAX_CLIENT = 65_536
"""Maximum bytes of the identity of a client, which is a part of the Manager's identity."""

_MAX_SERVICE = 1_000_000
"""Maximum bytes of the identity of a Service, which contains its attributes."""


@attrs.frozen
class Identity:
    """The identity of a peer, checked."""

    kind: str
    """``"client"`` or ``"service"``."""

    name: str
    """The name of the client or the Service."""

    network_name: str
    """``"name[HOST:port]"``."""

    info: dict[str, Any]
    """The entry of the peer in the Manager's identity."""

    size: int
    """Bytes of `info`, encoded."""

    follows: bool
    """Whether it is a client that asks for notices about Services; see `followers`."""


def read_identity(said: Any, address: str) -> Identity:
    """Check the identity that a peer has sent.

    Args:
        said: Its answer to the question for its identity.
        address: ``"HOST:port"`` of the peer.

    Raises:
        TypeError: It is no object, or a field has the wrong type.
        KeyError: A field is missing.
        ValueError: A name is empty or too long, or the identity is too large or cannot be sent to others.
    """
    if not isinstance(said, dict):
        raise TypeError(f"An identity is a JSON object, not {type(said).__name__}")
    name, kind = said["name"], said["type"]
    if not isinstance(name, str) or not isinstance(kind, str):
        raise TypeError('The "name" and the "type" of an identity are text')
    kind = kind.lower()
    if kind not in {"client", "service"}:
        raise TypeError(f'Unknown connection type {said["type"]!r}. Must be "client" or "service"')
    if not name:
        raise ValueError('The "name" of an identity is empty')
    if len(name) > MAX_NAME:
        raise ValueError(f'The "name" of an identity has more than {MAX_NAME:,} characters')
    info = {
        "address": address,
        "language": said.get("language", "unknown"),
        "os": said.get("os", "unknown"),
    }
    info = {"name": name, **info} if kind == "client" else _service_info(said, info)
    network_name = f"{name}[{address}]"
    size = _encoded_size({network_name: info})
    largest = _MAX_CLIENT if kind == "client" else _MAX_SERVICE
    if size > largest:
        raise ValueError(f"The identity of a {kind} has more than {largest:,} bytes")
    follows = said.get("follows")
    is_follower = kind == "client" and isinstance(follows, list) and SERVICES in follows
    return Identity(kind, name, network_name, info, size, is_follower)


def _service_info(said: dict[str, Any], info: dict[str, Any]) -> dict[str, Any]:
    """Add the fields of a Service. Its name is its key in the Manager's identity."""
    attributes, max_clients = said["attributes"], said.get("max_clients", -1)
    if not isinstance(attributes, dict):
        raise TypeError('The "attributes" of a Service are a JSON object')
    if not isinstance(max_clients, int | float):
        raise TypeError('The "max_clients" of a Service is a number')
    return {"attributes": attributes, **info, "max_clients": max_clients}


def _encoded_size(info: Any) -> int:
    """Return the bytes of an identity, encoded now, since to fail later would cost others their answers.

    Raises:
        ValueError: It is nested too deeply, or contains text that is not Unicode.
    """
    for _ in range(_MARGIN):
        info = [info]
    return len(codec.encode(info))
