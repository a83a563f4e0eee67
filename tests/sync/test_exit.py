"""End of a program: at once, with a goodbye, without output; and Ctrl-C by a real signal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import msl_network_trio
from tests.patience import PATIENCE
from tests.sync import programs
from tests.sync.manager import FakeManager

pytestmark = pytest.mark.timeout(150)

DEADLINE = 60.0
"""Maximum seconds for a program, including imports, on a busy computer; one that hangs is killed."""

PRELUDE = """
import os, sys, threading, time
from msl_network_trio.sync import LinkedClient, connect
cxn = connect(host="127.0.0.1", port=int(sys.argv[1]), disable_tls=True)
link = cxn.link("Echo")
assert link.add(1, 2) == 3
"""


def start(manager: FakeManager, program: str) -> subprocess.Popen[str]:
    return programs.start(PRELUDE + program, str(manager.port))


def finish(process: subprocess.Popen[str]) -> tuple[str, str]:
    return programs.finish(process, DEADLINE)


def run(manager: FakeManager, program: str, status: int = 0) -> tuple[str, str]:
    process = start(manager, program)
    out, err = finish(process)
    assert process.returncode == status, err
    return out, err


def assert_goodbye(manager: FakeManager) -> None:
    session = manager.session()
    assert session.ended.wait(PATIENCE)
    assert session.said_goodbye


def test_a_program_that_does_not_disconnect_says_goodbye_and_nothing_else(manager: FakeManager):
    assert run(manager, "") == ("", "")
    assert_goodbye(manager)


def test_a_linked_client_that_disconnects_when_it_is_deleted_does_so_without_a_word(manager: FakeManager):
    program = (
        "class Camera(LinkedClient):\n"
        "    def __del__(self):\n"
        "        self.disconnect()\n"
        "camera = Camera('Echo', host='127.0.0.1', port=int(sys.argv[1]), disable_tls=True)\n"
    )
    assert run(manager, program) == ("", "")


def test_it_ends_at_once(manager: FakeManager):
    out, _ = run(
        manager,
        "import atexit\nlink.silent(asynchronous=True)\n"
        # If registered before the first connection was made, it would be called last.
        "began = time.monotonic()\n"
        "from msl_network_trio.portal.background_thread import current\n"
        "end = current.thread.end\n"
        "def timed(seconds):\n"
        "    end(seconds)\n"
        "    print(time.monotonic() - began)\n"
        "current.thread.end = timed\n",
    )
    assert float(out) < 1.9  # the timeout for a Manager that does not answer is two seconds
    assert_goodbye(manager)


def test_also_after_an_exception(manager: FakeManager):
    out, err = run(manager, "raise ZeroDivisionError('my own')", status=1)
    assert out == ""
    assert err.count("Traceback") == 1
    assert err.endswith("ZeroDivisionError: my own\n")
    assert_goodbye(manager)


def test_also_after_sys_exit(manager: FakeManager):
    assert run(manager, "sys.exit(7)", status=7) == ("", "")
    assert_goodbye(manager)


DAEMONS = {
    "a call": "link.silent()",
    "a future": "link.silent(asynchronous=True).result()",
    "calls one after the other": "while True: link.add(1, 2)",
    "futures one after the other": "while True: link.add(1, 2, asynchronous=True).result()",
    "links one after the other": "while True: cxn.link('Echo')",
    "connections one after the other": (
        "while True: connect(host='127.0.0.1', port=int(sys.argv[1]), disable_tls=True)"
    ),
    "a call that waits for a handler": (
        "link.notification_handler = lambda number: time.sleep(1000)\n    link.notify(1)"
    ),
    "notifications": (
        "from msl_network_trio.sync import notifications\n"
        "    with notifications(link) as stream:\n"
        "        for n in stream: pass"
    ),
}


@pytest.mark.parametrize("what", DAEMONS)
def test_also_with_calls_open_in_daemon_threads(manager: FakeManager, what: str):
    program = (
        f"def work():\n    {DAEMONS[what]}\n"
        "for _ in range(3):\n"
        "    threading.Thread(target=work, daemon=True).start()\n"
        "time.sleep(0.5)\n"
    )
    assert run(manager, program) == ("", "")
    assert_goodbye(manager)


def test_also_with_a_handler_that_never_returns(manager: FakeManager):
    program = (
        "entered = threading.Event()\n"
        "def handle(number):\n"
        "    entered.set()\n"
        "    time.sleep(1000)\n"
        "link.notification_handler = handle\n"
        "link.notify(1, asynchronous=True)\n"
        "entered.wait()\n"
    )
    assert run(manager, program) == ("", "")
    assert_goodbye(manager)


def test_a_thread_that_is_no_daemon_keeps_its_connection_until_it_ends(manager: FakeManager):
    program = (
        "def work():\n"
        "    threading.main_thread().join()\n"
        "    print([link.add(n, 1) for n in range(5)], link.add(1, 2, asynchronous=True).result())\n"
        "threading.Thread(target=work).start()\n"
    )
    assert run(manager, program) == ("[1, 2, 3, 4, 5] 3\n", "")
    assert_goodbye(manager)


@pytest.mark.parametrize("when", ["before", "after"])
def test_the_programs_own_exit_functions_may_disconnect(manager: FakeManager, when: str):
    # Functions registered before the first connection are called after the disconnection.
    early = "import atexit\natexit.register(lambda: (cxn.disconnect(), print('done', cxn)))\n"
    path = [str(Path(msl_network_trio.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    program = early + PRELUDE if when == "before" else PRELUDE + early
    done = subprocess.run(
        [sys.executable, "-c", program, str(manager.port)],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        env=dict(os.environ, PYTHONPATH=os.pathsep.join(path)),
        check=True,
    )
    assert done.stdout.startswith("done Client[")
    assert done.stderr == ""
    assert_goodbye(manager)


def test_a_manager_that_does_not_read_delays_the_end_only_briefly(manager: FakeManager):
    release = threading.Event()
    manager.answers["deaf"] = lambda session, line: release.wait(DEADLINE)
    process = start(manager, "link.deaf(asynchronous=True)\nprint(time.time(), flush=True)\n")
    out, err = finish(process)
    # It has two seconds to close the connection.
    assert time.time() - float(out) < 15
    assert err == ""
    release.set()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this platform")
def test_a_fork_does_not_hang_and_may_connect_by_itself(manager: FakeManager):
    program = (
        "import warnings\n"
        "warnings.simplefilter('ignore')\n"  # newer Pythons warn of fork() when there are threads
        "for _ in range(50): link.add(1, 2)\n"
        "done, pending = link.add(1, 2, asynchronous=True), link.hold(asynchronous=True)\n"
        "assert done.result() == 3\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    assert not cxn.is_connected(), cxn\n"
        "    for call in (lambda: link.add(1, 2), lambda: cxn.link('Echo'),\n"
        "                 lambda: link.add(1, 2, asynchronous=True), pending.result, pending.exception):\n"
        "        try:\n"
        "            call()\n"
        "        except ConnectionError as error:\n"
        "            assert 'forked' in str(error), error\n"
        "        else:\n"
        "            raise AssertionError('it worked')\n"
        "    assert done.result() == 3 and pending.cancel()\n"
        "    cxn.disconnect()\n"
        "    with connect(host='127.0.0.1', port=int(sys.argv[1]), disable_tls=True) as mine:\n"
        "        print('child', mine.link('Echo').add(3, 4), flush=True)\n"
        "    sys.exit(0)\n"
        "_, status = os.waitpid(child, 0)\n"
        "print('parent', link.add(1, 2), status)\n"
    )
    assert run(manager, program) == ("child 7\nparent 3 0\n", "")
    assert_goodbye(manager)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this platform")
def test_a_fork_while_the_background_thread_starts_does_not_hang():
    program = (
        "import os, signal, threading, warnings, trio\n"
        "from msl_network_trio.portal.background_thread import current_portal\n"
        "warnings.simplefilter('ignore')\n"
        "run, is_starting, may_start = trio.run, threading.Event(), threading.Event()\n"
        "def run_later(main):\n"
        "    is_starting.set()\n"
        "    may_start.wait()\n"
        "    run(main)\n"
        "trio.run = run_later\n"
        "first = threading.Thread(target=current_portal)\n"
        "first.start()\n"
        "is_starting.wait()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        f"    signal.alarm({DEADLINE / 2:.0f})\n"  # ends the child if it hangs
        "    trio.run = run\n"
        "    current_portal()\n"
        "    os._exit(3)\n"
        "_, status = os.waitpid(child, 0)\n"
        "may_start.set()\n"
        "first.join()\n"
        "print(os.waitstatus_to_exitcode(status))\n"
    )
    assert finish(programs.start(program, "")) == ("3\n", "")


@pytest.mark.skipif(sys.platform == "win32", reason="no signal can be sent to one process")
@pytest.mark.parametrize(
    "call", ["link.hold()", "link.hold(asynchronous=True).result()", "link.hold(timeout=100)"]
)
def test_ctrl_c_interrupts_a_waiting_call_promptly(manager: FakeManager, call: str):
    program = (
        f"try:\n    {call}\nexcept KeyboardInterrupt:\n    print('interrupted', link.add(1, 2), flush=True)\n"
        "    print(link.hold())\n"
    )
    process = start(manager, program)
    session, line = manager.next_held()
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    assert process.stdout.readline() == "interrupted 3\n"
    assert time.monotonic() - began < 10
    session, later = manager.next_held()
    session.reply(line, "too late")
    session.reply(later, "in time")
    assert finish(process) == ("in time\n", "")
    assert process.returncode == 0


@pytest.mark.skipif(sys.platform == "win32", reason="no signal can be sent to one process")
@pytest.mark.parametrize(
    "call", ["cxn.link('Slow')", "link.acquire_lock()", "cxn.identities()", "connect(**slow)"]
)
def test_ctrl_c_interrupts_everything_else_that_waits(manager: FakeManager, call: str):
    held, link = manager.answers["hold"], manager.answers["link"]
    manager.answers |= dict.fromkeys(["acquire_lock", "identity"], held)
    manager.answers["link"] = lambda session, line: (held if line["args"] == ["Slow"] else link)(
        session, line
    )
    program = (
        "import socket\n"
        "silent = socket.create_server(('127.0.0.1', 0))\n"
        "slow = {'host': '127.0.0.1', 'port': silent.getsockname()[1], 'disable_tls': True, 'timeout': None}\n"
        "print('ready', flush=True)\n"
        "try:\n"
        f"    {call}\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted', link.add(1, 2), flush=True)\n"
    )
    process = start(manager, program)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    if "connect" in call:
        time.sleep(0.5)  # no other thread knows that it waits
    else:
        manager.next_held()
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "interrupted 3\n"
    assert finish(process) == ("", "")


@pytest.mark.skipif(sys.platform == "win32", reason="no signal can be sent to one process")
def test_a_program_that_ctrl_c_ends_says_goodbye(manager: FakeManager):
    process = start(manager, "link.hold()")
    manager.next_held()
    process.send_signal(signal.SIGINT)
    _, err = finish(process)
    assert process.returncode in {-signal.SIGINT, 130}
    assert err.endswith("KeyboardInterrupt\n")
    assert_goodbye(manager)


# ---- in the middle of a line ----

ENDS = {
    "in order": ("from msl_network_trio.client import session; session.GOODBYE_TIMEOUT = 0.2", 0),
    "disconnect(timeout=0)": ("cxn.disconnect(timeout=0)", 0),
    "SIGTERM": ("os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM),
    # during the goodbye, which takes two seconds, since the Manager does not read
    "Ctrl-C at the end": ("atexit.register(threading.Timer(0.3, signal.raise_signal, [2]).start)", 0),
}


@pytest.mark.skipif(sys.platform == "win32", reason="it has no such signals")
@pytest.mark.parametrize("how", ENDS)
def test_whatever_ends_a_program_in_the_middle_of_a_line_resets_the_connection(
    manager: FakeManager, how: str
):
    over = threading.Event()
    ends = []

    def stall(session, line):
        over.wait(DEADLINE)
        try:
            while session.sock.recv(1_000_000):
                pass
            ends.append("in order")
        except ConnectionResetError:
            ends.append("reset")
        raise OSError("the client has gone")

    manager.answers["stall"] = stall
    program, status = ENDS[how]
    process = start(
        manager,
        "import atexit, signal\n"
        "from msl_network_trio import ReplyTimeout\n"
        "stalled = link.stall(asynchronous=True)\n"
        "try:\n"
        "    link.size('x' * 20_000_000, timeout=0.2)\n"
        f"except ReplyTimeout: pass\n{program}\n",
    )
    _, err = finish(process)
    assert process.returncode in {status, -2}, err
    over.set()
    assert manager.session().ended.wait(PATIENCE)
    assert ends == ["reset"]
