"""Where an operator is let in: on a socket that is his server's alone, or with a token; and what is left behind."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from protos import sequence_admin_pb2 as pb
from serving.edge.admin_port import MOST_PATH_BYTES, AdminPort, check_socket
from serving.edge.tokens import Tokens
from serving.errors import InvalidRequest, StartupError
from serving.protocol.methods import Method

SERVICE = "lstm_serving.admin.SequenceAdmin"


def show(request: pb.OneRequest) -> pb.Sequence:
    if not request.model:
        raise InvalidRequest("no model")
    return pb.Sequence(version=request.model)


METHODS = (Method("Show", pb.OneRequest, show),)


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("s")  # whose path is short enough


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    (tmp_path / "tokens").write_text(f"{TOKEN}\n")
    return Tokens(tmp_path / "tokens", open_health=False, flag="--admin-token-file")


TOKEN, ANOTHER = "0123456789abcdef", "0123456789abcdee"


def ask(target: str, model: str = "m", token: str = "") -> Any:
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    with grpc.insecure_channel(target) as channel:
        call = channel.unary_unary(f"/{SERVICE}/Show", pb.OneRequest.SerializeToString, pb.Sequence.FromString)
        return call(pb.OneRequest(model=model), metadata=metadata, timeout=20)


def refused(target: str, **more: str) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        ask(target, **more)
    return caught.value.code(), caught.value.details()


@pytest.fixture
def port(folder: Path) -> Iterator[AdminPort]:
    made = AdminPort(SERVICE, METHODS, path=folder / "socket")
    yield made
    made.close()


def test_the_socket_is_its_users_alone_and_goes_with_the_server(port: AdminPort, folder: Path) -> None:
    path = folder / "socket"
    assert (path.lstat().st_mode & 0o777, port.port) == (0o600, None)
    assert [each.name for each in folder.iterdir()] == ["socket"]
    assert ask(f"unix:{path}").version == "m"
    assert refused(f"unix:{path}", model="") == (grpc.StatusCode.INVALID_ARGUMENT, "no model")
    port.close()
    assert list(folder.iterdir()) == []


def test_a_socket_that_somebody_listens_on_is_refused(port: AdminPort, folder: Path) -> None:
    with pytest.raises(StartupError, match=r"socket \(--admin-socket\) cannot be made: another server listens there"):
        AdminPort(SERVICE, METHODS, path=folder / "socket")
    assert ask(f"unix:{folder / 'socket'}").version == "m"


def test_one_that_a_killed_server_has_left_is_replaced(folder: Path) -> None:
    path = folder / "socket"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(os.fspath(path))
    made = AdminPort(SERVICE, METHODS, path=path)
    try:
        assert ask(f"unix:{path}").version == "m"
    finally:
        made.close()
    assert not path.exists()


def test_the_socket_of_a_server_that_came_later_stays(port: AdminPort, folder: Path) -> None:
    path = folder / "socket"
    path.unlink()
    later = AdminPort(SERVICE, METHODS, path=path)
    port.close()
    assert ask(f"unix:{path}").version == "m"
    later.close()
    assert not path.exists()


def test_paths_that_cannot_be_are_refused_by_name(folder: Path) -> None:
    (folder / "file").write_text("kept")
    for path, message in (
        (folder / "file", "something else than a socket lies there"),
        (folder / "nowhere" / "socket", "No such file or directory"),
        (folder / ("x" * MOST_PATH_BYTES), f"more than the {MOST_PATH_BYTES} bytes"),
    ):
        with pytest.raises(StartupError, match=message):
            AdminPort(SERVICE, METHODS, path=path)
    assert (folder / "file").read_text() == "kept"
    deep = folder / ("x" * (MOST_PATH_BYTES - len(str(folder)) - 3))
    deep.mkdir()
    check_socket(deep / "s")
    with pytest.raises(StartupError, match="its folder's name is too long"):
        AdminPort(SERVICE, METHODS, path=deep / "s")
    assert list(deep.iterdir()) == []


def test_over_a_port_a_token_is_needed(tokens: Tokens, folder: Path) -> None:
    made = AdminPort(SERVICE, METHODS, path=folder / "socket", tokens=tokens, host="127.0.0.1", port=0)
    try:
        target = f"127.0.0.1:{made.port}"
        assert ask(target, token=TOKEN).version == "m"
        for token in ("", ANOTHER):
            code, said = refused(target, token=token)
            assert code is grpc.StatusCode.UNAUTHENTICATED
            assert "(--admin-token-file)" in said
        assert ask(f"unix:{folder / 'socket'}").version == "m"  # who may open it needs none
        with pytest.raises(StartupError, match=r"127\.0\.0\.1:\d+ of the operator's port cannot be bound"):
            AdminPort(SERVICE, METHODS, path=folder / "other", tokens=tokens, host="127.0.0.1", port=made.port or 0)
        assert [each.name for each in folder.iterdir()] == ["socket"]  # what was made before is removed
    finally:
        made.close()
