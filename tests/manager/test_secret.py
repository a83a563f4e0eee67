"""Tests of passwords, given directly or in a file."""

from __future__ import annotations

import pytest

from msl_network_trio.exceptions import AuthenticationError
from msl_network_trio.manager.secret import read_secret


def read(value) -> str:
    return read_secret(value, "The password", AuthenticationError)


@pytest.mark.parametrize(
    ("value", "password"),
    [
        ("abc", "abc"),
        (["abc", "123"], "abc 123"),
        (" a b ", " a b "),
        ("/no/such/file", "/no/such/file"),
        ("x" * 5000, "x" * 5000),
        ("a\0b", "a\0b"),
    ],
)
def test_what_is_no_file_is_the_password(value, password):
    assert read(value) == password


@pytest.mark.parametrize("content", [b"  abc 123 \nmore\n", b"\xef\xbb\xbfabc 123\r\n", b"abc 123"])
def test_the_first_line_of_a_file_is_the_password(tmp_path, content):
    path = tmp_path / "my password.txt"
    path.write_bytes(content)
    assert read(str(path)) == "abc 123"
    assert read(str(path).split(" ")) == "abc 123"


def test_a_folder_is_no_file(tmp_path):
    assert read(str(tmp_path)) == str(tmp_path)


@pytest.mark.parametrize(
    ("content", "text"), [(b"\nabc\n", "empty"), (b"", "empty"), (b"\xff\xfe", "not UTF-8")]
)
def test_a_file_without_password_is_an_error_instead_of_no_password(tmp_path, content, text):
    path = tmp_path / "password.txt"
    path.write_bytes(content)
    with pytest.raises(AuthenticationError, match=text) as caught:
        read(str(path))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("value", ["", []])
def test_an_empty_password_is_an_error(value):
    with pytest.raises(AuthenticationError, match="The password is empty"):
        read(value)


def test_a_file_that_cannot_be_read_is_an_error(tmp_path, monkeypatch):
    path = tmp_path / "password.txt"
    path.write_text("abc")

    def refuse(self, *args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", refuse)
    with pytest.raises(AuthenticationError, match=r"cannot be read .*password.txt \(Permission denied\)"):
        read(str(path))
