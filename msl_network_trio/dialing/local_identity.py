"""The parts of an identity that describe this computer and its Python."""

from __future__ import annotations

import platform
import socket
from functools import cache


@cache
def language() -> str:
    """Return the programming language and its version."""
    return f"Python {platform.python_version()}"


@cache
def operating_system() -> str:
    """Return the operating system, its release and the architecture."""
    return f"{platform.system()} {platform.release()} {platform.machine()}"


def own_hostname() -> str:
    """Return the host name of this computer."""
    return socket.gethostname()
