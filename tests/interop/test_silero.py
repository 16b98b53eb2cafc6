"""Files that others made and trained: the voice-activity models of the PyPI package silero-vad."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import numpy.typing as npt
import pytest

from protos import grpc_service_pb2 as pb
from serving.launch import LaunchedServer
from tests.support import commands
from tests.support.arrays import infer, session
from tests.support.commands import ROOT
from tests.support.perf_analyzer import drive
from tests.support.running import metric
from tests.support.wire import RawClient, open_stream

SILERO = ROOT / ".envs/silero/silero_vad/data"
STEPS = 100
CHUNK, CONTEXT = 512, 64
FRAME = CHUNK + CONTEXT
SEQUENCES, CHUNKS = 50, 200
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


def recording(number: int, chunks: int) -> npt.NDArray[np.float32]:
    """So many chunks of 512 samples, each with the 64 before it: `[chunks, FRAME]`; voiced and silent in turn."""
    generator = np.random.default_rng(number)
    time = np.arange(chunks * CHUNK) / RATE
    pitch = generator.uniform(80, 300) * (1 + 0.1 * np.sin(2 * np.pi * generator.uniform(0.5, 2) * time))
    voice = sum(np.sin(harmonic * np.cumsum(2 * np.pi * pitch / RATE)) / harmonic for harmonic in range(1, 9))
    loud = np.clip(np.sin(2 * np.pi * generator.uniform(0.2, 1) * time + generator.uniform(0, 6)), 0, 1)
    samples = 0.2 * loud * voice + generator.normal(0, 0.005, len(time))
    padded = np.concatenate([np.zeros(CONTEXT), samples]).astype(np.float32)
    return np.stack([padded[at * CHUNK : at * CHUNK + FRAME] for at in range(chunks)])


def test_fifty_sequences_at_once_are_what_the_file_alone_answers(silero: Path, tmp_path: Path) -> None:
    """Every chunk of a long recording is a step, and those of all sequences come on one stream, in turn."""
    flags = ("--shape", f"input:-1,{FRAME}", "--value", f"sr={RATE}", "--stateful")
    done = commands.export("import", silero / "silero_vad.onnx", *flags, "--repository", tmp_path, "--name", "vad")
    assert done.returncode == 0, done.stderr
    recordings = [recording(number, CHUNKS) for number in range(SEQUENCES)]
    direct, rate, expected = session(silero / "silero_vad.onnx"), np.array(RATE), []
    for chunks in recordings:
        state, answers = np.zeros((2, 1, 128), np.float32), []
        for chunk in chunks:
            y, state = direct.run(None, {"input": chunk[None], "state": state, "sr": rate})
            answers.append(float(y[0, 0]))
        expected.append(answers)

    def requests() -> Iterator[pb.ModelInferRequest]:
        for place in range(CHUNKS):
            for number, chunks in enumerate(recordings):
                made = pb.ModelInferRequest(model_name="vad", id=str(number))
                made.inputs.add(name="input", datatype="FP32", shape=[1, FRAME])
                made.inputs.add(name="sr", datatype="INT64", shape=[1, 1])
                made.raw_input_contents.extend([chunks[place].tobytes(), np.int64(RATE).tobytes()])
                made.parameters["sequence_id"].int64_param = number + 1
                made.parameters["sequence_start"].bool_param = place == 0
                made.parameters["sequence_end"].bool_param = place == CHUNKS - 1
                yield made

    with LaunchedServer(tmp_path, "--require-verified") as server, RawClient(server.address) as client:
        got: list[list[float]] = [[] for _ in recordings]
        for answer in open_stream(client, requests()):
            assert answer.error_message == ""
            (probability,) = np.frombuffer(answer.infer_response.raw_output_contents[0], np.float32)
            got[int(answer.infer_response.id)].append(probability)
        assert metric(server, "sequence_steps_total") == SEQUENCES * CHUNKS
        assert metric(server, "batch_rows_count") < SEQUENCES * CHUNKS, "nobody shared a batch"
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)
    assert np.ptp(expected) > 0.5, "the recordings hold no voice, or nothing else"


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
