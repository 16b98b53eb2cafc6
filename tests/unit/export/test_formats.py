"""Formats are found by the names of their files, chosen by a list, and need packages that are named."""

from __future__ import annotations

import sys

import pytest

from export import formats
from export.errors import ExportError
from serving import backends


def test_formats_are_listed_once_each_in_the_order_asked() -> None:
    assert formats.parse("torchscript,onnx,torchscript") == ("torchscript", "onnx")
    assert formats.parse("all") == formats.names() == ("onnx", "savedmodel", "torchscript")
    assert formats.parse("torchscript,all") == ("torchscript", "onnx", "savedmodel")


def test_a_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    monkeypatch.delitem(sys.modules, "export.writers.savedmodel_writer", raising=False)
    with pytest.raises(ExportError, match=r"format savedmodel needs the package tensorflow: .*\[tensorflow\]"):
        formats.writer("savedmodel")


@pytest.mark.parametrize("text", ["pickle", "onnx,pickle", "", "onnx,", "ONNX"])
def test_an_unknown_format_is_refused(text: str) -> None:
    with pytest.raises(ExportError, match=r"unknown format '.*'; known are onnx, savedmodel, torchscript and all"):
        formats.parse(text)


@pytest.mark.parametrize("form", formats.names())
def test_a_writer_names_the_backend_that_reads_what_it_writes(form: str) -> None:
    assert formats.writer(form).BACKEND in backends.names()


@pytest.mark.parametrize(
    ("package", "extra"),
    [
        ("onnx", "train"),
        ("torch", "torch"),
        ("tensorflow", "tensorflow"),
        ("keras", "tensorflow"),
        ("safetensors", "train"),
    ],
)
def test_a_missing_package_is_told_with_what_to_install(package: str, extra: str) -> None:
    error = formats.missing_package("this export", ModuleNotFoundError("No module", name=package))
    assert str(error) == f"this export needs the package {package}: pip install 'lstm-serving[{extra}]'"
