"""What is shipped for deployment fits together: the image, its health check, compose, and a case for every alert."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import trustme
import yaml

from serving.launch import LaunchedServer
from tests.support import fake_models
from tests.support.commands import ROOT

DEPLOY = ROOT / "deploy"
RULES = yaml.safe_load((DEPLOY / "prometheus/rules.yml").read_text())["groups"][0]["rules"]
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]


def test_every_alert_has_a_case_that_fires_and_one_that_does_not() -> None:
    """In the test of an alert the server `bad` fires, and `good`, which is there too, does not."""
    cases = {each["name"]: each for each in yaml.safe_load((DEPLOY / "prometheus/rules_test.yml").read_text())["tests"]}
    for rule in RULES:
        case = cases[rule["alert"]]
        series = " ".join(each["series"] for each in case["input_series"])
        assert 'instance="bad"' in series
        assert 'instance="good"' in series
        (expected,) = case["promql_expr_test"]
        assert f'alertname="{rule["alert"]}"' in expected["expr"]
        assert expected["exp_samples"] == [{"labels": '{instance="bad"}', "value": 1}]


@pytest.mark.parametrize("service", COMPOSE)
def test_compose_gives_no_service_more_than_it_needs(service: str) -> None:
    settings = COMPOSE[service]
    assert settings["read_only"] is True
    assert settings["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in settings["security_opt"]
    assert not {"privileged", "cap_add", "network_mode", "pid"} & set(settings)
    assert {"mem_limit", "pids_limit"} <= set(settings)
    assert all(port.startswith("127.0.0.1:") for port in settings["ports"])
    for volume in settings["volumes"]:
        assert volume.endswith(":ro") or not volume.startswith((".", "/", "$")), f"{volume} can be written"


def test_compose_and_image_agree() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    server = COMPOSE["lstm-serving"]
    assert f"USER {server['user']}" in dockerfile
    assert f"CMD {json.dumps(server['healthcheck']['test'][1:])}" in dockerfile
    assert server["build"]["target"] in re.findall(r" AS ([\w-]+)", dockerfile)
    assert f"ARG BASE_IMAGE={_default(server['build']['args']['BASE_IMAGE'])}" in dockerfile
    assert f"ARG EXTRAS={_default(server['build']['args']['EXTRAS'])}" in dockerfile


@pytest.mark.parametrize("guards", [(), ("token",), ("tls",), ("tls", "mutual", "token")], ids="+".join)
def test_the_health_check_of_the_image(guards: tuple[str, ...], tmp_path: Path) -> None:
    """It is told what the server is told, by the same variables, and needs no more."""
    fake_models.write(tmp_path / "models")
    environment = os.environ | _guarded(guards, tmp_path)
    with LaunchedServer(tmp_path / "models", "--backend", "fake", environment=environment) as server:
        assert _health_check(server.address, environment) == (0, "SERVING\n", "")
    code, _, said = _health_check(server.address, environment)
    assert code == 1
    assert re.match("no answer: UNAVAILABLE: |cannot ask: ", said)


def test_the_health_check_of_a_server_that_is_not_ready(tmp_path: Path) -> None:
    (tmp_path / "broken" / "1").mkdir(parents=True)
    with LaunchedServer(tmp_path, "--backend", "fake") as server:
        code, status, said = _health_check(server.address, os.environ)
        assert (code, status) == (1, "NOT_SERVING\n")
        assert said.endswith(f"lstm-admin --url {server.address} index, and by the server's log\n")


def _guarded(guards: tuple[str, ...], folder: Path) -> dict[str, str]:
    """The variables of a server that is guarded in these ways, and the files that they name."""
    authority = trustme.CA()
    issued = authority.issue_cert("models.example.org")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    issued.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    authority.cert_pem.write_to_path(folder / "authority.pem")
    (folder / "tokens").write_text("0123456789abcdef\n")
    named = {
        "token": {"LSTM_SERVE_AUTH_TOKEN_FILE": "tokens"},
        "tls": {"LSTM_SERVE_TLS_CERT": "cert.pem", "LSTM_SERVE_TLS_KEY": "key.pem"},
        "mutual": {"LSTM_SERVE_TLS_CLIENT_CA": "authority.pem"},
    }
    return {variable: str(folder / file) for guard in guards for variable, file in named[guard].items()}


def _health_check(address: str, environment: Mapping[str, str]) -> tuple[int, str, str]:
    host, port = address.split(":")
    told = {**environment, "LSTM_SERVE_HOST": host, "LSTM_SERVE_GRPC_PORT": port}
    command = [sys.executable, "-m", "lstm_serving", "healthcheck"]
    done = subprocess.run(command, env=told, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def _default(value: str) -> str:
    """What `${NAME:-default}` is when nobody sets it."""
    found = re.fullmatch(r"\$\{\w+:-(.+)\}", value)
    assert found
    return found[1]
