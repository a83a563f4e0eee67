"""List of all modules in docs/architecture.md: ``python -m tests.module_index`` updates it."""

from __future__ import annotations

import ast
from pathlib import Path

import msl_network_trio

PAGE = Path(__file__).parents[1] / "docs" / "architecture.md"
PACKAGE = Path(msl_network_trio.__file__).parent
BEGIN, END = "<!-- modules -->\n", "<!-- end of modules -->\n"


def summary(path: Path) -> str:
    """Return the first line of the docstring of a module."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0].replace("``", "`")


def index() -> str:
    """Return the list, one paragraph for each folder."""
    text = ""
    for folder in sorted({path.parent for path in PACKAGE.rglob("*.py")}):
        name = folder.relative_to(PACKAGE).as_posix()
        text += f"\n**`{name}/`**: {summary(folder / '__init__.py')}\n\n" if folder != PACKAGE else "\n"
        for path in sorted(folder.glob("*.py")):
            if path.name != "__init__.py":
                text += f"- `{path.relative_to(PACKAGE).as_posix()}`: {summary(path)}\n"
    return f"{text}\n"


def updated(page: str) -> str:
    """Return the text of the page with the current list."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + index() + END + after


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
