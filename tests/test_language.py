"""Tests of the language of docstrings: the rules of CONTRIBUTING.md that a program can check."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import msl_network_trio

PACKAGE = Path(msl_network_trio.__file__).parent
ROOT = Path(__file__).parents[1]

QUESTION = re.compile(r"(Have|How|What|When|Where|Which|Who|Whoever|Whom|Whose|Why)\b")
THIRD_PERSON = re.compile(r"[A-Z][a-z]+[a-rt-z]s\b")  # "Returns", but not "Pass"
PROPERTY = re.compile(r"(\w+\.)?(cached_property|property|setter)\b|\w+\.(setter|getter)")


def docstrings(source: str) -> Iterator[tuple[int, ast.AST | None, str]]:
    """Return the lines, the documented nodes (None: an attribute) and the first lines of all docstrings."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            for place, child in enumerate(node.body):
                if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
                    text = child.value.value
                    if isinstance(text, str):
                        yield child.lineno, None if place else node, text.strip().partition("\n")[0]


def is_function(node: ast.AST | None) -> bool:
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return False
    return not any(PROPERTY.match(ast.unparse(each)) for each in node.decorator_list)


def faults(source: str) -> list[str]:
    """Return the docstrings that break a rule, each with its line and the rule."""
    found = []
    for line, node, first in docstrings(source):
        if QUESTION.match(first):
            found.append(f"line {line} opens with a question word: {first}")
        elif is_function(node) and THIRD_PERSON.match(first):
            found.append(f"line {line} is not imperative: {first}")
    return found


def test_docstrings_keep_the_rules():
    found = {}
    for folder in (PACKAGE, ROOT / "benchmarks"):
        for path in folder.rglob("*.py"):
            found[path.relative_to(folder.parent)] = faults(path.read_text(encoding="utf-8"))
    assert {path: each for path, each in found.items() if each} == {}


def test_faults_are_found():
    source = '''
"""What is here."""

class Link:
    """A link."""

    size: int
    """How many bytes it holds."""

    def wake(self):
        """Wakes a task."""

    async def close(self):
        """Process and close all of it."""

    @property
    def name(self):
        """Names of all."""
'''
    assert [each.partition(":")[0] for each in faults(source)] == [
        "line 2 opens with a question word",
        "line 8 opens with a question word",
        "line 11 is not imperative",
    ]
