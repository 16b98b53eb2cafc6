"""Does an artefact take and give what `spec.json` says, or, where it is bare, `config.pbtxt`? The file itself is asked, once.

A file may say less than the specification (a free axis, or nothing at all, as TorchScript does about shapes), and it may have
outputs that are not served; only a contradiction is refused. No runtime holds a file to what it states of its outputs,
and some state another rank than they answer; what is answered the golden samples show.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from serving.errors import RepositoryError
from serving.signature.spec import MAX_BATCH_SIZE, ModelSpec

INPUTS, OUTPUTS = "inputs", "outputs"
# What a file states about one tensor: a datatype (a key of `signature.tensors.DTYPES`) and a shape with -1 where an axis is
# free; None where the file does not say.
Stated = tuple[str | None, tuple[int, ...] | None]


def check(artifact: Path, side: str, spec: ModelSpec, stated: Mapping[str, Stated]) -> None:
    """Raises `RepositoryError`, naming both files and the tensor, unless what is `stated` fits `spec`.

    `side` is "inputs" or "outputs".
    """
    expected, place = spec.inputs if side == INPUTS else spec.outputs, spec.written_in
    names = [tensor.name for tensor in expected]
    if not set(names) <= set(stated) or (side == INPUTS and len(names) < len(stated)):  # outputs may be left unserved
        raise RepositoryError(
            f"{artifact} has the {side} {', '.join(stated) or 'none'}, but {place} names {', '.join(names)}: "
            "they must be the same, or the two belong to different models"
        )
    for tensor in expected:
        datatype, shape = stated[tensor.name]
        if datatype is not None and datatype != tensor.datatype:
            raise RepositoryError(
                f"{artifact}: {tensor.name} is {datatype} in the file and {tensor.datatype} in {place}: they must agree"
            )
        if shape is not None and not _fits(shape, tensor.file_shape, kept=side == INPUTS):
            raise RepositoryError(
                f"{artifact}: {tensor.name} has shape {list(shape)} in the file and {list(tensor.file_shape)} in {place} "
                f"(-1 is a free size){_about_rows(shape, tensor.file_shape, spec)}"
            )


def _about_rows(stated: tuple[int, ...], expected: tuple[int, ...], spec: ModelSpec) -> str:
    """What dims of config.pbtxt have to do with the rows, where one size more or less may be them."""
    rows = spec.source.get(MAX_BATCH_SIZE)
    if rows == 0 and len(stated) == len(expected) + 1:
        return (
            ": without max_batch_size, dims hold the rows too; set max_batch_size: 8, say, or write the rows into dims"
        )
    if rows and len(stated) == len(expected) - 1:
        return ": with max_batch_size, the rows are put in front of dims; take them out of dims, or max_batch_size out"
    return ""


def _fits(stated: tuple[int, ...], expected: tuple[int, ...], *, kept: bool) -> bool:
    """The file may leave free what the specification fixes. What it fixes it keeps to in its inputs, and not in its outputs.

    An exporter that traces may write down the size of an answer that it has seen, or a rank that it has guessed.
    """
    if len(stated) != len(expected):
        return not kept
    return all(s in (-1, e) or (e == -1 and not kept) for s, e in zip(stated, expected, strict=True))
