"""What a Manager writes into its log about its peers: who, when, what, and for how long.

Each record is a line of text, and an event with fields (see ``docs/operation.md``) for those who log in JSON.
No record has the arguments or the results of requests, nor anything that is secret.

A peer decides how often something happens that is worth a record. So each host, or IPv6 network, has an
allowance: what exceeds it is counted and left out, and the count is logged. Else a single computer could fill
the disk.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from msl_network_trio.limits.login_throttle import network_of
from msl_network_trio.logger import get_logger
from msl_network_trio.protocol.manager.peer import Peer
from msl_network_trio.visible import visible

logger = get_logger("msl_network_trio.manager")

FIELDS: Final = "event_fields"
"""The attribute of a `logging.LogRecord` that has the fields of its event."""

AT_ONCE: Final = 1000
"""How many records one host may cause at once."""

PER_SECOND: Final = 10.0
"""How many records per second one host may cause for long."""

_HOSTS: Final = 1000
"""Of how many hosts to remember what they have caused."""

_QUOTED: Final = 300
"""How many characters of a text that a peer can make long."""


class Allowance:
    """How often something may happen: so often at once, and at a rate for long.

    Args:
        at_once: How often at once.
        per_second: How often per second for long.
        now: The time at which all of it is there, in seconds.
    """

    __slots__ = ("_at_once", "_left", "_per_second", "_when")

    def __init__(self, at_once: float, per_second: float, now: float) -> None:
        self._at_once = at_once
        self._per_second = per_second
        self._left = at_once
        self._when = now

    def take(self, now: float) -> bool:
        """Return whether it may happen once more now, and count it if so."""
        self._left = min(self._at_once, self._left + (now - self._when) * self._per_second)
        self._when = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class _Host:
    __slots__ = ("allowance", "left_out")

    def __init__(self, now: float) -> None:
        self.allowance = Allowance(AT_ONCE, PER_SECOND, now)
        self.left_out = 0


class EventLog:
    """The records of one Manager.

    Args:
        clock: Gives the time in seconds, of which only differences count.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self._hosts: dict[str, _Host] = {}

    def write(self, peer: Peer, level: int, event: str, text: str, *args: Any, **fields: Any) -> None:
        """Log what a peer has done or what happened to it.

        Args:
            peer: The peer.
            level: The level of `logging`.
            event: The name of the event.
            text: The line, with ``%`` as in `logging`.
            args: What goes into the line.
            fields: What the event has besides ``peer``, ``host`` and, if it logged in, ``user``.
        """
        if not logger.isEnabledFor(level):
            return
        now = self.clock()
        address = network_of(peer.host.address)
        host = self._hosts.pop(address, None) or _Host(now)
        self._hosts[address] = host  # behind all others: the first is the one that was quiet for longest
        if len(self._hosts) > _HOSTS:
            oldest = next(iter(self._hosts))
            self._sum_up(oldest, self._hosts.pop(oldest))
        if not host.allowance.take(now):
            host.left_out += 1
            return
        self._sum_up(address, host)
        emit(level, event, text, *args, **(about(peer) | fields))

    def close(self) -> None:
        """Log what has been left out and not been told yet."""
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
    """Log an event, without any allowance; arguments as in `EventLog.write`."""
    shown = {name: _shown(value) for name, value in fields.items()}
    logger.log(level, text, *map(_shown, args), extra={FIELDS: {"event": event, **shown}})


def about(peer: Peer) -> dict[str, Any]:
    """The fields that say which peer it is."""
    fields = {"peer": peer.name, "host": peer.host.address}
    if peer.host.gateway not in {"", peer.host.address}:
        fields["gateway"] = peer.host.gateway
    return {**fields, "user": peer.user} if peer.user else fields


def _shown(value: Any) -> Any:
    """Make a text, which a peer may have chosen, such that it is one short line."""
    if not isinstance(value, str):
        return value
    if len(value) > _QUOTED:
        value = f"{value[:_QUOTED]}... ({len(value):,} characters)"
    return visible(value)
