"""Files of others are run in a child: what kills it is a sentence, and the next file has a new one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from export import child
from export.child import Opened, Runtime, serve_once
from export.errors import ExportError
from serving.errors import RepositoryError, VerificationFailed
from serving.signature.spec import ModelSpec
from serving.verification import golden, inspection
from tests.support import fake_models, killing_files

ONNX = Runtime("onnx_runtime")


def stated(artifact: Path) -> ModelSpec:
    return inspection.unproved(*ONNX.stated(artifact))


def shapes(opened: Opened) -> tuple[int, ...]:
    answer = opened.run({"x": np.ones((2, 5, killing_files.FEATURES), np.float16)}, ["y"])["y"]
    answer[...] = 0  # as a backend's own answers, it can be written to
    return answer.shape


def test_what_a_file_states_is_read_without_optimising_it(tmp_path: Path) -> None:
    killing_files.write_float16(tmp_path / "model.onnx")
    (x,), (y,) = (list(side.items()) for side in ONNX.stated(tmp_path / "model.onnx"))
    assert x == ("x", ("FP16", (-1, -1, killing_files.FEATURES)))
    assert y == ("y", ("FP16", (-1, -1, killing_files.OUTPUTS)))


def test_a_file_that_kills_its_runtime_at_one_level_is_used_at_the_next(tmp_path: Path) -> None:
    killing_files.write_float16(tmp_path / "model.onnx")
    runtime = Runtime("onnx_runtime")
    assert runtime.using(tmp_path / "model.onnx", stated(tmp_path / "model.onnx"), shapes) == (2, 5, 2)
    assert runtime.level == "extended"
    assert "at 'all' its process ended with signal 11 (Segmentation fault) while it was loaded" in runtime.remark


def test_a_file_that_kills_its_runtime_at_every_level_is_refused_whoever_swallows_the_first_word(
    tmp_path: Path,
) -> None:
    killing_files.write_dividing(tmp_path / "model.onnx")
    tried = []

    def use(opened: Opened) -> str:
        for _ in range(3):
            try:
                opened.run({"x": np.ones((2, 5, killing_files.FEATURES), np.float32)}, ["y"])
            except Exception as error:  # noqa: BLE001 - as trials do, for which a refusal is an answer
                tried.append(str(error))
        return "found"

    with pytest.raises(ExportError) as refused:
        Runtime("onnx_runtime").using(tmp_path / "model.onnx", stated(tmp_path / "model.onnx"), use)
    assert len(tried) == 9
    assert str(refused.value).startswith(f"{tmp_path / 'model.onnx'} kills onnx_runtime ")
    assert (
        "signal 8 (Floating point exception) while it computed, and so at every level of optimisation (all, ex"
        in str(refused.value)
    )


def test_what_is_raised_there_is_raised_here(tmp_path: Path) -> None:
    killing_files.write_float16(tmp_path / "model.onnx")
    spec = stated(tmp_path / "model.onnx")

    def wrongly(opened: Opened) -> None:
        opened.run({"x": np.ones((2, 5, 7), np.float16)}, ["y"])

    with pytest.raises(RuntimeError, match="Got invalid dimensions for input: x"):
        Runtime("onnx_runtime").using(tmp_path / "model.onnx", spec, wrongly)
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(RepositoryError, match="cannot be read by ONNX Runtime"):
        ONNX.stated(tmp_path / "broken.onnx")


def test_a_version_is_served_once_by_the_servers_own_loader(tmp_path: Path) -> None:
    folder = fake_models.write(tmp_path)
    serve_once(folder, "fake", "fake")
    (sample,) = golden.read_samples(folder / golden.FILE_NAME)
    wrong = {name: array + 1 for name, array in sample.outputs.items()}
    golden.write_samples(folder / golden.FILE_NAME, [golden.Sample(sample.inputs, wrong)])
    with pytest.raises(VerificationFailed, match="differs from the trained model"):
        serve_once(folder, "fake", "fake")


def test_a_version_that_kills_its_runtime_is_refused_and_the_next_is_served(tmp_path: Path) -> None:
    folder = fake_models.write(tmp_path, "dies", die_on=1.0)
    with pytest.raises(ExportError, match=r"model\.fake\.json kills fake: its process ended with signal 11"):
        serve_once(folder, "dies", "fake")
    serve_once(fake_models.write(tmp_path, "lives"), "lives", "fake")
    child._close()
