"""The command ``completion``: print how to turn on tab completion, or the code for a shell."""

from __future__ import annotations

import argparse
import sys
from typing import Final

from msl_network_trio.cli.console import print_help
from msl_network_trio.cli.parser import Parser

HELP: Final = "Show how to turn on tab completion"

EPILOG: Final = """\
Examples:
  # how to turn it on in each shell
  %(prog)s

  # the completion code of a shell
  %(prog)s bash
"""

_PROGRAM = "msl-network-trio"

_SHELLS = ("bash", "zsh", "fish", "powershell")

_HOW = f"""\
Add the line for your shell to its startup file:

bash:
  # ~/.bashrc
  eval "$({_PROGRAM} completion bash)"

zsh:
  # ~/.zshrc, below "autoload -Uz compinit && compinit"
  eval "$({_PROGRAM} completion zsh)"

fish:
  # ~/.config/fish/config.fish
  {_PROGRAM} completion fish | source

PowerShell:
  # the file that $PROFILE names
  {_PROGRAM} completion powershell | Out-String | Invoke-Expression
"""


def add_arguments(parser: Parser) -> None:
    """Declare the arguments; see `Command`."""
    parser.add_argument(
        "shell",
        nargs="?",
        choices=_SHELLS,
        help="the shell whose completion code to print (default: print\ninstructions for all of them)",
    )


def execute(options: argparse.Namespace) -> int:
    """Run the command; see `Command`."""
    if options.shell is None:
        print_help(_HOW, sys.stdout)
        return 0
    from argcomplete.shell_integration import shellcode

    sys.stdout.write(shellcode([_PROGRAM], shell=options.shell))
    return 0
