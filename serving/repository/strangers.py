"""What lies in a version that holds no model file, and what to do about it: most often it is there by another name."""

from __future__ import annotations

from pathlib import Path

from serving import backends
from serving.backends import recognised

MOST_TOLD = 4
_SAVED_MODEL = "saved_model.pb"
_BY_SUFFIX = {
    ".onnx": recognised.ONNX,
    ".ts": recognised.TORCHSCRIPT,
    ".jit": recognised.TORCHSCRIPT,
    **dict.fromkeys((".pt", ".pth"), recognised.TORCHSCRIPT),
    **dict.fromkeys((".keras", ".h5", ".hdf5"), recognised.KERAS_FILE),
    **dict.fromkeys((".safetensors", ".ckpt"), recognised.WEIGHTS_ALONE),
}


def told(folder: Path, named: str = "") -> str:
    """The sentence about a version without a model file; `named` is the `default_model_filename` of config.pbtxt.

    Raises `OSError` where the folder cannot be read, `RepositoryError` for what is no plain file.
    """
    files = ", ".join(backends.module(name).FILE_NAME for name in backends.PREFERENCE)
    there = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    begin = f"the version holds no model file; one of {files} is needed in {folder}, which "
    if not there:
        return f"{begin}is empty: put it there, or export the model again"
    first = sorted(there, key=lambda entry: entry.name != named)
    advice = next((f"{entry.name}{said}" for entry in first if (said := _advice(entry))), "")
    if not advice:
        names = ", ".join(entry.name for entry in there[:MOST_TOLD]) + (", ..." if len(there) > MOST_TOLD else "")
        advice = f"{names}: export it again"
    if named:
        advice += f", and take default_model_filename: '{named}' out of config.pbtxt, as names are fixed here"
    return f"{begin}holds {advice}"


def _advice(entry: Path) -> str:
    """What a file or folder is that may be the model by another name, and what to do; empty where it is none."""
    if entry.is_dir():
        return _of_folder(entry)
    if entry.name == _SAVED_MODEL:
        return f": move it, with variables and assets, into a folder {_file_of('saved_model')}"
    kind = recognised.of(entry) or _BY_SUFFIX.get(entry.suffix.lower())
    if kind is None:
        return ""
    if kind.backend:
        return f": rename it to {_file_of(kind.backend)}"
    return f", {kind.name}: {kind.remedy}" if entry.suffix.lower() in _BY_SUFFIX else ""


def _of_folder(folder: Path) -> str:
    if (folder / _SAVED_MODEL).is_file():
        return f": rename it to {_file_of('saved_model')}"
    held = next((name for each in backends.PREFERENCE if (folder / (name := _file_of(each))).exists()), "")
    return f": {held} lies one folder too deep, move it up" if held else ""


def _file_of(backend: str) -> str:
    return backends.module(backend).FILE_NAME
