"""What is said where there is nothing to explain; the table itself is measured in tests/integration/test_choice.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.errors import StartupError
from serving.explain import explain
from serving.settings import Settings
from serving.verification import golden
from tests.support import fake_models


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
