"""The demonstration problems: data, network and plan of each, chosen once.

One fact that surprises: the test part is loaded here beside the training part, and yet nothing but
`models.runs.make`, after the last epoch, ever looks at it.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from models.config import LSTMConfig
from models.examples import Examples
from models.training import Plan
from models.ts_files import LabelledSequences, read_ts


@dataclasses.dataclass(frozen=True, kw_only=True)
class Problem:
    """What is to be learnt (`training`), from where (`data`, JSON-ready), by what (`config`) and how (`plan`)."""

    name: str
    config: LSTMConfig
    plan: Plan
    training: Examples
    test: Examples
    labels: tuple[str, ...]
    data: Mapping[str, Any]

    def title(self, framework: str) -> str:
        """What people read above a curve or beside a progress bar."""
        return f"{self.name} ({framework}, seed {self.plan.seed})"


def vowels() -> Problem:
    """Who of nine speakers says it: the Japanese vowels of Kudo, Toyama and Shimbo (1999), see `models/data/README.md`.

    Network and plan were chosen among some twenty by five-fold cross-validation on the 270 training utterances alone,
    by the mean cross-entropy of the held-out folds (0.12 in PyTorch, 0.11 in Keras; accuracy 0.97 and 0.98). What
    mattered most were strong noise and patience; two layers and the cropping of utterances did not help.
    """
    with (
        resources.as_file(resources.files("models") / "data" / "JapaneseVowels_TRAIN.ts") as training_file,
        resources.as_file(resources.files("models") / "data" / "JapaneseVowels_TEST.ts") as test_file,
    ):
        training, test = read_ts(training_file), read_ts(test_file)
        digests = {path.name: _digest(path) for path in (training_file, test_file)}
    return Problem(
        name="vowels",
        config=LSTMConfig(features=training.channels, layers=1, hidden=128, dropout=0.4, outputs=len(training.labels)),
        plan=Plan(epochs=120, patience=25, averaging=0.8, noise=0.6),
        training=_examples(training),
        test=_examples(test),
        labels=training.labels,
        data={"name": training.name, "sha256": digests},
    )


def _examples(cases: LabelledSequences) -> Examples:
    return Examples(cases.sequences, cases.classes)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
