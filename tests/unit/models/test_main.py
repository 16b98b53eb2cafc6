"""`lstm-train` refuses in one sentence, and a run folder looks finished only when it is."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from models import __main__ as cli
from models import networks, runs
from models.checkpoint import Checkpoint, CheckpointError


def run(*arguments: object) -> int:
    """The exit code of `lstm-train` with these arguments, however it ends."""
    try:
        return cli.main([str(argument) for argument in arguments])
    except SystemExit as ended:
        return int(ended.code or 0)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "deep" / "vowels"
    assert run("vowels", "--framework", "torch", "--out", folder, "--epochs", 2, "--seed", 4) == 0
    return folder


def test_a_run_is_a_checkpoint_with_its_facts(finished: Path) -> None:
    checkpoint = Checkpoint.load(finished)
    facts = checkpoint.training
    assert (facts["seed"], facts["epochs"], facts["plan"]["epochs"]) == (4, 2, 2)
    assert facts["scores"].keys() >= {"test_accuracy", "validation_accuracy"}
    assert facts["data"]["name"] == "JapaneseVowels"
    assert all(len(digest) == 64 for digest in facts["data"]["sha256"].values())
    assert facts["versions"].keys() >= {"python", "numpy", "torch"}
    assert checkpoint.labels == tuple("123456789")
    lengths = [len(sample) for sample in checkpoint.samples]
    assert len(lengths) == 8
    assert lengths == sorted(set(lengths))
    assert (lengths[0], lengths[-1]) == (7, 29)
    assert (finished / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    y = networks.load(checkpoint).predict({"x": checkpoint.samples[0][None]})["y"]
    assert y.shape == (1, 9)


def test_a_finished_run_is_kept_unless_told_otherwise(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (finished / "training.json").read_bytes()
    command = ("vowels", "--framework", "torch", "--out", finished, "--epochs", 1)
    assert run(*command) == 2
    sentence = f"lstm-train: {finished} holds a finished run; choose another folder or add --overwrite\n"
    assert capsys.readouterr().err == sentence
    assert (finished / "training.json").read_bytes() == before


def test_overwriting_and_the_closing_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("vowels", "--framework", "torch", "--out", tmp_path, "--epochs", 1, "--overwrite")
    (tmp_path / "training.json").write_text("{}")
    assert run(*command) == 0
    output = capsys.readouterr()
    accuracy = json.loads((tmp_path / "training.json").read_text())["scores"]["test_accuracy"]
    assert f"test accuracy {accuracy:.4f} (majority class 0.0838) after 1 epochs in" in output.out
    assert f"lstm-export checkpoint {tmp_path}" in output.out
    assert output.err.startswith("vowels (torch, seed 0): epoch 1 of at most 1, loss ")
    assert "\r" not in output.err


@pytest.mark.parametrize("earlier", [None, "{}"])
def test_ctrl_c_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], earlier: str | None
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "train", interrupted)
    if earlier is not None:
        (tmp_path / "training.json").write_text(earlier)
    before = list(tmp_path.iterdir())
    assert run("vowels", "--framework", "torch", "--out", tmp_path, "--overwrite") == 130
    assert "interrupted; no finished run was written" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == before


def test_ctrl_c_while_writing_leaves_no_finished_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished: Path
) -> None:
    def interrupted(*_: Any) -> bytes:
        raise KeyboardInterrupt

    for name in ("config.json", "weights.safetensors", "training.json"):
        (tmp_path / name).write_bytes((finished / name).read_bytes())
    Checkpoint.load(tmp_path)
    monkeypatch.setattr(Path, "write_bytes", interrupted)
    assert run("vowels", "--framework", "torch", "--out", tmp_path, "--epochs", 1, "--overwrite") == 130
    with pytest.raises(CheckpointError, match=r"training\.json is missing"):
        Checkpoint.load(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "PROBLEM"),
        (("consonants",), "'consonants'"),
        (("vowels",), "--framework, --out"),
        (("vowels", "--framework", "jax", "--out", "x"), "invalid choice: 'jax'"),
        (("vowels", "--framework", "torch", "--out", "x", "--sed", "1"), "--sed"),
        (("vowels", "--framework", "torch", "--out", "x", "--seed", "-1"), "'-1' is not a whole number from 0"),
        (("vowels", "--framework", "torch", "--out", "x", "--seed", "1.5"), "'1.5' is not a whole number"),
        (("vowels", "--framework", "torch", "--out", "x", "--epochs", "0"), "'0' is not a whole number from 1"),
        (("csv", "--framework", "torch", "--out", "x"), "FILE, --features, --target, --time"),
        (("ts", "a.ts", "--framework", "torch", "--out", "x"), "TEST.ts"),
    ],
)
def test_bad_requests_get_one_sentence(
    arguments: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.startswith("lstm-train")
    assert error.count("\n") == 1


def test_a_file_is_no_run_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("mine")
    assert run("vowels", "--framework", "torch", "--out", tmp_path / "file", "--overwrite") == 2
    assert "is a file; a run needs a folder of its own" in capsys.readouterr().err
    assert run("vowels", "--framework", "torch", "--out", tmp_path / "file" / "run", "--epochs", 1) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("lstm-train: ")


def test_all_that_is_missing_is_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in ("torch", "tqdm") else find(name))
    assert run("vowels", "--framework", "torch", "--out", tmp_path) == 1
    sentence = "the packages torch and tqdm are not installed: pip install 'lstm-serving[torch,train]'"
    assert capsys.readouterr().err == f"lstm-train: {sentence}\n"
    assert not any(tmp_path.iterdir())
