"""State of a LinkedClient, shared by its async and its blocking form; belongs to the Trio thread."""

from __future__ import annotations

from typing import TypeVar

from msl_network_trio.client.client import Client
from msl_network_trio.client.link import Link, link_state
from msl_network_trio.client.session import SessionLink
from msl_network_trio.dialing.settings import Settings
from msl_network_trio.exceptions import ConnectionLost, LinkBroken
from msl_network_trio.visible import visible

T = TypeVar("T")


class LinkedState:
    """State of a `LinkedClient`.

    It is an object of its own, since every public name of a `LinkedClient` may be an attribute of the
    Service.

    Args:
        service_name: Name of the Service.
        settings: The arguments of `connect`.
        idempotent: See `Client.link`.

    Attributes:
        service_name: Name of the Service.
        idempotent: See above.
        settings: The arguments of `connect`.
        client: The client; None before it is open and after it was disconnected.
        link: The link; None before it is open and after it was broken.
        last_client: The client, also after it was disconnected.
        last_link: The link, also after it was broken.
    """

    __slots__ = ("client", "idempotent", "last_client", "last_link", "link", "service_name", "settings")

    def __init__(self, service_name: str, settings: Settings, idempotent: frozenset[str]) -> None:
        self.service_name = service_name
        self.idempotent = idempotent
        self.settings = settings
        self.client: Client | None = None
        self.link: Link | None = None
        self.last_client: Client | None = None
        self.last_link: Link | None = None

    def opened(self, client: Client, link: Link) -> None:
        """Note that the client is open."""
        self.client = self.last_client = client
        self.link = self.last_link = link

    def closed(self) -> None:
        """Note that the client is disconnected."""
        self.client = None
        self.link = None

    def unbroken_link(self) -> Link | None:
        """Return the link; None if it is broken."""
        return None if self.link is None or link_state(self.link).session is None else self.link

    def require_opened_client(self) -> Client:
        """Return the client, also after it was disconnected.

        Raises:
            LinkBroken: It is not open yet.
        """
        return self._require(self.last_client)

    def require_opened_link(self) -> Link:
        """Return the link, also after it was broken.

        Raises:
            LinkBroken: It is not open yet.
        """
        return self._require(self.last_link)

    def require_link(self, name: str) -> Link:
        """Return the link.

        Args:
            name: The attribute that is accessed, for the message.

        Raises:
            LinkBroken: It is not open yet, or the link is broken.
        """
        self._require(self.last_link)
        link = self.unbroken_link()
        if link is None:
            raise LinkBroken(f"Cannot access {name!r} since the link has been broken")
        return link

    def require_link_state(self, name: str) -> SessionLink:
        """Return the state of the link; see `require_link`."""
        return link_state(self.require_link(name))

    def require_client(self) -> Client:
        """Return the client.

        Raises:
            LinkBroken: It is not open yet.
            ConnectionLost: It was disconnected.
        """
        self._require(self.last_client)
        if self.client is None:
            raise ConnectionLost("The LinkedClient has been disconnected")
        return self.client

    def _require(self, value: T | None) -> T:
        if value is None:
            raise LinkBroken(f"{self!r} is not open yet")
        return value

    def __repr__(self) -> str:
        name = self.settings.name
        if self.last_client is None or self.last_link is None:
            return visible(f"<{name} for {self.service_name!r}: await it, or enter it with 'async with'>")
        service = f"{self.service_name}[{self.last_link.service_address}]"
        if self.unbroken_link() is None:
            return visible(f"<Un-Linked[name={name}] from {service}>")
        return visible(f"<Link[name={name}] with {service} at Manager[{self.last_client.address_manager}]>")
