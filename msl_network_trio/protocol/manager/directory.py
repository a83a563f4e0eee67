"""The interface through which routing finds the peers that it sends lines to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from msl_network_trio.protocol.manager.peer import Peer


class Directory(Protocol):
    """The peers that can be reached, which may include those of other Managers; see `registry.Registry`."""

    @property
    def peers(self) -> Mapping[str, Peer]:
        """The peers that were admitted, by network name."""

    @property
    def services(self) -> Mapping[str, Peer]:
        """Those of them that are Services, by the name of the Service."""
