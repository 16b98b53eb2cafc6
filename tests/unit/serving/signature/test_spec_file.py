"""A `spec.json` that somebody has edited: what is wrong is named, with its value and what is allowed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from serving.errors import RepositoryError
from serving.signature import spec_file
from tests.support import fake_models

KNOWN = {
    "inputs": "tuple[TensorSpec, ...]",
    "outputs": "tuple[TensorSpec, ...]",
    "lengths": "LengthsSpec | None",
    "state": "tuple[StatePair, ...]",
    "streamable": "bool",
    "tolerance": "float",
    "weights_sha256": "str",
    "vocabulary": "int",
    "source": "Mapping[str, Any]",
}
REQUIRED = ("inputs", "tolerance")


def fields(**changes: Any) -> dict[str, Any]:
    written = json.loads(fake_models.spec().to_json())
    return {key: written[key] for key in ("format_version", *KNOWN)} | changes


def tensor(**changes: Any) -> dict[str, Any]:
    return {"name": "x", "datatype": "FP32", "shape": [-1, 3], "rows_axis": 0, "steps_axis": None} | changes


def read(path: Path, text: str) -> dict[str, Any]:
    path.write_text(text)
    return spec_file.fields_of(spec_file.text(path), KNOWN, REQUIRED)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    found = read(tmp_path / "spec.json", json.dumps(fields()))
    spec = fake_models.spec()
    assert (found["inputs"], found["outputs"]) == (spec.inputs, spec.outputs)
    assert found["lengths"] == {"input": "lengths", "of": "x"}
    assert found["state"] == [{"input": "h0", "output": "hn"}, {"input": "c0", "output": "cn"}]
    few = {
        "format_version": 1,
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1]}],
        "tolerance": 1,
        "lengths": None,
    }
    assert read(tmp_path / "spec.json", json.dumps(few))["lengths"] is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"streamable": "yes"}, 'streamable is "yes"; it must be true or false'),
        ({"streamable": 1}, "streamable is 1; it must be true or false"),
        ({"tolerance": "1e-5"}, 'tolerance is "1e-5"; it must be a number'),
        ({"tolerance": True}, "tolerance is true; it must be a number"),
        ({"tolerance": None}, "tolerance is null; it must be a number"),
        ({"vocabulary": 1.5}, "vocabulary is 1.5; it must be a whole number"),
        ({"source": []}, r"source is \[\]; it must be an object"),
        ({"weights_sha256": {"a": "b" * 90}}, r'weights_sha256 is \{"a": "b+\.\.\.; it must be a text'),
        ({"format_version": "2"}, "format_version is '2'; this server reads 1 and 2"),
        ({"format_version": True}, "format_version is True"),
        ({"tolerence": 1}, "it has 'tolerence', which is no key there; known are inputs, outputs"),
        ({"inputs": {}}, r"inputs is \{\}; it must be a list"),
        ({"inputs": [3]}, r"inputs\[0\] is 3; it must be an object"),
        (
            {"inputs": [tensor(axis=1)]},
            r"inputs\[0\] has 'axis', which is no key there; known are name, datatype, shape",
        ),
        ({"outputs": [tensor(), {"name": "y"}]}, r"'datatype' is missing in outputs\[1\]"),
        ({"inputs": [tensor(name="")]}, r"inputs\[0\].name is '', which no client could write"),
        ({"inputs": [tensor(name="a\nb")]}, r"inputs\[0\].name is 'a\\nb', which no client"),
        ({"inputs": [tensor(name=3)]}, r"inputs\[0\].name is 3; it must be a text"),
        ({"inputs": [tensor(shape=[-1, "3"])]}, r'x has shape \[-1, "3"\]; sizes are whole numbers'),
        ({"inputs": [tensor(shape=[-1, 3.0])]}, "sizes are whole numbers"),
        ({"inputs": [tensor(shape=[-1, -2])]}, "sizes are whole numbers"),
        ({"inputs": [tensor(shape=[-1, 10**30])]}, "sizes are whole numbers"),
        ({"inputs": [tensor(shape=-1)]}, r"inputs\[0\].shape is -1; it must be a list"),
        ({"inputs": [tensor(rows_axis=2)]}, r"inputs\[0\].rows_axis is 2; x has 2 axes, so it must be 0 to 1, or null"),
        ({"inputs": [tensor(steps_axis=-1)]}, r"inputs\[0\].steps_axis is -1; x has 2 axes"),
        ({"inputs": [tensor(steps_axis="1")]}, r'inputs\[0\].steps_axis is "1"'),
        ({"lengths": "x"}, 'lengths is "x"; it must be an object'),
        ({"lengths": {"input": "lengths"}}, "'of' is missing in lengths"),
        ({"state": [{"input": "h", "output": 1}]}, r"state\[0\].output is 1; it must be a text"),
        ({"state": [{"input": "h", "output": "n", "of": "x"}]}, r"state\[0\] has 'of', which is no key there"),
    ],
)
def test_what_is_wrong_is_named(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match=said):
        read(tmp_path / "spec.json", json.dumps(fields(**changes)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace('"streamable"', '"tolerance"'), "'tolerance' is there twice"),
        (lambda text: text.replace("1e-05", "NaN"), "it holds NaN, which is no number of JSON"),
        (lambda text: text.replace("1e-05", "Infinity"), "it holds Infinity"),
        (
            lambda text: text.replace('"format_version"', '"vocabulary"', 1).replace("vocabulary", "v", 1),
            "'format_version' is",
        ),
        (lambda _: "3", "it is 3; it must be an object"),
        (lambda text: text + " " * spec_file.MAX_BYTES, "it has more than 4194304 bytes"),
    ],
)
def test_texts_that_are_no_specification(change: Callable[[str], str], said: str, tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match=said):
        read(tmp_path / "spec.json", change(json.dumps(fields())))


@pytest.mark.parametrize("text", ["", "{", "\ufeff{}", '{"a": 1}}'])
def test_what_is_no_json(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Expecting|Extra data|Unexpected"):
        read(tmp_path / "spec.json", text)


def test_what_is_missing(tmp_path: Path) -> None:
    for key in REQUIRED:
        written = fields()
        del written[key]
        with pytest.raises(RepositoryError, match=f"'{key}' is missing$"):
            read(tmp_path / "spec.json", json.dumps(written))
