"""Subclasses that use names of the base class, here and in msl-network, for themselves."""

from __future__ import annotations

import dataclasses
import inspect

import pytest

from msl_network_trio import ConnectionLost, Service
from msl_network_trio.service.private_names import PRIVATE_NAMES

from .peer import running

BEFORE = [
    "_Service__ignored",
    "_Service__is_running",
    "_Service__max_workers",
    "_Service__serving",
    "_connect_and_serve",
    "_make_identity",
    "_serving",
    "_state",
    "_take_tasks",
]
"""Private names that the base class had in earlier versions, or may have in later ones."""


def names_of_the_reference() -> list[str]:
    from msl.network import Service as Reference

    names = {name for name in vars(Reference(name="x")) if name.startswith("_")}
    methods = {name for name, _ in inspect.getmembers(Reference, callable) if name[:1] == "_" != name[1:2]}
    return sorted(names | methods)


REFERENCE = names_of_the_reference()
ALL = sorted({*PRIVATE_NAMES, *BEFORE, *REFERENCE, "_max_workers", "_ignored", "_nursery", "_request"})


class Set(Service):
    """A Service that sets an attribute of the given name."""

    def __init__(self, name):
        super().__init__(name="Service")
        setattr(self, name, "mine")
        self._which = name

    def own(self):
        return getattr(self, self._which)

    def note(self):
        self.emit_notification(1)
        return str(self.identity()["name"])

    @property
    def half(self):
        return 0.5


def of_class(name, value):
    return type(
        "OfClass", (Set,), {name: value, "__init__": lambda self, _: Service.__init__(self, name="Service")}
    )


def behind(name, value):
    """Return a Service that has the name from another base class, as the driver of an instrument may."""
    driver = type("Driver", (), {name: value})
    bases = (Set, driver)
    return type("Behind", bases, {"__init__": lambda self, _: Service.__init__(self, name="Service")})


class Computed:
    """A property with a setter."""

    def __get__(self, instance, cls=None):
        return self if instance is None else instance.__dict__.get("computed", "mine")

    def __set__(self, instance, value):
        instance.__dict__["computed"] = value

    def __delete__(self, instance):
        del instance.__dict__["computed"]


FORMS = {
    "set": lambda name: Set,
    "class attribute": lambda name: of_class(name, "mine"),
    "property": lambda name: of_class(name, property(lambda self: "mine")),
    "attribute of another base class": lambda name: behind(name, "mine"),
    "property of another base class": lambda name: behind(name, property(lambda self: "mine")),
    "descriptor of another base class": lambda name: behind(name, Computed()),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ALL)
async def test_a_subclass_may_have_any_private_name(name, form):
    service = FORMS[form](name)(name)
    service.__dict__.setdefault("_which", name)
    if name == "_which":
        return
    async with running(service, max_unsent=100_000) as peer:
        assert await peer.call("own") == "mine"
        assert await peer.call("half") == 0.5
        await peer.request("note")
        assert [(await peer.answer())["result"] for _ in range(2)] == [[[1], {}], "Service"]
        assert (service.name, service.max_clients, service.port) == ("Service", -1, 0)
        assert repr(service) == "<Service Service manager=localhost:1875 port=0>"
        assert getattr(service, name) == "mine"
    assert getattr(service, name) == "mine"


@pytest.mark.parametrize("name", sorted(PRIVATE_NAMES))
def test_what_another_base_class_has_can_be_set_and_deleted(name):
    service = behind(name, Computed())(name)
    setattr(service, name, 5)
    assert (getattr(service, name), service.__dict__["computed"]) == (5, 5)
    delattr(service, name)
    assert getattr(service, name) == "mine"
    service = behind(name, "mine")(name)
    setattr(service, name, 5)
    assert getattr(service, name) == 5
    delattr(service, name)
    assert getattr(service, name) == "mine"
    with pytest.raises(AttributeError, match=name):
        delattr(service, name)
    assert getattr(behind(name, "mine"), name) == "mine"


READABLE = {
    "_address_manager": (None, "localhost:1875"),
    "_identity": (None, {"name": "Service"}),
    "_ignore_attributes": (["x"], ["x"]),
    "_loop_thread_id": (None, int),
    "_max_clients": (3, 3),
    "_name": ("Service", "Service"),
    "_network_name": ("<UNKNOWN>", "Service[vm:50123]"),
    "_port": (None, 0),
    "_tasks": ([], []),
    "_username": (None, "alice"),
}


async def test_private_attributes_of_the_reference_can_be_read():
    service = Service(name="Service", max_clients=3, ignore_attributes="x")
    assert {name: getattr(service, name) for name in READABLE} == {
        name: before for name, (before, _) in READABLE.items()
    }
    async with running(service, username="alice"):
        for name, (_, expected) in READABLE.items():
            value = getattr(service, name)
            if isinstance(expected, dict):
                assert value.items() >= expected.items()
            elif isinstance(expected, type):
                assert isinstance(value, expected)
            else:
                assert value == expected


@pytest.mark.parametrize("name", sorted(set(REFERENCE) & {*PRIVATE_NAMES} - {*READABLE}))
def test_those_that_have_no_meaning_here_say_what_to_use(name):
    service = Service()
    assert not hasattr(service, name)
    with pytest.raises(AttributeError, match=r"\w{4}"):
        getattr(service, name)
    with pytest.raises(AttributeError, match=f"'Service' has no attribute '{name}'"):
        getattr(Service, name)


def test_all_attributes_that_the_reference_sets_have_been_thought_of():
    from msl.network import Service as Reference

    private = {name for name in vars(Reference(name="x")) if name.startswith("_")}
    assert private - {"_max_debug_length"} == set(PRIVATE_NAMES)


def test_a_dataclass_may_have_fields_with_these_names():
    @dataclasses.dataclass
    class Driver(Service):
        _port: str
        _name: str = "driver"

        def __post_init__(self):
            super().__init__()

    assert (Driver("COM3")._port, Driver("COM3")._name, Driver("COM3").name) == ("COM3", "driver", "Driver")


def test_a_subclass_that_intercepts_all_attributes_keeps_them_to_itself():
    class Recording(Service):
        def __setattr__(self, name, value):
            raise AssertionError(name)

        def __getattr__(self, name):
            return f"made up: {name}"

    service = Recording(name="R")
    assert (service.name, service._loop, service._other) == ("R", "made up: _loop", "made up: _other")
    assert service._port is None


# ---- a missing super().__init__() ----


class Forgotten(Service):
    def __init__(self):
        self.voltage = 1


class TooEarly(Service):
    def __init__(self):
        self.label = self.name
        super().__init__()


USES = {
    **{
        name: (lambda service, name=name: getattr(service, name))
        for name in (
            "name",
            "max_clients",
            "address_manager",
            "port",
            "loop_thread_id",
            "nursery",
            "_port",
            "_name",
        )
    },
    "identity": Service.identity,
    "start": Service.start,
    "add_tasks": Service.add_tasks,
    "ignore_attributes": lambda service: service.ignore_attributes("x"),
    "emit_notification": Service.emit_notification,
    "emit_notification_threadsafe": Service.emit_notification_threadsafe,
}
REPORTED = r"^Forgotten\.__init__\(\) has not called super\(\)\.__init__\(\), "


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_missing_call_of_init_is_reported_as_such(use):
    with pytest.raises(RuntimeError, match=REPORTED):
        use(Forgotten())


async def test_a_missing_call_of_init_is_reported_by_run():
    with pytest.raises(RuntimeError, match=REPORTED):
        await Forgotten().run()


def test_a_late_call_of_init_is_reported():
    with pytest.raises(RuntimeError, match=r"TooEarly\.__init__\(\) has not called super"):
        TooEarly()


def test_what_is_not_initialized_can_be_shown():
    service = Forgotten()
    assert (repr(service), str(service)) == ("<Forgotten Service, not initialized>", "<UNKNOWN>")
    assert service.set_logging_level("no such level") is False


# ---- keyword arguments with the names of parameters ----

KEYWORDS = {name: name for name in ("self", "service", "function", "call", "args", "kwargs", "cls", "name")}


class Keywords(Service):
    def plain(self, /, **settings):
        return settings

    async def task(self, /, **settings):
        return settings

    def awaited(self, /, **settings):
        return self.task(**settings)

    def emit(self):
        self.emit_notification(**KEYWORDS)
        self.emit_notification_threadsafe(**KEYWORDS)

    def shutdown_service(self, /, **settings):
        return settings


class AsyncShutdown(Keywords):
    async def shutdown_service(self, /, **settings):
        return settings


@pytest.mark.parametrize(
    "attribute", ["plain", "task", "awaited", "shutdown_service", "async shutdown_service"]
)
async def test_a_request_may_have_any_keyword(attribute):
    service = (AsyncShutdown if attribute.startswith("async") else Keywords)(name="Service")
    async with running(service) as peer:
        await peer.send(
            attribute=attribute.removeprefix("async "), args=[], kwargs=KEYWORDS, uid="1", requester="C"
        )
        assert (await peer.answer())["result"] == KEYWORDS


async def test_a_notification_may_have_any_keyword():
    async with running(Keywords(name="Service")) as peer:
        await peer.request("emit")
        assert [(await peer.answer())["result"] for _ in range(2)] == [[[], KEYWORDS]] * 2
    with pytest.raises(ConnectionLost):
        Keywords().emit_notification(**KEYWORDS)
