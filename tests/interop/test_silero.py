"""Files that others made and trained: the voice-activity models of the PyPI package silero-vad."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import numpy.typing as npt
import pytest

from serving.launch import LaunchedServer
from tests.support import commands
from tests.support.arrays import infer, session
from tests.support.commands import ROOT
from tests.support.perf_analyzer import drive
from tests.support.wire import RawClient

SILERO = ROOT / ".envs/silero/silero_vad/data"
STEPS = 100
FRAME = 576
RATE = 16000


@pytest.fixture(scope="module")
def silero() -> Path:
    assert SILERO.exists(), f"{SILERO} is missing; `make interop` fetches it"
    return SILERO


@pytest.fixture(scope="module")
def served(silero: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LaunchedServer]:
    """The two streaming models, imported as a user would."""
    repository = tmp_path_factory.mktemp("imported")
    merged = ("--shape", f"input:-1,{FRAME}", "--value", f"sr={RATE}")
    for name, flags in (("silero_vad", merged), ("silero_vad_16k_sequence", ())):
        done = commands.export("import", silero / f"{name}.onnx", *flags, "--repository", repository, "--name", name)
        assert done.returncode == 0, done.stderr
    with LaunchedServer(repository, "--require-verified") as server:
        yield server


def speech(rows: int) -> npt.NDArray[np.float32]:
    """Frames of something that sounds, loud and soft in turn: `[STEPS, rows, FRAME]`."""
    generator = np.random.default_rng(3)
    time = np.arange(FRAME) / RATE
    tones = generator.uniform(80, 300, (STEPS, rows, 1))
    loudness = 0.5 * (1 + np.sin(np.arange(STEPS) / 7))[:, None, None]
    frames = loudness * np.sin(2 * np.pi * tones * time) + generator.normal(0, 0.02, (STEPS, rows, FRAME))
    return frames.astype(np.float32)


def test_one_merged_state_and_a_shared_sample_rate(served: LaunchedServer, silero: Path) -> None:
    """Two streams in one request over a hundred steps, the client carrying the state, rows first."""
    direct = session(silero / "silero_vad.onnx")
    theirs = np.zeros((2, 2, 128), np.float32)  # the rows on axis 1
    ours = np.zeros((2, 2, 128), np.float32)  # the rows on axis 0
    rate = np.array(RATE)
    with RawClient(served.address) as client:
        for frame in speech(2):
            expected, theirs = direct.run(None, {"input": frame, "state": theirs, "sr": rate})
            answer = infer(client, "silero_vad", {"input": frame, "state": ours, "sr": rate})
            ours = answer["stateN"]
            np.testing.assert_array_equal(answer["output"], expected)
            np.testing.assert_array_equal(np.moveaxis(ours, 0, 1), theirs)
    assert 0 <= expected.min() < expected.max() <= 1


def test_separate_states_and_no_rows_at_all(served: LaunchedServer, silero: Path) -> None:
    direct = session(silero / "silero_vad_16k_sequence.onnx")
    theirs = ours = (np.zeros((1, 1, 128), np.float32), np.zeros((1, 1, 128), np.float32))
    with RawClient(served.address) as client:
        for frame in speech(1):
            expected, *theirs = direct.run(None, {"input": frame, "h": theirs[0], "c": theirs[1]})
            answer = infer(client, "silero_vad_16k_sequence", {"input": frame, "h": ours[0], "c": ours[1]})
            ours = (answer["hn"], answer["cn"])
            np.testing.assert_array_equal(answer["speech_probs"], expected)
            for state, other in zip(ours, theirs, strict=True):
                np.testing.assert_array_equal(state, other)
        config = client.call("ModelConfig", name="silero_vad_16k_sequence").config
        assert (config.max_batch_size, [list(i.dims) for i in config.input]) == (
            0,
            [[-1, 576], [1, 1, 128], [1, 1, 128]],
        )


def test_rates_that_differ_are_answered_each_with_its_own(served: LaunchedServer, silero: Path) -> None:
    """In one request they are refused; in several at once each gets what the file gives alone."""
    state = np.zeros((2, 2, 128), np.float32)
    frames = speech(2)[0]
    with RawClient(served.address) as client:
        with pytest.raises(grpc.RpcError, match="differs between rows"):
            infer(client, "silero_vad", {"input": frames, "state": state, "sr": np.array([[16000], [8000]])})
        (rate,) = [i for i in client.call("ModelMetadata", name="silero_vad").inputs if i.name == "sr"]
        assert list(rate.shape) == [-1, 1]


def test_perf_analyzer_drives_it(served: LaunchedServer, perf_analyzer: list[str]) -> None:
    """It fills every advertised input by itself, the state too."""
    driven = drive(perf_analyzer, served, "silero_vad_16k_sequence", "--shape", "input:4,576", "--request-count", "50")
    assert (driven.succeeded, driven.failed) == (50, 0)


def test_where_the_file_leaves_a_choice_the_flag_is_named(silero: Path, tmp_path: Path) -> None:
    done = commands.export("import", silero / "silero_vad.onnx", "--repository", tmp_path, "--name", "m")
    assert done.returncode == 2
    assert "of sr one value holds for all rows" in done.stderr
    assert "--value sr=" in done.stderr
    done = commands.export("import", silero / "silero_vad_half.onnx", "--repository", tmp_path, "--name", "m")
    assert "--shape input:-1,SIZE" in done.stderr
    assert list(tmp_path.iterdir()) == []
