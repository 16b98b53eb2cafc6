"""A model whose backend breaks on command, and another that could stand in for it."""

from __future__ import annotations

from pathlib import Path

from tests.support import fake_models, summing


class Breakable:
    """A version that the fake backend serves until it is told to break, and ONNX Runtime could serve as well."""

    def __init__(self, repository: Path, *, second: bool = True, config: str | None = None, **behaviour: float) -> None:
        self.folder = fake_models.write(repository, fail_while="broken", config=config, **behaviour)  # type: ignore[arg-type]
        if second:
            summing.write(self.folder)

    def breaks(self, said: str = "") -> None:
        """From now on; at once, so that nobody reads half of what is said."""
        written = self.folder / "written"
        written.write_text(said)
        written.rename(self.folder / "broken")

    def mends(self) -> None:
        (self.folder / "broken").unlink()
