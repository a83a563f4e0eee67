"""Passwords on the command line: as words, in a file, or typed at a prompt without echo."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Sequence

from msl_network_trio.cli.parser import CommandError
from msl_network_trio.exceptions import AuthenticationError
from msl_network_trio.manager.secret import read_secret

HELP = (
    "it may contain spaces. If it is the path of an existing file,\n"
    "the password is the first line of that file"
)
"""A sentence for the help of options that take a password."""


def password_of(words: Sequence[str], what: str) -> str:
    """Return the password of an option, or prompt for it.

    Args:
        words: The words of the option; empty: prompt.
        what: The name of the password in errors and in the prompt.

    Raises:
        AuthenticationError: The file with the password cannot be used.
        CommandError: There is no terminal to prompt at, or the input is no password.
    """
    return read_secret(words, what, AuthenticationError) if words else ask(what)


def ask(what: str) -> str:
    """Prompt for a new password, twice, since the input is not echoed.

    Args:
        what: The name of the password in errors and in the prompt.

    Raises:
        CommandError: There is no terminal, the password is empty, or the two inputs differ.
    """
    if sys.stdin is None or not sys.stdin.isatty():
        raise CommandError(
            f"{what} is missing, and there is no terminal to ask for it. "
            "Put it into a file, and pass the path of the file as --password."
        )
    password = getpass.getpass(f"{what} > ")
    if not password:
        raise CommandError(f"{what} is empty")
    if getpass.getpass("The same again > ") != password:
        raise CommandError("The two passwords are different, nothing was changed")
    return password
