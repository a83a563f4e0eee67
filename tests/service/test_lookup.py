"""Look-up of requested attributes: access, and the way to carry a request out."""

from __future__ import annotations

import functools
import inspect

import pytest

from msl_network_trio import Service
from msl_network_trio.service.lookup import NOT_IN_REFERENCE, PROGRAM_ONLY, UNLISTED, How, look_up


class Callable:
    def __call__(self):
        return 1


class AsyncCallable:
    async def __call__(self):
        return 1


class Everything(Service):
    constant = 5
    nothing = None
    class_callable = Callable()
    some_class = AsyncCallable
    _private = 1

    def __init__(self):
        super().__init__()
        self.value = [1]
        self.own_class = AsyncCallable
        self.callable = Callable()
        self.async_callable = AsyncCallable()
        self.partial = functools.partial(self.async_method)
        self.shadowed = 7

    def method(self):
        pass

    async def async_method(self):
        pass

    @staticmethod
    def static():
        pass

    @staticmethod
    async def async_static():
        pass

    @classmethod
    def of_class(cls):
        pass

    @classmethod
    async def async_of_class(cls):
        pass

    @property
    def computed(self):
        raise AssertionError("evaluated in the Trio thread")

    def shadowed(self):
        pass


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("constant", How.VALUE),
        ("nothing", How.VALUE),
        ("value", How.VALUE),
        ("shadowed", How.VALUE),
        ("method", How.THREAD),
        ("static", How.THREAD),
        ("of_class", How.THREAD),
        ("callable", How.THREAD),
        ("own_class", How.THREAD),
        ("async_method", How.TASK),
        ("async_static", How.TASK),
        ("async_of_class", How.TASK),
        ("async_callable", How.TASK),
        ("partial", How.TASK),
        ("computed", How.UNKNOWN),
        ("class_callable", How.UNKNOWN),
        ("some_class", How.UNKNOWN),
        ("identity", How.THREAD),
        ("set_logging_level", How.THREAD),
        ("name", How.UNKNOWN),
    ],
)
def test_how_a_request_is_carried_out(name, how):
    service = Everything()
    found, what = look_up(service, name)
    assert found is how
    if how is How.VALUE:
        assert what == getattr(service, name)
    elif how is not How.UNKNOWN:
        assert callable(what)


@pytest.mark.parametrize("name", ["_private", "__class__", "_", "__disconnect__", "_serving"])
def test_private_names_are_refused(name):
    with pytest.raises(PermissionError, match="^Cannot request a private attribute$"):
        look_up(Everything(), name)


@pytest.mark.parametrize("name", sorted(PROGRAM_ONLY | NOT_IN_REFERENCE))
def test_what_is_for_the_program_is_refused(name):
    with pytest.raises(PermissionError, match="for the program that runs the Service"):
        look_up(Everything(), name)


def test_every_public_name_of_the_base_class_has_been_thought_of():
    public = {name for name in dir(Service) if not name.startswith("_")}
    assert public == PROGRAM_ONLY | NOT_IN_REFERENCE | UNLISTED | {"set_logging_level"}


def test_what_is_for_the_program_is_refused_also_if_it_is_overridden():
    class Overriding(Service):
        def shutdown_handler(self):
            pass

        def start(self, **kwargs):
            pass

    for name in ("start", "shutdown_handler"):
        with pytest.raises(PermissionError):
            look_up(Overriding(), name)


def test_names_that_the_reference_does_not_have_belong_to_a_subclass_that_defines_them():
    class Owner(Service):
        request = 5

        def run(self, distance):
            pass

    class Heir(Owner):
        pass

    service = Service()
    service.run = abs
    assert look_up(service, "run") == (How.THREAD, abs)

    for service in (Owner(), Heir()):
        assert look_up(service, "run") == (How.THREAD, service.run)
        assert look_up(service, "request") == (How.VALUE, 5)
        with pytest.raises(PermissionError):
            look_up(service, "nursery")


@pytest.mark.parametrize("name", ["nope", ""])
def test_what_is_not_there_is_an_attribute_error_as_python_has_it(name):
    with pytest.raises(AttributeError) as expected:
        getattr(Everything(), name)
    with pytest.raises(AttributeError) as caught:
        look_up(Everything(), name)
    assert str(caught.value) == str(expected.value)


def test_attributes_that_are_made_up_are_looked_up_elsewhere():
    class Proxy(Service):
        def __getattr__(self, name):
            raise AssertionError("evaluated in the Trio thread")

    assert look_up(Proxy(), "anything") == (How.UNKNOWN, None)


def test_a_function_that_is_set_later_counts():
    service = Everything()

    async def replacement():
        pass

    service.method = replacement
    assert look_up(service, "method") == (How.TASK, replacement)
    assert inspect.iscoroutinefunction(replacement)
