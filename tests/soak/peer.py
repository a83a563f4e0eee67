"""A Service or a client as a process that is killed: ``python -m tests.soak.peer KIND ARGUMENTS``."""

from __future__ import annotations

import json
import sys

import trio

from msl_network_trio import NetworkError, connect
from msl_network_trio.service.service import Service


class Mortal(Service):
    """A Service that returns its arguments, at once or after a delay."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name)

    async def echo(self, value: object, seconds: float = 0) -> object:
        await trio.sleep(seconds)
        return value


async def make_calls(**kwargs: object) -> None:
    """Make calls until the process is killed."""
    async with connect(**kwargs) as client, client.link("Steady") as link, trio.open_nursery() as nursery:

        async def call(number: int) -> None:
            while True:
                assert await link.echo([number, "x" * 1000]) == [number, "x" * 1000]

        for number in range(5):
            nursery.start_soon(call, number)
        await trio.sleep(600)


def main() -> None:
    kind, arguments = sys.argv[1], json.loads(sys.argv[2])
    try:
        if kind == "service":
            Mortal(arguments.pop("name")).start(**arguments)
        else:
            trio.run(lambda: make_calls(**arguments))
    except* NetworkError as group:
        print(group.exceptions[0], file=sys.stderr)  # the end of the load


if __name__ == "__main__":
    main()
