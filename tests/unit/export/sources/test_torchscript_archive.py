"""What the archive of a TorchScript file tells, without torch."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from export.__main__ import main
from export.sources.torchscript_archive import Forward, forward


class TwoAnswers(nn.Module):
    def forward(
        self, x: Tensor, lengths: Tensor, hidden: tuple[Tensor, Tensor] | None = None, flag: bool = False
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        return x, (x, lengths)


class Sum(nn.Module):
    def forward(self, features: Tensor, ids: Tensor) -> Tensor:
        return features.sum(2) + ids


def saved(module: nn.Module, path: Path, *example: Tensor) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = torch.jit.trace(module, example) if example else torch.jit.script(module)  # type: ignore[no-untyped-call]
    made.save(str(path))
    return path


def test_a_scripted_module_tells_its_arguments_and_how_many_answers(tmp_path: Path) -> None:
    found = forward(saved(TwoAnswers(), tmp_path / "m.pt"))
    assert found == Forward(["x", "lengths"], [], 2)
    assert found.flags() == (
        ["--input", "x:DTYPE[SIZES]", "--input", "lengths:DTYPE[SIZES]"],
        ["--output", "y:DTYPE[SIZES]", "--output", "y1:DTYPE[SIZES]"],
    )


def test_a_traced_one_tells_what_it_was_traced_with(tmp_path: Path) -> None:
    found = forward(saved(Sum(), tmp_path / "m.pt", torch.zeros(2, 9, 8), torch.zeros(2, 9, dtype=torch.int64)))
    assert found == Forward(["features", "ids"], [("FP32", (2, 9, 8)), ("INT64", (2, 9))], 1)
    assert found.flags()[0] == ["--input", "features:FP32[-1,-1,8]", "--input", "ids:INT64[-1,-1]"]


@pytest.mark.parametrize("content", [b"", b"text"])
def test_what_is_no_archive_tells_nothing(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.pt").write_bytes(content)
    assert forward(tmp_path / "m.pt") == Forward(["x"], [], 1)


def test_nothing_is_run_that_a_trace_names(tmp_path: Path) -> None:
    path = saved(Sum(), tmp_path / "m.pt", torch.zeros(2, 9, 8), torch.zeros(2, 9))
    other = tmp_path / "other.pt"
    with zipfile.ZipFile(path) as there, zipfile.ZipFile(other, "w") as archive:
        for name in there.namelist():
            bad = b"cos\nsystem\n(S'touch " + str(tmp_path / "run").encode() + b"'\ntR."
            archive.writestr(name, bad if name.endswith("traced_inputs.pkl") else there.read(name))
    assert forward(other) == Forward(["features", "ids"], [], 1)
    assert not (tmp_path / "run").exists()


def test_all_that_is_missing_is_told_at_once_with_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(Sum(), tmp_path / "my sum.pt", torch.zeros(2, 9, 8), torch.zeros(2, 9, dtype=torch.int64))
    assert main(["import", str(path), "--version", "2"]) == 2
    sentence, run = capsys.readouterr().err.splitlines()
    assert sentence.endswith("--name must be said, too")
    assert run == (
        f"run: lstm-export import '{path}' --version 2 --input 'features:FP32[-1,-1,8]' --input 'ids:INT64[-1,-1]' "
        "--output 'y:DTYPE[SIZES]' --name my_sum"
    )
    command = run.removeprefix("run: lstm-export ").replace("'", "").replace("DTYPE[SIZES]", "FP32[-1,-1]")
    arguments = [part.replace("\0", " ") for part in command.replace("my sum", "my\0sum").split()]
    rest = ["--repository", str(tmp_path / "r")]
    assert main([*arguments, *rest]) == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith(" --rows features=AXIS")
    assert main([*arguments, *rest, "--rows", "features=0", "--rows", "ids=0"]) == 0
