"""Why a model cannot be fed in pieces, its state kept between them: the sentences for people, from what is known of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from serving.signature.spec import ModelSpec

NOT_PROVED = "pairs not proved: one step a call"


def why_not(spec: ModelSpec) -> str:
    """Why not, beginning with a small letter; empty for a model that can."""
    if spec.state and spec.streamable:
        return ""
    network = spec.source.get("network")
    if isinstance(network, dict) and network.get("bidirectional"):
        return (
            "it reads its steps in both directions (bidirectional), so that what it answers to a step hangs on those that are "
            "still to come"
        )
    if not spec.state:
        return "it has no state: no output of it is known to be the next value of an input"
    if not any(tensor.steps_axis is not None for tensor in spec.inputs) and _free_behind_rows(spec):
        return "its inputs have free sizes of which nobody knows which are steps, so that nothing could be proved of pieces"
    return (
        "fed in pieces, each from the state that the one before has left, it answers otherwise than to the whole, as trying has "
        "shown: it may read backwards too, take something over all steps, as a mean, or have its state paired otherwise"
    )


def not_kept(spec: ModelSpec) -> str:
    """Why a server cannot keep the state of one that can; empty where it can. A state has one size for each row."""
    for pair in spec.state:
        before, after = spec.inputs_by_name[pair.input], spec.outputs_by_name[pair.output]
        place, shape, then = f"state '{pair.input}'", before.shape[1:], after.shape[1:]
        if before.dtype.kind == "O":
            return f"{place} holds strings (BYTES), which are not kept; a state is made of numbers"
        if spec.batched and before.rows_axis is None:
            return f"{place} has no axis of rows: all rows of a batch would share it, and with it all sequences"
        if -1 in shape:
            return (
                f"{place} has the sizes {list(shape)} behind the rows: a free one (-1) gives it no size to keep; bring the file "
                f"in again with lstm-export import FILE --shape {pair.input}:SIZES"
            )
        if len(then) != len(shape) or any(a not in (-1, b) for a, b in zip(then, shape, strict=True)):
            return f"{place} is {list(shape)} behind the rows, and '{pair.output}', as which it goes on, {list(then)}"
    return ""


def not_proved(spec: ModelSpec) -> str:
    """What was not proved of one that can be fed in pieces, as with one step a call there is no whole to compare with."""
    if why_not(spec) or any(tensor.steps_axis is not None for tensor in spec.inputs):
        return ""
    return NOT_PROVED


def pairs(spec: ModelSpec) -> str:
    """The pairs of its state, as `h0->hn, c0->cn`, and whether they are believed alone; empty where it has none."""
    told = ", ".join(f"{pair.input}->{pair.output}" for pair in spec.state)
    return f"{told} ({doubt})" if (doubt := not_proved(spec)) else told


def may_go_on(spec: ModelSpec) -> Mapping[str, Sequence[str]]:
    """By input that has one size for each row, the outputs of the same datatype and sizes, as which it may go on."""
    found = {}
    for into in spec.inputs:
        shape = into.shape[1:]
        matching = [each.name for each in spec.outputs if (each.datatype, each.shape[1:]) == (into.datatype, shape)]
        if matching and -1 not in shape and into.dtype.kind != "O":
            found[into.name] = matching
    return found


def suggested(spec: ModelSpec) -> Mapping[str, str]:
    """Pairs that may be tried, each output in one; none of a file of one step a call, where wrong ones would be believed."""
    made: dict[str, str] = {}
    if any(tensor.steps_axis is not None for tensor in spec.inputs):
        for into, outputs in may_go_on(spec).items():
            if free := [name for name in outputs if name not in made.values()]:
                made[into] = free[0]
    return made


def which_pairs(spec: ModelSpec) -> str:
    """Which outputs might be the next value of which inputs, for people; what else to do where none might."""
    names = [", ".join(tensor.name for tensor in side) for side in (spec.inputs, spec.outputs)]
    choices = ", ".join(f"{into} -> {' or '.join(outputs)}" for into, outputs in may_go_on(spec).items())
    if choices:
        return f"say which output is the next value of which input (by datatype and sizes these could be: {choices})"
    return (
        f"let it take its state as an input and give the next value as an output: none of its outputs ({names[1]}) has the "
        f"datatype and sizes of one of its inputs ({names[0]})"
    )


def flags(spec: ModelSpec) -> str:
    """How `lstm-export` is told pairs that may be tried."""
    return " ".join(f"--state {a}={b}" for a, b in suggested(spec).items()) or "--state INPUT=OUTPUT"


def _free_behind_rows(spec: ModelSpec) -> bool:
    return any(-1 in tensor.shape[1:] for tensor in spec.inputs)
