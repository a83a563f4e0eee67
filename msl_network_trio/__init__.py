"""Structured-concurrency client for MSL-Network, on Trio."""

from msl_network_trio.client.client import Client, connect, filter_client_connect_kwargs
from msl_network_trio.client.link import Link
from msl_network_trio.client.linked_client import LinkedClient
from msl_network_trio.client.notifications import NotificationStream
from msl_network_trio.client.prompts import Prompts, TerminalPrompts
from msl_network_trio.client.reply import Reply
from msl_network_trio.exceptions import (
    AuthenticationError,
    BacklogFull,
    CertificateDeclined,
    CertificateError,
    ConnectError,
    ConnectionLost,
    ConnectTimeout,
    HandshakeError,
    LinkBroken,
    ManagerError,
    NetworkError,
    ProtocolError,
    RemoteError,
    ReplyTimeout,
    ServiceLost,
    StreamCorrupted,
)
from msl_network_trio.protocol.messages import Notification
from msl_network_trio.transport.trust import Certificate

__version__ = "0.1.0"

__all__ = [
    "AuthenticationError",
    "BacklogFull",
    "Certificate",
    "CertificateDeclined",
    "CertificateError",
    "Client",
    "ConnectError",
    "ConnectTimeout",
    "ConnectionLost",
    "HandshakeError",
    "Link",
    "LinkBroken",
    "LinkedClient",
    "ManagerError",
    "NetworkError",
    "Notification",
    "NotificationStream",
    "Prompts",
    "ProtocolError",
    "RemoteError",
    "Reply",
    "ReplyTimeout",
    "ServiceLost",
    "StreamCorrupted",
    "TerminalPrompts",
    "connect",
    "filter_client_connect_kwargs",
]
