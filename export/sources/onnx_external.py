"""Which files an ONNX file keeps its weights in, when they lie beside it: read from the file, without the package `onnx`.

Torch writes weights so whenever they are large, and its newer exporter always does. Names and numbers of the fields are
those of onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto); what is not named here is skipped.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory

from export.errors import ExportError

# Messages of onnx.proto by their name: a field's name, its number, and the message that it repeats; "" for a text.
_MESSAGES: dict[str, tuple[tuple[str, int, str], ...]] = {
    "Model": (("graph", 7, "Graph"), ("functions", 25, "Function")),
    "Graph": (("node", 1, "Node"), ("initializer", 5, "Tensor"), ("sparse_initializer", 15, "Sparse")),
    "Function": (("node", 7, "Node"),),
    "Node": (("attribute", 5, "Attribute"),),
    "Attribute": (
        ("t", 5, "Tensor"),
        ("g", 6, "Graph"),
        ("tensors", 10, "Tensor"),
        ("graphs", 11, "Graph"),
        ("sparse_tensor", 22, "Sparse"),
        ("sparse_tensors", 23, "Sparse"),
    ),
    "Sparse": (("values", 1, "Tensor"), ("indices", 2, "Tensor")),
    "Tensor": (("external_data", 13, "Entry"),),
    "Entry": (("key", 1, ""), ("value", 2, "")),
}
_PACKAGE = "lstm_serving.onnx"
_OURS = frozenset(("spec.json", "golden.npz", "model.onnx", "model.pt", "model.savedmodel"))  # in a version's folder


def beside(file: Path) -> tuple[Path, ...]:
    """The files that hold weights of the ONNX file, relative to its folder, sorted; none where it holds all of them itself.

    Raises `ExportError` for one that is missing, lies outside the file's folder, or has a name that a version needs itself.
    """
    model = _model_class()()
    try:
        model.ParseFromString(file.read_bytes())
    except message.DecodeError:
        return ()  # no ONNX: the runtime says so
    folder = file.parent.resolve()
    found = []
    for name in sorted(set(_locations(model))):
        path = Path(name)
        if path.is_absolute() or not (folder / path).resolve().is_relative_to(folder):
            raise ExportError(
                f"{file} keeps weights in {name!r}, outside its own folder; save it again with its data beside it "
                "(onnx.save_model(model, FILE, save_as_external_data=True, location='weights.data'))"
            )
        if not (folder / path).is_file():
            raise ExportError(
                f"{file} keeps weights in {name!r}, and {file.parent / path} is missing: bring that file along, under this name"
            )
        if path.parts[0] in _OURS:
            raise ExportError(
                f"{file} keeps weights in {name!r}, which is the name of another file of a version; save it anew"
            )
        found.append(path)
    return tuple(found)


def _locations(part: Any) -> Iterator[str]:
    for field, value in part.ListFields():
        if field.name == "external_data":
            yield from (entry.value for entry in value if entry.key == "location")
        elif field.message_type is not None:
            for each in value:
                yield from _locations(each)


@functools.cache
def _model_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="lstm_serving/onnx.proto", package=_PACKAGE, syntax="proto2")
    for name, fields in _MESSAGES.items():
        made = file.message_type.add(name=name)
        for field, number, kind in fields:
            one = made.field.add(name=field, number=number)
            one.label = one.LABEL_REPEATED if kind else one.LABEL_OPTIONAL
            one.type = one.TYPE_MESSAGE if kind else one.TYPE_STRING
            if kind:
                one.type_name = f".{_PACKAGE}.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.Model"))
