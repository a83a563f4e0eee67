"""From the words on the command line to a command and its exit status."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from msl_network_trio import __version__
from msl_network_trio.cli.commands import COMMANDS
from msl_network_trio.cli.console import print_error
from msl_network_trio.cli.parser import CommandError, Parser
from msl_network_trio.exceptions import NetworkError

_DESCRIPTION = """\
A network of laboratory equipment: a Manager links Clients with the Services
that they send requests to. It understands MSL-Network 1.0.
"""

_EPILOG = """\
Examples:
  # run a Manager with the default settings
  %(prog)s manager

  # add a user who may log in, and make admin requests
  %(prog)s user add j.doe --admin

  # all options of a command
  %(prog)s manager --help
"""

FAILED = 1
"""The exit status of a command that could not do what it was told to."""

BROKEN_PIPE = 141
"""The exit status when nobody reads what is printed, as of ``head``; shells have it so."""

INTERRUPTED = 130
"""The exit status after Ctrl-C, as shells have it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: The words behind the name of the program; None: those of the process.

    Returns:
        The exit status; after Ctrl-C, and when nobody reads what is printed, that which shells have for it.

    Raises:
        SystemExit: After ``--help``, ``--version``, and, with status 2, words that make no sense.
    """
    # Where output has an encoding without the characters of somebody's name, as on Windows in a pipe.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            return _run(arguments)
        finally:
            for file in (sys.stdout, sys.stderr):
                if file is not None:
                    file.flush()
    except BrokenPipeError:
        _print_no_more()
        return BROKEN_PIPE


def _run(arguments: Sequence[str] | None) -> int:
    parser = build_parser()
    if "_ARGCOMPLETE" in os.environ:  # the shell wants to know how the line may go on
        import argcomplete

        argcomplete.autocomplete(parser)
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        options.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    del options.parser
    if options.command is None:
        parser.print_help()
        return 0
    try:
        return COMMANDS[options.command].execute(options)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        raise
    except (CommandError, NetworkError, OSError) as error:
        print_error(_text(error))
        return FAILED


def build_parser() -> Parser:
    """Return the parser with all commands."""
    parser = Parser(prog=_program(), description=_DESCRIPTION, epilog=_EPILOG)
    parser.set_defaults(parser=parser)
    parser.add_argument(
        "-V", "--version", action="version", version=__version__, help="show the version and exit"
    )
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    for name, command in COMMANDS.items():
        subparser = subparsers.add_parser(
            name, help=command.HELP, description=f"{command.HELP}.", epilog=command.EPILOG
        )
        subparser.set_defaults(parser=subparser)
        command.add_arguments(subparser)
    return parser


def _print_no_more() -> None:
    """Let the interpreter end without complaints about what it cannot print."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for file in (sys.stdout, sys.stderr):
        if file is not None:
            os.dup2(nowhere, file.fileno())
    os.close(nowhere)


def _program() -> str:
    """What the user has typed to run this: examples in help texts shall work when they are copied."""
    path = Path(sys.argv[0])
    return "python -m msl_network_trio" if path.name == "__main__.py" else path.stem


def _text(error: CommandError | NetworkError | OSError) -> str:
    """The text of an error, without the number that the operating system gives it."""
    if isinstance(error, CommandError | NetworkError) or not error.strerror:
        return str(error) or type(error).__name__
    return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
