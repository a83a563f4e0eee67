"""The IP addresses of this computer. Blocking."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
import sys
from ipaddress import IPv4Address, IPv6Address

_SIOCGIFADDR = 0x8915
"""The ioctl of Linux for the IPv4 address of an interface."""


def local_addresses(hostname: str) -> set[IPv4Address | IPv6Address]:
    """Return the addresses of this computer that can be found without another program."""
    texts: set[str] = set()
    with contextlib.suppress(OSError, UnicodeError):
        texts |= {str(info[4][0]) for info in socket.getaddrinfo(hostname, None)}
    # Connecting a UDP socket sends no packet; it selects the local address for the route.
    for family, elsewhere in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((elsewhere, 9))
            texts.add(str(probe.getsockname()[0]))
    if sys.platform == "linux":
        import fcntl

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            for _, interface in socket.if_nameindex():
                # An interface without an IPv4 address raises an error.
                with contextlib.suppress(OSError):
                    question = struct.pack("256s", interface.encode()[:15])
                    answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, question)
                    texts.add(socket.inet_ntoa(answer[20:24]))
    addresses = {ipaddress.ip_address(text.partition("%")[0]) for text in texts}
    # Link-local addresses are only valid together with an interface of the other computer.
    return {address for address in addresses if not (address.version == 6 and address.is_link_local)}
