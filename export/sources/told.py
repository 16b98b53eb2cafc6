"""The signature that was written, as a table for people: what a client sends, and what it gets."""

from __future__ import annotations

from serving.signature.spec import ModelSpec


def signature(spec: ModelSpec) -> str:
    """A line for each input and output: its name, datatype and shape at the server's border, and what else is to be known."""
    lines = []
    pairs = {pair.input: pair.output for pair in spec.state}
    advertised = {tensor.name for tensor in (*spec.advertised_inputs, *spec.advertised_outputs)}
    width = max([16, *(len(tensor.name) + 1 for tensor in (*spec.inputs, *spec.outputs))])
    for side, tensors in (("input", spec.inputs), ("output", spec.outputs)):
        for each in tensors:
            words = [f"  {side:<7}{each.name:<{width}}{each.datatype} {list(spec.shown_shape(each))}"]
            if each.rows_axis:
                words.append(f"rows on axis {each.rows_axis} in the file")
            if each.name in spec.shared:
                words.append("one for all rows")
            if each.name not in advertised:
                words.append("may be left out" if side == "input" else "where it is asked for")
            if each.name in pairs:
                words.append(f"state, next value in {pairs[each.name]}")
            lines.append(", ".join(words))
    return "\n".join(lines)
