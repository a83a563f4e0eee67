"""Manager with one Service, in threads of its own, for blocking clients."""

from __future__ import annotations

import json
import queue
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any

from tests.patience import PATIENCE

NOTHING = object()
"""Returned by an answering function that sends no answer."""

ECHO = {
    "attributes": {"add": "(x, y)", "const": 42},
    "address": "vm:1234",
    "language": "Python 3.11.7",
    "os": "Linux",
    "max_clients": -1,
}


class Session:
    """Connection of one client, served in a thread that looks answers up in `FakeManager.answers`."""

    def __init__(self, manager: FakeManager, sock: socket.socket) -> None:
        self.manager = manager
        self.sock = sock
        self.lines: list[dict[str, Any]] = []
        self.answered: list[str] = []
        self.said_goodbye = False
        self.ended = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def on_answer(self) -> None:
        """Called when the client has answered a question after the handshake."""

    def send(self, **fields: Any) -> None:
        with self._lock:
            self.sock.sendall(json.dumps(fields).encode() + b"\r\n")

    def ask(self, attribute: str, *args: Any) -> None:
        self.send(
            args=args, attribute=attribute, error=False, kwargs={}, requester="Manager[vm:1875]", uid=""
        )

    def reply(self, line: dict[str, Any], result: Any) -> None:
        self.send(error=False, requester="Client[vm:1]", result=result, uid=line["uid"])

    def fail(self, line: dict[str, Any], message: str) -> None:
        self.send(
            error=True, message=message, requester="Client[vm:1]", result=None, traceback=[], uid=line["uid"]
        )

    def notify(self, *args: Any, **kwargs: Any) -> None:
        self.send(error=False, result=[args, kwargs], service="Echo", uid="notification")

    def close(self) -> None:
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.sock.close()

    def _serve(self) -> None:
        try:
            if self.manager.context is not None:
                self.sock = self.manager.context.wrap_socket(self.sock, server_side=True)
            self._converse()
        except OSError:
            pass  # the client has disconnected
        finally:
            self.close()
            self.ended.set()

    def _converse(self) -> None:
        file = self.sock.makefile("rb")

        def answer() -> Any:
            text = file.readline()
            if not text:
                raise OSError("the client has gone")
            return json.loads(text)["result"]

        for question in self.manager.questions:
            self.ask(*question)
            self.answered.append(answer())
        self.ask("identity")
        assert answer()["type"] == "client"
        for text in file:
            line = json.loads(text)
            if "result" in line:
                self.answered.append(line["result"])
                self.on_answer()
                continue
            self.lines.append(line)
            if line["attribute"] == "__disconnect__":
                self.said_goodbye = True
                return
            answer = self.manager.answers.get(line["attribute"])
            if answer is None:
                self.fail(line, f"AttributeError: {line['attribute']}")
                continue
            result = answer(self, line)
            if result is not NOTHING:
                self.reply(line, result)


class FakeManager:
    """A Manager that listens on a port of this computer.

    Args:
        context: The TLS context; None: without TLS.
    """

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.context = context
        self.questions: list[tuple[str, str]] = []
        """Questions to ask before that for the identity: (kind, about)."""
        self.answers: dict[str, Callable[[Session, dict[str, Any]], Any]] = {
            "identity": lambda session, line: self.registry(),
            "link": self._link,
            "unlink": lambda session, line: True,
            "acquire_lock": lambda session, line: ["Client[vm:1]"],
            "release_lock": lambda session, line: [],
            "add": lambda session, line: sum(line["args"]),
            "echo": lambda session, line: [line["args"], line["kwargs"]],
            "hold": self._hold,
            "silent": lambda session, line: NOTHING,
            "notify": self._notify,
        }
        self.held: queue.SimpleQueue[tuple[Session, dict[str, Any]]] = queue.SimpleQueue()
        self.sessions: queue.SimpleQueue[Session] = queue.SimpleQueue()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._all: list[Session] = []
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    @staticmethod
    def _link(session: Session, line: dict[str, Any]) -> Any:
        if line["args"] != ["Nope"]:
            return ECHO
        session.fail(line, "KeyError: \"the 'Nope' service does not exist\"")
        return NOTHING

    def registry(self) -> dict[str, Any]:
        services = {"Echo": ECHO}
        return {"hostname": "vm", "port": 1875, "clients": {}, "services": services, "attributes": {}}

    def arguments(self, **more: Any) -> dict[str, Any]:
        """Return arguments for connect()."""
        return {"host": "127.0.0.1", "port": self.port, "disable_tls": self.context is None, **more}

    def session(self) -> Session:
        """Return the next connection of a client."""
        return self.sessions.get(timeout=PATIENCE)

    def next_held(self) -> tuple[Session, dict[str, Any]]:
        """Return the next request for ``hold``, which the test answers."""
        return self.held.get(timeout=PATIENCE)

    def _link(self, session: Session, line: dict[str, Any]) -> Any:
        if line["args"][0] != "Nope":
            return ECHO
        session.fail(line, f'KeyError: "the {line["args"][0]!r} service does not exist"')
        return NOTHING

    def _hold(self, session: Session, line: dict[str, Any]) -> Any:
        self.held.put((session, line))
        return NOTHING

    def _notify(self, session: Session, line: dict[str, Any]) -> Any:
        for number in range(line["args"][0]):
            session.notify(number)
        return "notified"

    def restart(self) -> None:
        """Accept connections again after `close`."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
            with self._lock:  # `close` must not miss a session that serves already
                session = Session(self, sock)
                self._all.append(session)
            self.sessions.put(session)

    def close(self) -> None:
        try:
            self._listener.shutdown(socket.SHUT_RDWR)  # else accept() would not return
        except OSError:
            pass  # not on every platform
        self._listener.close()
        with self._lock:
            sessions = [*self._all]
        for session in sessions:
            session.close()
            session.ended.wait(PATIENCE)
