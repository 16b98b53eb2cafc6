"""The asking side: a child process, bounded in silence, time and memory, whose death is one sentence.

The child runs `serving/child/pipes.py` by its path, with `python -P`, and that runs the program; the file says how a program
looks and what goes over the pipes. What the child prints never mixes with what its parent prints: its last words are kept.

Memory: a limit on the address space (RLIMIT_AS) cannot be used, since the runtimes map far more than they touch (CUDA
hundreds of gigabytes). What is resident is looked at while the child is waited for, and a child that takes more than it may
is ended. In between, and beside other processes, `oom_score_adj` 1000 makes the system's own choice fall on it first.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

from serving.child import pipes
from serving.child.pipes import Arrays, Message, Reader, packed
from serving.errors import ChildEnded, ChildRaised
from serving.machine import memory

SILENCE_SECONDS = 60.0
# Three formats on two CPUs that others keep busy: 3 minutes and two formats given up at 19, 50 s and all measured at 10.
NICE = 10  # at 19 a busy machine starves it until it looks dead
MEMORY_SHARE = 0.9  # of what is free when the child starts
LAST_WORDS_BYTES = 4096
MOST_WORDS = 300  # characters of them in a sentence
_LAST_SECONDS = 1.0  # what a process gets to end in after it has closed its pipe
_MOST_READS = 32  # of what is left in the pipe, 64 KiB each; somebody else may write on without an end
_LOOK_SECONDS = 0.1  # between two looks at its memory, and at whether it lives
_GIVE_UP_SECONDS = 0.02  # between two looks at whether anybody still wants the answer
# A runtime does not end itself so: somebody did, or a system that is short of memory.
_FROM_OUTSIDE = (-signal.SIGTERM, -signal.SIGINT, *((-signal.SIGKILL, -signal.SIGHUP) if os.name == "posix" else ()))
_ON_POSIX = os.name == "posix"


class Child:
    """A child process that answers requests; a context manager that ends it. One thread at a time asks.

    `program` is the path of a Python file, or the name of a module, which is looked for in the package that asks before
    anything else. `arguments` are the program's `sys.argv[1:]`. `environment` is the child's whole environment (None: ours).
    `most_bytes` of resident memory are the most that it may take (None: 90 % of what is free now, and no limit where the
    system does not say). It starts at once, which takes 20 ms, and loads the program when it is asked for the first time.
    """

    def __init__(
        self,
        program: Path | str,
        arguments: Sequence[str] = (),
        *,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
        most_bytes: int | None = None,
        nice: int = NICE,
    ) -> None:
        words = [str(program.absolute())] if isinstance(program, Path) else ["-m", program]
        given = dict(os.environ if environment is None else environment)
        if not isinstance(program, Path):
            # The package that runs here, not a folder of that name where the server was started.
            root = str(Path(__file__).parents[2])
            given["PYTHONPATH"] = os.pathsep.join([root, *filter(None, [given.get("PYTHONPATH")])])
        self._killed_before = memory.killed()
        free = memory.available_bytes()
        self._most_bytes = most_bytes or (int(free * MEMORY_SHARE) if free else 0)
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(Path(pipes.__file__).absolute()), *words, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=given,
            cwd=folder,
            bufsize=0,
            start_new_session=True,  # a terminal's Ctrl-C is for the parent, which ends it; what it starts ends with it
        )
        self.printed = b""
        self._reader = Reader(self._said)
        self._ended = ""  # how, once it has
        self._selector = selectors.DefaultSelector()
        assert self._process.stdin
        assert self._process.stdout
        assert self._process.stderr
        os.set_blocking(self._process.stdin.fileno(), False)
        self._selector.register(self._process.stdout, selectors.EVENT_READ)
        self._selector.register(self._process.stderr, selectors.EVENT_READ)
        self._lower(nice)

    def ask(
        self,
        header: Any,
        arrays: Arrays | None = None,
        *,
        doing: str = "while it was asked",
        silence_seconds: float = SILENCE_SECONDS,
        wall_seconds: float = float("inf"),
        told: Callable[[Message], None] = lambda message: None,
        given_up: Callable[[], bool] | None = None,
    ) -> Message:
        """The answer to a request; what comes before it is handed to `told`.

        Raises `ChildEnded` with one sentence when the child ends (by a signal, an exit code, `sys.exit`), says nothing for
        `silence_seconds`, takes more than `wall_seconds` or too much memory, or is `given_up`: it is ended then, and every
        later request raises the same. `doing` stands in that sentence, such as "while it was measured". Raises `ChildRaised`
        when the program raised an error, after which it can be asked again; `TypeError` or `ValueError` for a request that
        cannot be sent.
        """
        if self._ended:
            raise ChildEnded(self._ended)
        pieces = packed(header, arrays)
        try:
            until = time.monotonic() + wall_seconds
            return self._answer(pieces, doing, silence_seconds, until, wall_seconds, told, given_up)
        except ChildEnded as error:
            self._ended = str(error)
            raise
        except ChildRaised:
            raise
        except BaseException:
            self._ended = "its process was given up"  # an answer may still come, and would be taken for the next one's
            raise
        finally:
            if self._ended:
                self.close()

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return not self._ended and not self._exited()

    def close(self) -> None:
        """Ends the process, and what it has started, at once."""
        self._ended = self._ended or "its process was ended"
        self._kill()
        self._process.wait()
        self._selector.close()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert pipe
            with contextlib.suppress(OSError):  # what could not be sent any more
                pipe.close()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _answer(
        self,
        pieces: Sequence[bytes | memoryview],
        doing: str,
        silence_seconds: float,
        until: float,
        wall_seconds: float,
        told: Callable[[Message], None],
        given_up: Callable[[], bool] | None,
    ) -> Message:
        with contextlib.closing(self._heard(pieces, silence_seconds, until, given_up)) as heard:
            for data in heard:
                if isinstance(data, str):
                    how = data.format(silence=silence_seconds, wall=wall_seconds, doing=doing)
                    raise ChildEnded(self._sentence(how))
                for message in self._messages(data, doing):
                    if message.kind == pipes.LEFT:
                        raise ChildEnded(
                            self._sentence(f"its code called sys.exit({message.header['code']!r}) {doing}")
                        )
                    if message.kind == pipes.RAISED:
                        raise ChildRaised(message.header["type"], message.header["said"], message.header["trace"])
                    if message.kind != pipes.TOLD:
                        return message
                    told(message)
        raise self._end(doing)

    def _messages(self, data: bytes, doing: str) -> list[Message]:
        try:
            return list(self._reader.feed(data))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ChildEnded(f"its process wrote what is no answer {doing}: {error}") from error

    def _heard(
        self,
        pieces: Sequence[bytes | memoryview],
        silence_seconds: float,
        until: float,
        given_up: Callable[[], bool] | None,
    ) -> Generator[bytes | str, None, None]:
        """What comes through the pipe of the answers while the request goes out; a text says why no more is waited for."""
        child = self._process
        assert child.stdin
        assert child.stdout
        waiting = [memoryview(piece).cast("B") for piece in pieces]
        begun = time.monotonic()
        silent_at, look_at = begun + silence_seconds, begun + _LOOK_SECONDS
        longest = _GIVE_UP_SECONDS if given_up else _LOOK_SECONDS
        unsent = self._sent(child.stdin.fileno(), waiting)  # mostly all of it goes at once
        if unsent:
            self._selector.register(child.stdin, selectors.EVENT_WRITE)
        try:
            while True:
                now = time.monotonic()
                ready = self._selector.select(max(0.0, min(longest, silent_at - now, until - now)))
                named = {key.fileobj for key, _ in ready}
                if child.stderr in named and not self._listen(child.stderr.fileno()):
                    self._selector.unregister(child.stderr)
                if child.stdin in named and not self._sent(child.stdin.fileno(), waiting):
                    self._selector.unregister(child.stdin)
                    unsent = False
                if child.stdout in named:
                    silent_at = time.monotonic() + silence_seconds
                    if not (data := os.read(child.stdout.fileno(), 1024 * 1024)):
                        return
                    yield data
                if given_up and given_up():
                    yield "its process was given up {doing}"
                now = time.monotonic()
                if not ready and self._exited():  # a process that it has started holds the pipe open
                    return
                if why := self._why_no_more(now, until, silent_at, look=now >= look_at):
                    yield why
                if now >= look_at:
                    look_at = now + _LOOK_SECONDS
        finally:
            if unsent:
                self._selector.unregister(child.stdin)

    def _why_no_more(self, now: float, until: float, silent_at: float, *, look: bool) -> str:
        """Why an answer is not waited for any longer, as a sentence with gaps; empty if it is."""
        if now >= until:
            return "its process took more than {wall:g} s {doing}, and was ended"
        if now >= silent_at:
            return "its process said nothing for {silence:g} s {doing}, and was ended"
        if look and self._most_bytes and memory.resident_bytes(self._process.pid) > self._most_bytes:
            most = f"{self._most_bytes / 1e6:.0f} MB"
            return f"its process took more memory than the {most} that it may have {{doing}}, and was ended"
        return ""

    def _listen(self, descriptor: int) -> bool:
        data = os.read(descriptor, 65536)
        self._said(data)
        return bool(data)

    def _said(self, data: bytes) -> None:
        self.printed = (self.printed + data)[-LAST_WORDS_BYTES:]

    def _sent(self, descriptor: int, waiting: list[memoryview]) -> bool:
        """Whether anything is left to send; a child that has ended is found by its silence, or rather by the end of its pipe."""
        try:
            while waiting:
                written = os.write(descriptor, waiting[0][: 1024 * 1024])
                waiting[0] = waiting[0][written:]
                if not waiting[0]:
                    waiting.pop(0)
        except BlockingIOError:
            return True
        except BrokenPipeError:
            return False
        return False

    def _end(self, doing: str) -> ChildEnded:
        assert self._process.stderr
        until = time.monotonic() + _LAST_SECONDS
        while not (exited := self._exited()) and time.monotonic() < until:
            time.sleep(0.001)
        os.set_blocking(self._process.stderr.fileno(), False)
        with contextlib.suppress(BlockingIOError):
            for _ in range(_MOST_READS):
                self._listen(self._process.stderr.fileno())
        if not exited:
            return ChildEnded(self._sentence(f"its process closed its pipe {doing}, and was ended"))
        self._kill()
        code = self._process.wait()
        if code == -signal.SIGKILL and memory.killed() > self._killed_before:
            return ChildEnded(self._sentence(f"its process was killed {doing}, as the system ran out of memory"))
        if code in _FROM_OUTSIDE:
            return ChildEnded(self._sentence(f"its process was ended by somebody else {doing}, with signal {-code}"))
        how = f"exit code {code}" if code >= 0 else f"signal {-code} ({signal.strsignal(-code)})"
        return ChildEnded(self._sentence(f"its process ended with {how} {doing}"), crashed=True)

    def _sentence(self, how: str) -> str:
        lines = [line.strip() for line in self.printed.decode(errors="replace").splitlines() if line.strip()]
        last = "".join(
            f"; its last words: {line[:MOST_WORDS]}{'...' * (len(line) > MOST_WORDS)}" for line in lines[-1:]
        )
        return how + last

    def _lower(self, nice: int) -> None:
        """Makes it the first to wait for a processor, and the first to go when memory is short, as far as the system lets us."""
        if _ON_POSIX:
            with contextlib.suppress(OSError):  # it has ended already
                os.setpriority(os.PRIO_PROCESS, self._process.pid, os.getpriority(os.PRIO_PROCESS, 0) + nice)
        memory.first_to_go(self._process.pid)

    def _exited(self) -> bool:
        """Whether it has ended; the system keeps its number until it is waited for, so that no other can have it."""
        if self._process.returncode is not None or not hasattr(os, "waitid"):
            return self._process.poll() is not None
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _kill(self) -> None:
        if self._process.returncode is not None:
            return
        if not _ON_POSIX:
            self._process.kill()
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):  # it has just ended
            os.killpg(self._process.pid, signal.SIGKILL)
