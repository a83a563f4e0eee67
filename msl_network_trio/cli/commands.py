"""The table of commands. To add one, write a module that implements `Command`, and add a line here."""

from __future__ import annotations

import argparse
from typing import Final, Protocol

from msl_network_trio.cli import (
    certdump,
    certgen,
    certreload,
    completion,
    delete,
    demo,
    disconnect,
    gateway,
    hostname,
    keygen,
    manager,
    status,
    unlock,
    user,
)
from msl_network_trio.cli.parser import Parser


class Command(Protocol):
    """The interface of a module that is a command; only `execute` imports what takes time."""

    @property
    def HELP(self) -> str:  # noqa: N802 - a constant of the module
        """The purpose of the command in one line."""

    @property
    def EPILOG(self) -> str:  # noqa: N802
        """The text below the options in its help, with examples; ``%(prog)s`` stands for the command."""

    def add_arguments(self, parser: Parser) -> None:
        """Declare its arguments."""

    def execute(self, options: argparse.Namespace) -> int:
        """Run the command and return the exit status.

        A `CommandError`, a `NetworkError` or an `OSError` is printed as an error, without a traceback.
        """


COMMANDS: Final[dict[str, Command]] = {
    "manager": manager,
    "status": status,
    "disconnect": disconnect,
    "unlock": unlock,
    "gateway": gateway,
    "user": user,
    "hostname": hostname,
    "keygen": keygen,
    "certgen": certgen,
    "certdump": certdump,
    "certreload": certreload,
    "delete": delete,
    "demo": demo,
    "completion": completion,
}
"""The commands by name, in the order in which the help lists them."""
