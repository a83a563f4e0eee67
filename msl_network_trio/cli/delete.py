"""The command ``delete``: remove the files that Managers and clients have made."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from msl_network_trio.cli.console import print_error
from msl_network_trio.cli.parser import CommandError, Parser
from msl_network_trio.constants import home_folder

HELP: Final = "Delete the database, certificates, keys or log files"

EPILOG: Final = """\
Examples:
  # delete all log files; you are asked before
  %(prog)s --logs

  # delete everything, and do not ask
  %(prog)s --all --yes

The files are those of msl-network, too. Certificates are also those of other
computers that were trusted. Without its key the Manager makes a new one, and
clients have to trust the new certificate. End the Manager first.
"""

_KINDS: Final = {
    "database": ("", "manager.sqlite3"),
    "certs": ("certs", "*.crt"),
    "keys": ("keys", "*.key"),
    "logs": ("logs", "*.log"),
}
"""The option, the folder, and the names of its files."""


def add_arguments(parser: Parser) -> None:
    """See `Command`."""
    add = parser.add_argument
    add("-a", "--all", action="store_true", help="delete all of these")
    add("-c", "--certs", action="store_true", help="delete all certificates")
    add("-d", "--database", action="store_true", help="delete the database")
    add("-k", "--keys", action="store_true", help="delete all private keys")
    add("-l", "--logs", action="store_true", help="delete all log files")
    add("-r", "--root", metavar="FOLDER", help="the folder where they are (default: ~/.msl/network)")
    add("-q", "--quiet", action="store_true", help="print nothing but questions and errors")
    add("-y", "--yes", action="store_true", help="do not ask before deleting")


def execute(options: argparse.Namespace) -> int:
    """See `Command`."""
    kinds = [kind for kind in _KINDS if options.all or getattr(options, kind)]
    if not kinds:
        raise CommandError("What shall be deleted? For example: delete --logs")
    root = home_folder() if options.root is None else Path(options.root)
    if not root.is_dir():
        raise CommandError(f"There is no folder {root}")
    return max(_delete(kind, root, options) for kind in kinds)


def _delete(kind: str, root: Path, options: argparse.Namespace) -> int:
    folder, pattern = _KINDS[kind]
    files = sorted((root / folder).rglob(pattern) if folder else root.glob(pattern))
    if not files:
        _say(options, f"There are no files of the kind {kind!r}")
        return 0
    size = sum(file.stat().st_size for file in files)
    where = files[0] if len(files) == 1 else f"{len(files)} files in {root / folder}"
    # With the question, also if nothing else is said.
    if not options.yes and not _proceed(f"{where} [{_human(size)}] will be deleted"):
        _say(options, "Okay, not deleting")
        return 0
    failed = 0
    for file in files:
        try:
            file.unlink()
            _say(options, f"[Deleted] {file}")
        except OSError as error:
            print_error(f"{file} cannot be deleted ({error.strerror or error})")
            failed = 1
    return failed


def _proceed(what: str) -> bool:
    try:
        answer = input(f"{what}\nProceed (Y/n)? ")
    except (EOFError, RuntimeError):  # the latter if there is no standard input at all
        raise CommandError("Nobody is there to be asked. Say --yes to delete without a question") from None
    return answer.strip().lower() in {"", "y", "yes"}


def _say(options: argparse.Namespace, text: str) -> None:
    if not options.quiet:
        print(text)


def _human(size: float) -> str:
    units: Iterator[str] = iter(("B", "kB", "MB"))
    for unit in units:
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
