"""Tests of what contributors use: CONTRIBUTING.md, the pre-commit configuration and the nox sessions agree."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
HOOKS = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")


def sessions() -> dict[str, ast.FunctionDef]:
    """Return the functions of the nox sessions by the names of the sessions."""
    found = {}
    for node in ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            for decorator in node.decorator_list:
                if ast.unparse(decorator).startswith("nox.session"):
                    name = re.search(r"name='([^']+)'", ast.unparse(decorator))
                    found[name[1] if name else node.name] = node
    return found


def test_the_page_lists_every_session_of_nox():
    table = PAGE.split("| session of `nox` |")[1].split("\n\n")[0]
    listed = re.findall(r"`([a-z-]+)`", "".join(re.findall(r"(?m)^\| ([^|]+) \|", table)))
    assert sorted(listed) == sorted(sessions())


def test_the_sessions_that_are_named_exist():
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md")]:
        for match in re.finditer(r"\bnox (?:-R )?-s ((?:[a-z][a-z-]* ?)+)", path.read_text(encoding="utf-8")):
            assert set(match[1].split()) <= sessions().keys(), (path.name, match[0])


def test_the_hooks_run_the_tools_of_the_session_lint():
    lint = ast.unparse(sessions()["lint"])
    for tool in ("'ruff', 'format'", "'ruff', 'check'", "'mypy'"):
        assert tool in lint
    entries = re.findall(r"entry: python -m (.+)", HOOKS)
    assert [each.removesuffix(" --force-exclude") for each in entries][:3] == [
        "ruff format",
        "ruff check",
        "mypy",
    ]


@pytest.mark.parametrize(
    ("message", "is_accepted"),
    [
        ("Name things\n", True),
        ("x" * 72, True),
        (
            "x" * 72 + "\n\nThe reason, which may be as long as it has to be, in lines of any length." * 2,
            True,
        ),
        ("x" * 73, False),
        ("x" * 73 + "\n\nThe reason.\n", False),
        ("\n\nThe reason.\n", False),
    ],
)
def test_the_hook_for_messages_limits_the_subject(message, is_accepted):
    pattern = re.search(r"id: commit-subject\n(?:.*\n)*?\s+entry: (.+)", HOOKS)[1]
    assert (re.search(pattern, message, re.MULTILINE) is not None) == is_accepted


def test_no_file_names_a_path_of_one_computer():
    folders = "|".join(["home/(?!pi/)[a-z]", "Users/[A-Za-z]", "root/", "work/", "mnt/"])
    pattern = re.compile(rf"(?<![\w.~/:}}-])/(?:{folders})")
    found = []
    for suffix in ("*.md", "*.py", "*.toml", "*.yaml", "*.js", "*.mjs", "*.html"):
        for path in ROOT.rglob(suffix):
            if not {".nox", ".venv", "venv", "build", "dist"} & set(path.relative_to(ROOT).parts):
                text = path.read_text(encoding="utf-8")
                found += [f"{path.relative_to(ROOT)}: {match[0]}" for match in pattern.finditer(text)]
    assert [each for each in found if not each.startswith("tests/test_contributing.py")] == []


def test_the_extras_that_are_named_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "optional-dependencies"
    ]
    [named] = re.findall(r'pip install -e "\.\[([a-z,]+)\]"', PAGE)
    assert set(named.split(",")) <= extras.keys()


def test_the_files_that_are_linked_exist():
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", PAGE):
        assert (ROOT / target).exists(), target


def test_the_files_with_examples_of_hypothesis_are_run_with_all_of_them():
    last = (ROOT / ".ci" / "run").read_text(encoding="utf-8").rstrip().splitlines()[-1]
    assert "HYPOTHESIS_PROFILE=ci" in last
    named = [ROOT / each for each in last.split() if each.startswith("tests/")]
    assert [path for path in named if not path.exists()] == []
    for path in (ROOT / "tests").rglob("test_*.py"):
        if path != Path(__file__) and re.search(
            r"(?m)^from hypothesis import", path.read_text(encoding="utf-8")
        ):
            assert any(path.is_relative_to(each) for each in named), path


def test_the_sessions_that_ci_runs_exist():
    text = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert set(re.findall(r"nox (?:-R )?-s ([a-z-]+)", text)) <= sessions().keys()
