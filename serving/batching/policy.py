"""What may share a batch, and how long to wait for company: plain data, decided in `serving.repository.model_config`."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchPolicy:
    """What may share a batch, and how long to wait for company.

    `max_rows` bounds a batch; `max_delay_ns` is how long the first in line waits for it to fill; with `preferred_rows`
    a batch of exactly such a size goes at once and others wait the delay out. `max_queue` bounds the requests that wait
    for the model, however many instances it has. Without `dynamic` every request is computed alone. Of the steps of a batch of
    unequal lengths at most the share `max_padding_ratio` is padding.
    """

    max_rows: int = 64
    max_delay_ns: int = 0
    preferred_rows: tuple[int, ...] = ()
    max_queue: int = 1024
    dynamic: bool = True
    max_padding_ratio: float = 0.5
