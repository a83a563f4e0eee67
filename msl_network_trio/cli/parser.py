"""The parser of the command line: argparse with coloured help texts and literal examples."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from typing import Any, NoReturn, TypeVar

from msl_network_trio.cli.console import print_error, print_help

T = TypeVar("T")

USAGE_ERROR = 2
"""The exit status after invalid arguments."""


class CommandError(Exception):
    """An error that the user can correct; printed without a traceback."""


class Parser(argparse.ArgumentParser):
    """A parser whose help keeps the line breaks of paragraphs and examples."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("formatter_class", argparse.RawTextHelpFormatter)
        super().__init__(**kwargs)
        self.color = False  # the colours of Python 3.14 would mix with those of print_help

    def _print_message(self, message: str, file: Any = None) -> None:
        if message:
            print_help(message, file or sys.stderr)

    def error(self, message: str) -> NoReturn:
        """Print an error with a hint on ``--help``, and exit.

        The usage is left out: that of some commands fills the screen, and would hide the error.
        """
        print_error(f"{message} (try {self.prog} --help)")
        self.exit(USAGE_ERROR)


def read_argument(read: Callable[[str], T], text: str) -> T:
    """Parse an argument, for the ``type`` of an option.

    Args:
        read: Returns the value, or raises a ValueError.
        text: The argument.

    Raises:
        argparse.ArgumentTypeError: `read` has raised a ValueError, whose text the parser prints.
    """
    try:
        return read(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def add_completer(action: argparse.Action, *values: str) -> None:
    """Offer values in tab completion, for an argument that accepts other values too."""
    action.completer = lambda **_: values  # type: ignore[attr-defined]  # where argcomplete looks for it


def add_lookup(action: argparse.Action, look_up: Callable[[argparse.Namespace], Iterable[str]]) -> None:
    """Offer values in tab completion that are looked up when Tab is pressed.

    Args:
        action: The argument.
        look_up: Returns the values; its argument are the options that precede this one.
    """
    action.completer = lambda parsed_args, **_: look_up(parsed_args)  # type: ignore[attr-defined]
