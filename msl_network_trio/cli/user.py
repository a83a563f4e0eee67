"""The command ``user``: edit the list of users who may log in at a Manager."""

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
  # add a user; prompts for the password
  %(prog)s add j.doe

  # add an administrator, with the password in the first line of a file
  %(prog)s add a.smith --admin --password password.txt

  # or with a password on the command line, where other users may see it
  %(prog)s add a.smith --admin --password a good password

  # make j.doe an administrator
  %(prog)s update j.doe --admin

  # undo that: without --admin, the user is no administrator
  %(prog)s update j.doe

  # change the password of an administrator; prompts for it
  %(prog)s update a.smith --admin --password

  # remove a user, and list the others
  %(prog)s remove j.doe
  %(prog)s list

A running Manager with --auth-login applies changes at once. Every Manager requires
a login for admin requests. Passwords are stored as msl-network stores them
(PBKDF2-HMAC-SHA256), so that its Manager can use them.
"""


def add_arguments(parser: Parser) -> None:
    """Declare the arguments; see `Command`."""
    parser.add_argument(
        "action",
        choices=["add", "insert", "update", "remove", "delete", "list"],
        help="the action; insert is an alias of add, and delete of remove",
    )
    username = parser.add_argument("username", nargs="?", help="the name of the user")
    add_lookup(username, _usernames)
    parser.add_argument(
        "-a",
        "--admin",
        action="store_true",
        help="make the user an administrator; an update without this option\nrevokes it",
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
        "Without a word, and to add a user without this option,\nprompt for it",
    )


def execute(options: argparse.Namespace) -> int:
    """Run the command; see `Command`."""
    from msl_network_trio.manager.tables import Database

    if options.action != "list" and not options.username:
        raise CommandError(f"The username is missing: {options.action} USERNAME")
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
    users.check_can_be(name, is_new=is_new)  # before the user types a password
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
