"""How a training shows that it moves: a bar in a terminal, a line now and then in a log.

In a log the bar's carriage returns would pile up into one endless line; so where stderr is not a terminal, tqdm is not
used at all.
"""

from __future__ import annotations

import shutil
from types import TracebackType
from typing import TextIO

from tqdm import tqdm

from models.training import Epoch

LINE_EVERY = 10  # epochs


class Progress:
    """Shows epochs on `stream` while the `with` block lasts; call it with each `Epoch`."""

    def __init__(self, title: str, epochs: int, stream: TextIO) -> None:
        self._title, self._epochs, self._stream = title, epochs, stream
        self._bar = None
        if stream.isatty():
            size = shutil.get_terminal_size()  # 80 x 24 where a terminal says 0 x 0, as in many a container
            shape = "{desc}: |{bar}| {n_fmt}/{total_fmt} epochs [{elapsed}{postfix}]"
            self._bar = tqdm(
                total=epochs, desc=title, bar_format=shape, file=stream, ncols=size.columns, nrows=size.lines
            )

    def __enter__(self) -> Progress:
        return self

    def __call__(self, epoch: Epoch) -> None:
        if self._bar is not None:
            self._bar.set_postfix(loss=f"{epoch.training_loss:.3f}", score=f"{epoch.score:.3f}", refresh=False)
            self._bar.update()
        elif epoch.number == 1 or epoch.number % LINE_EVERY == 0:
            print(
                f"{self._title}: epoch {epoch.number} of at most {self._epochs}, loss {epoch.training_loss:.3f}, "
                f"validation loss {epoch.validation_loss:.3f}, score {epoch.score:.3f}",
                file=self._stream,
                flush=True,
            )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.total = self._bar.n  # it stopped early: full, not broken off
            self._bar.close()
