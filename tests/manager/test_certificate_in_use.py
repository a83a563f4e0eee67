"""A certificate that is about to expire is reported in time, and replaced while the Manager runs."""

from __future__ import annotations

import logging
import ssl
from functools import partial

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from msl_network_trio import connect
from msl_network_trio.cli.main import main
from msl_network_trio.exceptions import CertificateError, ManagerError
from msl_network_trio.manager.certificate_in_use import CertificateInUse, LoadedCertificate, load
from msl_network_trio.manager.certificates import PresentedCertificate, presented_certificate, server_context
from msl_network_trio.manager.opening import open_manager
from msl_network_trio.protocol.manager.event_log import FIELDS
from tests.transport.certificates import ordinary, self_signed

DAY = 24 * 3600
HINT = "Replace it, and have the Manager load the new one"


class Calendar:
    """The time of day, which goes with Trio's clock and can be set."""

    def __init__(self):
        self.start = 1_900_000_000

    def now(self):
        return self.start + trio.current_time()


def until(calendar, days):
    """Return a pair that expires so many days from now."""

    class Until(PresentedCertificate):
        expires = calendar.now() + days * DAY

    return LoadedCertificate(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), "lab.crt", Until(b"", "then"))


@pytest.fixture
def calendar():
    return Calendar()


@pytest.fixture
def reports(caplog, calendar):
    """Return what was reported: the day, and the number of days before the end."""
    caplog.set_level(logging.INFO)

    def found():
        events = [getattr(record, FIELDS, {}) for record in caplog.records]
        return [event["days"] for event in events if event.get("event") == "certificate_expires"]

    return found


async def test_it_is_reported_30_7_and_1_days_before_and_in_the_end_once_each(
    autojump_clock, calendar, reports, nursery, caplog
):
    begun = trio.current_time()
    used = CertificateInUse(until(calendar, 40), None, None, calendar.now)
    nursery.start_soon(used.report_expiry)
    days = []
    for _ in range(200):
        await trio.sleep(DAY / 4)
        if len(reports()) > len(days):
            days.append((trio.current_time() - begun) / DAY)
    assert reports() == [30, 7, 1, 0]
    assert days == pytest.approx([10, 33, 39, 40], abs=0.3)
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 3 + ["ERROR"]
    first, *_, last = caplog.messages
    assert first.startswith("the certificate lab.crt expires in 30 days, on 2030-")
    assert HINT in first
    assert "expires in 1 day, on" in caplog.text
    assert last.startswith("the certificate lab.crt has expired on 2030-")


@pytest.mark.parametrize(
    ("days", "reported"),
    [(30.5, [30, 7, 1, 0]), (29, [7, 1, 0]), (5, [1, 0]), (0.5, [0]), (-1, [])],
)
async def test_what_was_said_when_it_was_loaded_is_not_said_again(
    autojump_clock, calendar, reports, nursery, days, reported
):
    nursery.start_soon(CertificateInUse(until(calendar, days), None, None, calendar.now).report_expiry)
    await trio.sleep(60 * DAY)
    assert reports() == reported


async def test_a_clock_that_is_set_forward_is_noticed_within_an_hour(
    autojump_clock, calendar, reports, nursery
):
    nursery.start_soon(CertificateInUse(until(calendar, 40), None, None, calendar.now).report_expiry)
    await trio.sleep(DAY)
    calendar.start += 34 * DAY  # past two reports, of which only the last one still makes sense
    await trio.sleep(3601)
    assert reports() == [7]


async def test_after_another_one_was_loaded_that_one_counts(autojump_clock, calendar, reports, nursery):
    used = CertificateInUse(until(calendar, 8), None, None, calendar.now)
    nursery.start_soon(used.report_expiry)
    await trio.sleep(2 * DAY)
    assert reports() == [7]
    used.loaded = until(calendar, 400)
    used._changed.set()
    await trio.sleep(300 * DAY)
    assert reports() == [7]
    await trio.sleep(101 * DAY)
    assert reports() == [7, 30, 7, 1, 0]


async def test_what_nobody_is_shown_does_not_expire(autojump_clock, calendar, reports, nursery):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    nursery.start_soon(
        CertificateInUse(LoadedCertificate(context, "lab.crt", None), None, None).report_expiry
    )
    await trio.sleep(100 * DAY)
    assert reports() == []


@pytest.mark.parametrize("valid", [(-1, 20), (-3, -1), (1, 3)])
def test_when_it_expires_is_known_also_if_it_is_not_valid(tmp_path, valid):
    identity = self_signed(valid_from=valid[0], valid_to=valid[1])
    path = save(tmp_path, identity)
    context, _ = server_context(cert_file=path)
    found = presented_certificate(context, path)
    assert found.fingerprint == identity.fingerprint
    assert found.der == identity.der
    assert found.expires == pytest.approx(self_signed_end(identity), abs=1)


def test_what_is_shown_may_be_nothing(tmp_path):
    path = save(tmp_path, ordinary())
    context, _ = server_context(cert_file=path)
    path.write_text(self_signed().pem)  # which is not what the context has
    assert presented_certificate(context, path) is None


def self_signed_end(identity):
    from cryptography import x509

    return x509.load_pem_x509_certificate(identity.pem.encode()).not_valid_after_utc.timestamp()


# ---- reloading ----


def save(folder, identity, key=None):
    path = folder / "lab.pem"
    path.write_text((key or identity.key) + identity.pem)
    path.chmod(0o600)
    return path


@pytest.fixture
def lab(tmp_path, users):
    """Open a Manager with a certificate, on real sockets, also for WebSocket."""
    path = save(tmp_path, ordinary())
    return partial(open_manager, host="127.0.0.1", port=0, websocket_port=0, cert_file=path, database=users)


def admin(manager, trusted, **more):
    kwargs = {**manager.connect_kwargs(), "cert_file": trusted, "username": "alice", "password": "pw-a"}
    return connect(**{**kwargs, **more})


def trust(folder, identity, name):
    path = folder / name
    path.write_text(identity.pem)
    return path


async def test_new_connections_get_the_new_certificate_and_open_ones_go_on(lab, tmp_path):
    new = self_signed(valid_to=300)
    old_trust, new_trust = trust(tmp_path, ordinary(), "old.crt"), trust(tmp_path, new, "new.crt")
    with trio.fail_after(60):
        async with lab() as manager, admin(manager, old_trust) as client:
            save(tmp_path, new)
            told = await client.admin_request("reload_certificate")
            assert told["certificate"] == str(tmp_path / "lab.pem")
            assert told["fingerprint"] == new.fingerprint
            assert told["expires"].endswith("+00:00")
            assert await client.identities()
            for transport in ({}, {"transport": "websocket", "port": manager.websocket_port}):
                async with admin(manager, new_trust, **transport) as other:
                    assert await other.admin_request("port") == manager.port
                with pytest.raises(CertificateError):
                    await admin(manager, old_trust, **transport)
            assert (await manager.reload_certificate())["fingerprint"] == new.fingerprint


@pytest.mark.parametrize(
    ("ruin", "why"),
    [
        (lambda folder: save(folder, self_signed(), ordinary().key), "does not fit the certificate"),
        (lambda folder: save(folder, self_signed(valid_from=-3, valid_to=-1)), "certificate has expired"),
        (lambda folder: save(folder, self_signed(valid_from=1)), "certificate is not yet valid"),
        (lambda folder: (folder / "lab.pem").unlink(), "does not exist"),
        (lambda folder: (folder / "lab.pem").write_text("nothing"), "There is no certificate in"),
        (lambda folder: (folder / "lab.pem").write_text(ordinary().pem), "There is no private key in"),
    ],
)
async def test_a_pair_that_cannot_be_used_is_refused_and_the_old_one_stays(lab, tmp_path, ruin, why):
    trusted = trust(tmp_path, ordinary(), "old.crt")
    with trio.fail_after(60):
        async with lab() as manager, admin(manager, trusted) as client:
            ruin(tmp_path)
            with pytest.raises(ManagerError, match=why) as caught:
                await client.admin_request("reload_certificate")
            assert caught.value.type_name == "CertificateError"
            assert caught.value.message.endswith(". The certificate in use remains.")
            async with admin(manager, trusted) as other:
                assert await other.admin_request("port") == manager.port
            save(tmp_path, ordinary())
            assert (await client.admin_request("reload_certificate"))["fingerprint"] == ordinary().fingerprint


async def test_without_tls_there_is_nothing_to_load(users):
    async with (
        open_manager(in_memory=True, database=users) as manager,
        connect(**manager.connect_kwargs(), username="alice", password="pw-a") as client,
    ):
        with pytest.raises(ManagerError, match="does without TLS"):
            await client.admin_request("reload_certificate")


async def test_it_takes_an_administrator(lab, tmp_path):
    with trio.fail_after(60):
        async with (
            lab() as manager,
            admin(manager, manager.certificate, username="bob", password="pw-b") as bob,
        ):
            with pytest.raises(ManagerError, match="You must be an administrator"):
                await bob.admin_request("reload_certificate")


async def test_a_manager_reports_its_own_certificate_and_watches_the_one_that_it_has_loaded(
    lab, tmp_path, monkeypatch
):
    async with lab() as manager:
        used = manager._certificate
        assert used.loaded.presented.fingerprint == ordinary().fingerprint
        await wait_all_tasks_blocked()
        before = used._changed
        save(tmp_path, self_signed())
        await manager.reload_certificate()
        await wait_all_tasks_blocked()
        assert before.is_set()
        assert not used._changed.is_set()  # it is watched anew


def test_load_gives_what_there_is(tmp_path):
    path = save(tmp_path, ordinary())
    loaded = load(partial(server_context, cert_file=path))
    assert (loaded.path, loaded.presented.fingerprint) == (path, ordinary().fingerprint)


async def test_the_command_has_it_reloaded(lab, tmp_path, capsys):
    new = self_signed(valid_to=300)
    trusted = trust(tmp_path, ordinary(), "old.crt")

    def run(cert_file):
        line = f"certreload --host 127.0.0.1 --port {port} -u alice -P pw-a --cert-file {cert_file}"
        return main(line.split())

    with trio.fail_after(60):
        async with lab() as manager:
            port = manager.port
            save(tmp_path, new)
            assert await trio.to_thread.run_sync(run, trusted) == 0
            printed = capsys.readouterr().out
            assert printed.startswith(f"The Manager uses the certificate {tmp_path / 'lab.pem'}\n")
            assert f"Fingerprint (SHA256): {new.fingerprint}\n" in printed
            (tmp_path / "lab.pem").write_text("nothing")
            assert await trio.to_thread.run_sync(run, trust(tmp_path, new, "new.crt")) == 1
            assert "There is no certificate in" in capsys.readouterr().err
