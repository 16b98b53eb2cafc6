"""What a file is by its first bytes, whatever it is called: for the sentence about one that its runtime cannot read."""

from __future__ import annotations

import dataclasses
import zipfile
from collections.abc import Callable
from pathlib import Path

from serving.machine import files

_HEAD = 64
WEIGHTS = "weights need their module beside them, so take lstm-export module MODULE:FACTORY --weights FILE"
KERAS = "a model that Keras has saved goes by lstm-export keras FILE"
_COPY = "copy it again, or export it again"
_FETCH = "fetch it again, and look at what is fetched"


@dataclasses.dataclass(frozen=True)
class Kind:
    """`name` is what people call it, `remedy` what to do where something else was wanted; `backend` is who could read it."""

    name: str
    remedy: str
    backend: str = ""


TORCHSCRIPT = Kind("TorchScript", "call it model.pt", "torchscript")
ONNX = Kind("an ONNX file, as it seems", "call it model.onnx", "onnx_runtime")
_SAVED = Kind("what torch.save wrote, weights or a pickled module", WEIGHTS)
WEIGHTS_ALONE = Kind("weights without a model", WEIGHTS)
KERAS_FILE = Kind("a file that Keras has saved", KERAS)
EMPTY = Kind("empty", _COPY)
_BY_HEAD: tuple[tuple[Callable[[bytes], bool], Kind], ...] = (
    (lambda head: not head, EMPTY),
    (lambda head: not head.strip(b"\0"), Kind("nothing but zeros at its beginning", _COPY)),
    # ir_version, then who has produced it or the graph
    (lambda head: head[:1] == b"\x08" and head[2:3] in (b"\x12", b"\x3a"), ONNX),
    # a length of eight bytes, then a header of JSON
    (lambda head: head[7:9] == b"\0{", Kind("a file of safetensors", WEIGHTS)),
    (
        lambda head: head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"),
        Kind("a pickle, as older torch.save and joblib write", WEIGHTS),
    ),
    (
        lambda head: head.startswith(b"version https://git-lfs"),
        Kind("a pointer of Git LFS, which stands for the file", "fetch the file itself: git lfs pull"),
    ),
    (lambda head: head.startswith(b"\x89HDF\r\n\x1a\n"), Kind("an HDF5 file, as Keras 2 saves", KERAS)),
    (lambda head: head.startswith(b"PK\x03\x04"), Kind("a zip archive that is cut off, as TorchScript is one", _COPY)),
    (lambda head: head.startswith(b"\x1f\x8b"), Kind("a gzip archive", "unpack it")),
    (lambda head: head.lstrip().startswith(b"<"), Kind("text that begins with <, as a web page does", _FETCH)),
    (lambda head: head.lstrip().startswith(b"{"), Kind("JSON", _FETCH)),
)
# By a name in a zip archive, the first of these that is there.
_BY_NAME = (
    ("/constants.pkl", TORCHSCRIPT),
    ("/data.pkl", _SAVED),
    ("model.weights.h5", KERAS_FILE),
)


def of(path: Path) -> Kind | None:
    """What it is; None where that is not seen. Raises `RepositoryError` for what is no plain file or cannot be read."""
    if not files.is_plain(path):
        return None
    head = files.beginning(path, _HEAD)
    if head.startswith(b"PK") and zipfile.is_zipfile(path):
        return _archive(path)
    return next((kind for fits, kind in _BY_HEAD if fits(head)), None)


def unlike(path: Path, backend: str, wanted: str) -> str:
    """That a file is none that this backend reads, which would be `wanted`, and what to do; empty where it may be one.

    Raises what `of` raises.
    """
    kind = of(path)
    if kind is None or kind.backend == backend:
        return ""
    if kind is EMPTY:
        return f"{path} is empty, so no {wanted}: {kind.remedy}"
    return f"{path} is no {wanted} but {kind.name}: {kind.remedy}"


def _archive(path: Path) -> Kind:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    for end, kind in _BY_NAME:
        if any(name.endswith(end) for name in names):
            return kind
    return Kind("an archive without constants.pkl", "export it again")
