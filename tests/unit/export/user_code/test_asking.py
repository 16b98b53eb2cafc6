"""What a user's code may do to its process: each is one sentence, and says where in that code it was."""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
import pytest

from export.errors import ExportError
from export.user_code import asking
from export.user_code.asking import Raised, UserCode

X = {"x": np.arange(6.0).reshape(2, 3)}


def module(folder: Path, text: str) -> None:
    (folder / "net.py").write_text(textwrap.dedent(text))


def refusal(where: str = "net:build", weights: Path | None = None) -> str:
    with pytest.raises(ExportError) as refused:
        UserCode("fake", where, weights)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_what_it_computes_comes_back(fake_part: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Whatever it prints, on Python's streams or past them; what it reads is empty."""
    module(
        fake_part,
        """
        import os, sys
        print("at the import", os.read(0, 10))
        def build():
            os.write(1, b"past Python")
            return lambda x: (print("while it runs"), 2 * x)[1]
        """,
    )
    with UserCode("fake", "net:build") as code:
        for _ in range(2):
            header, arrays, _ = code.ask("run", X)
            np.testing.assert_array_equal(arrays["0"], 2 * X["x"])
            assert header["after"]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import nowhere_at_all", "importing net fails: ModuleNotFoundError: No module named 'nowhere_at_all' (net.py:1)"),
        ("def build(:", "net:build: importing net fails: SyntaxError: invalid syntax (net.py:1)"),
        ("x = 1\n1 / 0", "net:build: importing net fails: ZeroDivisionError: division by zero (net.py:2)"),
        ("import sys\nsys.exit(3)", "net:build: importing net fails: it calls sys.exit(3) at net.py:2"),
        ("import sys\nsys.exit('no GPU')", "net:build: importing net fails: it calls sys.exit('no GPU') at net.py:2"),
        ("other = 1", "net:build: module 'net' has no attribute 'build'"),
        ("build = 1", "net:build fails when it is called without arguments: TypeError: 'int' object is not callable"),
        (
            "def build(hidden):\n    pass",
            "net:build fails when it is called without arguments: TypeError: build() missing 1 required positional argument: "
            "'hidden'",
        ),
        ("def build():\n    return 7", "net:build gives a int; it must return a function"),
        (
            "import json\ndef build():\n    return json.loads('{')",
            "JSONDecodeError: Expecting property name enclosed in double quotes: line 1 column 2 (char 1) (net.py:3)",
        ),
        (
            "def build():\n    raise BaseException",
            "net:build fails when it is called without arguments: BaseException (net.py:2)",
        ),
        (
            "class Odd(Exception):\n    def __str__(self):\n        return 1 / 0\ndef build():\n    raise Odd",
            "without arguments: Odd (net.py:5)",
        ),
        ("import os\nos._exit(7)", "net:build: its process ended with exit code 7 while its factory was called"),
        (
            "import ctypes, sys\nprint('before', file=sys.stderr, flush=True)\nctypes.string_at(0)",
            "net:build: its process ended with signal 11 (Segmentation fault) while its factory was called; its last words: "
            "before",
        ),
    ],
)  # fmt: skip
def test_what_does_not_start_says_where(text: str, said: str, fake_part: Path) -> None:
    module(fake_part, text)
    assert said in refusal()


def test_a_module_that_is_not_there(fake_part: Path) -> None:
    """And only then it is told where it was looked for."""
    assert refusal("models.net:build") == (
        f"models.net:build: importing models.net fails: ModuleNotFoundError: No module named 'models'; it is looked for in "
        f"{fake_part}, then in PYTHONPATH, then among what is installed"
    )
    module(fake_part, "import models")
    assert "it is looked for" not in refusal()


@pytest.mark.parametrize("where", ["net", ":build", "net:"])
def test_what_names_no_factory(where: str) -> None:
    assert "names no factory: write MODULE:FACTORY" in refusal(where)


def test_weights_that_cannot_be_loaded(fake_part: Path) -> None:
    module(fake_part, "def build():\n    return print")
    assert (
        refusal(weights=Path("w"))
        == "net:build: the weights cannot be loaded into what it gives: ValueError: there are none"
    )


def test_a_framework_that_is_missing(fake_part: Path, tmp_path: Path) -> None:
    (tmp_path / "program" / "missing_part.py").write_text("import tensorfloor")
    with pytest.raises(ModuleNotFoundError, match="tensorfloor") as missing:
        UserCode("missing", "net:build")
    assert missing.value.name == "tensorfloor"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise ValueError('2 rows\\nare too many')", "ValueError: 2 rows (net.py:4)"),
        ("sys.exit()", "it calls sys.exit(None) at net.py:4"),
    ],
)
def test_an_error_while_it_runs_leaves_it_running(body: str, said: str, fake_part: Path) -> None:
    text = f"import sys\ndef build():\n    def run(x):\n        if len(x) > 1: {body}\n        return x\n    return run"
    module(fake_part, text)
    with UserCode("fake", "net:build") as code:
        with pytest.raises(Raised) as raised:
            code.ask("run", X)
        assert str(raised.value) == said
        assert raised.value.answer["after"]
        assert code.ask("run", {"x": X["x"][:1]}).arrays["0"].shape == (1, 3)


def test_a_crash_while_it_runs_is_told_each_time(fake_part: Path) -> None:
    module(fake_part, "import os, signal\ndef build():\n    return lambda x: os.kill(os.getpid(), signal.SIGSEGV)")
    with UserCode("fake", "net:build") as code:
        for _ in range(2):
            with pytest.raises(
                ExportError, match=r"^net:build: its process ended with signal 11 .* while it was copied"
            ):
                code.ask("run", X, doing="while it was copied")


def test_what_hangs_is_ended(fake_part: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "SILENCE_SECONDS", 0.5)
    module(fake_part, "import threading\ndef build():\n    threading.Event().wait()")
    assert "its process said nothing for 0.5 s while its factory was called, and was ended" in refusal()
