"""The entry point of the command line: parses the arguments, runs a command, returns the exit status."""

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

  # add an administrator
  %(prog)s user add j.doe --admin

  # all options of a command
  %(prog)s manager --help
"""

FAILED = 1
"""The exit status of a command that failed."""

BROKEN_PIPE = 141
"""The exit status after a broken pipe, such as by ``head``: 128 + SIGPIPE, as in shells."""

INTERRUPTED = 130
"""The exit status after Ctrl-C: 128 + SIGINT, as in shells."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status.

    Args:
        arguments: The arguments without the name of the program; None: those of the process.

    Raises:
        SystemExit: After ``--help`` and ``--version``; with status 2, the arguments are invalid.
    """
    # The encoding of a pipe on Windows lacks characters that names may have.
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
        _discard_output()
        return BROKEN_PIPE


def _run(arguments: Sequence[str] | None) -> int:
    parser = build_parser()
    if "_ARGCOMPLETE" in os.environ:  # set by the shell for tab completion
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
    """Return the parser of all commands."""
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


def _discard_output() -> None:
    """Redirect output to nowhere, so that the interpreter exits without errors about the broken pipe."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for file in (sys.stdout, sys.stderr):
        if file is not None:
            os.dup2(nowhere, file.fileno())
    os.close(nowhere)


def _program() -> str:
    """Return the command that the user has typed, so that examples in help texts can be copied."""
    path = Path(sys.argv[0])
    return "python -m msl_network_trio" if path.name == "__main__.py" else path.stem


def _text(error: CommandError | NetworkError | OSError) -> str:
    """Return the text of an error, without its errno."""
    if isinstance(error, CommandError | NetworkError) or not error.strerror:
        return str(error) or type(error).__name__
    return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
