"""What a client may send along with a load: another configuration, and the files of the model themselves.

Files go into a folder of their own, laid out as a repository with one model, so that everything else is as ever. As in
Triton, files that are sent replace the whole model; nothing of the repository is mixed in.
"""

from __future__ import annotations

import dataclasses
import errno
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from serving.errors import InvalidRequest
from serving.repository.folders import Repository
from serving.signature.spec import LABELS_FILE

FILE_PREFIX = "file:"
# Errors by which a disk says that names are too long, or that a file would lie within a file.
_OF_NAMES = (errno.ENAMETOOLONG, errno.EEXIST, errno.ENOTDIR, errno.EISDIR)


@dataclasses.dataclass(frozen=True)
class Override:
    """`repository` holds the files that were sent."""

    repository: Repository

    def discard(self) -> None:
        """Removes the files; the backends that were made of them are closed."""
        shutil.rmtree(self.repository.path, ignore_errors=True)


def write(name: str, files: Mapping[str, bytes]) -> Override:
    """Writes the files that were sent for model `name`; `files` maps `VERSION/PATH` to contents.

    Raises `InvalidRequest` for a path that leads out of the version, names none or contradicts another, `OSError` when the
    disk does not take them, and then nothing is left behind.
    """
    paths = {path: _checked(path) for path in files}
    made = Override(Repository(Path(tempfile.mkdtemp(prefix="lstm-serving-"))))
    folder = made.repository.path
    try:
        for path, content in files.items():
            target = folder / name / paths[path]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
    except OSError as error:
        made.discard()
        if error.errno in _OF_NAMES:
            raise InvalidRequest(
                f"load parameter '{FILE_PREFIX}{path[:200]}' cannot become a file beside the others: {error.strerror}"
            ) from error
        raise OSError(
            f"the files that were sent cannot be written to {folder.parent}: {error.strerror}; name another folder with the "
            "environment variable TMPDIR"
        ) from error
    return made


def _checked(path: str) -> PurePosixPath:
    """`1/model.onnx`, or `1/model.savedmodel/saved_model.pb`. Raises `InvalidRequest`."""
    parts = path.split("/")
    version, *inside = parts
    whole = version.isascii() and version.isdigit() and not version.startswith("0")
    harmless = all(part and part not in (".", "..") and part.isprintable() and "\\" not in part for part in inside)
    if path != LABELS_FILE and not (whole and inside and harmless):
        raise InvalidRequest(
            f"load parameter '{FILE_PREFIX}{path[:200]}' names no file of a version; it must be {FILE_PREFIX}VERSION/PATH, as "
            f"in {FILE_PREFIX}1/model.onnx, and stay within the version (or {FILE_PREFIX}{LABELS_FILE})"
        )
    return PurePosixPath(path)
