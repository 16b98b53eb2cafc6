"""The text of `spec.json`, held to its form: who has edited it by hand is told the key, its value and what is allowed.

What the values mean together is checked by `serving.signature.spec`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from serving.errors import RepositoryError
from serving.signature.tensors import TensorSpec

FORMAT_VERSION = 2  # 1 did not say which axis holds the steps
MAX_BYTES = 4 * 1024 * 1024
MAX_SIZE = 2**40  # of an axis

# How the kinds of values are called, by the annotations of the fields.
_KINDS: dict[str, tuple[type, str]] = {
    "str": (str, "a text"),
    "bool": (bool, "true or false"),
    "int": (int, "a whole number"),
    "float": (float, "a number"),
    "Mapping[str, Any]": (dict, "an object"),
}
_REFERENCES = {"lengths": ("input", "of"), "masks": ("input", "of", "up_to"), "state": ("input", "output")}


def text(path: Path) -> str:
    """What the file holds. Raises `RepositoryError` when that is too much, `OSError`, or `ValueError` for what is no text."""
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise RepositoryError(f"it has more than {MAX_BYTES} bytes")
    return data.decode()


def fields_of(text: str, annotations: Mapping[str, str], required: Collection[str]) -> dict[str, Any]:
    """The fields of a specification, tensors as `TensorSpec`, all else as JSON has it.

    `annotations` maps the fields that there are to the kinds of their values, and those `required` must be there. Raises
    `RepositoryError` with what is wrong, or `ValueError` for what is no JSON.
    """
    fields = _object(json.loads(text, object_pairs_hook=_once, parse_constant=_no_number), "it")
    if "format_version" not in fields:
        raise RepositoryError("'format_version' is missing")
    version = fields.pop("format_version")
    if type(version) is not int or version not in (1, FORMAT_VERSION):
        raise RepositoryError(
            f"format_version is {version!r}; this server reads 1 and {FORMAT_VERSION}: export the model again"
        )
    _keys(fields, "it", annotations, required)
    for name, value in fields.items():
        if name in ("inputs", "outputs"):
            fields[name] = tuple(_tensor(entry, f"{name}[{place}]") for place, entry in enumerate(_list(value, name)))
        elif name == "state":
            fields[name] = [_names(entry, f"state[{place}]", name) for place, entry in enumerate(_list(value, name))]
        elif name in ("lengths", "masks"):
            fields[name] = None if value is None else _names(value, name, name)
        else:
            fields[name] = _checked(value, name, annotations[name])
    return fields if version == FORMAT_VERSION else _with_steps_axes(fields)


def _with_steps_axes(fields: dict[str, Any]) -> dict[str, Any]:
    """What format 1 left unsaid: a model with `lengths` has its steps on axis 1, wherever that is free; others do not say."""
    if not fields.get("lengths"):
        return fields
    of, state = fields["lengths"]["of"], {pair["output"] for pair in fields.get("state", ())}

    def side(name: str, has: Callable[[TensorSpec], bool]) -> tuple[TensorSpec, ...]:
        return tuple(
            dataclasses.replace(one, steps_axis=1) if has(one) and one.shape[1:2] == (-1,) else one
            for one in fields.get(name, ())
        )

    inputs, outputs = side("inputs", lambda one: one.name == of), side("outputs", lambda one: one.name not in state)
    return {**fields, "inputs": inputs, "outputs": outputs}


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise RepositoryError(f"{next(name for name in names if names.count(name) > 1)!r} is there twice")
    return made


def _no_number(text: str) -> Any:
    raise RepositoryError(f"it holds {text}, which is no number of JSON")


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RepositoryError(f"{where} is {_short(value)}; it must be an object, as in {{ ... }}")
    return value


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise RepositoryError(f"{where} is {_short(value)}; it must be a list, as in [ ... ]")
    return value


def _keys(found: Mapping[str, Any], where: str, known: Collection[str], required: Collection[str]) -> None:
    if unknown := sorted(set(found) - set(known)):
        raise RepositoryError(f"{where} has {unknown[0]!r}, which is no key there; known are {', '.join(known)}")
    if missing := [name for name in known if name in required and name not in found]:
        raise RepositoryError(f"{missing[0]!r} is missing" + ("" if where == "it" else f" in {where}"))


def _checked(value: Any, where: str, annotation: str) -> Any:
    kind, name = _KINDS[annotation]
    fits = type(value) in (int, float) if kind is float else type(value) is kind
    if not fits:
        raise RepositoryError(f"{where} is {_short(value)}; it must be {name}")
    return value


def _names(value: Any, where: str, of: str) -> dict[str, Any]:
    keys = _REFERENCES[of]
    _keys(_object(value, where), where, keys, keys)
    return {key: _checked(value[key], f"{where}.{key}", "int" if key == "up_to" else "str") for key in keys}


def _tensor(value: Any, where: str) -> TensorSpec:
    required = ("name", "datatype", "shape")
    _keys(_object(value, where), where, (*required, "rows_axis", "steps_axis"), required)
    name = _checked(value["name"], f"{where}.name", "str")
    if not name or not name.isprintable():
        raise RepositoryError(f"{where}.name is {name!a}, which no client could write")
    shape = _list(value["shape"], f"{where}.shape")
    for size in shape:
        if type(size) is not int or not (size == -1 or 0 < size <= MAX_SIZE):
            raise RepositoryError(f"{name} has shape {_short(shape)}; sizes are whole numbers, positive, or -1 if free")
    axes = {key: value.get(key, default) for key, default in (("rows_axis", 0), ("steps_axis", None))}
    for key, axis in axes.items():
        if axis is not None and not (type(axis) is int and 0 <= axis < len(shape)):
            raise RepositoryError(
                f"{where}.{key} is {_short(axis)}; {name} has {len(shape)} axes, so it must be 0 to {len(shape) - 1}, or null"
            )
    return TensorSpec(name, _checked(value["datatype"], f"{where}.datatype", "str"), tuple(shape), **axes)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
