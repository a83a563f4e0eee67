"""What the computers that connect are called."""

from __future__ import annotations

import ipaddress
import math
import socket
from functools import partial

import trio

from msl_network_trio.protocol.manager.peer import Host

_SECONDS = 2.0
"""How long to wait for the resolver before a peer is called by its address."""

_REMEMBERED_FOR = 300.0
"""How many seconds a name counts before it is looked up again."""

_ASK_AGAIN_AFTER = 10.0
"""The same, in seconds, if the resolver has not answered in time: a host that is trusted by its name must not
be kept out for long since the resolver was slow once."""

_REMEMBERED = 10_000
"""How many addresses to remember at the most."""

_THREADS = 8
"""How many names to look up at a time. A resolver that is stuck keeps its thread, and must not keep those of
others: the database has need of some, too."""

_NOT_IN_NAMES = frozenset(" []")
"""What is part of no name of a host, and would make the name of a peer look like that of another one."""


class Hostnames:
    """Looks up the names of hosts, and remembers them for a while.

    The rules are those of msl-network 1.0.0, whose clients expect their own computer's name in the names of
    local peers: a host is called by the first part of its full name, or by its address if it has none. It is
    trusted by that name, too, but this computer as ``localhost`` if it uses a loopback address. For this
    computer no resolver is asked, which may be one that does not answer.
    """

    def __init__(self) -> None:
        self._names: dict[str, tuple[str, float]] = {}
        self._asking: dict[str, trio.Event] = {}
        self._threads = trio.CapacityLimiter(_THREADS)

    async def host(self, address: str, own_address: str) -> Host:
        """Return who is at an address.

        Args:
            address: The IP address of the host.
            own_address: The IP address at which it has reached this computer.
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
        while address in self._asking:  # for another connection from there: once is enough
            await self._asking[address].wait()
        name, until = self._names.get(address, ("", -math.inf))
        if until < trio.current_time():
            self._asking[address] = trio.Event()
            try:
                found = await self._look_up(ip)
                name = ip if found is None else found
                seconds = _ASK_AGAIN_AFTER if found is None else _REMEMBERED_FOR
                if len(self._names) >= _REMEMBERED:
                    self._names.clear()
                self._names[address] = (name, trio.current_time() + seconds)
            finally:
                self._asking.pop(address).set()
        return name

    async def _look_up(self, address: str) -> str | None:
        """Return the full name of a host, or its address if it has none; None: not known in time."""
        with trio.move_on_after(_SECONDS):
            return await trio.to_thread.run_sync(
                partial(_full_name, address), abandon_on_cancel=True, limiter=self._threads
            )
        return None


def _full_name(address: str) -> str:
    """Ask the resolver for the full name of a host; its address if it has none, or one that is no name.

    Who owns the address decides what the resolver answers, which becomes a part of names and of the database.
    """
    try:
        name = socket.getfqdn(address)
    except UnicodeError:
        return address
    return name if name.isprintable() and not set(name) & _NOT_IN_NAMES else address


def _hostname(domain: str) -> str:
    try:
        ipaddress.ip_address(domain)
    except ValueError:
        return domain.partition(".")[0]
    return domain
