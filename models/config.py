"""`LSTMConfig` describes a network completely, and stores nothing that follows from its other fields.

Both frameworks build exactly this network, and every export format writes exactly this network. There is no pooling
over time. A head reads the last true step (of each direction, where that direction ends) or, for values per step, the
current one. That is what lets a network of one direction be fed in pieces.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Literal, get_args

Input = Literal["features", "tokens"]
Head = Literal["classification", "values", "values_per_step"]


class ConfigError(ValueError):
    """A network description that no framework could build; the message names the field, its value, what is allowed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LSTMConfig:
    """A stack of LSTM layers between one input and one head.

    `input` is "features" (FP32 `[rows, steps, features]`, standardised inside the network as
    `(x - input.mean) / input.scale`) or "tokens" (INT64 `[rows, steps]`, ids in `0 .. vocabulary - 1`, looked up in an
    embedding of `embedding` dimensions).

    `dropout` is applied, while training, to the output of every layer: between the layers and before the head.

    `head` is "classification" (probabilities over `outputs` classes), "values" (`outputs` numbers for each row) or
    "values_per_step" (`outputs` numbers after every step). Values leave the network in raw units:
    `linear(h) * output.scale + output.mean`.

    Raises `ConfigError` when a field is out of its range or fields contradict each other.
    """

    input: Input = "features"
    features: int = 0
    vocabulary: int = 0
    embedding: int = 0
    layers: int = 1
    hidden: int = 64
    bidirectional: bool = False
    dropout: float = 0.0
    head: Head = "classification"
    outputs: int = 1

    def __post_init__(self) -> None:
        for field, allowed in (("input", get_args(Input)), ("head", get_args(Head))):
            if getattr(self, field) not in allowed:
                raise ConfigError(f"{field} is {getattr(self, field)!r}; it must be one of {', '.join(allowed)}")
        by_input = {"features": ("features",), "tokens": ("vocabulary", "embedding")}
        used = by_input.pop(self.input)
        (unused,) = by_input.values()
        for field in (*used, "layers", "hidden", "outputs"):
            if getattr(self, field) < 1:
                raise ConfigError(f"{field} is {getattr(self, field)}; a network with {self.input} needs at least 1")
        for field in unused:
            if getattr(self, field) != 0:
                raise ConfigError(f"{field} is {getattr(self, field)}, but the input is {self.input!r}: leave it out")
        if not 0.0 <= self.dropout < 1.0:
            raise ConfigError(f"dropout is {self.dropout}; it must be in [0, 1)")
        if self.head == "classification" and self.outputs < 2:
            raise ConfigError(f"outputs is {self.outputs}; a classification needs at least 2 classes")

    @property
    def directions(self) -> int:
        """1, or 2 for a bidirectional network."""
        return 2 if self.bidirectional else 1

    @property
    def streamable(self) -> bool:
        """Whether feeding a sequence in pieces, the state carried along, equals feeding it whole."""
        return not self.bidirectional

    def layer_inputs(self, layer: int) -> int:
        """Width of what layer `layer` (from 0) reads at each step."""
        if layer > 0:
            return self.hidden * self.directions
        return self.features if self.input == "features" else self.embedding

    def told(self) -> str:
        """The network in a few words, for people."""
        both = "in both directions" if self.bidirectional else "in one direction"
        return f"LSTM of {self.layers} x {self.hidden} {both}, {self.head.replace('_', ' ')}"

    def to_json(self) -> str:
        """The description as JSON text, every field written out."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_mapping(cls, fields: Mapping[str, Any]) -> LSTMConfig:
        """The inverse of `to_json` after parsing. Raises `ConfigError` on an unknown field or one of the wrong type."""
        known = {field.name: type(field.default) for field in dataclasses.fields(cls)}
        for name, value in fields.items():
            if name not in known:
                raise ConfigError(f"unknown field {name!r}; known are {', '.join(known)}")
            expected = (int, float) if known[name] is float else (known[name],)
            if type(value) not in expected:
                raise ConfigError(f"{name} is {value!r}; it must be of type {known[name].__name__}")
        return cls(**fields)
