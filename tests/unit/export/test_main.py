"""`lstm-export`: what it prints, and one sentence and code 2 for what it refuses."""

from __future__ import annotations

import importlib.util
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from export.__main__ import main


def command(run: Path, *more: str) -> list[str]:
    return ["checkpoint", str(run), "--repository", str(run.parent / "repository"), "--name", "compass", *more]


def test_writes_a_version_and_says_how_to_serve_it(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert main(command(run, "--format", "onnx", "--version", "4")) == 0
    heading, row, stateful, closing = capsys.readouterr().out.splitlines()
    assert heading.split() == ["format", "size", "largest", "difference"]
    assert row.split()[0] == "onnx"
    repository = run.parent / "repository"
    assert closing == f"wrote {repository / 'compass' / '4'}; serve it with: lstm-serve --model-repository {repository}"
    config = repository / "compass" / "config.pbtxt"
    assert stateful.startswith(f"to keep its state between requests, write into {config} ")
    assert not config.exists()
    assert signal.getsignal(signal.SIGTERM) is before


def test_has_the_server_keep_its_state(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(run, "--format", "onnx", "--stateful")) == 0
    config = run.parent / "repository" / "compass" / "config.pbtxt"
    assert f"stateful by {config}: sequence_batching {{}}" in capsys.readouterr().out.splitlines()
    assert config.read_text() == "sequence_batching {}\n"


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--format", "pickle"], "unknown format 'pickle'; known are onnx, savedmodel, torchscript and all"),
        (["--format", ""], "unknown format ''"),
        (["--format", "onnx", "--version", "0"], "versions are counted from 1"),
        (["--format", "onnx", "--name", "../up"], "the name '../up' cannot be used"),
        (["--format", "onnx", "--tolerance", "nan"], "tolerance is nan"),
        (["--format", "onnx", "--tolerance", "1e-12"], "at most 1e-12 is allowed"),
    ],
)
def test_refuses_in_one_sentence(run: Path, capsys: pytest.CaptureFixture[str], more: list[str], sentence: str) -> None:
    assert main(command(run, *more)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("lstm-export: ")
    assert captured.err.count("\n") == 1
    assert sentence in captured.err
    assert not list((run.parent / "repository").glob("**/*"))


@pytest.mark.parametrize("arguments", [[], ["checkpoint"], ["checkpoint", "run", "--version", "x"]])
def test_usage_errors_are_one_sentence(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "missing", "run"),
    [
        (["checkpoint", "runs/my run", "--name", "a"], "--format", "checkpoint 'runs/my run' --name a --format all"),
        (
            ["checkpoint", "runs/my run", "--version", "3"],
            "--name and --format",
            "checkpoint 'runs/my run' --version 3 --name my_run --format all",
        ),
        (["keras", "a/best.h5", "--format", "onnx"], "--name", "keras a/best.h5 --format onnx --name best"),
        (["keras", "nets.lstm:build"], "--name and --format", "keras nets.lstm:build --name lstm --format all"),
    ],
)
def test_what_is_missing_is_told_with_the_command_to_run(
    arguments: list[str], missing: str, run: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err == f"lstm-export: {missing} must be said\nrun: lstm-export {run}\n"


def test_a_folder_that_is_no_finished_run_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "training.json").unlink()
    assert main(command(run, "--format", "onnx")) == 2
    assert "holds no finished training run" in capsys.readouterr().err


def test_a_checkpoint_that_contradicts_itself_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"hidden": 6}))
    assert main(command(run, "--format", "onnx")) == 2
    assert "is not a usable checkpoint" in capsys.readouterr().err


def test_a_repository_that_is_a_file_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run.parent / "repository").touch()
    assert main(command(run, "--format", "onnx")) == 2
    assert "repository" in capsys.readouterr().err


def test_onnx_alone_loads_no_tensorflow_and_says_nothing_else(run: Path) -> None:
    program = (
        "import sys; from export.__main__ import main; code = main(sys.argv[1:]);"
        "sys.exit(code or 'tensorflow' in sys.modules)"
    )
    arguments = [sys.executable, "-c", program, *command(run, "--format", "onnx")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == ""


def test_tensorflow_keeps_its_messages_to_itself(run: Path) -> None:
    arguments = [sys.executable, "-m", "export", *command(run, "--format", "savedmodel")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True, timeout=120)
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 4


def test_a_smaller_precision_is_scored_again(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["checkpoint", str(run), "--format", "onnx", "--repository", str(tmp_path), "--name", "m"]
    assert main([*arguments, "--precision", "int8-weights"]) == 0
    said = capsys.readouterr().out
    assert "weights kept as int8-weights: answers at most 0.0" in said
    assert "the score is not measured again: the run does not hold its test part" in said
    facts = json.loads((tmp_path / "m" / "1" / "spec.json").read_text())
    assert facts["source"]["precision"]["precision"] == "int8-weights"
    assert 0 < facts["source"]["precision"]["largest_difference"] < 0.1
    assert not any(name.startswith("test_") for name in facts["scores"])


def test_all_formats_are_those_that_can_be_written(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tensorflow" else find(name))
    missing = "the package tensorflow is not installed: pip install 'lstm-serving[tensorflow]'"
    assert main(command(run, "--format", "all")) == 0
    said = capsys.readouterr().out
    assert f"savedmodel is not written: {missing}\n" in said
    facts = json.loads((run.parent / "repository" / "compass" / "1" / "spec.json").read_text())
    assert facts["source"]["export"]["formats"] == ["onnx", "torchscript"]
    assert main(command(run, "--format", "onnx,savedmodel")) == 2
    assert capsys.readouterr().err == f"lstm-export: {missing}\n"


@pytest.mark.parametrize(
    ("arguments", "packages", "extras"),
    [
        (["checkpoint", "RUN", "--format", "onnx"], "onnx, onnxruntime, safetensors and torch", "onnx,torch,train"),
        (["checkpoint", "RUN", "--format", "all"], "safetensors and torch", "torch,train"),
        (["module", "net:build", "--input", "x:FP32[-1,3]", "--format", "all"], "torch", "torch"),
        (
            ["module", "net:build", "--weights", "w.safetensors", "--input", "x:FP32[-1,3]", "--format", "all"],
            "safetensors and torch",
            "torch,train",
        ),
        (["keras", "net:build", "--format", "all"], "tensorflow", "tensorflow"),
        (["keras", "net.keras", "--format", "all"], "tensorflow", "tensorflow"),
        (["import", "net.onnx"], "onnxruntime", "onnx"),
        (["import", "net.pt"], "torch", "torch"),  # before anybody is asked for its signature
    ],
)
def test_what_is_not_installed_is_told_at_once(
    arguments: list[str],
    packages: str,
    extras: str,
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As where lstm-serving alone is installed, with none of its extras."""
    optional = ("onnx", "onnxruntime", "safetensors", "torch", "keras", "h5py", "tensorflow", "matplotlib", "tqdm")
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in optional else find(name))
    monkeypatch.chdir(run.parent)
    for name in ("net.onnx", "net.pt", "w.safetensors"):
        (run.parent / name).touch()
    assert main([str(run) if each == "RUN" else each for each in arguments] + ["--name", "m"]) == 2
    are = "packages" if " and " in packages else "package"
    said = capsys.readouterr().err
    assert re.fullmatch(rf"lstm-export: the {are} {packages} (is|are) not installed: pip install '(.*)'\n", said), said
    assert f"'lstm-serving[{extras}]'" in said
