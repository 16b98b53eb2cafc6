"""Whether steps behind those that a file is told of change nothing: then requests of unequal length may be computed together.

The file is asked twice, the second time with as many steps again, zeros, behind those of every row, and with the same numbers
of true steps: from 1 step on, doubled as long as nothing changes. So what a file does only beyond some number of steps is
found, whatever the number. The rows hold what a mask by values could take for something else: numbers that are all below what
is put in the place of padding before a maximum is taken, or before a softmax. Rows are apart at every size
(`serving.verification.company`), so that what holds for all rows padded alike holds where each is padded by as much as its
company asks for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from serving.signature.spec import MaskedBy
from serving.signature.tensors import Tensors
from serving.verification import values
from serving.verification.golden import disagreement
from serving.verification.trials import Rows, Trials
from serving.verification.values import Kind

LONGEST = 4096  # steps that are tried, as many as a server takes unless told otherwise
LEAST = 32  # what holds for fewer only is not worth it
LONG = 128  # above, fewer kinds of rows are tried
TOLERANCE = 1e-6
BODIES = (*(Kind(body) for body in values.BODIES), Kind(place=values.TAIL), Kind(place=values.HEAD))
LEVELS = tuple(Kind(place=values.EVERYWHERE, marker=sign * 1.5 * 10**power) for power in range(10) for sign in (1, -1))
FEW = (Kind(), Kind(values.POSITIVE), Kind(values.NEGATIVE), LEVELS[5], LEVELS[9])
SAMPLED = (Kind(values.SAMPLED),) * 3


def masked_by(
    trials: Trials, rows: Rows, timed: Mapping[str, int], outputs: Mapping[str, int | None]
) -> MaskedBy | None:
    """Which input says how many steps of which other one are true, and up to how many steps; None where that is not certain.

    `timed` and `outputs` say where the steps are, in the file's own layout.
    """
    counts = [name for name in trials.counts if rows[name] is not None]
    if len(timed) != 1 or len(counts) != 1:
        return None
    (of, axis), (told,) = next(iter(timed.items())), counts
    steps = 1
    while steps < LONGEST:
        kinds = [*((*BODIES, *LEVELS) if steps <= LONG else FEW), *(SAMPLED if trials.sampled else ())]
        if not trials.affords_rows(rows, len(kinds), 2 * steps) or not all(
            _indifferent(trials, rows, kinds, steps, told, of, axis, outputs, full=full) for full in (True, False)
        ):
            break
        steps *= 2
    return MaskedBy(told, of, steps) if steps >= LEAST else None


def _indifferent(
    trials: Trials,
    rows: Rows,
    kinds: Sequence[Kind],
    steps: int,
    told: str,
    of: str,
    axis: int,
    outputs: Mapping[str, int | None],
    *,
    full: bool,
) -> bool:
    """Whether rows of these kinds are answered alike with as many steps again; all their steps are true, or some."""
    made = []
    for number, kind in enumerate(kinds):
        true = steps if full else 1 + number % steps
        row = trials.row(rows, steps, kind, true)
        made.append({**row, told: np.full_like(row[told], true)})
    sent = trials.together(rows, made, trials.shared(rows, steps))
    more = [(0, steps if place == axis else 0) for place in range(sent[of].ndim)]
    answer, padded = trials.attempt(sent), trials.attempt({**sent, of: np.pad(sent[of], more)})
    return answer is not None and padded is not None and _alike(answer, padded, outputs, steps)


def _alike(answer: Tensors, padded: Tensors, outputs: Mapping[str, int | None], steps: int) -> bool:
    for name, array in answer.items():
        axis = outputs[name]
        cut = padded[name] if axis is None else padded[name][(slice(None),) * axis + (slice(steps),)]
        if cut.shape != array.shape or disagreement(cut, array) > TOLERANCE:
            return False
    return True
