"""Request for an administrator: the Manager may ask the client to log in before it answers."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import trio

from msl_network_trio.client.reply import timed_out
from msl_network_trio.client.task_requests import TaskRequests
from msl_network_trio.exceptions import ConnectionLost
from msl_network_trio.hidden import hide
from msl_network_trio.protocol.messages import Question


@trio.lowlevel.enable_ki_protection
async def admin_request(
    requests: TaskRequests,
    attribute: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    timeout: float | None,
    *,
    answer: Callable[[Question], Awaitable[str]],
) -> Any:
    """Make a request that only an administrator may make; see `TaskRequests.request` for what it raises.

    Args:
        requests: Makes the requests over the connection.
        attribute: Attribute of the Manager, dots included.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        timeout: Maximum seconds to wait for the reply, without those that `answer` takes.
        answer: Answers the Manager's questions; called in the task of the caller.
    """
    seconds = requests.seconds(timeout)
    request = requests.make_admin(attribute, args, kwargs)
    with trio.move_on_after(seconds) as scope:
        try:
            await requests.exchange(request)
            while not request.settled:
                question = request.question
                assert question is not None  # the only other reason to be woken
                left = scope.deadline - trio.current_time()
                scope.deadline = math.inf
                text = hide(await answer(question))
                scope.deadline = trio.current_time() + left
                if not request.settled:  # the connection may have ended in the meantime
                    requests.answer(text)
                    await request.wait()
        except ConnectionLost:
            await trio.lowlevel.checkpoint()
            raise
        except BaseException:
            requests.abandon(request)
            raise
    if not request.settled:
        raise timed_out(request, seconds)
    return request.outcome()
