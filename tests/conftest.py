"""Settings that all tests share."""

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
    """Keep what Managers write, their database for example, away from the user's own folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MSL_NETWORK_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture
def ignored_interrupts(monkeypatch):
    """Let Python ignore exceptions that a test raises in callbacks of the interpreter: it can do nothing else.

    These are called between any two steps: when an object is freed that has a weak reference, or by the garbage
    collector. Pytest would take what is ignored there for a fault.
    """
    report = sys.unraisablehook

    def hook(unraisable):
        error = unraisable.exc_value
        is_ours = type(error).__module__.startswith("tests.")
        # What was interrupted in front of its await may be collected in a later test.
        is_left = isinstance(error, RuntimeWarning) and "was never awaited" in str(error)
        if not (is_ours or is_left or isinstance(error, KeyboardInterrupt | SystemExit | TimeoutError)):
            report(unraisable)

    monkeypatch.setattr(sys, "unraisablehook", hook)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The folder in which this test has Managers and clients keep what they save; it does not exist yet."""
    folder = tmp_path / "home"
    monkeypatch.setenv("MSL_NETWORK_HOME", str(folder))
    return folder


# A shell that runs us in the background has Ctrl-C ignored, which the processes that we start would inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def records_are_written():
    """Fail a test in which a record could not be written, since the loggers of the package never raise."""
    before = failures.count
    yield
    assert failures.count == before, "see the traceback on standard error"
