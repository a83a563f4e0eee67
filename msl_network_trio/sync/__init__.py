"""The blocking API: a layer over the async API, with the names of ``msl.network``.

It is for scripts, notebooks and programs with another event loop, and may be used from any thread. In the
worker threads of a Trio application it uses the event loop of the application; elsewhere a background thread
runs one. The async API documents what it returns, raises and expects, under the same names: read "return" for
"await".

In contrast to the async API, a call returns when notification handlers have returned for everything that was
received before the reply; see `Link.notification_handler`.
"""

from typing import overload

from msl_network_trio.client.client import Client as AsyncClient
from msl_network_trio.client.connect_arguments import filter_client_connect_kwargs
from msl_network_trio.client.link import Link as AsyncLink
from msl_network_trio.client.linked_client import LinkedClient as AsyncLinkedClient
from msl_network_trio.sync.acquire_locks import Locks, acquire_locks
from msl_network_trio.sync.client import Client, StateStream, connect
from msl_network_trio.sync.futures import Future
from msl_network_trio.sync.link import Link, Lock, Notifications, dropped, notifications, request, statistics
from msl_network_trio.sync.linked_client import LinkedClient
from msl_network_trio.sync.safe_state import safe_state
from msl_network_trio.sync.wrapped import unwrap

__all__ = [
    "Client",
    "Future",
    "Link",
    "LinkedClient",
    "Lock",
    "Locks",
    "Notifications",
    "StateStream",
    "acquire_locks",
    "connect",
    "dropped",
    "filter_client_connect_kwargs",
    "notifications",
    "request",
    "safe_state",
    "statistics",
    "to_async",
]


@overload
def to_async(blocking: Client) -> AsyncClient: ...
@overload
def to_async(blocking: Link) -> AsyncLink: ...
@overload
def to_async(blocking: LinkedClient) -> AsyncLinkedClient: ...
def to_async(blocking: Client | Link | LinkedClient) -> AsyncClient | AsyncLink | AsyncLinkedClient:
    """Return the object of the async API, for tasks of its Trio run; its ``sync`` is the way back."""
    return unwrap(blocking)  # type: ignore[no-any-return]
