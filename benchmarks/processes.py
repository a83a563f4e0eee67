"""Child processes that exchange lines of JSON with this process and end with it."""

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
"""Maximum seconds for the start of a child; the first one creates a key and a certificate."""

ANSWER = 30.0
"""Maximum seconds for an answer of a child."""

LONG = 180.0
"""Maximum seconds for an answer to a slow task."""

_END = 5.0
"""Seconds for a child to end by itself."""


def venv_program(name: str) -> str | None:
    """Return the path of a program: beside the running Python, or in the PATH; None if there is none."""
    return shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)


class ChildFailed(RuntimeError):
    """A child ended, or did not answer in time."""


class Child:
    """A Python child process.

    Its standard input ends with this process, and then the child ends, too. Ctrl-C reaches this process only,
    which ends its children. The standard error of a child goes to a file, which is shown if the child fails.

    Args:
        name: Name of the child in messages.
        module: Module to run.
        arguments: Command line arguments.
        home: Home folder of MSL-Network for the child; also contains the file of its standard error.

    Attributes:
        ready: The facts that the child reported when it was ready.
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
        """The process id."""
        return self._popen.pid

    def ask(self, question: dict[str, Any], seconds: float = ANSWER) -> dict[str, Any]:
        """Send a line and return the answer.

        Raises:
            ChildFailed: The child did not answer within this number of seconds, or has ended.
        """
        assert self._popen.stdin is not None
        try:
            self._popen.stdin.write(json.dumps(question) + "\n")
            self._popen.stdin.flush()
        except OSError:
            pass  # the child has ended: reading reports it with the reason
        answer: dict[str, Any] = json.loads(self._line(seconds))
        return answer

    def _line(self, seconds: float) -> str:
        assert self._popen.stdout is not None
        # Not all platforms have timeouts for pipes; killing the child ends its pipe.
        timer = threading.Timer(seconds, self._popen.kill)
        # Ctrl-C may come before the block that cancels the timer, and Python would wait for its thread.
        timer.daemon = True
        timer.start()
        try:
            line: str = self._popen.stdout.readline()
        finally:
            timer.cancel()
        if not line:
            # The reason may be in the log of another child.
            logs = [
                path.read_text(encoding="utf-8", errors="replace")
                for path in sorted(self._home.glob("*.log"))
            ]
            raise ChildFailed(
                f"{self.name} failed, or took more than {seconds:g} seconds\n{''.join(logs)}".rstrip()
            )
        return line

    def end(self) -> None:
        """End the process: by the end of its input, or by killing it."""
        for pipe in (self._popen.stdin, self._popen.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except OSError:
                pass  # the child has ended before it read everything
        try:
            self._popen.wait(_END)
        except BaseException:
            # Also after a second Ctrl-C.
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
