"""The demonstration's models, trained on real data and exported as a user would."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MODELS = ("vowels_torch", "vowels_keras")


@dataclass(frozen=True)
class Trained:
    """A repository with both Vowels models in all formats, and the runs that they come from, by the model's name."""

    repository: Path
    runs: dict[str, Path]
