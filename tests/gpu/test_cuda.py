"""Every backend's CUDA path: it computes what the equations say, keeps rows apart, and says what it cannot do."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path

import numpy as np
import pytest

from models.config import LSTMConfig
from serving import backends
from serving.backends.base import Options
from serving.errors import BackendUnavailable
from serving.verification import golden
from serving.verification.golden import TF32_TOLERANCE
from tests.support import artefacts, oracle, real_model
from tests.support.cuda import DEVICE, usable

NAMES = ("y", "hn", "cn")
WIDE = LSTMConfig(input="features", features=8, layers=2, hidden=256, outputs=4)
TOLERANCE = 1e-5


def loaded(name: str, config: LSTMConfig, folder: Path, device: str = DEVICE, options: Options | None = None):  # type: ignore[no-untyped-def]
    weights = artefacts.weights(config)
    artefact = artefacts.make(name, config, weights, folder)
    return backends.module(name).load(artefact, artefacts.spec(config, weights), device, options or Options())


@pytest.mark.parametrize("config", [*artefacts.CONFIGS, WIDE], ids=artefacts.described)
def test_agrees_with_the_equations(name: str, config: LSTMConfig, tmp_path: Path) -> None:
    backend = loaded(name, config, tmp_path)
    for rows, steps in ((1, 1), (7, 24), (2, 100)):
        inputs = artefacts.batch(config, rows, steps)
        expected = oracle.predict(config, artefacts.weights(config), inputs)
        golden.check_agreement(name, backend.run(inputs, NAMES), expected, TOLERANCE)
    backend.close()


def test_company_changes_no_row(name: str, tmp_path: Path) -> None:
    config = artefacts.FEATURES
    backend = loaded(name, config, tmp_path)
    inputs = artefacts.batch(config, 64, 40)
    together = backend.run(inputs, NAMES)
    for row, length in enumerate(inputs["lengths"]):
        alone = {key: array[row : row + 1] for key, array in inputs.items()}
        alone["x"] = alone["x"][:, :length]
        for key, array in backend.run(alone, NAMES).items():
            np.testing.assert_allclose(array, together[key][row : row + 1], rtol=0, atol=TOLERANCE)
    backend.close()


@pytest.mark.parametrize("config", [*artefacts.CONFIGS, WIDE], ids=artefacts.described)
def test_torch_has_the_weights_in_one_piece(config: LSTMConfig, tmp_path: Path) -> None:
    """Else it warns, and copies them together at every call."""
    usable("torchscript")
    backend = loaded("torchscript", config, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        backend.run(artefacts.batch(config, 3, 6), NAMES)
        backend.run(artefacts.batch(config, 3, 6, full=True), NAMES)
    backend.close()


def test_outputs_are_on_the_host_fresh_and_writable(name: str, tmp_path: Path) -> None:
    backend = loaded(name, artefacts.FEATURES, tmp_path)
    inputs = artefacts.batch(artefacts.FEATURES, 3, 6)
    first = backend.run(inputs, NAMES)
    kept = {key: array.copy() for key, array in first.items()}
    backend.run(artefacts.batch(artefacts.FEATURES, 3, 6, seed=7), NAMES)
    for key, array in first.items():
        assert isinstance(array, np.ndarray)
        assert array.flags.writeable
        np.testing.assert_array_equal(array, kept[key])
    backend.close()


def test_tf32_is_off_unless_asked_for_and_within_its_tolerance_then(name: str, tmp_path: Path) -> None:
    inputs = artefacts.batch(WIDE, 64, 100)
    expected = oracle.predict(WIDE, artefacts.weights(WIDE), inputs)
    worst = {}
    for allow_tf32 in (True, False):
        (tmp_path / str(allow_tf32)).mkdir()
        backend = loaded(name, WIDE, tmp_path / str(allow_tf32), options=Options(allow_tf32=allow_tf32))
        got = backend.run(inputs, NAMES)
        worst[allow_tf32] = max(golden.disagreement(got[key], expected[key]) for key in NAMES)
        backend.close()
    print(f"largest difference of {name} on {DEVICE}: {worst[False]:.2g}; with TF32 allowed {worst[True]:.2g}")
    assert worst[False] <= TOLERANCE
    assert worst[True] <= TF32_TOLERANCE


def test_a_gpu_that_is_not_there(name: str, tmp_path: Path) -> None:
    with pytest.raises(BackendUnavailable, match="cuda:99"):
        loaded(name, artefacts.FEATURES, tmp_path, "cuda:99")


@pytest.mark.parametrize("device", [DEVICE, "auto"])
def test_a_server_computes_on_it(name: str, device: str, tmp_path: Path) -> None:
    for package in ("grpc_health", "grpc_reflection"):
        pytest.importorskip(package, reason=f"the server needs {package}")
    from protos import grpc_service_pb2 as pb
    from protos import model_config_pb2
    from serving.launch import LaunchedServer
    from tests.support.wire import RawClient

    config = dataclasses.replace(artefacts.FEATURES, hidden=64)
    real_model.write(tmp_path, (name,), name="lstm", config=config)
    inputs = artefacts.batch(config, 2, 9)
    request = pb.ModelInferRequest(model_name="lstm")
    for key, array in inputs.items():
        request.inputs.add(name=key, datatype="INT64" if array.dtype == np.int64 else "FP32", shape=array.shape)
        request.raw_input_contents.append(array.tobytes())
    with LaunchedServer(tmp_path, "--backend", name, "--device", device) as server, RawClient(server.address) as client:
        assert server.wait_for("loaded", 1)["device"] == DEVICE
        (group,) = client.call("ModelConfig", name="lstm").config.instance_group
        assert (group.kind, list(group.gpus)) == (model_config_pb2.ModelInstanceGroup.KIND_GPU, [0])
        answer = client.method("ModelInfer")(request, timeout=60)
        y = np.frombuffer(answer.raw_output_contents[0], np.float32).reshape(2, -1)
        expected = oracle.predict(config, artefacts.weights(config), inputs)["y"]
        assert golden.disagreement(y, expected) <= TOLERANCE
        assert server.stop() == 0
