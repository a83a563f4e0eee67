"""The command ``demo``: a tour of a Manager, Services and a client on this computer."""

from __future__ import annotations

import argparse
from functools import partial
from typing import Final

from msl_network_trio.cli.numbers import port
from msl_network_trio.cli.parser import Parser

HELP: Final = "Start a Manager with Services on this computer, and show what a client can do"

EPILOG: Final = """\
Examples:
  # a tour of a few seconds, which stops everything that it has started
  %(prog)s

  # leave the Manager and the Services running
  %(prog)s --keep

The demo listens on loopback only, and writes to a temporary folder.
"""


def add_arguments(parser: Parser) -> None:
    """Declare the arguments; see `Command`."""
    parser.add_argument(
        "-k",
        "--keep",
        action="store_true",
        help="leave the Manager and the Services running until Ctrl-C,\nand print how to connect",
    )
    parser.add_argument(
        "-p",
        "--port",
        type=port,
        default=0,
        help="the port of the Manager (default: any that is free)",
    )


def execute(options: argparse.Namespace) -> int:
    """Run the command; see `Command`."""
    import logging

    import trio

    from msl_network_trio import demo

    # Some requests of the tour fail on purpose; the narrator prints their errors.
    logging.getLogger("msl_network_trio").addHandler(logging.NullHandler())
    narrator = demo.Narrator()
    interrupted = False
    with demo.own_home():
        try:
            trio.run(partial(demo.run, narrator, port=options.port, keep=options.keep))
        except* KeyboardInterrupt:
            interrupted = True
    if interrupted and not options.keep:
        raise KeyboardInterrupt
    narrator.chapter("Done: everything that was started has been ended.")
    return 0
