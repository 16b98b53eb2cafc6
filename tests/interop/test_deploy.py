"""What is shipped for deployment works with the programs that it is for: Prometheus above all, which is run for real."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
import yaml

from serving.launch import LaunchedServer
from tests.support import fake_models
from tests.support.commands import ROOT
from tests.support.wire import RawClient

DEPLOY = ROOT / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana/dashboards/lstm-serving.json").read_text())
RULES = yaml.safe_load((DEPLOY / "prometheus/rules.yml").read_text())["groups"][0]["rules"]
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
# What Grafana puts in place of the variables when everything is chosen.
VARIABLES = {"$model": ".*", "$backend": ".*", "$__rate_interval": "1m"}
QUERIES = [
    pytest.param(target["expr"], id=f"{panel['title']}-{target['refId']}")
    for panel in DASHBOARD["panels"]
    for target in panel.get("targets", [])
]


class Prometheus:
    """A real Prometheus with the shipped configuration, but for the address that it scrapes and how often."""

    def __init__(self, program: str, target: str, folder: Path) -> None:
        configuration = (DEPLOY / "prometheus/prometheus.yml").read_text()
        for shipped, ours in (("lstm-serving:8002", target), ("15s", "500ms")):
            assert shipped in configuration
            configuration = configuration.replace(shipped, ours)
        (folder / "prometheus.yml").write_text(configuration)
        shutil.copy(DEPLOY / "prometheus/rules.yml", folder)
        self._log = folder / "log"
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [program, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
                 "--web.listen-address=127.0.0.1:0"], stdout=log, stderr=log,
            )  # fmt: skip

    def ready(self) -> bool:
        """Whether it answers by now; its log says on which port."""
        said = self._log.read_text()
        assert self.process.poll() is None, said
        found = re.search(r'msg="Listening on".* address=(\S+)', said)
        self._address = found[1] if found else ""
        return bool(found) and "Server is ready" in said

    def get(self, path: str, **parameters: str) -> Any:
        """The data of one answer of the HTTP API."""
        url = f"http://{self._address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            return json.load(answer)["data"]

    def numbers(self, expression: str) -> list[float]:
        """The values that an expression has now, those that are no numbers left out."""
        values = [float(series["value"][1]) for series in self.get("query", query=expression)["result"]]
        return [value for value in values if value == value]  # noqa: PLR0124 - NaN: a share of no requests


@pytest.fixture(scope="module")
def prometheus(promtool: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus, after a load test: answers, mistakes of a client, and a model that nobody has."""
    folder = tmp_path_factory.mktemp("prometheus")
    fake_models.write(folder / "models")
    program = str(Path(promtool).with_name("prometheus"))  # the same Debian package
    with LaunchedServer(folder / "models", "--backend", "fake") as server, RawClient(server.address) as client:
        target = urllib.parse.urlsplit(server.metrics_url).netloc
        running = Prometheus(program, target, folder)
        try:
            until(running.ready)
            # A rate needs the counters from before they rose.
            until(lambda: bool(running.numbers("lstm_serving_requests_total")))
            for _ in range(50):
                client.infer()
            for bad in ({"model": "nobody"}, {"steps": 0}):
                with pytest.raises(grpc.RpcError):
                    client.infer(**bad)
            until(lambda: sum(running.numbers("lstm_serving_requests_total")) == 51)
            until(lambda: all(rule["health"] != "unknown" for rule in running.get("rules")["groups"][0]["rules"]))
            yield running
        finally:
            running.process.terminate()
            running.process.wait()


@pytest.mark.parametrize("query", QUERIES)
def test_every_query_of_the_dashboard_has_an_answer(query: str, prometheus: Prometheus) -> None:
    assert prometheus.numbers(_with_everything_chosen(query)), f"no data: {query}"


@pytest.mark.parametrize("variable", [v for v in DASHBOARD["templating"]["list"] if v["type"] == "query"])
def test_every_variable_of_the_dashboard_has_values(variable: dict[str, Any], prometheus: Prometheus) -> None:
    series, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"]).groups()  # type: ignore[union-attr]
    assert prometheus.get(f"label/{label}/values", **{"match[]": _with_everything_chosen(series)}) == ["fake"]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_every_alert_is_evaluated_on_metrics_that_exist(rule: dict[str, Any], prometheus: Prometheus) -> None:
    (loaded,) = [each for each in prometheus.get("rules")["groups"][0]["rules"] if each["name"] == rule["alert"]]
    assert loaded["health"] == "ok", loaded.get("lastError")
    names = set(re.findall(r"\b(?:up\b|process_\w+|lstm_serving_\w+)", rule["expr"]))
    assert names
    assert names <= set(prometheus.get("label/__name__/values"))
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert set(rule["annotations"]) == {"summary", "description", "runbook"}


def test_promtool_agrees(promtool: str) -> None:
    for command in (("check", "config", "prometheus.yml"), ("test", "rules", "rules_test.yml")):
        done = subprocess.run(
            [promtool, *command], cwd=DEPLOY / "prometheus", capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


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


@pytest.mark.parametrize(
    "command",
    [("hadolint", "Dockerfile"), ("kubernetes-validate", "--strict", "deploy/kubernetes/lstm-serving.yaml")],
    ids=lambda command: command[0],
)
def test_the_checker_has_no_complaint(command: tuple[str, ...]) -> None:
    program = ROOT / ".envs/deploy/bin" / command[0]
    if not program.exists():
        pytest.skip(f"{command[0]} is missing; `make test` installs deploy/check-requirements.txt")
    done = subprocess.run([program, *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


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
        assert _health_check(server.address, os.environ) == (1, "NOT_SERVING\n", "")


def until(condition: Callable[[], bool]) -> None:
    """Asks again until it holds; the limit is for something broken, not for something slow."""
    limit = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < limit, "it never came true"
        time.sleep(0.05)  # leaves the processor to those that are asked


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
    command = [sys.executable, "-m", "admin.healthcheck"]
    done = subprocess.run(command, env=told, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def _with_everything_chosen(query: str) -> str:
    for variable, value in VARIABLES.items():
        query = query.replace(variable, value)
    assert "$" not in query, f"an unknown variable: {query}"
    return query


def _default(value: str) -> str:
    """What `${NAME:-default}` is when nobody sets it."""
    found = re.fullmatch(r"\$\{\w+:-(.+)\}", value)
    assert found
    return found[1]
