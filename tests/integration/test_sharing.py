"""Who goes first where models share the cores: the order that a server's threads stand in, as the system sees it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections import Counter
from pathlib import Path

import pytest

from models.config import LSTMConfig
from serving.launch import LaunchedServer
from serving.machine.priority import LONG_CALLS, LOWEST, SHADOWS
from tests.support import fake_models, real_model, summing
from tests.support.fake_models import parameters
from tests.support.running import FAKE, until
from tests.support.wire import RawClient

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="threads have an order of their own on Linux alone")

LARGE = LSTMConfig(input="features", features=3, layers=2, hidden=320, outputs=4)  # 64 rows of it take more than 5 ms
ROWS = 'max_batch_size: 64\nparameters { key: "intra_op_thread_count" value { string_value: "2" } }\n'


def places(server: LaunchedServer) -> Counter[int]:
    """How many threads of a server stand how far behind its first one."""
    found = {}
    for task in Path(f"/proc/{server.process.pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended
            found[int(task.name)] = int((task / "stat").read_text().rpartition(")")[2].split()[16])
    return Counter(nice - found[server.process.pid] for nice in found.values())


def behind(steps: int) -> int:
    """As far as it goes."""
    return min(steps, LOWEST - os.getpriority(os.PRIO_PROCESS, 0))


@pytest.mark.parametrize(("backend", "least"), [("onnx_runtime", 2), ("torchscript", 2), ("saved_model", 2)])
def test_long_calls_and_further_threads_stand_behind(backend: str, least: int, tmp_path: Path) -> None:
    """Since the warm-up: the thread that computes aside, and at least one that the runtime has made."""
    real_model.write(tmp_path, (backend,), name="large", config=LARGE)
    (tmp_path / "large" / "config.pbtxt").write_text(f'backend: "{backend}"\n{ROWS}')
    with LaunchedServer(tmp_path, "--backend", backend) as server:
        seen = places(server)
    assert set(seen) == {0, behind(LONG_CALLS)}
    assert seen[behind(LONG_CALLS)] >= least
    assert seen[0] >= 3, "the edge, the worker, and the first thread"


def test_a_shadow_stands_behind_all_others_and_short_calls_behind_nobody(tmp_path: Path) -> None:
    version = fake_models.write(tmp_path)
    with LaunchedServer(tmp_path, *FAKE) as server:
        assert set(places(server)) == {0}
    summing.write(version)
    (tmp_path / "fake" / "config.pbtxt").write_text(parameters({"shadow": "onnxruntime", "shadow_share": "1"}))
    with LaunchedServer(tmp_path, *FAKE) as server, RawClient(server.address) as client:
        until(lambda: places(server)[behind(SHADOWS)] == 1)
        client.infer()
        assert set(places(server)) == {0, behind(SHADOWS)}
