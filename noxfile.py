"""Sessions that check this project: ``python -m nox -s lint tests``; ``python -m nox -l`` lists all."""

from __future__ import annotations

import os
import shutil
import tarfile
from pathlib import Path

import nox

nox.options.sessions = ["lint", "tests"]
nox.options.default_venv_backend = "venv"
nox.needs_version = ">=2024.3.2"

OTHER_PYTHONS = ["3.12", "3.13"]
CLIENT_TESTS = [
    "client",
    "connect",
    "emit_notification",
    "large_request_reply",
    "linked_client",
    "lock",
    "manager_multiple_lines",
    "run_services",
    "services",
    "to_json_attrib",
    "unlink",
]
"""Names of the test modules of msl-network 1.0.0 that test its client."""

FILES_WITH_TESTS = [
    ".pre-commit-config.yaml",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "README.md",
    "noxfile.py",
    "pyproject.toml",
]
"""Files at the top of the repository that tests read."""

SIDE_BY_SIDE = ["-n", str(min(8, 2 * (os.cpu_count() or 1))), "--dist", "worksteal"]
"""Options of pytest-xdist. Many tests wait for processes to start or end, so two workers share a CPU."""


def run_tests(session: nox.Session) -> None:
    """Run the tests against the installed package, in a folder without the source tree."""
    session.install(".[test]")
    here = Path(__file__).parent
    elsewhere = Path(session.create_tmp()) / "away-from-the-source"
    shutil.rmtree(elsewhere, ignore_errors=True)
    for name in (".ci", "tests", "benchmarks", "docs", "changelog.d"):  # the package does not contain these
        shutil.copytree(here / name, elsewhere / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES_WITH_TESTS:
        shutil.copy(here / name, elsewhere)
    session.chdir(elsewhere)
    session.run("python", "-m", "pytest", *SIDE_BY_SIDE, *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check formatting, style and types."""
    session.install(".[lint]")
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")
    session.run("mypy")


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests on the Python that runs nox; ``-- -m slow`` runs those marked as slow."""
    run_tests(session)


@nox.session(name="tests-on", python=OTHER_PYTHONS)
def tests_on(session: nox.Session) -> None:
    """Run the tests on other versions of Python, if installed."""
    run_tests(session)


@nox.session
def coverage(session: nox.Session) -> None:
    """Measure test coverage; tests/protocol and tests/limits must cover their folders completely."""
    session.install("-e", ".[test]")
    pure, others = ["tests/protocol", "tests/limits"], ["--ignore=tests/protocol", "--ignore=tests/limits"]
    session.run("coverage", "run", "-m", "pytest", "-q", *pure)
    included = "--include=*/protocol/*,*/limits/*"
    session.run("coverage", "report", included, "--show-missing", "--fail-under=100")
    session.run("coverage", "run", "--append", "-m", "pytest", "-q", "tests", *others)
    session.run("coverage", "report", "--show-missing")


@nox.session
def minimums(session: nox.Session) -> None:
    """Run the fast tests with the oldest dependencies that pyproject.toml allows."""
    dependencies = nox.project.load_toml("pyproject.toml")["project"]["dependencies"]
    oldest = [dependency.replace(">=", "==") for dependency in dependencies]
    session.install("-e", ".[test]", *oldest)
    session.run("python", "-m", "pytest", *SIDE_BY_SIDE, "-m", "not interop and not slow", *session.posargs)


@nox.session
def changelog(session: nox.Session) -> None:
    """Show the next section of CHANGELOG.md, or write it for the version given after ``--``."""
    project = nox.project.load_toml("pyproject.toml")["project"]
    [towncrier] = [each for each in project["optional-dependencies"]["dev"] if each.startswith("towncrier")]
    session.install(towncrier)
    options = (
        ["--yes", "--version", *session.posargs] if session.posargs else ["--draft", "--version", "next"]
    )
    session.run("python", "-m", "towncrier", "build", *options)


@nox.session
def demo(session: nox.Session) -> None:
    """Run the demo: a Manager with Services over TLS, and a client; ``-- --keep`` keeps it running."""
    session.install(".")
    session.run("python", "-m", "msl_network_trio", "demo", *session.posargs)


@nox.session
def failures(session: nox.Session) -> None:
    """Show failures of the client of msl-network 1.0.0 and of this package side by side."""
    session.install(".[reference]")
    session.run("python", "-m", "tests.failures", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Run the benchmarks against msl-network 1.0.0 and other packages; ``-- --quick`` runs a selection."""
    session.install(".[bench,bench-more]")
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session(name="bench-quick")
def bench_quick(session: nox.Session) -> None:
    """Fail if a change is slower than a recorded floor: ratios of CPU times in the same run, on one CPU."""
    session.install(".[bench]")
    session.run("python", "-m", "benchmarks", "guard", *session.posargs)


@nox.session(name="reference-tests")
def reference_tests(session: nox.Session) -> None:
    """Run the client tests of msl-network 1.0.0 with the blocking API; downloads its source distribution."""
    session.install("-e", ".[test]")
    here = Path(__file__).parent
    folder = Path(session.create_tmp()).resolve() / "client-tests"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    download = ["download", "msl-network==1.0.0", "--no-binary", "msl-network", "--no-deps", "--dest", folder]
    session.run("python", "-m", "pip", *download)
    with tarfile.open(next(folder.glob("*.tar.gz"))) as distribution:
        distribution.extractall(folder, filter="data")
    for name in CLIENT_TESTS:
        text = next(folder.glob(f"*/tests/test_{name}.py")).read_text(encoding="utf-8")
        for ours in ("connect", "LinkedClient"):
            text = text.replace(
                f"from msl.network import {ours}\n", f"from msl_network_trio.sync import {ours}\n"
            )
        (folder / f"test_{name}.py").write_text(text, encoding="utf-8")
    shutil.copy(here / "tests" / "interop" / "managers_for_reference_tests.py", folder / "conftest.py")
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")  # hides the settings of this project
    session.chdir(folder)
    files = [f"test_{name}.py" for name in CLIENT_TESTS]
    # These tests keep files in the folder for temporary files.
    environment = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder))
    pytest = ["python", "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", "."]
    session.run(*pytest, *(session.posargs or files), env=environment)


@nox.session
def soak(session: nox.Session) -> None:
    """Load Managers with all kinds of peers and check for leaks, for an hour or ``-- SECONDS``."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "tests.soak", *session.posargs)


@nox.session
def chaos(session: nox.Session) -> None:
    """Inject faults into networks and processes, with both Managers, until 10,000 faults; ``-- --help``."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "tests.chaos", *session.posargs)


@nox.session
def interrupts(session: nox.Session) -> None:
    """Raise exceptions at every step of every operation (the tests take a sample); takes ten minutes."""
    session.install("-e", ".[test]")
    files = [f"tests/{each}/test_interrupts.py" for each in ("client", "service", "sync")]
    command = ["python", "-m", "pytest", *SIDE_BY_SIDE, "--timeout", "3600", *files, *session.posargs]
    session.run(*command, env={"EVERY_STEP": "1"})


@nox.session
def fuzz(session: nox.Session) -> None:
    """Feed random bytes to the Manager's protocol, guided by coverage, for a minute or ``-- SECONDS``."""
    session.install("-e", ".[test,fuzz]")
    session.run("python", "-m", "tests.fuzz", *session.posargs)
