"""The public names of msl-network 1.0.0, from its source code and its command line."""

from __future__ import annotations

import argparse
import ast
from pathlib import Path

import msl.network
from msl.network.cli import configure_parser


def _targets(node: ast.stmt) -> list[ast.expr]:
    if isinstance(node, ast.Assign):
        return node.targets
    return [node.target] if isinstance(node, ast.AnnAssign) else []


def _defined(body: list[ast.stmt]) -> list[str]:
    """Return the names that statements define, in branches too, without imported ones."""
    names: list[str] = []
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.If | ast.Try):
            branches = [node.body, node.orelse, getattr(node, "finalbody", [])]
            branches += [handler.body for handler in getattr(node, "handlers", [])]
            names += [name for branch in branches for name in _defined(branch)]
        else:
            names += [target.id for target in _targets(node) if isinstance(target, ast.Name)]
    return names


def _attributes(class_: ast.ClassDef) -> list[str]:
    """Return the names that a class defines, and those that its methods set on `self`."""
    names = _defined(class_.body)
    for node in ast.walk(class_):
        for target in _targets(node) if isinstance(node, ast.stmt) else []:
            for each in target.elts if isinstance(target, ast.Tuple) else [target]:
                if isinstance(each, ast.Attribute) and ast.unparse(each.value) == "self":
                    names.append(each.attr)
    return names


def names() -> list[tuple[str, str]]:
    """Return all pairs of a module and a public name in it; names in a class have a dot."""
    found: dict[tuple[str, str], None] = {}
    for path in sorted(Path(msl.network.__file__).parent.glob("*.py")):
        module = "msl.network" if path.stem == "__init__" else f"msl.network.{path.stem}"
        tree = ast.parse(path.read_text(encoding="utf-8"))
        listed = _defined(tree.body)
        if path.stem == "__init__":  # programs import from it what it imports
            imported = (node for node in tree.body if isinstance(node, ast.ImportFrom) and node.level)
            listed += [alias.name for node in imported for alias in node.names]
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                listed += [f"{node.name}.{name}" for name in _attributes(node)]
        for name in listed:
            if not any(part.startswith("_") for part in name.split(".")):
                found[module, name] = None
    return list(found)


def commands() -> dict[str, list[list[str]]]:
    """Return the commands of ``msl-network``, "" for itself, with their options; aliases are grouped."""
    found: dict[str, list[list[str]]] = {}

    def add(parser: argparse.ArgumentParser, command: str) -> None:
        found[command] = []
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for name, each in action.choices.items():
                    add(each, f"{command} {name}".strip())
            elif action.option_strings:
                found[command].append(action.option_strings)
            else:
                found[command].append([action.dest])

    add(configure_parser(), "")
    return found
