"""Record of the Managers that this process has ended itself, so that its Services end without an error.

A Service identifies its Manager by the Manager's name, and a Manager identifies a Service by its network
name, which contains the port of the connection. Both are known in one process only if it ends this connection
itself.

The record is an OrderedDict of the module. Each operation on it is atomic, so that no lock is needed; no code
iterates over it, since another thread may change it meanwhile.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

_REMEMBERED: Final = 10_000
"""Maximum number of recorded connections; a Manager adds only Services that are connected when it ends."""

_ended: Final[OrderedDict[tuple[str, str], None]] = OrderedDict()
"""Pairs of Manager and Service, the oldest first."""

_MISSING: Final = object()


def add(manager: str, services: Iterable[str]) -> None:
    """Record that a Manager of this process ends in order; callable from any thread.

    Args:
        manager: Name of the Manager.
        services: Network names of the Services that are connected to it.
    """
    for service in services:
        _ended[manager, service] = None
    while len(_ended) > _REMEMBERED:
        _ended.popitem(last=False)


def remove(manager: str, service: str) -> bool:
    """Remove a Service's connection from the record; callable from any thread.

    Args:
        manager: Name of the Manager.
        service: Network name of the Service.

    Returns:
        Whether it was recorded, which means that this process has ended the Manager.
    """
    return _ended.pop((manager, service), _MISSING) is None
