"""What is run to check this project: ``python -m nox -s lint tests``; ``python -m nox -l`` lists all."""

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
"""Those of msl-network 1.0.0 that are about its client."""

SIDE_BY_SIDE = ["-n", str(min(8, 2 * (os.cpu_count() or 1))), "--dist", "worksteal"]
"""Many tests wait for a process to start or to end, so there are more at a time than processors."""


def run_tests(session: nox.Session) -> None:
    """Install the package as a user would, and run the tests against it and not against the source tree."""
    session.install(".[test]")
    here = Path(__file__).parent
    elsewhere = Path(session.create_tmp()) / "away-from-the-source"
    shutil.rmtree(elsewhere, ignore_errors=True)
    for name in ("tests", "benchmarks", "docs"):  # of which the latter are not in the package, but have tests
        shutil.copytree(here / name, elsewhere / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(here / name, elsewhere)
    session.chdir(elsewhere)
    session.run("python", "-m", "pytest", *SIDE_BY_SIDE, *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check the format, the style and the types."""
    session.install(".[lint]")
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")
    session.run("mypy")


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests on the Python that runs nox; those that are marked as slow with ``-- -m slow``."""
    run_tests(session)


@nox.session(name="tests-on", python=OTHER_PYTHONS)
def tests_on(session: nox.Session) -> None:
    """Run the tests on another Python, if it is there."""
    run_tests(session)


@nox.session
def coverage(session: nox.Session) -> None:
    """Measure what the tests cover; the protocol has to be covered by its own tests alone."""
    session.install("-e", ".[test]")
    session.run("coverage", "run", "-m", "pytest", "tests/protocol", "-q")
    session.run("coverage", "report", "--include=*/protocol/*", "--show-missing", "--fail-under=100")
    session.run("coverage", "run", "--append", "-m", "pytest", "tests", "-q", "--ignore=tests/protocol")
    session.run("coverage", "report", "--show-missing")


@nox.session
def minimums(session: nox.Session) -> None:
    """Run the fast tests with the oldest releases that pyproject.toml allows."""
    dependencies = nox.project.load_toml("pyproject.toml")["project"]["dependencies"]
    oldest = [dependency.replace(">=", "==") for dependency in dependencies]
    session.install("-e", ".[test]", *oldest)
    session.run("python", "-m", "pytest", *SIDE_BY_SIDE, "-m", "not interop and not slow", *session.posargs)


@nox.session
def demo(session: nox.Session) -> None:
    """Start a Manager with Services over TLS, and use them; options such as ``--keep`` behind ``--``."""
    session.install(".")
    session.run("python", "-m", "msl_network_trio", "demo", *session.posargs)


@nox.session
def failures(session: nox.Session) -> None:
    """Show how the client of msl-network 1.0.0 and ours fail, side by side."""
    session.install(".[reference]")
    session.run("python", "-m", "tests.failures", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Compare with msl-network 1.0.0 and others; options such as ``--quick`` behind ``--``."""
    session.install(".[bench,bench-more]")
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session(name="bench-quick")
def bench_quick(session: nox.Session) -> None:
    """Fail if a change has broken a floor that is recorded: same-run ratios of CPU times, on one CPU."""
    session.install(".[bench]")
    session.run("python", "-m", "benchmarks", "guard", *session.posargs)


@nox.session(name="reference-tests")
def reference_tests(session: nox.Session) -> None:
    """Run the client tests of msl-network 1.0.0, from its source distribution, with our blocking API."""
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
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")  # or the settings of this project hold
    session.chdir(folder)
    files = [f"test_{name}.py" for name in CLIENT_TESTS]
    # They keep files in the folder for temporary ones.
    environment = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder))
    pytest = ["python", "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", "."]
    session.run(*pytest, *(session.posargs or files), env=environment)


@nox.session
def soak(session: nox.Session) -> None:
    """Load Managers with all sorts of peers, for an hour or the seconds behind ``--``, and see what stays."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "tests.soak", *session.posargs)


@nox.session
def interrupts(session: nox.Session) -> None:
    """Raise exceptions at every step of every operation, where the tests take a sample; takes ten minutes."""
    session.install("-e", ".[test]")
    files = ["tests/client/test_interrupts.py", "tests/sync/test_interrupts.py"]
    command = ["python", "-m", "pytest", *SIDE_BY_SIDE, "--timeout", "3600", *files, *session.posargs]
    session.run(*command, env={"EVERY_STEP": "1"})


@nox.session
def fuzz(session: nox.Session) -> None:
    """Feed the Manager's protocol with bytes, guided by what they reach, for a minute or as ``--`` says."""
    session.install("-e", ".[test,fuzz]")
    session.run("python", "-m", "tests.fuzz", *session.posargs)
