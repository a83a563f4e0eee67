"""The command ``completion``: how to have the shell complete our commands when Tab is pressed."""

from __future__ import annotations

import argparse
import sys
from typing import Final

from msl_network_trio.cli.console import print_help
from msl_network_trio.cli.parser import Parser

HELP: Final = "Show how to turn on completion by the Tab key"

EPILOG: Final = """\
Examples:
  # how to turn it on, in each shell
  %(prog)s

  # the code for a shell, for the line that the above says
  %(prog)s bash
"""

_PROGRAM = "msl-network-trio"

_SHELLS = ("bash", "zsh", "fish", "powershell")

_HOW = f"""\
Add the line of your shell to the file that it reads when it starts:

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
    """See `Command`."""
    parser.add_argument(
        "shell",
        nargs="?",
        choices=_SHELLS,
        help="the shell whose code to print; if it is left out, how to\n"
        "turn completion on in each of them is shown",
    )


def execute(options: argparse.Namespace) -> int:
    """See `Command`."""
    if options.shell is None:
        print_help(_HOW, sys.stdout)
        return 0
    from argcomplete.shell_integration import shellcode

    sys.stdout.write(shellcode([_PROGRAM], shell=options.shell))
    return 0
