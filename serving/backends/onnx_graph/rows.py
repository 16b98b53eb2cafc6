"""How rows flow through an ONNX graph: what computes across them is found without running it.

Each tensor gets a `Flow`: along which axis its rows lie, or that it holds none, or in which node they were mixed. Where an
operator is not known here, or works on sizes that nobody knows, the flow is `UNKNOWN`, and nothing is claimed of what comes
of it: a proof by running follows anyway. What is claimed is certain as far as the data go. Operators and their defaults are
those of the ONNX operator specification (https://onnx.ai/onnx/operators).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from protos import onnx_graph_pb2 as pb
from serving.backends.onnx_graph.reading import opset, value


@dataclasses.dataclass(frozen=True)
class Flow:
    """Of one tensor: the `axis` of the rows, None if it holds none; `rank` None if unknown; `mixed` says where, if they are."""

    rank: int | None = None
    axis: int | None = None
    known: bool = True
    mixed: str = ""


UNKNOWN = Flow(known=False)
_TO_THE_END = 2**31 - 1  # of a slice


class Mixed(Exception):
    """Raised by an operator's rule: the node computes across rows, in the way that the message says."""


def mixed(model: pb.ModelProto, rows: Mapping[str, int | None]) -> str:
    """Which node mixes rows that lie along these axes of the inputs, in a way that reaches an output; "" if none is found."""
    graph = _Graph(model)
    for given in model.graph.input:
        if given.name in rows:
            rank = len(given.type.tensor_type.shape.dim) if given.type.tensor_type.HasField("shape") else None
            graph.flows[given.name] = Flow(rank, rows[given.name])
    for node in model.graph.node:
        graph.follow(node)
    return next((flow.mixed for out in model.graph.output if (flow := graph.flows.get(out.name, UNKNOWN)).mixed), "")


class _Graph:
    """The flows found so far, and the small constants."""

    def __init__(self, model: pb.ModelProto) -> None:
        self.opset = opset(model)
        self.flows: dict[str, Flow] = {"": Flow(0)}
        self.values: dict[str, Any] = {}
        for tensor in model.graph.initializer:
            self._constant(tensor.name, tensor)

    def _constant(self, name: str, tensor: pb.TensorProto) -> None:
        self.flows[name] = Flow(len(tensor.dims))
        self.values[name] = value(tensor)

    def follow(self, node: pb.NodeProto) -> None:
        """Gives the outputs of a node their flows; its inputs have theirs, as nodes are in the order of computation."""
        call = _Call(self, node)
        if node.op_type == "Constant":
            tensor = call.attributes.get("value")
            if tensor is not None:
                self._constant(node.output[0], tensor.t)
            else:
                self._plain_constant(node.output[0], call)
            return
        rule = _RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        try:
            made = rule(call) if rule and all(flow.known for flow in call.needed) else UNKNOWN
        except Mixed as error:
            made = Flow(mixed=f"{node.op_type}{f' {node.name!r}' if node.name else ''} {error}")
        carried = next((flow.mixed for flow in call.data if flow.mixed), "")
        flows = made if isinstance(made, list) else [made] * len(node.output)
        for name, flow in zip(node.output, flows, strict=False):
            self.flows[name] = Flow(flow.rank, mixed=carried) if carried and rule else flow

    def _plain_constant(self, name: str, call: _Call) -> None:
        for field in ("value_int", "value_ints", "value_float", "value_floats"):
            if field in call.attributes:
                attribute = call.attributes[field]
                held = {"value_int": attribute.i, "value_float": attribute.f, "value_ints": list(attribute.ints)}
                found = np.array(held.get(field, list(attribute.floats)))
                self.flows[name], self.values[name] = Flow(found.ndim), found
                return
        self.flows[name] = UNKNOWN


class _Call:
    """A node with the flows of its inputs, as a rule asks for them."""

    def __init__(self, graph: _Graph, node: pb.NodeProto) -> None:
        self.graph, self.node = graph, node
        self.attributes = {attribute.name: attribute for attribute in node.attribute}
        self.inputs = [graph.flows.get(name, UNKNOWN) for name in node.input]
        count = _DATA.get(node.op_type, len(self.inputs))
        self.data = self.inputs[:count]  # what comes after are axes and sizes
        asked = self.data[:1] if node.op_type in _RECURRENT else self.data  # a fresh state comes of sizes nobody knows
        self.needed = [flow for flow in asked if not flow.mixed]

    @property
    def x(self) -> Flow:
        return self.inputs[0]

    def rank(self, place: int = 0) -> int:
        """The rank of an input. Raises `_Unsure` where nobody knows it."""
        rank = self.inputs[place].rank
        if rank is None:
            raise _Unsure
        return rank

    def i(self, name: str, default: int) -> int:
        return self.attributes[name].i if name in self.attributes else default

    def ints(self, name: str, place: int) -> list[int] | None:
        """Axes or sizes: an attribute in older files, an input in newer ones. None where there are none.

        Raises `_Unsure` where they are computed.
        """
        if name in self.attributes:
            return list(self.attributes[name].ints)
        if len(self.node.input) <= place or not self.node.input[place]:
            return None
        found = self.graph.values.get(self.node.input[place])
        if found is None:
            raise _Unsure
        return [int(number) for number in np.ravel(found)]


class _Unsure(Exception):
    """Nobody knows without running it."""


Rule = Callable[[_Call], "Flow | list[Flow]"]


def _sure(rule: Callable[[_Call], Flow | list[Flow]]) -> Rule:
    def safe(call: _Call) -> Flow | list[Flow]:
        try:
            return rule(call)
        except _Unsure:
            return UNKNOWN

    return safe


def _elementwise(call: _Call) -> Flow:
    """Broadcast to the right: rows that come to lie on different axes meet each other."""
    ranks = [flow.rank for flow in call.data]
    with_rows = [(flow.axis, flow.rank) for flow in call.data if flow.axis is not None]
    if not with_rows:
        return Flow(None if None in ranks else max((rank for rank in ranks if rank is not None), default=0))
    if None in ranks:
        if len(call.data) == 1:
            return call.x
        raise _Unsure
    top = max(rank for rank in ranks if rank is not None)
    axes = {axis + top - (rank or 0) for axis, rank in with_rows}
    if len(axes) > 1:
        raise Mixed("puts every row together with every other")
    return Flow(top, axes.pop())


def _reduce(call: _Call) -> Flow:
    axes = call.ints("axes", 1)
    if axes is None and call.i("noop_with_empty_axes", 0):
        return call.x
    rank = call.rank()
    gone = {axis % rank for axis in axes} if axes else set(range(rank))
    return _without(call, gone, rank)


def _arg(call: _Call) -> Flow:
    rank = call.rank()
    return _without(call, {call.i("axis", 0) % rank}, rank)


def _without(call: _Call, gone: set[int], rank: int) -> Flow:
    axis = call.x.axis
    if axis in gone:
        raise Mixed("reduces over the rows")
    if call.i("keepdims", 1):
        return call.x
    return Flow(rank - len(gone), None if axis is None else axis - sum(each < axis for each in gone))


def _softmax(call: _Call) -> Flow:
    new, rank = call.graph.opset >= 13, call.rank()
    axis = call.i("axis", -1 if new else 1) % rank
    if call.x.axis is not None and (call.x.axis == axis if new else call.x.axis >= axis):
        raise Mixed("goes over the rows")
    return call.x


def _along(default: int, told: str) -> Rule:
    """An operator that computes along the axis of an attribute, and on each place of the others alone."""

    def rule(call: _Call) -> Flow:
        if call.x.axis is not None and call.i("axis", default) % call.rank() == call.x.axis:
            raise Mixed(told)
        return call.x

    return rule


def _top(call: _Call) -> Flow:
    """Certain rows of all, or all of them in another order: then they may be put back, as those do who sort by length."""
    if call.x.axis is not None and call.i("axis", -1) % call.rank() == call.x.axis:
        if call.graph.opset >= 10:
            call.ints("k", 1)  # raises where it is computed
        raise Mixed("sorts the rows")
    return call.x


def _cumsum(call: _Call) -> Flow:
    axes = call.ints("axis", 1)
    if axes and call.x.axis is not None and axes[0] % call.rank() == call.x.axis:
        raise Mixed("adds up over the rows")
    return call.x


def _layer_norm(call: _Call) -> list[Flow]:
    if call.x.axis is not None and call.x.axis >= call.i("axis", -1) % call.rank():
        raise Mixed("normalises over the rows")
    return [call.x, UNKNOWN, UNKNOWN]


def _batch_norm(call: _Call) -> list[Flow]:
    if call.x.axis is not None and (call.i("training_mode", 0) or call.x.axis == 1):
        raise Mixed(
            "normalises by the batch, as in training" if call.i("training_mode", 0) else "takes rows for channels"
        )
    return [call.x, *[UNKNOWN] * 4]


def _quantised(call: _Call) -> list[Flow]:
    if call.x.axis is not None:
        raise Mixed("quantises by the largest value of all rows")
    return [call.x, Flow(0), Flow(0)]


def _gather(call: _Call) -> Flow:
    data, places = call.inputs[0], call.inputs[1]
    rank, many = call.rank(0), call.rank(1)
    axis = call.i("axis", 0) % rank
    if data.axis is not None and places.axis is not None:
        raise _Unsure
    if data.axis == axis:
        raise Mixed("takes certain rows out of the batch")
    if data.axis is not None:
        return Flow(rank + many - 1, data.axis + (many - 1 if data.axis > axis else 0))
    return Flow(rank + many - 1, None if places.axis is None else axis + places.axis)


def _concat(call: _Call) -> Flow:
    rank = call.rank()
    along = {flow.axis for flow in call.data if flow.axis is not None}
    if call.i("axis", 0) % rank in along:
        raise Mixed("puts rows one after the other")
    if len(along) > 1:
        raise Mixed("puts every row together with every other")
    return Flow(rank, along.pop() if along else None)


def _slice(call: _Call) -> Flow:
    if call.x.axis is None:
        return call.x
    starts, ends = call.ints("starts", 1), call.ints("ends", 2)
    axes, steps = call.ints("axes", 3), call.ints("steps", 4)
    if starts is None or ends is None:
        raise _Unsure
    for place, axis in enumerate(axes if axes is not None else range(len(starts))):
        whole = (starts[place], steps[place] if steps else 1) == (0, 1) and ends[place] >= _TO_THE_END
        if axis % call.rank() == call.x.axis and not whole:
            raise Mixed("takes certain rows out of the batch")
    return call.x


def _split(call: _Call) -> Flow:
    if call.x.axis is not None and call.i("axis", 0) % call.rank() == call.x.axis:
        raise Mixed("takes the batch apart")
    return call.x


def _transpose(call: _Call) -> Flow:
    rank = call.rank()
    order = call.ints("perm", 99) or list(range(rank))[::-1]
    return Flow(rank, None if call.x.axis is None else order.index(call.x.axis))


def _squeeze(call: _Call) -> Flow:
    axes, rank = call.ints("axes", 1), call.rank()
    if axes is None:
        raise _Unsure
    gone = {axis % rank for axis in axes}
    if call.x.axis in gone:
        raise _Unsure
    return Flow(rank - len(gone), None if call.x.axis is None else call.x.axis - sum(a < call.x.axis for a in gone))


def _unsqueeze(call: _Call) -> Flow:
    axes = call.ints("axes", 1)
    if axes is None:
        raise _Unsure
    rank = call.rank() + len(axes)
    new = {axis % rank for axis in axes}
    kept = [axis for axis in range(rank) if axis not in new]
    return Flow(rank, None if call.x.axis is None else kept[call.x.axis])


def _flatten(call: _Call) -> Flow:
    axis = call.i("axis", 1)
    if call.x.axis == 0 and axis == 1:
        return Flow(2, 0)
    if call.x.axis is None:
        return Flow(2)
    raise _Unsure


def _reshape(call: _Call) -> Flow:
    sizes = call.ints("shape", 1)
    if sizes is None:
        raise _Unsure
    if call.x.axis is None:
        return Flow(len(sizes))
    if call.x.axis < len(sizes) and all(size == 0 for size in sizes[: call.x.axis + 1]) and not call.i("allowzero", 0):
        return Flow(len(sizes), call.x.axis)  # every axis up to that of the rows stays as it is
    raise _Unsure


def _matmul(call: _Call) -> Flow:
    a, b = call.inputs[0], call.inputs[1]
    ranks = call.rank(0), call.rank(1)
    top = max(ranks)
    if min(ranks) < 2:
        if a.axis is None and b.axis is None:
            return Flow(top - 1)
        raise _Unsure
    if a.axis == ranks[0] - 1 or (b.axis is not None and b.axis == ranks[1] - 2):
        raise Mixed("sums over the rows")
    axes = {flow.axis + top - rank for flow, rank in zip((a, b), ranks, strict=True) if flow.axis is not None}
    if len(axes) > 1 or (a.axis is not None and b.axis is not None and axes & {top - 1, top - 2}):
        raise Mixed("puts every row together with every other")
    return Flow(top, axes.pop() if axes else None)


def _gemm(call: _Call) -> Flow:
    a, b = call.inputs[0], call.inputs[1]
    if b.axis is not None or (len(call.inputs) > 2 and call.inputs[2].axis is not None):
        raise _Unsure
    if a.axis is None:
        return Flow(2)
    if a.axis != call.i("transA", 0):
        raise Mixed("sums over the rows")
    return Flow(2, 0)


def _einsum(call: _Call) -> Flow:
    equation = call.attributes["equation"].s.decode().replace(" ", "")
    before, arrow, after = equation.partition("->")
    if not arrow or "." in equation:
        raise _Unsure
    letters = {
        term[flow.axis] for term, flow in zip(before.split(","), call.data, strict=True) if flow.axis is not None
    }
    if any(letter not in after for letter in letters):
        raise Mixed("sums over the rows")
    if len(letters) > 1:
        raise Mixed("puts every row together with every other")
    return Flow(len(after), after.index(letters.pop()) if letters else None)


def _recurrent(call: _Call) -> list[Flow]:
    layout = call.i("layout", 0)
    batch = 0 if layout else 1
    inputs = dict(enumerate(call.inputs))
    axes = {name: flow.axis for name, flow in inputs.items() if flow.axis is not None}
    if not axes:
        return [Flow(4), Flow(3), Flow(3)]
    if axes.get(0, batch) != batch or any(axes.get(place, batch) != batch for place in (5, 6)):
        raise Mixed("takes rows for steps, or for directions")
    if any(place in axes for place in (1, 2, 3, 7)):
        raise _Unsure
    return [Flow(4, 0 if layout else 2), Flow(3, batch), Flow(3, batch)]


def _reverse(call: _Call) -> Flow:
    if call.x.axis is not None and call.x.axis != call.i("batch_axis", 1):
        raise Mixed("turns the order of the rows round") if call.x.axis == call.i("time_axis", 0) else _Unsure
    return call.x


def _convolution(call: _Call) -> Flow:
    if any(flow.axis is not None for flow in call.inputs[1:]) or call.x.axis not in (None, 0, 1):
        raise _Unsure
    if call.x.axis == 1:
        raise Mixed("takes rows for channels")
    return call.x


def _pool(call: _Call) -> Flow:
    if call.x.axis not in (None, 0, 1):
        raise _Unsure
    return call.x


def _same(call: _Call) -> Flow:
    return call.x


def _table(rules: Mapping[str, Callable[[_Call], Flow | list[Flow]]]) -> dict[str, Rule]:
    return {name: _sure(rule) for names, rule in rules.items() for name in names.split()}


_RULES = _table(
    {
        "Abs Acos Asin Atan Cast Ceil Celu Cos Elu Erf Exp Floor Gelu HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu Log "
        "Mish Neg Not Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Softplus Softsign Sqrt Tan Tanh ThresholdedRelu "
        "Clip Dropout QuantizeLinear DequantizeLinear CastLike": _same,
        "Add And Div Equal Greater GreaterOrEqual Less LessOrEqual Max Mean Min Mod Mul Or PRelu Pow Sub Sum Where Xor": (
            _elementwise
        ),
        "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum "
        "ReduceSumSquare": _reduce,
        "ArgMax ArgMin": _arg,
        "Softmax LogSoftmax Hardmax": _softmax,
        "TopK": _top,
        "LpNormalization": _along(-1, "normalises over the rows"),
        "CumSum": _cumsum,
        "LayerNormalization": _layer_norm,
        "BatchNormalization": _batch_norm,
        "DynamicQuantizeLinear": _quantised,
        "Gather": _gather,
        "Concat": _concat,
        "Slice": _slice,
        "Split": _split,
        "Transpose": _transpose,
        "Squeeze": _squeeze,
        "Unsqueeze": _unsqueeze,
        "Flatten": _flatten,
        "Reshape": _reshape,
        "MatMul MatMulInteger": _matmul,
        "Gemm": _gemm,
        "Einsum": _einsum,
        "LSTM GRU RNN": _recurrent,
        "ReverseSequence": _reverse,
        "Conv": _convolution,
        "AveragePool GlobalAveragePool GlobalMaxPool MaxPool InstanceNormalization": _pool,
    }
)
_RECURRENT = ("LSTM", "GRU", "RNN")
# How many of the first inputs hold data; the others say where, or how many.
_DATA: dict[str, int] = {
    **dict.fromkeys(("Clip", "Dropout", "CumSum", "TopK", "Slice", "Split", "Squeeze", "Unsqueeze", "Reshape"), 1),
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear", "CastLike"), 1),
    **dict.fromkeys((name for name in _RULES if name.startswith("Reduce")), 1),
    "MatMulInteger": 2,
}
