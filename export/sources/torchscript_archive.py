"""What the archive of a TorchScript file tells of its `forward`, read without running or loading anything.

The archive holds the code as text, the class of the module as the first name in data.pkl, and, if it was traced, the
inputs that it was traced with. See `torch/csrc/jit/docs/serialization.md` in the sources of PyTorch.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import io
import pickle
import pickletools
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from export.missing import UNKNOWN
from serving.signature.stated import Stated

_FORWARD = (
    r"^class {}\(Module\):\n(?:(?!class ).*\n)*?"
    r"  def forward\(self: [\w.]+(?P<arguments>(?:,[^)]*?)?)\) -> (?P<answer>[^\n]+):$"
)
_STORAGES = {
    "FloatStorage": "FP32", "DoubleStorage": "FP64", "HalfStorage": "FP16", "BFloat16Storage": "BF16", "LongStorage": "INT64",
    "IntStorage": "INT32", "ShortStorage": "INT16", "CharStorage": "INT8", "ByteStorage": "UINT8", "BoolStorage": "BOOL",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Forward:
    """The names of the arguments that must be given, what they were in the trace (empty if there was none), and of answers."""

    arguments: Sequence[str]
    traced: Sequence[Stated]
    answers: int

    def flags(self) -> tuple[list[str], list[str]]:
        """What to say of inputs and of outputs, with as much filled in as is known.

        Of floats the last axis is taken for features, which are fixed, and every other axis for a free one.
        """
        inputs = []
        for number, name in enumerate(self.arguments):
            said = UNKNOWN
            if number < len(self.traced):
                datatype, shape = self.traced[number]
                sizes = [-1] * len(shape or ())
                if shape and len(shape) > 1 and datatype in ("FP16", "FP32", "FP64", "BF16"):
                    sizes[-1] = shape[-1]
                said = f"{datatype}[{','.join(map(str, sizes))}]"
            inputs += ["--input", f"{name}:{said}"]
        outputs = []
        for number in range(self.answers):
            outputs += ["--output", f"y{number or ''}:{UNKNOWN}"]
        return inputs, outputs


def forward(file: Path) -> Forward:
    """What is known of its `forward`; one argument x and one answer where the archive cannot be read so."""
    with contextlib.suppress(OSError, zipfile.BadZipFile, KeyError, StopIteration, ValueError, UnicodeDecodeError):
        with zipfile.ZipFile(file) as archive:
            names = {name.partition("/")[2]: name for name in archive.namelist()}
            pickled = archive.read(names["data.pkl"])
            module = next(argument for code, argument, _ in pickletools.genops(pickled) if code.name == "GLOBAL")
            place, _, kind = str(module).rpartition(" ")
            code = archive.read(names[f"code/{place.replace('.', '/')}.py"]).decode()
            traced = _traced(archive.read(names["traced_inputs.pkl"])) if "traced_inputs.pkl" in names else []
        found = re.search(_FORWARD.format(re.escape(kind)), code, re.MULTILINE)
        if found:
            arguments = [part.partition(":") for part in _apart(found["arguments"]) if part.strip()]
            must = [name.strip() for name, _, rest in arguments if "=" not in rest]
            answer = re.fullmatch(r"Tuple\[(.*)\]", found["answer"])
            return Forward(must, traced, len(_apart(answer[1])) if answer else 1)
    return Forward(["x"], [], 1)


def _apart(text: str) -> list[str]:
    """The parts between commas that stand in no brackets."""
    parts, depth = [""], 0
    for sign in text.lstrip(",\n "):
        depth += (sign == "[") - (sign == "]")
        if sign == "," and not depth:
            parts.append("")
        else:
            parts[-1] += sign
    return parts


class _Shapes(pickle.Unpickler):
    """Reads tensors as their datatype and shape. Nothing else is made, and nothing is imported."""

    def find_class(self, module: str, name: str) -> Any:
        if name == "_rebuild_tensor_v2":
            return lambda storage, offset, sizes, *rest: (storage, tuple(sizes))
        if name == "restore_type_tag":
            return lambda value, tag: value
        if name in _STORAGES:
            return name
        if name == "OrderedDict":
            return collections.OrderedDict
        raise pickle.UnpicklingError(f"{module}.{name} is no part of a tensor")

    def persistent_load(self, pid: Any) -> Any:
        return _STORAGES[pid[1]]


def _traced(pickled: bytes) -> list[Stated]:
    try:
        found = _Shapes(io.BytesIO(pickled)).load()
    except Exception:  # noqa: BLE001 - whatever damaged bytes raise: nothing is known of the trace then
        return []
    made: list[Stated] = []
    for each in found.get("forward", []) if isinstance(found, dict) else []:
        if not (isinstance(each, tuple) and len(each) == 2 and isinstance(each[0], str) and isinstance(each[1], tuple)):
            return []
        made.append(each)
    return made
