"""Constants of the MSL-Network protocol, and the paths of its files.

The values are those of msl-network 1.0.0, so that both packages share folders and ports.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

PORT: Final = 1875
"""Default port of a Manager (the year in which the Metre Convention was signed)."""

WEBSOCKET_PORT: Final = 8875
"""Default port of a gateway."""

WEBSOCKET_SUBPROTOCOL: Final = "msl-network.v1"
"""WebSocket subprotocol: each text message is one line without its line end."""

MANAGER: Final = "Manager"
"""Name of the Manager in the ``service`` field of requests to itself."""

DISCONNECT_REQUEST: Final = "__disconnect__"
"""Attribute of the request to disconnect; the Manager closes the connection instead of replying."""

NETWORK_MANAGER_RUNNING_PREFIX: Final = "Network Manager running on"
"""Beginning of the line that a Manager logs when it listens; programs that start a Manager wait for it."""

NOTIFICATION_UID: Final = "notification"
"""Uid that distinguishes notifications from replies."""

MAX_UNHANDLED: Final = 64 * 1024 * 1024
"""Default maximum of bytes of notifications that wait for one handler or stream."""

SHUTDOWN_MANAGER: Final = "shutdown_manager"
"""Admin request to shut the Manager down; the Manager closes the connection instead of replying."""

SHUTDOWN_SERVICE: Final = "shutdown_service"
"""Request to shut a Service down, for Services that implement it."""


def home_folder() -> Path:
    """Return the folder that is shared with msl-network: certificates, keys, logs, database.

    It is ``$MSL_NETWORK_HOME`` if that is set and not empty, else ``.msl/network`` in the user's home folder
    (with ``sudo``, of the user who called it). The environment is read at each call.
    """
    configured = os.environ.get("MSL_NETWORK_HOME")
    if configured:
        return Path(configured)
    user = "~" + os.environ.get("SUDO_USER", "")
    return Path(os.path.expanduser(user)) / ".msl" / "network"  # noqa: PTH111 - Path.expanduser has no ~user on Windows


def certificate_folder() -> Path:
    """Return the folder of trusted certificates, with one file ``{host}.crt`` per host."""
    return home_folder() / "certs"


def key_folder() -> Path:
    """Return the folder of the private keys of Managers, with one file ``{host}.key`` per host."""
    return home_folder() / "keys"


def log_folder() -> Path:
    """Return the folder of the log files of Managers."""
    return home_folder() / "logs"


def database_file() -> Path:
    """Return the path of the default database of this computer's Managers."""
    return home_folder() / "manager.sqlite3"
