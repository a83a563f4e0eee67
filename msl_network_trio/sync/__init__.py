"""The blocking API: what ``from msl.network import connect, LinkedClient`` was, over the async API.

It is for scripts, notebooks and programs with an event loop of another kind, from any thread. In the worker
threads of a Trio application it works in the event loop of the application. What it returns, raises and
expects is described in the async API, which has the same names: read "returns" for "awaits".

Unlike there, a call returns when notification handlers have returned for everything that was received before
the reply; see `Link.notification_handler`.
"""

from typing import overload

from msl_network_trio.client.client import Client as AsyncClient
from msl_network_trio.client.client import filter_client_connect_kwargs
from msl_network_trio.client.link import Link as AsyncLink
from msl_network_trio.client.linked_client import LinkedClient as AsyncLinkedClient
from msl_network_trio.sync.client import Client, connect
from msl_network_trio.sync.futures import Future
from msl_network_trio.sync.link import Link, Lock, Notifications, dropped, notifications, request
from msl_network_trio.sync.linked_client import LinkedClient

__all__ = [
    "Client",
    "Future",
    "Link",
    "LinkedClient",
    "Lock",
    "Notifications",
    "connect",
    "dropped",
    "filter_client_connect_kwargs",
    "notifications",
    "request",
    "to_async",
]


@overload
def to_async(blocking: Client) -> AsyncClient: ...
@overload
def to_async(blocking: Link) -> AsyncLink: ...
@overload
def to_async(blocking: LinkedClient) -> AsyncLinkedClient: ...
def to_async(blocking: Client | Link | LinkedClient) -> AsyncClient | AsyncLink | AsyncLinkedClient:
    """Return the same client or link for tasks of the Trio run that it is in; ``sync`` is the way back."""
    return blocking._wrapped
