"""Inputs by which a file is told where a sequence begins, where it ends, which rows hold a step, and whose they are.

Some files want them beside the state that they are given. The operator says which they are (`sequence_batching` of
`config.pbtxt`), the server fills them in, and no client sees them.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

START, END, READY, CORRID = "start", "end", "ready", "corrid"
KINDS = (START, END, READY, CORRID)


@dataclasses.dataclass(frozen=True)
class ControlInput:
    """`input` holds `on` in a row where it is so, else `off`; a `CORRID` holds the sequence's id, and these where it has none.

    `kind` is one of `KINDS`.
    """

    input: str
    kind: str
    off: float | str
    on: float | str

    @property
    def resting(self) -> float | str:
        """What it holds in a row that is a step in no particular place: no start, no end, and nobody's."""
        return self.on if self.kind == READY else self.off

    def refuses(self, said: int | str, dtype: np.dtype[Any]) -> str:
        """Why an id cannot be told in that datatype; "" if it can."""
        if dtype.kind == "O":
            return ""
        if isinstance(said, str):
            return f"is a text, and input {self.input}, which is told it, takes whole numbers"
        least, most = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
        return "" if least <= said <= most else f"is not one of {least} to {most}, which input {self.input} can be told"

    def value(self, said: float | str, dtype: np.dtype[Any]) -> Any:
        """`said` as an array of that datatype takes it; strings travel as bytes."""
        if dtype.kind != "O":
            return said
        return said.encode() if isinstance(said, str) else str(said).encode()
