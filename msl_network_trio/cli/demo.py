"""The command ``demo``: see everything work on this computer."""

from __future__ import annotations

import argparse
from functools import partial
from typing import Final

from msl_network_trio.cli.numbers import port
from msl_network_trio.cli.parser import Parser

HELP: Final = "Start a Manager with Services on this computer, and show what a client can do"

EPILOG: Final = """\
Examples:
  # a tour that takes a few seconds, and ends everything that it has started
  %(prog)s

  # the same, but leave the Manager and the Services running to play with
  %(prog)s --keep

Everything is reached by loopback only, and what is written is in a temporary folder.
"""


def add_arguments(parser: Parser) -> None:
    """See `Command`."""
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
    """See `Command`."""
    import logging

    import trio

    from msl_network_trio import demo

    # What fails here is meant to fail, and the narrator tells it.
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
