"""Credentials and trust: answers to the Manager's questions, from arguments or from a person.

Everything here runs in the Trio thread, except plain (not async) methods of prompts, which run in a worker
thread. No lock is needed.
"""

from __future__ import annotations

import contextlib
import getpass
import inspect
import sys
from collections.abc import Callable, Generator
from typing import Any, Protocol, TypeVar

import attrs
import trio

from msl_network_trio.dialing.trust import Certificate
from msl_network_trio.exceptions import AuthenticationError, CertificateError
from msl_network_trio.hidden import Hidden, hide, reveal
from msl_network_trio.protocol.messages import Question
from msl_network_trio.visible import visible

T = TypeVar("T")


class Prompts(Protocol):
    """The interface of ``prompts`` of `connect`; each method may also be async.

    A plain method runs in a worker thread and may block; an async one runs in the event loop. The timeout of
    `connect` is suspended meanwhile. Cancellation abandons a plain method and cancels an async one.
    """

    def username(self, manager: str) -> Any:
        """Return the name of a user.

        Args:
            manager: The name of the Manager, for example ``"Manager[lab-3:1875]"``.
        """

    def password(self, name: str) -> Any:
        """Return a password.

        Args:
            name: The name of the user, or of the Manager for its own password.
        """

    def trust(self, certificate: Certificate) -> Any:
        """Return True to trust and save the certificate, or False."""


class TerminalPrompts:
    """Prompts on the terminal.

    If standard input is not a terminal, each method raises an error instead of waiting for input.
    """

    async def username(self, manager: str) -> str:
        """Ask for the name of a user."""
        with _terminal(AuthenticationError, f"{visible(manager)} asks for a username", "username="):
            return await self._run(_read_line, f"Enter a username for {visible(manager)} > ")

    async def password(self, name: str) -> str:
        """Ask for a password without echo."""
        argument = "password_manager=" if name.startswith("Manager[") else "password="
        need = f"The password of {visible(name)} is needed"
        with _terminal(AuthenticationError, need, argument), _echo_restored():
            return await self._run(getpass.getpass, f"Enter the password for {visible(name)} > ")

    async def trust(self, certificate: Certificate) -> bool:
        """Show the fingerprints of a certificate and ask whether to trust it."""
        where = f"{visible(certificate.host)}:{certificate.port}"
        need = f"The certificate of {where} (SHA-256 {certificate.fingerprint}) is not trusted yet"
        question = (
            f"This computer does not know the certificate of {where} yet, so nothing proves that the\n"
            "computer at the other end is the one you mean. Its fingerprints are\n\n"
            f"  SHA-256 {certificate.fingerprint}\n"
            f"  SHA-1   {certificate.fingerprint_sha1}\n\n"
            "If they are right the certificate can be saved, and will be trusted from then on.\n"
            "Trust it? y/n: "
        )
        with _terminal(CertificateError, need, "auto_save=True or cert_file="):
            while True:
                answer = (await self._run(_read_line, question)).strip().lower()
                if answer.startswith(("y", "n")):
                    return answer.startswith("y")
                question = "Please answer y or n: "

    async def _run(self, function: Callable[[str], str], prompt: str) -> str:
        return await trio.to_thread.run_sync(function, prompt, abandon_on_cancel=True)


class NoPrompts:
    """Prompts of a program that reconnects: no person is asked, so each question raises an error."""

    async def username(self, manager: str) -> str:
        """Raise the error for a user name that is not known."""
        raise AuthenticationError(_unanswered(f"{visible(manager)} asks for a username", "username="))

    async def password(self, name: str) -> str:
        """Raise the error for a password that is not known."""
        argument = "password_manager=" if name.startswith("Manager[") else "password="
        raise AuthenticationError(_unanswered(f"The password of {visible(name)} is needed", argument))

    async def trust(self, certificate: Certificate) -> bool:
        """Raise the error for a certificate that is not trusted."""
        where = f"{visible(certificate.host)}:{certificate.port}"
        need = f"The certificate of {where} (SHA-256 {certificate.fingerprint}) is not trusted"
        raise CertificateError(_unanswered(need, "auto_save=True or cert_file="))


def _unanswered(need: str, argument: str) -> str:
    return f"{need}, and nobody is asked when a connection is restored. Pass {argument}"


@contextlib.contextmanager
def _terminal(error: type[Exception], need: str, argument: str) -> Generator[None]:
    """Raise an error that states the alternative if there is no terminal or no input."""
    remedy = f"Pass {argument} to connect(), or prompts="
    if sys.stdin is None or not sys.stdin.isatty():
        raise error(f"{need}, and there is no terminal to ask: standard input is not a terminal. {remedy}")
    try:
        yield
    except EOFError:
        raise error(f"{need}, and standard input has ended. {remedy}") from None


def _read_line(prompt: str) -> str:
    # On standard error, as standard output may be redirected to a file.
    print(prompt, end="", file=sys.stderr, flush=True)
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.rstrip("\n")


@contextlib.contextmanager
def _echo_restored() -> Generator[None]:
    """Restore the terminal's echo, which an abandoned `getpass` leaves off."""
    try:
        import termios
    except ImportError:  # Windows reads passwords by key press and does not change the console
        yield
        return
    try:
        descriptor = sys.stdin.fileno()
        before = termios.tcgetattr(descriptor)
    except (
        OSError,
        ValueError,
        termios.error,
    ):  # standard input claims to be a terminal and is none, as in IDLE
        yield
        return
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


@attrs.define
class Credentials:
    """Answers to the Manager's questions, from the arguments of `connect` or else from the prompts.

    Answers of prompts are kept for the lifetime of the connection, or until the Manager refuses them.
    """

    username: str | None = None
    password: str | Hidden | None = attrs.field(default=None, converter=hide, repr=False)
    password_manager: str | Hidden | None = attrs.field(default=None, converter=hide, repr=False)
    prompts: Prompts = attrs.field(factory=TerminalPrompts)
    seconds_asked: float = attrs.field(default=0.0, init=False)
    """The seconds in which a person was asked."""
    _prompted: set[str] = attrs.field(factory=set, init=False)
    """The names of the attributes that prompts have answered."""

    def unattended(self) -> Credentials:
        """Return credentials with the answers so far, which ask no person."""
        return Credentials(self.username, self.password, self.password_manager, NoPrompts())

    def refuse(self) -> None:
        """Forget the answers of prompts after the Manager has refused username or password."""
        for name in self._prompted:
            setattr(self, name, None)
        self._prompted.clear()

    async def answer(self, question: Question) -> str:
        """Return the answer to a question.

        Raises:
            AuthenticationError: The prompts cannot answer.
        """
        if question.kind == "username":
            if self.username is None:
                self.username = await self._ask(self.prompts.username, question)
                self._prompted.add("username")
            return self.username
        if question.wants_manager_password:
            if self.password_manager is None:
                self.password_manager = hide(await self._ask(self.prompts.password, question))
            return str(reveal(self.password_manager))
        if self.password is None:
            self.password = hide(await self._ask(self.prompts.password, question))
            self._prompted.add("password")
        return str(reveal(self.password))

    async def trust(self, certificate: Certificate) -> bool:
        """Ask whether to trust a certificate.

        Raises:
            CertificateError: The prompt returned neither True nor False.
        """
        answer = await self._call(self.prompts.trust, certificate)
        if not isinstance(answer, bool):
            raise CertificateError(f"The prompt for trust answered {answer!r}; it must return True or False")
        return answer

    async def _ask(self, prompt: Callable[[str], Any], question: Question) -> str:
        answer = await self._call(prompt, question.about)
        if not isinstance(answer, str):
            kind = type(answer).__name__  # the value itself is secret
            prompted = f"the {question.kind} of {visible(question.about)}"
            raise AuthenticationError(f"The prompt for {prompted} must return text, not {kind}")
        return answer

    async def _call(self, prompt: Callable[[T], Any], argument: T) -> Any:
        began = trio.current_time()
        try:
            return await call(prompt, argument)
        finally:
            self.seconds_asked += trio.current_time() - began


@trio.lowlevel.disable_ki_protection  # Ctrl-C may interrupt user code
async def call(prompt: Callable[[T], Any], argument: T) -> Any:
    """Call a prompt: async functions in the event loop, plain ones in a worker thread."""
    if inspect.iscoroutinefunction(prompt):
        return await prompt(argument)
    return await trio.to_thread.run_sync(prompt, argument, abandon_on_cancel=True)
