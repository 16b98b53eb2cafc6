"""Certificates: which files are refused, and that renewed ones are used while damaged ones are not."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
import trustme

from serving.edge.grpc_server import GrpcServer
from serving.edge.tls import Certificates
from serving.errors import StartupError
from tests.support.grpc_port import WAIT_SECONDS, channel, port, refusal, unary


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def put(folder: Path, authority: trustme.CA) -> None:
    """A new certificate and its key, each put in place as a whole."""
    issued = authority.issue_cert("localhost")
    for name, content in (("key.pem", issued.private_key_pem), ("cert.pem", issued.cert_chain_pems[0])):
        replace(folder / name, content.bytes())


def replace(path: Path, content: bytes) -> None:
    new = path.with_name(f"new-{path.name}")
    new.write_bytes(content)
    new.replace(path)


def certificates(folder: Path, client_ca: Path | None = None) -> Certificates:
    return Certificates(folder / "cert.pem", folder / "key.pem", client_ca)


def ask(server: GrpcServer, authority: trustme.CA, shown: trustme.LeafCert | None = None) -> bytes:
    """An answer on a new connection, by a client that trusts this authority."""
    own = (shown.private_key_pem.bytes(), shown.cert_chain_pems[0].bytes()) if shown else (None, None)
    with channel(server, grpc.ssl_channel_credentials(authority.cert_pem.bytes(), *own)) as client:
        answer: bytes = unary(client)(b"hello", timeout=WAIT_SECONDS)
        return answer


def test_a_client_gets_in_if_it_trusts_the_authority(tmp_path: Path, authority: trustme.CA) -> None:
    put(tmp_path, authority)
    with port(certificates=certificates(tmp_path)) as server:
        assert ask(server, authority) == b"hello"
        assert refusal(lambda: ask(server, trustme.CA()))[0] is grpc.StatusCode.UNAVAILABLE


def test_with_an_authority_of_clients_each_must_show_a_certificate_of_it(tmp_path: Path, authority: trustme.CA) -> None:
    put(tmp_path, authority)
    clients = trustme.CA()
    clients.cert_pem.write_to_path(tmp_path / "clients.pem")
    with port(certificates=certificates(tmp_path, tmp_path / "clients.pem")) as server:
        assert ask(server, authority, clients.issue_cert("client@example.org")) == b"hello"
        for shown in (None, trustme.CA().issue_cert("client@example.org")):
            code, _ = refusal(lambda shown=shown: ask(server, authority, shown))
            assert code is grpc.StatusCode.UNAVAILABLE


def test_changed_files_are_used_from_the_next_connection_on(
    tmp_path: Path, authority: trustme.CA, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    put(tmp_path, authority)
    newer = trustme.CA()
    with port(certificates=certificates(tmp_path)) as server:
        assert ask(server, authority) == b"hello"
        put(tmp_path, newer)
        assert ask(server, newer) == b"hello"
        assert refusal(lambda: ask(server, authority))[0] is grpc.StatusCode.UNAVAILABLE
    renewed = [record for record in caplog.records if record.message == "a renewed certificate is in use"]
    assert [record.__dict__["fields"] for record in renewed] == [{"tls_cert": str(tmp_path / "cert.pem")}]


def test_a_link_that_is_turned_to_another_folder_is_a_change(tmp_path: Path, authority: trustme.CA) -> None:
    newer = trustme.CA()
    for name, each in (("first", authority), ("second", newer)):
        (tmp_path / name).mkdir()
        put(tmp_path / name, each)
    (tmp_path / "now").symlink_to("first")
    with port(certificates=certificates(tmp_path / "now")) as server:
        assert ask(server, authority) == b"hello"
        (tmp_path / "next").symlink_to("second")
        (tmp_path / "next").replace(tmp_path / "now")
        assert ask(server, newer) == b"hello"


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: replace(folder / "cert.pem", b"half a copy"),
        lambda folder: (folder / "key.pem").unlink(),
        lambda folder: trustme.CA().private_key_pem.write_to_path(folder / "key.pem"),
    ],
    ids=["half a copy", "a file is missing", "key of another certificate"],
)
def test_a_damaged_renewal_keeps_the_old_one_until_it_is_whole(
    tmp_path: Path, authority: trustme.CA, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], object]
) -> None:
    put(tmp_path, authority)
    newer = trustme.CA()
    with port(certificates=certificates(tmp_path)) as server:
        damage(tmp_path)
        assert ask(server, authority) == b"hello"
        assert ask(server, authority) == b"hello"
        said = [record.message for record in caplog.records if "the old certificate stays in use" in record.message]
        assert len(said) == 1, "it is told once, not at every handshake"
        assert str(tmp_path) in said[0]
        put(tmp_path, newer)
        assert ask(server, newer) == b"hello"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "cert.pem").unlink(), r"cert.pem \(--tls-cert\) cannot be read: No such file"),
        (lambda folder: (folder / "key.pem").unlink(), r"key.pem \(--tls-key\) cannot be read: No such file"),
        (lambda folder: (folder / "ca.pem").unlink(), r"ca.pem \(--tls-client-ca\) cannot be read: No such file"),
        (
            lambda folder: (folder / "cert.pem").write_text("no"),
            r"cert.pem \(--tls-cert\) and .*key.pem \(--tls-key\) are",
        ),
        (lambda folder: (folder / "key.pem").write_text("no"), r"are no certificate and its unencrypted key, both PEM"),
        (lambda folder: trustme.CA().private_key_pem.write_to_path(folder / "key.pem"), r"are no certificate and its"),
        (lambda folder: (folder / "ca.pem").write_text("no"), r"ca.pem \(--tls-client-ca\) holds no certificate of an"),
    ],
)
def test_files_that_cannot_be_used_are_refused_by_name(
    tmp_path: Path, authority: trustme.CA, spoil: Callable[[Path], object], said: str
) -> None:
    put(tmp_path, authority)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    spoil(tmp_path)
    with pytest.raises(StartupError, match=said):
        certificates(tmp_path, tmp_path / "ca.pem")


def test_a_key_with_a_password_is_refused_rather_than_asked_for(tmp_path: Path, authority: trustme.CA) -> None:
    from cryptography.hazmat.primitives import serialization

    put(tmp_path, authority)
    key = serialization.load_pem_private_key((tmp_path / "key.pem").read_bytes(), None)
    encrypted = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.BestAvailableEncryption(b"secret"),
    )
    (tmp_path / "key.pem").write_bytes(encrypted)
    with pytest.raises(StartupError, match="no certificate and its unencrypted key"):
        certificates(tmp_path)
