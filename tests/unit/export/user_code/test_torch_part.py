"""What is asked of a user's PyTorch module, and what torch writes of it: scripted where that is possible, else traced."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from export.user_code.torch_part import OPSET, Network, Refused, digest, flat, load_weights
from tests.unit.export import user_networks

X = np.ones((2, 9, 8), np.float32)


class Nested(user_networks.Plain):
    def forward(self, x: Tensor) -> tuple[tuple[Tensor]]:  # type: ignore[override]
        return ((super().forward(x),),)


class StateOfItsOwn(user_networks.Plain):
    """A first state in whatever float is usual."""

    def forward(self, x: Tensor) -> Tensor:
        state = torch.zeros(2, x.shape[0], 16)
        return self.out(self.rnn(x, (state, state))[0][:, -1])


class InFloat32(user_networks.Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(torch.float32))


class TrainsWhileTraced(user_networks.Plain):
    def forward(self, x: Tensor) -> Tensor:
        if torch.jit.is_tracing():
            self.drop.train()
        return super().forward(x)


def network(module: nn.Module) -> Network:
    return Network(module, "theirs:build", None)


def written(form: str, module: nn.Module, name: str, path: Path) -> dict[str, Any]:
    """What the writer says, and what comes with it."""
    asked = network(module)
    header = {"path": str(path), "inputs": [name], "outputs": ["y"], "free": {name: [0, 1], "y": [0]}}
    return {**getattr(asked, f"write_{form}")(header, {name: X}), **asked.after()}


def test_arguments_go_by_name_and_results_come_flat() -> None:
    _, answers = network(Nested()).run({"inputs": ["x"]}, {"unused": np.zeros(1), "x": X})
    assert [(name, answer.shape) for name, answer in answers.items()] == [("0", (2, 3))]


@pytest.mark.parametrize(
    ("module", "name", "note"),
    [
        (user_networks.Plain, "x", ""),
        (user_networks.Plain, "audio", "forward takes x and the inputs are audio"),
        (Nested, "x", "forward returns tuples within tuples"),
        (user_networks.Normed, "x", ""),
        (user_networks.Normed, "audio", "forward takes x and the inputs are audio"),
    ],
    ids=["scripted", "another name", "nested", "normed", "normed, another name"],
)
def test_torchscript_is_scripted_where_it_can_be(module: type[nn.Module], name: str, note: str, tmp_path: Path) -> None:
    made = module()
    assert written("torchscript", made, name, tmp_path / "m.pt") == {"note": note, "training": ""}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that torch.jit is deprecated
        loaded = torch.jit.load(str(tmp_path / "m.pt"))  # type: ignore[no-untyped-call]
    x = torch.rand(2, 5, 8)
    torch.testing.assert_close(loaded(x), next(flat(made(x))))
    assert [argument.name for argument in loaded.forward.schema.arguments[1:]] == [name]


class Talks(user_networks.Plain):
    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] > 3:
            print("steps", x.shape[1])
        return self.out(self.rnn(x)[0][:, -1])


def test_a_file_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Though the module does; a server that ran it would print as often as it is asked."""
    assert written("torchscript", Talks(), "x", tmp_path / "m.pt")["note"] == ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = torch.jit.load(str(tmp_path / "m.pt"))  # type: ignore[no-untyped-call]
    capfd.readouterr()
    assert loaded(torch.ones(2, 9, 8)).shape == (2, 3)
    assert capfd.readouterr().out == ""


def test_onnx_has_the_names_of_the_signature_and_free_axes(tmp_path: Path) -> None:
    assert written("onnx", user_networks.Plain(), "audio", tmp_path / "m.onnx") == {"note": "", "training": ""}
    graph = onnx.load(tmp_path / "m.onnx")
    (entry,) = graph.graph.input
    assert (entry.name, graph.graph.output[0].name, graph.opset_import[0].version) == ("audio", "y", OPSET)
    assert [axis.dim_value for axis in entry.type.tensor_type.shape.dim] == [0, 0, 8]


def test_onnx_is_written_in_evaluation_mode(tmp_path: Path) -> None:
    """Torch puts the mode of what it is given into every part, and leaves no dropout out of a file in training mode."""
    written("onnx", user_networks.Normed(), "x", tmp_path / "m.onnx")
    nodes = {node.op_type: node for node in onnx.load(tmp_path / "m.onnx").graph.node}
    assert "Dropout" not in nodes
    assert all(
        attribute.i == 0 for attribute in nodes["BatchNormalization"].attribute if attribute.name == "training_mode"
    )


@pytest.mark.parametrize("form", ["onnx", "torchscript"])
def test_what_goes_back_to_training_while_it_is_written_is_told(form: str, tmp_path: Path) -> None:
    said = written(form, TrainsWhileTraced(), "audio", tmp_path / "m")
    assert said["training"] == "drop (Dropout)"


@pytest.mark.parametrize("module", [user_networks.Plain, StateOfItsOwn])
def test_in_float64_where_that_goes(module: type[nn.Module]) -> None:
    made = module()
    asked = network(made)
    x = np.random.default_rng(3).normal(size=(2, 9, 8)).astype(np.float32)
    header, answers = asked.run_float64({"inputs": ["x"]}, {"x": x})
    assert (header, answers["0"].dtype) == ({"able": True}, np.float64)
    usual = asked.run({"inputs": ["x"]}, {"x": x})[1]["0"]
    assert usual.dtype == np.float32  # the module itself stays as it was
    assert 0 < abs(answers["0"] - usual).max() < 1e-6


def test_in_float64_where_that_does_not_go() -> None:
    assert network(InFloat32()).run_float64({"inputs": ["x"]}, {"x": X}) == ({"able": False}, {})
    assert torch.get_default_dtype() == torch.float32


def test_nested_tuples_are_flattened_and_nothing_else() -> None:
    a, b, c = (torch.tensor(float(number)) for number in range(3))
    assert list(flat((a, [b, (c,)]))) == [a, b, c]
    assert list(flat(a)) == [a]
    for answer, message in (({"y": a}, "returns a dict; let it return a tensor"), ((a, None), "returns a NoneType")):
        with pytest.raises(Refused, match=message):
            list(flat(answer))


def test_weights_elsewhere_than_on_the_cpu_are_refused() -> None:
    with pytest.raises(Refused, match="weights are not on the CPU"):
        network(user_networks.Plain().to("meta"))


def test_what_a_module_is_made_of() -> None:
    described, weights = network(user_networks.Tagger()).parts({}, {})
    assert described["other"] == ""
    assert described["lstms"] == [
        {
            "input_size": 4,
            "hidden_size": 16,
            "num_layers": 1,
            "bidirectional": True,
            "proj_size": 0,
        }
    ]
    assert described["embedding"] == [{"num_embeddings": 11, "embedding_dim": 4}]
    assert weights["lstms.0.weight_ih_l0_reverse"].shape == (64, 4)
    assert network(user_networks.Rectified()).parts({}, {})[0]["other"] == "ReLU"


def test_the_digest_is_that_of_all_that_is_kept() -> None:
    module = user_networks.Normed()
    before = digest(module)
    assert digest(module) == before
    module.norm.num_batches_tracked += 1  # a tensor without axes
    assert digest(module) != before


def test_weights_beside_other_things_are_named(tmp_path: Path) -> None:
    """As training loops save them. What does not fit for another reason is told without that advice."""
    trained = user_networks.Plain().state_dict()
    torch.save({"epoch": 3, "model_state": trained}, tmp_path / "beside.pt")
    torch.save({f"module.{name}": tensor for name, tensor in trained.items()}, tmp_path / "wrapped.pt")
    save_file({"module.other": torch.ones(3)}, tmp_path / "other.safetensors")
    for name, said in (
        (
            "beside.pt",
            r"holds a state dict under 'model_state', beside other things: epoch, model_state; save that alone",
        ),
        ("wrapped.pt", r"does not fit the module: .*; every name begins with 'module\.', as a wrapper leaves it"),
        ("other.safetensors", r'does not fit the module: .* Unexpected key\(s\) in state_dict: "module\.other"\. ?$'),
    ):
        with pytest.raises(Refused, match=said) as refused:
            load_weights(user_networks.Plain(), tmp_path / name)
        assert "\n" not in str(refused.value)


def test_the_arguments_are_those_that_must_be_given() -> None:
    class WithAnOption(user_networks.Plain):
        def forward(self, features: Tensor, lengths: Tensor, scale: float = 1.0, *, loud: bool = False) -> Tensor:  # type: ignore[override]
            return features

    assert network(WithAnOption()).facts()["arguments"] == ["features", "lengths"]
