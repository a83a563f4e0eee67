"""A client that has large replies pass: ``python -m benchmarks.clients.bulk PORT [CERTIFICATE]``.

It always keeps some on their way, and is ready when the first one has come. It answers each line of standard
input when the next one has come, and ends when standard input does.
"""

from __future__ import annotations

import sys

import trio

from benchmarks.servers.large_replies import BULK_READINGS, BULK_REQUESTS, BULK_SERVICE, readings
from benchmarks.tasks import HOST
from msl_network_trio import Link, connect


class _Load:
    """Requests replies until it is told to end."""

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
    """Have replies pass until the end of standard input."""
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
        # The last replies are waited for, so that they are not in the way of what is measured next.
        load.ended = True


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: python -m benchmarks.clients.bulk PORT [CERTIFICATE]")
    trio.run(main, int(sys.argv[1]), sys.argv[2] if len(sys.argv) == 3 else None)
