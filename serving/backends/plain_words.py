"""What a runtime's message says, without where in the runtime's own code it arose; and what to do about it."""

from __future__ import annotations

import re

# `/path/file.cc:46 void a::Model::Load(const std::string&, int) const [with T = float]`, or a bare name behind the line.
_PLACE = re.compile(
    r"\S*\.(?:cc|cpp|h|hpp|cu|cuh):\d+ "
    r"(?:(?=[^()\n]*::)[^()\n]*\((?:[^()\n]|\([^()\n]*\))*\)(?: const)?(?: \[with [^\]\n]*\])?|\w+)(?: |\n|$)"
)
_ONNX_RUNTIME = re.compile(r"^\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : (?:Load model from .*? failed:)?")
_PREAMBLE = re.compile(r"ONNX Runtime only \*guarantees\* support for models [^.]*\. ")  # before it names the opset

_OLDER = "export it again with a lower one, as with opset_version=17, or install a newer ONNX Runtime"
_WEIGHTS = "the file beside it that holds its weights was not copied, or not whole: copy it again"
_REMEDIES = {
    "is not a registered function/op": "export it again with operators of ONNX alone",
    "No Op registered for": "export it again with operators of ONNX alone, or with an opset that has this one",
    "Unsupported model IR version": f"it was written for a newer ONNX: {_OLDER}",
    "Current official support for domain": f"its opset is newer than this ONNX Runtime knows: {_OLDER}",
    "Protobuf parsing failed": "it is cut off, or no ONNX file at all: copy it again, or export it again",
    "No graph was found in the protobuf": "it is no ONNX file, or cut off: copy it again, or export it again",
    "External data path does not exist": _WEIGHTS,
    "External initializer": _WEIGHTS,
}


def plain(message: str) -> str:
    """A runtime's message from its useful words on: its own kind of error and places in its C++ are left out."""
    return _PREAMBLE.sub("", _PLACE.sub("", _ONNX_RUNTIME.sub("", message)))


def remedy(message: str) -> str:
    """What to do about it, for messages that are met often; empty for others."""
    return next((said for words, said in _REMEDIES.items() if words in message), "")
