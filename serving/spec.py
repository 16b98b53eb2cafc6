"""What a version is, as its exporter wrote it: `spec.json`, facts that nobody edits.

The operator's choices live in `config.pbtxt` and are read elsewhere. One fact that surprises: axis 0 is the batch
("rows") of *every* tensor named here, recurrent state included, whatever the backend's own convention is.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.errors import RepositoryError

Tensors = Mapping[str, npt.NDArray[Any]]

FORMAT_VERSION = 1
FILE_NAME = "spec.json"
LARGEST_TOLERANCE = 0.1

# NumPy has no bfloat16: two bytes that are never mistaken for a whole number.
BF16: np.dtype[Any] = np.dtype([("bf16", "<u2")])

# The protocol's datatype names and what they are in memory (little-endian on the wire). BYTES is an object array of
# `bytes`.
DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BF16": BF16,
    "BYTES": np.dtype(object),
}


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    """One named tensor: `datatype` is a key of `DTYPES`; `shape` includes axis 0 (the rows), -1 where the size is free."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    @property
    def dtype(self) -> np.dtype[Any]:
        return DTYPES[self.datatype]


@dataclasses.dataclass(frozen=True)
class StatePair:
    """Recurrent state: what `output` gives after a request is what `input` takes at the next. Paired by name, never by order."""

    input: str
    output: str


@dataclasses.dataclass(frozen=True)
class LengthsSpec:
    """`input` (INT64 `[rows]`) holds how many steps of each row of tensor `of` are true; the steps are axis 1 of it."""

    input: str
    of: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """The facts about one version.

    `inputs` and `outputs` are the file's own, in its own order, none of them optional. `tolerance` is the largest
    `|a - b| / max(1, |b|)` that two backends may disagree by. `vocabulary` is the number of ids for a model whose first
    input holds token ids, else 0.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    lengths: LengthsSpec | None
    state: tuple[StatePair, ...]
    streamable: bool
    tolerance: float
    weights_sha256: str
    vocabulary: int = 0
    labels_of: str = ""
    source: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    scores: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        for kind, tensors in (("inputs", self.inputs), ("outputs", self.outputs)):
            names = [tensor.name for tensor in tensors]
            if not names:
                raise RepositoryError(f"a model needs {kind}; none are named")
            if len(set(names)) != len(names):
                raise RepositoryError(f"{kind} are named twice: {names}")
            for tensor in tensors:
                if tensor.datatype not in DTYPES:
                    raise RepositoryError(
                        f"{tensor.name} has datatype {tensor.datatype!r}; known are {', '.join(DTYPES)}"
                    )
                if not tensor.shape or any(size < 1 and size != -1 for size in tensor.shape):
                    raise RepositoryError(
                        f"{tensor.name} has shape {list(tensor.shape)}; sizes are positive, or -1 if free"
                    )
        inputs, outputs = {t.name for t in self.inputs}, {t.name for t in self.outputs}
        for pair in self.state:
            if pair.input not in inputs or pair.output not in outputs:
                raise RepositoryError(
                    f"state {pair.input} <- {pair.output} names a tensor that the signature does not have"
                )
        if self.lengths and not {self.lengths.input, self.lengths.of} <= inputs:
            raise RepositoryError(f"lengths names {self.lengths}, which the signature does not have")
        if self.labels_of and self.labels_of not in outputs:
            raise RepositoryError(f"labels belong to {self.labels_of!r}, which is not an output")
        if not 0 < self.tolerance <= LARGEST_TOLERANCE:
            raise RepositoryError(
                f"tolerance is {self.tolerance}; it must be positive and at most {LARGEST_TOLERANCE}, above which nothing "
                "would be verified"
            )

    @functools.cached_property
    def filled_in(self) -> frozenset[str]:
        """Inputs that a client may leave out: the server knows what to put there (true lengths, a fresh state)."""
        names = {pair.input for pair in self.state}
        return frozenset(names | {self.lengths.input} if self.lengths else names)

    @functools.cached_property
    def advertised_inputs(self) -> tuple[TensorSpec, ...]:
        """What metadata shows and a client must send."""
        return tuple(tensor for tensor in self.inputs if tensor.name not in self.filled_in)

    @functools.cached_property
    def advertised_outputs(self) -> tuple[TensorSpec, ...]:
        """What metadata shows and a client gets when it names no outputs; new state only by name."""
        hidden = {pair.output for pair in self.state}
        return tuple(tensor for tensor in self.outputs if tensor.name not in hidden)

    def to_json(self) -> str:
        """The text of `spec.json`."""
        fields = dataclasses.asdict(self)
        return json.dumps({"format_version": FORMAT_VERSION, **fields}, indent=2) + "\n"

    @classmethod
    def read(cls, path: Path) -> ModelSpec:
        """Reads `spec.json`. Raises `RepositoryError` naming the file and what is wrong with it."""
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
            version = fields.pop("format_version")
            if version != FORMAT_VERSION:
                raise RepositoryError(
                    f"format_version is {version!r}; this server reads {FORMAT_VERSION}: export the model again"
                )
            fields["inputs"] = _tensors(fields["inputs"])
            fields["outputs"] = _tensors(fields["outputs"])
            fields["lengths"] = LengthsSpec(**fields["lengths"]) if fields["lengths"] else None
            fields["state"] = tuple(StatePair(**pair) for pair in fields["state"])
            return cls(**fields)
        except FileNotFoundError as error:
            raise RepositoryError(f"{path} is missing: the version is incomplete; export it again") from error
        except (RepositoryError, ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            raise RepositoryError(f"{path} is not a usable specification: {_reason(error)}") from error


def _tensors(entries: Sequence[Mapping[str, Any]]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(e["name"], e["datatype"], tuple(int(size) for size in e["shape"])) for e in entries)


def _reason(error: Exception) -> str:
    return f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
