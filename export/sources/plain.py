"""What makes a network a plain stack of LSTM and linear layers; `plain_torch` and `plain_keras` ask this.

No network is recognised by its looks alone. It counts as plain only if the canonical network with the same weights gives
the same answers. A few random inputs do not show that: a branch of Python that looks at a sum goes one way for many of
them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Set
from typing import Any

import numpy as np
import numpy.typing as npt

from export.samples import Wide, checked
from export.versions import Target
from models.checkpoint import Checkpoint
from models.config import ConfigError, LSTMConfig
from serving.signature.spec import ModelSpec
from serving.verification.hints import Hints
from serving.verification.trials import Run

TOLD_MORE = "--output or a hint was given"
ANSWERS_DIFFERENTLY = (
    "it computes something else than a plain stack of its parts (another activation, another step than the last, an operation "
    "between the layers)"
)
LONG = 400  # steps: a branch of Python may look at how many there are
SAME = 1e-6  # a network that is a plain stack differs from the canonical one by rounding alone


def usual_and_unusual(config: LSTMConfig, steps: int | None = None, first_id: int = 0) -> Iterator[npt.NDArray[Any]]:
    """`x` for several numbers of rows and steps, of either sign and larger too: a branch of Python hides from a few values."""
    generator = np.random.default_rng(5)
    for rows, length in ((1, steps or 1), (3, steps or 7), (2, steps or 24), (1, steps or LONG)):
        if config.input == "tokens":
            yield generator.integers(first_id, config.vocabulary, (rows, length))
            continue
        x = generator.normal(size=(rows, length, config.features)).astype(np.float32)
        yield from (x, -x, np.abs(x), -np.abs(x), 10 * x)


def padded(config: LSTMConfig) -> Iterator[tuple[npt.NDArray[Any], float]]:
    """`x` whose rows end or begin in what others take for padding, and how far answers may be apart by rounding.

    A network that looks for its padding (`lengths = (x != 0).any(-1).sum(1)`) answers as a plain stack does until there is
    some: a value or a token in each step, in one feature alone, the step before once more, or NaN.
    """
    generator = np.random.default_rng(7)
    if config.input == "tokens":
        ids = [*range(min(4, config.vocabulary)), *range(max(4, config.vocabulary - 2), config.vocabulary)]
        fills: list[float] = [*ids]
    else:
        fills = [0, 1, -1, 100, -100, 999, -999, 9999, -9999, np.nan]
    for fill in fills:
        if config.input == "tokens":
            x = generator.integers(0, config.vocabulary, (2, 7))
        else:
            x = generator.normal(size=(2, 7, config.features)).astype(np.float32)
        ends, begins, once_more = x.copy(), x.copy(), x.copy()
        ends[0, 5:], ends[1, 3:] = fill, fill
        begins[0, :2], begins[1, :4] = fill, fill
        once_more[0, 5:], once_more[1, 3:] = x[0, 4], x[1, 2]
        tried = [ends, begins, once_more]
        if config.input != "tokens":
            first = x.copy()
            first[:, 4:, 0] = fill
            tried.append(first)
        rounding = SAME if config.input == "tokens" or np.isnan(fill) else SAME * max(1, abs(fill))
        yield from ((each, rounding) for each in tried)
    if config.input == "tokens":
        known = np.arange(min(config.vocabulary, 4096))
        x = generator.integers(0, config.vocabulary, (len(known), 4))
        x[:, 2:] = known[:, None]
        yield x, SAME


def configs(
    table: tuple[int, int] | None, features: int, layers: int, hidden: int, *, bidirectional: bool, outputs: int
) -> Iterator[LSTMConfig]:
    """The networks that such parts may be of, one for each head. `table` is the vocabulary and width of an embedding."""
    fields = {"vocabulary": table[0], "embedding": table[1]} if table else {"features": features}
    for head in ("values_per_step", "values", "classification"):
        try:
            config = LSTMConfig(
                input="tokens" if table else "features",
                layers=layers,
                hidden=hidden,
                bidirectional=bidirectional,
                head=head,
                outputs=outputs,
                **fields,
            )
        except ConfigError:
            continue
        yield config


def why_not(inputs: int, linear: int, embeddings: int, widths: Set[int], directions: Set[int]) -> str:
    """Why a network of so many parts, with LSTM layers of these widths and directions, is no plain stack; empty if it may be."""
    if inputs != 1 or not widths or linear != 1 or embeddings > 1:
        return (
            "a plain stack has one input, LSTM layers, one linear layer and at most one embedding; here there are: inputs "
            f"{inputs}, {'' if widths else 'no LSTM, '}linear layers {linear}, embeddings {embeddings}"
        )
    if len(widths) > 1:
        return (
            f"its LSTM layers are {' and '.join(map(str, sorted(widths)))} wide, and the canonical state has one width"
        )
    if len(directions) > 1:
        return "some of its LSTM layers have one direction and some two"
    return ""


def with_samples(
    checkpoint: Checkpoint, stated: ModelSpec, run: Run, target: Target, wide: Wide, *, rows_first: bool = True
) -> Checkpoint:
    """The checkpoint with a person's own samples, each row of them, once `run` has answered them as they say.

    `stated` describes the network in its own layout, where `rows_first` tells the order of axes. Raises `ExportError`.
    """
    given = target.samples.fitting(stated.inputs, stated.outputs, Hints())
    checked(given, target.samples.path, run, [tensor.name for tensor in stated.outputs], target.tolerance, wide)
    dtype = np.int64 if checkpoint.config.input == "tokens" else np.float32
    rows: list[npt.NDArray[Any]] = []
    for sample in given:
        (x,) = sample.inputs.values()
        rows += [row.astype(dtype) for row in (x if rows_first else np.moveaxis(x, 1, 0))]
    return dataclasses.replace(checkpoint, samples=tuple(rows))
