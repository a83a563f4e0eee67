"""The command ``hostname``: which hosts a Manager trusts."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Final

from msl_network_trio.cli.console import print_error
from msl_network_trio.cli.parser import CommandError, Parser, add_lookup
from msl_network_trio.visible import visible

HELP: Final = "Add, remove or list the hosts that a Manager trusts"

EPILOG: Final = """\
Examples:
  # trust two computers
  %(prog)s add lab-3 lab-4

  # trust one of them no longer
  %(prog)s remove lab-4

  # list the hosts that are trusted
  %(prog)s list

  # in a database of your own
  %(prog)s add lab-3 --database lab.sqlite3

A Manager that runs with --auth-hostname takes what is here at once. A host is
called by the first part of its name in the DNS, "lab-3" for lab-3.example.org,
or by its address if it has none. Who controls the DNS can pretend to be another
host: to keep people out, use --auth-login.
"""


def add_arguments(parser: Parser) -> None:
    """See `Command`."""
    parser.add_argument(
        "action",
        choices=["add", "insert", "remove", "delete", "list"],
        help="what to do; insert is the same as add, and delete as remove",
    )
    names = parser.add_argument("names", nargs="*", metavar="name", help="the name of a host")
    add_lookup(names, _hostnames)
    parser.add_argument(
        "-d",
        "--database",
        metavar="FILE",
        help="the database (default: manager.sqlite3 in the folder\n~/.msl/network)",
    )


def execute(options: argparse.Namespace) -> int:
    """See `Command`."""
    from msl_network_trio.manager.tables import Database

    if options.action != "list" and not options.names:
        raise CommandError(f"Which hosts? Say: {options.action} NAME ...")
    failed = 0
    with Database(options.database) as database:
        hostnames = database.hostnames
        if options.action == "list":
            print(f"Trusted devices in {database.path}\n\nHostnames:")
            for name in hostnames.hostnames():
                print(f"  {visible(name)}")
            return 0
        for name in options.names:
            try:
                if options.action in {"add", "insert"}:
                    hostnames.insert(name)
                    print(f"{options.action.title()}ed {name}")
                else:
                    hostnames.delete(name)
                    print(f"{options.action.title()}d {name}")
            except ValueError as error:
                print_error(str(error))
                failed = 1
    return failed


def _hostnames(options: argparse.Namespace) -> Iterable[str]:
    from msl_network_trio.manager.tables import HostnamesTable, glance

    is_new = options.action in {"add", "insert"}
    return [] if is_new else glance(options.database, "hostname", HostnamesTable.NAME)
