"""The command ``delete``: delete the files that Managers and clients have created."""

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
  # delete all log files, after a question
  %(prog)s --logs

  # delete everything without a question
  %(prog)s --all --yes

msl-network uses the same files. The certificates include those of other computers
that were trusted. A Manager without a key creates a new one, and clients must then
trust the new certificate. Stop the Manager first.
"""

_KINDS: Final = {
    "database": ("", "manager.sqlite3"),
    "certs": ("certs", "*.crt"),
    "keys": ("keys", "*.key"),
    "logs": ("logs", "*.log"),
}
"""The folder and the file pattern of each option."""


def add_arguments(parser: Parser) -> None:
    """Declare the arguments; see `Command`."""
    add = parser.add_argument
    add("-a", "--all", action="store_true", help="delete all of the following")
    add("-c", "--certs", action="store_true", help="delete all certificates")
    add("-d", "--database", action="store_true", help="delete the database")
    add("-k", "--keys", action="store_true", help="delete all private keys")
    add("-l", "--logs", action="store_true", help="delete all log files")
    add("-r", "--root", metavar="FOLDER", help="the folder that holds them (default: ~/.msl/network)")
    add("-q", "--quiet", action="store_true", help="print nothing but questions and errors")
    add("-y", "--yes", action="store_true", help="do not ask before deleting")


def execute(options: argparse.Namespace) -> int:
    """Run the command; see `Command`."""
    kinds = [kind for kind in _KINDS if options.all or getattr(options, kind)]
    if not kinds:
        raise CommandError("The files to delete are missing, for example: delete --logs")
    root = home_folder() if options.root is None else Path(options.root)
    if not root.is_dir():
        raise CommandError(f"There is no folder {root}")
    return max(_delete(kind, root, options) for kind in kinds)


def _delete(kind: str, root: Path, options: argparse.Namespace) -> int:
    folder, pattern = _KINDS[kind]
    files = sorted((root / folder).rglob(pattern) if folder else root.glob(pattern))
    if not files:
        _print_unless_quiet(options, f"There are no files of the kind {kind!r}")
        return 0
    size = sum(file.stat().st_size for file in files)
    where = files[0] if len(files) == 1 else f"{len(files)} files in {root / folder}"
    # The question names the files, so it is printed with --quiet too.
    if not options.yes and not _is_confirmed(f"{where} [{_human(size)}] will be deleted"):
        _print_unless_quiet(options, "Okay, not deleting")
        return 0
    failed = 0
    for file in files:
        try:
            file.unlink()
            _print_unless_quiet(options, f"[Deleted] {file}")
        except OSError as error:
            print_error(f"{file} cannot be deleted ({error.strerror or error})")
            failed = 1
    return failed


def _is_confirmed(what: str) -> bool:
    try:
        answer = input(f"{what}\nProceed (Y/n)? ")
    except (EOFError, RuntimeError):  # input() raises RuntimeError if sys.stdin is None
        raise CommandError(
            "There is no input to read the answer from. Pass --yes to delete without a question"
        ) from None
    return answer.strip().lower() in {"", "y", "yes"}


def _print_unless_quiet(options: argparse.Namespace, text: str) -> None:
    if not options.quiet:
        print(text)


def _human(size: float) -> str:
    units: Iterator[str] = iter(("B", "kB", "MB"))
    for unit in units:
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
