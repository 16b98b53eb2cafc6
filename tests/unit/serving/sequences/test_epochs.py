"""The epochs of a server's sequences."""

from __future__ import annotations

from serving.sequences.epochs import Epochs


def test_epochs_never_fall() -> None:
    epochs, later = Epochs(), Epochs()
    first, second = epochs(), epochs()
    assert first < second <= later() + 1
    assert [Epochs(5)() for _ in range(2)] == [5, 5]
