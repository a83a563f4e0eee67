"""Blocking forms of the client's objects, made for their ``sync`` properties; see `client.views`."""

from __future__ import annotations

from msl_network_trio.client.client import Client as AsyncClient
from msl_network_trio.client.link import Link as AsyncLink
from msl_network_trio.client.link import link_state
from msl_network_trio.client.linked_client import LinkedClient as AsyncLinkedClient
from msl_network_trio.sync.client import Client
from msl_network_trio.sync.link import Link
from msl_network_trio.sync.linked_client import LinkedClient, linked_client_view


class BlockingViews:
    """Makes the blocking forms."""

    def client(self, client: AsyncClient) -> Client:
        """Return the blocking form of a client."""
        return Client(client)

    def link(self, link: AsyncLink) -> Link:
        """Return the blocking form of a link that is not broken."""
        return Link(link_state(link).require_session("sync").client.sync, link)

    def linked_client(self, client: AsyncLinkedClient) -> LinkedClient:
        """Return the blocking form of a linked client that is open."""
        return linked_client_view(client)
