"""Settings and fixtures of all tests."""

import gc
import importlib
import os
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import settings

from msl_network_trio.logger import failures

# Without a deadline: a busy machine must not fail a test that checks values, not times.
settings.register_profile("dev", deadline=None, print_blob=True, max_examples=25)
settings.register_profile("ci", deadline=None, print_blob=True, max_examples=100)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session):
    """Import first a different share of the test modules in each worker of pytest-xdist.

    Pytest rewrites the assertions of a module at its first import, and saves the result. Workers that import
    all modules in the same order each rewrite all of them, which takes 8 s of CPU time per worker.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if workers == 1 or sys.dont_write_bytecode:
        return
    root = Path(__file__).parents[1]
    chosen = [
        (session.config.invocation_params.dir / each.partition("::")[0]) for each in session.config.args
    ]
    paths = sorted(path for path in root.glob("tests/**/test_*.py") if any(map(path.is_relative_to, chosen)))
    for path in paths[int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw")) :: workers]:
        try:
            importlib.import_module(".".join(path.relative_to(root).with_suffix("").parts))
        except (Exception, pytest.skip.Exception):
            pass  # the collection reports it


def pytest_collection_finish():
    """Exclude the collected tests from garbage collection: many tests collect, in 0.3 s each with 10,000 tests."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def no_traces(tmp_path_factory):
    """Redirect the files of Managers and clients away from the user's home folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MSL_NETWORK_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture
def ignored_interrupts(monkeypatch):
    """Ignore exceptions that a test injects into callbacks of the interpreter, which cannot propagate.

    The interpreter calls them at any step, when an object with a weak reference is freed or by the garbage
    collector. Pytest would report them as errors.
    """
    report = sys.unraisablehook

    def hook(unraisable):
        error = unraisable.exc_value
        is_ours = type(error).__module__.startswith("tests.")
        # A coroutine that was interrupted before its await may be collected in a later test.
        is_left = isinstance(error, RuntimeWarning) and "was never awaited" in str(error)
        if not (is_ours or is_left or isinstance(error, KeyboardInterrupt | SystemExit | TimeoutError)):
            report(unraisable)

    monkeypatch.setattr(sys, "unraisablehook", hook)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Return the home folder of Managers and clients for this test; it does not exist yet."""
    folder = tmp_path / "home"
    monkeypatch.setenv("MSL_NETWORK_HOME", str(folder))
    return folder


# A shell ignores SIGINT in background jobs, and nohup SIGHUP; the child processes of tests would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def records_are_written():
    """Fail a test in which a log record could not be written: the loggers of the package never raise."""
    before = failures.count
    yield
    assert failures.count == before, "see the traceback on standard error"
