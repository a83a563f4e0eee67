"""The gateways that a Manager trusts to say from where a peer comes."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable

import trio


async def addresses_of(hosts: Iterable[str]) -> frozenset[str]:
    """Return the IP addresses of hosts.

    Args:
        hosts: Addresses and names. A name is looked up, not the other way round: the owner of an address says
            what name belongs to it.

    Raises:
        OSError: A name cannot be looked up.
    """
    found: set[str] = set()
    for host in hosts:
        try:
            found.add(plain(host))
        except ValueError:
            found.update(map(plain, await _look_up(host)))
    return frozenset(found)


def plain(address: str) -> str:
    """Return an IP address in the form in which addresses can be compared.

    Raises:
        ValueError: It is none.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    return str(getattr(ip, "ipv4_mapped", None) or ip)


async def _look_up(host: str) -> list[str]:
    try:
        answers = await trio.socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OSError(f"The host {host!r}, which is to be trusted, cannot be found: {reason}") from error
    return [str(address[0]) for *_, address in answers]
