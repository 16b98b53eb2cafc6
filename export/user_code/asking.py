"""The asking side: a user's factory is called in a child process, and whatever its code does there is a sentence here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from export.errors import ExportError
from serving.backends.base import first_line, trimmed
from serving.child.pipes import Arrays, Message
from serving.child.process import Child
from serving.errors import ChildEnded, ChildRaised

# A factory may fetch its weights and build for minutes. What hangs has to end all the same.
SILENCE_SECONDS = 600.0
_PROGRAM = Path(__file__).with_name("program.py")


class Raised(Exception):
    """What a user's code raised while it was asked: one line, with FILE:LINE in that code where there is one.

    `answer` is the rest of what came with it.
    """

    def __init__(self, line: str, answer: Mapping[str, Any]) -> None:
        super().__init__(line)
        self.answer = answer


class UserCode:
    """What `MODULE:FACTORY` gives, in a child process with the user's path and without ours; a context manager that ends it.

    `framework` is "torch" or "keras"; `weights` are loaded into what the factory gives; `facts` are what the part of that
    framework tells of it (`torch_part.Network.facts`, `keras_part.Network.facts`). Raises `ExportError`, saying which of the
    steps failed and where in the user's code, and `ModuleNotFoundError` where the framework itself is missing.
    """

    def __init__(self, framework: str, where: str, weights: Path | None = None) -> None:
        name, _, factory = where.partition(":")
        if not name or not factory:
            raise ExportError(f"{where!r} names no factory: write MODULE:FACTORY, as in my_project.networks:build")
        self.where = where
        self._child = Child(_PROGRAM, nice=0)
        try:
            asked = {"framework": framework, "where": where, "weights": str(weights.absolute()) if weights else None}
            header = self._answer({"do": "start", **asked}, {}, "while its factory was called").header
            if failed := header.get("raised"):
                raise self._not_started(failed)
            self.facts: Mapping[str, Any] = header
        except BaseException:
            self._child.close()
            raise

    def ask(self, do: str, arrays: Arrays | None = None, *, doing: str = "while it ran", **fields: object) -> Message:
        """Has the part's `Network` do something; `doing` ends the sentence about a child that has died.

        Raises `Raised` for an error of the user's code, and `ExportError` for what is refused or the end of the process.
        """
        message = self._answer({"do": do, **fields}, arrays or {}, doing)
        if failed := message.header.get("raised"):
            raise Raised(_told(failed), message.header)
        return message

    def __enter__(self) -> UserCode:
        return self

    def __exit__(self, *_: object) -> None:
        self._child.close()

    def _answer(self, header: Mapping[str, Any], arrays: Arrays, doing: str) -> Message:
        try:
            message = self._child.ask(header, arrays, doing=doing, silence_seconds=SILENCE_SECONDS)
        except (ChildEnded, ChildRaised) as error:
            raise ExportError(f"{self.where}: {error}") from error
        if sentence := message.header.get("refused"):
            raise ExportError(sentence)
        return message

    def _not_started(self, failed: Mapping[str, Any]) -> Exception:
        told = _told(failed)
        name = self.where.partition(":")[0]
        if failed["stage"] == "framework":
            if failed["type"] == "ModuleNotFoundError":
                return ModuleNotFoundError(failed["said"], name=failed["name"])
            return ExportError(f"{self.where}: the framework cannot be imported: {told}")
        if failed["stage"] == "import":
            parents = [name.rsplit(".", number)[0] for number in range(name.count(".") + 1)]
            missing = failed["type"] == "ModuleNotFoundError" and failed["name"] in parents
            looked = f"; it is looked for in {Path.cwd()}, then in PYTHONPATH, then among what is installed"
            return ExportError(f"{self.where}: importing {name} fails: {told}{looked if missing else ''}")
        if failed["stage"] == "name":
            return ExportError(f"{self.where}: {trimmed(failed['said'])}")
        if failed["stage"] == "call":
            return ExportError(f"{self.where} fails when it is called without arguments: {told}")
        return ExportError(f"{self.where}: the weights cannot be loaded into what it gives: {told}")


def _told(failed: Mapping[str, Any]) -> str:
    """An error of the user's code in one line."""
    where = failed["at"]
    if failed["type"] == "SystemExit":
        return f"it calls sys.exit({failed['said']})" + (f" at {where}" if where else "")
    words = first_line(Exception(failed["said"])) if failed["said"].strip() else ""
    return f"{failed['type']}{words and f': {words}'}" + (f" ({where})" if where else "")
