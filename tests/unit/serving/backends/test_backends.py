"""Backends by name: a file of the folder is one, and Triton's names lead to ours."""

from __future__ import annotations

import sys

import pytest

from serving import backends
from serving.errors import BackendUnavailable


def test_what_answers_one_row_fastest_comes_first() -> None:
    assert backends.names() == ("onnx_runtime", "torchscript", "saved_model", "fake")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("onnx_runtime", "onnx_runtime"),
        ("onnxruntime", "onnx_runtime"),
        ("onnxruntime_onnx", "onnx_runtime"),
        ("pytorch_libtorch", "torchscript"),
        ("tensorflow_savedmodel", "saved_model"),
        ("tensorrt", None),
        ("base", None),  # the contract is no backend
        ("", None),
    ],
)
def test_a_backend_by_our_name_or_by_one_of_tritons(text: str, name: str | None) -> None:
    assert backends.named(text) == name


def test_one_that_there_is_not() -> None:
    with pytest.raises(
        BackendUnavailable, match="no backend is called 'tensorrt'; known are onnx_runtime, torchscript"
    ):
        backends.module("tensorrt")


def test_a_runtime_is_brought_in_once_it_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", sys)
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    found = {name: backends.brought_in(name) for name in ("torchscript", "saved_model", "fake")}
    assert found == {"torchscript": True, "saved_model": False, "fake": True}  # the fake one has no runtime
