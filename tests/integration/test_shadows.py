"""Copies of requests go elsewhere to be compared: what is counted, and that nobody else notices."""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from serving.backends import onnx_runtime
from serving.backends.base import Options
from serving.launch import LaunchedServer
from serving.verification import golden
from tests.support import fake_models, summing
from tests.support.breakable import Breakable
from tests.support.closed_loop import ClosedLoop
from tests.support.commands import administer
from tests.support.fake_models import FEATURES, parameters
from tests.support.running import EVERYTHING, FAKE, logged, swaps, until
from tests.support.wire import RawClient, refusal

FIRST_ALONE = "version_policy { specific { versions: 1 } }\n"
LOOSE = dataclasses.replace(fake_models.spec(), tolerance=0.05, labels_of="y")
TO_ONNX = {"shadow": "onnxruntime", "shadow_share": "1"}
TO_SECOND = {"shadow": "2", "shadow_share": "1"}


def configure(repository: Path, values: Mapping[str, str], more: str = "") -> None:
    (repository / "fake" / "config.pbtxt").write_text(more + parameters(values))


def shadowed(server: LaunchedServer, target: str, version: str = "1") -> dict[str, float]:
    """What came of the copies of requests to `version` that went to `target`: by outcome and class, and how far apart."""
    found = {}
    for family in text_string_to_metric_families(server.metrics()):
        for sample in family.samples:
            if (
                sample.name.startswith("lstm_serving_shadow_")
                and sample.labels["target"] == target
                and sample.labels["version"] == version
            ):
                found[sample.labels.get("outcome") or sample.labels.get("agree") or "difference"] = sample.value
    return found


@pytest.mark.parametrize("apart", [0.0625, -0.0625])
def test_another_backend_is_compared_and_its_answers_are_never_returned(apart: float, tmp_path: Path) -> None:
    """ONNX Runtime computes sums that are 1/64 larger, and sets the second class above the first, or below it."""
    version = fake_models.write(tmp_path, model_spec=LOOSE)
    summing.write(version, factor=1 + 1 / 64, apart=apart)
    configure(tmp_path, TO_ONNX)
    values = [0.25, 1.0, 3.0, -2.0] * 5
    sums = [value * 2 * FEATURES for value in values]
    differences = [max(abs(each / 64), abs(each / 64 + apart)) / max(1, abs(each)) for each in sums]
    with LaunchedServer(tmp_path, *FAKE) as server, RawClient(server.address) as client:
        for value, expected in zip(values, sums, strict=True):
            assert client.infer(value=value).tolist() == [expected] * 2
        until(lambda: shadowed(server, "1/onnx_runtime")["compared"] == len(values))
        counted = shadowed(server, "1/onnx_runtime")
        assert counted.pop("difference") == pytest.approx(max(differences), rel=1e-5)
        agree, disagree = ("false", "true") if apart > 0 else ("true", "false")
        assert counted == {"compared": 20, "failed": 0, "dropped": 0, agree: 20, disagree: 0}
        head, line = administer(
            server.address, "shadow", "fake", "--metrics-url", server.metrics_url
        ).stdout.splitlines()
        told = dict(zip(re.split(" {2,}", head), re.split(" {2,}", line), strict=True))
        assert told == {
            "version": "1",
            "target": "1/onnx_runtime",
            "compared": "20",
            "failed": "0",
            "dropped": "0",
            "largest difference": f"{max(differences):.3g}",
            "same class": f"{0 if apart > 0 else 100} % of 20",
        }
        (statistics,) = client.call("ModelStatistics", name="fake").model_stats
        assert statistics.inference_stats.success.count == len(values), "copies are no requests"


def test_another_version_is_compared_and_gets_its_share(tmp_path: Path) -> None:
    fake_models.write(tmp_path)
    second = fake_models.write(tmp_path, version=2)
    path = summing.write(second, factor=2.0)
    (sample,) = golden.read_samples(second / golden.FILE_NAME)
    names = list(sample.outputs)
    outputs = onnx_runtime.load(path, fake_models.spec(), "cpu", Options()).run(sample.inputs, names)
    golden.write_samples(second / golden.FILE_NAME, [golden.Sample(sample.inputs, outputs)])
    configure(tmp_path, {"shadow": "2/onnxruntime@cpu", "shadow_share": "0.25"}, FIRST_ALONE)
    with LaunchedServer(tmp_path, *FAKE) as server, RawClient(server.address) as client:
        assert {client.version("fake") for _ in range(100)} == {"1"}
        until(lambda: shadowed(server, "2/onnx_runtime")["compared"] == 25)
        counted = shadowed(server, "2/onnx_runtime")
        assert (counted["dropped"], counted["failed"], counted["difference"]) == (0, 0, 1)


def test_every_output_that_was_asked_for_is_compared(tmp_path: Path) -> None:
    """Among them the state, of requests of several rows that were computed together."""
    version = fake_models.write(tmp_path, model_spec=LOOSE)
    summing.write(version, apart=0.0)
    configure(tmp_path, TO_ONNX, "max_batch_size: 8 dynamic_batching {}\n")
    with LaunchedServer(tmp_path, *FAKE) as server, RawClient(server.address) as client:
        x = np.arange(2 * 3 * FEATURES, dtype=np.float32).reshape(2, 3, FEATURES)
        asked = {"model_name": "fake", "raw_input_contents": [x.tobytes()]}
        tensors = {"inputs": [{"name": "x", "datatype": "FP32", "shape": x.shape}]}
        for outputs in ([], [{"name": "hn"}, {"name": "y"}]):
            client.call("ModelInfer", **asked, **tensors, outputs=outputs)
        until(lambda: shadowed(server, "1/onnx_runtime")["compared"] == 2)
        counted = shadowed(server, "1/onnx_runtime")
        assert (counted["difference"], counted["true"], counted["false"]) == (0, 4, 0)


def test_a_shadow_that_is_stuck_costs_copies_and_nothing_else(tmp_path: Path) -> None:
    """Nobody waits for it, not even the server that leaves."""
    fake_models.write(tmp_path)
    fake_models.write(tmp_path, version=2, delay_seconds=600, delay_on=7)
    configure(tmp_path, TO_SECOND, FIRST_ALONE)
    with LaunchedServer(tmp_path, *FAKE) as server, RawClient(server.address) as client:
        for _ in range(200):
            assert client.infer(value=7.0).tolist() == [42, 42]
        counted = shadowed(server, "2/fake")
        assert (counted["compared"], counted["failed"], counted["dropped"]) == (0, 0, 200 - 64)
        assert server.stop(20) == 0


def test_a_slow_shadow_drops_what_it_has_no_room_for(tmp_path: Path) -> None:
    fake_models.write(tmp_path)
    fake_models.write(tmp_path, version=2, delay_seconds=0.02, delay_on=1)
    configure(tmp_path, TO_SECOND, FIRST_ALONE)
    with LaunchedServer(tmp_path, *EVERYTHING) as server, RawClient(server.address) as client:
        with ClosedLoop(server.address, clients=8) as loop:
            until(lambda: shadowed(server, "2/fake")["dropped"] > 0 and shadowed(server, "2/fake")["compared"] > 0)
            loop.more()
        until(lambda: sum(shadowed(server, "2/fake")[key] for key in ("compared", "dropped")) == loop.answered)
        counted = shadowed(server, "2/fake")
        assert (counted["failed"], counted["difference"]) == (0, 0)
        configure(tmp_path, {}, FIRST_ALONE)
        client.load("fake")
        assert "lstm_serving_shadow_" not in server.metrics(), "it was to end"


def test_a_shadow_that_fails_is_counted_and_trips_nothing(tmp_path: Path) -> None:
    fake_models.write(tmp_path)
    fake_models.write(tmp_path, version=2, fail_on=7)
    configure(tmp_path, TO_SECOND, FIRST_ALONE)
    with LaunchedServer(tmp_path, *FAKE, "--breaker-failures", "1") as server, RawClient(server.address) as client:
        for value in [7.0] * 20 + [1.0] * 5:
            assert client.infer(value=value).tolist() == [value * 6] * 2
        until(lambda: shadowed(server, "2/fake")["compared"] == 5)
        assert shadowed(server, "2/fake")["failed"] == 20
        assert swaps(server) == {}
        assert client.index()["fake/1"] == ("READY", "")
        assert client.call("ServerReady").ready
        assert server.stop() == 0
        assert not logged(server, "failed on a batch"), "counting it is enough"


SHADOWS_THAT_DO_NOT_RUN = {
    "torchscript": "torchscript was asked for, but the version has no model.pt",
    "onnxruntime@cuda:7": "onnx_runtime on cuda:7: ",
    "onnxruntime": "cannot be read by ONNX Runtime",
    "2": "it has the outputs y FP32 [-1, -1, 2], and the model that it is to follow has y FP32 [-1, 2]",
}


@pytest.mark.parametrize(("shadow", "reason"), SHADOWS_THAT_DO_NOT_RUN.items(), ids=list(SHADOWS_THAT_DO_NOT_RUN))
def test_a_shadow_that_cannot_be_loaded_does_not_fail_the_model(shadow: str, reason: str, tmp_path: Path) -> None:
    version = fake_models.write(tmp_path)
    (version / "model.onnx").write_bytes(b"damaged")
    fake_models.write(tmp_path, version=2, model_spec=fake_models.spec(per_step=True))
    configure(tmp_path, {"shadow": shadow, "shadow_share": "1"}, FIRST_ALONE)
    with LaunchedServer(tmp_path, *FAKE) as server, RawClient(server.address) as client:
        assert client.infer().tolist() == [6, 6]
        assert client.call("ServerReady").ready
        state, said = client.index()["fake/1"]
        assert state == "READY"
        assert said.startswith("its shadow ")
        assert "does not run: " in said
        assert reason in said
        until(lambda: logged(server, "the shadow ") > 0 and logged(server, reason) > 0)
        assert 'model_load_failures_total{model="fake",reason="shadow"' in server.metrics()
        assert "lstm_serving_shadow_requests_total{" not in server.metrics()


def test_a_shadow_follows_whoever_answers(tmp_path: Path) -> None:
    """Through a swap that an operator asks for, and through one that a failure does."""
    model = Breakable(tmp_path)
    configure(tmp_path, TO_ONNX)
    with (
        LaunchedServer(tmp_path, *EVERYTHING, "--breaker-reset", "1000") as server,
        RawClient(server.address) as client,
        ClosedLoop(server.address) as loop,
    ):
        counted = [shadowed(server, "1/onnx_runtime")["compared"]]
        until(lambda: shadowed(server, "1/onnx_runtime")["compared"] > counted[-1])
        configure(tmp_path, TO_ONNX, "instance_group { count: 2 }\n")
        client.load("fake")
        loop.more()
        counted.append(shadowed(server, "1/onnx_runtime")["compared"])
        until(lambda: shadowed(server, "1/onnx_runtime")["compared"] > counted[-1])
        model.breaks("device_lost")
        until(lambda: bool(swaps(server)))
        loop.more()
        counted.append(shadowed(server, "1/onnx_runtime")["compared"])
        until(lambda: shadowed(server, "1/onnx_runtime")["compared"] > counted[-1])
        assert counted == sorted(counted)


def test_a_refused_update_leaves_the_shadow_as_it_was(tmp_path: Path) -> None:
    fake_models.write(tmp_path, version=1)
    configure(tmp_path, {"shadow": "fake", "shadow_share": "1"}, FIRST_ALONE)
    with LaunchedServer(tmp_path, *EVERYTHING) as server, RawClient(server.address) as client:
        client.infer()
        until(lambda: shadowed(server, "1/fake")["compared"] == 1)
        shutil.rmtree(tmp_path / "fake" / "1")
        fake_models.write(tmp_path, version=1, model_spec=fake_models.spec(per_step=True))
        broken = fake_models.write(tmp_path, version=2)
        (broken / "model.fake.json").write_text("{")
        configure(tmp_path, {}, "version_policy { all {} }\n")
        assert "version 2" in refusal(lambda: client.load("fake"))[1]
        client.infer()
        until(lambda: shadowed(server, "1/fake")["compared"] == 2)
        assert server.stop() == 0


def test_each_version_that_is_followed_has_its_own_figures(tmp_path: Path) -> None:
    for version in (1, 2):
        fake_models.write(tmp_path, version=version)
    configure(tmp_path, {"shadow": "2/fake", "shadow_share": "1"}, "version_policy { all {} }\n")
    with LaunchedServer(tmp_path, *EVERYTHING) as server, RawClient(server.address) as client:
        for _ in range(3):
            client.version("fake", "1")
        until(lambda: shadowed(server, "2/fake", "1")["compared"] == 3)
        assert shadowed(server, "2/fake", "2")["compared"] == 0
