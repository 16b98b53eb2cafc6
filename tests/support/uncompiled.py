"""Keras without compiling: where a step is taken once or twice, compiling it takes longer than all the rest of a test."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def uncompiled(framework: str) -> Iterator[None]:
    """Lets TensorFlow run what it is given at once instead of compiling it; PyTorch does so anyway."""
    if framework != "keras":
        yield
        return
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(False)
