"""Registry of the blocking forms of a Client, Link and LinkedClient.

The blocking API is a layer above, so that the client cannot import it. The package registers a function that
imports it and returns its `Views`; it is called when the first blocking form is needed, in any thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import msl_network_trio


class Views(Protocol):
    """Makes the blocking forms of the client's objects."""

    def client(self, client: Any) -> msl_network_trio.sync.Client:
        """Return the blocking form of a `Client`."""

    def link(self, link: Any) -> msl_network_trio.sync.Link:
        """Return the blocking form of a `Link`."""

    def linked_client(self, client: Any) -> msl_network_trio.sync.LinkedClient:
        """Return the blocking form of a `LinkedClient`."""


_load: Callable[[], Views] | None = None


def register(load: Callable[[], Views]) -> None:
    """Register the function that returns what makes the blocking forms."""
    global _load  # noqa: PLW0603 - the package does so once, when it is imported
    _load = load


def registered() -> Views:
    """Return what makes the blocking forms."""
    assert _load is not None  # the package has registered it
    return _load()
