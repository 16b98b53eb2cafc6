"""Envoy in front of a server: HTTP/2 on both sides, as it is put before gRPC services."""

from __future__ import annotations

import contextlib
import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.support.running import until

CONNECTION_MANAGER = (
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
)
ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
ANY_PORT = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
PROTOCOLS = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


@contextlib.contextmanager
def in_front(envoy: Path, folder: Path, address: str) -> Iterator[str]:
    """A running Envoy that hands everything on to this address; its own address."""
    host, port = address.rsplit(":", 1)
    with running(envoy, folder, _configuration(host, int(port))) as own:
        yield own


@contextlib.contextmanager
def running(envoy: Path, folder: Path, configuration: Mapping[str, Any]) -> Iterator[str]:
    """An Envoy with this configuration, which has one listener and says nothing of administration; its address."""
    (folder / "envoy.json").write_text(json.dumps({**configuration, "admin": {"address": ANY_PORT}}))
    admin = folder / "admin"
    command = [str(envoy), "--config-path", str(folder / "envoy.json"), "--admin-address-path", str(admin),
               "--use-dynamic-base-id", "--concurrency", "1", "--log-level", "warning"]  # fmt: skip
    with (folder / "envoy.log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            until(lambda: _ready(process, admin))
            yield _listens(admin.read_text())
        finally:
            process.terminate()


def _configuration(host: str, port: int) -> dict[str, Any]:
    everything = {"match": {"prefix": "/"}, "route": {"cluster": "server", "timeout": "0s"}}
    manager = {
        "@type": CONNECTION_MANAGER,
        "stat_prefix": "front",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [everything]}]},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": ROUTER}}],
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    endpoint = {"endpoint": {"address": {"socket_address": {"address": host, "port_value": port}}}}
    cluster = {
        "name": "server",
        "type": "STATIC",
        "load_assignment": {"cluster_name": "server", "endpoints": [{"lb_endpoints": [endpoint]}]},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": PROTOCOLS,
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
    }
    listener = {"name": "front", "address": ANY_PORT, "filter_chains": [{"filters": filters}]}
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def _ready(process: subprocess.Popen[bytes], admin: Path) -> bool:
    assert process.poll() is None, "envoy has ended; envoy.log says why"
    try:
        with urllib.request.urlopen(f"http://{admin.read_text()}/ready", timeout=10) as answer:
            return bool(answer.status == 200)
    except (FileNotFoundError, ValueError, urllib.error.URLError):  # not yet
        return False


def _listens(admin: str) -> str:
    """HOST:PORT of the only listener."""
    with urllib.request.urlopen(f"http://{admin}/listeners?format=json", timeout=10) as answer:
        (status,) = json.load(answer)["listener_statuses"]
    bound = status["local_address"]["socket_address"]
    return f"{bound['address']}:{bound['port_value']}"
