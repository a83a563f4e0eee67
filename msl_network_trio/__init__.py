"""MSL-Network on Trio: clients, Services and a Manager."""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from msl_network_trio.client.acquire_locks import acquire_locks
from msl_network_trio.client.client import Client, connect
from msl_network_trio.client.connect_arguments import filter_client_connect_kwargs
from msl_network_trio.client.link import Link
from msl_network_trio.client.linked_client import LinkedClient, dropped, statistics
from msl_network_trio.client.notifications import NotificationStream
from msl_network_trio.client.reply import Reply
from msl_network_trio.client.safe_state import safe_state
from msl_network_trio.client.states import StateStream
from msl_network_trio.client.statistics import Statistics
from msl_network_trio.client.views import Views as _Views
from msl_network_trio.client.views import register as _register_views
from msl_network_trio.dialing.prompts import Prompts, TerminalPrompts
from msl_network_trio.dialing.reconnect import Reconnect, StateChange
from msl_network_trio.dialing.trust import Certificate
from msl_network_trio.exceptions import (
    AuthenticationError,
    BacklogFull,
    CertificateDeclined,
    CertificateError,
    ConnectError,
    ConnectionLost,
    ConnectTimeout,
    DatabaseError,
    HandshakeError,
    LinkBroken,
    LockLost,
    ManagerError,
    NetworkError,
    PrivateAttribute,
    ProtocolError,
    RemoteError,
    ReplyTimeout,
    ServiceLost,
    StreamCorrupted,
    Unanswered,
)
from msl_network_trio.protocol.late_replies import LateReply
from msl_network_trio.protocol.messages import Gap, Notification

if TYPE_CHECKING:
    from msl_network_trio import sync as sync
    from msl_network_trio.gateway.server import Gateway, open_gateway
    from msl_network_trio.manager.opening import open_manager
    from msl_network_trio.manager.running import filter_run_forever_kwargs, run_services
    from msl_network_trio.manager.server import Manager
    from msl_network_trio.service.filters import filter_service_start_kwargs
    from msl_network_trio.service.service import Service

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
    "DatabaseError",
    "Gap",
    "Gateway",
    "HandshakeError",
    "LateReply",
    "Link",
    "LinkBroken",
    "LinkedClient",
    "LockLost",
    "Manager",
    "ManagerError",
    "NetworkError",
    "Notification",
    "NotificationStream",
    "PrivateAttribute",
    "Prompts",
    "ProtocolError",
    "Reconnect",
    "RemoteError",
    "Reply",
    "ReplyTimeout",
    "Service",
    "ServiceLost",
    "StateChange",
    "StateStream",
    "Statistics",
    "StreamCorrupted",
    "TerminalPrompts",
    "Unanswered",
    "acquire_locks",
    "connect",
    "dropped",
    "filter_client_connect_kwargs",
    "filter_run_forever_kwargs",
    "filter_service_start_kwargs",
    "open_gateway",
    "open_manager",
    "run_services",
    "safe_state",
    "statistics",
]

_IMPORTED_WHEN_USED: Final = {
    "Gateway": "gateway.server",
    "Manager": "manager.server",
    "Service": "service.service",
    "filter_run_forever_kwargs": "manager.running",
    "filter_service_start_kwargs": "service.filters",
    "open_gateway": "gateway.server",
    "open_manager": "manager.opening",
    "run_services": "manager.running",
}
"""Public names that clients do not need, and their modules, which are imported on first use.

Most programs are clients, and start faster without them.
"""


def _views() -> _Views:
    """Return what makes the blocking forms of clients and links, for their ``sync`` properties."""
    from msl_network_trio.sync.views import BlockingViews

    return BlockingViews()


_register_views(_views)


def __getattr__(name: str) -> Any:
    if name == "sync":
        return import_module(f"{__name__}.sync")
    module = _IMPORTED_WHEN_USED.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
