"""Passwords on the command line: as words, in a file, or typed without being shown."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Sequence

from msl_network_trio.cli.parser import CommandError
from msl_network_trio.exceptions import AuthenticationError
from msl_network_trio.manager.secret import read_secret

HELP = (
    "it may have spaces. If it is the path of a file, the first line\n"
    "of the file is the password; if there is no such file, the path\n"
    "itself is"
)
"""For the help of options that take a password."""


def password_of(words: Sequence[str], what: str) -> str:
    """Return a password that was given as an option.

    Args:
        words: The words of the option; none: the password is asked for.
        what: What the password is for, as errors shall call it.

    Raises:
        AuthenticationError, CommandError: There is none.
    """
    return read_secret(words, what, AuthenticationError) if words else ask(what)


def ask(what: str) -> str:
    """Ask for a new password, twice, since what is typed is not shown.

    Args:
        what: What the password is for.

    Raises:
        CommandError: There is nobody to ask, or no password, or two different ones.
    """
    if sys.stdin is None or not sys.stdin.isatty():
        raise CommandError(
            f"{what} is missing, and cannot be asked for, since standard input is no terminal. "
            "Put it into a file, and pass the path of the file as --password."
        )
    password = getpass.getpass(f"{what} > ")
    if not password:
        raise CommandError(f"{what} is empty")
    if getpass.getpass("The same again > ") != password:
        raise CommandError("The two passwords are different, nothing was changed")
    return password
