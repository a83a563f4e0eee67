"""Which commands there are. A new one is a module that has what `Command` says, and a line here."""

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
    """A module that is a command. It imports what takes time in `execute` only."""

    @property
    def HELP(self) -> str:  # noqa: N802 - a constant of the module
        """What it does, in one line."""

    @property
    def EPILOG(self) -> str:  # noqa: N802
        """What comes below the options in its help: examples, in which ``%(prog)s`` is the command."""

    def add_arguments(self, parser: Parser) -> None:
        """Declare its arguments."""

    def execute(self, options: argparse.Namespace) -> int:
        """Do what it does, and return the exit status.

        Exceptions that are a `CommandError`, a `NetworkError` or an `OSError` are for the user, and shown
        without a traceback.
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
