"""Tests of tests/README.md: each module of the package has a test file of its name, or is listed with another one."""

from __future__ import annotations

import re
from pathlib import Path

import msl_network_trio

PACKAGE = Path(msl_network_trio.__file__).parent
TESTS = Path(__file__).parent


def modules() -> set[str]:
    """Return the paths of all modules, relative to the package."""
    return {
        path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"
    }


def test_files() -> set[str]:
    """Return the paths of all test files, relative to this folder."""
    return {path.relative_to(TESTS).as_posix() for path in TESTS.rglob("test_*.py")}


test_files.__test__ = False


def own_test(module: str) -> str:
    """Return the path of the test file that has a module's name."""
    folder, slash, name = module.rpartition("/")
    return f"{folder}{slash}test_{name}"


def table(heading: str) -> dict[str, str]:
    """Return the rows of the table below a heading: first column to second column, without backticks."""
    text = (TESTS / "README.md").read_text(encoding="utf-8")
    section = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    assert section is not None, heading
    rows = re.findall(r"^\| `([^`]+)` \| (.+) \|$", section[1], re.MULTILINE)
    found = {first: second.strip("`") for first, second in rows}
    assert len(found) == len(rows), "a row is there twice"
    return found


LISTED = table("Modules without a test file of their own name")
DESCRIBED = table("Test files without a module of their name")


def test_a_module_has_a_test_file_of_its_name_or_is_listed():
    files = test_files()
    without = {module for module in modules() if own_test(module) not in files}
    assert without - LISTED.keys() == set(), "add a test file of its name, or a row to tests/README.md"
    assert LISTED.keys() - modules() == set(), "tests/README.md lists a module that does not exist"
    assert LISTED.keys() - without == set(), "tests/README.md lists a module that has a test file of its name"
    assert set(LISTED.values()) - files == set(), "tests/README.md names a test file that does not exist"


def test_a_test_file_has_the_name_of_a_module_or_is_described():
    files = test_files()
    own = {own_test(module) for module in modules()}
    assert DESCRIBED.keys() - files == set(), "tests/README.md describes a file that does not exist"
    assert files - own - DESCRIBED.keys() == set(), "describe it in tests/README.md"
    assert DESCRIBED.keys() & own == set(), "tests/README.md describes a file that has the name of a module"
