"""The command ``hostname``: edit the list of hosts that a Manager trusts."""

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

  # stop trusting one of them
  %(prog)s remove lab-4

  # list the trusted hosts
  %(prog)s list

  # in another database
  %(prog)s add lab-3 --database lab.sqlite3

A running Manager with --auth-hostname applies changes at once. The name of a host
is the first label of its DNS name, "lab-3" for lab-3.example.org, or its address
if it has no name. An attacker who controls the DNS can impersonate a host: for
access control, use --auth-login.
"""


def add_arguments(parser: Parser) -> None:
    """Declare the arguments; see `Command`."""
    parser.add_argument(
        "action",
        choices=["add", "insert", "remove", "delete", "list"],
        help="the action; insert is an alias of add, and delete of remove",
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
    """Run the command; see `Command`."""
    from msl_network_trio.manager.tables import Database

    if options.action != "list" and not options.names:
        raise CommandError(f"The name of a host is missing: {options.action} NAME ...")
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
