"""The addresses of gateways that a Manager trusts to state the address of a peer. Runs in the Trio thread."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable

import trio


async def addresses_of(hosts: Iterable[str]) -> frozenset[str]:
    """Return the IP addresses of hosts.

    Args:
        hosts: Addresses and names. Names are resolved to addresses, never the reverse, since the owner of an
            address controls its name.

    Raises:
        OSError: A name cannot be resolved.
    """
    found: set[str] = set()
    for host in hosts:
        try:
            found.add(plain(host))
        except ValueError:
            found.update(map(plain, await _look_up(host)))
    return frozenset(found)


def plain(address: str) -> str:
    """Return an IP address in the normal form for comparison.

    Raises:
        ValueError: It is not an IP address.
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
