"""What is shipped for deployment works with the programs that it is for: Prometheus above all, which is run for real."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from serving.launch import LaunchedServer
from tests.support import fake_models
from tests.support.commands import ROOT
from tests.support.running import until
from tests.support.wire import RawClient, request

DEPLOY = ROOT / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana/dashboards/lstm-serving.json").read_text())
RULES = yaml.safe_load((DEPLOY / "prometheus/rules.yml").read_text())["groups"][0]["rules"]
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
    """Prometheus, after a load test: answers, a sequence, mistakes of a client, and a model that nobody has."""
    folder = tmp_path_factory.mktemp("prometheus")
    fake_models.write(folder / "models")
    fake_models.write(folder / "models", "kept", config="sequence_batching {}")
    program = str(Path(promtool).with_name("prometheus"))  # the same Debian package
    store = ("--sequence-store", f"file:{folder / 'store'}")
    with LaunchedServer(folder / "models", "--backend", "fake", *store) as server, RawClient(server.address) as client:
        target = urllib.parse.urlsplit(server.metrics_url).netloc
        running = Prometheus(program, target, folder)
        try:
            until(running.ready)
            # A rate needs the counters from before they rose.
            until(lambda: bool(running.numbers("lstm_serving_requests_total")))
            for _ in range(50):
                client.infer()
            begin = request("kept", 1.0, 2)
            for name, value in (("sequence_id", 1), ("sequence_step", 0)):
                begin.parameters[name].int64_param = value
            begin.parameters["sequence_start"].bool_param = True
            for _ in range(2):
                client.method("ModelInfer")(begin, timeout=30)
            for bad in ({"model": "nobody"}, {"steps": 0}):
                with pytest.raises(grpc.RpcError):
                    client.infer(**bad)
            until(lambda: sum(running.numbers("lstm_serving_requests_total")) == 53)
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
    assert prometheus.get(f"label/{label}/values", **{"match[]": _with_everything_chosen(series)})[0] == "fake"


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


@pytest.mark.parametrize(
    "command",
    [("hadolint", "Dockerfile"), ("kubernetes-validate", "--strict", "deploy/kubernetes/lstm-serving.yaml")],
    ids=lambda command: command[0],
)
def test_the_checker_has_no_complaint(command: tuple[str, ...]) -> None:
    program = ROOT / ".envs/deploy/bin" / command[0]
    if not program.exists():
        pytest.skip(f"{command[0]} is missing; `make interop` installs deploy/check-requirements.txt")
    done = subprocess.run([program, *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _with_everything_chosen(query: str) -> str:
    for variable, value in VARIABLES.items():
        query = query.replace(variable, value)
    assert "$" not in query, f"an unknown variable: {query}"
    return query
