"""`lstm-export import`: what is said of a file that cannot be served, or not in batches."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from export.__main__ import main
from export.sources import finished_files
from tests.support import sums_kept
from tests.unit.export import user_networks

X, LENGTHS, Y = ("--input", "x:FP32[-1,-1,8]"), ("--input", "lengths:INT64[-1]"), ("--output", "y:FP32[-1,3]")


class Noisy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, 0, :3] + torch.randn_like(x[:, 0, :3])


class InOrder(nn.Module):
    """Refuses rows that are not sorted by their length."""

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=True)
        return nn.utils.rnn.pad_packed_sequence(packed, batch_first=True)[0][:, 0, :3]


def scripted(module: nn.Module, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that torch.jit is deprecated, and what it warns of its own making
        torch.jit.script(module).save(str(path))  # type: ignore[no-untyped-call]


def traced(module: nn.Module, rows: int, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        example = torch.zeros(rows, 9, 8)
        torch.jit.trace(module.eval(), example, check_trace=False).save(str(path))  # type: ignore[no-untyped-call]


def of_weights(path: Path) -> None:
    torch.save(user_networks.Plain().state_dict(), path)


def one_node(path: Path, operator: str, domain: str, opset: int) -> None:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 3]) for name in "xy")
    graph = helper.make_graph([helper.make_node(operator, ["x"], ["y"], domain=domain)], "one", [x], [y])
    opsets = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)


def test_a_file_that_is_to_keep_its_state(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, repository = tmp_path / "sums.onnx", tmp_path / "repository"
    asked = ["import", str(file), "--repository", str(repository), "--name", "sums"]
    line = "to keep its state between requests, write into"
    sums_kept.write(file, {"h": "hn"}, mean=True)
    assert main(asked) == 0
    assert line not in capsys.readouterr().out
    assert main([*asked, "--stateful"]) == 2
    assert "the model cannot be stateful: fed in pieces" in capsys.readouterr().err
    sums_kept.write(file, {"h": "hn"})
    assert main(asked) == 0
    assert line in capsys.readouterr().out
    assert sorted(path.name for path in (repository / "sums").iterdir()) == ["1", "2"]
    assert main([*asked, "--stateful"]) == 0
    assert (repository / "sums" / "config.pbtxt").read_text() == "sequence_batching {}\n"
    assert (repository / "sums" / "3").is_dir()


@pytest.mark.parametrize(
    ("name", "write", "flags", "said"),
    [
        ("m.pt", of_weights, (*X, *Y), "weights need their module beside them, so take lstm-export module"),
        (
            "m.pt",
            lambda path: zipfile.ZipFile(path, "w").close(),
            (*X, *Y),
            "is no TorchScript but an archive without constants.pkl",
        ),
        ("m.onnx.data", Path.touch, (), "holds weights of an ONNX file: give the .onnx beside it"),
        ("saved_model.pb", Path.touch, (), "is part of a SavedModel: give its folder"),
        ("m.keras", Path.touch, (), "goes by lstm-export keras FILE"),
        ("m.safetensors", Path.touch, (), "--weights FILE"),
        ("m.bin", Path.touch, (), "ends in '.bin'; known are .onnx"),
        (
            "m.pt",
            lambda path: scripted(Noisy(), path),
            (*X, *Y),
            "as of what draws at random or keeps something",
        ),
        (
            "m.pt",
            lambda path: traced(user_networks.StepByStep(), 2, path),
            (*X, *Y),
            "index 5 out of range for tensor of size [3, 5, 8] at dimension 1; state the sizes",
        ),
        ("m.onnx", lambda path: one_node(path, "Mine", "my.domain", 17), (), "export it again with operators of ONNX"),
        (
            "m.onnx",
            lambda path: one_node(path, "Relu", "", 99),
            (),
            "its opset is newer than this ONNX Runtime knows: export it again with a lower one",
        ),
    ],
    ids=[
        "weights",
        "archive",
        "data",
        "part",
        "keras",
        "safetensors",
        "unknown",
        "random",
        "unrolled",
        "operator",
        "opset",
    ],
)
def test_what_cannot_be_imported_says_what_to_do(
    name: str,
    write: Callable[[Path], None],
    flags: tuple[str, ...],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write(tmp_path / name)
    assert imported(tmp_path, name, *flags) == 2
    assert said in capsys.readouterr().err
    assert not [path for path in (tmp_path / "r").rglob("*") if path.is_file()]


def test_a_fixed_number_of_rows_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    traced(user_networks.FourRows(), 4, tmp_path / "m.pt")
    assert imported(tmp_path, "m.pt", "--input", "x:FP32[4,-1,8]", *Y) == 0
    assert "along no axis that is free (x axis 1) was there an answer for each row" in capsys.readouterr().out


def test_rows_that_must_be_in_order_are_not_batched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scripted(InOrder(), tmp_path / "m.pt")
    assert imported(tmp_path, "m.pt", *X, *LENGTHS, *Y) == 0
    assert "one row at a time, never batched" in capsys.readouterr().out


def test_a_file_that_states_no_rank_is_asked_for_all_of_its_tensors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    one_node(tmp_path / "m.onnx", "Relu", "", 17)
    half = ({"x": ("FP32", (-1, 3)), "sr": (None, ())}, {"y": ("FP32", None)})
    monkeypatch.setattr(finished_files.Runtime, "stated", lambda runtime, artifact: half)
    assert imported(tmp_path, "m.onnx") == 2
    sentence, run = capsys.readouterr().err.splitlines()
    assert sentence.endswith("does not state datatype and rank of sr, y: say them, -1 where a size is free")
    assert run.endswith("--input 'x:FP32[-1,3]' --input 'sr:DTYPE[]' --output 'y:FP32[SIZES]'")


def test_values_that_all_rows_share_are_asked_for_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    one_node(tmp_path / "m.onnx", "Relu", "", 17)
    stated = ({"x": ("FP32", (-1, 3)), "sr": ("INT64", ()), "gain": ("FP32", ())}, {"y": ("FP32", (-1, 3))})
    monkeypatch.setattr(finished_files.Runtime, "stated", lambda runtime, artifact: stated)
    assert main(["import", str(tmp_path / "m.onnx"), "--value", "gain=2"]) == 2
    sentence, run = capsys.readouterr().err.splitlines()
    assert "of sr one value holds for all rows: say what to try the network with; --name must be said, too" in sentence
    assert run == f"run: lstm-export import {tmp_path / 'm.onnx'} --value gain=2 --value sr=VALUE --name m"


def imported(folder: Path, name: str, *flags: str) -> int:
    return main(["import", str(folder / name), *flags, "--repository", str(folder / "r"), "--name", "m"])
