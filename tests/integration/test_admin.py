"""`lstm-admin` as a process, against the real server: the index, and every way to get in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trustme

from serving.launch import LaunchedServer
from tests.support import fake_models, summing
from tests.support.commands import administer
from tests.support.running import FAKE


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    fake_models.write(folder, "whole")
    fake_models.write(folder, "broken", fail_on=1.0)
    return folder


def test_the_index_says_why_a_model_is_not_ready(repository: Path) -> None:
    with LaunchedServer(repository, *FAKE) as server:
        done = administer(server.address, "index")
        head, broken, whole = done.stdout.splitlines()
        told = ["backend", "device", "instances", "batched", "chosen", "tolerance", "verified", "reason"]
        assert head.split() == ["model", "version", "state", *told]
        assert broken.split()[:3] == ["broken", "1", "UNAVAILABLE"]
        assert broken.endswith("asked to fail on 1.0")
        assert whole.split() == [
            "whole",
            "1",
            "READY",
            "fake",
            "cpu",
            "1",
            "any",
            "lengths",
            "as",
            "asked",
            "1e-05",
            "yes",
            "-",
        ]
        assert (done.returncode, done.stderr) == (0, "")
        entries = json.loads(administer(server.address, "index", "--json").stdout)
        assert [entry["name"] for entry in entries] == ["broken", "whole"]
        assert (entries[1]["tolerance"], entries[0]["backend"]) == ("1e-05", "")
        gone = administer(server.address, "unload", "none")
        assert (gone.returncode, gone.stdout) == (1, "")
        assert "there is no model 'none' to unload; the server knows broken, whole" in gone.stderr
        unknown = administer(server.address, "swap", "none", "--count", "2")
        assert (unknown.returncode, unknown.stdout, unknown.stderr.count("\n")) == (1, "", 1)
        assert "INVALID_ARGUMENT: Request for unknown model: 'none' is not found" in unknown.stderr
        shadow = administer(server.address, "shadow", "whole", "--metrics-url", server.metrics_url)
        assert (shadow.returncode, shadow.stderr.count("\n")) == (1, 1)
        assert "says nothing of a shadow of the model 'whole'" in shadow.stderr


def test_a_model_is_loaded_swapped_and_unloaded(tmp_path: Path) -> None:
    summing.write(fake_models.write(tmp_path))
    (tmp_path / "mine.pbtxt").write_text('backend: "onnxruntime" max_batch_size: 4')
    flags = (*FAKE, "--model-control-mode", "explicit")
    with LaunchedServer(tmp_path, *flags) as server:
        for line, said in (
            (("load", "fake"), "fake: loaded in "),
            (("swap", "fake", "--backend", "onnx_runtime"), "fake: fake on cpu -> onnxruntime on cpu, in "),
            (("swap", "fake", "--count", "2"), "fake: onnxruntime on cpu -> 2 x onnxruntime on cpu, in "),
            (("swap", "fake", "--backend", "fake"), "fake: 2 x onnxruntime on cpu -> 2 x fake on cpu, in "),
            (("load", "fake", "--config", tmp_path / "mine.pbtxt"), "fake: loaded in "),
            (("swap", "fake", "--backend", "auto"), "fake: onnxruntime on cpu -> fake on cpu, in "),
            (("unload", "fake"), "fake: unloaded"),
        ):
            done = administer(server.address, *line)
            assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", 1)
            assert done.stdout.startswith(said)
        for line, said in (
            (("load", "none"), "INTERNAL: failed to load 'none', failed to poll from model repository"),
            (("swap", "fake", "--backend", "onnx_runtime"), "NOT_FOUND: "),
        ):
            done = administer(server.address, *line)
            assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done.stderr
            assert said in done.stderr
    with LaunchedServer(tmp_path, *FAKE) as server:
        done = administer(server.address, "swap", "fake", "--backend", "onnx_runtime")
        assert done.returncode == 1
        assert "UNAVAILABLE: explicit model load / unload is not allowed" in done.stderr


def test_with_certificates_and_a_token(repository: Path, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    for name in ("localhost", "operator"):
        issued = authority.issue_cert(name)
        issued.private_key_pem.write_to_path(tmp_path / f"{name}.key")
        issued.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.pem")
    (tmp_path / "token").write_text("0123456789abcdef")
    flags = ["--tls-cert", "localhost.pem", "--tls-key", "localhost.key", "--tls-client-ca", "ca.pem"]
    flags += ["--auth-token-file", "token"]
    places = [flag if flag.startswith("--") else str(tmp_path / flag) for flag in flags]
    with LaunchedServer(repository, *FAKE, *places) as server:
        url = f"localhost:{server.address.rpartition(':')[2]}"
        trusting = ["--tls-ca", tmp_path / "ca.pem"]
        known = [*trusting, "--tls-cert", tmp_path / "operator.pem", "--tls-key", tmp_path / "operator.key"]
        assert administer(url, *known, "--token-file", tmp_path / "token", "index").returncode == 0
        for line, message in (
            (known, "refuses to talk: UNAUTHENTICATED: "),
            (trusting, "no server answers at localhost:"),
            ([], "does it want TLS (--tls-ca FILE)?"),
        ):
            done = administer(url, *line, "index")
            assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done.stderr
            assert message in done.stderr
