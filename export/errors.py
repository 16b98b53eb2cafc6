"""The error of an export that is refused here; those of backends and of the repository are in `serving.errors`."""

from __future__ import annotations


class ExportError(ValueError):
    """An export that must not or cannot be made; the message is one sentence that says why, and what to do."""
