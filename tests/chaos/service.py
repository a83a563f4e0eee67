"""A Service that records in a file what it executes, and emits numbered notifications.

Run as ``python -m tests.chaos.service FOLDER START SETTINGS``: the folder for its record, the number of this
start, and, as JSON, the arguments of `Instrument` and of `Service.start`.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

import trio

from msl_network_trio import Service

INTERVAL = 0.02
"""Seconds between two notifications."""


class Instrument(Service):
    """A Service that records its calls.

    Args:
        record: Path of the file for the record.
        start_number: The number of this start of the Service.
        kwargs: The arguments of `Service`.
    """

    def __init__(self, record: Path, start_number: int, **kwargs: Any) -> None:
        super().__init__(ignore_attributes=["record", "connected"], **kwargs)
        # The system keeps what was written when the process is killed.
        self._record = os.open(record, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._start_number = start_number
        self._number = 0
        self.add_tasks(self._emit)

    def connected(self) -> None:
        """Record a new connection, before anything that is executed over it."""
        self._write(f"connected {time.time():.3f}")

    def _write(self, line: str) -> None:
        os.write(self._record, f"{line}\n".encode())

    async def _emit(self) -> None:
        while True:
            self._number += 1
            self.emit_notification(f"n:{self.name}:{self._start_number}:{self._number}#")
            await trio.sleep(INTERVAL)

    def work(self, token: str, seconds: float = 0.0) -> list[str]:
        """Execute a request in a thread."""
        self._write(f"begin {token}")
        time.sleep(seconds)
        self._write(f"end {token}")
        return [token, self.name]

    async def work_in_task(self, token: str, seconds: float = 0.0) -> list[str]:
        """Execute a request in a task."""
        self._write(f"task {token}")
        await trio.sleep(seconds)
        return [token, self.name]

    async def read(self, token: str) -> list[str]:
        """Execute a request that may be repeated."""
        self._write(f"task {token}")
        return [token, self.name]

    def fail(self, token: str) -> None:
        """Raise an exception that contains the token."""
        self._write(f"begin {token}")
        self._write(f"end {token}")
        raise ValueError(token)

    async def guarded(self, token: str, holder: str) -> list[str]:
        """Execute a request of a client that holds the lock."""
        self._write(f"task {token}")
        self._write(f"holder {holder} {time.time():.3f}")
        return [token, self.name]


class ConnectionRecorder(logging.Handler):
    """Records each connection of an `Instrument`, of which a log message tells."""

    def __init__(self, instrument: Instrument) -> None:
        super().__init__()
        self._instrument = instrument

    def emit(self, record: logging.LogRecord) -> None:
        """Take a log message."""
        if "is connected to Manager" in record.getMessage():
            self._instrument.connected()


def main() -> None:
    """Run the Service."""
    folder, start_number, settings = Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
    logging.basicConfig(level=logging.INFO, stream=sys.stdout)
    print("starting", flush=True)
    service = Instrument(
        folder / f"{settings['service']['name']}-{start_number}", start_number, **settings["service"]
    )
    logging.getLogger("msl_network_trio").addHandler(ConnectionRecorder(service))
    service.start(**settings["start"])


if __name__ == "__main__":
    main()
