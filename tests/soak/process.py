"""The processes of a soak test, and the resources of the Manager's process."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import attrs

RUNNING = re.compile(r"Network Manager running on \S+:(\d+) ")
START = 60.0
"""Maximum seconds for a Manager to start."""


@attrs.define
class Sample:
    """The resources of a process at one time."""

    memory: int
    """Resident memory, in bytes."""

    files: int
    """Open file descriptors."""

    threads: int


class Manager:
    """Our Manager as a process, started by the command.

    Args:
        home: The home folder of msl-network, for it and for its peers.
        tls: Whether it has TLS.
        options: More options of the command.
    """

    def __init__(self, home: Path, *, tls: bool, options: tuple[str, ...] = ()) -> None:
        self.tls = tls
        home.mkdir(parents=True, exist_ok=True)
        self.environment = dict(os.environ, MSL_NETWORK_HOME=str(home))
        self.log = home / "manager.log"
        words = ["manager", "-H", "127.0.0.1", "-p", "0", "-l", str(self.log), *options]
        words += [] if tls else ["--disable-tls"]
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "msl_network_trio", *words],
            env=self.environment,
            stdout=subprocess.DEVNULL,
        )
        self.arguments: dict[str, Any] = {"host": "127.0.0.1", "port": self._port()}
        if tls:
            self.arguments |= {
                "cert_file": str(next((home / "certs").iterdir())),
                "assert_hostname": False,
            }
        else:
            self.arguments["disable_tls"] = True

    def _port(self) -> int:
        until = time.monotonic() + START
        while time.monotonic() < until and self.popen.poll() is None:
            text = self.log.read_text(encoding="utf-8") if self.log.exists() else ""
            if found := RUNNING.search(text):
                return int(found[1])
            time.sleep(0.05)
        self.end()
        raise RuntimeError(f"the Manager has not started, see {self.log}")

    def start_peer(self, kind: str, **arguments: Any) -> subprocess.Popen[bytes]:
        """Start a Service or a client, which the load kills later."""
        return subprocess.Popen(
            [sys.executable, "-m", "tests.soak.peer", kind, json.dumps({**self.arguments, **arguments})],
            env=self.environment,
            stderr=subprocess.DEVNULL,
        )

    def sample(self) -> Sample | None:
        """Return the resources of the process; None if the system has no ``/proc``."""
        process = Path(f"/proc/{self.popen.pid}")
        if not process.exists():
            return None
        status = (process / "status").read_text()
        fields = dict(line.split(":", 1) for line in status.splitlines())
        return Sample(
            int(fields["VmRSS"].split()[0]) * 1024, len(os.listdir(process / "fd")), int(fields["Threads"])
        )

    def end(self) -> int:
        """Stop the process and return its exit status."""
        if self.popen.poll() is None:
            self.popen.terminate()
        try:
            return self.popen.wait(30)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            return self.popen.wait()
