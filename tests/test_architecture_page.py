"""Tests of docs/architecture.md and docs/glossary.md: the files and functions that they name exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

import msl_network_trio
from tests import module_index

ROOT = Path(__file__).parents[1]
PACKAGE = Path(msl_network_trio.__file__).parent
PAGES = ["docs/architecture.md", "docs/glossary.md"]
PAGES_WITH_FILES = [*PAGES, "docs/websocket.md"]

SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
PLACE = re.compile(r"([\w./-]+(?:/|\.(?:py|md|toml|yaml|js)))(?:::([\w.]+))?")


def places(page: str) -> list[tuple[str, str]]:
    """Return the paths, and the functions in them, that are quoted as `path` or `path::Class.method`."""
    text = re.sub(r"(?ms)^```.*?^```", "", (ROOT / page).read_text(encoding="utf-8"))
    return [(found[1], found[2] or "") for span in SPAN.findall(text) if (found := PLACE.fullmatch(span))]


@cache
def definitions(path: Path) -> frozenset[str]:
    """Return the qualified names of the classes, functions, methods and attributes that a file defines."""
    found = set()

    def collect(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                found.add(prefix + node.name)
                if isinstance(node, ast.ClassDef):
                    collect(node.body, f"{prefix}{node.name}.")
                else:
                    collect(node.body, prefix)
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                for target in targets:
                    name = ast.unparse(target)
                    found.add(prefix + name.removeprefix("self."))
            elif isinstance(node, ast.If | ast.Try | ast.With | ast.For | ast.While):
                collect(node.body, prefix)

    collect(ast.parse(path.read_text(encoding="utf-8")).body, "")
    return frozenset(found)


def resolve(path: str) -> Path | None:
    """Return the file or folder of a path that is relative to the package or to the repository."""
    for base in (PACKAGE, PACKAGE.parent, ROOT):
        if (base / path).exists():
            return base / path
    return None


@pytest.mark.parametrize("page", PAGES)
def test_the_pages_name_files_and_functions(page):
    assert len(places(page)) > 20


def test_the_walks_name_functions():
    assert sum(bool(name) for _, name in places("docs/architecture.md")) > 40


@pytest.mark.parametrize("page", PAGES_WITH_FILES)
def test_every_file_that_is_named_exists(page):
    assert [path for path, _ in places(page) if resolve(path) is None] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_function_that_is_named_exists_in_its_file(page):
    missing = [
        f"{path}::{name}"
        for path, name in places(page)
        if name and (found := resolve(path)) is not None and name not in definitions(found)
    ]
    assert missing == []


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files(page):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (ROOT / page).read_text(encoding="utf-8")):
        assert (ROOT / page).parent.joinpath(target).exists(), target


def test_every_folder_of_the_package_is_on_the_page_of_the_architecture():
    named = {path.rstrip("/") for path, _ in places("docs/architecture.md")}
    folders = {
        path.parent.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("__init__.py")
        if path.parent != PACKAGE
    }
    assert folders - named == set()


def test_the_list_of_modules_is_current():
    text = module_index.PAGE.read_text(encoding="utf-8")
    assert module_index.updated(text) == text, "run python -m tests.module_index"
