"""The blocking API has every member of the async API, with the same parameters and no rules of its own."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import msl_network_trio
from msl_network_trio import sync

CLASSES = ["Client", "Link", "LinkedClient"]
AS_FUNCTIONS = {"request", "notifications"}  # as methods they would hide those of a Service
ELSEWHERE = {
    "sync": "to_async",  # the way back
    "aclose": "disconnect",  # the name that Trio has for it
    "send": "__init__",  # of the coroutine that an async LinkedClient is
    "throw": "__init__",
    "close": "__init__",
}


def public(cls: type) -> set[str]:
    return {name for name in dir(cls) if not name.startswith("_")}


def members() -> list[tuple[str, str]]:
    return [(cls, name) for cls in CLASSES for name in sorted(public(getattr(msl_network_trio, cls)))]


@pytest.mark.parametrize(("cls", "name"), members())
def test_every_public_member_of_the_async_api_has_a_blocking_form(cls: str, name: str):
    blocking: Any = getattr(sync, cls)
    if name in ELSEWHERE:
        assert hasattr(blocking, ELSEWHERE[name]) or hasattr(sync, ELSEWHERE[name])
        assert name not in public(blocking)
    elif name in AS_FUNCTIONS:
        assert callable(getattr(sync, name))
        assert name not in public(blocking)
    else:
        assert hasattr(blocking, name)


@pytest.mark.parametrize("cls", CLASSES)
def test_the_blocking_classes_have_no_names_of_their_own(cls: str):
    more = public(getattr(sync, cls)) - public(getattr(msl_network_trio, cls))
    assert more <= {"loop_thread_id"}  # which msl-network has


def described(function: Any) -> list[tuple[str, Any, Any]]:
    parameters = inspect.signature(function).parameters.values()
    return [(parameter.name, parameter.kind, parameter.default) for parameter in parameters]


@pytest.mark.parametrize(("cls", "name"), [member for member in members() if member[1] not in ELSEWHERE])
def test_a_blocking_form_has_the_parameters_of_the_async_one(cls: str, name: str):
    original = inspect.getattr_static(getattr(msl_network_trio, cls), name)
    if isinstance(original, property):
        assert isinstance(inspect.getattr_static(getattr(sync, cls), name), property)
        return
    if name in AS_FUNCTIONS:
        _, *parameters = described(original)  # "self", and the link that the function takes
        _, *ours = described(getattr(sync, name))
        assert ours == parameters
    else:
        assert described(getattr(getattr(sync, cls), name)) == described(original)


def test_connect_has_the_parameters_of_the_async_one():
    assert described(sync.connect) == described(msl_network_trio.connect)
    assert sync.connect.__doc__ == msl_network_trio.connect.__doc__
    assert sync.filter_client_connect_kwargs is msl_network_trio.filter_client_connect_kwargs


def test_signatures_have_the_result_of_a_blocking_call():
    assert str(inspect.signature(sync.connect)).endswith("-> 'Client'")
    assert str(inspect.signature(sync.Link.release_lock)).endswith("-> 'list[str]'")
    assert str(inspect.signature(sync.Client.identities)).endswith("-> 'Any'")


def test_blocking_forms_are_documented():
    for cls in CLASSES:
        for name in public(getattr(sync, cls)):
            assert inspect.getdoc(getattr(getattr(sync, cls), name)), name


def test_there_is_no_second_implementation():
    # Requests to a Manager, and their answers, belong to the async API.
    folder = Path(sync.__file__).parent
    for path in folder.glob("*.py"):
        names = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
        assert not names & {"MANAGER", "ManagerError", "codec", "ClientProtocol", "SHUTDOWN_SERVICE"}, path


def test_the_exports_exist_and_are_sorted():
    assert list(sync.__all__) == sorted(sync.__all__)
    for name in sync.__all__:
        assert getattr(sync, name) is not None


TYPED = """
from typing import Any
from typing_extensions import assert_type
from concurrent.futures import Future
from msl_network_trio.sync import Client, Link, LinkedClient, connect, notifications, request, to_async
import msl_network_trio as async_api

def check() -> None:
    client = connect(host="lab-3", timeout=5)
    assert_type(client, Client)
    link = client.link("Echo", timeout=1)
    assert_type(link, Link)
    assert_type(link.release_lock(), list[str])
    names: list[str] = link.acquire_lock(shared=True)
    assert_type(client.identity(), dict[str, str])
    assert_type(client.spawn(name="x"), Client)
    assert_type(client.identities(as_string=True), Any)
    with LinkedClient("Echo", host="lab-3") as linked:
        assert_type(linked, LinkedClient)
        linked.add(1, 2)
    with notifications(link) as stream:
        for notification in stream:
            assert_type(notification, async_api.Notification)
    assert_type(to_async(client), async_api.Client)

def handle(*args: object, **kwargs: object) -> None: ...

def assign(client: Client, link: Link, linked: LinkedClient, other: async_api.Link) -> None:
    link.notification_handler = handle
    link.notification_handler = None
    linked.notification_handler = handle
    other.notification_handler = handle
    client.shutdown_handler = handle

class Subclass(LinkedClient):
    def notification_handler(self, *args: Any, **kwargs: Any) -> None: ...
"""
WRONG = {
    'connect(hots="lab-3")': "hots",
    'client.link("Echo", timout=1)': "timout",
    'link.release_lock(timeout="5")': "timeout",
    "client.identities(indent='2')": "indent",
    "client.identites()": "identites",
}


@pytest.mark.slow
def test_mypy_sees_the_real_signatures(tmp_path: Path):
    right, wrong = tmp_path / "right.py", tmp_path / "wrong.py"
    right.write_text(TYPED)
    lines = [f"    {line}" for line in WRONG]
    wrong.write_text(
        "from msl_network_trio.sync import Client, Link, connect\n"
        "def check(client: Client, link: Link) -> None:\n" + "\n".join(lines) + "\n"
    )
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache")]
    run = subprocess.run([*command, right, wrong], capture_output=True, text=True, cwd=tmp_path, check=False)
    errors = [line for line in run.stdout.splitlines() if "error:" in line]
    assert [line for line in errors if "right.py" in line] == []
    for number, word in enumerate(WRONG.values(), start=3):
        assert any(f"wrong.py:{number}:" in line and word in line for line in errors), run.stdout
