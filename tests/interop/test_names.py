"""Tests of docs/names.md: it lists all public names of msl-network, and its replacements exist."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from pkgutil import resolve_name

import attrs
import pytest

from msl_network_trio.cli.main import build_parser

pytestmark = pytest.mark.interop

PAGE = Path(__file__).parents[2] / "docs" / "names.md"
COMMAND = "msl-network-trio"


@attrs.frozen
class Row:
    """A row of a table, with the modules that the text before the table names."""

    modules: tuple[str, ...]
    owner: str
    """The class or command before a colon."""
    old: tuple[str, ...]
    new: tuple[str, ...]
    is_same: bool
    is_none: bool
    why: str


def quoted(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def rows() -> list[Row]:
    found, modules, in_table = [], (), False
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if not line.startswith("|"):
            names = tuple(name for name in quoted(line) if re.fullmatch(r"msl[.-]network(\.\w+)*", name))
            # A paragraph may have several lines; a heading starts a new one.
            modules = names if line.startswith("#") or in_table else modules + names
            in_table = False
            continue
        in_table = True
        if not line.startswith(("| before", "|---")):
            old, new, why = (cell.strip() for cell in line.strip("|").split("|"))
            owner = re.match(r"`([^`]+)`:", old)
            names = quoted(old)
            found.append(
                Row(
                    modules,
                    owner[1] if owner else "",
                    tuple(names[1:] if owner else names),
                    tuple(quoted(new)),
                    "the same names" in new,
                    new == "none",
                    why,
                )
            )
    return found


def listed() -> set[tuple[str, str]]:
    names = set()
    for row in rows():
        for module in row.modules:
            if row.owner:
                names.add((module, row.owner))
            names |= {(module, f"{row.owner}.{name}" if row.owner else name) for name in row.old}
    return names


def parsers() -> dict[str, argparse.ArgumentParser]:
    parser = build_parser()
    [subparsers] = [each for each in parser._actions if isinstance(each, argparse._SubParsersAction)]
    return {"": parser, **subparsers.choices}


@pytest.mark.filterwarnings("ignore")
def test_every_name_of_msl_network_is_listed():
    from tests.interop.reference_names import names

    wanted = set(names())
    assert len(wanted) > 150
    assert sorted(wanted - listed()) == []


@pytest.mark.filterwarnings("ignore")
def test_what_is_listed_is_a_name_of_msl_network():
    from tests.interop.reference_names import names

    of_python = {name for name in listed() if not name[0].startswith("msl-")}
    # In the table of the command line's modules, a name belongs to some of them only.
    shared = {module for module, _ in of_python if module.startswith("msl.network.cli_")}
    there = set(names())
    wrong = {(module, name) for module, name in of_python - there if module not in shared}
    wrong |= {
        (module, name) for module, name in of_python if module in shared and name not in {n for _, n in there}
    }
    assert sorted(wrong) == []


@pytest.mark.filterwarnings("ignore")
def test_every_command_and_option_is_listed_and_has_the_place_that_is_named():
    from tests.interop.reference_names import commands

    ours = parsers()
    table = {
        row.owner.removeprefix("msl-network").strip(): row for row in rows() if row.owner.startswith("msl-")
    }
    assert table.keys() == commands().keys()
    for command, options in commands().items():
        row = table[command]
        assert set(row.old) == {each for option in options for each in option}, command
        [new] = row.new
        parser = ours[new.removeprefix(COMMAND).strip()]
        strings = {string for action in parser._actions for string in action.option_strings}
        assert {each for each in row.old if each.startswith("-")} <= strings, command
        positional = [action for action in parser._actions if not action.option_strings and command]
        assert len(positional) == sum(not each.startswith("-") for each in row.old), command


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row.modules[0]}-{row.owner or row.old[0]}")
def test_the_new_places_exist(row):
    if row.is_none:
        assert row.why, "none, and why?"
        return
    assert row.new
    for place in row.new:
        if place.startswith(COMMAND):
            assert place.removeprefix(COMMAND).strip() in parsers()
        else:
            resolve_name(place)
    if row.is_same:
        [place] = row.new
        found = resolve_name(place)
        assert [name for name in row.old if not hasattr(found, name)] == []
    for place in quoted(row.why):
        if re.fullmatch(r"msl_network_trio(\.\w+)+", place):
            resolve_name(place)
