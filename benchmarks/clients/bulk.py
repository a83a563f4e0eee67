"""Background load of large replies: ``python -m benchmarks.clients.bulk PORT [CERTIFICATE]``.

It keeps some requests in flight, and is ready after the first reply. It answers each line of standard
input after the next reply, and ends at the end of standard input.
"""

from __future__ import annotations

import sys

import trio

from benchmarks.servers.large_replies import BULK_READINGS, BULK_REQUESTS, BULK_SERVICE, readings
from benchmarks.tasks import HOST
from msl_network_trio import Link, connect


class _Load:
    """Requests large replies until it is stopped."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self.ended = False
        self.next = trio.Event()

    async def first(self) -> None:
        if await self._link.readings() != readings():
            raise RuntimeError("the numbers are not those that were to come")

    async def run(self) -> None:
        while not self.ended:
            count = len(await self._link.readings())
            if count != BULK_READINGS:
                raise RuntimeError(f"the reply has {count} numbers and not {BULK_READINGS}")
            self.next.set()
            self.next = trio.Event()


async def main(port: int, certificate: str | None) -> None:
    """Transfer large replies until the end of standard input."""
    async with (
        connect(
            name="bulk", host=HOST, port=port, disable_tls=certificate is None, cert_file=certificate
        ) as client,
        client.link(BULK_SERVICE) as link,
        trio.open_nursery() as nursery,
    ):
        load = _Load(link)
        await load.first()
        for _ in range(BULK_REQUESTS):
            nursery.start_soon(load.run)
        print("ready {}", flush=True)
        while await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            await load.next.wait()
            print("{}", flush=True)
        # Wait for the last replies, so that they do not disturb the next measurement.
        load.ended = True


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: python -m benchmarks.clients.bulk PORT [CERTIFICATE]")
    trio.run(main, int(sys.argv[1]), sys.argv[2] if len(sys.argv) == 3 else None)
