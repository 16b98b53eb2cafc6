"""Training that is the same arithmetic in PyTorch and in Keras, so that what remains different is rounding.

Equal weights, batches and rates are not enough. PyTorch's LSTM has two biases where Keras has one, so their sum moves
twice as far a step; and Keras adds AdamW's epsilon before the correction of the bias of the moments, PyTorch after it.
Here PyTorch learns one bias, and epsilon is too small to matter where it stands.
"""

from __future__ import annotations

from typing import Any

from models import training
from models.checkpoint import Weights
from models.config import LSTMConfig
from models.trainer import Plan, Trainer

EPSILON = 1e-12


def start(framework: str, config: LSTMConfig, scales: Weights, plan: Plan) -> Trainer:
    """A trainer as `models.training.start` makes it, without the two differences. Dropout must be 0."""
    assert config.dropout == 0, "each framework drops by random numbers of its own"
    trainer: Any = training.start(framework, config, scales, plan)
    if framework == "torch":
        _learn_one_bias(trainer.network.lstm)
        trainer._optimizer.param_groups[0]["eps"] = EPSILON
    else:
        trainer._optimizer.epsilon = EPSILON
    return trainer


def _learn_one_bias(lstm: Any) -> None:
    """Adds the second bias to the first one, and leaves it 0 for good."""
    import torch

    with torch.no_grad():
        for name, second in lstm.named_parameters():
            if name.startswith("bias_hh"):
                getattr(lstm, name.replace("_hh", "_ih")).add_(second)
                second.zero_().requires_grad_(False)
