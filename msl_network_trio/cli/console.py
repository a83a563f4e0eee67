"""Output of the commands: in colour on a terminal, else plain text that programs can parse."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TextIO

from msl_network_trio.visible import visible, visible_lines

_HEADING = r"(?m)^\w[\w ]*:$"
_USAGE = r"^usage:"
_OPTION = r"(?<![\w-])(?<!python )--?[A-Za-z][\w-]*"
_REMARK = r"(?m)^ +#.*$"


def is_colourful(file: TextIO) -> bool:
    """Return whether colours are used: on a terminal, unless ``NO_COLOR`` is set (see no-color.org)."""
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or file.isatty()


def print_help(text: str, file: TextIO) -> None:
    """Print a help text; on a terminal, highlight its headings, options and remarks."""
    if not is_colourful(file):
        file.write(text)
        return
    from rich.console import Console
    from rich.text import Text

    styled = Text(text)
    styled.highlight_regex(_OPTION, "cyan")
    styled.highlight_regex(_REMARK, "dim")
    styled.highlight_regex(_HEADING, "bold yellow")
    styled.highlight_regex(_USAGE, "bold yellow")
    Console(file=file).print(styled, end="", soft_wrap=True)


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table to standard output: framed on a terminal, else in the columns of msl-network."""
    file = sys.stdout
    if file is None:
        return  # as print() does
    # Cells may hold names that peers have chosen, with control characters in them.
    headings = [visible(heading) for heading in headings]
    rows = [[visible(cell) for cell in row] for row in rows]
    if is_colourful(file):
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table()
        for heading in headings:
            table.add_column(heading, overflow="fold")  # rich would truncate long names
        for row in rows:
            table.add_row(*map(Text, row))
        Console(file=file).print(table)
        return
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    for line in (headings, ["=" * width for width in widths], *rows):
        file.write(" ".join(map(str.ljust, line, widths)).rstrip() + "\n")


def print_error(text: str) -> None:
    """Print an error to standard error, without control characters."""
    file = sys.stderr
    if file is None:
        return
    text = visible_lines(text)
    if not is_colourful(file):
        file.write(f"error: {text}\n")
        return
    from rich.console import Console
    from rich.text import Text

    Console(file=file).print(Text.assemble(("error: ", "bold red"), text), soft_wrap=True)
