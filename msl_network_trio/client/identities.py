"""Registry of a Manager as a text, word for word as msl-network 1.0.0 prints it.

The functions have no state and may be called from any thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from msl_network_trio.arguments import whole
from msl_network_trio.exceptions import ProtocolError
from msl_network_trio.visible import visible


def checked_registry(identity: Any) -> dict[str, Any]:
    """Return the identity of a Manager, checked.

    Raises:
        ProtocolError: It is not the identity of a Manager.
    """
    match identity:
        case {"clients": dict(), "services": dict()}:
            return identity  # type: ignore[no-any-return]
    raise ProtocolError(f"The Manager sent no identity of its own: {identity!r:.80}")


def describe(identity: Any, indent: int) -> str:
    """Return a text that lists what is connected to a Manager.

    Args:
        identity: The Manager's identity.
        indent: Number of spaces by which each level is indented.

    Raises:
        ProtocolError: It is not the identity of a Manager.
    """
    indent = whole("indent", indent, 0)
    lines = _lines(checked_registry(identity))
    try:
        return "\n".join(" " * (indent * level) + visible(text) for level, text in lines)
    except (AttributeError, KeyError, TypeError) as error:
        raise ProtocolError(f"The Manager sent an identity of another form: {error!r}") from error


def _lines(identity: dict[str, Any]) -> Iterator[tuple[int, str]]:
    """Yield the level and the text of each line."""
    yield 0, f"Manager[{identity['hostname']}:{identity['port']}]"
    for key, value in sorted(identity.items()):
        if key == "attributes":
            yield 1, "attributes:"
            for name, signature in sorted(value.items()):
                yield 2, f"{name}{signature}"
        elif key not in {"hostname", "port", "clients", "services"}:
            yield 1, f"{key}: {value}"
    clients = identity["clients"]
    yield 0, f"Clients [{len(clients)}]:"
    for name, client in sorted(clients.items()):
        yield 1, name
        for key, value in sorted(client.items()):
            if key not in {"name", "address"}:
                yield 2, f"{key}: {value}"
    services = identity["services"]
    yield 0, f"Services [{len(services)}]:"
    for name, service in sorted(services.items()):
        yield 1, f"{name}[{service['address']}]"
        for key, value in sorted(service.items()):
            if key == "attributes":
                yield 2, "attributes:"
                for attribute, signature in sorted(value.items()):
                    yield 3, f"{attribute}{_signature(signature)}"
            elif key != "address":
                yield 2, f"{key}: {value}"


def _signature(value: Any) -> str:
    """Return the text that lists an attribute: the signature of a method, the value of any other."""
    return value if isinstance(value, str) and value.startswith("(") else f"() -> {value}"
