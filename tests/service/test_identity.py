"""The identity of a Service."""

from __future__ import annotations

import logging

import pytest

from msl_network_trio import Service

package_logger = logging.getLogger("msl_network_trio")


class Everything(Service):
    euler = 2.718
    unsendable = frozenset({1, 2})
    _private = 1

    def add(self, x, y=2, *, z: int = 3) -> int:
        return x + y + z

    async def wait(self, seconds: float) -> None:
        pass

    @property
    def pi(self):
        return 3.14

    @property
    def broken(self):
        raise RuntimeError("the camera is off")

    def shutdown_service(self):
        pass


def test_attributes_are_described_as_the_reference_does():
    service = Everything(name="E", max_clients=3)
    identity = service.identity()
    assert identity["attributes"] == {
        "add": "(x, y=2, *, z: 'int' = 3) -> 'int'",
        "euler": 2.718,
        "pi": 3.14,
        "set_logging_level": "(level: Union[str, int]) -> bool",
        "shutdown_service": "()",
        "wait": "(seconds: 'float') -> 'None'",
    }
    assert list(identity) == ["type", "name", "attributes", "max_clients", "language", "os"]
    assert (identity["type"], identity["name"], identity["max_clients"]) == ("service", "E", 3)


def test_a_warning_tells_what_cannot_be_described(caplog):
    Everything().identity()
    texts = [record.getMessage() for record in caplog.records]
    assert texts == [
        "the camera is off [attribute='broken']",
        "Object of type frozenset is not JSON serializable [attribute='unsendable']",
    ]


def test_what_is_ignored_is_neither_described_nor_warned_of(caplog):
    service = Everything(ignore_attributes=["broken", "unsendable"])
    service.ignore_attributes("euler", "pi")
    assert service.identity()["attributes"].keys() == {"add", "wait", "set_logging_level", "shutdown_service"}
    assert not caplog.records


def test_one_name_to_ignore_can_be_a_text():
    assert "add" not in Everything(ignore_attributes="add").identity()["attributes"]


def test_an_attribute_that_cannot_be_sent_does_not_spoil_the_identity(caplog):
    service = Everything(ignore_attributes=["broken", "unsendable"])
    service.strange = "\ud800"
    service.number = float("nan")
    attributes = service.identity()["attributes"]
    assert "strange" not in attributes
    assert repr(attributes["number"]) == "nan"
    assert "strange" in caplog.text


@pytest.mark.parametrize("max_clients", [None, 0, -5])
def test_any_number_of_clients_is_minus_one(max_clients):
    assert Service(max_clients=max_clients).identity()["max_clients"] == -1


def test_the_name_is_that_of_the_class_unless_one_is_given():
    assert Everything().name == "Everything"
    assert Everything(name="x").name == "x"


@pytest.mark.parametrize("max_workers", [0, -1])
def test_there_must_be_a_worker(max_workers):
    with pytest.raises(ValueError, match="max_workers"):
        Service(max_workers=max_workers)


@pytest.mark.parametrize(
    ("level", "number"), [("DEBUG", 10), ("info", 20), ("30", 30), (40, 40), ("warning", 30)]
)
def test_the_logging_level_can_be_set(level, number, monkeypatch):
    monkeypatch.setattr(package_logger, "level", logging.NOTSET)
    assert Service().set_logging_level(level) is True
    assert package_logger.level == number
    package_logger.setLevel(logging.NOTSET)


@pytest.mark.parametrize("level", ["loud", None, [1]])
def test_a_logging_level_that_does_not_exist_changes_nothing(level, caplog):
    assert Service.set_logging_level(level) is False
    assert package_logger.level == logging.NOTSET
    assert "invalid logging level" in caplog.text
