"""What a child process does on trial: loads a version by the very loader that serves it, or opens and runs one file.

A program for `serving.child`: the server asks for "load", and an import, which knows nothing of loading, starts this by its
name and asks for all the others.

    load       the whole load of a version: opened, its golden samples replayed (a bare file: inspected), warmed up once
    stated     what a file says of its inputs and outputs
    open       a file, in a backend; what was open before is closed
    run        the open file
    contents   what a file shows of how it computes
    mixed      in what way rows along these axes touch each other, as far as those contents show
    available  whether a backend can run here
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from protos import model_config_pb2 as pb
from serving import backends
from serving.backends.base import Backend, Candidate, Contents, Options
from serving.child.pipes import Arrays, Tell
from serving.errors import StartupError
from serving.loading import loader
from serving.loading.order import Order, ServerDefaults
from serving.loading.request import LoadRequest, Tried
from serving.repository import model_config
from serving.repository.folders import Repository, VersionFolder
from serving.signature.spec import ModelSpec
from serving.signature.tensors import Tensors
from serving.telemetry.counters import ModelMetrics

PROGRAM = __name__
ALIVE_SECONDS = 1.0

_open: list[Backend] = []
_contents: list[Contents] = []


def described(request: LoadRequest, candidate: Candidate, level: str) -> dict[str, Any]:
    """The request for "load", JSON-ready."""
    return {
        "do": "load",
        "name": request.name,
        "number": request.folder.number,
        "path": str(request.folder.path.absolute()),
        "config": request.config.written.SerializeToString(deterministic=True).hex(),
        "labels": {output: list(names) for output, names in request.labels.items()},
        "defaults": dataclasses.asdict(request.defaults),
        "candidate": dataclasses.asdict(candidate),
        "repository": str(request.repository.path.absolute()),
        "shadow": request.wrap is not None,
        "level": level,
    }


def answer(header: Mapping[str, Any], arrays: Arrays, tell: Tell) -> Any:
    """In the child. A `StartupError` is an answer, told by the name of its class; whatever else is raised is the runtime's."""
    try:
        with _alive(tell) if header["do"] == "load" else contextlib.nullcontext():
            return _DOES[header["do"]](header, arrays)
    except StartupError as error:
        kind = next(one.__name__ for one in type(error).__mro__ if one.__module__ == StartupError.__module__)
        return {"refused": kind, "said": str(error)}


@contextlib.contextmanager
def _alive(tell: Tell) -> Iterator[None]:
    """Tells while it lasts that Python goes on; a call into a runtime that does not come back is silence."""
    thread, ended = threading.get_ident(), threading.Event()

    def watch() -> None:
        before = None
        while not ended.wait(ALIVE_SECONDS):
            frame = sys._current_frames().get(thread)
            now = (id(frame), frame.f_lasti, frame.f_lineno) if frame else None
            if now != before:
                tell()
            before = now

    watching = threading.Thread(target=watch, name="alive", daemon=True)
    watching.start()
    try:
        yield
    finally:
        ended.set()
        watching.join()


def _load(header: Mapping[str, Any], _: Arrays) -> dict[str, Any]:
    name = header["name"]
    written = pb.ModelConfig.FromString(bytes.fromhex(header["config"]))
    config = model_config.check(written, name)
    request = LoadRequest(
        name=name,
        folder=VersionFolder(header["number"], Path(header["path"])),
        config=config.for_shadow() if header["shadow"] else config,
        labels={output: tuple(names) for output, names in header["labels"].items()},
        defaults=ServerDefaults(**header["defaults"]),
        metrics=lambda backend: ModelMetrics(),
        repository=Repository(Path(header["repository"])),
        wrap=(lambda backend: backend) if header["shadow"] else None,
        trial=lambda request, candidate: Tried(header["level"]),
    )
    candidate = Candidate(**header["candidate"])
    loader.load_in(request, candidate, Order(first=(candidate,))).model.close()
    return {}


def _stated(header: Mapping[str, Any], _: Arrays) -> Any:
    return {"stated": backends.module(header["backend"]).stated(Path(header["artifact"]))}


def _available(header: Mapping[str, Any], _: Arrays) -> dict[str, Any]:
    backends.module(header["backend"]).available(header["device"])
    return {}


def _open_file(header: Mapping[str, Any], _: Arrays) -> dict[str, Any]:
    while _open:
        _open.pop().close()
    module = backends.module(header["backend"])
    spec = ModelSpec.from_json(header["spec"], header["artifact"])
    options = Options(**header["options"])
    _open.append(module.load(Path(header["artifact"]), spec, header["device"], options))
    return {}


def _run(header: Mapping[str, Any], arrays: Tensors) -> tuple[dict[str, Any], dict[str, Any]]:
    careful = backends.module(header["backend"]).careful() if header["careful"] else contextlib.nullcontext()
    with careful:
        answers = _open[0].run(arrays, header["outputs"])
    return {}, {name: np.asarray(array) for name, array in answers.items()}


def _contents_of(header: Mapping[str, Any], _: Arrays) -> dict[str, Any]:
    _contents[:] = [backends.module(header["backend"]).contents(Path(header["artifact"]))]
    return {"constants": list(_contents[0].constants), "texts": list(_contents[0].texts)}


def _mixed(header: Mapping[str, Any], _: Arrays) -> dict[str, Any]:
    return {"mixed": _contents[0].mixed(header["rows"])}


_DOES = {
    "load": _load,
    "stated": _stated,
    "available": _available,
    "open": _open_file,
    "run": _run,
    "contents": _contents_of,
    "mixed": _mixed,
}
