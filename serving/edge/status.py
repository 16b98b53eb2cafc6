"""Messages of calls that have failed, short enough to travel."""

from __future__ import annotations

# Longer messages would make the trailing metadata too large, and the client would see something else instead.
MAX_DETAILS_BYTES = 1000


def details(message: str) -> str:
    """An error's message as it travels: cut where it is too long, with ? for what is no text (names on disk may hold it)."""
    encoded = message.encode(errors="replace")
    more = "..." if len(encoded) > MAX_DETAILS_BYTES else ""
    return encoded[:MAX_DETAILS_BYTES].decode(errors="ignore") + more
