"""Spare connection of a client, for requests that must not depend on the client's own connection.

It has the arguments and the answers of the client and no links, and asks no person. Runs in the Trio thread.
"""

from __future__ import annotations

import attrs
import trio

from msl_network_trio.callbacks import CallbackTasks
from msl_network_trio.client.connecting import new_protocol
from msl_network_trio.client.connection import Connection
from msl_network_trio.client.mailboxes import Mailboxes
from msl_network_trio.client.session import Session
from msl_network_trio.client.statistics import ErrorCounts
from msl_network_trio.dialing.connect import dial
from msl_network_trio.exceptions import ConnectionLost
from msl_network_trio.protocol.late_replies import LateReply
from msl_network_trio.protocol.messages import ManagerNotice, NotificationBatch


class _NoLinks:
    """Owner of a connection that has no links, and so no notifications."""

    def __init__(self, max_unhandled: int) -> None:
        self.mailboxes = Mailboxes(max_unhandled)
        self.callback_tasks = CallbackTasks()
        self.errors = ErrorCounts()

    def take_notifications(self, batch: NotificationBatch) -> None:
        """See `ConnectionOwner`."""

    def take_late_reply(self, reply: LateReply) -> None:
        """See `ConnectionOwner`."""

    def take_notice(self, notice: ManagerNotice) -> None:
        """See `ConnectionOwner`."""

    def connection_ending(self, reason: ConnectionLost) -> None:
        """See `ConnectionOwner`."""

    def connection_ended(self, reason: ConnectionLost) -> None:
        """See `ConnectionOwner`."""


@trio.lowlevel.enable_ki_protection
async def open_spare_connection(session: Session) -> Connection:
    """Connect to the Manager of a client once more.

    Args:
        session: The client, which may have lost its connection, or have disconnected.

    Returns:
        The connection, to be disconnected by the caller.

    Raises:
        NetworkError: As `dial`.
    """
    settings = attrs.evolve(session.settings, nursery=None, on_late_reply=None)
    protocol = new_protocol(settings)
    dialed = await dial(settings, session.credentials.unattended(), protocol)
    connection = Connection(dialed.transport, protocol, _NoLinks(settings.max_unhandled))
    try:
        trio.lowlevel.spawn_system_task(connection.run, name=f"<spare connection of {settings.name}>")
    except BaseException:  # the run is ending
        connection.close()
        raise
    return connection
