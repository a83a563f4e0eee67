"""The Echo Service: ``python -m msl_network_trio.examples.echo``."""

from typing import Any

from msl_network_trio.service import command
from msl_network_trio.service.service import Service


class Echo(Service):
    """Returns the arguments that it receives."""

    async def echo(self, *args: Any, **kwargs: Any) -> list[Any]:
        """Return the arguments: the positional ones as a list, the keyword arguments as an object."""
        return [args, kwargs]


if __name__ == "__main__":
    command.main(Echo, "msl_network_trio.examples.echo")
