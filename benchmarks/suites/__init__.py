"""The suites: what is compared with what, in which sizes, and the goals for it."""

from __future__ import annotations

from benchmarks.cases import Case
from benchmarks.suites import client, growth, network, peers, resources

DESCRIPTIONS = {
    "client": "our client and that of msl-network 1.0.0, against a bare Manager that answers at once",
    "resources": "what a connection and an import cost a process",
    "network": "whole networks: Managers and Services, ours and those of msl-network 1.0.0",
    "peers": "other packages for calls between processes",
    "growth": "how costs grow with requests in flight, connections, and the length of a message",
}
"""The suites by name, and what each measures."""


def all_cases() -> list[Case]:
    """Return every case of every suite."""
    return [*client.cases(), *resources.cases(), *network.cases(), *peers.cases(), *growth.cases()]
