"""A comparison of the failures of the clients of msl-network 1.0.0 and msl-network-trio.

Run as ``python -m tests.failures``, with ``--markdown`` for a table in Markdown. Every case is played twice, once
by the client of msl-network and once by ours, each in a process of its own and with a real msl-network 1.0.0
Manager and Service of its own. The table tells what was observed in this run. The exit code is 1 if our client
did not behave as promised.
"""

from __future__ import annotations

import argparse
import contextlib
import html
import itertools
import json
import logging
import os
import queue
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import traceback
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import attrs
import trio

from tests.interop.reference import Manager, Process, start_manager

PATIENCE = 4.0
"""Seconds without output after which a client counts as hanging."""

PROMPT = 2.0
"""Maximum seconds for operations that our client must complete at once."""

PROBE_AFTER = 1.0
"""The ``probe_after`` of our client, shorter than the default of 5 s to save time."""

ROUNDS = 100
"""Maximum rounds of concurrent requests; the first wrong answer ends them."""

LOGINS = 20
"""The same, for cases in which each round needs a new client."""

USER = ("alice", "pw-a", True)


# ---- what a case is told ----


def shortened(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 4]} ..."


def shown(result: Any) -> str:
    if isinstance(result, dict) and "services" in result:  # identities are too long to show
        return f"{{..., 'services': {list(result['services'])}}}"
    return shortened(repr(result), 60)


def described(error: BaseException) -> str:
    """Return the class and the first line of an exception, and its last line if the first only introduces it."""
    lines = str(error).splitlines() or [""]
    text = lines[0]
    if text.endswith("returned the following exception:"):
        text += f" {lines[-1]}"
    return shortened(f"{type(error).__name__}: {text}" if text else type(error).__name__, 160)


@attrs.define
class Notes:
    """The observations of a case: its steps and their outcomes.

    Args:
        tell: Called with each observation.
    """

    tell: Callable[[dict[str, Any]], None] = attrs.field(default=lambda _: None)
    outcomes: dict[str, str | None] = attrs.field(factory=dict)
    """The outcomes by the names of the steps; None: the step has not ended."""

    def begin(self, step: str) -> None:
        self.outcomes[step] = None
        self.tell({"step": step})

    def end(self, step: str, outcome: str) -> None:
        self.outcomes[step] = outcome
        self.tell({"step": step, "outcome": outcome})

    def note(self, step: str, result: Any) -> None:
        self.end(step, shown(result))

    def call(self, step: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function, record its result or exception, and return it."""
        self.begin(step)
        try:
            result = function(*args, **kwargs)
        except Exception as error:
            self.end(step, described(error))
            return error
        self.note(step, result)
        return result

    def call_in_thread(self, step: str, function: Callable[..., Any], *args: Any) -> None:
        """Call a function that may hang in a thread, and wait half a second for it."""
        thread = threading.Thread(target=self.call, args=(step, function, *args), daemon=True)
        thread.start()
        thread.join(0.5)

    async def wait(self, step: str, awaitable: Awaitable[Any]) -> Any:
        """Await something, record its result or exception, and return it."""
        self.begin(step)
        try:
            result = await awaitable
        except Exception as error:
            self.end(step, described(error))
            return error
        self.note(step, result)
        return result


@attrs.frozen
class Scene:
    """The setting of a case: a Manager, its Service Echo, and the administrator alice.

    Args:
        arguments: Arguments of connect(), of either client.
        kill_service: Kills the Service, and returns when it has ended.
        notes: The record of observations.
    """

    arguments: dict[str, Any]
    kill_service: Callable[[], None]
    notes: Notes = attrs.field(factory=Notes)

    def until_gone(self, identities: Callable[[], Any]) -> None:
        """Wait until the Manager has noticed that the Service is gone, using another client."""
        while "Echo" in identities()["services"]:
            time.sleep(0.01)

    @contextlib.contextmanager
    def reference(self) -> Iterator[tuple[Any, Any]]:
        """Return the client of msl-network and its link; the parent process ends a client that hangs at exit."""
        from msl.network import connect

        client = connect(**self.arguments)
        yield client, client.link("Echo")

    @contextlib.asynccontextmanager
    async def ours(self, **more: Any) -> Any:
        """Return our client and its link."""
        from msl_network_trio import connect

        async with connect(**self.arguments, **more) as client, client.link("Echo") as link:
            yield client, link


# ---- a Service that dies ----


def killed_reference(scene: Scene) -> None:
    with scene.reference() as (_, link):
        threading.Timer(0.3, scene.kill_service).start()
        scene.notes.call("link.slow(2)", link.slow, 2)


async def killed_ours(scene: Scene) -> None:
    from msl_network_trio import ServiceLost

    async with scene.ours(probe_after=PROBE_AFTER) as (client, link), trio.open_nursery() as nursery:

        async def kill() -> None:
            nonlocal killed
            await trio.sleep(0.3)
            await trio.to_thread.run_sync(scene.kill_service)
            killed = trio.current_time()

        killed = trio.current_time()
        nursery.start_soon(kill)
        error = await scene.notes.wait("link.slow(2)", link.slow(2))
        seconds = trio.current_time() - killed
        assert isinstance(error, ServiceLost), error
        scene.notes.note("error.may_have_run", error.may_have_run)
        assert error.may_have_run is True
        scene.notes.end("time since it was killed", f"{seconds:.1f} s (probe_after={PROBE_AFTER:g})")
        assert seconds < 1.5 * PROBE_AFTER + PROMPT
        assert scene.notes.call("client.is_connected()", client.is_connected) is True


def gone_reference(scene: Scene) -> None:
    with scene.reference() as (client, link):
        scene.kill_service()
        scene.until_gone(client.identities)
        scene.notes.call_in_thread("link.add(1, 2)", link.add, 1, 2)
        scene.notes.call("client.is_connected()", client.is_connected)
        scene.notes.call("client.identities()", client.identities)


async def gone_ours(scene: Scene) -> None:
    from msl_network_trio import ServiceLost

    async with scene.ours() as (client, link):
        await trio.to_thread.run_sync(scene.kill_service)
        while "Echo" in (await client.identities())["services"]:
            await trio.sleep(0.01)
        with trio.fail_after(PROMPT):
            error = await scene.notes.wait("link.add(1, 2)", link.add(1, 2))
        assert isinstance(error, ServiceLost), error
        scene.notes.note("error.may_have_run", error.may_have_run)
        assert error.may_have_run is False
        assert scene.notes.call("client.is_connected()", client.is_connected) is True
        identities = await scene.notes.wait("client.identities()", client.identities())
        assert identities["services"] == {}


# ---- notifications ----


def raising_reference(scene: Scene) -> None:
    with scene.reference() as (client, link):

        def handler(number: int) -> None:
            raise LookupError(number)

        link.notification_handler = handler
        scene.notes.call_in_thread("link.notify(1)", link.notify, 1)
        scene.notes.call("link.add(1, 2)", link.add, 1, 2)
        scene.notes.call("client.is_connected()", client.is_connected)


class Records(logging.Handler):
    """A log handler that stores the records of this package."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


async def raising_ours(scene: Scene) -> None:
    seen = []
    both = trio.Event()

    def handler(number: int) -> None:
        seen.append(number)
        if number == 1:
            raise LookupError(number)
        both.set()

    logger, kept = logging.getLogger("msl_network_trio"), Records()
    logger.addHandler(kept)
    try:
        async with scene.ours() as (client, link):
            link.notification_handler = handler
            assert await scene.notes.wait("link.notify(1)", link.notify(1)) == "notified"
            assert await link.notify(2) == "notified"
            with trio.fail_after(PROMPT):
                await both.wait()
            assert await scene.notes.wait("link.add(1, 2)", link.add(1, 2)) == 3
            assert client.is_connected()
    finally:
        logger.removeHandler(kept)
    scene.notes.note("notifications handled", seen)
    assert seen == [1, 2]
    errors = [record.exc_info[1] for record in kept.records if record.exc_info]
    scene.notes.end("logged with its traceback", ", ".join(described(error) for error in errors) or "nothing")
    assert [type(error) for error in errors] == [LookupError]


def calling_reference(scene: Scene) -> None:
    with scene.reference() as (_, link):

        def handler(number: int) -> None:
            scene.notes.call("in the handler, link.add(1, 2)", link.add, number, 2)

        link.notification_handler = handler
        scene.notes.call("link.notify(1)", link.notify, 1)


async def calling_ours(scene: Scene) -> None:
    sums = []
    handled = trio.Event()

    async with scene.ours() as (_, link):

        async def handler(number: int) -> None:
            sums.append(await scene.notes.wait("in the handler, link.add(1, 2)", link.add(number, 2)))
            handled.set()

        link.notification_handler = handler
        assert await scene.notes.wait("link.notify(1)", link.notify(1)) == "notified"
        with trio.fail_after(PROMPT):
            await handled.wait()
    assert sums == [3]


# ---- requests at the same time ----

REQUESTS: dict[str, Callable[[Any, Any], Any]] = {
    "admin_request('port')": lambda client, _: client.admin_request("port"),
    "admin_request('users_table.usernames')": lambda client, _: client.admin_request("users_table.usernames"),
    "identities()": lambda client, _: client.identities(),
    "link.add(1, 2)": lambda _, link: link.add(1, 2),
}
"""The calls with a client and its link, of either package."""

ADMIN_REQUESTS = ("admin_request('port')", "admin_request('users_table.usernames')")
MIXED_REQUESTS = ("admin_request('port')", "identities()", "link.add(1, 2)")


def is_right(name: str, scene: Scene, result: Any) -> bool:
    """Return True if a value can be the answer to a request."""
    match name:
        case "admin_request('port')":
            return result == scene.arguments["port"]
        case "admin_request('users_table.usernames')":
            return result == [USER[0]]
        case "identities()":
            return isinstance(result, dict) and "services" in result
        case _:
            return result == 3


def round_reference(scene: Scene, names: tuple[str, ...], client: Any, link: Any) -> bool:
    """Make concurrent requests in threads, record them, and return True if all answers are right."""
    outcomes: dict[str, Any] = {}
    barrier = threading.Barrier(len(names))

    def make(name: str) -> None:
        barrier.wait()
        try:
            outcomes[name] = REQUESTS[name](client, link)
        except Exception as error:
            outcomes[name] = error
        if name in scene.notes.outcomes:  # too late for the round
            end(name)

    def end(name: str) -> None:
        outcome = outcomes[name]
        scene.notes.end(name, described(outcome) if isinstance(outcome, Exception) else shown(outcome))

    threads = [threading.Thread(target=make, args=(name,), daemon=True) for name in names]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 1
    for thread in threads:
        thread.join(max(0, deadline - time.monotonic()))
    if all(name in outcomes and is_right(name, scene, outcomes[name]) for name in names):
        return True
    for name in names:
        scene.notes.begin(name)
        if name in outcomes:
            end(name)
    return False


def rounds_reference(scene: Scene, names: tuple[str, ...], new_clients: bool = False) -> None:
    number, rounds = 0, LOGINS if new_clients else ROUNDS
    while number < rounds:
        with scene.reference() as (client, link):
            if not new_clients:
                client.admin_request("port")  # logs in
            while number < rounds:
                number += 1
                if not round_reference(scene, names, client, link):
                    scene.notes.end("seen in round", f"{number} of at most {rounds}")
                    return
                if new_clients:
                    client.disconnect()
                    break
    scene.notes.end("all answers right in", f"{rounds} rounds")


async def rounds_ours(scene: Scene, names: tuple[str, ...], new_clients: bool = False) -> None:
    number, rounds = 0, LOGINS if new_clients else ROUNDS
    outcomes: dict[str, Any] = {}

    async def make(name: str, client: Any, link: Any) -> None:
        outcomes[name] = await REQUESTS[name](client, link)
        assert is_right(name, scene, outcomes[name]), f"{name}: {outcomes[name]!r}"

    while number < rounds:
        async with scene.ours() as (client, link):
            if not new_clients:
                await client.admin_request("port")
            while number < rounds:
                number += 1
                outcomes.clear()
                async with trio.open_nursery() as nursery:
                    for name in names:
                        nursery.start_soon(make, name, client, link)
                if new_clients:
                    break
    for name in names:
        scene.notes.note(name, outcomes[name])
    scene.notes.end("all answers right in", f"{rounds} rounds")


def swapped_reference(scene: Scene) -> None:
    rounds_reference(scene, ADMIN_REQUESTS)


async def swapped_ours(scene: Scene) -> None:
    await rounds_ours(scene, ADMIN_REQUESTS)


def mixed_reference(scene: Scene) -> None:
    rounds_reference(scene, MIXED_REQUESTS)


async def mixed_ours(scene: Scene) -> None:
    await rounds_ours(scene, MIXED_REQUESTS)


def login_reference(scene: Scene) -> None:
    rounds_reference(scene, MIXED_REQUESTS, new_clients=True)


async def login_ours(scene: Scene) -> None:
    await rounds_ours(scene, MIXED_REQUESTS, new_clients=True)


# ---- a call that is given up, and one that cannot be sent ----


def cancelled_reference(scene: Scene) -> None:
    with scene.reference() as (client, link):
        future = link.slow(0.3, asynchronous=True)
        time.sleep(0.1)
        scene.notes.call("future.cancel()", future.cancel)
        time.sleep(0.5)
        scene.notes.call("link.add(1, 2)", link.add, 1, 2)
        scene.notes.call("client.is_connected()", client.is_connected)


async def cancelled_ours(scene: Scene) -> None:
    async with scene.ours() as (client, link):
        reply = link.slow(0.3, asynchronous=True)
        await trio.sleep(0.1)
        assert scene.notes.call("reply.cancel()", reply.cancel) is True
        await trio.sleep(0.5)
        assert await scene.notes.wait("link.add(1, 2)", link.add(1, 2)) == 3
        assert client.is_connected()


def unsendable_reference(scene: Scene) -> None:
    with scene.reference() as (_, link):
        scene.notes.call("link.same('\\ud800')", link.same, "\ud800")
        scene.notes.call("link.same({1, 2})", link.same, {1, 2})
        scene.notes.call("link.add(1, 2)", link.add, 1, 2)


async def unsendable_ours(scene: Scene) -> None:
    async with scene.ours() as (_, link):
        error = await scene.notes.wait("link.same('\\ud800')", link.same("\ud800"))
        assert isinstance(error, ValueError)
        error = await scene.notes.wait("link.same({1, 2})", link.same({1, 2}))
        assert isinstance(error, TypeError)
        assert await scene.notes.wait("link.add(1, 2)", link.add(1, 2)) == 3


@attrs.frozen
class Case:
    """A fault, and functions that play it with either client."""

    title: str
    reference: Callable[[Scene], None]
    ours: Callable[[Scene], Awaitable[None]]


CASES = {
    "killed": Case("A Service is killed in the middle of a call", killed_reference, killed_ours),
    "gone": Case("A call through a link to a Service that has gone", gone_reference, gone_ours),
    "raising": Case("A notification handler raises", raising_reference, raising_ours),
    "calling": Case("A notification handler calls its link", calling_reference, calling_ours),
    "swapped": Case("Two admin requests at the same time", swapped_reference, swapped_ours),
    "mixed": Case("An admin request and others at the same time", mixed_reference, mixed_ours),
    "login": Case("The same, while the admin logs in", login_reference, login_ours),
    "cancelled": Case("The reply to a call that was cancelled", cancelled_reference, cancelled_ours),
    "unsendable": Case("Arguments that cannot be sent", unsendable_reference, unsendable_ours),
}


# ---- playing the cases ----


@contextlib.contextmanager
def started(home: Path) -> Iterator[tuple[Manager, Process]]:
    """Start a Manager and its Service on loopback addresses."""
    manager = start_manager(home, users=(USER,), host="localhost")
    try:
        yield manager, manager.start_service()
    finally:
        manager.end()


def arguments_of(manager: Manager) -> dict[str, Any]:
    """Return the arguments of connect() for all cases."""
    return manager.arguments(username=USER[0], password=USER[1])


def leaf(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def play(name: str, side: str, arguments: dict[str, Any]) -> None:
    """Play one case in this process, and report its steps to the parent as lines of JSON."""
    lock = threading.Lock()

    def tell(news: dict[str, Any]) -> None:
        with lock:
            sys.stdout.write(f"{json.dumps(news)}\n")
            sys.stdout.flush()

    def kill_service() -> None:
        tell({"kill": True})
        sys.stdin.readline()

    scene = Scene(arguments, kill_service, Notes(tell))
    if side == "reference":
        import msl.network  # noqa: F401, before the time starts to count

        tell({"started": True})
        CASES[name].reference(scene)
        while None in scene.notes.outcomes.values():  # the parent has the shorter timeout
            time.sleep(0.1)
        tell({"done": True})
        os._exit(0)  # the threads of a broken client do not end
    import msl_network_trio  # noqa: F401

    tell({"started": True})
    try:
        trio.run(CASES[name].ours, scene)
    except Exception as error:
        first = leaf(error)
        line = traceback.extract_tb(first.__traceback__)[-1].line
        tell({"broken": f"{described(first)} in: {line}"})
        raise
    tell({"done": True})


@attrs.define
class Seen:
    """The observations of one client in one case."""

    steps: dict[str, str | None] = attrs.field(factory=dict)
    done: bool = False
    broken: str = ""

    def lines(self) -> list[str]:
        never = f"waits for ever (ended after {PATIENCE:g} s)"
        lines = [f"{step}: {never if outcome is None else outcome}" for step, outcome in self.steps.items()]
        if self.broken:
            lines.append(f"NOT AS PROMISED: {self.broken}")
        return lines


def watch(popen: subprocess.Popen[str], service: Process) -> Seen:
    """Collect the reports of a process that plays a case until it ends or is silent; then kill it."""
    news: queue.Queue[str] = queue.Queue()
    assert popen.stdin is not None
    assert popen.stdout is not None

    def read(lines: Iterable[str]) -> None:
        for line in lines:
            news.put(line)
        news.put("")

    reader = threading.Thread(target=read, args=(popen.stdout,), daemon=True)
    reader.start()
    seen = Seen()
    patience = 30.0  # seconds for a process to start
    try:
        while line := news.get(timeout=patience):
            match json.loads(line):
                case {"kill": True}:
                    service.kill()
                    popen.stdin.write("killed\n")
                    popen.stdin.flush()
                case {"step": step, **more}:
                    seen.steps[step] = more.get("outcome")
                case {"broken": broken}:
                    seen.broken = broken
                case {"done": True}:
                    seen.done = True
            patience = PATIENCE
    except queue.Empty:
        pass  # the client hangs
    finally:
        popen.kill()
        popen.wait(10)
        reader.join(10)
    return seen


def observe(name: str, side: str, home: Path) -> Seen:
    """Play one case with one client, in a new process."""
    with started(home) as (manager, service), (home / "errors.txt").open("w") as errors:
        arguments = json.dumps(arguments_of(manager))
        with subprocess.Popen(
            [sys.executable, "-m", "tests.failures", "--play", name, side, arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=Path(__file__).parents[1],
            env=dict(os.environ, MSL_NETWORK_HOME=str(home / "client")),
        ) as popen:
            seen = watch(popen, service)
    if not seen.done and not seen.broken and None not in seen.steps.values():
        last = (home / "errors.txt").read_text().splitlines()[-1:] or ["no error was shown"]
        seen.steps["the process ended, or was ended"] = last[0]
    return seen


def observe_all(names: list[str]) -> dict[tuple[str, str], Seen]:
    """Play cases with both clients, several at a time since most of them wait."""
    with (
        tempfile.TemporaryDirectory(prefix="msl-network-trio-failures-") as folder,
        ThreadPoolExecutor(max_workers=3) as pool,
    ):
        futures = {
            (name, side): pool.submit(observe, name, side, Path(folder) / f"{name}-{side}")
            for name in names
            for side in ("reference", "ours")
        }
        return {key: future.result() for key, future in futures.items()}


# ---- the table ----

HEADINGS = ("case", "msl-network 1.0.0", "msl-network-trio")
WIDTHS = (22, 46, 46)


def cell(lines: Iterable[str], width: int) -> list[str]:
    return [part for line in lines for part in textwrap.wrap(line, width, subsequent_indent="  ")]


def plain(rows: list[tuple[list[str], list[str], list[str]]]) -> str:
    """Format the table for a terminal."""
    rule = "-+-".join("-" * width for width in WIDTHS)
    text = []
    for row in [tuple([heading] for heading in HEADINGS), *rows]:
        cells = [cell(lines, width) for lines, width in zip(row, WIDTHS, strict=True)]
        for parts in itertools.zip_longest(*cells, fillvalue=""):
            padded = (part.ljust(width) for part, width in zip(parts, WIDTHS, strict=True))
            text.append(" | ".join(padded).rstrip())
        text.append(rule)
    return "\n".join(text)


def markdown(rows: list[tuple[list[str], list[str], list[str]]]) -> str:
    """Format the table as Markdown."""
    text = [f"| {' | '.join(HEADINGS)} |", "|---|---|---|"]
    for row in rows:
        cells = (
            "<br>".join(html.escape(line, quote=False).replace("|", r"\|") for line in lines) for lines in row
        )
        text.append(f"| {' | '.join(cells)} |")
    return "\n".join(text)


def main() -> None:
    """Play all cases and print the table; exit with status 1 if our client failed a case."""
    parser = argparse.ArgumentParser(description="Failures, as both clients handle them, side by side.")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("--case", action="append", choices=tuple(CASES), help="only this case, or these")
    parser.add_argument("--play", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.play:
        name, side, arguments = options.play
        play(name, side, json.loads(arguments))
        return
    names = options.case or list(CASES)
    seen = observe_all(names)
    rows = [
        ([CASES[name].title], seen[name, "reference"].lines(), seen[name, "ours"].lines()) for name in names
    ]
    print(markdown(rows) if options.markdown else plain(rows))
    print("\nAt the same time: in threads with msl-network, in tasks of one thread with msl-network-trio.")
    broken = [CASES[name].title for name in names if not seen[name, "ours"].done]
    if broken:
        raise SystemExit(f"msl-network-trio did not behave as promised: {'; '.join(broken)}")


if __name__ == "__main__":
    main()
