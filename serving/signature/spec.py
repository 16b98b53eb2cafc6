"""What a version is, as its exporter wrote it: `spec.json`, facts that nobody edits.

The operator's choices live in `config.pbtxt` and are read elsewhere. Axis 0 is the batch ("rows") of *every* tensor
named here, recurrent state included, whatever the backend's own convention is.
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
from serving.signature import spec_file
from serving.signature.controls import ControlInput
from serving.signature.spec_file import FORMAT_VERSION
from serving.signature.tensors import DTYPES, BatchKey, Tensors, TensorSpec

FILE_NAME = "spec.json"
OWN_FILES = "own_files"  # in source, under export: digests of the artefacts that our own writers made, by file name
# In source of a bare file: what states its signature, and that field of it.
WRITTEN_IN, MAX_BATCH_SIZE = "written_in", "max_batch_size"
LABELS_FILE = "labels.txt"  # of the model, beside its versions
LARGEST_TOLERANCE = 0.1
LARGEST_VOCABULARY = 2**31
REFUSE, PASS = "refuse", "pass"  # what is done with NaN and Inf in true steps
# Fields of a specification that the operator decides, so that no spec.json holds them.
OPERATORS = ("controls", "state_shown")


@dataclasses.dataclass(frozen=True)
class StatePair:
    """Recurrent state: what `output` gives after a request is what `input` takes at the next. Paired by name, never by order."""

    input: str
    output: str


@dataclasses.dataclass(frozen=True)
class LengthsSpec:
    """`input` (INT64 `[rows]`) holds how many steps of each row of tensor `of` are true, along its axis of steps."""

    input: str
    of: str


@dataclasses.dataclass(frozen=True)
class MaskedBy:
    """The same of a file of others, in an `input` of any shape with one number a row: proved for `up_to` so many steps."""

    input: str
    of: str
    up_to: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """The facts about one version.

    `inputs` and `outputs` are the file's own, in its own order, none of them optional. `tolerance` is the largest
    `|a - b| / max(1, |b|)` that two backends may disagree by. `vocabulary` is the number of ids for a model whose first
    input holds token ids, else 0.

    A model that is not `batched` takes one row at a time and knows no axis of rows: clients send and get the shapes of the
    file. `masks` says of a file of others, which must be told them, what `lengths` says of ours, if it was proved that what
    lies behind the true steps changes nothing. With `may_be_empty` free axes behind the rows may have size 0, which ends the
    process in some kernels. With `state_advertised` the state is made of ordinary inputs and outputs, which a client must send
    and always gets.

    The operator's, and in no file of ours: `controls` are inputs that the server fills in for a model with sequences, and
    `state_shown` names outputs of the state that a client gets without asking for them.
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
    batched: bool = True
    state_advertised: bool = False
    may_be_empty: bool = False
    nonfinite: str = ""
    masks: MaskedBy | None = None
    controls: tuple[ControlInput, ...] = ()
    state_shown: tuple[str, ...] = ()
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
                if tensor.rows_axis is not None and not 0 <= tensor.rows_axis < len(tensor.shape):
                    raise RepositoryError(
                        f"{tensor.name} has its rows on axis {tensor.rows_axis}, but {len(tensor.shape)} axes"
                    )
        self._check_masks()
        self._check_rows()
        self._check_steps()
        self._check_names()
        if not 0 < self.tolerance <= LARGEST_TOLERANCE:
            raise RepositoryError(
                f"tolerance is {self.tolerance}; it must be positive and at most {LARGEST_TOLERANCE}, above which nothing "
                "would be verified"
            )
        if not 0 <= self.vocabulary <= LARGEST_VOCABULARY:
            raise RepositoryError(f"vocabulary is {self.vocabulary}; it must be 0 to {LARGEST_VOCABULARY}")
        if self.nonfinite not in ("", REFUSE, PASS):
            raise RepositoryError(f"nonfinite is {self.nonfinite!r}; it must be {REFUSE!r} or {PASS!r}")

    def _check_names(self) -> None:
        inputs, outputs = self.inputs_by_name, self.outputs_by_name
        for pair in self.state:
            if pair.input not in inputs or pair.output not in outputs:
                raise RepositoryError(
                    f"state {pair.input} <- {pair.output} names a tensor that the signature does not have; it has the inputs "
                    f"{', '.join(inputs)} and the outputs {', '.join(outputs)}"
                )
            if inputs[pair.input].datatype != outputs[pair.output].datatype:
                raise RepositoryError(
                    f"state {pair.input} is {inputs[pair.input].datatype} and its next value {pair.output} is "
                    f"{outputs[pair.output].datatype}"
                )
        for side in ("input", "output"):
            names = [getattr(pair, side) for pair in self.state]
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise RepositoryError(f"state names the {side} {twice[0]} twice")
        if self.lengths:
            if not {self.lengths.input, self.lengths.of} <= inputs.keys():
                raise RepositoryError(
                    f"lengths names {self.lengths}, which the signature does not have; its inputs are {', '.join(inputs)}"
                )
            tensor = inputs[self.lengths.input]
            if tensor.dtype.kind != "i" or len(tensor.shape) != 1:
                raise RepositoryError(
                    f"lengths are {tensor.datatype} of shape {list(tensor.shape)}; they must be whole numbers, one for each row"
                )
        if self.labels_of and self.labels_of not in outputs:
            raise RepositoryError(
                f"labels belong to {self.labels_of!r}, which is not an output; the outputs are {', '.join(outputs)}"
            )

    def _check_masks(self) -> None:
        inputs = self.inputs_by_name
        if self.masks and not {self.masks.input, self.masks.of} <= inputs.keys():
            raise RepositoryError(
                f"masks names {self.masks}, which the signature does not have; its inputs are {', '.join(inputs)}"
            )
        if self.masks and self.lengths:
            raise RepositoryError("lengths and masks say the same; one of them has to go")
        if self.masks and self.masks.up_to < 1:
            raise RepositoryError(f"masks holds up to {self.masks.up_to} steps; it must be at least 1")

    def _check_rows(self) -> None:
        with_rows = [tensor.name for tensor in (*self.inputs, *self.outputs) if tensor.rows_axis is not None]
        if not self.batched and with_rows:
            raise RepositoryError(f"a model that takes one row at a time has no axis of rows, but {with_rows} have one")
        if self.batched and (lone := [tensor.name for tensor in self.outputs if tensor.rows_axis is None]):
            raise RepositoryError(f"outputs {lone} have no axis of rows, so nobody knows which row they belong to")
        if self.batched and not any(tensor.rows_axis is not None for tensor in self.inputs):
            raise RepositoryError("no input has an axis of rows")

    def _check_steps(self) -> None:
        for tensor in (*self.inputs, *self.outputs):
            axis = tensor.steps_axis
            if axis is not None and not (0 < axis < len(tensor.shape) and tensor.shape[axis] == -1):
                raise RepositoryError(
                    f"{tensor.name} has its steps on axis {axis} of {list(tensor.shape)}; it must be a free one behind the rows"
                )
        if self.lengths and (of := self.inputs_by_name.get(self.lengths.of)) and of.steps_axis is None:
            raise RepositoryError(f"lengths count the steps of {of.name}, which has no axis of steps")

    @property
    def written_in(self) -> str:
        """Where its inputs and outputs are written, for people; bare files have none of our files."""
        return str(self.source.get(WRITTEN_IN, FILE_NAME))

    @property
    def refuses_nonfinite(self) -> bool:
        """Whether NaN and Inf in true steps are refused, unless the operator says otherwise."""
        return self.nonfinite == REFUSE if self.nonfinite else self.lengths is not None

    @functools.cached_property
    def inputs_by_name(self) -> Mapping[str, TensorSpec]:
        """The inputs, as requests look them up."""
        return {tensor.name: tensor for tensor in self.inputs}

    @functools.cached_property
    def outputs_by_name(self) -> Mapping[str, TensorSpec]:
        """The outputs, as requests look them up."""
        return {tensor.name: tensor for tensor in self.outputs}

    @functools.cached_property
    def state_inputs(self) -> tuple[str, ...]:
        """The inputs that hold recurrent state."""
        return tuple(pair.input for pair in self.state)

    @functools.cached_property
    def by_our_writers(self) -> bool:
        """Whether it describes a network of our own, whose files our writers made: its rows are apart by construction."""
        return self.lengths is not None and "network" in self.source

    @functools.cached_property
    def _steps_input(self) -> TensorSpec | None:
        return next((tensor for tensor in self.inputs if tensor.steps_axis is not None), None)

    def steps(self, inputs: Tensors) -> int:
        """How many steps a request has, padding included; 1 where the model has no axis of steps."""
        tensor = self._steps_input
        return 1 if tensor is None else inputs[tensor.name].shape[tensor.steps_axis or 0]

    @property
    def told(self) -> LengthsSpec | MaskedBy | None:
        """Which input says how many steps of which other one are true."""
        return self.lengths or self.masks

    @functools.cached_property
    def joins_lengths(self) -> bool:
        """Whether requests of unequal steps may be computed together: padded, told by lengths, and cut back.

        So it is where nothing but the input that the lengths are of has steps, and no output has another free axis than those of
        rows and steps, which nobody could cut back.
        """
        timed = [tensor.name for tensor in self.inputs if tensor.steps_axis is not None]
        cut_back = all(
            size != -1 or axis in (0, tensor.steps_axis)
            for tensor in self.outputs
            for axis, size in enumerate(tensor.shape)
        )
        return self.told is not None and timed == [self.told.of] and cut_back

    @functools.cached_property
    def _keyed(self) -> Sequence[tuple[str, tuple[int, ...], int | None]]:
        """By input its name, its sizes behind the rows, and which of them may differ within a batch."""
        free = self.joins_lengths
        return [(t.name, t.shape[1:], t.steps_axis - 1 if free and t.steps_axis else None) for t in self.inputs]

    def batch_key(self, inputs: Tensors, shared: bytes | tuple[int, ...] = b"") -> BatchKey:
        """What requests have in common that may be computed together; `shared` is what all their rows share.

        Of a file of others nothing was proved beyond some number of steps: such a request is computed with those of its own.
        """
        key: list[bytes | tuple[int, ...]] = [shared]
        proved = self.masks is None or self.steps(inputs) <= self.masks.up_to
        for name, stated, steps in self._keyed:
            shape = inputs[name].shape[1:] if name in inputs else stated
            key.append((*shape[:steps], -1, *shape[steps + 1 :]) if steps is not None and proved else shape)
        return tuple(key)

    @functools.cached_property
    def shared(self) -> frozenset[str]:
        """Inputs of which the file takes one for all rows: rows with different values never share a batch."""
        return frozenset(tensor.name for tensor in self.inputs if self.batched and tensor.rows_axis is None)

    def shown_shape(self, tensor: TensorSpec) -> tuple[int, ...]:
        """The shape that clients are told: without rows where the model has none, and never without any axis."""
        shape = tensor.shown or tensor.shape
        shape = shape if self.batched else shape[1:]
        return (*shape, 1) if len(shape) == (1 if self.batched else 0) and tensor.rows_axis is None else shape

    @functools.cached_property
    def filled_in(self) -> frozenset[str]:
        """Inputs that a client may leave out: the server knows what to put there (true lengths, a fresh state)."""
        state = set() if self.state_advertised else {pair.input for pair in self.state}
        # A fresh state is zeros of a size that is known.
        names = {name for name in state if -1 not in self.inputs_by_name[name].shape[1:]} | self.resting.keys()
        return frozenset(names | {self.lengths.input} if self.lengths else names)

    @functools.cached_property
    def resting(self) -> Mapping[str, Any]:
        """By input that is a control what it holds in a row that is a step in no particular place of a sequence."""
        dtypes = {name: tensor.dtype for name, tensor in self.inputs_by_name.items()}
        return {one.input: one.value(one.resting, dtypes[one.input]) for one in self.controls}

    @functools.cached_property
    def advertised_inputs(self) -> tuple[TensorSpec, ...]:
        """What metadata shows and a client must send."""
        return tuple(tensor for tensor in self.inputs if tensor.name not in self.filled_in)

    @functools.cached_property
    def advertised_outputs(self) -> tuple[TensorSpec, ...]:
        """What metadata shows and a client gets when it names no outputs; new state only by name."""
        hidden = set() if self.state_advertised else {pair.output for pair in self.state} - set(self.state_shown)
        return tuple(tensor for tensor in self.outputs if tensor.name not in hidden)

    def to_json(self) -> str:
        """The text of `spec.json`."""
        fields = dataclasses.asdict(self)
        for tensor in (*fields["inputs"], *fields["outputs"]):
            del tensor["shown"]  # the operator's, not the file's
        for name in OPERATORS:
            del fields[name]
        if self.masks is None:
            del fields["masks"]  # which older servers do not know
        return json.dumps({"format_version": FORMAT_VERSION, **fields}, indent=2) + "\n"

    @classmethod
    def read(cls, path: Path) -> ModelSpec:
        """Reads `spec.json`. Raises `RepositoryError` naming the file and what is wrong with it."""
        try:
            text = spec_file.text(path)
        except FileNotFoundError as error:
            raise RepositoryError(f"{path} is missing: the version is incomplete; export it again") from error
        except (RepositoryError, ValueError, OSError) as error:
            raise RepositoryError(f"{path} is not a usable specification: {error}") from error
        return cls.from_json(text, str(path))

    @classmethod
    def from_json(cls, text: str, where: str) -> ModelSpec:
        """What `to_json` has made. Raises `RepositoryError` naming `where` it stands and what is wrong with it."""
        known = {field.name: str(field.type) for field in dataclasses.fields(cls) if field.name not in OPERATORS}
        required = [
            field.name
            for field in dataclasses.fields(cls)
            if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        ]
        try:
            fields = spec_file.fields_of(text, known, required)
            fields["lengths"] = LengthsSpec(**fields["lengths"]) if fields["lengths"] else None
            fields["masks"] = MaskedBy(**fields["masks"]) if fields.get("masks") else None
            fields["state"] = tuple(StatePair(**pair) for pair in fields["state"])
            return cls(**fields)
        except (RepositoryError, ValueError, RecursionError) as error:
            raise RepositoryError(f"{where} is not a usable specification: {error}") from error


def fill_in(inputs: dict[str, npt.NDArray[Any]], spec: ModelSpec, rows: int) -> None:
    """Adds what a client may leave out."""
    for tensor in spec.inputs:
        if tensor.name not in inputs:
            inputs[tensor.name] = fresh(tensor, spec, [rows], [spec.steps(inputs)])


def fresh(tensor: TensorSpec, spec: ModelSpec, rows: Sequence[int], steps: Sequence[int]) -> npt.NDArray[Any]:
    """What stands for an input that clients have left out, of several requests one after the other.

    Every step is a true one, the state is a new one, zeros, and a control says nothing in particular.
    """
    if (at_rest := spec.resting.get(tensor.name)) is not None:
        return np.full((sum(rows), *tensor.shape[1:]), at_rest, tensor.dtype)
    if spec.lengths and tensor.name == spec.lengths.input:
        if len(rows) == 1:
            return np.full(rows[0], steps[0], tensor.dtype)
        return np.repeat(np.array(steps, tensor.dtype), rows)
    return np.zeros((sum(rows), *tensor.shape[1:]), tensor.dtype)
