"""Event log: the records of a Manager about its peers. Pure state, used in the Trio thread.

A record is a line of text, and an event with fields (see ``docs/operation.md``) for logs in JSON. It contains
no arguments and results of requests, and no secrets.

Peers cause the records, so each host, or IPv6 network, has a rate limit: a single host could fill the disk.
Records beyond it are counted and left out, and the count is logged.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from msl_network_trio.limits.login_throttle import network_of
from msl_network_trio.limits.token_bucket import TokenBucket
from msl_network_trio.logger import get_logger
from msl_network_trio.protocol.manager.peer import Peer
from msl_network_trio.visible import visible

logger = get_logger("msl_network_trio.manager")

FIELDS: Final = "event_fields"
"""The attribute of a `logging.LogRecord` with the fields of its event."""

BURST: Final = 1000
"""Records that one host may cause at once."""

PER_SECOND: Final = 10.0
"""Records per second that one host may cause in the long run."""

_MAX_HOSTS: Final = 1000
"""Maximum number of hosts to remember."""

_QUOTED: Final = 300
"""Maximum characters of a text, which a peer may have made long."""


class _Host:
    __slots__ = ("bucket", "left_out")

    def __init__(self, now: float) -> None:
        self.bucket = TokenBucket(BURST, PER_SECOND, now)
        self.left_out = 0


class EventLog:
    """The event log of one Manager.

    Args:
        clock: Returns the time in seconds, of which only differences count.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self._hosts: dict[str, _Host] = {}

    def write(self, peer: Peer, level: int, event: str, text: str, *args: Any, **fields: Any) -> None:
        """Log an event of a peer.

        Args:
            peer: The peer.
            level: The level, as in `logging`.
            event: The name of the event.
            text: The line, with ``%`` as in `logging`.
            args: The arguments of the line.
            fields: Fields of the event besides ``peer``, ``host`` and, if it logged in, ``user``.
        """
        if not logger.isEnabledFor(level):
            return
        now = self.clock()
        address = network_of(peer.host.address)
        host = self._hosts.pop(address, None) or _Host(now)
        self._hosts[address] = host  # at the end: the first one was quiet for longest
        if len(self._hosts) > _MAX_HOSTS:
            oldest = next(iter(self._hosts))
            self._sum_up(oldest, self._hosts.pop(oldest))
        if not host.bucket.take(now):
            host.left_out += 1
            return
        self._sum_up(address, host)
        emit(level, event, text, *args, **(about(peer) | fields))

    def close(self) -> None:
        """Log the counts of the records that were left out."""
        for name, host in self._hosts.items():
            self._sum_up(name, host)
        self._hosts.clear()

    def _sum_up(self, name: str, host: _Host) -> None:
        if host.left_out:
            count, host.left_out = host.left_out, 0
            emit(
                logging.WARNING,
                "left_out",
                "%d records about peers at %s have been left out of this log: there were too many",
                count,
                name,
                host=name,
                count=count,
            )


def emit(level: int, event: str, text: str, *args: Any, **fields: Any) -> None:
    """Log an event, without a rate limit; arguments as for `EventLog.write`."""
    shown = {name: _shown(value) for name, value in fields.items()}
    logger.log(level, text, *map(_shown, args), extra={FIELDS: {"event": event, **shown}})


def about(peer: Peer) -> dict[str, Any]:
    """Return the fields of an event that identify a peer."""
    fields = {"peer": peer.name, "host": peer.host.address}
    if peer.host.gateway not in {"", peer.host.address}:
        fields["gateway"] = peer.host.gateway
    return {**fields, "user": peer.user} if peer.user else fields


def _shown(value: Any) -> Any:
    """Return a value, of which a text becomes one short line: a peer may have chosen it."""
    if not isinstance(value, str):
        return value
    if len(value) > _QUOTED:
        value = f"{value[:_QUOTED]}... ({len(value):,} characters)"
    return visible(value)
