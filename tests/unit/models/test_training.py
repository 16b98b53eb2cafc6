"""Both frameworks learn every head on small made-up problems, the same way each time, and keep their best epoch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from models import networks
from models import training as training_module
from models.config import LSTMConfig
from models.examples import Batch, Examples, in_order, scaling, split
from models.networks import FRAMEWORKS
from models.scoring import evaluate
from models.trainer import Plan, TrainingError
from models.training import Epoch, Trained, start, train
from tests.support.uncompiled import uncompiled

HIDDEN = 12


def which_feature_is_larger() -> tuple[LSTMConfig, Examples]:
    """Class 1 where the second feature is larger on average; raw units far from 0."""
    rng = np.random.default_rng(3)
    sequences = [rng.normal(50, 10, (steps, 2)).astype(np.float32) for steps in rng.integers(3, 9, 160)]
    classes = np.array([int(s[:, 1].mean() > s[:, 0].mean()) for s in sequences], np.int64)
    return LSTMConfig(features=2, outputs=2, hidden=HIDDEN), Examples(sequences, classes)


def which_token_comes_last() -> tuple[LSTMConfig, Examples]:
    rng = np.random.default_rng(3)
    sequences = [rng.integers(0, 4, steps) for steps in rng.integers(2, 7, 160)]
    config = LSTMConfig(input="tokens", vocabulary=4, embedding=4, outputs=4, hidden=HIDDEN)
    return config, Examples(sequences, np.array([s[-1] for s in sequences], np.int64))


def mean_of_all_steps() -> tuple[LSTMConfig, Examples]:
    """One value, the mean of the first feature, in units of its own (1000 and more)."""
    rng = np.random.default_rng(3)
    sequences = [rng.normal(0, 1, (steps, 1)).astype(np.float32) for steps in rng.integers(2, 7, 200)]
    targets = np.array([[1000 + 100 * s.mean()] for s in sequences], np.float32)
    return LSTMConfig(features=1, head="values", hidden=HIDDEN), Examples(sequences, targets)


def running_sum() -> tuple[LSTMConfig, Examples]:
    """Two values after every step: the sum so far and the step itself."""
    rng = np.random.default_rng(3)
    sequences = [rng.normal(0, 1, (steps, 1)).astype(np.float32) for steps in rng.integers(2, 9, 200)]
    targets = [np.concatenate([s.cumsum(axis=0), s], axis=1) * 10 + 5 for s in sequences]
    return LSTMConfig(features=1, head="values_per_step", outputs=2, hidden=HIDDEN), Examples(sequences, targets)


PROBLEMS = [which_feature_is_larger, which_token_comes_last, mean_of_all_steps, running_sum]
QUICK = Plan(epochs=40, patience=40, learning_rate=0.02, weight_decay=0.0)


@pytest.fixture
def at_once(framework: str) -> Iterator[None]:
    """For a step or two, which are not worth compiling; `test_every_head_learns` has compiled ones."""
    with uncompiled(framework):
        yield


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_every_head_learns(framework: str, problem: Callable[[], tuple[LSTMConfig, Examples]]) -> None:
    config, examples = problem()
    trained = train(framework, config, examples, QUICK)
    if config.head == "classification":
        assert trained.best.score >= 0.9
    else:
        assert trained.best.validation_loss < 0.1  # 1 is what the mean of the training targets reaches
    assert trained.history[0].training_loss > 2 * trained.best.training_loss


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_seed_decides_everything(framework: str) -> None:
    config, examples = which_feature_is_larger()
    config = LSTMConfig.from_mapping({**vars(config), "layers": 2, "dropout": 0.3})

    def run(seed: int) -> Trained:
        plan = Plan(epochs=3, averaging=0.5, noise=0.3, seed=seed)
        return train(framework, config, examples, plan)

    first, again, other = run(5), run(5), run(6)
    assert first.history == again.history
    for name, array in first.weights.items():
        np.testing.assert_array_equal(again.weights[name], array)
    assert first.history != other.history


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_best_epoch_is_kept(framework: str) -> None:
    """A learning rate far too high makes the loss jump about; what is returned scores what its epoch scored."""
    config, examples = which_feature_is_larger()
    plan = Plan(epochs=30, patience=4, learning_rate=0.3, weight_decay=0.0, seed=1)
    seen: list[Epoch] = []
    trained = train(framework, config, examples, plan, seen.append)
    assert tuple(seen) == trained.history
    assert trained.best == min(trained.history, key=lambda epoch: epoch.validation_loss)
    assert len(trained.history) == min(plan.epochs, trained.best.number + plan.patience)
    assert trained.best.number < len(trained.history)

    rng = np.random.default_rng(plan.seed)
    _, validation = split(examples, plan.validation, rng)
    network = networks.build(framework, config)
    network.load_canonical(trained.weights)
    assert evaluate(network, validation) == (trained.best.validation_loss, trained.best.score)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_first_loss_is_that_of_the_canonical_answer(framework: str) -> None:
    """The loss that is trained on and the loss that is reported are one: without dropout they agree on one batch."""
    for problem in PROBLEMS:
        config, examples = problem()
        trainer = start(framework, config, scaling(config, examples), QUICK)
        reported, _ = evaluate(trainer.network, examples)
        (batch,) = in_order(examples, len(examples))
        assert trainer.step(batch) == pytest.approx(reported, rel=1e-4)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_steps_without_a_target_change_nothing(framework: str) -> None:
    """The loss over steps that have a target is the same whatever the network says at the others."""
    config, examples = running_sum()
    first = Examples([s[:1] for s in examples.sequences], [np.asarray(t[:1]) for t in examples.targets])
    masked = Examples(
        examples.sequences, [np.where(np.arange(len(t))[:, None] == 0, t, np.nan) for t in examples.targets]
    )
    losses = []
    for cases in (first, masked):
        trainer = start(framework, config, scaling(config, first), QUICK)
        (batch,) = in_order(cases, len(cases))
        before = trainer.network.canonical_weights()
        losses += [evaluate(trainer.network, cases)[0], trainer.step(batch)]
        after = trainer.network.canonical_weights()
        assert all(np.isfinite(array).all() for array in after.values())
        assert not np.array_equal(before["head.weight"], after["head.weight"])
    np.testing.assert_allclose(losses, losses[0], rtol=1e-4)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_validation_part_of_its_own_is_not_trained_on(framework: str) -> None:
    config, examples = running_sum()
    validation = Examples(examples.sequences, [np.asarray(t) + 500 for t in examples.targets])
    trained = train(framework, config, examples, dataclasses.replace(QUICK, epochs=2), validation=validation)
    np.testing.assert_allclose(trained.weights["output.mean"], 5, atol=5)
    assert trained.best.score == pytest.approx(-500, abs=10)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_refit_is_as_long_as_the_best_epoch_says(framework: str) -> None:
    """Refitted on the same cases, the network becomes what a plan of that many epochs makes of them."""
    config, examples = running_sum()
    plan = dataclasses.replace(QUICK, epochs=6, patience=2, learning_rate=0.3)
    first = train(framework, config, examples, plan, validation=examples)
    again = train(framework, config, examples, plan, validation=examples, refit=examples)
    assert (again.best, again.history) == (first.best, first.history)
    for name, array in first.weights.items():
        np.testing.assert_array_equal(again.weights[name], array)
    fewer = examples.select(np.arange(100))
    other = train(framework, config, examples, plan, validation=examples, refit=fewer)
    np.testing.assert_array_equal(other.weights["output.mean"], scaling(config, fewer)["output.mean"])


def test_both_frameworks_start_from_the_same_weights() -> None:
    for problem in PROBLEMS:
        config, examples = problem()
        config = dataclasses.replace(config, layers=2, bidirectional=config.head != "values_per_step")
        scales = scaling(config, examples)
        first, second = (evaluate(start(name, config, scales, QUICK).network, examples) for name in FRAMEWORKS)
        np.testing.assert_allclose(first, second, rtol=1e-4)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_gradients_are_clipped(framework: str) -> None:
    """Adam divides by the gradient's own size; only a gradient far below its epsilon shows that it was clipped."""
    config, examples = mean_of_all_steps()
    (batch,) = in_order(examples, len(examples))
    moved = {}
    for clip_norm in (1.0, 1e-12):
        plan = dataclasses.replace(QUICK, clip_norm=clip_norm)
        trainer = start(framework, config, scaling(config, examples), plan)
        before = trainer.network.canonical_weights()["head.weight"]
        trainer.step(batch)
        moved[clip_norm] = np.abs(trainer.network.canonical_weights()["head.weight"] - before).max()
    assert moved[1.0] > 0.5 * QUICK.learning_rate
    assert moved[1e-12] < 0.01 * QUICK.learning_rate


def test_a_diverged_training_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Diverging:
        network = networks.build("torch", mean_of_all_steps()[0])

        def step(self, batch: Batch) -> float:
            return float("nan")

    monkeypatch.setattr(training_module, "start", lambda *_: Diverging())
    with pytest.raises(TrainingError, match="the loss of epoch 1 is nan; try a lower learning rate"):
        train("torch", *mean_of_all_steps(), QUICK)


def test_noise_on_tokens_is_refused() -> None:
    with pytest.raises(TrainingError, match=r"noise is 0\.1, but tokens"):
        train("torch", *which_token_comes_last(), Plan(noise=0.1))


def test_another_framework_is_refused() -> None:
    config, examples = which_feature_is_larger()
    with pytest.raises(ValueError, match="framework is 'jax'"):
        train("jax", config, examples, QUICK)
