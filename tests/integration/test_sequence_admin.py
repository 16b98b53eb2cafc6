"""An operator looks after the sequences of a real server: on its socket, with a token, and from one server to another."""

from __future__ import annotations

import itertools
import json
import signal
from pathlib import Path

import numpy as np
import pytest
import trustme

from serving.errors import StartupError
from serving.launch import LaunchedServer
from tests.integration.test_sequences import ONNX, STEPS, expected, recorded, write
from tests.support.commands import administer, look_after
from tests.support.running import metric
from tests.support.stepping import Array, Stepper
from tests.support.wire import RawClient

CUTS = list(itertools.pairwise(range(0, STEPS + 1, 10)))


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("s")  # whose path is short enough for a socket


@pytest.fixture
def repository(folder: Path) -> Path:
    return write(folder / "repository", ("onnx_runtime",))


def test_on_the_socket_sequences_are_listed_shown_and_ended(repository: Path, folder: Path) -> None:
    path = folder / "socket"
    with LaunchedServer(repository, *ONNX, "--admin-socket", str(path)) as server, RawClient(server.address) as client:
        assert path.lstat().st_mode & 0o777 == 0o600
        numbered, plain = Stepper(client, "m", 7, numbered=True), Stepper(client, "m", "7", numbered=False)
        for each in (numbered, numbered, plain):
            each.take(recorded(0)[:, :4])
        head, version, blank, columns, *rows = look_after(path, "sequences", "m").stdout.splitlines()
        assert (head.split()[:4], version.split()[:5]) == (
            ["version", "live", "numbered", "busy"],
            ["1", "2", "1", "0", "0"],
        )
        assert (blank, columns.split()[0], sorted(row.split()[0] for row in rows)) == ("", "sequence", ["'7'", "7"])
        told = json.loads(look_after(path, "sequences", "m", "list", "--limit", 0, "--json").stdout)
        assert (told["versions"][0]["live"], told["sequences"], told["reading"]) == (2, [], False)
        one = json.loads(look_after(path, "sequences", "m", "show", "7", "--text", "--json").stdout)
        assert (one["id"], one["steps"], one["numbered"], one["answers"]) == ("7", 1, False, 0)
        done = look_after(path, "sequences", "m", "end", 7)
        assert (done.stdout, done.stderr, done.returncode) == ("sequence 7 of m: ended after 2 steps\n", "", 0)
        assert metric(server, "sequences_ended_total", reason="ended_by_operator") == 1
        gone = look_after(path, "sequences", "m", "show", 7)
        assert (gone.returncode, gone.stdout, gone.stderr.count("\n")) == (1, "", 1)
        assert "INVALID_ARGUMENT: model 'm' has no sequence 7: the server's operator has ended it" in gone.stderr
        unknown = look_after(path, "sequences", "none")
        assert "'none' is not found" in unknown.stderr
        elsewhere = look_after(path, "index")
        assert (elsewhere.returncode, "--socket is for sequences alone" in elsewhere.stderr) == (2, True)
        with pytest.raises(StartupError, match="another server listens there"):
            LaunchedServer(repository, *ONNX, "--admin-socket", str(path))
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
    with LaunchedServer(repository, *ONNX, "--admin-socket", str(path)):  # in the place of the one that was killed
        assert look_after(path, "sequences", "m").returncode == 0
    assert not path.exists()


@pytest.mark.parametrize("stored", [False, True], ids=["memory", "store"])
def test_a_sequence_goes_from_one_server_to_another_bit_for_bit(repository: Path, folder: Path, stored: bool) -> None:
    x, file = recorded(3), folder / "taken"
    said = dict[str, Array]()
    places = [folder / name for name in ("a", "b")]
    flags = [
        (*ONNX, "--admin-socket", f"{place}.sock", *(("--sequence-store", f"file:{place}") if stored else ()))
        for place in places
    ]
    sockets = [Path(f"{place}.sock") for place in places]
    with LaunchedServer(repository, *flags[0]) as one, LaunchedServer(repository, *flags[1]) as other:
        with RawClient(one.address) as client, RawClient(other.address) as elsewhere:
            whole = Stepper(client, "m", "whole", numbered=True)
            want = [whole.take(x[:, begin:end])["y"] for begin, end in CUTS]
            stepper = Stepper(client, "m", 9, numbered=True)
            got = [stepper.take(x[:, begin:end])["y"] for begin, end in CUTS[:3]]
            done = look_after(sockets[0], "sequences", "m", "export", 9, file, "--end")
            assert (done.returncode, done.stderr) == (0, "")
            assert done.stdout.startswith("sequence 9 of m: 3 steps, ")
            assert file.stat().st_mode & 0o777 == 0o600
            assert b'"model": "m", "version": "1", "backend": "onnx_runtime"' in file.read_bytes()
            again = look_after(sockets[0], "sequences", "m", "export", "whole", file)
            assert (again.returncode, "--force" in again.stderr) == (2, True)
            for content, message in (
                (file.read_bytes()[:-1], "its digest is wrong"),
                (file.read_bytes().replace(b'"m"', b'"n"'), "its digest is wrong"),
                (b"nonsense", "it is no exported sequence"),
            ):
                (folder / "changed").write_bytes(content)
                torn = look_after(sockets[1], "sequences", "m", "import", folder / "changed")
                assert (torn.returncode, message in torn.stderr) == (1, True), torn.stderr
            back = look_after(sockets[1], "sequences", "m", "import", file)
            assert (back.stdout, back.returncode) == ("sequence 9 of m goes on in version 1 after 3 steps\n", 0)
            twice = look_after(sockets[1], "sequences", "m", "import", file)
            assert (twice.returncode, "lives here already" in twice.stderr) == (1, True)
            moved = Stepper(elsewhere, "m", 9, numbered=True)
            moved.taken = 2
            begin, end = CUTS[2]
            said["again"] = moved.take(x[:, begin:end])["y"]  # its answer came along
            begin, end = CUTS[3]
            got.append(moved.take(x[:, begin:end])["y"])
        last = other
        if stored:
            other.process.send_signal(signal.SIGKILL)
            other.process.wait()
            last = LaunchedServer(repository, *flags[1])
        with last, RawClient(last.address) as elsewhere:
            left = Stepper(elsewhere, "m", 9, numbered=True)
            left.taken = 4
            got += [left.take(x[:, begin:end])["y"] for begin, end in CUTS[4:]]
    assert np.array_equal(said["again"], got[2])
    assert [bool(np.array_equal(mine, its)) for mine, its in zip(got, want, strict=True)] == [True] * len(CUTS)
    assert np.allclose(np.concatenate(got, axis=1), expected(x), rtol=1e-5, atol=1e-5)


def test_over_a_port_a_token_is_needed_and_tls_where_the_grpc_port_has_it(repository: Path, folder: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    issued = authority.issue_cert("localhost")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    issued.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    for name, token in (("right", "0123456789abcdef"), ("wrong", "fedcba9876543210")):
        (folder / name).write_text(token)
    flags = ["--admin-token-file", str(folder / "right"), "--admin-port", "0"]
    flags += ["--tls-cert", str(folder / "cert.pem"), "--tls-key", str(folder / "key.pem")]
    with LaunchedServer(repository, *ONNX, *flags) as server:
        url = f"localhost:{server.wait_for('serving', 60)['admin_port']}"
        known = ("--tls-ca", folder / "ca.pem")
        right = look_after(url, *known, "--token-file", folder / "right", "sequences", "m", "--json")
        assert (right.returncode, right.stderr) == (0, "")
        assert json.loads(right.stdout)["versions"][0]["live"] == 0
        for more, message in (
            (("--token-file", folder / "wrong"), "UNAUTHENTICATED: a valid token is needed"),
            ((), "give it one with --token-file FILE"),
        ):
            done = look_after(url, *known, *more, "sequences", "m")
            assert (done.returncode, done.stdout, message in done.stderr) == (1, "", True), done.stderr


def test_without_a_flag_nobody_looks(repository: Path, folder: Path) -> None:
    with LaunchedServer(repository, *ONNX) as server:
        assert server.wait_for("serving", 60)["admin_port"] is None
        done = administer(server.address, "sequences", "m")
        assert (done.returncode, done.stdout) == (1, "")
        assert "UNIMPLEMENTED" in done.stderr
        assert "not on its gRPC port" in done.stderr
    nobody = look_after(folder / "socket", "--timeout-seconds", "1", "sequences", "m")
    assert (nobody.returncode, "nobody answers at unix:" in nobody.stderr) == (1, True)
