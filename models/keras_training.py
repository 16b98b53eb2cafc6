"""One optimiser step in Keras: loss, gradient, clipping, AdamW (Loshchilov and Hutter 2019).

An explicit step compiled by `tf.function` with open shapes is traced once for all lengths, where `Model.fit` would
trace again for every new one.
"""

from __future__ import annotations

import functools
from typing import Any

import keras
import tensorflow as tf

from models import initial
from models.checkpoint import Weights
from models.config import LSTMConfig
from models.examples import Batch
from models.keras_lstm import KerasLSTM
from models.trainer import Plan


class KerasTrainer:
    """A `models.trainer.Trainer`; seeds the global random numbers of Python, numpy and TensorFlow."""

    def __init__(self, config: LSTMConfig, scales: Weights, plan: Plan) -> None:
        keras.utils.set_random_seed(plan.seed)
        self.network = KerasLSTM(config)
        self.network.load_canonical({**initial.draw(config, plan.seed), **scales})
        self._optimizer = keras.optimizers.AdamW(
            plan.learning_rate, weight_decay=plan.weight_decay, global_clipnorm=plan.clip_norm
        )
        self._optimizer.build(self.network.trainable_variables)
        features, classes = config.input == "features", config.head == "classification"
        target_shape = {"classification": (), "values": (config.outputs,), "values_per_step": (None, config.outputs)}
        self._compiled = tf.function(
            functools.partial(self._step),
            input_signature=[
                tf.TensorSpec((None, None, config.features) if features else (None, None), _dtype(not features)),
                tf.TensorSpec((None,), tf.int64),
                tf.TensorSpec((None, *target_shape[config.head]), _dtype(classes)),
            ],
        )

    def step(self, batch: Batch) -> float:
        """See `models.trainer.Trainer.step`."""
        return float(self._compiled(batch.x, batch.lengths, batch.targets))

    def _step(self, x: Any, lengths: Any, targets: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = self._loss(x, lengths, targets)
        variables = self.network.trainable_variables
        self._optimizer.apply(tape.gradient(loss, variables), variables)
        return loss

    def _loss(self, x: Any, lengths: Any, targets: Any) -> Any:
        network, config = self.network, self.network.config
        zeros = tf.zeros((tf.shape(x)[0], config.layers * config.directions, config.hidden))
        linear, _, _ = network(x, lengths, zeros, zeros, training=True)
        if config.head == "classification":
            return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=targets, logits=linear))
        errors = linear - (targets - network.output_mean) / network.output_scale
        counted = ~tf.math.is_nan(targets)
        if config.head == "values_per_step":
            counted &= tf.sequence_mask(lengths, tf.shape(x)[1])[:, :, None]
        return tf.reduce_mean(tf.square(tf.boolean_mask(errors, counted)))


def _dtype(whole_numbers: bool) -> Any:
    return tf.int64 if whole_numbers else tf.float32
