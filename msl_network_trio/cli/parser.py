"""The parser of the command line: argparse, with help texts in colour and examples as they are written."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from typing import Any, NoReturn, TypeVar

from msl_network_trio.cli.console import print_error, print_help

T = TypeVar("T")

USAGE_ERROR = 2
"""The exit status when the command line cannot be understood."""


class CommandError(Exception):
    """What a command cannot do, for a reason that the user can mend."""


class Parser(argparse.ArgumentParser):
    """A parser whose help may have paragraphs and examples."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("formatter_class", argparse.RawTextHelpFormatter)
        super().__init__(**kwargs)
        self.color = False  # Python 3.14 has colours of its own, which would be in the way of ours

    def _print_message(self, message: str, file: Any = None) -> None:
        if message:
            print_help(message, file or sys.stderr)

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the command line, and how to get help, and exit.

        The usage would be a screen of options, for some commands, above what is wrong.
        """
        print_error(f"{message} (try {self.prog} --help)")
        self.exit(USAGE_ERROR)


def read_argument(read: Callable[[str], T], text: str) -> T:
    """Read what somebody has typed, for the ``type`` of an argument.

    Args:
        read: Returns the value, or raises a ValueError whose text says what is wrong.
        text: What was typed.

    Raises:
        argparse.ArgumentTypeError: It makes no sense, which the parser then tells with that text.
    """
    try:
        return read(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def add_completer(action: argparse.Action, *values: str) -> None:
    """Let tab completion offer values for an argument that takes others, too."""
    action.completer = lambda **_: values  # type: ignore[attr-defined]  # where argcomplete looks for it


def add_lookup(action: argparse.Action, look_up: Callable[[argparse.Namespace], Iterable[str]]) -> None:
    """Let tab completion offer what is looked up when Tab is pressed.

    Args:
        action: The argument.
        look_up: Is given what has been typed so far, and returns the values.
    """
    action.completer = lambda parsed_args, **_: look_up(parsed_args)  # type: ignore[attr-defined]
