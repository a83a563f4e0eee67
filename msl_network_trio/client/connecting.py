"""Connecting of a client: the first connection, and the next one after each loss. Runs in the Trio thread."""

from __future__ import annotations

from functools import partial

import trio

from msl_network_trio.dialing.connect import DialedConnection, dial
from msl_network_trio.dialing.prompts import Credentials
from msl_network_trio.dialing.reconnect import Reconnect
from msl_network_trio.dialing.retrying import Outage, dial_again, dial_first
from msl_network_trio.dialing.settings import Settings
from msl_network_trio.exceptions import ConnectionLost
from msl_network_trio.logger import get_logger
from msl_network_trio.protocol.client import ClientProtocol
from msl_network_trio.protocol.traffic import Traffic

logger = get_logger(__name__)

Dialed = DialedConnection[ClientProtocol]


class Connecting:
    """Makes the connections of one client.

    Args:
        settings: The arguments of `connect`.
        credentials: Answers the Manager's questions.

    Attributes:
        seconds: Seconds that the first connection took, without those in which a person was asked.
    """

    __slots__ = (
        "_connected_at",
        "_credentials",
        "_is_cancelled",
        "_outage",
        "_scope",
        "_settings",
        "_traffic",
        "seconds",
    )

    def __init__(self, settings: Settings, credentials: Credentials) -> None:
        self.seconds = 0.0
        self._settings = settings
        self._credentials = credentials
        self._connected_at = 0.0
        """Time of the last connection, by Trio's clock."""
        self._outage = Outage()
        self._is_cancelled = False
        self._scope: trio.CancelScope | None = None
        """Scope of the tries to connect again; None: there are none at the moment."""
        self._traffic: Traffic | None = None
        """The counters of all connections; None: there was none."""

    @trio.lowlevel.enable_ki_protection
    async def first(self) -> Dialed:
        """Make the first connection; see `dial` and, for a client that reconnects, `dial_first`."""
        settings, policy, credentials = self._settings, self._settings.reconnect, self._credentials
        if policy is None:
            dialed = await dial(settings, credentials, self._new_protocol())
            self.seconds = dialed.seconds
        else:
            began = trio.current_time()
            attempt = partial(self._dial, credentials)
            dialed = await dial_first(settings, policy, credentials, attempt, on_failure=self._log_failure)
            self.seconds = trio.current_time() - began - credentials.seconds_asked
        self._connected_at = trio.current_time()
        return dialed

    @trio.lowlevel.enable_ki_protection
    async def again(self, policy: Reconnect, reason: ConnectionLost) -> Dialed:
        """Connect again after a loss.

        Args:
            policy: The policy of reconnection.
            reason: The reason for the loss.

        Raises:
            ConnectionLost: There will be no connection: see `dial_again`, or `cancel` was called.
        """
        self._outage.begin(self._connected_at)
        attempt = partial(self._dial, self._credentials.unattended())
        dialed: Dialed | None = None
        self._scope = trio.CancelScope()
        if self._is_cancelled:
            self._scope.cancel()
        try:
            with self._scope:
                dialed = await dial_again(
                    self._settings, policy, attempt, self._outage, reason=reason, on_failure=self._log_failure
                )
        finally:
            self._scope = None
        if not self._is_cancelled:
            assert dialed is not None  # nothing else cancels the scope
            self._connected_at = trio.current_time()
            return dialed
        if dialed is not None:  # it was ready at the moment of the cancellation
            dialed.transport.close()
        raise ConnectionLost(f"Disconnected from Manager[{self._settings.manager}]")

    def cancel(self) -> None:
        """End the tries to connect again, now and in future."""
        self._is_cancelled = True
        if self._scope is not None:
            self._scope.cancel()

    async def _dial(self, credentials: Credentials, settings: Settings) -> Dialed:
        """Try to connect, until the Manager has answered a request."""
        protocol = self._new_protocol()
        return await dial(settings, credentials, protocol, confirm=protocol)

    def _new_protocol(self) -> ClientProtocol:
        """Return the protocol of a further connection."""
        protocol = new_protocol(self._settings, self._traffic)
        self._traffic = protocol.traffic
        return protocol

    def _log_failure(self, error: Exception) -> None:
        logger.info("%s cannot connect yet: %s", self._settings.name, error)


def new_protocol(settings: Settings, traffic: Traffic | None = None) -> ClientProtocol:
    """Return the protocol of a new connection.

    Args:
        settings: The arguments of `connect`.
        traffic: The counters of the client; None: it is its first connection.
    """
    return ClientProtocol(
        settings.handshake_identity(),
        settings.manager,
        settings.read_limit,
        traffic=traffic,
        keep_calls=settings.on_late_reply is not None,
    )
