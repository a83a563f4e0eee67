"""The command ``user``: who may log in at a Manager."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from msl_network_trio.cli import passwords
from msl_network_trio.cli.console import print_table
from msl_network_trio.cli.parser import CommandError, Parser, add_lookup

if TYPE_CHECKING:
    from msl_network_trio.manager.tables import Database

HELP: Final = "Add, update, remove or list the users who may log in at a Manager"

EPILOG: Final = """\
Examples:
  # add a user, and be asked for the password, which is not shown
  %(prog)s add j.doe

  # add an administrator, with the password in the first line of a file
  %(prog)s add a.smith --admin --password password.txt

  # or with a password on the command line, where others may see it
  %(prog)s add a.smith --admin --password a good password

  # make j.doe an administrator
  %(prog)s update j.doe --admin

  # and take that back: without --admin a user is none
  %(prog)s update j.doe

  # be asked for a new password of an administrator
  %(prog)s update a.smith --admin --password

  # remove a user, and list those who are left
  %(prog)s remove j.doe
  %(prog)s list

A Manager that runs with --auth-login takes users as they are here at once. Any
Manager asks who makes an admin request to log in. The passwords are kept as
msl-network keeps them (PBKDF2-HMAC-SHA256), so that its Manager can read them.
"""


def add_arguments(parser: Parser) -> None:
    """See `Command`."""
    parser.add_argument(
        "action",
        choices=["add", "insert", "update", "remove", "delete", "list"],
        help="what to do; insert is the same as add, and delete as remove",
    )
    username = parser.add_argument("username", nargs="?", help="the name of the user")
    add_lookup(username, _usernames)
    parser.add_argument(
        "-a",
        "--admin",
        action="store_true",
        help="the user is an administrator; to update a user without\nthis option makes the user none",
    )
    parser.add_argument(
        "-d",
        "--database",
        metavar="FILE",
        help="the database (default: manager.sqlite3 in the folder\n~/.msl/network)",
    )
    parser.add_argument(
        "-p",
        "--password",
        nargs="*",
        metavar="WORD",
        help=f"the password of the user;\n{passwords.HELP}.\n"
        "Without a word you are asked, also to add a user without this\noption",
    )


def execute(options: argparse.Namespace) -> int:
    """See `Command`."""
    from msl_network_trio.manager.tables import Database

    if options.action != "list" and not options.username:
        raise CommandError(f"Which user? Say: {options.action} USERNAME")
    with Database(options.database) as database:
        if options.action == "list":
            _list(database)
            return 0
        try:
            _change(database, options)
        except ValueError as error:
            raise CommandError(str(error)) from error
    return 0


def _change(database: Database, options: argparse.Namespace) -> None:
    name, users = options.username, database.users
    if options.action in {"remove", "delete"}:
        users.delete(name)
        print(f"{name} has been {options.action}d")
        return
    password = None
    is_new = options.action in {"add", "insert"}
    users.check_can_be(name, is_new=is_new)  # before anybody has typed a password in vain
    if is_new or options.password is not None:
        password = passwords.password_of(options.password or (), f"The password of {name}")
    if is_new:
        assert password is not None
        users.insert(name, password, options.admin)
        print(f"{name} has been {options.action}ed")
    else:
        users.update(name, password=password, is_admin=options.admin)
        print(f"{name} has been updated, and is {'an' if options.admin else 'no'} administrator")


def _list(database: Database) -> None:
    users = database.users.users()
    if not users:
        print("There are no users in the database")
        return
    print(f"Users in {database.path}\n")
    print_table(["Username", "Administrator"], [[name, str(is_admin)] for name, is_admin in users])


def _usernames(options: argparse.Namespace) -> Iterable[str]:
    from msl_network_trio.manager.tables import UsersTable, glance

    is_new = options.action in {"add", "insert"}
    return [] if is_new else glance(options.database, "username", UsersTable.NAME)
