"""A person's own samples: what a file of them may hold, how they fit a network, and what becomes of them."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export import samples
from export.__main__ import main
from export.errors import ExportError
from export.samples import UserSamples, checked
from export.sources import own_signature
from serving.signature.tensors import Tensors
from serving.verification import golden, inspection
from serving.verification.hints import Hints
from tests.support.onnx_networks import pressure

X, Y = {"x": ("FP32", (-1, -1, 2))}, {"y": ("FP32", (-1, 2))}
STATED = inspection.unproved(X, Y)
LAST = np.arange(12, dtype=np.float32).reshape(2, 3, 2)


def last(sent: Tensors, wanted: Sequence[str]) -> Tensors:
    return {"y": sent["x"][:, -1]}


def read(folder: Path, **arrays: Any) -> UserSamples:
    np.savez(folder / "own.npz", **arrays)
    return UserSamples.read(folder / "own.npz")


def fitting(folder: Path, arrays: Mapping[str, Any], hints: Hints | None = None) -> list[samples.UserSample]:
    return read(folder, **arrays).fitting(STATED.inputs, STATED.outputs, hints or Hints())


def test_names_tell_inputs_from_answers(tmp_path: Path) -> None:
    (sample,) = fitting(tmp_path, {"x": LAST.astype(np.float64), "y": LAST[:, -1]})
    assert (sample.inputs["x"].dtype, list(sample.answers)) == (np.float32, ["y"])


def test_several_have_the_keys_of_golden_samples(tmp_path: Path) -> None:
    first, second = fitting(tmp_path, {"0/in/x": LAST, "1/in/x": LAST[:1], "1/out/y": LAST[:1, -1]})
    assert (first.answers, second.inputs["x"].shape) == ({}, (1, 3, 2))


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"z": LAST}, "lacks the input x; the inputs are x"),
        ({"x": LAST, "z": LAST}, "there is no input 'z'; the inputs are x, the outputs y"),
        ({"0/in/x": LAST, "0/out/z": LAST}, "there is no output 'z'"),
        ({"0/in/x": LAST, "y": LAST}, "'y' is no key beside others like 0/in/x"),
        ({"x": LAST[0]}, r"x has the shape \[3, 2\]; it must be \[-1, -1, 2\]"),
        ({"x": LAST[:, :0]}, r"x has the shape \[2, 0, 2\]"),
        ({"x": LAST > 0}, "x is bool, and FP32 holds other values"),
        ({"x": LAST, "y": LAST[:, -1] > 0}, "y is bool"),
    ],
)
def test_what_does_not_fit_is_named(arrays: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=said):
        fitting(tmp_path, arrays)


def test_a_shape_that_was_said_holds(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"it must be \[-1, 4, 2\]"):
        fitting(tmp_path, {"x": LAST}, Hints(shapes={"x": (-1, 4, 2)}))


def test_whole_numbers_must_be_held(tmp_path: Path) -> None:
    stated = inspection.unproved({"x": ("INT8", (-1,))}, Y)
    with pytest.raises(ExportError, match="x is int64, and INT8 holds other values"):
        read(tmp_path, x=np.array([300])).fitting(stated.inputs, stated.outputs, Hints())


def test_one_name_on_both_sides_needs_a_side(tmp_path: Path) -> None:
    stated = inspection.unproved({"h": ("FP32", (-1,))}, {"h": ("FP32", (-1,))})
    with pytest.raises(
        ExportError, match="h is the name of an input and of an output; say which with the keys 0/in/h and"
    ):
        read(tmp_path, h=np.ones(2)).fitting(stated.inputs, stated.outputs, Hints())


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x05\x06" + bytes(18)], ids=["empty", "text", "no array"])
def test_a_file_that_holds_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "own.npz").write_bytes(content)
    with pytest.raises(ExportError, match=r"own.npz (cannot be read as samples|holds no array)"):
        UserSamples.read(tmp_path / "own.npz")
    with pytest.raises(ExportError, match="cannot be read as samples"):
        UserSamples.read(tmp_path / "nowhere.npz")


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "own.npz", x=np.array([{}], object))
    with pytest.raises(ExportError, match="cannot be read as samples: Object arrays cannot be loaded"):
        UserSamples.read(tmp_path / "own.npz")


def test_what_would_fill_the_memory_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "_MOST_BYTES", 10_000)
    with zipfile.ZipFile(tmp_path / "own.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", bytes(100_000))
    with pytest.raises(ExportError, match="holds 100000 bytes of samples; at most 10000"):
        UserSamples.read(tmp_path / "own.npz")


def test_answers_are_held_to_the_networks_own(tmp_path: Path) -> None:
    given = fitting(tmp_path, {"x": LAST, "y": LAST[:, -1] + 0.25})
    with pytest.raises(
        ExportError, match=r"sample 0: y is another answer than the one given: they are 0\.\d+ apart .* 1e-05"
    ):
        checked(given, tmp_path / "own.npz", last, ["y"], 1e-5)
    assert checked(given, tmp_path / "own.npz", last, ["y"], 0.3)
    with pytest.raises(ExportError, match=r"y is given as \[1, 2\], and the answer is \[2, 2\]"):
        checked(fitting(tmp_path, {"x": LAST, "y": LAST[:1, -1]}), tmp_path / "own.npz", last, ["y"], 1e-5)


def test_a_network_that_fails_on_a_sample(tmp_path: Path) -> None:
    def fails(sent: Tensors, wanted: Sequence[str]) -> Tensors:
        raise ValueError("too short")

    with pytest.raises(ExportError, match="sample 0: the network fails on it: too short"):
        checked(fitting(tmp_path, {"x": LAST}), tmp_path / "own.npz", fails, ["y"], 1e-5)


def test_they_come_first_among_the_golden_samples_with_rows_first(tmp_path: Path) -> None:
    stated = inspection.unproved({"x": ("FP32", (-1, -1, 2)), "scale": ("FP32", ())}, Y)

    def steps_first(sent: Tensors, wanted: Sequence[str]) -> Tensors:
        return {"y": sent["x"].cumsum(0)[-1] * sent["scale"]}

    own = read(tmp_path, x=LAST, scale=np.float32(3))
    found = own_signature.find(stated, steps_first, Hints(values={"scale": 2}), samples=own)
    assert found.spec.batched
    sample = found.samples[0]
    assert {name: array.shape for name, array in sample.inputs.items()} == {"x": (3, 2, 2), "scale": (3,)}
    np.testing.assert_allclose(sample.outputs["y"], 3 * LAST.sum(0))


def test_a_network_that_made_values_saturate_is_proved_on_samples(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pressure(tmp_path / "net.onnx")
    x = np.random.default_rng(1).normal(101325, 10, (3, 7, 1))
    command = ["import", str(tmp_path / "net.onnx"), "--repository", str(tmp_path / "r"), "--name", "m"]
    np.savez(tmp_path / "own.npz", x=x)
    assert main([*command, "--samples", str(tmp_path / "own.npz")]) == 0
    version = tmp_path / "r" / "m" / "1"
    (first, *_) = golden.read_samples(version / "golden.npz")
    np.testing.assert_allclose(first.inputs["x"].reshape(x.shape), x.astype(np.float32))
    assert np.ptp(first.outputs["y"]) > 0.1, "they do not saturate it"
    np.savez(tmp_path / "own.npz", x=x, y=first.outputs["y"].reshape(3, 1) + 0.5)
    assert main([*command, "--samples", str(tmp_path / "own.npz")]) == 2
    assert "y is another answer than the one given" in capsys.readouterr().err
