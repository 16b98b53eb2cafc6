"""The reference LSTM of all our measurements: two layers of 64, 8 features, `y` of one value, default initialisation.

Requests are one row of 24 steps. Published figures of other servers are of the same network.
"""

from __future__ import annotations

from pathlib import Path

from models.config import LSTMConfig

NAME = "reference"
STEPS = 24
CONFIG = LSTMConfig(features=8, layers=2, hidden=64, head="values", outputs=1)


def export(
    repository: Path,
    formats: tuple[str, ...] = ("onnx", "torchscript", "savedmodel"),
    config: LSTMConfig = CONFIG,
    name: str = NAME,
) -> None:
    """Writes version 1 of the reference network, or of one with another `config`, into a repository, proven like every export."""
    import torch

    from export.publish import publish
    from models import networks
    from models.checkpoint import Checkpoint

    networks.silence_tensorflow()
    torch.manual_seed(0)
    network = networks.build("torch", config)
    checkpoint = Checkpoint(config=config, weights=network.canonical_weights(), framework="torch", training={"seed": 0})
    publish(checkpoint, chosen=formats, repository=repository, name=name)
