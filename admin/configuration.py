"""A model's configuration in the hands of an operator: read from a file, changed for a swap, told in a few words."""

from __future__ import annotations

from pathlib import Path

from google.protobuf import json_format, text_format

from admin.server import UsageError, one_line
from protos.model_config_pb2 import ModelConfig, ModelInstanceGroup

# Our names of backends and Triton's of platforms, by the names of backends that every server knows.
TRITON_NAMES = {
    "onnx_runtime": "onnxruntime",
    "onnxruntime_onnx": "onnxruntime",
    "torchscript": "pytorch",
    "pytorch_libtorch": "pytorch",
    "saved_model": "tensorflow",
    "tensorflow_savedmodel": "tensorflow",
}


def swapped(config: ModelConfig, backend: str | None, device: str | None, count: int | None) -> ModelConfig:
    """A copy that asks for another backend, device ("cpu" or "cuda:N") and number of instances; None keeps what is there.

    The backend may have our name or one of Triton's. A new one drops what else names the old one: the platform and the
    file. Several groups of instances become one.
    """
    changed = ModelConfig()
    changed.CopyFrom(config)
    if backend:
        changed.backend = TRITON_NAMES.get(backend, backend)
        changed.ClearField("platform")
        changed.ClearField("default_model_filename")
    if device or count:
        group = changed.instance_group[0] if changed.instance_group else changed.instance_group.add()
        del changed.instance_group[1:]
        if count:
            group.count = count
        if device:
            _, cuda, number = device.partition(":")
            group.kind = ModelInstanceGroup.KIND_GPU if cuda else ModelInstanceGroup.KIND_CPU
            group.gpus[:] = [int(number)] if cuda else []
    return changed


def instances(config: ModelConfig) -> tuple[str, str]:
    """Where the instances compute and how many there are: ("cpu", "2"), ("cuda:0,cuda:1", "2")."""
    places: dict[str, None] = {}
    count = 0
    for group in config.instance_group:
        kind = ModelInstanceGroup.Kind.Name(group.kind).removeprefix("KIND_").lower()
        on = [f"cuda:{gpu}" for gpu in group.gpus] or [kind]
        places |= dict.fromkeys(on)
        count += group.count * len(on)
    return ",".join(places), str(count) if count else ""


def described(config: ModelConfig) -> str:
    """What computes, in a few words: "onnxruntime on cpu", "2 x pytorch on cuda:0"."""
    name = config.backend or config.platform
    groups = []
    for group in config.instance_group:
        kind = ModelInstanceGroup.Kind.Name(group.kind).removeprefix("KIND_").lower()
        places = ", ".join(f"cuda:{gpu}" for gpu in group.gpus) or kind
        groups.append(f"{group.count} x {name} on {places}" if group.count > 1 else f"{name} on {places}")
    return " and ".join(groups) or name


def read_config(path: Path) -> ModelConfig:
    """A ModelConfig from JSON, or from its text form if the name ends with .pbtxt. Raises `UsageError`, naming the place."""
    try:
        text = path.read_bytes().decode()
        if path.suffix == ".pbtxt":
            return text_format.Parse(text, ModelConfig())
        return json_format.Parse(text, ModelConfig())
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, text_format.ParseError, json_format.ParseError) as error:
        form = "text form" if path.suffix == ".pbtxt" else "JSON (its text form would have to end with .pbtxt)"
        raise UsageError(f"{path} is no ModelConfig in {form}: {one_line(str(error))}") from error
