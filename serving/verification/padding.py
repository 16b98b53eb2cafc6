"""Whether steps behind those that a file is told of change nothing: then requests of unequal length may be computed together.

The file is asked twice, the second time with more steps, zeros, behind those of every row, and with the same number of true
steps. Rows are apart at every size (`serving.verification.company`), so that what holds for all rows padded alike holds where
each is padded by as much as its company asks for.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from serving.signature.spec import LengthsSpec
from serving.signature.tensors import Tensors
from serving.verification import values
from serving.verification.golden import disagreement
from serving.verification.trials import ROWS, SIZES, Rows, Trials
from serving.verification.values import Kind

PADDED = ((1, 2), (1, SIZES[1]), (SIZES[0], SIZES[0] + 1), (SIZES[0], SIZES[2]), (SIZES[2], 128), (128, 256))
KINDS = (Kind(), Kind(values.POSITIVE))
TOLERANCE = 1e-6  # what is promised of answers in company


def told_by(
    trials: Trials, rows: Rows, timed: Mapping[str, int], outputs: Mapping[str, int | None]
) -> LengthsSpec | None:
    """Which input says how many steps of which other one are true; None where that is not so, or not for certain.

    `timed` and `outputs` say where the steps are, in the file's own layout.
    """
    counts = [name for name in trials.counts if rows[name] is not None]
    if len(timed) != 1 or len(counts) != 1:
        return None
    (of, axis), (told,) = next(iter(timed.items())), counts
    for (steps, longer), kind, full in ((sizes, k, f) for sizes in PADDED for k in KINDS for f in (True, False)):
        if not trials.affords(longer):
            continue
        sent = trials.sent(rows, ROWS[0], steps, kind, full=full)
        more = [(0, longer - steps if place == axis else 0) for place in range(sent[of].ndim)]
        answer, padded = trials.attempt(sent), trials.attempt({**sent, of: np.pad(sent[of], more)})
        if answer is None or padded is None or not _alike(answer, padded, outputs, steps):
            return None
    return LengthsSpec(told, of)


def _alike(answer: Tensors, padded: Tensors, outputs: Mapping[str, int | None], steps: int) -> bool:
    for name, array in answer.items():
        axis = outputs[name]
        cut = padded[name] if axis is None else padded[name][(slice(None),) * axis + (slice(steps),)]
        if cut.shape != array.shape or disagreement(cut, array) > TOLERANCE:
            return False
    return True
