"""`lstm-export module`: what is recognised, what keeps its own signature, and what is said of what cannot be exported."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from export.__main__ import main
from serving import backends
from serving.backends.base import Options
from serving.backends.rows_first import laid_out
from serving.signature.spec import ModelSpec
from serving.verification import golden
from tests.support.in_this_process import in_this_process
from tests.unit.export import user_networks

__all__ = ["in_this_process"]

pytestmark = pytest.mark.usefixtures("in_this_process")
NETWORKS = "tests.unit.export.user_networks"
X = "x:FP32[-1,-1,8]"
STATE = ("--input", "h:FP32[1,-1,16]", "--input", "c:FP32[1,-1,16]")


def export(network: str, *flags: str, repository: Path, form: str = "all", x: str = X) -> int:
    return main(
        ["module", f"{NETWORKS}:{network}", "--input", x, *flags, "--format", form,
         "--repository", str(repository), "--name", "m"]
    )  # fmt: skip


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(3)
    path = tmp_path / "plain.safetensors"
    save_file(user_networks.Plain().state_dict(), path)
    return path


@pytest.mark.parametrize(
    ("network", "x", "told", "streamable"),
    [
        ("Plain", X, "LSTM of 2 x 16 in one direction, values:", True),
        ("Classifier", X, "classification:", True),
        ("Tagger", "x:INT64[-1,-1]", "in both directions, values per step:", False),
        ("TimeFirst", X, "LSTM of 2 x 16 in one direction, values per step:", True),
    ],
)
def test_a_plain_stack_gets_the_canonical_signature_and_every_format(
    network: str, x: str, told: str, streamable: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(network, repository=tmp_path, x=x) == 0
    assert told in capsys.readouterr().out
    folder = tmp_path / "m" / "1"
    spec = ModelSpec.read(folder / "spec.json")
    assert [tensor.name for tensor in spec.inputs] == ["x", "lengths", "h0", "c0"]
    assert spec.streamable is streamable
    assert spec.source["module"] == f"{NETWORKS}:{network}"
    for name in backends.PREFERENCE:
        assert (folder / backends.module(name).FILE_NAME).exists()


def test_a_network_that_is_to_keep_its_state(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export("Plain", "--stateful", repository=tmp_path) == 0
    config = tmp_path / "m" / "config.pbtxt"
    assert f"stateful by {config}: sequence_batching {{}}" in capsys.readouterr().out.splitlines()
    assert config.read_text() == "sequence_batching {}\n"
    assert export("Tagger", "--stateful", repository=tmp_path / "other", x="x:INT64[-1,-1]") == 2
    assert "the model cannot be stateful: it reads its steps in both directions" in capsys.readouterr().err
    assert not (tmp_path / "other" / "m").exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_the_weights_are_those_of_the_file(weights: Path, suffix: str, tmp_path: Path) -> None:
    if suffix == ".pt":
        network = user_networks.Plain()
        torch.manual_seed(3)
        network = user_networks.Plain()
        weights = tmp_path / "plain.pt"
        torch.save(network.state_dict(), weights)
    assert export("Plain", "--weights", str(weights), repository=tmp_path / "r", form="onnx") == 0
    torch.manual_seed(3)
    trained = user_networks.Plain().eval()
    x = np.random.default_rng(0).normal(size=(2, 9, 8)).astype(np.float32)
    folder = tmp_path / "r" / "m" / "1"
    backend = backends.module("onnx_runtime").load(
        folder / "model.onnx", ModelSpec.read(folder / "spec.json"), "cpu", Options()
    )
    state = np.zeros((2, 2, 16), np.float32)
    got = backend.run({"x": x, "lengths": np.array([9, 9]), "h0": state, "c0": state}, ["y"])["y"]
    with torch.inference_mode():
        np.testing.assert_allclose(got, trained(torch.tensor(x)).numpy(), rtol=0, atol=1e-6)


def test_anything_else_keeps_its_own_signature(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ("--output", "y", "--output", "hn", "--output", "cn")
    assert export("Attention", *STATE, *names, repository=tmp_path) == 0
    said = capsys.readouterr().out
    assert "a module of its own" in said
    assert "savedmodel is not written: of this framework it can be had for plain stacks of LSTM and linear" in said
    folder = tmp_path / "m" / "1"
    spec = ModelSpec.read(folder / "spec.json")
    assert {t.name: (t.shape, t.rows_axis) for t in (*spec.inputs, *spec.outputs)} == {
        "x": ((-1, -1, 8), 0),
        "h": ((-1, 1, 16), 1),
        "c": ((-1, 1, 16), 1),
        "y": ((-1, 3), 0),
        "hn": ((-1, 1, 16), 1),
        "cn": ((-1, 1, 16), 1),
    }
    assert {pair.input: pair.output for pair in spec.state} == {"h": "hn", "c": "cn"}
    samples = golden.read_samples(folder / "golden.npz")
    assert {len(sample.inputs["x"]) for sample in samples} == {1, 2, 3}
    assert len({sample.inputs["x"].shape[1] for sample in samples}) == 3
    for name in ("onnx_runtime", "torchscript"):
        module = backends.module(name)
        backend = laid_out(module.load(folder / module.FILE_NAME, spec, "cpu", Options()), spec)
        for sample in samples:
            golden.check_agreement(name, backend.run(sample.inputs, list(sample.outputs)), sample.outputs, 1e-5)
        backend.close()


def test_why_a_module_is_not_plain_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And that it keeps a signature of its own therefore; every reason is in `test_plain_torch`."""
    assert export("Looks", repository=tmp_path, form="torchscript") == 0
    told = capsys.readouterr().out.splitlines()[0]
    assert told.startswith(
        "a module of its own: its own signature, since it computes something else than a plain stack"
    )


def test_a_size_that_was_stated_is_enough(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export("FourRows", "--shape", "x:4,-1,8", repository=tmp_path) == 0
    assert "since --output or a hint was given; one row at a time" in capsys.readouterr().out


def test_a_branch_on_a_sum_is_not_taken_for_a_plain_stack(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export("BranchOnTheFirstRow", repository=tmp_path, form="torchscript") == 2
    assert "has been baked in" in capsys.readouterr().err


def test_a_scripted_branch_is_kept(tmp_path: Path) -> None:
    assert export("Branch", repository=tmp_path, form="torchscript", x="x:FP32[1,-1,8]") == 0


@pytest.mark.parametrize(
    ("network", "flags", "form", "said"),
    [
        (
            "FrozenTime",
            (),
            "onnx",
            "with x [3, 5, 8]: it agrees with x [2, 9, 8], whatever the values, so that the sizes decide",
        ),
        ("Branch", ("--rows", "x=none"), "onnx", "has been baked in; put it into tensor operations"),
        ("LongOtherwise", (), "onnx", "so that the sizes decide: one has been baked in; a size was a number of Python"),
        ("Looks", (), "savedmodel", "plain stacks of LSTM and linear layers only"),
        ("Sampled", (), "onnx", "the module returns a dict; let it return a tensor or a tuple"),
        ("Attention", (*STATE, "--output", "y"), "onnx", "the network returns 3 tensors, but 1 are named: y"),
        ("no_module", (), "onnx", "gives a int; it must return a torch.nn.Module"),
        (
            "broken",
            (),
            "onnx",
            "fails when it is called without arguments: KeyError: 'hidden' (tests/unit/export/user_",
        ),
        ("nobody", (), "onnx", "has no attribute 'nobody'"),
        ("Plain", ("--weights", "nowhere.pt"), "onnx", "nowhere.pt cannot be read as weights"),
        ("Plain", ("--version", "0"), "onnx", "versions are counted from 1"),
        (
            "Plain",
            ("--input", "extra:FP32[-1,2]"),
            "onnx",
            "the network does not run on what --input says",
        ),
        ("NormedInTraining", (), "torchscript", "answers in training mode: norm (BatchNorm1d) stays in it"),
        ("NormedInTraining", (), "savedmodel", "answers in training mode"),
        ("NormedInTraining", (), "onnx", "a file is served in evaluation mode"),
        ("GoesBackToTraining", (), "torchscript", "it (GoesBackToTraining) stays in it after module.eval()"),
        (
            "Drawn",
            (),
            "torchscript",
            "answers the same inputs differently the second time, as one does that draws at random",
        ),
        ("Remembers", (), "torchscript", "let a state be an input and an output"),
        (
            "CountedInPython",
            (),
            "torchscript",
            "whatever the values, so that the sizes decide: one has been baked in; a size was a number of",
        ),
        ("CountedInPython", (), "torchscript", "was traced: forward takes x, unused and the inputs are x"),
        (
            "RowByRow",
            (),
            "torchscript",
            "fails: RuntimeError: Expected 9 elements in a list but found 5, with x [5, 5, 8]: it agrees with x [",
        ),
        ("RowByRow", (), "onnx", "so that the sizes decide: one has been baked in"),
        ("StepByStep", (), "onnx", "or a loop of Python over an axis was unrolled: compute sizes from the tensors"),
        (
            "Distances",
            ("--tolerance", "1e-7"),
            "onnx",
            "from float64 for this network on these samples, so that is rounding; allow it with --tolerance",
        ),
        ("FourRows", (), "onnx", "state the one that it takes: --shape NAME:SIZES"),
        ("Unequal", (), "savedmodel", "this module is none: its LSTM layers are 12 and 16 wide"),
    ],
)
def test_what_cannot_be_exported_says_why(
    network: str, flags: tuple[str, ...], form: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(network, *flags, repository=tmp_path, form=form) == 2
    assert said in capsys.readouterr().err
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_what_torch_cannot_write_is_one_sentence(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch prints the whole graph then, past Python; in a process of its own nobody sees it."""
    monkeypatch.undo()
    assert export("NormedByTheBatch", repository=tmp_path, form="onnx") == 2
    said = capfd.readouterr()
    assert said.out == ""
    assert "batch_size and channel_size must be non-None" in said.err
    assert "take --format torchscript" in said.err


def test_a_format_whose_packages_are_not_installed_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnx" else find(name))
    assert export("Normed", repository=tmp_path) == 0
    said = "onnx is not written: the package onnx is not installed: pip install 'lstm-serving[train]'\n"
    assert said in capsys.readouterr().out


def test_weights_of_another_network(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export("TimeFirst", "--weights", str(weights), repository=tmp_path / "r") == 2
    assert "plain.safetensors does not fit the module" in capsys.readouterr().err


def test_weights_that_are_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A pickle that would run something when it is read is not read."""
    torch.save(user_networks.Plain(), tmp_path / "module.pt")
    assert export("Plain", "--weights", str(tmp_path / "module.pt"), repository=tmp_path / "r") == 2
    said = capsys.readouterr().err
    assert f"holds a pickled {user_networks.__name__}.Plain, which cannot be read without running code" in said
    assert "save the state dict alone, torch.save(module.state_dict(), 'weights.pt')" in said


def test_inputs_that_are_no_tensors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export("Plain", repository=tmp_path, x="x:FP31[-1]") == 2
    assert "'x:FP31[-1]' is no tensor" in capsys.readouterr().err


def test_inputs_that_the_module_does_not_take(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for x in ("x:FP32[-1,-1,9]", "x:INT64[-1,-1]"):
        assert export("Plain", repository=tmp_path, x=x) == 2
        assert "the network does not run on what --input says" in capsys.readouterr().err


@pytest.mark.parametrize(("flags", "x"), [((), "x:FP32[-1,30,8]"), (("--output", "logits"), X), (("--rows", "x=0"), X)])
def test_whoever_says_more_gets_what_was_said(flags: tuple[str, ...], x: str, tmp_path: Path) -> None:
    """A plain stack, but with a fixed number of steps or names of its own: no canonical signature then."""
    assert export("Plain", *flags, repository=tmp_path, x=x) == 0
    spec = ModelSpec.read(tmp_path / "m" / "1" / "spec.json")
    assert [tensor.name for tensor in spec.inputs] == ["x"]
    assert spec.inputs[0].shape == (-1, 30 if "30" in x else -1, 8)
    assert [tensor.name for tensor in spec.outputs] == (["logits"] if "logits" in flags else ["y"])


def test_another_name_of_the_input_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export("Plain", repository=tmp_path, x="seq:FP32[-1,-1,8]", form="onnx") == 0
    assert "seq is called x" in capsys.readouterr().out


def test_a_layer_that_differs_in_training_is_written_as_it_is_in_evaluation(tmp_path: Path) -> None:
    """Whether it is scripted or traced. `torch.onnx.export` gives the mode of what it is given to all parts of it."""
    for network in ("Normed", "NormedAndTraced"):
        assert export(network, repository=tmp_path / network) == 0
        folder = tmp_path / network / "m" / "1"
        assert (folder / "model.onnx").exists()
        assert (folder / "model.pt").exists()


def test_the_signature_that_was_written_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a plain stack and of another; and what was turned."""
    assert export("TimeFirst", repository=tmp_path / "plain", form="onnx") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(
        "; the module takes the steps first, as nn.LSTM does without batch_first; what was written takes the rows first"
    )
    assert [line.split() for line in lines[1:3]] == [
        ["input", "x", "FP32", "[-1,", "-1,", "8]"],
        ["input", "lengths", "INT64", "[-1],", "may", "be", "left", "out"],
    ]
    assert [line.split()[:2] for line in lines[1:8]] == [
        ["input", "x"], ["input", "lengths"], ["input", "h0"], ["input", "c0"],
        ["output", "y"], ["output", "hn"], ["output", "cn"],
    ]  # fmt: skip
    assert export("Plain", repository=tmp_path / "rows first", form="onnx") == 0
    assert export("TurnsItself", repository=tmp_path / "turned", form="onnx") == 0
    told = capsys.readouterr().out
    assert told.count("a plain LSTM of") == 2
    assert "batch_first" not in told
    assert export("TimeFirst", "--output", "logits", repository=tmp_path / "own", form="onnx") == 0
    told = capsys.readouterr().out
    assert "  input  x               FP32 [-1, -1, 8], rows on axis 1 in the file" in told
    assert "  output logits          FP32 [-1, -1, 2], rows on axis 1 in the file" in told


def test_rows_that_must_be_sorted_are_taken_one_at_a_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`pack_padded_sequence` with `enforce_sorted=True` refuses most batches."""
    assert export("Sorted", "--input", "lengths:INT64[-1]", repository=tmp_path, form="torchscript") == 0
    assert "one row at a time, never batched" in capsys.readouterr().out


def test_rows_that_touch_each_other_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export("Mixed", repository=tmp_path, form="onnx") == 0
    assert "one row at a time, never batched" in capsys.readouterr().out
