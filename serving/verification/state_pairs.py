"""Which output of a file is the next value of which input: by their names and shapes, or as a person says.

State is paired by name, never by order; where the names leave a choice, nothing is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from serving.errors import RepositoryError
from serving.signature.spec import ModelSpec, StatePair
from serving.verification.hints import Hints, Shape, Unclear

# What is left out when the names of a state's input and output are compared.
_PHASES = frozenset(
    ("0", "1", "n", "t", "in", "out", "input", "output", "new", "next", "prev", "previous", "init", "initial", "final",
     "last", "current", "updated")
)  # fmt: skip
_SHORT = {"h0": "h", "hn": "h", "ht": "h", "hx": "h", "hy": "h", "c0": "c", "cn": "c", "ct": "c", "cx": "c", "cy": "c"}


def state_pairs(stated: ModelSpec, inputs: Mapping[str, Shape], hints: Hints) -> tuple[StatePair, ...]:
    """Pairs of an input and an output that hold the same state before and after, by their names and shapes."""
    if hints.state is not None:
        by_name = {tensor.name: tensor for tensor in stated.outputs}
        kinds = {tensor.name: tensor.datatype for tensor in stated.inputs}
        if len(set(hints.state.values())) < len(hints.state):
            raise RepositoryError(f"one output is named as the next value of two inputs: {hints.state}")
        for before, after in hints.state.items():
            shape = by_name[after].file_shape
            if kinds[before] != by_name[after].datatype or not _may_be(shape, inputs[before]):
                raise RepositoryError(
                    f"{after} cannot be the next value of {before}: it is {by_name[after].datatype} {list(shape)}, and that is "
                    f"{kinds[before]} {list(inputs[before])}"
                )
        return tuple(StatePair(before, after) for before, after in hints.state.items())
    pairs = []
    for into in stated.inputs:
        key = _key(into.name)
        rivals = [tensor.name for tensor in stated.inputs if key and _key(tensor.name) == key]
        matching = [
            tensor.name
            for tensor in stated.outputs
            if key
            and _key(tensor.name) == key
            and tensor.datatype == into.datatype
            and _may_be(tensor.file_shape, inputs[into.name])
        ]
        if len(matching) > 1 or (matching and len(rivals) > 1):
            raise Unclear(
                f"the names leave open which output is the next value of which input: inputs {', '.join(rivals)}, outputs "
                f"{', '.join(matching)}; say it with --state INPUT=OUTPUT for each pair, or --state none"
            )
        if matching:
            pairs.append(StatePair(into.name, matching[0]))
    return tuple(pairs)


def _key(name: str) -> str:
    """What a name is about, without the words for before and after: h_in, h0, hn and new_h are all `h`."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    parts = [part for part in re.split(r"[^a-z0-9]+", words) if part not in _PHASES and part]
    joined = "_".join(parts)
    return _SHORT.get(joined, re.sub(r"_?(in|out|n|0)$", "", joined) if len(joined) > 3 else joined)


def _may_be(shape: Shape, other: Shape) -> bool:
    return len(shape) == len(other) and all(a == b or -1 in (a, b) for a, b in zip(shape, other, strict=True))
