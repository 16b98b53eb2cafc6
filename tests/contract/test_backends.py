"""What `serving/backends/base.py` promises, asked of every module in that folder."""

from __future__ import annotations

import concurrent.futures
import functools
import itertools
import logging
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from serving import backends
from serving.backends.base import Backend, BackendModule, Options
from serving.errors import BackendUnavailable, RepositoryError
from serving.signature.spec import ModelSpec
from tests.support import artefacts
from tests.support.threads import asked_from_elsewhere

CONFIG = artefacts.FEATURES
WEIGHTS = artefacts.weights(CONFIG)
NAMES = ("y", "hn", "cn")


@pytest.fixture(params=backends.names())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def module(name: str) -> BackendModule:
    return backends.module(name)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The artefact of every backend, written once."""
    folder = tmp_path_factory.mktemp("artefacts")
    return {name: artefacts.make(name, CONFIG, WEIGHTS, folder) for name in backends.names()}


@pytest.fixture
def artefact(name: str, shelf: dict[str, Path]) -> Path:
    return shelf[name]


@pytest.fixture
def spec() -> ModelSpec:
    return artefacts.spec(CONFIG, WEIGHTS)


@pytest.fixture
def backend(module: BackendModule, artefact: Path, spec: ModelSpec) -> Iterator[Backend]:
    loaded = module.load(artefact, spec, "cpu", Options())
    yield loaded
    loaded.close()


def test_module_says_what_it_reads_and_what_triton_calls_it(module: BackendModule) -> None:
    assert module.FILE_NAME.startswith("model.")
    assert len(module.TRITON_NAMES) == 2


def test_every_level_of_optimisation_computes_the_same(
    module: BackendModule, artefact: Path, spec: ModelSpec, backend: Backend
) -> None:
    inputs = artefacts.batch(CONFIG, 3, 5)
    furthest = backend.run(inputs, NAMES)
    for level in module.LEVELS:
        loaded = module.load(artefact, spec, "cpu", Options(level=level))
        answer = loaded.run(inputs, NAMES)
        loaded.close()
        assert max(float(np.abs(answer[name] - furthest[name]).max()) for name in NAMES) < 1e-6, level


def test_a_runtime_has_a_version_and_can_be_brought_in(module: BackendModule) -> None:
    module.bring_in()
    assert bool(module.version()) == bool(module.LEVELS)  # what comes with the server has neither


def test_file_names_and_triton_names_are_its_own() -> None:
    modules = [backends.module(name) for name in backends.names()]
    assert len({module.FILE_NAME for module in modules}) == len(modules)
    assert len({module.TRITON_NAMES for module in modules}) == len(modules)


def test_gives_the_outputs_asked_for_and_no_others(backend: Backend) -> None:
    inputs = artefacts.batch(CONFIG, 3, 6)
    everything = backend.run(inputs, NAMES)
    for count in (1, 2, 3):
        for asked in itertools.permutations(NAMES, count):
            got = backend.run(inputs, asked)
            assert got.keys() == set(asked)
            for key in asked:
                np.testing.assert_array_equal(got[key], everything[key])


def test_shapes_and_dtypes_are_those_of_the_spec(backend: Backend, spec: ModelSpec) -> None:
    outputs = backend.run(artefacts.batch(CONFIG, 3, 6), NAMES)
    for tensor in spec.outputs:
        array = outputs[tensor.name]
        assert array.dtype == tensor.dtype
        assert array.shape == (3, *tensor.shape[1:])


def test_rows_and_steps_may_change_with_every_call(backend: Backend) -> None:
    for rows, steps in ((1, 1), (7, 3), (2, 40), (64, 5)):
        assert backend.run(artefacts.batch(CONFIG, rows, steps), NAMES)["y"].shape == (rows, CONFIG.outputs)


def test_rows_keep_their_order(backend: Backend) -> None:
    inputs = artefacts.batch(CONFIG, 9, 6)
    order = np.random.default_rng(1).permutation(9)
    straight = backend.run(inputs, NAMES)
    shuffled = backend.run({key: array[order] for key, array in inputs.items()}, NAMES)
    for key in NAMES:
        np.testing.assert_allclose(shuffled[key], straight[key][order], rtol=0, atol=1e-6)


def test_company_changes_no_row(backend: Backend) -> None:
    inputs = artefacts.batch(CONFIG, 9, 6)
    together = backend.run(inputs, NAMES)
    for row, length in enumerate(inputs["lengths"]):
        alone = {key: array[row : row + 1] for key, array in inputs.items()}
        alone["x"] = alone["x"][:, :length]
        for key, array in backend.run(alone, NAMES).items():
            np.testing.assert_allclose(array, together[key][row : row + 1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("offset", [0, 1])
def test_takes_read_only_views_of_a_message_even_when_unaligned(backend: Backend, offset: int) -> None:
    inputs = artefacts.batch(CONFIG, 3, 6)
    views = {key: _view_of_bytes(array, offset) for key, array in inputs.items()}
    expected = backend.run(inputs, NAMES)
    for key, array in backend.run(views, NAMES).items():
        np.testing.assert_array_equal(array, expected[key])


def test_outputs_are_fresh_and_writable(backend: Backend) -> None:
    inputs = artefacts.batch(CONFIG, 3, 6)
    outputs = backend.run(inputs, NAMES)
    kept = {key: array.copy() for key, array in outputs.items()}
    for array in inputs.values():
        array[...] = 1
    again = backend.run(artefacts.batch(CONFIG, 3, 6, seed=7), NAMES)
    for key, array in outputs.items():
        np.testing.assert_array_equal(array, kept[key])
        assert array.flags.writeable
        assert not any(np.shares_memory(array, other) for other in (*inputs.values(), *again.values()))
        array[...] = 0


def test_keeps_no_input(backend: Backend) -> None:
    inputs = artefacts.batch(CONFIG, 3, 6)
    before = {key: sys.getrefcount(array) for key, array in inputs.items()}
    backend.run(inputs, NAMES)
    backend.run(artefacts.batch(CONFIG, 3, 6, seed=7), NAMES)
    assert {key: sys.getrefcount(array) for key, array in inputs.items()} == before


def test_runs_on_another_thread_than_the_one_that_loaded_it(backend: Backend) -> None:
    inputs, answers = artefacts.batch(CONFIG, 3, 6), []
    worker = threading.Thread(target=lambda: answers.append(backend.run(inputs, ("y",))["y"]))
    worker.start()
    worker.join()
    np.testing.assert_array_equal(answers[0], backend.run(inputs, ("y",))["y"])


def test_closing_one_leaves_another_of_the_same_file(module: BackendModule, artefact: Path, spec: ModelSpec) -> None:
    first, second = (module.load(artefact, spec, "cpu", Options(threads=threads)) for threads in (1, 2))
    inputs = artefacts.batch(CONFIG, 3, 6)
    expected = first.run(inputs, ("y",))["y"]
    first.close()
    np.testing.assert_allclose(second.run(inputs, ("y",))["y"], expected, rtol=0, atol=1e-6)
    second.close()


def test_loading_leaves_the_process_as_it_was(module: BackendModule, artefact: Path, spec: ModelSpec) -> None:
    """Also when models are loaded on several threads at once."""
    module.load(artefact, spec, "cpu", Options()).close()  # brings in the framework
    before = {name: logging.getLogger(name).level for name in ("", "tensorflow", "torch", "onnxruntime")}
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for loaded in [pool.submit(module.load, artefact, spec, "cpu", Options()) for _ in range(8)]:
            loaded.result().close()
    assert {name: logging.getLogger(name).level for name in before} == before


def test_a_torch_model_computes_with_its_own_number_of_threads_wherever_it_is_asked(
    shelf: dict[str, Path], spec: ModelSpec
) -> None:
    """Whatever was loaded after it, and on a thread that torch has not seen."""
    import torch

    load, inputs = backends.module("torchscript").load, artefacts.batch(CONFIG, 2, 3)
    models = {threads: load(shelf["torchscript"], spec, "cpu", Options(threads=threads)) for threads in (1, 3, 2)}

    def threads_of(model: Backend) -> int:
        model.run(inputs, NAMES)
        return torch.get_num_threads()

    usual = torch.get_num_threads()
    for threads, model in models.items():
        assert asked_from_elsewhere(functools.partial(threads_of, model)) == threads
        model.close()
    torch.set_num_threads(usual)


def test_refuses_a_missing_artefact_by_name(module: BackendModule, spec: ModelSpec, tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match=module.FILE_NAME):
        module.load(tmp_path / module.FILE_NAME, spec, "cpu", Options())


def test_refuses_a_truncated_artefact_by_name(
    module: BackendModule, artefact: Path, spec: ModelSpec, tmp_path: Path
) -> None:
    copy = tmp_path / artefact.name
    if artefact.is_dir():
        shutil.copytree(artefact, copy)
        largest = max((path for path in copy.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    else:
        largest = Path(shutil.copy(artefact, copy))
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    with pytest.raises(RepositoryError, match=artefact.name):
        module.load(copy, spec, "cpu", Options())


@pytest.mark.parametrize("content", [b"", b"not a model"])
def test_refuses_an_artefact_that_is_something_else(
    module: BackendModule, artefact: Path, spec: ModelSpec, tmp_path: Path, content: bytes
) -> None:
    copy = tmp_path / artefact.name
    if artefact.is_dir():
        shutil.copytree(artefact, copy)
        (copy / "saved_model.pb").write_bytes(content)
    else:
        copy.write_bytes(content)
    with pytest.raises(RepositoryError, match=artefact.name):
        module.load(copy, spec, "cpu", Options())


def test_runs_on_the_cpu_here(module: BackendModule) -> None:
    module.available("cpu")


@pytest.mark.parametrize("device", ["cuda:999", "gpu", "cuda", "cuda:-1", ""])
def test_refuses_a_device_that_is_not_there(
    module: BackendModule, artefact: Path, spec: ModelSpec, device: str
) -> None:
    with pytest.raises(BackendUnavailable, match=r"\w+ \w+"):
        module.available(device)
    with pytest.raises(BackendUnavailable):
        module.load(artefact, spec, device, Options())


def test_asking_for_the_cpu_imports_no_framework() -> None:
    program = (
        "import sys; from serving import backends\n"
        "for name in backends.names(): backends.module(name).available('cpu')\n"
        "print(*sorted({'torch', 'tensorflow', 'onnxruntime', 'keras', 'onnx'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == []


def _view_of_bytes(array: npt.NDArray[Any], offset: int) -> npt.NDArray[Any]:
    """`array` as a read-only view into the middle of immutable bytes."""
    message = b"\0" * offset + array.tobytes()
    view = np.frombuffer(message, array.dtype, array.size, offset).reshape(array.shape)
    assert not view.flags.writeable
    return view
