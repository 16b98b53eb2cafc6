"""A fault planted into any writer or reader makes the check of the matrix fail: so its passing means something.

A fault is one replaced piece of a module's text; the changed module is imported beside the true one and asked what the
matrix asks. A piece that the text no longer has, or has twice, fails its case. Whoever rewrites a writer or a reader
plants its faults anew.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import models
from export import formats, writers
from models import networks
from models.config import LSTMConfig
from tests.support import agreement, artefacts
from tests.support.agreement import Disagreement, Question

PER_STEP = LSTMConfig(
    features=3, layers=2, hidden=artefacts.HIDDEN, bidirectional=True, head="values_per_step", outputs=4
)
LAST_STEP = dataclasses.replace(PER_STEP, head="classification")
TOKENS = dataclasses.replace(artefacts.TOKENS, head="values")
# One layer of one direction, and inputs whose means are far from 0.
FAR = dataclasses.replace(PER_STEP, layers=1, bidirectional=False)
TAGS = dataclasses.replace(TOKENS, bidirectional=True, head="values_per_step")
CONFIGS = (PER_STEP, LAST_STEP, TOKENS, FAR, TAGS)

CLASSES = {"torch": "TorchLSTM", "keras": "KerasLSTM"}
FILES = {form: Path(writers.__path__[0]) / f"{form}_writer.py" for form in formats.names()}
FILES |= {framework: Path(models.__path__[0]) / f"{framework}_lstm.py" for framework in networks.FRAMEWORKS}

# For each component: what is wrong with it, the piece of its text that is right, and what stands there instead.
# Arrays of LSTM weights have four gates of 5 units; the state has 2 layers x 2 directions.
FAULTS: dict[str, dict[str, tuple[str, str]]] = {
    "onnx": {
        "gates-swapped": ("_GATES = (0, 3, 1, 2)", "_GATES = (0, 1, 3, 2)"),
        "gates-left-in-our-order": ("_GATES = (0, 3, 1, 2)", "_GATES = (0, 1, 2, 3)"),
        "bias-dropped": ("np.concatenate([b_input, b_hidden])", "np.concatenate([b_input, 0 * b_hidden])"),
        "bias-of-head-dropped": ("bias * scale + mean", "mean"),
        "state-swapped-in": ("h0, c0 = _states_in(", "c0, h0 = _states_in("),
        "state-swapped-out": ("_states_out(graph, hn, cn)", "_states_out(graph, cn, hn)"),
        "state-reshaped-not-transposed": (
            'graph.add("Transpose", [both], "states_by_layer", perm=(1, 0, 2))',
            'graph.add("Reshape", [both, graph.integers(8, -1, 5)], "states_by_layer")',
        ),
        "layers-of-state-reversed": ("return h0s, c0s", "return h0s[::-1], c0s[::-1]"),
        "state-of-one-layer-swapped-in": ("return [h0], [c0]", "return [c0], [h0]"),
        "state-of-one-layer-swapped-out": ('((*hns, "hn"), (*cns, "cn"))', '((*cns, "hn"), (*hns, "cn"))'),
        "steps-not-masked": ("lengths, h0[layer]", '"", h0[layer]'),
        "padding-of-y-not-masked": (
            "np.zeros_like(bias)",
            "bias",
        ),
        "last-step-of-y-masked": (
            '["lengths", steps',
            '[graph.add("Sub", ["lengths", graph.integers(1)], "shorter"), steps',
        ),
        "first-step-behind-not-masked": ('"behind")', '"behind", exclusive=1)'),
        "bias-by-one-dropped": ("column_stack([unused, bias])", "column_stack([unused, 0 * bias])"),
        "one-not-masked": (
            'array) for kind, array in parameters.items()), "lengths_int32"]',
            "array) for kind, array in parameters.items())]",
        ),
        "one-beside-the-wrong-h": ("for part in both]", "for part in reversed(both)]"),
        "directions-swapped": (
            "for direction in directions:",
            "for direction in reversed(directions):",
        ),
        "head-reads-the-first-layer": ('f"layer{config.layers - 1}_hn"', '"layer0_hn"'),
        "scale-of-input-dropped": (' / weights["input.scale"]', ""),
        "mean-of-input-dropped": ('w @ weights["input.mean"]', '0 * w @ weights["input.mean"]'),
        "mean-of-input-dropped-when-far-from-0": (
            '"input.mean", weights["input.mean"]',
            '"input.mean", 0 * weights["input.mean"]',
        ),
        "mean-far-from-0-taken-off-after-the-product": ("_NEAR_ZERO = 4.0", "_NEAR_ZERO = np.inf"),
        "last-states-reshaped-not-transposed": (
            'graph.add("Transpose", [last], "head_x_by_direction", perm=(1, 0, 2))',
            'graph.add("Reshape", [last, graph.integers(-1, 2, 5)], "head_x_by_direction")',
        ),
        "scale-of-output-dropped": ("weight * scale[:, None]", "weight"),
        "ids-one-off": (
            'graph.constant("embedding", weights["embedding"])',
            'graph.constant("embedding", np.roll(weights["embedding"], 1, 0))',
        ),
    },
    "torchscript": {
        "gates-swapped": (
            "Stored(weights[name], None)",
            "Stored(np.roll(weights[name], 5 * name.startswith('lstm.'), 0), None)",
        ),
        "bias-dropped": ("Stored(weights[name], None)", "Stored(weights[name] * ('bias_hidden' not in name), None)"),
        "bias-of-head-dropped": ("matrices[0], self.head_bias", "matrices[0], 0 * self.head_bias"),
        "state-swapped-in": ("features, state, lstm", "features, [state[1], state[0]], lstm"),
        "state-swapped-in-when-padded": ("packed, sizes, state, lstm", "packed, sizes, [state[1], state[0]], lstm"),
        "state-not-ordered-as-the-rows": ("state[0].index_select(1, order)", "state[0]"),
        "rows-left-in-order-of-length": ("back = order.argsort()", "back = order"),
        "state-swapped-out": ("return y, hn, cn", "return y, cn, hn"),
        "state-reshaped-not-transposed": (
            "h0.transpose(0, 1).contiguous()",
            "h0.reshape(h0.size(1), h0.size(0), h0.size(2))",
        ),
        "layers-of-state-reversed": ("c0.transpose(0, 1).contiguous()", "c0.transpose(0, 1).flip(0).contiguous()"),
        "steps-not-masked": ("(lengths == steps).all()", "(lengths <= steps).all()"),
        "padding-of-y-not-masked": ("behind.unsqueeze(2), 0.0", "behind.unsqueeze(2), 0.5"),
        "last-step-of-y-masked": (">= lengths.unsqueeze(1)", ">= lengths.unsqueeze(1) - 1"),
        "directions-swapped": (
            "in expected_shapes(config) if",
            "in sorted(expected_shapes(config), key=lambda name: (name[:6], 'forward' in name)) if",
        ),
        "head-reads-the-first-layer": ("hn[:, -self.directions :]", "hn[:, : self.directions]"),
        "scale-of-input-dropped": (" / self.input_scale", ""),
        "mean-of-input-dropped": ("(x - self.input_mean)", "x"),
        "scale-of-output-dropped": ("y * self.output_scale", "y"),
        "ids-one-off": ("x.clamp(0, self.last_id)", "(x + 1).clamp(0, self.last_id)"),
    },
    "savedmodel": {
        "gates-swapped": ("np.ascontiguousarray(both.T)", "np.ascontiguousarray(np.roll(both, 5, 0).T)"),
        "bias-dropped": (' + weights[f"{prefix}.bias_hidden"]', ""),
        "bias-of-head-dropped": (' + weights["head.bias"]', ""),
        "state-swapped-in": ("cs_prev=c0,\n            h_prev=h0,", "cs_prev=h0,\n            h_prev=c0,"),
        "state-swapped-out": ('"hn": tf.stack(hn, axis=1)', '"hn": tf.stack(cn, axis=1)'),
        "state-reshaped-not-transposed": ("tf.unstack(h0, axis=1)", "tf.unstack(tf.reshape(h0, [4, -1, 5]))"),
        "layers-of-state-reversed": ("h0s[index]", "h0s[-1 - index]"),
        "steps-not-masked": ("tf.gather_nd(h, last)", "h[-1]"),
        "padding-of-y-not-masked": ("tf.where(within, values, 0.0)", "values"),
        "last-step-of-y-masked": ("< tf.reshape(lengths", "< tf.reshape(lengths - 1"),
        "backward-not-reversed": ("source if direction == 0 else _reverse(source, lengths)", "source"),
        "backward-left-backwards": ("h if direction == 0 else _reverse(h, lengths)", "h"),
        "padding-reversed-too": (
            "tf.reverse_sequence(steps, lengths, seq_axis=0, batch_axis=1)",
            "tf.reverse(steps, [0])",
        ),
        "head-reads-the-first-layer": ("hn[-2:]", "hn[:2]"),
        "scale-of-input-dropped": (' / weights["input.scale"]', ""),
        "mean-of-input-dropped": ('(x - weights["input.mean"])', "x"),
        "scale-of-output-dropped": (' * weights["output.scale"]', ""),
        "ids-one-off": ("tf.clip_by_value(x, 0", "tf.clip_by_value(x + 1, 0"),
    },
    "torch": {
        "gates-swapped-in-reading": ("tensor.detach()", 'tensor.roll(5 * ("lstm" in name), 0).detach()'),
        "gates-swapped-in-loading": (
            "torch.tensor(weights[name])",
            'torch.tensor(weights[name]).roll(5 * ("lstm" in name), 0)',
        ),
        "bias-dropped-in-reading": ("tensor.detach()", '(tensor * (not name.endswith("bias_hidden"))).detach()'),
        "bias-dropped-in-loading": (
            "torch.tensor(weights[name])",
            'torch.tensor(weights[name]) * (not name.endswith("bias_hidden"))',
        ),
        "state-swapped-in": ("self.lstm(packed, state)", "self.lstm(packed, (state[1], state[0]))"),
        "state-swapped-out": ("for part in state)", "for part in reversed(state))"),
        "state-reshaped-not-transposed": ("h0.transpose(0, 1).contiguous()", "h0.reshape(4, -1, 5)"),
        "layers-of-state-reversed": ("h0.transpose(0, 1).contiguous()", "h0.transpose(0, 1).flip(0).contiguous()"),
        "steps-not-masked": ("lengths.cpu()", "torch.full_like(lengths, steps)"),
        "padding-of-y-not-masked": ("y = y.masked_fill(padding[:, :, None], 0.0)", "pass"),
        "last-step-of-y-masked": (
            "padding = torch.arange(x.shape[1], device=x.device) >=",
            "padding = 1 + torch.arange(x.shape[1]) >=",
        ),
        "directions-swapped": ('("", "_reverse")', '("_reverse", "")'),
        "head-reads-the-first-layer": ("hn[:, -self.config.directions :]", "hn[:, : self.config.directions]"),
        "scale-of-input-dropped": (" / self.input_scale", ""),
        "mean-of-input-dropped": ("(x - self.input_mean)", "x"),
        "scale-of-output-dropped": ("linear * self.output_scale", "linear"),
    },
    "keras": {
        "gates-swapped-in-reading": (
            "_transposed(cell.cell.kernel.numpy())",
            "_transposed(np.roll(cell.cell.kernel.numpy(), 5, 1))",
        ),
        "gates-swapped-in-loading": (
            'assign(weights[f"{prefix}.weight_input"].T)',
            'assign(np.roll(weights[f"{prefix}.weight_input"], 5, 0).T)',
        ),
        "bias-dropped-in-reading": ("= cell.cell.bias.numpy().copy()", "= 0 * cell.cell.bias.numpy()"),
        "bias-dropped-in-loading": (' + weights[f"{prefix}.bias_hidden"]', ""),
        "state-swapped-in": ("[h0[:, index], c0[:, index]]", "[c0[:, index], h0[:, index]]"),
        "state-swapped-out": ("sequence, h, c = ", "sequence, c, h = "),
        "state-reshaped-not-transposed": ("[h0[:, index],", "[tf.reshape(h0, [4, -1, 5])[index],"),
        "layers-of-state-reversed": ("[h0[:, index],", "[h0[:, -1 - index],"),
        "steps-not-masked": ("mask=mask)", "mask=None)"),
        "padding-of-y-not-masked": (
            "y = tf.where(tf.sequence_mask(lengths, tf.shape(x)[1])[:, :, None], y, 0.0)",
            "pass",
        ),
        "last-step-of-y-masked": ("tf.where(tf.sequence_mask(lengths,", "tf.where(tf.sequence_mask(lengths - 1,"),
        "backward-not-reversed": ('go_backwards=direction == "backward"', "go_backwards=False"),
        "backward-left-backwards": ("tf.reverse(sequence, axis=[1]) if direction else sequence", "sequence"),
        "head-reads-the-first-layer": ("hn[-self.config.directions :]", "hn[: self.config.directions]"),
        "scale-of-input-dropped": (" / self.input_scale", ""),
        "mean-of-input-dropped": ("(x - self.input_mean)", "x"),
        "scale-of-output-dropped": ("linear * self.output_scale", "linear"),
    },
}


@pytest.mark.parametrize(
    ("component", "fault"),
    [
        pytest.param(component, fault, id=f"{component}-{fault}")
        for component, faults in FAULTS.items()
        for fault in faults
    ],
)
def test_a_fault_is_found(component: str, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = changed(component, FAULTS[component][fault], tmp_path, monkeypatch)
    with pytest.raises(Disagreement, match=agreement.EQUATIONS):
        check(component, module, CONFIGS, tmp_path)


@pytest.mark.parametrize("component", FILES)
def test_without_a_fault_nothing_is_found(component: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(component, changed(component, ("", ""), tmp_path, monkeypatch), CONFIGS, tmp_path)


def test_every_writer_and_every_reader_has_its_faults() -> None:
    assert FAULTS.keys() == FILES.keys()


def changed(component: str, fault: tuple[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The component's module with one piece replaced, none if it is empty."""
    right, wrong = fault
    text = FILES[component].read_text()
    assert not right or text.count(right) == 1, (
        f"{FILES[component].name} has {right!r} {text.count(right)} times, not once"
    )
    path = folder / f"changed_{FILES[component].name}"
    path.write_text(text.replace(right, wrong) if right else text)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, path.stem, module)  # where torch.jit looks for a class's text
    spec.loader.exec_module(module)
    return module


def check(component: str, module: Any, configs: Sequence[LSTMConfig], folder: Path) -> None:
    """What the matrix does with a writer, or with a reader."""
    for config in configs:
        if component in CLASSES:
            agreement.check_reader(component, getattr(module, CLASSES[component])(config))
        else:
            agreement.check_file(component, module, asked(config), folder)


@functools.cache
def asked(config: LSTMConfig) -> Question:
    weights = artefacts.weights(config)
    return agreement.question(config, artefacts.far_from_zero(weights) if config is FAR else weights)
