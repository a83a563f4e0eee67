"""The walk of one call: the functions of the package that it enters, from client to Service and back.

Somebody who follows `link.add(1, 2)` in an editor opens another file at each switch. A client, a Manager and
a Service run in one process and one Trio loop; a profile function records each entry into a function of the
package, in all threads. A coroutine that resumes counts as an entry.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any, Final, NamedTuple

import trio

import msl_network_trio
from msl_network_trio import Service, connect, open_manager

ROLES: Final = ("client", "Manager", "Service")
"""The programs that a call crosses."""

BETWEEN: Final = "between"
"""The name of the switches from one program to another."""

COUNTS: Final = ("switches", *ROLES, BETWEEN, "files", "functions", "entries")
"""The counts of a walk: all switches, those within each program and between them, different files, different
functions, and entries into functions."""

BASELINE_COMMIT: Final = "49ddf9d"

BASELINE: Final = {
    "async": dict(zip(COUNTS, (75, 23, 24, 24, 4, 24, 66, 92), strict=True)),
    "plain": dict(zip(COUNTS, (75, 23, 24, 24, 4, 25, 66, 92), strict=True)),
}
"""The counts of `BASELINE_COMMIT`, by the kind of the method, taken with this module."""

_ROLE_OF_FOLDER: Final = {
    "client": "client",
    "sync": "client",
    "manager": "Manager",
    "protocol/manager": "Manager",
    "service": "Service",
}
"""The roles of folders that belong to one; files of all others belong to the role that entered them."""

_ROLE_OF_FILE: Final = {"protocol/client.py": "client", "protocol/service.py": "Service"}

_ROOT: Final = str(Path(msl_network_trio.__file__).parent) + os.sep

_WARM_UP_CALLS: Final = 5
"""Calls before the one that is recorded, from which the Service learns that its method is prompt."""

_SETTLE: Final = 0.1
"""Seconds between calls, so that what a call leaves to do is not part of the next one."""


class Step(NamedTuple):
    """An entry into a function."""

    file: str
    """The path of the file in the package, with slashes."""

    function: str
    """The qualified name of the function."""


@dataclass(frozen=True)
class Walk:
    """The steps of one call."""

    steps: Sequence[Step]

    @property
    def switches(self) -> int:
        """Number of steps into another file than the step before."""
        return sum(before.file != after.file for before, after in pairwise(self.steps))

    @property
    def files(self) -> int:
        """Number of different files."""
        return len({step.file for step in self.steps})

    @property
    def functions(self) -> int:
        """Number of different functions."""
        return len(set(self.steps))

    @property
    def entries(self) -> int:
        """Number of steps."""
        return len(self.steps)

    def roles(self) -> list[str]:
        """Return the role of each step."""
        found = []
        role = ROLES[0]
        for step in self.steps:
            role = _ROLE_OF_FILE.get(step.file) or _ROLE_OF_FOLDER.get(step.file.rpartition("/")[0]) or role
            found.append(role)
        return found

    def counts(self) -> dict[str, int]:
        """Return the counts, by the names of `COUNTS`."""
        switches = Counter[str]()
        for (before, from_role), (after, to_role) in pairwise(zip(self.steps, self.roles(), strict=True)):
            if before.file != after.file:
                switches[to_role if from_role == to_role else BETWEEN] += 1
        return {
            "switches": self.switches,
            **{name: switches[name] for name in (*ROLES, BETWEEN)},
            "files": self.files,
            "functions": self.functions,
            "entries": self.entries,
        }


class PlainAdder(Service):
    """A Service with a method that is a plain function."""

    def add(self, first: int, second: int, /) -> int:
        """Return the sum."""
        return first + second


class AsyncAdder(Service):
    """A Service with a method that is an asynchronous function."""

    async def add(self, first: int, second: int, /) -> int:
        """Return the sum."""
        return first + second


METHODS: Final[dict[str, type[Service]]] = {"async": AsyncAdder, "plain": PlainAdder}
"""The Services whose methods can be called, by the kind of the method."""


class _Recorder:
    """A profile function that records steps while it is on."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.is_on = False

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        if self.is_on and event == "call" and frame.f_code.co_filename.startswith(_ROOT):
            file = frame.f_code.co_filename.removeprefix(_ROOT).replace(os.sep, "/")
            self.steps.append(Step(file, frame.f_code.co_qualname))

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Install it for this thread and for those that are started meanwhile."""
        before = sys.getprofile(), threading.getprofile()
        threading.setprofile(self)
        sys.setprofile(self)
        try:
            yield
        finally:
            sys.setprofile(before[0])
            threading.setprofile(before[1])


def walk(service: type[Service]) -> Walk:
    """Call ``add`` of a Service through a Manager, without TLS, and return the steps of the last call."""
    recorder = _Recorder()
    with recorder.installed():
        trio.run(_call, service, recorder)
    return Walk(tuple(recorder.steps))


async def _call(service: type[Service], recorder: _Recorder) -> None:
    async with open_manager(port=0, disable_tls=True) as manager, trio.open_nursery() as nursery:
        await nursery.start(partial(service().run, **manager.connect_kwargs()))
        async with connect(**manager.connect_kwargs()) as client:
            link = await client.link(service.__name__)
            for _ in range(_WARM_UP_CALLS):
                await link.add(1, 2)
                await trio.sleep(_SETTLE)
            recorder.is_on = True
            await link.add(1, 2)
            recorder.is_on = False
        nursery.cancel_scope.cancel()
