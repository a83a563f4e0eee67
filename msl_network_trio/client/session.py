"""Opens the connection of a client."""

from __future__ import annotations

import trio

from msl_network_trio.client.connection import Connection
from msl_network_trio.dialing.connect import dial
from msl_network_trio.dialing.prompts import Credentials
from msl_network_trio.dialing.settings import Settings
from msl_network_trio.protocol.client import ClientProtocol


@trio.lowlevel.enable_ki_protection
async def open_connection(settings: Settings, credentials: Credentials) -> Connection:
    """Connect a client; see `dial` for what it raises."""
    protocol = ClientProtocol(settings.identity(), settings.manager, settings.read_limit)
    dialled = await dial(settings, credentials, protocol)
    return Connection(
        dialled.transport,
        protocol,
        request_timeout=settings.request_timeout,
        max_unsent=settings.max_unsent,
        max_unhandled=settings.max_unhandled,
        probe_after=settings.probe_after,
        probe_every=settings.probe_every,
        unresponsive_after=settings.unresponsive_after,
        connect_seconds=dialled.seconds,
    )
