"""Does an artefact take and give what `spec.json` says? Asked once, at load, of what the file itself states.

A file may say less than the specification (a free axis, or nothing at all, as TorchScript does about shapes), and it may have
outputs that are not served; only a contradiction is refused. No runtime holds a file to what it states of its outputs,
and some state another rank than they answer; what is answered the golden samples show.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from serving.errors import RepositoryError
from serving.signature.tensors import TensorSpec

INPUTS, OUTPUTS = "inputs", "outputs"
# What a file states about one tensor: a datatype (a key of `signature.tensors.DTYPES`) and a shape with -1 where an axis is
# free; None where the file does not say.
Stated = tuple[str | None, tuple[int, ...] | None]


def check(artifact: Path, side: str, expected: Sequence[TensorSpec], stated: Mapping[str, Stated]) -> None:
    """Raises `RepositoryError`, naming the file and the tensor, unless `stated` fits `expected`.

    `side` is "inputs" or "outputs".
    """
    names = [tensor.name for tensor in expected]
    if not set(names) <= set(stated) or (side == "inputs" and len(names) < len(stated)):  # outputs may be left unserved
        raise RepositoryError(
            f"{artifact} has the {side} {', '.join(stated) or 'none'}, but its specification names {', '.join(names)}: "
            "the two belong to different models"
        )
    for tensor in expected:
        datatype, shape = stated[tensor.name]
        if datatype is not None and datatype != tensor.datatype:
            raise RepositoryError(
                f"{artifact}: {tensor.name} is {datatype} in the file and {tensor.datatype} in its specification"
            )
        if shape is not None and not _fits(shape, tensor.file_shape, kept=side == INPUTS):
            raise RepositoryError(
                f"{artifact}: {tensor.name} has shape {list(shape)} in the file and {list(tensor.file_shape)} in its "
                "specification (-1 is a free size)"
            )


def _fits(stated: tuple[int, ...], expected: tuple[int, ...], *, kept: bool) -> bool:
    """The file may leave free what the specification fixes. What it fixes it keeps to in its inputs, and not in its outputs.

    An exporter that traces may write down the size of an answer that it has seen, or a rank that it has guessed.
    """
    if len(stated) != len(expected):
        return not kept
    return all(s in (-1, e) or (e == -1 and not kept) for s, e in zip(stated, expected, strict=True))
