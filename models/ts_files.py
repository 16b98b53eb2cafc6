"""Reads `.ts` files, the text format of the UEA & UCR time series classification archive, unequal lengths included.

One line is one case: `1.5,1.6,1.4:0.2,0.1,0.3:label`, channels separated by colons, steps by commas (format: Bagnall
et al. 2018, "The UEA multivariate time series classification archive"). The channel is the outer dimension in the file,
the step in a network, so every case is transposed on the way in.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models import cells


class TSFormatError(ValueError):
    """A file that is not a `.ts` file that can be learnt from; the message starts with the file and the line."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelledSequences:
    """One file: `sequences` are float32 `[steps, channels]`, `classes` int64 `[cases]`, each an index into `labels`."""

    name: str
    labels: tuple[str, ...]
    sequences: tuple[npt.NDArray[np.float32], ...]
    classes: npt.NDArray[np.int64]

    @property
    def channels(self) -> int:
        """How many numbers every step holds."""
        return int(self.sequences[0].shape[1])


@dataclasses.dataclass
class _Header:
    name: str = ""
    labels: tuple[str, ...] = ()
    channels: int | None = None

    def read(self, line: str) -> None:
        """Takes in one line that starts with `@`. Raises `ValueError` for what cannot be learnt from."""
        keyword, *values = line[1:].split()
        keyword = keyword.lower()
        switch = values[0].lower() if values else ""
        if keyword == "problemname":
            self.name = " ".join(values)
        elif keyword == "timestamps" and switch != "false":
            raise ValueError("time stamps are not read; only steps at equal distances are")
        elif keyword == "univariate" and switch == "true":
            self.channels = 1
        elif keyword in ("dimensions", "dimension"):
            if not switch.isdecimal() or int(switch) < 1:
                raise ValueError(f"the number of dimensions is {switch!r}; it must be a positive whole number")
            self.channels = int(switch)
        elif keyword == "classlabel":
            if switch != "true" or len(values) < 3:
                raise ValueError("@classLabel must be true and name at least two classes")
            self.labels = tuple(values[1:])
            if len(set(self.labels)) != len(self.labels):
                raise ValueError("@classLabel names a class twice")
        elif keyword == "targetlabel" and switch != "false":
            raise ValueError("the file holds a regression problem (@targetLabel); only classes are read")


def read_ts(path: Path) -> LabelledSequences:
    """Reads a whole file. Raises `TSFormatError` for what it cannot read and `OSError` when there is no such file."""
    header = _Header()
    sequences: list[npt.NDArray[np.float32]] = []
    classes: list[int] = []
    in_data = False
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise TSFormatError(f"{path}: is not text in UTF-8 ({error.reason} at byte {error.start})") from error
    for number, line in enumerate(map(str.strip, lines), start=1):
        if not line or line.startswith("#"):
            continue
        try:
            if in_data:
                sequence, label = _case(line, header)
                header.channels = sequence.shape[1]
                sequences.append(sequence)
                classes.append(header.labels.index(label))
            elif line.lower() == "@data":
                in_data = True
                if not header.labels:
                    raise ValueError("no line @classLabel came before @data")
            elif line.startswith("@") and len(line) > 1:
                header.read(line)
            else:
                raise ValueError(f"{line[:30]!r} stands before @data and is neither a comment nor an attribute")
        except ValueError as error:
            raise TSFormatError(f"{path}:{number}: {error}") from error
    if not sequences:
        raise TSFormatError(f"{path}:{len(lines)}: the file ends without {'a case' if in_data else 'a line @data'}")
    return LabelledSequences(
        name=header.name or path.stem,
        labels=header.labels,
        sequences=tuple(sequences),
        classes=np.array(classes, np.int64),
    )


def _case(line: str, header: _Header) -> tuple[npt.NDArray[np.float32], str]:
    """One line after `@data` -> `[steps, channels]` and the label."""
    *channels, label = (part.strip() for part in line.split(":"))
    if header.channels is not None and len(channels) != header.channels:
        raise ValueError(f"{len(channels)} channels and a label, where {header.channels} channels and a label belong")
    if not channels:
        raise ValueError("the line holds no colon, so no channel is apart from the label")
    if label not in header.labels:
        raise ValueError(f"the label is {label[:30]!r}; @classLabel names {', '.join(header.labels)}")
    rows = [_numbers(channel, index) for index, channel in enumerate(channels, start=1)]
    lengths = [len(row) for row in rows]
    if len(set(lengths)) != 1:
        raise ValueError(f"the channels have between {min(lengths)} and {max(lengths)} steps; all must have as many")
    return np.ascontiguousarray(np.array(rows, np.float32).T), label


def _numbers(channel: str, index: int) -> list[float]:
    numbers = []
    for step, text in enumerate(channel.split(","), start=1):
        if text.strip() in ("?", "NaN", "nan"):
            raise ValueError(f"channel {index} misses the value of step {step}; fill it in or cut the case there")
        try:
            numbers.append(cells.number(text))
        except ValueError as error:
            raise ValueError(f"channel {index}, step {step} {error}") from None
    return numbers
