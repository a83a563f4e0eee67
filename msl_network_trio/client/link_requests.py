"""Requests for links; their answers are taken in the reader, as what follows may concern the link."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from msl_network_trio.client.reply import ParkedRequest, PostedReply
from msl_network_trio.protocol.requests import Request


class LinkAnswers(Protocol):
    """Takes the answers to link requests; see `Presence`."""

    def take_answer(self, service: str, answered: Request) -> None:
        """Take an answer in the reader."""


class LinkRequest(ParkedRequest):
    """A request for a link, which is made in the reader: a notice that follows the answer may concern it."""

    __slots__ = ("answers", "make", "name")

    answers: LinkAnswers
    make: Callable[[Mapping[str, Any]], None]
    name: str

    def wake(self) -> None:
        """Pass the answer on, make the link, and wake the caller."""
        if self.settled:
            self.answers.take_answer(self.name, self)
            if self.error is None and is_service_identity(self.result):
                self.make(self.result)
        super().wake()


class LinkProbe(PostedReply):
    """A request for a link that exists or is to be restored; nobody awaits it."""

    __slots__ = ("answers", "name")

    answers: LinkAnswers
    name: str

    def wake(self) -> None:
        """Pass the answer on."""
        if self.settled:
            self.answers.take_answer(self.name, self)


def is_service_identity(identity: Any) -> bool:
    """Return whether the answer to a link request is the identity of a Service."""
    match identity:
        case {"address": str(), "attributes": dict()}:
            return True
    return False


def link_request(
    service: str, answers: LinkAnswers, make: Callable[[Mapping[str, Any]], None]
) -> Callable[[str, str, str], LinkRequest]:
    """Return the kind of request for a link that a task awaits; see `RequestFactory.make`.

    Args:
        service: Name of the Service.
        answers: Takes the answer.
        make: Makes the link, with the identity of the Service.
    """
    return _kind(LinkRequest, service, answers, make=make)


def link_probe(service: str, answers: LinkAnswers) -> Callable[[str, str, str], LinkProbe]:
    """Return the kind of request for a link that nobody awaits; arguments as in `link_request`."""
    return _kind(LinkProbe, service, answers)


def _kind(
    cls: type[Any], service: str, answers: LinkAnswers, **attributes: Any
) -> Callable[[str, str, str], Any]:
    def new(receiver: str, attribute: str, uid: str) -> Any:
        request = cls(receiver, attribute, uid)
        request.name = service
        request.answers = answers
        for name, value in attributes.items():
            setattr(request, name, value)
        return request

    return new
