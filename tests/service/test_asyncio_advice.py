"""Code that uses asyncio where Trio runs fails with an error that names what to use instead, and nothing else does."""

from __future__ import annotations

import asyncio
import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import trio

from msl_network_trio import Service, callbacks
from msl_network_trio.asyncio_advice import explain, forget_event_loop
from msl_network_trio.protocol.incoming_requests import IncomingRequest
from msl_network_trio.service.error_reply import error_reply

from .peer import running


class Foreign:
    """An awaitable that Trio does not know; if `hostile`, its repr() raises."""

    def __init__(self, hostile: bool = False) -> None:
        self.hostile = hostile

    def __await__(self):
        yield self

    def __repr__(self) -> str:
        if self.hostile:
            raise ValueError("no repr")
        return "what another event loop understands"


def own_loop_future() -> asyncio.Future:
    loop = asyncio.new_event_loop()
    try:
        return loop.create_future()
    finally:
        loop.close()


async def full() -> asyncio.Queue:
    queue = asyncio.Queue(maxsize=1)
    await queue.put(1)
    return queue


class Uses(Service):
    """Methods that use asyncio, as Services for msl-network have."""

    def __init__(self) -> None:
        super().__init__(name="Service", max_workers=1)

    async def good(self):
        await trio.lowlevel.checkpoint()
        return "good"

    async def sleep(self):
        await asyncio.sleep(0.1)

    async def sleep_0(self):
        await asyncio.sleep(0)

    async def create_task(self):
        coroutine = self.good()
        try:
            await asyncio.create_task(coroutine)
        finally:
            coroutine.close()

    async def get_running_loop(self):
        asyncio.get_running_loop()

    async def event(self):
        await asyncio.Event().wait()

    async def lock(self):
        lock = asyncio.Lock()
        await lock.acquire()
        await lock.acquire()

    async def queue_get(self):
        await asyncio.Queue().get()

    async def queue_put(self):
        await (await full()).put(2)

    async def semaphore(self):
        await asyncio.Semaphore(0).acquire()

    async def wait_for(self):
        coroutine = self.good()
        try:
            await asyncio.wait_for(coroutine, 1)
        finally:
            coroutine.close()

    async def timeout(self):
        async with asyncio.timeout(1):
            pass

    async def to_thread(self):
        await asyncio.to_thread(print)

    async def task_group(self):
        async with asyncio.TaskGroup():
            pass

    async def open_connection(self):
        await asyncio.open_connection("localhost", 1)

    async def subprocess(self):
        await asyncio.create_subprocess_exec("nothing")

    async def future(self):
        await own_loop_future()

    def returns_future(self):
        return own_loop_future()

    async def foreign(self):
        await Foreign()

    async def hostile(self):
        await Foreign(hostile=True)

    async def hostile_later(self):
        await trio.lowlevel.checkpoint()
        await Foreign(hostile=True)

    async def wrapped(self):
        try:
            await asyncio.sleep(1)
        except RuntimeError as error:
            raise OSError("cannot read") from error

    async def in_context(self):
        try:
            await asyncio.sleep(1)
        except RuntimeError:
            raise OSError("cannot read")  # noqa: B904 - as it is mostly written

    async def in_nursery(self):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(asyncio.sleep, 1)

    async def coroutine_for_nursery(self):
        self.nursery.start_soon(self.good())

    async def future_for_nursery(self):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(own_loop_future)

    def get_event_loop(self):
        asyncio.get_event_loop().run_until_complete(self.good())

    async def other_loop(self):
        await self._bound_event.wait()

    async def result_future(self):
        return own_loop_future()

    async def generator(self):
        yield 1


USES = [name for name in vars(Uses) if not name.startswith("_") and name != "good"]
NAMED = {
    "sleep": "trio.sleep",
    "sleep_0": "trio.sleep",
    "event": "trio.Event",
    "lock": "trio.Lock",
    "queue_get": "trio.open_memory_channel",
    "queue_put": "trio.open_memory_channel",
    "semaphore": "trio.Semaphore",
    "wait_for": "trio.fail_after",
    "timeout": "trio.fail_after",
    "to_thread": "trio.to_thread.run_sync",
    "create_task": "self.nursery",
    "task_group": "self.nursery",
    "open_connection": "trio.open_tcp_stream",
    "subprocess": "trio.run_process",
    "coroutine_for_nursery": "start_soon(f, x)",
    "generator": "notification",
    "result_future": "return await",
    "in_context": "trio.sleep",
    "in_nursery": "trio.sleep",
    "wrapped": "trio.sleep",
}


def bound_event() -> asyncio.Event:
    """Return an event that belongs to an asyncio loop which has ended."""
    event = asyncio.Event()

    async def wait() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(event.wait(), 0.001)

    with ThreadPoolExecutor() as pool:
        pool.submit(asyncio.run, wait()).result()
    return event


def names_the_way_out(text: str) -> bool:
    """Return whether a line of a text has both names; the paths and source lines of a traceback do not count."""
    text = text.replace("msl_network_trio", "").lower()
    return any("asyncio" in line and "trio" in line for line in text.splitlines() if line[:1] != " ")


@pytest.mark.parametrize("name", USES)
async def test_the_reply_and_the_log_name_the_replacement(name, caplog):
    service = Uses()
    service._bound_event = bound_event() if name == "other_loop" else None
    async with running(service) as peer:
        for _ in range(2):  # the second time it has a task of its own
            caplog.clear()
            await peer.request(name)
            answer = await peer.answer()
            assert answer["error"]
            assert names_the_way_out(answer["message"]), answer["message"]
            assert "\n" not in answer["message"]
            assert NAMED.get(name, "trio.") in answer["message"]
            assert "asyncio.run(" in answer["message"] or name in {"generator", "coroutine_for_nursery"}
            assert answer["message"].count("Trio runs here") <= 1
            [logged] = [each.getMessage() for each in caplog.records if "requested by" in each.getMessage()]
            assert logged.endswith(answer["message"])
            assert await peer.call("good") == "good"


async def test_a_method_that_fails_so_does_not_disturb_others_that_wait():
    gate = trio.Event()

    class Waits(Uses):
        async def wait(self):
            await gate.wait()
            return "waited"

    async with running(Waits()) as peer:
        waiting = {await peer.request("wait") for _ in range(3)}
        for name in ("hostile", "sleep_0", "event", "hostile_later"):
            uid = await peer.request(name)
            answer = await peer.answer()
            assert (answer["uid"], answer["error"]) == (uid, True)
        gate.set()
        answers = [await peer.answer() for _ in waiting]
        assert {answer["uid"] for answer in answers} == waiting
        assert {answer["result"] for answer in answers} == {"waited"}


@pytest.mark.parametrize("name", ["sleep", "sleep_0", "event", "future", "wrapped"])
@pytest.mark.parametrize("how", ["function", "coroutine"])
async def test_a_task_that_fails_so_ends_the_service_with_an_error_that_tells(name, how):
    service = Uses()
    method = getattr(service, name)
    service.add_tasks(method if how == "function" else method())
    async with running(service) as peer:
        await peer.expect_goodbye()
        await peer.ended.wait()
        error, peer.error = peer.error, None
    text = f"{error} {error.__cause__}"
    assert names_the_way_out(text), text


async def test_a_task_of_the_nursery_that_fails_so_ends_the_service_with_an_error_that_tells():
    class Begins(Uses):
        async def begin(self):
            self.nursery.start_soon(self.sleep)

    async with running(Begins()) as peer:
        await peer.request("begin")
        await peer.ended.wait()
        error, peer.error = peer.error, None
    assert str(error).startswith(
        "no running event loop. Trio runs here, not asyncio: instead of asyncio.sleep"
    )


async def agen():
    yield 1


@pytest.mark.parametrize("make", [own_loop_future, agen, lambda: agen, Foreign, int, lambda: "name"])
def test_what_is_no_task_is_refused_with_an_error_that_tells(make):
    service = Uses()
    with pytest.raises(TypeError, match="A task is an async function or a coroutine, not") as caught:
        service.add_tasks(service.good, make())
    assert names_the_way_out(str(caught.value))
    assert "\n" not in str(caught.value)
    assert service._tasks == []


async def test_a_shutdown_handler_that_uses_asyncio_is_logged_with_what_to_use(caplog):
    class Cleans(Uses):
        async def shutdown_handler(self):
            await asyncio.sleep(1)

    async with running(Cleans()) as peer:
        peer.scope.cancel()
        await peer.expect_goodbye()
    [record] = [record for record in caplog.records if "shutdown_handler" in record.getMessage()]
    assert names_the_way_out(logging.Formatter().format(record))


async def test_a_handler_of_notifications_that_uses_asyncio_is_logged_with_what_to_use(caplog):
    async def handler(number):
        await asyncio.sleep(number)

    await callbacks.call(handler, (1,), {}, "the notification handler")
    assert "instead of asyncio.sleep use trio.sleep" in caplog.records[0].exc_text


async def test_what_is_said_to_use_instead_works():
    """Uses every replacement that the errors and docs/migration.md name; none may be an error itself."""

    class Works(Service):
        def __init__(self):
            super().__init__(name="Service")
            self.add_tasks(self._begin)
            self._log = []

        async def _begin(self):
            self._token = trio.lowlevel.current_trio_token()
            self.nursery.start_soon(self._note, "nursery")

        async def _note(self, text):
            await trio.lowlevel.checkpoint()
            self._log.append(text)
            return text

        def in_thread(self):
            return trio.from_thread.run(self._note, "from_thread", trio_token=self._token)

        def run(self):
            async def main():
                await asyncio.sleep(0)
                return "asyncio.run"

            return asyncio.run(main())

        async def to_thread(self):
            return await trio.to_thread.run_sync(self.run)

        async def others(self):
            trio.Event().set()
            async with trio.Lock(), trio.Semaphore(1), trio.Condition():
                with trio.fail_after(5):
                    send, receive = trio.open_memory_channel(1)
                    await send.send(1)
                    return await receive.receive()

        def log(self):
            return self._log

    async with running(Works()) as peer:
        assert await peer.call("in_thread") == "from_thread"
        assert await peer.call("run") == await peer.call("to_thread") == "asyncio.run"
        assert await peer.call("others") == 1
        assert sorted(await peer.call("log")) == ["from_thread", "nursery"]


# ---- where asyncio runs, and errors of other kinds ----


async def own_error():
    raise RuntimeError("no running event loop")


async def lacks_an_object():
    asyncio.Queue.qsize(None)


async def in_another_thread():
    """Check that no advice is given where an asyncio loop runs: the program then has another defect."""
    with ThreadPoolExecutor() as pool:
        pool.submit(asyncio.get_running_loop).result()


@pytest.mark.parametrize("function", [own_error, lacks_an_object, in_another_thread])
def test_errors_inside_of_asyncio_run_stay_as_they_are(function):
    with pytest.raises((RuntimeError, AttributeError)) as caught:
        asyncio.run(function())
    text = str(caught.value)
    assert explain(caught.value) == ""
    assert str(caught.value) == text


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(),
        RuntimeError(5),
        RuntimeError("something else"),
        TypeError("Object of type Tasks is not JSON serializable"),
        TypeError("Task is wrong"),
        ValueError("Object of type Task is not JSON serializable"),
        type("Own", (RuntimeError,), {})("no running event loop"),
        AttributeError("'NoneType' object has no attribute 'read'", name="read", obj=None),
        TypeError("Trio"),
        KeyboardInterrupt(),
        BaseExceptionGroup("two", [ValueError("x"), TypeError("y")]),
    ],
)
def test_other_errors_stay_as_they_are(error):
    args = error.args
    assert explain(error) == ""
    assert error.args == args
    assert b"asyncio" not in error_reply(IncomingRequest("method"), error)


def test_chains_that_are_circles_or_long_are_looked_through_once():
    error = ValueError("first")
    last = error
    for number in range(1000):
        last.__cause__ = ValueError(number)
        last = last.__cause__
    last.__cause__ = RuntimeError("no running event loop")
    assert explain(error) == ""
    one, other = ValueError("one"), RuntimeError("no running event loop")
    one.__context__, other.__context__ = other, one
    assert "trio.sleep" in explain(one)
    assert explain(one) == ""  # once is enough


def test_an_error_that_hides_its_context_is_not_explained_by_it():
    error = ValueError("unrelated")
    error.__context__ = RuntimeError("no running event loop")
    error.__suppress_context__ = True
    assert explain(error) == ""


# ---- the event loop that asyncio creates on demand ----


def in_thread(function):
    results = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join()
    return results[0]


def test_before_trio_runs_asyncio_is_made_to_forget_its_loop():
    def check():
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        try:
            forget_event_loop()
            with pytest.raises(RuntimeError, match="There is no current event loop"):
                asyncio.get_event_loop()
        finally:
            loop.close()
        return True

    assert in_thread(check)


def test_a_loop_that_runs_is_not_forgotten():
    async def main():
        loop = asyncio.get_event_loop()
        forget_event_loop()
        return asyncio.get_event_loop_policy().get_event_loop() is loop

    assert in_thread(lambda: asyncio.run(main()))


def test_a_program_without_asyncio_does_not_import_it(monkeypatch):
    monkeypatch.delitem(__import__("sys").modules, "asyncio")
    forget_event_loop()
    assert "asyncio" not in __import__("sys").modules
