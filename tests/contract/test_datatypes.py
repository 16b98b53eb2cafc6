"""Every datatype of the protocol through every runtime that knows it: a file that gives back what it is given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from serving import backends
from serving.backends.base import Options
from serving.errors import RepositoryError
from serving.signature.spec import ModelSpec
from serving.signature.tensors import BF16, DTYPES, TensorSpec
from serving.verification import golden
from tests.support import identity_models

SHAPE = (3, 2)
REFUSED = {("onnx_runtime", "BF16"), ("torchscript", "BYTES")}
KNOWN = [(name, kind) for name in identity_models.WRITERS for kind in DTYPES if (name, kind) not in REFUSED]


def spec(datatype: str) -> ModelSpec:
    return identity_models.spec([datatype])


def values(datatype: str) -> npt.NDArray[Any]:
    """The ends of the type's range, and NaN where there is one."""
    dtype = DTYPES[datatype]
    if datatype == "BYTES":
        array = np.empty(6, object)
        array[:] = [b"", b"a", "\N{SNOWMAN}".encode(), b"nul \0 inside", b"nul at the end \0", b"x" * 1000]
        return array.reshape(SHAPE)
    if datatype == "BF16":
        return np.array([0x0000, 0x3F80, 0xBF80, 0x7F80, 0x0001, 0x7FC0], "<u2").view(BF16).reshape(SHAPE)
    if datatype == "BOOL":
        return np.array([0, 1, 1, 0, 0, 1], dtype).reshape(SHAPE)
    if dtype.kind in "iu":
        return np.array([np.iinfo(dtype).min, np.iinfo(dtype).max, 0, 1, 2, 3], dtype).reshape(SHAPE)
    return np.array([np.finfo(dtype).min, np.finfo(dtype).max, np.nan, np.inf, -0.0, 0.1], dtype).reshape(SHAPE)


@pytest.mark.parametrize(("name", "datatype"), KNOWN)
def test_comes_back_as_it_went_in(name: str, datatype: str, tmp_path: Path) -> None:
    module = backends.module(name)
    identity_models.WRITERS[name](tmp_path / module.FILE_NAME, [datatype])
    backend = module.load(tmp_path / module.FILE_NAME, spec(datatype), "cpu", Options())
    sent = values(datatype)
    (out,) = [tensor.name for tensor in spec(datatype).outputs]
    (into,) = [tensor.name for tensor in spec(datatype).inputs]
    got = backend.run({into: sent}, [out])[out]
    backend.close()
    assert got.dtype == sent.dtype
    assert got.tolist() == sent.tolist() if datatype == "BYTES" else got.tobytes() == sent.tobytes()
    assert golden.disagreement(got, sent) == 0


@pytest.mark.parametrize(("name", "datatype"), sorted(REFUSED))
def test_what_a_runtime_does_not_know_is_refused_at_load(name: str, datatype: str, tmp_path: Path) -> None:
    module = backends.module(name)
    identity_models.WRITERS[name](tmp_path / module.FILE_NAME, [datatype])
    with pytest.raises(RepositoryError, match=rf"{datatype}.*(cast inside|no tensors of strings)"):
        module.load(tmp_path / module.FILE_NAME, spec(datatype), "cpu", Options())


def test_an_empty_axis_stays_empty(tmp_path: Path) -> None:
    for name, write in identity_models.WRITERS.items():
        module = backends.module(name)
        write(tmp_path / module.FILE_NAME, ["FP32"])
        open_spec = identity_models.spec(["FP32"])
        backend = module.load(tmp_path / module.FILE_NAME, open_spec, "cpu", Options())
        got = backend.run({"in_fp32": np.zeros((2, 0), np.float32)}, ["out_fp32"])["out_fp32"]
        assert (got.shape, got.dtype) == ((2, 0), np.float32)


@pytest.mark.parametrize("datatype", ["BF16", "BYTES"])
def test_golden_samples_keep_it(datatype: str, tmp_path: Path) -> None:
    array = values(datatype)
    if datatype == "BYTES":
        array = array[:2]  # the others end in NUL or hold more
    golden.write_samples(tmp_path / "golden.npz", [golden.Sample({"a": array}, {"b": array})])
    (sample,) = golden.read_samples(tmp_path / "golden.npz")
    assert golden.disagreement(sample.outputs["b"], array) == 0
    assert golden.disagreement(sample.outputs["b"], array[::-1].copy()) > 0


def test_the_writers_know_every_backend() -> None:
    writers: dict[str, Callable[..., None]] = dict(identity_models.WRITERS)
    assert writers.keys() == set(backends.PREFERENCE)


def test_tensor_specs_of_every_datatype_survive_json(tmp_path: Path) -> None:
    written = identity_models.spec(list(DTYPES))
    (tmp_path / "spec.json").write_text(written.to_json())
    assert ModelSpec.read(tmp_path / "spec.json").inputs == written.inputs
    assert all(isinstance(tensor, TensorSpec) for tensor in written.inputs)
