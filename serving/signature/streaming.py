"""Why a model cannot be fed in pieces, its state kept between them: the sentences for people, from what is known of it."""

from __future__ import annotations

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
    """What was not proved of one that can be fed in pieces: one step a call leaves no whole to compare pieces with; else empty."""
    if why_not(spec) or any(tensor.steps_axis is not None for tensor in spec.inputs):
        return ""
    return NOT_PROVED


def pairs(spec: ModelSpec) -> str:
    """The pairs of its state, as `h0->hn, c0->cn`, and whether they are believed alone; empty where it has none."""
    told = ", ".join(f"{pair.input}->{pair.output}" for pair in spec.state)
    return f"{told} ({doubt})" if (doubt := not_proved(spec)) else told


def _free_behind_rows(spec: ModelSpec) -> bool:
    return any(-1 in tensor.shape[1:] for tensor in spec.inputs)
