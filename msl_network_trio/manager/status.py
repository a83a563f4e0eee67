"""Status of a Manager: the answer to the admin request ``status``.

Runs in the Trio thread.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterable
from typing import Any

import attrs
import trio

from msl_network_trio.manager.settings import Limits, ManagerSettings
from msl_network_trio.manager.unauthenticated import UnauthenticatedPool
from msl_network_trio.protocol.manager.peer import Peer
from msl_network_trio.protocol.manager.protocol import ManagerProtocol

_TOTALS = ("lines_from_clients", "lines_from_services", "bytes_received", "bytes_sent", "connections")


class Status:
    """The status of a running Manager.

    Args:
        settings: The settings of the Manager.
        protocol: The Manager's protocol.
        unauthenticated: The connections of peers that are not admitted yet.
    """

    def __init__(
        self, settings: ManagerSettings, protocol: ManagerProtocol, unauthenticated: UnauthenticatedPool
    ) -> None:
        self._settings = settings
        self._protocol = protocol
        self._unauthenticated = unauthenticated
        self._started = dt.datetime.now(dt.UTC)
        self._clock = trio.current_time
        self._began: float | None = None
        self._gone: Counter[str] = Counter()
        self._last: tuple[float, dict[str, int]] | None = None

    def begin(self) -> None:
        """Start the clock of the Manager."""
        self._began = self._clock()

    def end(self, peer: Peer) -> None:
        """Add the counts of a peer that has disconnected to the totals."""
        self._gone.update(_counted([peer]))

    def tell(self) -> dict[str, Any]:
        """Return the status; see ``docs/operation.md`` for its fields.

        The rates are those since the previous call.
        """
        now = self._clock()
        began = now if self._began is None else self._began
        registry = self._protocol.registry
        peers = list(registry.peers.values())
        clients = sum(peer.kind == "client" for peer in peers)
        totals = self._totals(peers)
        since, before = self._last or (began, dict.fromkeys(_TOTALS, 0))
        self._last = (now, totals)
        seconds = now - since
        longest = max(peers, key=lambda peer: peer.route.backlog, default=None)
        return {
            "manager": self._protocol.name,
            "started": self._started.isoformat(timespec="seconds"),
            "uptime": round(now - began, 3),
            "peers": {
                "clients": clients,
                "services": len(peers) - clients,
                "unauthenticated": len(self._unauthenticated),
                "most": registry.most,
            },
            "totals": totals,
            "rates": {
                "seconds": round(seconds, 3),
                **{name: _rate(totals[name] - before[name], seconds) for name in _TOTALS},
            },
            "open_requests": sum(len(peer.open) for peer in peers),
            "backlog": {
                "bytes": sum(peer.route.backlog for peer in peers),
                "longest": 0 if longest is None else longest.route.backlog,
                "peer": longest.name if longest is not None and longest.route.backlog else None,
            },
            "services": {
                name: {
                    "uptime": round(now - peer.connected_at, 3),
                    "links": len(peer.links),
                    "locks": len(peer.locks),
                    "backlog": peer.route.backlog,
                }
                for name, peer in registry.services.items()
            },
            "limits": self._limits(),
        }

    def _totals(self, peers: Iterable[Peer]) -> dict[str, int]:
        totals = self._gone + _counted(peers)
        return {name: totals[name] for name in _TOTALS}

    def _limits(self) -> dict[str, dict[str, Any]]:
        """Return each limit, and the number of times that it was met."""
        protocol = self._protocol
        hits = {
            **protocol.hits,
            "max_connections": protocol.registry.peers_refused,
            "max_links": protocol.registry.links_refused,
            "max_unauthenticated": self._unauthenticated.evicted,
            "login_attempts": protocol.logins.refused,
        }
        values = attrs.asdict(self._settings, filter=lambda field, _: field.name in Limits.__annotations__)
        return {name: {"limit": value, "hits": hits.get(name, 0)} for name, value in values.items()}


def _counted(peers: Iterable[Peer]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for peer in peers:
        counts["connections"] += 1
        counts["bytes_received"] += peer.received
        counts["bytes_sent"] += peer.route.sent
        if peer.kind:
            counts[f"lines_from_{peer.kind}s"] += peer.lines_received
    return counts


def _rate(count: int, seconds: float) -> float:
    """Return a count per second; 0 if no time has passed."""
    return round(count / seconds, 1) if seconds > 0 else 0.0
