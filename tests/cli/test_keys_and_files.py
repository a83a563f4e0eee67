"""Tests of the commands ``keygen``, ``certgen``, ``certdump`` and ``delete``."""

from __future__ import annotations

import getpass
import io
import stat
import subprocess
import sys

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa

from msl_network_trio.__main__ import main
from msl_network_trio.manager.certificates import server_context
from tests.cli.test_command_line import Terminal, usage_error
from tests.transport.certificates import ordinary, reference_default, self_signed


@pytest.fixture(autouse=True)
def no_terminal(home, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO())


def run(line: str, *more) -> int:
    return main([*line.split(), *map(str, more)])


def fails(capsys, line: str, *more) -> str:
    capsys.readouterr()
    assert run(line, *more) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    return error


def load_key(path, password=None):
    return serialization.load_pem_private_key(path.read_bytes(), password)


def load_certificate(path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


# ---- keygen ----


def test_the_default_key_is_where_a_manager_looks_and_nobody_else_can_read_it(home, capsys):
    assert run("keygen") == 0
    path = home / "keys" / "localhost.key"
    assert capsys.readouterr().out == f"Created the private RSA key {path}\n"
    key = load_key(path)
    assert isinstance(key, rsa.RSAPrivateKey)
    assert key.key_size == 2048
    if sys.platform != "win32":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert run("certgen") == 0
    server_context()  # raises if it cannot be used


@pytest.mark.parametrize(
    ("line", "kind", "size"),
    [
        ("keygen rsa -s 1024", rsa.RSAPrivateKey, 1024),
        ("keygen dsa --size 1024", dsa.DSAPrivateKey, 1024),
        ("keygen ecc", ec.EllipticCurvePrivateKey, 384),
        ("keygen ecc -c secp256r1", ec.EllipticCurvePrivateKey, 256),
        ("keygen ecc --curve BRAINPOOLP256R1", ec.EllipticCurvePrivateKey, 256),
    ],
)
def test_keys_of_other_kinds(tmp_path, line, kind, size):
    assert run(line, "--out", tmp_path / "new" / "my.key") == 0
    key = load_key(tmp_path / "new" / "my.key")
    assert isinstance(key, kind)
    assert key.key_size == size


@pytest.mark.parametrize("words", [["open", "sesame"], ["file"], []])
def test_a_key_is_encrypted(tmp_path, monkeypatch, words):
    (tmp_path / "file").write_text("open sesame\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(getpass, "getpass", lambda prompt: "open sesame")
    assert run("keygen ecc -o my.key -p", *words) == 0
    with pytest.raises(TypeError):
        load_key(tmp_path / "my.key")
    load_key(tmp_path / "my.key", b"open sesame")


def test_a_key_is_replaced(tmp_path):
    for _ in range(2):
        (tmp_path / "my.key").write_text("something else")
        assert run("keygen ecc -o", tmp_path / "my.key") == 0
        load_key(tmp_path / "my.key")


def test_keys_that_there_cannot_be(tmp_path, capsys):
    assert "'X' is not an elliptic curve. Use one of BRAINPOOLP256R1, " in fails(capsys, "keygen ecc -c X")
    assert "The private key cannot be made" in fails(capsys, "keygen -s 5")
    assert "there is no terminal" in fails(capsys, "keygen -p")
    (tmp_path / "file").touch()
    fails(capsys, "keygen ecc -o", tmp_path / "file" / "my.key")
    for size in ("0", "-1", "big", "1000000"):
        usage_error(["keygen", f"--size={size}"], capsys)


# ---- certgen ----


def test_the_default_certificate_gets_a_key_if_there_is_none(home, capsys):
    assert run("certgen") == 0
    path = home / "certs" / "localhost.crt"
    assert capsys.readouterr().out == f"Created the self-signed certificate {path}\n"
    server_context()
    before = path.read_bytes(), (home / "keys" / "localhost.key").read_bytes()
    assert run("certgen") == 0
    assert path.read_bytes() != before[0]
    assert (home / "keys" / "localhost.key").read_bytes() == before[1]


def test_a_certificate_for_a_key_of_ones_own(tmp_path, capsys):
    run("keygen ecc -p open sesame -o", tmp_path / "my.key")
    (tmp_path / "password").write_text("open sesame")
    for password in (["open", "sesame"], [tmp_path / "password"]):
        assert (
            run(
                "certgen -a sha384 -y 0.5 -k", tmp_path / "my.key", "-p", *password, "--", tmp_path / "my.crt"
            )
            == 0
        )
        certificate = load_certificate(tmp_path / "my.crt")
        assert certificate.signature_hash_algorithm.name == "sha384"
        assert 182 < (certificate.not_valid_after_utc - certificate.not_valid_before_utc).days < 185
        server_context(
            cert_file=tmp_path / "my.crt", key_file=tmp_path / "my.key", key_file_password="open sesame"
        )


def test_what_is_in_a_new_certificate_is_shown(capsys):
    assert run("certgen --show") == 0
    assert "DNSName: localhost" in capsys.readouterr().out


def test_certificates_that_there_cannot_be(tmp_path, capsys):
    run("keygen ecc -p secret -o", tmp_path / "my.key")
    key = ["-k", tmp_path / "my.key"]
    assert "it is encrypted and no password was given" in fails(capsys, "certgen", *key)
    assert "the password is wrong" in fails(capsys, "certgen", *key, "-p", "guess")
    assert "is not a hash algorithm. Use one of SHA224" in fails(capsys, "certgen -a BLAKE2B")
    assert "1e+06 years are too many" in fails(capsys, "certgen -y 1000000")
    assert "No such file" in fails(capsys, "certgen -k", tmp_path / "none.key")
    (tmp_path / "text").write_text("text")
    assert "it is no private key in PEM" in fails(capsys, "certgen -k", tmp_path / "text")
    for years in ("0", "-1", "many", "nan", "inf"):
        assert "is no number of years" in usage_error(["certgen", f"--years-valid={years}"], capsys)


# ---- certdump ----


@pytest.mark.parametrize("certificate", [ordinary, reference_default], ids=["ours", "reference"])
def test_what_is_in_a_certificate(tmp_path, capsys, certificate):
    pem = certificate().pem
    (tmp_path / "my.crt").write_text(pem)
    assert run("certdump", tmp_path / "my.crt") == 0
    text = capsys.readouterr().out
    loaded = load_certificate(tmp_path / "my.crt")
    for line in (
        "Version: v3",
        f"Serial Number: {loaded.serial_number.to_bytes((loaded.serial_number.bit_length() + 7) // 8).hex(':')}",
        "  Common Name: ",
        f"  Not Before: {loaded.not_valid_before_utc:%d %B %Y %H:%M:%S} GMT",
        f"  Not After : {loaded.not_valid_after_utc:%d %B %Y %H:%M:%S} GMT",
        "  Encryption: ",
        "  subjectAltName",
        "    DNSName: localhost",
        "Fingerprint (SHA256):",
        "Fingerprint (SHA1):",
    ):
        assert line in text


def test_a_certificate_cannot_look_like_another_one(tmp_path, capsys):
    pem = self_signed(common_name="lab\nVersion: v9\x1b[2J").pem
    (tmp_path / "my.crt").write_text(pem)
    assert run("certdump", tmp_path / "my.crt") == 0
    lines = capsys.readouterr().out.splitlines()
    assert r"  Common Name: lab\nVersion: v9\x1b[2J" in lines
    assert "Version: v9" not in lines


@pytest.mark.parametrize(("kind", "text"), [("rsa", "RSA"), ("ecc", "Elliptic Curve"), ("dsa", "DSA")])
def test_the_key_of_a_certificate_is_told(tmp_path, capsys, kind, text):
    run(f"keygen {kind} -s 1024 -o", tmp_path / "my.key")
    run("certgen --show -k", tmp_path / "my.key", "--", tmp_path / "my.crt")
    assert f"  Encryption: {text}\n" in capsys.readouterr().out


def test_it_is_written_to_a_file(tmp_path, capsys):
    (tmp_path / "my.crt").write_text(ordinary().pem)
    assert run("certdump", tmp_path / "my.crt", "--out", tmp_path / "new" / "my.txt") == 0
    assert capsys.readouterr().out == f"Dumped the certificate details to {tmp_path / 'new' / 'my.txt'}\n"
    assert "Version: v3" in (tmp_path / "new" / "my.txt").read_text()


def test_what_is_no_certificate_is_told(tmp_path, capsys):
    (tmp_path / "text").write_text("text")
    assert "there is no certificate in it" in fails(capsys, "certdump", tmp_path / "text")
    assert "No such file" in fails(capsys, "certdump", tmp_path / "none")
    broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    (tmp_path / "text").write_text(broken)
    assert "there is no certificate in it" in fails(capsys, "certdump", tmp_path / "text")


# ---- delete ----

FILES = [
    "manager.sqlite3",
    "certs/localhost.crt",
    "certs/lab-3.crt",
    "keys/localhost.key",
    "logs/manager-1.log",
    "certs/notes.txt",
    "other.sqlite3",
]


@pytest.fixture
def files(home):
    for name in FILES:
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text("x" * 1500)
    return home


def left(home) -> set[str]:
    return {str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("options", "gone"),
    [
        ("--all", FILES[:5]),
        ("-a", FILES[:5]),
        ("--database", FILES[:1]),
        ("-c", FILES[1:3]),
        ("--keys -l", FILES[3:5]),
    ],
)
def test_what_is_told_to_be_deleted_is_and_nothing_else(files, options, gone, capsys):
    assert run(f"delete {options} --yes") == 0
    assert left(files) == set(FILES) - set(gone)
    assert capsys.readouterr().out.count("[Deleted]") == len(gone)


@pytest.mark.parametrize(
    ("answer", "deleted"), [("", True), ("y", True), ("Yes", True), ("n", False), ("?", False)]
)
def test_a_person_is_asked_before(files, answer, deleted, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{answer}\n"))
    assert run("delete -d") == 0
    assert ("manager.sqlite3" not in left(files)) is deleted
    assert "[2 kB] will be deleted\nProceed (Y/n)? " in capsys.readouterr().out


def test_if_nobody_can_be_asked_nothing_is_deleted(files, capsys):
    assert "Pass --yes to delete without a question" in fails(capsys, "delete --all")
    assert left(files) == set(FILES)


def test_without_standard_input_nobody_can_be_asked_either(files, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    assert "Pass --yes to delete without a question" in fails(capsys, "delete --all")
    assert left(files) == set(FILES)


def test_quiet_says_nothing(files, capsys):
    assert run("delete --all --quiet --yes") == 0
    assert run("delete --all --quiet --yes") == 0
    assert capsys.readouterr() == ("", "")


def test_another_folder_is_cleared(files, tmp_path, capsys):
    assert "There is no folder" in fails(capsys, "delete -a -r", tmp_path / "nowhere")
    monkey_home = files.rename(tmp_path / "moved")
    assert run("delete --all -y --root", monkey_home) == 0
    assert left(monkey_home) == set(FILES[5:])


def test_what_to_delete_has_to_be_said(files, capsys):
    assert "The files to delete are missing" in fails(capsys, "delete --yes")


def test_nothing_to_delete_is_told(files, capsys):
    run("delete --logs --yes")
    capsys.readouterr()
    assert run("delete --logs") == 0
    assert capsys.readouterr().out == "There are no files of the kind 'logs'\n"


def test_help_of_the_commands_takes_no_time_for_imports():
    code = (
        "import sys\n"
        "from msl_network_trio.__main__ import main\n"
        "for name in ('user', 'hostname', 'keygen', 'certgen', 'certdump', 'delete'):\n"
        "    try:\n"
        "        main([name, '--help'])\n"
        "    except SystemExit:\n"
        "        pass\n"
        "unneeded = {'cryptography', 'rich', 'sqlite3', 'msl_network_trio.manager.opening'} & set(sys.modules)\n"
        "assert not unneeded, unneeded\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
