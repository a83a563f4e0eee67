"""Process of a Service: ``python -m benchmarks.servers.service PEER NAME PORT [CERTIFICATE]``.

It logs warnings, like a program that has not configured logging, as the examples of both packages.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TextIO

from benchmarks.parent import end_with_parent, say_ready, take_standard_output
from benchmarks.servers.large_replies import readings
from benchmarks.tasks import HOST

_KINDS = ("reference", "ours-plain", "ours-async")


class _Plain:
    """Plain methods, the same for both packages."""

    emit_notification_threadsafe: Callable[..., None]

    def add(self, a: int, b: int) -> int:
        return a + b

    def echo(self, value: Any) -> Any:
        return value

    def emit(self, begin: int, end: int) -> int:
        """Emit the numbers of this range."""
        for number in range(begin, end):
            self.emit_notification_threadsafe(number)
        return end - begin

    def readings(self) -> list[float]:
        return readings()


class _Async:
    """The same methods, async."""

    emit_notification: Callable[..., None]

    async def add(self, a: int, b: int) -> int:
        return a + b

    async def echo(self, value: Any) -> Any:
        return value

    async def emit(self, begin: int, end: int) -> int:
        """Emit the numbers of this range."""
        for number in range(begin, end):
            self.emit_notification(number)
        return end - begin

    async def readings(self) -> list[float]:
        return readings()


def service_of(peer: str) -> Any:
    """Return a Service that is not started."""
    if peer == "reference":
        from msl.network import Service as ReferenceService

        return type("Reference", (_Plain, ReferenceService), {})()
    from msl_network_trio import Service

    return type("Ours", (_Async if peer == "ours-async" else _Plain, Service), {})()


async def _announce(for_parent: TextIO) -> None:
    """Report the start to the parent; in both packages, tasks start after the Manager has the identity."""
    say_ready(for_parent, {})


def main(peer: str, name: str, port: int, certificate: str | None) -> None:
    """Run until the end of standard input."""
    for_parent = take_standard_output()
    end_with_parent()
    service = service_of(peer)
    service.add_tasks(_announce(for_parent))
    service.start(name=name, host=HOST, port=port, disable_tls=certificate is None, cert_file=certificate)
    sys.exit("the Service has ended")


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5) or sys.argv[1] not in _KINDS:
        sys.exit(
            f"usage: python -m benchmarks.servers.service {{{','.join(_KINDS)}}} NAME PORT [CERTIFICATE]"
        )
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4] if len(sys.argv) == 5 else None)
