"""What is said where there is nothing to explain; the table itself is measured in tests/integration/test_choice.py."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from serving.backends.base import Candidate, Measured
from serving.errors import StartupError
from serving.explain import explain
from serving.settings import Settings
from serving.verification import golden
from tests.support import fake_models, summing


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nosuch", "there is no model 'nosuch' in {}; there are bare, fake"),
        ("bare", "{}/bare/1 has no golden samples: nothing proves that its files compute the same"),
    ],
)
def test_why_there_is_nothing_to_explain(name: str, message: str, tmp_path: Path) -> None:
    fake_models.write(tmp_path)
    bare = fake_models.write(tmp_path, "bare")
    for file in ("spec.json", golden.FILE_NAME):
        (bare / file).unlink()
    with pytest.raises(StartupError) as raised:
        explain(Settings(model_repository=[tmp_path]), name)
    assert str(raised.value) == message.format(tmp_path)


def test_what_a_start_takes_and_whether_that_was_known_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was measured is kept, so that the second time it is known; what is not worth a change does not serve."""
    summing.write(fake_models.write(tmp_path))
    times = {"onnx_runtime": 1.05e-4, "fake": 1e-4}
    ways = [Candidate(name, "cpu", 1) for name in times]
    figures = tuple(Measured(one, dict.fromkeys((1, 8, 32), times[one.backend])) for one in reversed(ways))
    monkeypatch.setattr("serving.explain.measured", lambda *_: figures)
    settings = Settings(model_repository=[tmp_path], threads=1, trial="off")
    rest = "from now on onnx_runtime (measured), which gives way to what is better by more than 10%"
    for was in ("not measured before: by rule", "measured before"):
        title, _, best, second, why = explain(settings, "fake").splitlines()
        assert title == "fake version 1, best first for latency:"
        assert [line.split()[:2] for line in (best, second)] == [["fake", "cpu"], ["*", "onnx_runtime"]]
        assert why.startswith(f"a start until now served onnx_runtime ({was}); {rest}")
    named = explain(dataclasses.replace(settings, backend="fake"), "fake").splitlines()
    assert named[-1] == "(--backend or config.pbtxt say fake: nothing is chosen by these figures)"
    assert named[2].startswith("*  fake"), "what serves is marked"


def test_what_was_measured_of_files_that_were_exchanged_meanwhile_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fake_models.write(tmp_path)

    def measured(*_: object) -> tuple[Measured]:
        (folder / "model.fake.json").write_text('{"delay_seconds": 0.5}')
        return (Measured(Candidate("fake", "cpu", 1), dict.fromkeys((1, 8, 32), 1e-4)),)

    monkeypatch.setattr("serving.explain.measured", measured)
    with pytest.raises(StartupError, match=r"the files of .*/fake/1 were changed while they were measured: ask again"):
        explain(Settings(model_repository=[tmp_path]), "fake")
    assert not (tmp_path / "fake" / ".measured").exists()


def test_where_nothing_can_serve_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_models.write(tmp_path)
    failed = (Measured(Candidate("fake", "cpu", 1), failed="its golden samples disagree"),)
    monkeypatch.setattr("serving.explain.measured", lambda *_: failed)
    with pytest.raises(StartupError, match=r"nothing here can serve fake version 1\n.*\n.*its golden samples disagree"):
        explain(Settings(model_repository=[tmp_path]), "fake")
