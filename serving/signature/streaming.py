"""Why a model cannot be fed in pieces, its state kept between them: the sentence for people, from what is known of it."""

from __future__ import annotations

from serving.signature.spec import ModelSpec


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


def _free_behind_rows(spec: ModelSpec) -> bool:
    return any(-1 in tensor.shape[1:] for tensor in spec.inputs)
