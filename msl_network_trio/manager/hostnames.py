"""Host names of peers, looked up in worker threads and cached. Runs in the Trio thread."""

from __future__ import annotations

import ipaddress
import math
import socket
from functools import partial

import trio

from msl_network_trio.protocol.manager.peer import Host

_TIMEOUT = 2.0
"""Maximum seconds to wait for the resolver; then the name is the address."""

_CACHE_SECONDS = 300.0
"""Seconds for which a name is cached."""

_RETRY_SECONDS = 10.0
"""Seconds for which a timeout of the resolver is cached.

Short, since a host that is trusted by its name is rejected meanwhile.
"""

_CACHE_SIZE = 10_000
"""Maximum cached addresses."""

_THREADS = 8
"""Maximum concurrent lookups.

A lookup that hangs keeps its thread, and must not use up the threads of others, for example of the database.
"""

_INVALID = frozenset(" []")
"""Characters of no host name; they would allow a peer to be named like another one."""


class Hostnames:
    """Cache of host names.

    The rules are those of msl-network 1.0.0, whose clients expect the name of their own computer in the names
    of local peers: the name of a host is the first part of its full name, or its address if it has none.
    Trust depends on this name, and on ``localhost`` for a loopback address. This computer is named without
    the resolver, which may be slow.
    """

    def __init__(self) -> None:
        self._names: dict[str, tuple[str, float]] = {}
        self._pending: dict[str, trio.Event] = {}
        self._threads = trio.CapacityLimiter(_THREADS)

    async def host(self, address: str, own_address: str) -> Host:
        """Return the host with an address.

        Args:
            address: The IP address of the host.
            own_address: The local IP address of its connection.
        """
        ip = ipaddress.ip_address(address.partition("%")[0])
        ip = getattr(ip, "ipv4_mapped", None) or ip
        own_name = socket.gethostname()
        if ip.is_loopback:
            return Host(own_name, str(ip), "localhost", "localhost")
        if address == own_address:
            return Host(own_name, str(ip), own_name, own_name)
        domain = await self._domain(address, str(ip))
        hostname = _hostname(domain)
        return Host(hostname, str(ip), domain, hostname)

    async def _domain(self, address: str, ip: str) -> str:
        """Return the full name of a host, or its address if it has none."""
        while address in self._pending:  # one lookup serves all connections of a host
            await self._pending[address].wait()
        name, until = self._names.get(address, ("", -math.inf))
        if until < trio.current_time():
            self._pending[address] = trio.Event()
            try:
                found = await self._look_up(ip)
                name = ip if found is None else found
                seconds = _RETRY_SECONDS if found is None else _CACHE_SECONDS
                if len(self._names) >= _CACHE_SIZE:
                    self._names.clear()
                self._names[address] = (name, trio.current_time() + seconds)
            finally:
                self._pending.pop(address).set()
        return name

    async def _look_up(self, address: str) -> str | None:
        """Return the full name of a host, or its address if it has none; None after a timeout."""
        with trio.move_on_after(_TIMEOUT):
            return await trio.to_thread.run_sync(
                partial(_full_name, address), abandon_on_cancel=True, limiter=self._threads
            )
        return None


def _full_name(address: str) -> str:
    """Return the full name of a host by the resolver; its address if the name is missing or invalid.

    The owner of the address controls the answer, which becomes part of peer names and of the database.
    """
    try:
        name = socket.getfqdn(address)
    except UnicodeError:
        return address
    return name if name.isprintable() and not set(name) & _INVALID else address


def _hostname(domain: str) -> str:
    try:
        ipaddress.ip_address(domain)
    except ValueError:
        return domain.partition(".")[0]
    return domain
