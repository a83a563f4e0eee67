"""Settings and fixtures of all tests."""

import os
import signal
import sys

import pytest
from hypothesis import settings

from msl_network_trio.logger import failures

# Without a deadline: a busy machine must not fail a test that checks values, not times.
settings.register_profile("dev", deadline=None, print_blob=True, max_examples=25)
settings.register_profile("ci", deadline=None, print_blob=True, max_examples=100)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


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
