"""Child processes that are spoken to in lines of JSON, and that end with us, however we end."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

_ROOT = Path(__file__).resolve().parent.parent

START = 60.0
"""How many seconds a child may take to start; the first one makes a key and a certificate."""

ANSWER = 30.0
"""How many seconds a child may take for one answer."""

LONG = 180.0
"""The same for what is known to take long."""

_END = 5.0
"""How many seconds a child has to end by itself."""


def venv_program(name: str) -> str | None:
    """Return the path of a program: beside the Python that runs, or anywhere; None if there is none."""
    return shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)


class ChildFailed(RuntimeError):
    """A child ended, or did not answer in time."""


class Child:
    """A Python process of ours.

    Its standard input ends when this process does, and then it ends too. Ctrl-C reaches this process only,
    which ends its children by their handles. What it writes to standard error goes to a file, and is shown
    when it fails.

    Args:
        name: What to call it in messages.
        module: The module to run.
        arguments: Its command line.
        home: The home folder of MSL-Network for it; the file goes there.

    Attributes:
        ready: What the child said when it was ready.
    """

    def __init__(self, name: str, module: str, *arguments: str, home: Path) -> None:
        self.name = name
        self._home = home
        apart: dict[str, Any] = (
            {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}  # type: ignore[attr-defined,unused-ignore]
            if sys.platform == "win32"
            else {"process_group": 0}
        )
        with (home / f"{name}.log").open("w", encoding="utf-8") as log:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                cwd=_ROOT,
                env=dict(os.environ, MSL_NETWORK_HOME=str(home), SUDO_USER="", PYTHONUTF8="1"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                encoding="utf-8",
                **apart,
            )
        try:
            self.ready: dict[str, Any] = json.loads(self._line(START).removeprefix("ready "))
        except BaseException:
            self.end()
            raise

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._popen.pid

    def ask(self, question: dict[str, Any], seconds: float = ANSWER) -> dict[str, Any]:
        """Send a line and return the answer.

        Raises:
            ChildFailed: There is none, or not within so many seconds.
        """
        assert self._popen.stdin is not None
        try:
            self._popen.stdin.write(json.dumps(question) + "\n")
            self._popen.stdin.flush()
        except OSError:
            pass  # it has ended: reading says so, and why
        answer: dict[str, Any] = json.loads(self._line(seconds))
        return answer

    def _line(self, seconds: float) -> str:
        assert self._popen.stdout is not None
        # Pipes have no timeout on every platform; a child that is killed ends its pipe.
        timer = threading.Timer(seconds, self._popen.kill)
        timer.daemon = True  # Ctrl-C may come before the block that cancels it, and Python would wait for it
        timer.start()
        try:
            line: str = self._popen.stdout.readline()
        finally:
            timer.cancel()
        if not line:
            # The reason may be in another one's log.
            logs = [
                path.read_text(encoding="utf-8", errors="replace")
                for path in sorted(self._home.glob("*.log"))
            ]
            raise ChildFailed(
                f"{self.name} failed, or took more than {seconds:g} seconds\n{''.join(logs)}".rstrip()
            )
        return line

    def end(self) -> None:
        """End the process: by the end of its input, or else at once."""
        for pipe in (self._popen.stdin, self._popen.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except OSError:
                pass  # it has ended before it read everything
        try:
            self._popen.wait(_END)
        except BaseException:
            # Also when Ctrl-C was pressed once more.
            self._popen.kill()
            self._popen.wait()
            if not isinstance(sys.exception(), subprocess.TimeoutExpired):
                raise

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end()
