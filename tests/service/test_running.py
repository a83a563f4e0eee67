"""The life of a Service: its start, the tasks beside it, and each way in which it ends."""

from __future__ import annotations

import functools
import logging
import signal
import threading
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from msl_network_trio import AuthenticationError, ConnectError, ConnectionLost, ConnectTimeout, Service
from msl_network_trio.service import connection as connection_module
from msl_network_trio.service import dispatcher
from tests.patience import PATIENCE

from .peer import Peer, running


class Instrument(Service):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            name="Service",
            ignore_attributes=["gate", "entered", "async_gate", "ended"],
            **{"max_workers": 2, **kwargs},
        )
        self.gate = threading.Event()
        self.entered = threading.Semaphore(0)
        self.async_gate = trio.Event()
        self.ended = 0

    def shutdown_handler(self):
        self.ended += 1

    async def at_once(self, x=None):
        return x

    def plain(self, x=None):
        return x

    def pass_on(self, x):
        self.entered.release()
        self.gate.wait()
        return self.at_once(x)

    def wait(self, result=None):
        self.entered.release()
        self.gate.wait()
        return result

    async def async_wait(self, result=None):
        await self.async_gate.wait()
        return result

    async def stubborn(self):
        with trio.CancelScope(shield=True):
            await self.async_gate.wait()


class Stoppable(Instrument):
    def shutdown_service(self, *args):
        return ["bye", *args]


class AsyncStoppable(Instrument):
    async def shutdown_service(self, *args):
        await trio.lowlevel.checkpoint()
        return ["bye", *args]


@pytest.fixture
def service():
    service = Instrument()
    yield service
    service.gate.set()


@pytest.fixture
def brief(monkeypatch):
    """Shorten the time limits of the end: threads do not run by a fake clock."""
    monkeypatch.setattr(connection_module, "GRACE", 0.2)
    monkeypatch.setattr(connection_module, "GOODBYE", 0.2)


async def entered(service: Instrument) -> None:
    await trio.to_thread.run_sync(service.entered.acquire)


# ---- the start ----


async def test_start_returns_when_the_manager_has_accepted_the_service(service):
    peer = Peer.over("memory")
    async with trio.open_nursery() as nursery:
        started = trio.Event()

        async def start():
            await nursery.start(functools.partial(service.run, transport=peer.dial))
            started.set()

        nursery.start_soon(start)
        identity = await peer.shake_hands(accept=False)
        assert identity == service.identity()
        await wait_all_tasks_blocked()
        assert not started.is_set()
        assert repr(service) == "<Service Service, not connected>"
        await peer.accept(peer.received[-1]["uid"])
        await started.wait()
        assert repr(service) == "<Service Service manager=localhost:1875 port=0>"
        assert str(service) == "Service[vm:50123]"
        assert service.address_manager == "localhost:1875"
        assert service.port == 0
        assert service.loop_thread_id == threading.get_ident()
        peer.transport.close()
        nursery.cancel_scope.cancel()
    assert service.loop_thread_id is None
    assert str(service) == "Service[vm:50123]"


async def test_before_it_has_run_it_knows_of_no_manager():
    service = Service()
    assert str(service) == "<UNKNOWN>"
    assert repr(service) == "<Service Service, not connected>"
    assert service.address_manager is None
    assert service.port is None
    assert service.loop_thread_id is None
    with pytest.raises(RuntimeError, match="not connected"):
        service.nursery


async def test_the_name_can_be_given_at_the_start(service):
    async with running(service, name="Other") as peer:
        assert peer.received[0]["result"]["name"] == "Other"
        assert service.name == "Other"


@pytest.mark.parametrize("name", ["", 5])
async def test_a_name_is_text(service, name):
    with pytest.raises(TypeError, match="name must be text"):
        await service.run(name=name)


async def test_a_rejection_is_raised_with_what_the_manager_says(service):
    peer = Peer.over("memory")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.run, service)
        await peer.shake_hands(accept=False)
        text = "NameError: A 'Service' service is already running on the Manager"
        await peer.send(
            error=True, message=text, requester="Manager[vm:1]", result=None, traceback=[], uid=""
        )
        peer.transport.close()
        await peer.ended.wait()
    assert isinstance(peer.error, AuthenticationError)
    assert str(peer.error) == text
    assert service.ended == 0, "it was never connected"


async def test_a_manager_that_closes_without_a_word_is_no_connection(service):
    peer = Peer.over("memory")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.run, service)
        await peer.shake_hands(accept=False)
        peer.transport.close()
        await peer.ended.wait()
    assert isinstance(peer.error, ConnectError)


async def test_a_manager_that_falls_silent_is_a_timeout(service, autojump_clock):
    peer = Peer.over("memory")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.run, service)
        await peer.shake_hands(accept=False)
        await peer.ended.wait()
    assert isinstance(peer.error, ConnectTimeout)
    assert "before the Manager accepted our identity" in str(peer.error)
    peer.transport.close()


async def test_to_be_accepted_twice_changes_nothing(service):
    async with running(service) as peer:
        await peer.accept(peer.received[-1]["uid"])
        assert await peer.call("at_once", 1) == 1


async def test_requests_that_come_before_it_is_accepted_are_carried_out(service):
    peer = Peer.over("memory")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.run, service)
        await peer.shake_hands(accept=False)
        barrier = peer.received[-1]["uid"]
        uids = [await peer.request("at_once", 1), await peer.request("plain", 2)]
        await peer.accept(barrier)
        assert {(await peer.answer())["uid"] for _ in uids} == set(uids)
        nursery.cancel_scope.cancel()
        peer.transport.close()


async def test_two_kinds_of_passwords_make_no_sense(service):
    with pytest.raises(ValueError, match='Specify either "?password"? or "?password_manager"? but not both'):
        await service.run(password="a", password_manager="b")
    with pytest.raises(ValueError, match="but not both"):
        await trio.to_thread.run_sync(lambda: service.start(password="a", password_manager="b"))


async def test_it_runs_once_at_a_time(service):
    async with running(service):
        with pytest.raises(RuntimeError, match="runs already"):
            await service.run()
        with pytest.raises(RuntimeError, match="runs already"):
            service.add_tasks(service.at_once)


async def test_private_names_of_a_subclass_are_its_own(service):
    for name in (
        "_is_running",
        "_serving",
        "_ignored",
        "_max_workers",
        "_threads",
        "_send_queue",
        "_nursery",
    ):
        setattr(service, name, object())
    async with running(service) as peer:
        assert await peer.call("plain", 1) == 1


async def test_it_can_run_again(service):
    for count in (1, 2):
        async with running(service) as peer:
            assert await peer.call("plain", 1) == 1
        assert service.ended == count


async def test_start_is_not_for_trio_programs(service):
    with pytest.raises(RuntimeError, match=r"await service\.run"):
        service.start()


# ---- the tasks beside it ----


async def test_tasks_run_while_it_is_connected():
    log = []

    class Beating(Instrument):
        async def _beat(self):
            log.append("began")
            try:
                await trio.sleep_forever()
            finally:
                log.append("ended")

        async def _once(self, word):
            log.append(word)

    service = Beating()
    service.add_tasks(service._beat, service._once("once"))
    async with running(service):
        assert sorted(log) == ["began", "once"]
    assert log[2:] == ["ended"]
    log.clear()
    async with running(service):
        assert log == ["began"], "a coroutine can run just once"


@pytest.mark.parametrize("task", [5, None])
def test_a_task_is_an_async_function_or_a_coroutine(service, task):
    with pytest.raises(TypeError, match="async function or a coroutine"):
        service.add_tasks(task)


async def test_the_nursery_is_for_tasks_of_methods_too():
    class Starting(Instrument):
        async def begin(self):
            self.nursery.start_soon(self._count)

        async def _count(self):
            for number in range(3):
                self.emit_notification(number)
                await trio.lowlevel.checkpoint()

    async with running(Starting()) as peer:
        uid = await peer.request("begin")
        lines = [await peer.answer() for _ in range(4)]
        assert lines[0]["uid"] == uid
        assert [line["result"] for line in lines[1:]] == [[[number], {}] for number in range(3)]


async def test_the_exception_of_a_task_ends_it_and_is_raised_as_it_is(service):
    async def fail():
        await service.async_gate.wait()
        raise ZeroDivisionError("of a task")

    service.add_tasks(fail)
    async with running(service) as peer:
        uid = await peer.request("async_wait")
        await wait_all_tasks_blocked()
        service.async_gate.set()
        answers = [await peer.line()]
        assert answers[0]["uid"] == uid
        await peer.expect_goodbye()
        await peer.ended.wait()
    assert type(peer.error) is ZeroDivisionError
    assert service.ended == 1


async def test_the_exceptions_of_tasks_are_raised_in_a_group(service):
    async def fail(error):
        try:
            await trio.sleep_forever()
        finally:
            raise error

    async def fail_first():
        await service.async_gate.wait()
        raise ZeroDivisionError

    service.add_tasks(functools.partial(fail, ValueError()), fail_first)
    async with running(service) as peer:
        service.async_gate.set()
        await peer.expect_goodbye()
        await peer.ended.wait()
    assert isinstance(peer.error, ExceptionGroup)
    assert {type(error) for error in peer.error.exceptions} == {ValueError, ZeroDivisionError}


# ---- the end: shut down by a client ----


@pytest.mark.parametrize("service_class", [Stoppable, AsyncStoppable])
async def test_a_client_can_shut_it_down(service_class):
    service = service_class()
    async with running(service) as peer:
        assert await peer.call("shutdown_service", 1) == ["bye", 1]
        await peer.expect_goodbye()
        await peer.ended.wait()
    assert peer.error is None
    assert service.ended == 1


async def test_a_service_without_shutdown_service_cannot_be_shut_down(service):
    async with running(service) as peer:
        answer = await peer.fail("shutdown_service")
        assert answer["message"] == "AttributeError: 'Instrument' object has no attribute 'shutdown_service'"
        assert await peer.call("at_once", 1) == 1


async def test_a_shutdown_that_fails_is_none():
    class Refusing(Instrument):
        def shutdown_service(self):
            raise PermissionError("not now")

    async with running(Refusing()) as peer:
        answer = await peer.fail("shutdown_service")
        assert answer["message"] == "PermissionError: not now"
        assert "in shutdown_service" in answer["traceback"][1]
        assert await peer.call("at_once", 1) == 1


async def test_a_shutdown_may_return_something_to_be_awaited():
    class Passing(AsyncStoppable):
        def shutdown_service(self):
            return super().shutdown_service("passed on")

    async with running(Passing()) as peer:
        assert await peer.call("shutdown_service") == ["bye", "passed on"]
        await peer.expect_goodbye()


async def test_a_shutdown_does_not_wait_for_a_free_thread_but_for_methods_at_work():
    service = Stoppable(max_workers=1)
    async with running(service) as peer:
        uids = [await peer.request("wait", 1), await peer.request("async_wait", 2)]
        queued = await peer.request("plain")
        await entered(service)
        assert await peer.call("shutdown_service") == ["bye"]
        refused = await peer.answer()
        assert refused["uid"] == queued, "it has not begun, so it never will"
        assert refused["error"]
        late = await peer.fail("at_once")
        assert "RuntimeError: The 'Service' Service has ended before 'at_once' did" in late["message"]
        service.gate.set()
        service.async_gate.set()
        answers = [await peer.answer() for _ in uids]
        assert {answer["uid"]: answer["result"] for answer in answers} == dict(zip(uids, [1, 2], strict=True))
        await peer.expect_goodbye()


async def test_what_is_still_at_work_after_a_while_is_answered_for(brief, caplog):
    service = Stoppable()
    async with running(service) as peer:
        uids = {await peer.request("wait"), await peer.request("async_wait")}
        await entered(service)
        assert await peer.call("shutdown_service") == ["bye"]
        for _ in range(2):
            answer = await peer.answer()
            uids.remove(answer["uid"])
            assert "has ended before" in answer["message"]
        await peer.expect_goodbye()
        await peer.ended.wait()
    assert "'wait' is still running in its thread" in caplog.text
    service.gate.set()
    assert peer.error is None


# ---- the end: cancelled ----


async def test_when_cancelled_it_answers_everybody_and_says_goodbye(service):
    async with running(service) as peer:
        uids = {await peer.request("async_wait") for _ in range(3)}
        await wait_all_tasks_blocked()
        peer.scope.cancel()
        for _ in range(3):
            answer = await peer.answer()
            uids.remove(answer["uid"])
            assert (
                answer["message"] == "RuntimeError: The 'Service' Service has ended before 'async_wait' did"
            )
        await peer.expect_goodbye()
        await peer.ended.wait()
    assert peer.error is None
    assert service.ended == 1


async def answer_after_cancellation(service: Instrument, attribute: str) -> dict[str, Any]:
    """Return the answer to a request that a thread is handling when the Service is cancelled."""
    async with running(service) as peer:
        uid = await peer.request(attribute, 5)
        await entered(service)
        peer.scope.cancel()
        await wait_all_tasks_blocked()
        service.gate.set()
        answer = await peer.answer()
        assert answer["uid"] == uid
        await peer.expect_goodbye()
    return answer


async def test_when_cancelled_it_lets_plain_methods_end(service):
    answer = await answer_after_cancellation(service, "wait")
    assert answer["result"] == 5


async def test_what_a_thread_hands_over_too_late_is_refused(service):
    answer = await answer_after_cancellation(service, "pass_on")
    assert "has ended before 'pass_on' did" in answer["message"]


async def test_a_callable_that_a_thread_finds_too_late_is_refused():
    class Computed(Instrument):
        @property
        def found(self):
            self.entered.release()
            self.gate.wait()
            return self.plain

    service = Computed()
    service.ignore_attributes("found")  # which would wait in the identity
    answer = await answer_after_cancellation(service, "found")
    assert "has ended before 'found' did" in answer["message"]


def test_what_a_thread_hands_over_when_trio_has_ended_is_dropped(service, brief):
    handed_over = threading.Event()

    class Late(Instrument):
        def pass_on(self):
            self.entered.release()
            self.gate.wait()
            threading.Timer(0.05, handed_over.set).start()
            return self.at_once(5)

    service = Late()

    async def main():
        async with running(service) as peer:
            await peer.request("pass_on")
            await entered(service)
            peer.scope.cancel()

    trio.run(main)
    service.gate.set()
    # A coroutine that is never awaited causes a warning, which is an error in tests.
    assert handed_over.wait(PATIENCE)


@pytest.mark.parametrize("carrier", ["memory", "tcp"])
async def test_a_hung_method_does_not_keep_it_from_ending(service, brief, caplog, carrier):
    async with running(service, carrier) as peer:
        uid = await peer.request("wait")
        await entered(service)
        peer.scope.cancel()
        answer = await peer.answer()
        assert answer["uid"] == uid
        assert answer["error"]
        await peer.expect_goodbye()
        await peer.ended.wait()
    assert "'wait' is still running in its thread" in caplog.text
    # The method ends after the connection; its reply is dropped.
    service.gate.set()


async def test_a_manager_that_does_not_close_the_connection_is_not_waited_for_for_ever(
    service, autojump_clock
):
    async with running(service) as peer:
        peer.scope.cancel()
        await peer.ended.wait()
        assert (await peer.line())["attribute"] == "__disconnect__"
    assert trio.current_time() < 3
    assert peer.error is None


async def test_a_manager_that_does_not_read_is_not_waited_for_for_ever(service, autojump_clock):
    async with running(service, capacity=100) as peer:
        await peer.request("at_once", "x" * 10_000)
        await wait_all_tasks_blocked()
        peer.scope.cancel()
        await peer.ended.wait()
        await trio.testing.wait_all_tasks_blocked()
    assert trio.current_time() < 3


@pytest.mark.parametrize("carrier", ["memory", "tcp"])
@pytest.mark.parametrize("method", ["at_once", "plain"])
async def test_an_answer_that_is_not_taken_to_its_end_is_followed_by_a_reset(service, brief, carrier, method):
    async with running(service, carrier) as peer:
        size = 50_000 if carrier == "memory" else 6_000_000
        for _ in range(4):
            await peer.request(method, "x" * size)
        await wait_all_tasks_blocked(0.05)
        peer.scope.cancel()
        await peer.ended.wait()
        with pytest.raises(ConnectionLost, match="reset"):
            while await peer.transport.receive():
                pass


async def test_an_async_method_that_cannot_be_cancelled_is_answered_for_first(service, autojump_clock):
    async with running(service) as peer:
        uid = await peer.request("stubborn")
        await wait_all_tasks_blocked()
        peer.scope.cancel()
        answer = await peer.answer()
        assert answer["uid"] == uid
        await peer.expect_goodbye()
        assert not peer.ended.is_set()
        service.async_gate.set()
        await peer.ended.wait()


# ---- the end: the Manager has disconnected ----


@pytest.mark.parametrize("how", ["closed", "reset"])
async def test_the_loss_of_the_connection_is_raised(service, how):
    async with running(service) as peer:
        await peer.request("async_wait")
        await wait_all_tasks_blocked()
        if how == "closed":
            peer.transport.close()
        else:
            peer.transport.reset()
        await peer.ended.wait()
    assert type(peer.error) is ConnectionLost
    assert "Manager[localhost:1875]" in str(peer.error)
    assert service.ended == 1


async def test_the_loss_says_why_if_the_manager_did(service):
    async with running(service) as peer:
        await peer.send(error=True, message="ValueError: go away", requester="x", result=None, uid="")
        peer.transport.close()
        await peer.ended.wait()
    assert str(peer.error).endswith("ValueError: go away")


async def test_methods_at_work_are_waited_for_also_then(service, brief, caplog):
    async with running(service) as peer:
        await peer.request("wait")
        await entered(service)
        peer.transport.close()
        await peer.ended.wait()
    assert "'wait' is still running" in caplog.text
    assert isinstance(peer.error, ConnectionLost)


async def test_a_request_that_is_too_long_is_refused(service):
    async with running(service, read_limit=1000) as peer:
        answer = await peer.fail("at_once", "x" * 1000)
        assert await peer.call("at_once", 1) == 1
    assert "read_limit" in answer["message"]


async def test_a_connection_that_cannot_be_written_to_is_lost(service, autojump_clock):
    async with running(service) as peer:
        peer.service_end._outgoing.broken = True
        await peer.request("at_once", 1)
        await peer.ended.wait()
    assert isinstance(peer.error, ConnectionLost)
    assert "Broken pipe" in str(peer.error)


async def test_a_defect_ends_the_connection(service, monkeypatch, caplog):
    async with running(service) as peer:
        monkeypatch.setattr(dispatcher, "look_up", None)
        monkeypatch.setattr(dispatcher, "error_reply", None)
        await peer.request("at_once")
        await peer.ended.wait()
    assert isinstance(peer.error, ConnectionLost)
    assert "failed" in caplog.text


async def test_an_error_in_the_shutdown_handler_is_logged(caplog):
    class Failing(Instrument):
        async def shutdown_handler(self):
            await trio.lowlevel.checkpoint()
            raise ZeroDivisionError("in the handler")

    async with running(Failing()) as peer:
        pass
    assert isinstance(peer.error, ConnectionLost)
    assert "in the handler" in caplog.text


async def test_a_shutdown_handler_that_hangs_is_not_waited_for_for_ever(autojump_clock):
    class Hanging(Instrument):
        async def shutdown_handler(self):
            await trio.sleep_forever()

    async with running(Hanging()):
        pass
    assert trio.current_time() < 3


# ---- the end: Ctrl-C ----


@pytest.mark.parametrize("where", ["in an async method", "in a task", "anywhere"])
def test_ctrl_c_is_raised_after_everybody_was_answered(where):
    lines = []

    class Interrupted(Instrument):
        async def interrupt(self):
            signal.raise_signal(signal.SIGINT)
            await trio.sleep_forever()

    service = Interrupted()

    async def interrupt():
        await trio.lowlevel.checkpoint()
        signal.raise_signal(signal.SIGINT)

    async def main():
        peer = Peer.over("memory")

        async def manage():
            await peer.shake_hands()
            await peer.request("async_wait")
            await wait_all_tasks_blocked()
            if where == "in an async method":
                await peer.request("interrupt")
            elif where == "in a task":
                service.nursery.start_soon(interrupt)
            else:
                trio.lowlevel.current_trio_token().run_sync_soon(signal.raise_signal, signal.SIGINT)
            while "result" in (line := await peer.line()):
                lines.append(line)
            assert line["attribute"] == "__disconnect__"
            peer.transport.close()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(shielded, manage)
            await service.run(transport=peer.dial)

    async def shielded(function):
        with trio.CancelScope(shield=True):
            await function()

    with pytest.raises(BaseExceptionGroup) as caught:
        trio.run(main)
    (error,) = caught.value.exceptions
    assert type(error) is KeyboardInterrupt
    assert "1" in {line["uid"] for line in lines}
    assert all(line["error"] for line in lines)
    assert service.ended == 1


def test_a_second_ctrl_c_ends_the_waiting(caplog):
    """A second Ctrl-C ends a program in which a plain method hangs."""
    service = Instrument()

    async def main():
        peer = Peer.over("memory")

        async def manage():
            await peer.shake_hands()
            await peer.request("wait")
            await entered(service)
            for _ in range(2):
                await wait_all_tasks_blocked()
                signal.raise_signal(signal.SIGINT)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(shielded, manage)
            await service.run(transport=peer.dial)

    @trio.lowlevel.enable_ki_protection
    async def shielded(function):
        with trio.CancelScope(shield=True):
            await function()

    with pytest.raises(BaseExceptionGroup) as caught:
        trio.run(main)
    assert caught.value.subgroup(KeyboardInterrupt) is not None
    service.gate.set()
    assert service.ended == 1


def replace_run(monkeypatch, error):
    async def run(self, **kwargs):
        raise error

    monkeypatch.setattr(Service, "run", run)


def test_start_returns_after_ctrl_c(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    replace_run(monkeypatch, KeyboardInterrupt())
    assert Service().start() is None
    assert "interrupted" in caplog.text


@pytest.mark.parametrize("others", [[], [ValueError("mine")]])
def test_start_returns_after_ctrl_c_in_a_nursery_and_raises_what_else_is_in_it(monkeypatch, others):
    replace_run(monkeypatch, BaseExceptionGroup("nursery", [KeyboardInterrupt(), *others]))
    if others:
        with pytest.raises(BaseExceptionGroup):
            Service().start()
    else:
        assert Service().start() is None


def test_start_raises_if_the_manager_has_gone_so_that_the_exit_status_is_not_0(monkeypatch):
    replace_run(monkeypatch, ConnectionLost("it is gone"))
    with pytest.raises(ConnectionLost, match="it is gone"):
        Service().start()


def test_start_raises_what_keeps_it_from_connecting():
    with pytest.raises(ConnectError):
        Service().start(port=1, disable_tls=True, timeout=0.5)


def test_start_works_if_a_subclass_has_a_method_called_run():
    class Runner(Service):
        def run(self, distance):
            return distance

    with pytest.raises(ConnectError):
        Runner().start(port=1, disable_tls=True, reconnect=False)
