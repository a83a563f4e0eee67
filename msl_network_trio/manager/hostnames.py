"""What the computers that connect are called."""

from __future__ import annotations

import ipaddress
import math
import socket
from functools import partial

import trio

_SECONDS = 2.0
"""How long to wait for the resolver before a peer is called by its address."""

_REMEMBERED_FOR = 300.0
"""How many seconds a name counts before it is looked up again."""

_REMEMBERED = 10_000
"""How many addresses to remember at the most."""


class Hostnames:
    """Looks up the names of hosts, and remembers them for a while.

    The rules are those of msl-network 1.0.0, whose clients expect their own computer's name in the names of
    local peers: a host is called by the first part of its full name, or by its address if it has none.
    """

    def __init__(self) -> None:
        self._names: dict[str, tuple[str, float]] = {}

    async def name(self, address: str, own_address: str) -> str:
        """Return what a host is called.

        Args:
            address: The IP address of the host.
            own_address: The IP address at which it has reached this computer.
        """
        ip = ipaddress.ip_address(address.partition("%")[0])
        ip = getattr(ip, "ipv4_mapped", None) or ip
        if ip.is_loopback or address == own_address:
            return socket.gethostname()
        name, until = self._names.get(address, ("", -math.inf))
        if until < trio.current_time():
            name = await _look_up(str(ip))
            if len(self._names) >= _REMEMBERED:
                self._names.clear()
            self._names[address] = (name, trio.current_time() + _REMEMBERED_FOR)
        return name


async def _look_up(address: str) -> str:
    with trio.move_on_after(_SECONDS):
        full_name = await trio.to_thread.run_sync(partial(socket.getfqdn, address), abandon_on_cancel=True)
        try:
            ipaddress.ip_address(full_name)
        except ValueError:
            return full_name.partition(".")[0]
    return address
