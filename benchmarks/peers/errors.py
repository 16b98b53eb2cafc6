"""What may go wrong with a peer, which is then said in the page and stops nobody else."""

from __future__ import annotations


class PeerError(Exception):
    """A peer cannot be installed, started or measured; the message says what, and the peer's last words."""
