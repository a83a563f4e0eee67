"""Who answers when the Manager, or the question of trust, needs a person."""

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
    """What `connect` accepts as ``prompts``; each method may also be async.

    A plain method is run in a worker thread, so it may block; an async one runs in the event loop. The
    timeout of `connect` does not run on while one of them is at work. Cancellation abandons a plain method
    and cancels an async one.
    """

    def username(self, manager: str) -> Any:
        """Return the name of a user; `manager` is for example ``"Manager[lab-3:1875]"``."""

    def password(self, name: str) -> Any:
        """Return the password of a user, or of the Manager if `name` is one."""

    def trust(self, certificate: Certificate) -> Any:
        """Return whether to trust, and save, the certificate."""


class TerminalPrompts:
    """Asks on the terminal, in the words a person at a console expects.

    If standard input is no terminal there is nobody to ask, which is said at once instead of waiting for
    a line that never comes.
    """

    async def username(self, manager: str) -> str:
        """Ask for the name of a user."""
        with _terminal(AuthenticationError, f"a user of {visible(manager)}", "username="):
            return await self._run(_read_line, f"Enter a username for {visible(manager)} > ")

    async def password(self, name: str) -> str:
        """Ask for a password, which is not shown while it is typed."""
        argument = "password_manager=" if name.startswith("Manager[") else "password="
        with _terminal(AuthenticationError, f"the password of {visible(name)}", argument), _echo_restored():
            return await self._run(getpass.getpass, f"Enter the password for {visible(name)} > ")

    async def trust(self, certificate: Certificate) -> bool:
        """Show the fingerprints of a certificate and ask whether to trust it."""
        where = f"{visible(certificate.host)}:{certificate.port}"
        what = f"whether to trust the certificate of {where} (SHA-256 {certificate.fingerprint})"
        question = (
            f"This computer does not know the certificate of {where} yet, so nothing proves that the\n"
            "computer at the other end is the one you mean. Its fingerprints are\n\n"
            f"  SHA-256 {certificate.fingerprint}\n"
            f"  SHA-1   {certificate.fingerprint_sha1}\n\n"
            "If they are right the certificate can be saved, and will be trusted from then on.\n"
            "Trust it? y/n: "
        )
        with _terminal(CertificateError, what, "auto_save=True or cert_file="):
            while True:
                answer = (await self._run(_read_line, question)).strip().lower()
                if answer.startswith(("y", "n")):
                    return answer.startswith("y")
                question = "Please answer y or n: "

    async def _run(self, function: Callable[[str], str], prompt: str) -> str:
        return await trio.to_thread.run_sync(function, prompt, abandon_on_cancel=True)


@contextlib.contextmanager
def _terminal(error: type[Exception], what: str, argument: str) -> Generator[None]:
    """Raise an error that says what to do if there is no terminal, or nobody at it."""
    way_out = f"Pass {argument} to connect(), or prompts="
    if sys.stdin is None or not sys.stdin.isatty():
        raise error(f"Nobody can be asked for {what}, since standard input is not a terminal. {way_out}")
    try:
        yield
    except EOFError:
        raise error(f"Standard input ended when it was asked for {what}. {way_out}") from None


def _read_line(prompt: str) -> str:
    # On standard error: what a program prints may go to a file, a question must not.
    print(prompt, end="", file=sys.stderr, flush=True)
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.rstrip("\n")


@contextlib.contextmanager
def _echo_restored() -> Generator[None]:
    """Restore the terminal, which an abandoned `getpass` leaves without echo."""
    try:
        import termios
    except ImportError:  # Windows reads passwords key by key, without changing the console
        yield
        return
    try:
        descriptor = sys.stdin.fileno()
        before = termios.tcgetattr(descriptor)
    except (OSError, ValueError, termios.error):  # what calls itself a terminal need not be one (IDLE's)
        yield
        return
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


@attrs.define
class Credentials:
    """Answers the Manager's questions from the arguments of `connect`, and asks for what they leave open.

    What was asked for once is remembered for as long as the connection lives, or until it is refused.
    """

    username: str | None = None
    password: str | Hidden | None = attrs.field(default=None, converter=hide, repr=False)
    password_manager: str | Hidden | None = attrs.field(default=None, converter=hide, repr=False)
    prompts: Prompts = attrs.field(factory=TerminalPrompts)
    _asked_for: set[str] = attrs.field(factory=set, init=False)
    """Which of the answers somebody was asked for."""

    def refuse(self) -> None:
        """Note that the Manager has refused username or password: ask again for what was asked for."""
        for name in self._asked_for:
            setattr(self, name, None)
        self._asked_for.clear()

    async def answer(self, question: Question) -> str:
        """Return the answer to a question.

        Raises:
            AuthenticationError: The prompts cannot, or will not, answer.
        """
        if question.kind == "username":
            if self.username is None:
                self.username = await self._ask(self.prompts.username, question)
                self._asked_for.add("username")
            return self.username
        if question.wants_manager_password:
            if self.password_manager is None:
                self.password_manager = hide(await self._ask(self.prompts.password, question))
            return str(reveal(self.password_manager))
        if self.password is None:
            self.password = hide(await self._ask(self.prompts.password, question))
            self._asked_for.add("password")
        return str(reveal(self.password))

    async def trust(self, certificate: Certificate) -> bool:
        """Ask whether to trust a certificate.

        Raises:
            CertificateError: The prompt says neither True nor False.
        """
        answer = await call(self.prompts.trust, certificate)
        if not isinstance(answer, bool):
            raise CertificateError(f"The prompt for trust answered {answer!r}; it must return True or False")
        return answer

    async def _ask(self, prompt: Callable[[str], Any], question: Question) -> str:
        answer = await call(prompt, question.about)
        if not isinstance(answer, str):
            kind = type(answer).__name__  # and not what it is, which is a secret
            raise AuthenticationError(
                f"The prompt for the {question.kind} of {visible(question.about)} gave no text, but {kind}"
            )
        return answer


@trio.lowlevel.disable_ki_protection  # it is user code, in the midst of ours
async def call(prompt: Callable[[T], Any], argument: T) -> Any:
    """Call a prompt: an async one here, a plain one in a worker thread."""
    if inspect.iscoroutinefunction(prompt):
        return await prompt(argument)
    return await trio.to_thread.run_sync(prompt, argument, abandon_on_cancel=True)
