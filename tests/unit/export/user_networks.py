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


class TurnsItself(TimeFirst):
    """Takes the rows first although its LSTMs do not."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(0, 1)).transpose(0, 1)


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


class LongOtherwise(Plain):
    """A plain stack, but for sequences that are longer than what anybody tries."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y * 0 if x.shape[1] > 40 else y


class Mixed(Plain):
    """Takes the mean over its rows away."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y - y.mean(0)


class Short(Plain):
    """A plain stack that takes no long sequences."""

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] > 40:
            raise ValueError(f"{x.shape[1]} steps are too many")
        return super().forward(x)


class LooksForPadding(Plain):
    """The last step that is not all zeros."""

    def forward(self, x: Tensor) -> Tensor:
        last = ((x != 0).any(-1).sum(1) - 1).clamp(min=0)
        return self.out(self.rnn(x)[0][torch.arange(x.shape[0]), last])


class CutToTheLongest(Plain):
    """All rows lose the steps that are padding in each of them."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x[:, : int((x[:, :, 0] > -900).sum(1).max())])


class WithoutNaN(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.nan_to_num(x))


class LooksForTokens(Tagger):
    """Answers nothing where a step is the padding's token, the last of the vocabulary."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (x < 998)[:, :, None]

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(1000, 4)


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


class NormedInTraining(Plain):
    """Keeps its batch norm in training mode, where rows touch each other; a file is put into evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(16)

    def eval(self) -> NormedInTraining:
        super().eval()
        self.norm.train()
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.norm(self.rnn(x)[0][:, -1]))


class Normed(Plain):
    """Dropout and batch norm as torch has them: in training mode until `eval()`."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(16)
        self.norm.running_mean = torch.linspace(-1, 1, 16)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.drop(self.norm(self.rnn(x)[0][:, -1])))


class NormedAndTraced(Normed):
    """In evaluation mode, and cannot be scripted."""

    def forward(self, x: Tensor, *unused: Tensor) -> Tensor:
        return super().forward(x)


class GoesBackToTraining(Plain):
    def forward(self, x: Tensor) -> Tensor:
        self.train()
        return super().forward(x)


class Drawn(Plain):
    """Dropout that stays on."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(super().forward(x), 0.5, training=True)


class Remembers(Plain):
    """Its state is kept in the module, not handed over."""

    def __init__(self) -> None:
        super().__init__()
        self.state: tuple[Tensor, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        steps, self.state = self.rnn(x, self.state)
        return self.out(steps[:, -1])


class Sorted(Plain):
    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:  # type: ignore[override]
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=True)
        return self.out(self.rnn(packed)[1][0][-1])


class CountedInPython(Plain):
    def forward(self, x: Tensor, *unused: Tensor) -> Tensor:
        y = super().forward(x)
        return y - y.sum(0) / len(x)


class RowByRow(Plain):
    def forward(self, x: Tensor, *unused: Tensor) -> Tensor:
        each = [self.out(self.rnn(row[None])[0][0, -1]) for row in x]
        return torch.stack([y - sum(each) / len(each) for y in each])


class StepByStep(nn.Module):
    """A loop of Python over the steps."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.out = nn.LSTMCell(8, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = c = x.new_zeros(x.shape[0], 16)
        for step in range(x.shape[1]):
            h, c = self.cell(x[:, step], (h, c))
        return self.out(h)


class NormedByTheBatch(Plain):
    """Batch norm that has kept no averages, which the exporter to ONNX refuses."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(16, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.norm(self.rnn(x)[0][:, -1]))


class Distances(Plain):
    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return torch.cdist(y, y)


class FourRows(Plain):
    """Its first state is for four rows, whoever asks."""

    def forward(self, x: Tensor) -> Tensor:
        state = torch.zeros(2, 4, 16)
        return self.out(self.rnn(x, (state, state))[0][:, -1])


class Unequal(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.LSTM(8, 16, batch_first=True), nn.LSTM(16, 12, batch_first=True)
        self.out = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.second(self.first(x)[0])[0][:, -1])


class Rectified(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.positive = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.positive(super().forward(x))


class BranchOnTheFirstRow(Plain):
    """Plain for three random batches of eight."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        if float(x[0].sum()) > 0:
            y = y * 2
        return y


def no_module() -> int:
    return 7


def broken() -> nn.Module:
    raise KeyError("hidden")
