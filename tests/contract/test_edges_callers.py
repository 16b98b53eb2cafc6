"""Who calls, as every edge tells whoever answers: by token, by client certificate, or nobody in particular."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
import trustme

from serving.edge.tokens import Tokens
from serving.protocol.call import Call
from tests.support.grpc_port import EDGES, WAIT_SECONDS, channel, port, stream, unary
from tests.support.tls_files import certificates, put

pytestmark = pytest.mark.parametrize("edge", EDGES)


def name(_payload: bytes, call: Call) -> None:
    """Answers with the name of the caller."""
    call.reply(call.caller.encode())


def test_nobody_is_told_apart_where_nobody_has_to_say_who_he_is(edge: str) -> None:
    with port(edge, name) as server, channel(server) as client:
        assert unary(client)(b"", timeout=WAIT_SECONDS) == b""


def test_each_token_is_a_caller_and_its_name_does_not_tell_it(edge: str, tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("first\nsecond\n")
    with port(edge, name, tokens=Tokens(tmp_path / "tokens", open_health=False)) as server, channel(server) as client:
        names = [
            unary(client)(b"", timeout=WAIT_SECONDS, metadata=[("authorization", f"Bearer {token}")])
            for token in ("first", "second", "first")
        ]
        assert names[0] == names[2] != names[1]
        assert all(each.startswith(b"token:") and b"first" not in each and b"second" not in each for each in names)
        streamed = stream(client, iter([b""]), metadata=[("authorization", "Bearer second")])
        assert names[1] in next(streamed), "as a message of a stream"


def test_each_client_certificate_is_a_caller_on_all_its_connections(edge: str, tmp_path: Path) -> None:
    authority, clients = trustme.CA(), trustme.CA()
    put(tmp_path, authority)
    clients.cert_pem.write_to_path(tmp_path / "clients.pem")
    shown = [clients.issue_cert(common_name=each) for each in ("ada", "bob")]
    names = []
    with port(edge, name, certificates=certificates(tmp_path, tmp_path / "clients.pem")) as server:
        for each in (*shown, shown[0]):
            own = (each.private_key_pem.bytes(), each.cert_chain_pems[0].bytes())
            credentials = grpc.ssl_channel_credentials(authority.cert_pem.bytes(), *own)
            with channel(server, credentials) as client:
                names.append(unary(client)(b"", timeout=WAIT_SECONDS))
    assert names[0] == names[2] != names[1]
    assert names[0].startswith(b"certificate:")
    assert b"ada" in names[0]
