"""A framework's part that needs no framework; a test puts it beside a copy of the program. Imports nothing of ours."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np


class Refused(Exception):
    pass


class Network:
    """What the factory has given: a function of arrays."""

    def __init__(self, made: Any, where: str, weights: str | None) -> None:
        if not callable(made):
            raise Refused(f"{where} gives a {type(made).__name__}; it must return a function")
        if weights:
            raise ValueError("there are none")
        self.made = made

    def facts(self) -> Mapping[str, Any]:
        return {"path": sys.path, "modules": sorted(sys.modules)}

    def after(self) -> Mapping[str, Any]:
        return {"after": True}

    def run(self, header: Mapping[str, Any], arrays: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        return {}, {"0": np.asarray(self.made(**arrays))}

    def where(self, header: Mapping[str, Any], arrays: Mapping[str, Any]) -> Mapping[str, Any]:
        """Where these modules come from, "" for one that is not found."""
        found = {}
        for name in header["names"]:
            try:
                found[name] = importlib.import_module(name).HERE
            except ModuleNotFoundError:
                found[name] = ""
        return {"found": found}
