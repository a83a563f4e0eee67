"""Suites of cases, with sizes and goals."""

from __future__ import annotations

from benchmarks.cases import Case
from benchmarks.suites import client, growth, network, peers, resources

DESCRIPTIONS = {
    "client": "clients of this package and of msl-network 1.0.0, with a fake Manager",
    "resources": "costs of connections and imports for a process",
    "network": "networks with Managers and Services of this package and of msl-network 1.0.0",
    "peers": "other packages for calls between processes",
    "growth": "growth of costs with requests in flight, connections, and the length of a message",
}
"""The suites by name, with descriptions."""


def all_cases() -> list[Case]:
    """Return the cases of all suites."""
    return [*client.cases(), *resources.cases(), *network.cases(), *peers.cases(), *growth.cases()]
