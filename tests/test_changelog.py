"""Tests of the changelog: fragments are well-formed and are collected by the configured tool."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "changelog.d"
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["towncrier"]
TYPES = [each["directory"] for each in SETTINGS["type"]]
NAME = re.compile(rf"(\d+|\+[a-z0-9-]+)\.({'|'.join(TYPES)})(\.\d+)?\.md")


def fault(name: str, text: str) -> str:
    """Return what is wrong with a fragment; empty if it is well-formed."""
    if NAME.fullmatch(name) is None:
        return "the name is not ISSUE.TYPE.md or +SLUG.TYPE.md"  # towncrier would ignore the file
    if not re.fullmatch(r"[A-Z`].*[.)]\n", text, re.DOTALL):
        return "the content is not a paragraph of full sentences"
    if "\n\n" in text:
        return "the content has more than one paragraph"
    if max(map(len, text.splitlines())) > 140:
        return "a line is longer than 140 characters"
    return ""


def test_fragments_are_well_formed():
    faults = {
        path.name: fault(path.name, path.read_text(encoding="utf-8"))
        for path in FOLDER.iterdir()
        if path.name != "README.md"
    }
    assert {name: wrong for name, wrong in faults.items() if wrong} == {}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("15.changed.md", "`connect` accepts a path.\n"),
        ("15.changed.2.md", "Texts are\nshown (escaped).\n"),
        ("+file-names.fixed.md", "Names may have spaces (see the README)\n"),
    ],
)
def test_well_formed_fragments_are_accepted(name, text):
    assert fault(name, text) == ""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("15.md", "A sentence.\n"),
        ("15.improved.md", "A sentence.\n"),
        ("names.fixed.md", "A sentence.\n"),
        ("15.fixed.rst", "A sentence.\n"),
        ("15.fixed.md", ""),
        ("15.fixed.md", "- A bullet.\n"),
        ("15.fixed.md", "A sentence without an end\n"),
        ("15.fixed.md", "A line without an end."),
        ("15.fixed.md", "A paragraph.\n\nAnother one.\n"),
        ("15.fixed.md", "A" * 140 + ".\n"),
    ],
)
def test_malformed_fragments_are_refused(name, text):
    assert fault(name, text)


def test_the_page_describes_every_type():
    assert re.findall(r"(?m)^\| `(\w+)` \|", (FOLDER / "README.md").read_text(encoding="utf-8")) == TYPES


def test_the_changelog_has_the_marker_once_in_front_of_the_newest_section():
    text = (ROOT / SETTINGS["filename"]).read_text(encoding="utf-8")
    before, after = text.split(SETTINGS["start_string"])
    assert "\n## " not in before
    assert after.lstrip().startswith("## ")


def test_the_tool_collects_fragments(tmp_path):
    pytest.importorskip("towncrier")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / SETTINGS["directory"]).mkdir()
    (tmp_path / SETTINGS["directory"] / "15.added.md").write_text("A feature.\n", encoding="utf-8")
    (tmp_path / SETTINGS["directory"] / "+slug.fixed.md").write_text("A bug.\n", encoding="utf-8")
    (tmp_path / SETTINGS["filename"]).write_text(SETTINGS["start_string"] + "\n## 0.1\n", encoding="utf-8")
    command = [sys.executable, "-m", "towncrier", "build", "--draft", "--version", "0.2"]
    built = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert re.search(
        r"## 0\.2 \(.*\)\n\n### Added\n\n- A feature\. \(issue 15\)\n\n### Fixed\n\n- A bug\.\n", built.stdout
    )
