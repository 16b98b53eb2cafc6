"""What a child may do to the one that asked: answer, fail, print, die, hang, take memory, and nothing else."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

from serving.child.pipes import packed
from serving.child.process import NICE, Child
from serving.errors import ChildEnded, ChildRaised
from serving.machine import memory
from tests.support.running import until

DOES = {
    "answer": "return header, {name: array * 2 for name, array in arrays.items()}",
    "count": "tell({'so far': 1}); tell({'so far': 2}, {'x': np.ones(2)}); return 'done'",
    "about": "return [sys.argv, sys.path, os.getcwd(), os.getpriority(os.PRIO_PROCESS, 0),"
    " open('/proc/self/oom_score_adj').read(), os.environ.get('SAID')]",
    "print": "print('on the way'); sys.stdout.flush(); os.system('echo from a shell'); return 1",
    "read": "return input()",
    "raise": "raise KeyError('no such thing')",
    "wordless": "raise Wordless()",
    "unsendable": "return {1, 2}",
    "sys.exit": "print('bye', flush=True); sys.exit(3)",
    "sys.exit with words": "sys.exit('no way')",
    "os._exit": "os._exit(4)",
    "segfault": "ctypes.string_at(0)",
    "abort": "print('terminate called'); sys.stdout.flush(); os.abort()",
    "hang": "time.sleep(600)",
    "chatter": "\n        while True: tell(0); time.sleep(0.01)",
    "eat": "keep.append(np.ones(60_000_000)); time.sleep(600)",
    "leave a process": "\n        if not os.fork(): time.sleep(600)\n        os.abort()",
    "fork and go on": "copy = os.fork(); copy and os.waitpid(copy, 0); return 'itself' if copy else 'a copy'",
    "close": "os.closerange(3, 100); time.sleep(600)",
    "lie deeply": "nest = b'[' * 200000; os.write(4, b'\\x93lstm\\r\\n\\x01' + len(nest).to_bytes(4, 'little') + bytes(8));"
    " os.write(4, nest); time.sleep(600)",
    "lie": f"os.write(4, {b'%s'!r} % b'nothing'); os.write(4, b'\\x93lstm\\r\\n\\x01' + b'\\xff' * 12); time.sleep(600)",
}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program") / "theirs.py"
    lines = ["import ctypes, os, sys, time", "import numpy as np", "keep = []"]
    lines += ["class Wordless(Exception):", "    def __str__(self): raise OSError", "def answer(header, arrays, tell):"]
    for name, does in DOES.items():
        lines += [f"    if header == {name!r}:", f"        {does.strip() if does[0] != chr(10) else does[9:]}"]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_program_that_imports_nothing_of_ours_answers_as_often_as_it_is_asked(program: Path) -> None:
    with Child(program) as child:
        for number in (1.0, 2.0):
            answer = child.ask("answer", {"x": np.full((2, 3), number), "e": np.zeros((0, 2), np.int64)})
            assert answer.header == "answer"
            assert answer.arrays["x"].tolist() == np.full((2, 3), 2 * number).tolist()
            assert answer.arrays["e"].shape == (0, 2)
        assert child.alive
    assert not child.alive


def test_arrays_larger_than_any_pipe_go_both_ways(program: Path) -> None:
    sent = np.arange(1_000_000, dtype=np.int64)
    with Child(program) as child:
        assert (child.ask("answer", {"x": sent}).arrays["x"] == 2 * sent).all()


def test_what_it_tells_on_the_way_is_heard_in_order(program: Path) -> None:
    heard: list[object] = []
    with Child(program) as child:
        answer = child.ask("count", told=lambda message: heard.append((message.header, list(message.arrays))))
    assert heard == [({"so far": 1}, []), ({"so far": 2}, ["x"])]
    assert answer.header == "done"


def test_it_sees_its_own_arguments_environment_and_folder_and_goes_first(program: Path, tmp_path: Path) -> None:
    with Child(program, ["a", "-b"], environment={"SAID": "yes"}, folder=tmp_path) as child:
        argv, path, folder, nice, adjusted, said = child.ask("about").header
    assert argv == [str(program), "a", "-b"]
    assert not {"", str(program.parent), str(tmp_path)} & set(path)
    assert folder == str(tmp_path)
    assert nice == min(19, os.getpriority(os.PRIO_PROCESS, 0) + NICE)
    assert adjusted.strip() == "1000"
    assert said == "yes"


def test_what_it_prints_mixes_with_nothing(program: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with Child(program) as child:
        assert child.ask("print").header == 1
        assert child.ask("print").header == 1
        with pytest.raises(ChildEnded):
            child.ask("os._exit")
    assert child.printed.decode().splitlines() == ["on the way", "from a shell"] * 2
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("does", "kind", "said"),
    [
        ("raise", "KeyError", "'no such thing'"),
        ("wordless", "Wordless", ""),
        ("unsendable", "TypeError", "Object of type set is not JSON serializable"),
        ("read", "EOFError", "EOF when reading a line"),
    ],
)
def test_what_it_raises_is_told_and_it_can_be_asked_again(does: str, kind: str, said: str, program: Path) -> None:
    with Child(program) as child:
        with pytest.raises(ChildRaised) as raised:
            child.ask(does)
        assert (raised.value.kind, raised.value.said) == (kind, said)
        assert "Traceback" in raised.value.trace
        assert child.ask("answer").header == "answer"


@pytest.mark.parametrize(
    ("does", "sentence"),
    [
        ("sys.exit", "its code called sys.exit(3) while it was tried; its last words: bye"),
        ("sys.exit with words", "its code called sys.exit('no way') while it was tried"),
        ("os._exit", "its process ended with exit code 4 while it was tried"),
        ("segfault", "its process ended with signal 11 (Segmentation fault) while it was tried"),
        ("abort", "its process ended with signal 6 (Aborted) while it was tried; its last words: terminate called"),
        ("leave a process", "its process ended with signal 6 (Aborted) while it was tried"),
        ("hang", "its process said nothing for 0.5 s while it was tried, and was ended"),
    ],
)
def test_its_death_is_one_sentence(does: str, sentence: str, program: Path) -> None:
    with Child(program) as child:
        assert child.ask("answer").header == "answer"
        for _ in range(2):  # whoever asks a dead one learns the same
            with pytest.raises(ChildEnded) as ended:
                child.ask(does, doing="while it was tried", silence_seconds=0.5)
            assert str(ended.value) == sentence
        assert not child.alive


def test_whoever_talks_without_an_end_is_ended(program: Path) -> None:
    with Child(program) as child, pytest.raises(ChildEnded, match=r"took more than 0\.5 s while it was asked"):
        child.ask("chatter", wall_seconds=0.5)


@pytest.mark.parametrize("does", ["hang", "chatter"])
def test_whoever_nobody_waits_for_any_more_is_ended(does: str, program: Path) -> None:
    looks = iter([False, False, True])
    with Child(program) as child:
        with pytest.raises(ChildEnded, match="its process was given up while it was asked") as ended:
            child.ask(does, given_up=lambda: next(looks))
        assert not ended.value.crashed
        assert not child.alive


def test_an_answer_that_is_there_is_not_given_up(program: Path) -> None:
    with Child(program) as child:
        assert child.ask("answer", given_up=lambda: False).header == "answer"


def test_whoever_takes_too_much_memory_is_ended(program: Path) -> None:
    with (
        Child(program, most_bytes=300_000_000) as child,
        pytest.raises(ChildEnded, match="more memory than the 300 MB"),
    ):
        child.ask("eat")


def test_whoever_closes_its_pipe_is_ended(program: Path) -> None:
    with Child(program) as child, pytest.raises(ChildEnded, match="closed its pipe while it was asked"):
        child.ask("close")


@pytest.mark.parametrize("how", ["lie", "lie deeply"])
def test_whoever_writes_into_the_pipe_is_ended(how: str, program: Path) -> None:
    with Child(program) as child, pytest.raises(ChildEnded, match="wrote what is no answer while it was asked"):
        child.ask(how)


def test_a_death_for_want_of_memory_is_called_so(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = iter([4, 5])
    monkeypatch.setattr(memory, "killed", lambda: next(counts))
    with Child(program) as child:
        os.kill(child._process.pid, signal.SIGKILL)
        with pytest.raises(ChildEnded, match="was killed while it was asked, as the system ran out of memory"):
            child.ask("answer")


def test_a_program_that_cannot_be_loaded_is_an_error_and_no_death(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import no_such_package_anywhere\n")
    with Child(tmp_path / "broken.py") as child, pytest.raises(ChildRaised, match="no_such_package_anywhere"):
        child.ask(1)
    with Child(tmp_path / "missing.py") as child, pytest.raises(ChildRaised, match=r"missing\.py"):
        child.ask(1)


def test_an_interpreter_that_does_not_start_is_told_with_its_last_words(
    tmp_path: Path, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    (tmp_path / "python").write_text("#!/bin/sh\necho noise >&2; echo 'no such module' >&2; exit 3\n")
    (tmp_path / "python").chmod(0o755)
    with Child(program) as child, pytest.raises(ChildEnded) as ended:
        child.ask("answer", {"x": np.ones(100_000)})
    assert str(ended.value) == "its process ended with exit code 3 while it was asked; its last words: no such module"


def test_whoever_does_not_listen_is_ended(tmp_path: Path, program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    (tmp_path / "python").write_text("#!/bin/sh\nsleep 600\n")
    (tmp_path / "python").chmod(0o755)
    with Child(program) as child, pytest.raises(ChildEnded, match=r"said nothing for 0\.2 s"):
        child.ask("answer", {"x": np.ones(100_000)}, silence_seconds=0.2)


def test_it_ends_when_whoever_asks_is_gone_whatever_it_does(program: Path) -> None:
    child = Child(program)
    try:
        assert child.ask("answer").header == "answer"
        assert child._process.stdin
        for piece in packed("hang"):
            os.write(child._process.stdin.fileno(), piece)
        child._process.stdin.close()
        until(lambda: not child.alive)
        assert child._process.wait() == 0
    finally:
        child.close()


def test_what_it_has_started_ends_with_it(tmp_path: Path) -> None:
    (tmp_path / "starts.py").write_text(
        "import subprocess\ndef answer(header, arrays, tell):\n    return subprocess.Popen(['sleep', '600']).pid\n"
    )
    with Child(tmp_path / "starts.py") as child:
        started = child.ask(None).header
    until(lambda: not Path(f"/proc/{started}").exists() or "Z" in Path(f"/proc/{started}/stat").read_text())


def test_a_module_is_that_of_the_package_that_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder called `serving` where the server was started changes nothing."""
    (tmp_path / "serving").mkdir()
    (tmp_path / "serving" / "__init__.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    with Child("serving.machine.memory") as child, pytest.raises(ChildRaised, match="has no attribute 'answer'"):
        child.ask(1)


def test_a_copy_that_the_program_makes_of_itself_answers_nothing(program: Path) -> None:
    """Else its answer would be taken for that to the next question."""
    with Child(program) as child:
        assert child.ask("fork and go on", silence_seconds=20).header == "itself"
        assert child.ask("answer").header == "answer"


def test_a_process_that_somebody_else_ends_has_not_crashed(program: Path) -> None:
    """A system that is short of memory, or a person: it says nothing about what the program was doing."""
    with Child(program) as child:
        child.ask("about")
        os.kill(child._process.pid, signal.SIGTERM)
        with pytest.raises(ChildEnded, match="was ended by somebody else while it was asked, with signal 15") as raised:
            child.ask("about", doing="while it was asked")
    assert not raised.value.crashed
