"""Formats are found by the names of their files, chosen by a list, and need packages that are named."""

from __future__ import annotations

import importlib.util

import pytest

from commands import extras
from export import formats
from export.errors import ExportError
from serving import backends


def test_formats_are_listed_once_each_in_the_order_asked() -> None:
    assert formats.parse("torchscript,onnx,torchscript") == ("torchscript", "onnx")
    assert formats.parse("all") == formats.names() == ("onnx", "savedmodel", "torchscript")
    assert formats.parse("torchscript,all") == ("torchscript", "onnx", "savedmodel")


def test_what_is_missing_is_told_at_once_with_its_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs the file is asked for too, since nothing is written that cannot be proved."""
    find = importlib.util.find_spec
    here = ("tensorflow", "onnx", "onnxruntime")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in here else find(name))
    with pytest.raises(ExportError, match=r"the packages onnx and onnxruntime are not .*\[onnx,train\]"):
        formats.writer("onnx")
    formats.check(("torchscript",))
    with pytest.raises(ExportError, match=r"onnx, onnxruntime and tensorflow are not .*\[onnx,tensorflow,train\]"):
        formats.check(formats.names())


@pytest.mark.parametrize("text", ["pickle", "onnx,pickle", "", "onnx,", "ONNX"])
def test_an_unknown_format_is_refused(text: str) -> None:
    with pytest.raises(ExportError, match=r"unknown format '.*'; known are onnx, savedmodel, torchscript and all"):
        formats.parse(text)


@pytest.mark.parametrize("form", formats.names())
def test_a_writer_names_the_backend_that_reads_what_it_writes(form: str) -> None:
    assert formats.writer(form).BACKEND in backends.names()


def test_every_format_says_what_it_needs() -> None:
    assert sorted(extras.FORMATS) == sorted(formats.names())
    assert all(formats.needs([form]) for form in formats.names())
