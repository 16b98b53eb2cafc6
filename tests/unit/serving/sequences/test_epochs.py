"""The epochs of a server's sequences."""

from __future__ import annotations

from serving.sequences.epochs import Epochs


def test_epochs_never_fall() -> None:
    epochs, later = Epochs(), Epochs()
    first, second = epochs(), epochs()
    assert first < second <= later() + 1
    assert [Epochs(5)() for _ in range(2)] == [5, 5]


def test_epochs_from_elsewhere_are_exceeded_and_never_given_out() -> None:
    epochs = Epochs(10)
    epochs.exceed(20)
    assert epochs() == 21
    epochs.exceed(5)
    assert epochs() > 21
