"""Several model repositories that are served as one: a name that lies in two of them means neither, as in Triton."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from serving.errors import NotInRepository, RepositoryError
from serving.repository.folders import Repository

TWICE = "model appears in two or more repositories"  # as Triton's index says it


class Repositories:
    """The folders that hold models. Raises `RepositoryError` where one of them is not there.

    A folder that is named twice, be it by another path, is one folder. Methods raise `OSError` when one cannot be read.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._all = [Repository(path) for path in {path.resolve(): path for path in reversed(paths)}.values()][::-1]

    def models(self) -> list[str]:
        """Names of the models in all of them, sorted."""
        return sorted({name for repository in self._all for name in repository.models()})

    def fingerprint(self, model: str) -> Any:
        """What changes when any file of the model does, wherever it lies."""
        return tuple((str(one.path), one.fingerprint(model)) for one in self._holding(model))

    def appears_twice(self, model: str) -> bool:
        """Whether more than one of them has a model of that name."""
        return len(self._holding(model)) > 1

    def holding(self, model: str) -> Repository:
        """The one that has the model. Raises `NotInRepository`, or `RepositoryError` where several have it."""
        found = self._holding(model)
        told = f"failed to load '{model}', failed to poll from model repository"
        if not found:
            raise NotInRepository(told)
        if len(found) > 1:
            places = " and ".join(str(one.path / model) for one in found)
            raise RepositoryError(f"{told}: {TWICE}: {places}; rename or remove all but one")
        return found[0]

    def lacks(self, model: str) -> str:
        """The sentence about a model that none of them has, with the name that is nearest."""
        near = difflib.get_close_matches(model, self.models(), 1)
        return f"there is no folder '{model}' in {self}" + (f"; did you mean '{near[0]}'?" if near else "")

    def __str__(self) -> str:
        return ", ".join(str(one.path) for one in self._all)

    def _holding(self, model: str) -> list[Repository]:
        return [one for one in self._all if one.has(model)]
