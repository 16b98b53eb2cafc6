"""What the layers of a functional model of Keras 2 are called on, in Keras 3's form.

Keras 2 names a tensor by its layer, which call of the layer it comes from, and its place in the answer. A model within the
model counts its own input as its first call there, and not in Keras 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from export.errors import ExportError

Config = dict[str, Any]

MODELS = ("Sequential", "Functional", "Model")
_RECURRENT = ("LSTM", "GRU", "SimpleRNN", "RNN", "Bidirectional", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D")
_CONSTANT = "_CONSTANT_VALUE"  # where a tensor's layer would stand
OPERATIONS = ("TFOpLambda", "SlicingOpLambda")


def ids_are_whole(layers: Sequence[Config]) -> Sequence[Config]:
    """Keras 2 states the ids of an `Embedding` as float32 where nothing else was said; they are whole numbers."""

    def only_looked_up(number: int, name: str) -> bool:
        readers = [layer for layer in layers if name in _names(layer.get("inbound_nodes", []))]
        if "inbound_nodes" not in layers[number]:
            readers = list(layers[number + 1 : number + 2])
        return bool(readers) and all(layer["class_name"] == "Embedding" for layer in readers)

    made = []
    for number, layer in enumerate(layers):
        config = layer["config"]
        if (
            layer["class_name"] == "InputLayer"
            and only_looked_up(number, config["name"])
            and "float" in config["dtype"]
        ):
            layer = {**layer, "config": {**config, "dtype": "int32"}}  # noqa: PLW2901 - the same layer, mended
        made.append(layer)
    return made


def keeps_its_input(layer: Config) -> bool:
    """Whether it is a model within the model whose own input counts as its first call in Keras 2, and not in Keras 3."""
    if layer["class_name"] not in MODELS:
        return False
    config = layer["config"]
    layers = config if isinstance(config, list) else config["layers"]
    return bool(layers) and layers[0]["class_name"] == "InputLayer"


def one_or_all(first: Mapping[str, int], places: Sequence[Sequence[Any]]) -> Any:
    """One tensor alone is not in a list, as Keras 2 gave and took it."""
    made = [[name, number - first[name], place] for name, number, place in places]
    return made[0] if len(made) == 1 else made


def call(first: Mapping[str, int], layer: Config, node: Sequence[Any]) -> Config:
    """What a layer is called on: tensors by the layer and the call that they come from, and keywords, tensors among them.

    `first` has the number of each layer's first call.
    """
    alone = bool(node) and isinstance(node[0], str)  # one tensor, as operations of TensorFlow have it
    node = [node] if alone else node
    tensors = [_tensor(first, part) for part in node]
    keywords: Config = dict(node[0][3]) if node and len(node[0]) > 3 else {}
    made = {key: _with_tensors(first, value) for key, value in keywords.items() if key != "training"}
    if layer["class_name"] in OPERATIONS:
        made.pop("name", None)
        if alone and node[0][0] == _CONSTANT:
            return {"args": [], "kwargs": {"first": tensors[0], **made}}
        return {"args": tensors if alone else [tensors], "kwargs": made}
    if layer["class_name"] in _RECURRENT and len(tensors) > 1:  # its state comes behind the sequence
        if layer["config"].get("num_constants"):
            raise ExportError(f"the layer {layer['name']} takes constants beside its state, which Keras 3 cannot do")
        return {"args": tensors[:1], "kwargs": {**made, "initial_state": tensors[1:]}}
    return {"args": [tensors[0] if len(tensors) == 1 else tensors], "kwargs": made}


def _tensor(first: Mapping[str, int], place: Sequence[Any]) -> Any:
    if place[0] == _CONSTANT:
        return place[2]
    history = [place[0], place[1] - first[place[0]], place[2]]
    return {"class_name": "__keras_tensor__", "config": {"shape": [], "dtype": "float32", "keras_history": history}}


def _with_tensors(first: Mapping[str, int], value: Any) -> Any:
    """A keyword in which `["layer", 0, 0]` stands for a tensor."""
    if isinstance(value, list) and len(value) == 3 and isinstance(value[0], str) and value[0] in (_CONSTANT, *first):
        return _tensor(first, value)
    if isinstance(value, list):
        return [_with_tensors(first, part) for part in value]
    return value


def _names(nodes: Any) -> set[str]:
    """Every text within nested lists and dictionaries: the names of layers are among them."""
    if isinstance(nodes, str):
        return {nodes}
    parts = nodes.values() if isinstance(nodes, dict) else nodes if isinstance(nodes, list) else ()
    return set().union(*map(_names, parts))
