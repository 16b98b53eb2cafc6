"""What a process that measures may do to the one that asked: answer, fail, die, hang, and nothing else."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.backends.base import Candidate
from serving.backends.fake import FakeBackend
from serving.child.pipes import TOLD, Message, Reader, packed
from serving.child.process import Child
from serving.errors import BackendUnavailable
from serving.loading import measuring
from serving.loading.measuring import measure
from serving.repository.folders import VersionFolder
from serving.signature.tensors import Tensors
from serving.verification import golden
from tests.support import fake_models

FAKE = Candidate("fake", "cpu", 1)


def version(repository: Path, **how: object) -> VersionFolder:
    return VersionFolder(1, fake_models.write(repository, **how))  # type: ignore[arg-type]


def test_figures_for_the_rows_asked_for_in_the_order_of_the_candidates(tmp_path: Path) -> None:
    folder = version(tmp_path)
    asked = [FAKE, dataclasses.replace(FAKE, threads=2)]
    measured = measure(folder, asked, rows=(1, 3))
    assert [one.candidate for one in measured] == asked
    for one in measured:
        assert one.failed == ""
        assert list(one.p50_seconds) == [1, 3]
        assert min(one.p50_seconds.values()) > 0


def test_what_is_timed_are_calls_as_long_as_the_longest_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = version(tmp_path)
    (sample,) = golden.read_samples(folder.path / golden.FILE_NAME)
    short = {**sample.inputs, "x": sample.inputs["x"][:, :1], "lengths": np.ones(2, np.int64)}
    answers = FakeBackend(fake_models.spec(), 0.0, None, None).run(short, list(sample.outputs))
    golden.write_samples(folder.path / golden.FILE_NAME, [golden.Sample(short, answers), sample])
    calls: list[tuple[tuple[int, ...], list[int], list[str]]] = []
    run = FakeBackend.run

    def seen(self: FakeBackend, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        calls.append((inputs["x"].shape, inputs["lengths"].tolist(), list(outputs)))
        return run(self, inputs, outputs)

    monkeypatch.setattr(FakeBackend, "run", seen)
    assert [rows for rows, _ in measuring._figures(folder, FAKE, (1, 3), False)] == [1, 3]
    assert [shape[:2] for shape, _, _ in calls[:2]] == [(2, 1), (2, 3)]  # the golden samples
    assert {(shape, *lengths) for shape, lengths, outputs in calls[2:] if outputs == ["y"]} == {
        ((1, 3, fake_models.FEATURES), 3),
        ((3, 3, fake_models.FEATURES), 3, 1, 3),
    }
    least = measuring.WARM_CALLS + measuring.LEAST_CALLS
    assert len(calls) >= 2 + 2 * least


@pytest.mark.parametrize(
    ("change", "rows"),
    [
        (lambda tensor: dataclasses.replace(tensor, shape=(2, *tensor.shape[1:])), [2]),
        (lambda tensor: tensor, [1, 8, 32]),
    ],
)
def test_a_model_of_a_fixed_number_of_rows_is_asked_for_that_many(
    change: Callable[[object], object], rows: list[int], tmp_path: Path
) -> None:
    spec = fake_models.spec()
    inputs = tuple(change(tensor) for tensor in spec.inputs)
    folder = version(tmp_path, model_spec=dataclasses.replace(spec, inputs=inputs))
    assert list(measure(folder, [FAKE])[0].p50_seconds) == rows


def test_a_model_without_an_axis_of_rows_is_asked_for_one(tmp_path: Path) -> None:
    spec = fake_models.spec()
    assert measuring.rows_of(spec, (1, 8)) == (1, 8)
    alone = {
        side: tuple(dataclasses.replace(tensor, rows_axis=None) for tensor in getattr(spec, side))
        for side in ("inputs", "outputs")
    }
    assert measuring.rows_of(dataclasses.replace(spec, batched=False, **alone), (1, 8)) == [1]


def test_one_that_fails_its_golden_samples_has_no_figures(tmp_path: Path) -> None:
    (one,) = measure(version(tmp_path, fail_on=1.0), [FAKE])
    assert one.p50_seconds == {}
    assert one.failed == "fake on cpu: cannot run its golden samples: RuntimeError: asked to fail on 1.0"


def test_one_that_computes_something_else_has_no_figures(tmp_path: Path) -> None:
    folder = version(tmp_path)
    (sample,) = golden.read_samples(folder.path / golden.FILE_NAME)
    others = {name: array + 1 for name, array in sample.outputs.items()}
    golden.write_samples(folder.path / golden.FILE_NAME, [golden.Sample(sample.inputs, others)])
    (one,) = measure(folder, [FAKE])
    assert one.failed.startswith("fake on cpu: y differs from the trained model by")


def test_a_file_that_is_missing_or_broken_fails_its_own_candidate(tmp_path: Path) -> None:
    folder = version(tmp_path)
    (folder.path / "model.fake.json").write_text("{")
    assert "model.fake.json is not a usable fake model" in measure(folder, [FAKE])[0].failed
    missing, serves = measure(version(tmp_path, name="whole"), [Candidate("onnx_runtime", "cpu", 1), FAKE])
    assert "model.onnx is missing" in missing.failed
    assert serves.p50_seconds.keys() == set(measuring.ROWS)


def test_a_half_version_is_told_as_the_loader_tells_it(tmp_path: Path) -> None:
    folder = version(tmp_path)
    (folder.path / "spec.json").unlink()
    assert "spec.json is missing: the version is incomplete" in measure(folder, [FAKE])[0].failed


def test_a_process_that_dies_is_told_with_its_signal(tmp_path: Path) -> None:
    (one,) = measure(version(tmp_path, die_on=1.0), [FAKE])
    assert one.p50_seconds == {}
    assert one.failed == "its process ended with signal 11 (Segmentation fault) while it was measured"
    assert not one.by_chance


def test_last_words_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    (tmp_path / "python").write_text("#!/bin/sh\necho noise >&2; echo 'no such module' >&2; exit 3\n")
    (tmp_path / "python").chmod(0o755)
    (one,) = measure(version(tmp_path), [FAKE])
    assert one.failed == "its process ended with exit code 3 while it was measured; its last words: no such module"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("said", "by_chance"), [("out_of_memory", True), ("device_lost", True), ("", False)])
def test_what_lacks_memory_or_the_device_fails_by_chance(said: str, by_chance: bool, tmp_path: Path) -> None:
    """The server itself, and others, take some of it; another failure is one of the file's."""
    folder = version(tmp_path, fail_while="failing")
    (folder.path / "failing").write_text(said)
    (one,) = measure(folder, [FAKE])
    assert "cannot run its golden samples" in one.failed
    assert one.by_chance is by_chance


def test_python_without_memory_is_no_fault_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = version(tmp_path)
    told: list[object] = []

    def load(*_: object) -> None:
        raise MemoryError("none left")

    monkeypatch.setattr("serving.backends.fake.load", load)
    request = {"number": 1, "path": str(folder.path), "candidates": [dataclasses.asdict(FAKE)]}
    measuring.answer(
        {**request, "rows": [1], "allow_tf32": False, "level": ""}, {}, lambda *values: told.extend(values)
    )
    assert told == [[{}, "MemoryError: none left", True]]


def test_what_was_measured_before_a_crash_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = b"".join(map(bytes, [*packed(None, kind=TOLD), *packed([{"1": 0.5}, "", False], kind=TOLD)]))
    (tmp_path / "said").write_bytes(said)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    (tmp_path / "python").write_text(f"#!/bin/sh\ncat {tmp_path}/said; kill -SEGV $$\n")
    (tmp_path / "python").chmod(0o755)
    first, second = measure(version(tmp_path), [FAKE, dataclasses.replace(FAKE, threads=2)])
    assert first.p50_seconds == {1: 0.5}
    assert "signal 11 (Segmentation fault)" in second.failed


@pytest.mark.parametrize("program", ["sleep 600", "(yes noise >&2) & sleep 600"])
def test_a_process_that_answers_nothing_is_ended(program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    (tmp_path / "python").write_text(f"#!/bin/sh\n{program}\n")
    (tmp_path / "python").chmod(0o755)
    (one,) = measure(version(tmp_path), [FAKE], silence_seconds=0.3)
    assert one.failed.startswith("its process said nothing for 0.3 s while it was measured, and was ended")
    assert one.by_chance, "another time it may answer"


def test_a_model_that_hangs_is_ended(tmp_path: Path) -> None:
    (one,) = measure(version(tmp_path, delay_seconds=600.0), [FAKE], silence_seconds=2.0)
    assert one.failed == "its process said nothing for 2 s while it was measured, and was ended"


def test_what_is_given_up_ends_its_process_and_keeps_what_was_measured(tmp_path: Path) -> None:
    """Its process hangs, or would for ten minutes; that of the second backend is never started."""
    pids: list[int] = []
    started = Child.__init__

    def begin(self: Child, *arguments: Any, **named: Any) -> None:
        started(self, *arguments, **named)
        pids.append(self._process.pid)

    asked = [FAKE, Candidate("onnx_runtime", "cpu", 1)]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Child, "__init__", begin)
        folder = version(tmp_path, delay_seconds=600.0)
        assert measure(folder, asked, given_up=lambda: bool(pids)) == []
    (pid,) = pids
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert measure(folder, asked, given_up=lambda: True) == []


def test_what_was_measured_before_it_is_given_up_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = b"".join(map(bytes, packed([{"1": 0.5}, "", False], kind=TOLD)))
    (tmp_path / "said").write_bytes(said)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    (tmp_path / "python").write_text(f"#!/bin/sh\ncat {tmp_path}/said; exec sleep 600\n")
    (tmp_path / "python").chmod(0o755)
    heard = Reader.feed

    def feed(self: Reader, data: bytes) -> Iterator[Message]:
        for message in heard(self, data):
            yield message
            (tmp_path / "heard").touch()

    monkeypatch.setattr(Reader, "feed", feed)
    asked = [FAKE, dataclasses.replace(FAKE, threads=2)]
    (one,) = measure(version(tmp_path), asked, given_up=(tmp_path / "heard").exists)
    assert (one.candidate, one.p50_seconds) == (FAKE, {1: 0.5})


def test_devices_that_are_not_here_need_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(index: int) -> None:
        raise BackendUnavailable(f"there is no cuda:{index}")

    monkeypatch.setattr("serving.machine.devices.require_gpu", missing)
    monkeypatch.setattr(measuring, "_ask_child", None)
    asked = [Candidate("fake", "cuda:1", 1), Candidate("fake", "tpu", 1), Candidate("none", "cpu", 1)]
    gpu, unknown, no_backend = measure(version(tmp_path), asked)
    assert gpu.failed == "there is no cuda:1"
    assert "device is 'tpu'" in unknown.failed
    assert "no backend is called 'none'" in no_backend.failed


def test_a_device_that_the_backend_cannot_take_is_told_by_its_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.machine.devices.require_gpu", lambda index: None)
    (one,) = measure(version(tmp_path), [Candidate("fake", "cuda:0", 1)])
    assert one.failed == "the fake backend runs on the CPU only; device 'cuda:0' was asked for"


def test_a_bare_version_is_not_measured(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").touch()
    with pytest.raises(ValueError, match="nothing proves that its files are alike"):
        measure(VersionFolder(1, tmp_path), [FAKE])


def test_the_package_that_asks_is_the_one_that_measures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder called `serving` where the server was started changes nothing; nor does a relative path."""
    folder = version(tmp_path)
    (tmp_path / "serving").mkdir()
    (tmp_path / "serving" / "measuring.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    assert measure(VersionFolder(1, folder.path.relative_to(tmp_path)), [FAKE])[0].failed == ""


def test_neither_side_imports_grpc_or_a_runtime() -> None:
    program = "import sys, serving.loading.measuring; print({'grpc', 'torch', 'tensorflow', 'onnxruntime'} & sys.modules.keys())"
    root = Path(measuring.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("text", "expected"), [("max 100000\n", None), ("100000 100000\n", 1), ("50000 100000\n", 1), ("", None)]
)
def test_a_quota_of_cpu_time_counts(text: str, expected: int | None, tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text(text)
    bound = len(os.sched_getaffinity(0))
    assert measuring.cpus_here(tmp_path / "cpu.max") == (expected or bound)
    assert measuring.cpus_here(tmp_path / "none") == bound
