"""What a peer says about itself, and whether it can be told to others."""

from __future__ import annotations

from typing import Any

import attrs

from msl_network_trio.protocol import codec

_MARGIN = 100
"""How many levels deeper than an identity the answers that contain it may be nested."""

_LONGEST_NAME = 1000
"""How many characters a name may have, which is a part of every request that its peer makes."""

_LARGEST_CLIENT = 65_536
"""How many bytes there may be to tell about a client, which everybody is told who asks who is there."""

_LARGEST_SERVICE = 1_000_000
"""The same for a Service, which has attributes to tell of."""


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
    """What the Manager's identity says about the peer."""

    size: int
    """How many bytes that has, encoded."""


def read_identity(said: Any, address: str) -> Identity:
    """Check what a peer says about itself.

    Args:
        said: What it has answered when it was asked for its identity.
        address: ``"HOST:port"`` of the peer.

    Raises:
        TypeError: It is not an object with the fields that it must have.
        KeyError: A field is missing.
        ValueError: A name is empty or too long, or there is too much to tell to others, or what cannot be.
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
    if len(name) > _LONGEST_NAME:
        raise ValueError(f'The "name" of an identity has more than {_LONGEST_NAME:,} characters')
    info = {
        "address": address,
        "language": said.get("language", "unknown"),
        "os": said.get("os", "unknown"),
    }
    info = {"name": name, **info} if kind == "client" else _service_info(said, info)
    network_name = f"{name}[{address}]"
    size = _check_can_be_told({network_name: info})
    largest = _LARGEST_CLIENT if kind == "client" else _LARGEST_SERVICE
    if size > largest:
        raise ValueError(f"The identity of a {kind} has more than {largest:,} bytes")
    return Identity(kind, name, network_name, info, size)


def _service_info(said: dict[str, Any], info: dict[str, Any]) -> dict[str, Any]:
    """Add what only a Service tells; its name is the key under which the Manager's identity has it."""
    attributes, max_clients = said["attributes"], said.get("max_clients", -1)
    if not isinstance(attributes, dict):
        raise TypeError('The "attributes" of a Service are a JSON object')
    if not isinstance(max_clients, int | float):
        raise TypeError('The "max_clients" of a Service is a number')
    return {"attributes": attributes, **info, "max_clients": max_clients}


def _check_can_be_told(told: Any) -> int:
    """Encode what a peer says about itself: what fails later would cost others their answers.

    Returns:
        How many bytes it has.

    Raises:
        ValueError: It is nested too deeply, or contains text that is not Unicode.
    """
    for _ in range(_MARGIN):
        told = [told]
    return len(codec.encode(told))
