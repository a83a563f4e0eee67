"""Process of a Manager: ``python -m benchmarks.servers.manager ours``, or ``reference``.

Each runs as by its command line, with its default log level INFO, and logs to a file and the console. When
it listens, it reports the ``port``, and the ``websocket_port`` if it has one, on 127.0.0.1 to its parent.
"""

from __future__ import annotations

import argparse
import logging
import re
import socket
import sys
from pathlib import Path
from typing import Any, TextIO

from benchmarks.parent import end_with_parent, say_ready, take_standard_output
from benchmarks.tasks import HOST

_RUNNING = re.compile(r"Network Manager running on .*:(\d+) \(TLS")
"""Beginning of the line that both Managers log when they listen."""

_WEBSOCKET = re.compile(r"WebSocket, and a page, at .*:(\d+)/")
"""Beginning of the line that this package's Manager logs before, if it listens for WebSocket."""


class _Announcement(logging.Handler):
    """Log handler that reports the start of the Manager to the parent, then removes itself to save time."""

    def __init__(self, logger: logging.Logger, for_parent: TextIO) -> None:
        super().__init__()
        self._logger = logger
        self._for_parent = for_parent
        self._ports: dict[str, int] = {}
        logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if websocket := _WEBSOCKET.match(message):
            self._ports["websocket_port"] = int(websocket[1])
        elif running := _RUNNING.match(message):
            self._logger.removeHandler(self)
            say_ready(self._for_parent, {"port": int(running[1]), **self._ports})


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def main() -> None:
    """Run until the end of standard input."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.servers.manager", description=__doc__)
    parser.add_argument("peer", choices=("ours", "reference"))
    parser.add_argument("--log-file", type=Path, required=True, metavar="FILE")
    parser.add_argument("--certificate", metavar="FILE", help="default: no TLS")
    parser.add_argument("--key", metavar="FILE", help="the key of the certificate")
    parser.add_argument("--websocket", action="store_true", help="listen for WebSocket, too; just ours can")
    options = parser.parse_args()
    if (options.certificate is None) != (options.key is None):
        parser.error("--certificate and --key belong together")
    for_parent = take_standard_output()
    end_with_parent()
    arguments: dict[str, Any] = {
        "host": HOST,
        "log_file": str(options.log_file),
        "disable_tls": options.certificate is None,
        "cert_file": options.certificate,
        "key_file": options.key,
    }
    if options.peer == "ours":
        from msl_network_trio.manager.running import run_forever

        _Announcement(logging.getLogger("msl_network_trio"), for_parent)
        run_forever(port=0, websocket_port=0 if options.websocket else None, **arguments)
    else:
        from msl.network.manager import run_forever as run_reference

        _Announcement(logging.getLogger("msl.network"), for_parent)
        run_reference(port=_free_port(), **arguments)  # the reference cannot choose a port itself
    sys.exit("the Manager has ended")


if __name__ == "__main__":
    main()
