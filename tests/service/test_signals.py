"""Signals that end a program with a Service."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio

from msl_network_trio.transport.tcp import TcpStream
from tests.patience import PATIENCE

from .peer import Peer

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a process cannot be sent a signal there")

SOURCE = """
import os, signal, sys, threading, time
import trio
from msl_network_trio import Service
from msl_network_trio.service.state import state_of

class S(Service):
    def __init__(self):
        super().__init__(name="Service")
    def echo(self, x):
        return x
    def until_stopped(self, x):
        while not state_of(self).is_stopped:
            time.sleep(0.001)
        return x
    async def async_until_stopped(self, x):
        # In a thread, since an interrupt may end the code of an async method, which is not tested here.
        return await trio.to_thread.run_sync(self.until_stopped, x)
    def block(self):
        print("blocking", flush=True)
        time.sleep(3600)
    async def loop(self):
        print("looping", flush=True)
        while True:
            pass
    def fork(self):
        ready, tell = os.pipe()
        child = os.fork()
        if not child:
            os.write(tell, b"!")
            time.sleep(3600)
        os.read(ready, 1)
        os.kill(child, signal.SIGTERM)
        return os.waitpid(child, 0)[1]
    def shutdown_handler(self):
        print("OUTPUT OFF", flush=True)

def start():
    S().start(host="127.0.0.1", port=int(sys.argv[1]), disable_tls=True, reconnect=False)
"""

HANGS = """
def hang(self):
    print("OUTPUT OFF", flush=True)
    time.sleep(3600)
S.shutdown_handler = hang
"""

ALL = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]


@attrs.define
class Program:
    """A program with a Service, and the Manager's end of its connection."""

    process: trio.Process
    peer: Peer
    output: str = ""

    async def wait_for(self, text: str) -> None:
        assert self.process.stdout is not None
        while text not in self.output:
            data = await self.process.stdout.receive_some()
            assert data, f"it has ended: {self.output}"
            self.output += data.decode()

    async def is_stopping(self) -> None:
        """Wait until the Service refuses requests, which shows that a signal has arrived."""
        refused = False
        while not refused:
            await self.peer.request("echo", 1)
            refused = (await self.peer.answer())["error"]

    async def end(self) -> int:
        """Close the Manager's end, wait until the program has ended, and return its exit status."""
        self.peer.transport.close()
        status = await self.process.wait()
        assert self.process.stdout is not None
        self.output += (await self.process.stdout.receive_some(1_000_000)).decode()
        return status


@asynccontextmanager
async def program(*more: str, greet: bool = True) -> AsyncIterator[Program]:
    """Run a Service program.

    Args:
        more: What it does before it starts the Service, and how.
        greet: Whether the Manager accepts it.
    """
    with trio.fail_after(PATIENCE), trio.socket.socket() as listener:
        await listener.bind(("127.0.0.1", 0))
        listener.listen()
        source = SOURCE + "\n".join(more or ("",)) + ("" if "start()" in "".join(more) else "\nstart()\n")
        process = await trio.lowlevel.open_process(
            [sys.executable, "-c", source, str(listener.getsockname()[1])],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            accepted, _ = await listener.accept()
            sock = accepted._sock
            sock.setblocking(False)
            transport = TcpStream(sock)
            peer = Peer(transport, transport)
            if greet:
                await peer.shake_hands()
            yield Program(process, peer)
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
            transport.close()


@pytest.mark.parametrize("number", ALL)
async def test_a_signal_ends_it_in_order(number):
    async with program() as it:
        uids = [await it.peer.request(name, 5) for name in ("until_stopped", "async_until_stopped")]
        assert await it.peer.call("echo", 1) == 1
        it.process.send_signal(number)
        answers = [await it.peer.answer() for _ in uids]
        assert {answer["uid"]: answer["result"] for answer in answers} == dict.fromkeys(uids, 5)
        await it.peer.expect_goodbye()
        assert await it.end() == 0
        assert "OUTPUT OFF" in it.output


@pytest.mark.parametrize("number", ALL)
async def test_a_signal_that_is_ignored_at_the_start_stays_ignored(number):
    other = signal.SIGTERM if number != signal.SIGTERM else signal.SIGINT
    async with program(f"signal.signal({int(number)}, signal.SIG_IGN)") as it:
        it.process.send_signal(number)
        assert await it.peer.call("echo", 1) == 1
        it.process.send_signal(other)
        await it.peer.expect_goodbye()
        assert await it.end() == 0


@pytest.mark.parametrize("number", ALL)
async def test_a_handler_of_the_program_stays_in_place(number):
    async with program(f"signal.signal({int(number)}, lambda *_: print('mine', flush=True))") as it:
        it.process.send_signal(number)
        await it.wait_for("mine")
        assert await it.peer.call("echo", 1) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("where", ["a method", "the shutdown handler"])
async def test_a_second_signal_ends_it_at_once(number, where):
    async with program(HANGS if where == "the shutdown handler" else "") as it:
        if where == "a method":
            await it.peer.request("block")
            await it.wait_for("blocking")
            it.process.send_signal(signal.SIGTERM)
            await it.is_stopping()
        else:
            it.process.send_signal(signal.SIGTERM)
            await it.peer.expect_goodbye()
            await it.wait_for("OUTPUT OFF")
        it.process.send_signal(number)
        assert await it.end() == -number


async def test_a_shutdown_handler_that_hangs_for_another_reason_ends_at_the_second_signal():
    async with program(HANGS) as it:
        it.peer.transport.close()
        await it.wait_for("OUTPUT OFF")
        it.process.send_signal(signal.SIGTERM)
        # A signal is lost if the one before has not been handled yet, so send more until the program has ended.
        with trio.move_on_after(PATIENCE):
            while it.process.poll() is None:
                it.process.send_signal(signal.SIGTERM)
                await trio.sleep(0.01)
        assert await it.end() == -signal.SIGTERM


async def test_ctrl_c_breaks_an_async_method_that_computes_for_ever():
    async with program() as it:
        uid = await it.peer.request("loop")
        await it.wait_for("looping")
        it.process.send_signal(signal.SIGINT)
        answer = await it.peer.answer()
        assert (answer["uid"], answer["message"]) == (uid, "KeyboardInterrupt: ")
        await it.peer.expect_goodbye()
        assert await it.end() == 0
        assert "OUTPUT OFF" in it.output


@pytest.mark.parametrize("number", ALL)
async def test_a_signal_ends_it_while_it_connects(number):
    async with program(greet=False) as it:
        await it.peer.ask("identity")
        await it.peer.line()
        it.process.send_signal(number)
        assert await it.process.wait() == 0


async def test_a_process_that_a_method_has_forked_is_ended_by_a_signal():
    async with program() as it:
        assert await it.peer.call("fork") == signal.SIGTERM


async def test_if_the_manager_has_gone_the_exit_status_is_not_0_and_the_text_says_so():
    async with program() as it:
        assert await it.end() == 1
        assert "ConnectionLost: Manager[127.0.0.1:" in it.output
        assert "closed the connection" in it.output.splitlines()[-1]
        assert "OUTPUT OFF" in it.output


async def test_a_manager_that_goes_after_the_signal_does_not_change_the_exit_status():
    async with program() as it:
        await it.peer.request("block")
        await it.wait_for("blocking")
        it.process.send_signal(signal.SIGTERM)
        await it.is_stopping()
        assert await it.end() == 0


@pytest.mark.parametrize(
    ("error", "status"), [("SystemExit(3)", 3), ("KeyboardInterrupt", 0), ("RuntimeError('own')", 1)]
)
async def test_what_a_handler_of_the_program_raises_ends_it_in_order_and_then_the_program(error, status):
    handler = f"def handler(*_):\n    raise {error}\nsignal.signal(signal.SIGTERM, handler)"
    async with program(handler) as it:
        uid = await it.peer.request("until_stopped", 5)
        assert await it.peer.call("echo", 1) == 1
        it.process.send_signal(signal.SIGTERM)
        answer = await it.peer.answer()
        assert (answer["uid"], answer["result"]) == (uid, 5)
        await it.peer.expect_goodbye()
        assert await it.end() == status
        assert "OUTPUT OFF" in it.output
        assert "Trio" not in it.output


async def test_in_another_thread_signals_are_the_business_of_the_program():
    code = "thread = threading.Thread(target=start, daemon=True); thread.start(); thread.join()"
    async with program(code.replace("=start,", "=lambda: start(),")) as it:
        it.process.send_signal(signal.SIGTERM)
        assert await it.process.wait() == -signal.SIGTERM
