"""Numbers and names of the MSL-Network protocol, and where its files are kept.

The values are those of msl-network 1.0.0, so that both read the same folder and speak to the same port.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

PORT: Final = 1875
"""The default port of a Manager (the year in which the Metre Convention was signed)."""

WEBSOCKET_PORT: Final = 8875
"""The port at which a gateway listens if nothing else is said."""

WEBSOCKET_SUBPROTOCOL: Final = "msl-network.v1"
"""What clients and servers for WebSocket agree on: a line, without its end, is one text message."""

MANAGER: Final = "Manager"
"""The name under which requests reach the Manager itself."""

DISCONNECT_REQUEST: Final = "__disconnect__"
"""The attribute that says goodbye; a Manager answers it by closing the connection."""

NETWORK_MANAGER_RUNNING_PREFIX: Final = "Network Manager running on"
"""How the line begins that a Manager logs when it listens; programs that start one wait for it."""

NOTIFICATION_UID: Final = "notification"
"""The uid that marks a line as a notification instead of a reply."""

MAX_UNHANDLED: Final = 64 * 1024 * 1024
"""Maximum bytes of notifications that wait for one handler or stream, if `connect` is given no other."""

SHUTDOWN_MANAGER: Final = "shutdown_manager"
"""The admin request that ends a Manager; its answer is the end of the connection."""

SHUTDOWN_SERVICE: Final = "shutdown_service"
"""The request that ends a Service which implements it."""


def home_folder() -> Path:
    """The folder that is shared with msl-network: certificates, keys, database.

    Looked up when used, so that a change of the environment counts at once:
    ``$MSL_NETWORK_HOME`` if it is set and not empty, else ``.msl/network`` in the home of the user
    (under ``sudo`` of the user who called it).
    """
    configured = os.environ.get("MSL_NETWORK_HOME")
    if configured:
        return Path(configured)
    user = "~" + os.environ.get("SUDO_USER", "")
    return Path(os.path.expanduser(user)) / ".msl" / "network"  # noqa: PTH111 - Path.expanduser has no ~user on Windows


def certificate_folder() -> Path:
    """The folder of trusted certificates, one ``{host}.crt`` for every host."""
    return home_folder() / "certs"


def key_folder() -> Path:
    """The folder of the private keys of Managers that run on this computer, one ``{host}.key`` for each."""
    return home_folder() / "keys"


def log_folder() -> Path:
    """The folder of the files in which Managers log what happens."""
    return home_folder() / "logs"


def database_file() -> Path:
    """The database of the Managers that run on this computer, if they are not given another one."""
    return home_folder() / "manager.sqlite3"
