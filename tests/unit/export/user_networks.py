"""Networks as users write them, for the tests of `lstm-export module`: plain ones, others, and some that cannot be exported."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Plain(nn.Module):
    """Two layers, dropout, and values from the last step."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(8, 16, 2, batch_first=True, dropout=0.1)
        self.drop = nn.Dropout(0.2)
        self.out = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.drop(self.rnn(x)[0][:, -1]))


class Classifier(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).softmax(-1)


class Tagger(nn.Module):
    """Tokens, two directions, an answer for every step."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 4)
        self.rnn = nn.LSTM(4, 16, batch_first=True, bidirectional=True)
        self.out = nn.Linear(32, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(self.words(x))[0])


class TimeFirst(nn.Module):
    """Two LSTM modules one after the other, with the steps first."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.LSTM(8, 16), nn.LSTM(16, 16)
        self.out = nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.second(self.first(x)[0])[0])


class Attention(nn.Module):
    """More than a stack: two linear layers, a state that goes in and comes out."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(8, 16, batch_first=True)
        self.score = nn.Linear(16, 1)
        self.out = nn.Linear(16, 3)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        steps, state = self.rnn(x, (h, c))
        return self.out((self.score(steps).softmax(1) * steps).sum(1)), state


class Looks(Plain):
    """Has the parts of a plain stack and computes something else."""

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(x)[0].mean(1))


class Mixed(Plain):
    """Takes the mean over its rows away."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y - y.mean(0)


class FrozenTime(Looks):
    def forward(self, x: Tensor) -> Tensor:
        weights = torch.tensor([1.0 / (step + 1) for step in range(int(x.shape[1]))])
        return self.out((self.rnn(x)[0] * weights[None, :, None]).sum(1))


class Branch(Plain):
    def forward(self, x: Tensor) -> Tensor:
        steps = self.rnn(x)[0]
        if float(x[0, 0, 0]) > 0:
            steps = steps * 2
        return self.out(steps[:, -1])


class Sampled(Plain):
    def forward(self, x: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        return {"y": super().forward(x)}


def no_module() -> int:
    return 7


def broken() -> nn.Module:
    raise KeyError("hidden")
