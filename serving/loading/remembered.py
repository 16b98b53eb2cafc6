"""What was seen to load, kept on disk, so that a trial is held once and not at every start."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from serving.loading.kept import Kept, Key, user_folder
from serving.loading.request import Tried

log = logging.getLogger(__name__)

FOLDER = ".trials"
MOST_WORDS = 2000


class Remembered:
    """Finds and keeps what trials have found. Used from any loader thread."""

    def __init__(self) -> None:
        self._kept = Kept(FOLDER, functools.partial(user_folder, "trials"))
        self._told = False

    def find(self, model: Path, key: Key) -> Tried | None:
        """What was found for `key`, which stands for files, runtime and options, by whichever server tried it first."""
        found: Tried | None = self._kept.find(model, key, _checked)
        return found

    def keep(self, model: Path, key: Key, tried: Tried) -> None:
        """Keeps it in the first place that takes it. Where none does, the next start tries again, and the log says so once."""
        if (reasons := self._kept.keep(model, key, dataclasses.asdict(tried))) and not self._told:
            self._told = True
            log.warning(
                "what was loaded on trial cannot be remembered, so every start tries it again, which takes a second or more for "
                "each version: let the model's folder or the cache be written (%s), or know your files and set --trial off",
                "; ".join(reasons),
            )


def _checked(fields: Mapping[str, Any]) -> Tried:
    level, remark = fields["level"], fields["remark"]
    if not all(isinstance(one, str) and (one.isprintable() or not one) for one in (level, remark)):
        raise ValueError("its level or its remark is no plain text")
    if len(remark) > MOST_WORDS:
        raise ValueError(f"its remark has more than {MOST_WORDS} characters")
    return Tried(level, remark)
