"""One optimiser step in PyTorch: loss, gradient, clipping, AdamW (Loshchilov and Hutter 2019).

A network this small trains faster on one thread than on two; the threads spend more time waiting for each other than
computing.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from models import initial
from models.checkpoint import Weights
from models.config import LSTMConfig
from models.examples import Batch
from models.inputs import step_mask
from models.torch_lstm import TorchLSTM
from models.trainer import Plan


class TorchTrainer:
    """A `models.trainer.Trainer`; seeds PyTorch's global random numbers."""

    def __init__(self, config: LSTMConfig, scales: Weights, plan: Plan) -> None:
        torch.manual_seed(plan.seed)
        self.network = TorchLSTM(config)
        self.network.load_canonical({**initial.draw(config, plan.seed), **scales})
        self.network.train()
        self._clip_norm = plan.clip_norm
        self._optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=plan.learning_rate, weight_decay=plan.weight_decay
        )

    def step(self, batch: Batch) -> float:
        """See `models.trainer.Trainer.step`."""
        loss = self._loss(batch)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self._clip_norm)
        self._optimizer.step()
        return loss.item()

    def _loss(self, batch: Batch) -> torch.Tensor:
        network, config = self.network, self.network.config
        zeros = torch.zeros(len(batch.x), config.layers * config.directions, config.hidden)
        linear: torch.Tensor = network(torch.from_numpy(batch.x), torch.from_numpy(batch.lengths), zeros, zeros)[0]
        targets = torch.from_numpy(batch.targets)
        if config.head == "classification":
            return functional.cross_entropy(linear, targets)
        errors = linear - (targets - network.output_mean) / network.output_scale
        counted = ~targets.isnan()
        if config.head == "values_per_step":
            counted &= torch.from_numpy(step_mask(batch.lengths, batch.x.shape[1]))[:, :, None]
        return torch.mean(errors[counted] ** 2)
