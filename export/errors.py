"""What an export refuses to do on its own account; what a backend or the repository refuses is in `serving.errors`."""

from __future__ import annotations


class ExportError(ValueError):
    """An export that must not or cannot be made; the message is one sentence that says why, and what to do."""
