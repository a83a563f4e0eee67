"""Tests of `msl_network_trio.signals`: the signals that are handled, the first and the second one."""

from __future__ import annotations

import contextlib
import os
import signal
import threading

import pytest
import trio

from msl_network_trio import signals as module
from msl_network_trio.signals import pass_on_interrupt, stop_signals

NUMBERS = [number for name in module._NAMES if (number := getattr(signal, name, None)) is not None]


@pytest.fixture(autouse=True)
def restored():
    before = {number: signal.getsignal(number) for number in NUMBERS}
    yield
    assert {number: signal.getsignal(number) for number in NUMBERS} == before


def handlers():
    return [signal.getsignal(number) for number in NUMBERS]


@pytest.mark.parametrize("number", NUMBERS)
def test_the_first_signal_calls_the_function_in_the_trio_thread(number):
    async def main():
        stopped = trio.Event()
        signals.on_stop(stopped.set)
        signal.raise_signal(number)
        await stopped.wait()

    with stop_signals() as signals:
        trio.run(main)
        assert signals.received == number
        hangup = getattr(signal, "SIGHUP", None)
        for each in NUMBERS:
            if each != hangup:
                assert signal.getsignal(each) is signal.SIG_DFL, "the next one ends the process"


def test_a_signal_that_came_before_counts():
    async def main():
        stopped = trio.Event()
        signals.on_stop(stopped.set)
        await stopped.wait()

    with stop_signals() as signals:
        signal.raise_signal(signal.SIGTERM)
        trio.run(main)


def test_a_signal_that_comes_after_the_end_does_nothing():
    async def main():
        signals.on_stop(lambda: None)

    with stop_signals() as signals:
        trio.run(main)
        signal.raise_signal(signal.SIGTERM)
        assert signals.received == signal.SIGTERM


@pytest.mark.parametrize("number", NUMBERS)
def test_signals_with_which_somebody_has_other_plans_are_left_alone(number):
    calls = []
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with stop_signals():
            assert signal.getsignal(number) is signal.SIG_IGN
        assert signal.getsignal(number) is signal.SIG_IGN
        signal.signal(number, handler := lambda number, _: calls.append(number))
        with stop_signals() as signals:
            signal.raise_signal(number)
        assert calls == [number]
        assert signals.received is None
        assert signal.getsignal(number) is handler
    finally:
        signal.signal(number, before)


@pytest.fixture
def raising():
    """Install a handler of the program that raises an exception."""
    before = signal.getsignal(signal.SIGTERM)

    def install(error):
        def handler(*_):
            raise error

        signal.signal(signal.SIGTERM, handler)
        return handler

    yield install
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), TimeoutError("late")])
def test_what_a_handler_of_the_program_raises_is_raised_when_all_has_ended(error, raising):
    handler = raising(error)
    done = []

    @trio.lowlevel.enable_ki_protection
    async def main():
        stopped = trio.Event()
        signals.on_stop(stopped.set)
        signal.raise_signal(signal.SIGTERM)
        await stopped.wait()
        done.append(True)

    with pytest.raises(type(error)) as raised, stop_signals() as signals:
        trio.run(main)
    assert raised.value is error
    assert done
    assert signal.getsignal(signal.SIGTERM) is handler


@pytest.mark.parametrize("error", [SystemExit(3), TimeoutError("late")])
def test_in_code_of_the_user_it_is_raised_where_it_is_and_ends_what_ends_programs(error, raising):
    raising(error)

    @trio.lowlevel.disable_ki_protection
    def compute():
        with pytest.raises(type(error)):
            signal.raise_signal(signal.SIGTERM)

    @trio.lowlevel.enable_ki_protection
    async def main():
        stopped = trio.Event()
        signals.on_stop(stopped.set)
        compute()
        if isinstance(error, SystemExit):
            await stopped.wait()

    with contextlib.suppress(SystemExit), stop_signals() as signals:
        trio.run(main)
    assert signals.raised is (error if isinstance(error, SystemExit) else None)


def test_the_second_one_does_not_wait_for_an_end_in_order(raising):
    raising(SystemExit(3))

    @trio.lowlevel.enable_ki_protection
    async def main():
        signals.on_stop(lambda: None)
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(SystemExit):
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(SystemExit), stop_signals() as signals:
        trio.run(main)


def test_a_handler_that_is_set_meanwhile_stays():
    def handler(*_):
        pass

    before = signal.getsignal(signal.SIGTERM)
    with stop_signals():
        signal.signal(signal.SIGTERM, handler)
    assert signal.getsignal(signal.SIGTERM) is handler
    signal.signal(signal.SIGTERM, before)


def test_in_another_thread_nothing_is_taken_over():
    found = []

    def work():
        with stop_signals() as signals:
            found.extend([handlers(), signals.received])

    before = handlers()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [before, None]


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="there is no SIGHUP")
@pytest.mark.parametrize("first", ["SIGHUP", "SIGTERM"])
def test_a_hangup_right_behind_another_signal_is_the_same(first, monkeypatch):
    now, raised = 100.0, []
    monkeypatch.setattr(module, "monotonic", lambda: now)
    with stop_signals() as signals:
        signal.raise_signal(getattr(signal, first))
        signal.raise_signal(signal.SIGHUP)
        assert signals.received == getattr(signal, first)
        now += module._SAME_HANGUP
        with monkeypatch.context() as patch:
            patch.setattr(signal, "raise_signal", raised.append)
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
    assert raised == [signal.SIGHUP]


@pytest.mark.parametrize("interrupt", [True, False])
@pytest.mark.parametrize("protected", [True, False])
def test_ctrl_c_interrupts_only_code_that_is_not_protected(interrupt, protected):
    def compute():
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            return True
        return False

    async def main():
        stopped = trio.Event()
        signals.on_stop(stopped.set)
        protect = trio.lowlevel.enable_ki_protection if protected else trio.lowlevel.disable_ki_protection
        assert protect(compute)() is (interrupt and not protected)
        await stopped.wait()
        pass_on_interrupt()  # which has arrived already

    with stop_signals(interrupt=interrupt) as signals:
        trio.run(main)


def test_an_interrupt_of_the_users_own_is_passed_on():
    async def main():
        stopped = trio.Event()
        signals.on_stop(stopped.set)
        pass_on_interrupt()
        await stopped.wait()

    with stop_signals(interrupt=True) as signals:
        trio.run(trio.lowlevel.enable_ki_protection(main))
    with pytest.raises(KeyboardInterrupt):
        pass_on_interrupt()


def test_in_a_process_that_was_forked_signals_do_what_they_did_before(monkeypatch):
    with stop_signals() as signals:
        monkeypatch.setattr(os, "getpid", lambda: -1)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert signals.received is None
