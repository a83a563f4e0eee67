"""Which Managers this program has closed itself, so that its Services know that nothing went wrong.

A Service knows its Manager by the name that it gives itself, and the Manager knows the Service by its network
name, which has the port of the connection. Both are in the same process only if it closes that connection.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

_REMEMBERED: Final = 10_000
"""Maximum number of Services to remember; a Manager tells only those that are connected when it ends."""

_ended: Final[dict[tuple[str, str], None]] = {}


def note(manager: str, services: Iterable[str]) -> None:
    """Note that a Manager of this process ends in order. From any thread.

    Args:
        manager: The name that it gives itself.
        services: The network names of the Services that are connected to it.
    """
    for service in services:
        _ended[manager, service] = None
    while len(_ended) > _REMEMBERED:
        _ended.pop(next(iter(_ended)), None)


def is_ours(manager: str, service: str) -> bool:
    """Return whether this process has ended a Manager while this Service was connected, and forget that.

    Args:
        manager: The name of the Manager.
        service: The network name of the Service.
    """
    return _ended.pop((manager, service), _MISSING) is None


_MISSING: Final = object()
