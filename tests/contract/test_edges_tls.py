"""TLS on every edge: who gets in, and that renewed files are used while damaged ones are not."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
import trustme

from serving.edge.grpc_server import GrpcServer
from tests.support.grpc_port import EDGES, WAIT_SECONDS, channel, port, refusal, unary
from tests.support.tls_files import certificates, put, replace

pytestmark = pytest.mark.parametrize("edge", EDGES)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def ask(server: GrpcServer, authority: trustme.CA, shown: trustme.LeafCert | None = None) -> bytes:
    """An answer on a new connection, by a client that trusts this authority."""
    own = (shown.private_key_pem.bytes(), shown.cert_chain_pems[0].bytes()) if shown else (None, None)
    with channel(server, grpc.ssl_channel_credentials(authority.cert_pem.bytes(), *own)) as client:
        answer: bytes = unary(client)(b"hello", timeout=WAIT_SECONDS)
        return answer


def test_a_client_gets_in_if_it_trusts_the_authority(edge: str, tmp_path: Path, authority: trustme.CA) -> None:
    put(tmp_path, authority)
    with port(edge, certificates=certificates(tmp_path)) as server:
        assert ask(server, authority) == b"hello"
        assert refusal(lambda: ask(server, trustme.CA()))[0] is grpc.StatusCode.UNAVAILABLE


def test_with_an_authority_of_clients_each_must_show_a_certificate_of_it(
    edge: str, tmp_path: Path, authority: trustme.CA
) -> None:
    put(tmp_path, authority)
    clients = trustme.CA()
    clients.cert_pem.write_to_path(tmp_path / "clients.pem")
    with port(edge, certificates=certificates(tmp_path, tmp_path / "clients.pem")) as server:
        assert ask(server, authority, clients.issue_cert("client@example.org")) == b"hello"
        for shown in (None, trustme.CA().issue_cert("client@example.org")):
            code, _ = refusal(lambda shown=shown: ask(server, authority, shown))
            assert code is grpc.StatusCode.UNAVAILABLE


def test_changed_files_are_used_from_the_next_connection_on(
    edge: str, tmp_path: Path, authority: trustme.CA, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    put(tmp_path, authority)
    newer = trustme.CA()
    with port(edge, certificates=certificates(tmp_path)) as server:
        assert ask(server, authority) == b"hello"
        put(tmp_path, newer)
        assert ask(server, newer) == b"hello"
        assert refusal(lambda: ask(server, authority))[0] is grpc.StatusCode.UNAVAILABLE
    renewed = [record for record in caplog.records if record.message == "a renewed certificate is in use"]
    assert [record.__dict__["fields"] for record in renewed] == [{"tls_cert": str(tmp_path / "cert.pem")}]


def test_a_link_that_is_turned_to_another_folder_is_a_change(edge: str, tmp_path: Path, authority: trustme.CA) -> None:
    newer = trustme.CA()
    for name, each in (("first", authority), ("second", newer)):
        (tmp_path / name).mkdir()
        put(tmp_path / name, each)
    (tmp_path / "now").symlink_to("first")
    with port(edge, certificates=certificates(tmp_path / "now")) as server:
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
    edge: str, tmp_path: Path, authority: trustme.CA, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], object]
) -> None:
    put(tmp_path, authority)
    newer = trustme.CA()
    with port(edge, certificates=certificates(tmp_path)) as server:
        damage(tmp_path)
        assert ask(server, authority) == b"hello"
        assert ask(server, authority) == b"hello"
        said = [record.message for record in caplog.records if "the old certificate stays in use" in record.message]
        assert len(said) == 1, "it is told once, not at every handshake"
        assert str(tmp_path) in said[0]
        put(tmp_path, newer)
        assert ask(server, newer) == b"hello"
