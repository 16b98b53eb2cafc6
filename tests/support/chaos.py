"""Does harm to a server with a store of sequences, and looks whether its sequences go on as if nothing had been.

    python -m tests.support.chaos --rounds 100 --report docs/track-record.md

Clients (`tests.support.chaos_clients`) ask meanwhile. A round does one kind of harm, sees the server back, and each client
answered. `--rounds` is how often it is killed under load; the other kinds are done as often, all together. Where mounts are
allowed half of the rounds have the store on a small file system of its own, which gets full and read-only; elsewhere only a
limit on the size of files stands for a full disk.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import random
import resource
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from serving.errors import StartupError
from serving.launch import LaunchedServer
from serving.sequences.file_disk import FILE
from tests.support import chaos_clients, chaos_page, power_loss
from tests.support.chaos_clients import FEATURES, NOT_WRITTEN, STATEFUL, STATELESS, Crowd, Recording
from tests.support.running import until
from tests.support.stepping import answered, step
from tests.support.wire import RawClient

FLAGS = ("--backend", "onnx_runtime", "--model-control-mode", "explicit", "--load-model", "*")
LOG = FILE + "-wal"
DISK_BYTES = 96 * 1024 * 1024  # of the file system of its own
CLIENTS = 6
CLOCK = """import os, time
_back = int(os.environ["CHAOS_CLOCK_BACK_NS"])
_now, _now_ns = time.time, time.time_ns
time.time = lambda: _now() - _back / 1e9
time.time_ns = lambda: _now_ns() - _back
"""
STRACE = shutil.which("strace")


class Doomed(LaunchedServer):
    """A server that is killed while it starts: so many seconds after its process."""

    def __init__(self, *given: Any, seconds: float, **named: Any) -> None:
        self._seconds = seconds
        self._timer: threading.Timer | None = None
        super().__init__(*given, **named)

    def wait_for(self, message: str, timeout_seconds: float, *others: str) -> Mapping[str, Any]:
        if self._timer is None:
            self._timer = threading.Timer(self._seconds, self.process.kill)
            self._timer.start()
        return super().wait_for(message, timeout_seconds, *others)


@dataclasses.dataclass
class Tally:
    """Of one kind of harm: how often, and what came."""

    rounds: int = 0
    done: Counter[str] = dataclasses.field(default_factory=Counter)
    came: Counter[str] = dataclasses.field(default_factory=Counter)
    starting: list[float] = dataclasses.field(default_factory=list)  # seconds until a server was ready


class Chaos:
    """A server, its store, and those who ask it. `seed` decides what is done, and when."""

    def __init__(
        self,
        folder: Path,
        repository: Path,
        recordings: Sequence[Recording],
        seed: int,
        *,
        own_disk: bool,
    ) -> None:
        self.draw = random.Random(f"{seed} {own_disk}")
        self.tallies: dict[str, Tally] = {}
        self.own_disk = own_disk
        self.disk = folder / "disk"
        self.disk.mkdir()
        self.store = self.disk / "store"
        self._folder, self._repository = folder, repository
        self._environment = dict(os.environ)
        self._clock_back_ns = 0
        self._aside = 0
        self._server: LaunchedServer | None = None
        self._tally = Tally()
        self._x = np.random.default_rng(seed).normal(size=(1, 5, FEATURES)).astype(np.float32)
        self._plain: bytes | None = None
        if own_disk:
            command("mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "chaos", str(self.disk))
        self.crowd = Crowd(recordings, CLIENTS, seed)

    @property
    def server(self) -> LaunchedServer:
        assert self._server
        return self._server

    @property
    def flags(self) -> Sequence[str]:
        return (*FLAGS, "--sequence-store", f"file:{self.store}")

    def close(self) -> None:
        """Nothing of it is left."""
        self.crowd.over = True
        self.crowd.serve(None)
        if self._server:
            self.die()
        if self.own_disk:
            command("umount", str(self.disk))

    # What rounds are made of.

    def start(self) -> None:
        """A server on the store; from then on the clients ask it."""
        begun = time.monotonic()
        self._server = LaunchedServer(self._repository, *self.flags, environment=self._environment)
        self._tally.starting.append(time.monotonic() - begun)
        self.crowd.serve(self.server.address)

    def die(self) -> None:
        """kill -9."""
        os.kill(self.server.process.pid, signal.SIGKILL)
        self._gone()

    def leave(self) -> None:
        """SIGTERM; it must end cleanly."""
        code, log = self.server.stop(), self.server.log()
        self._gone()
        said = "; ".join(str(line["message"]) for line in log[-8:])
        assert code == 0, f"a server that was told to leave has ended with {code}: {said}"

    def _gone(self) -> None:
        self.crowd.serve(None)
        self.server.process.wait()
        self.server._clean_up()
        self._server = None

    def refused(self, words: str) -> str:
        """A start that must be refused, in a sentence that has these words, which come back."""
        try:
            server = LaunchedServer(self._repository, *self.flags, environment=self._environment)
        except StartupError as error:
            one_sentence(error, words)
            return words
        server.process.kill()
        server._clean_up()
        raise AssertionError("a start on a store that cannot be used was not refused")

    def move_away(self) -> None:
        """The store's folder is moved away, as the server says; what was in it is gone for its clients."""
        self._aside += 1
        self.crowd.damaged()
        shutil.move(self.store, self._folder / f"aside {self._aside}")

    def load_for(self, most: float) -> None:
        """Clients ask for a while; then whatever comes is in the middle of something."""
        time.sleep(self.draw.uniform(0, most))

    def round(self, kind: str, harm: Callable[[Chaos], None]) -> None:
        """One round. Raises `AssertionError` where a promise was broken."""
        self._tally = self.tallies.setdefault(kind, Tally())
        self._tally.rounds += 1
        if self._server is None:
            self.start()
        self.crowd.goes_on()
        self.crowd.clear()
        harm(self)
        self.crowd.goes_on()
        assert self.stateless_is_right(), "a stateless model answers otherwise"
        self._tally.came.update(self.crowd.clear())

    def stateless_is_right(self) -> bool:
        """Whether a model that keeps nothing answers as ever."""
        with RawClient(self.server.address) as client:
            y = answered(client.method("ModelInfer")(step(STATELESS, self._x), timeout=30))["y"].tobytes()
        self._plain = self._plain or y
        return y == self._plain

    # The harms.

    def kill(self) -> None:
        self.load_for(0.4)
        self.die()
        self._tally.done["kill -9"] += 1
        self.start()

    def kill_while_writing(self) -> None:
        """Each write takes long, so that most likely one is under way: what is computed and not written is nobody's yet."""
        delay_us = self.draw.choice((5_000, 50_000))
        with self._tampering("pwrite64", f"delay_enter={delay_us}"):
            self.crowd.goes_on()
            self.load_for(0.2)
            self.die()
        self._tally.done["kill -9"] += 1
        self.start()

    @contextlib.contextmanager
    def _tampering(self, calls: str, how: str) -> Iterator[subprocess.Popen[bytes]]:
        """Something is done to these system calls of the server."""
        assert STRACE
        flags = ("-f", "-qq", "-o", os.devnull, "-e", f"trace={calls}", "-e", f"inject={calls}:{how}")
        tracer = subprocess.Popen([STRACE, *flags, "-p", str(self.server.process.pid)], stderr=subprocess.DEVNULL)
        try:
            yield tracer
        finally:
            tracer.terminate()
            tracer.wait()

    def terminate(self) -> None:
        self.load_for(0.4)
        self.leave()
        self._tally.done["SIGTERM"] += 1
        self.start()

    def stop(self) -> None:
        self.load_for(0.2)
        os.kill(self.server.process.pid, signal.SIGSTOP)
        time.sleep(self.draw.choice((0.2, 1, chaos_clients.CALL_SECONDS + 0.5)))
        os.kill(self.server.process.pid, signal.SIGCONT)
        self._tally.done["SIGSTOP"] += 1
        if self.draw.random() < 0.3:
            self.die()
            self._tally.done["kill -9"] += 1
            self.start()

    def kill_while_loading(self) -> None:
        text = chaos_clients.CONFIG_TEXT.replace("16", str(self.draw.choice((4, 8, 32))), 1)
        loads = [threading.Thread(target=self._load, args=(STATEFUL, text)) for _ in range(2)]
        for each in loads:
            each.start()
        self.load_for(0.5)
        self.die()
        for each in loads:
            each.join()
        self._tally.done["kill -9"] += 1
        self.start()

    def _load(self, model: str, text: str) -> None:
        from google.protobuf import json_format, text_format

        from protos.model_config_pb2 import ModelConfig

        config = json_format.MessageToJson(text_format.Parse(text, ModelConfig()), preserving_proto_field_name=True)
        with contextlib.suppress(grpc.RpcError), RawClient(self.server.address) as client:
            client.load(model, config=config)

    def kill_while_starting(self) -> None:
        self.load_for(0.2)
        self.die()
        for _ in range(self.draw.choice((1, 2))):
            with contextlib.suppress(StartupError):
                seconds = self.draw.uniform(0.1, 1.5)
                server = Doomed(self._repository, *self.flags, seconds=seconds, environment=self._environment)
                server.process.kill()
                server._clean_up()
            self._tally.done["kill -9"] += 1
        self.start()

    def full(self) -> None:
        self.leave()  # which takes the log away, so that it needs room again
        self.start()
        ballast = self.disk / "ballast"
        spare = self.draw.randrange(64 * 1024)
        if self.own_disk:
            self._tally.done["disk full"] += 1
        else:
            used = (self.store / LOG).stat().st_blocks * 512  # it is made as long as it gets, and is empty behind that
            self._limit(used + spare)
            self._tally.done["file at its limit"] += 1

        def fails() -> bool:
            if self.own_disk:
                self._fill(ballast, spare)  # again and again: the store makes itself smaller when it has no room
            return self.crowd.counts[NOT_WRITTEN] >= 20 or bool(self.crowd.wrong)

        until(fails, lambda: "writes do not fail")
        assert self.stateless_is_right(), "a stateless model answers otherwise while the disk is full"
        if self.draw.random() < 0.5:
            self.die()
            self._tally.done["kill -9"] += 1
            if self.own_disk:
                self._fill(ballast, spare)
                self._tally.came[f"start refused: {self.refused('there is no room for it')}"] += 1
                ballast.unlink()
            self.start()
        elif self.own_disk:
            ballast.unlink()
        else:
            self._limit(resource.RLIM_INFINITY)

    def _fill(self, ballast: Path, spare: int) -> None:
        """Leaves no more room than that."""
        disk = os.statvfs(self.disk)
        room = disk.f_bavail * disk.f_frsize - spare
        if room > 0:
            with ballast.open("ab") as file, contextlib.suppress(OSError):
                os.posix_fallocate(file.fileno(), file.tell(), room)

    def _limit(self, most_bytes: int) -> None:
        pid = self.server.process.pid
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (most_bytes, hard))

    def read_only(self) -> None:
        self.load_for(0.2)
        self.die()
        command("mount", "-o", "remount,ro", str(self.disk))
        try:
            self._tally.done["remount read-only"] += 1
            self._tally.came[f"start refused: {self.refused('it cannot be written')}"] += 1
        finally:
            command("mount", "-o", "remount,rw", str(self.disk))
        self.start()

    def failing_calls(self) -> None:
        """The system calls by which the store is written fail for a while, as on a disk that is going, or was made read-only."""
        error = self.draw.choice(("EIO", "EROFS", "ENOSPC"))
        calls = self.draw.choice(("pwrite64", "pwrite64,fdatasync,fsync"))
        with self._tampering(calls, f"error={error}") as tracer:
            until(lambda: self.crowd.counts[NOT_WRITTEN] >= 10 or bool(self.crowd.wrong) or tracer.poll() is not None)
            assert tracer.poll() is None, "strace has ended"
            self._tally.done[f"{error} of the system's calls"] += 1
            assert self.stateless_is_right(), "a stateless model answers otherwise while the disk fails"
            if self.draw.random() < 0.3:
                self.die()
                self._tally.done["kill -9"] += 1
        if self._server is None:
            self.start()

    def clock_back(self) -> None:
        self._clock_back_ns += int(self.draw.uniform(60, 86_400) * 1e9)
        folder = self._folder / "clock"
        folder.mkdir(exist_ok=True)
        (folder / "sitecustomize.py").write_text(CLOCK)
        self._environment |= {"PYTHONPATH": str(folder), "CHAOS_CLOCK_BACK_NS": str(self._clock_back_ns)}
        self._tally.done["clock set back"] += 1
        if self.draw.random() < 0.5:
            self.die()
            self._tally.done["kill -9"] += 1
        else:
            self.leave()
        self.start()

    def damage(self, name: str = "", how: str = "") -> None:
        """The store's files are cut off or changed while there is no server. Whatever comes, no answer may be wrong."""
        self.load_for(0.4)
        if not name and self.draw.random() < 0.3:
            self.leave()  # there is no log then
        else:
            self.die()
        kept = self._folder / "kept"
        shutil.copytree(self.store, kept)
        names = [name for name in (FILE, LOG) if (self.store / name).exists() and (self.store / name).stat().st_size]
        name, how = name or self.draw.choice(names), how or self.draw.choice(("cut off", "bits flipped", "zeros"))
        spoil(self.store / name, how, self.draw)
        self._tally.done[f"{name.removeprefix(FILE) or 'file'}: {how}"] += 1
        try:
            try:
                self._server = LaunchedServer(self._repository, *self.flags, environment=self._environment)
            except StartupError as error:
                one_sentence(error, "it is damaged")
                self._tally.came["start refused: it is damaged"] += 1
                if self.draw.random() < 0.5:
                    shutil.rmtree(self.store)
                    shutil.copytree(kept, self.store)  # sequences go on, all of them
                else:
                    self.move_away()
            else:
                self.crowd.damaged()
                self.crowd.serve(self.server.address)
                try:
                    self.crowd.goes_on()
                    self._tally.came["served; what was damaged is refused by name"] += 1
                except AssertionError:
                    if self.crowd.wrong:
                        raise
                    self._tally.came["started, and refused every step (UNAVAILABLE)"] += 1
                self.die()
                self.move_away()
        finally:
            shutil.rmtree(kept)
        self.start()
        self.crowd.forgets()


HARMS: Mapping[str, Callable[[Chaos], None]] = {
    "kill -9 under load": Chaos.kill,
    "kill -9 in the middle of a write": Chaos.kill_while_writing,
    "SIGTERM under load": Chaos.terminate,
    "SIGSTOP and SIGCONT": Chaos.stop,
    "kill -9 while a model is loaded anew": Chaos.kill_while_loading,
    "kill -9 while the server starts and recovers": Chaos.kill_while_starting,
    "disk full, and room again": Chaos.full,
    "disk read-only at start": Chaos.read_only,
    "writes and syncs fail": Chaos.failing_calls,
    "clock set back": Chaos.clock_back,
    "store cut off or changed": Chaos.damage,
}
KILL = "kill -9 under load"


def one_sentence(error: StartupError, words: str) -> None:
    """A start was refused with one sentence about the store, which has these words."""
    told = [line for line in str(error).splitlines() if "--sequence-store" in line]
    assert len(told) == 1, f"one sentence about the store is wanted: {error}"
    assert words in told[0], told[0]


def spoil(path: Path, how: str, draw: random.Random) -> None:
    """Cuts a file off, or changes some of it."""
    data = bytearray(path.read_bytes())
    used = max(1, len(data.rstrip(b"\0")))  # a log is long, and empty behind what was written
    begin = draw.randrange(used)
    if how == "cut off":
        del data[begin:]
    elif how == "zeros":
        data[begin : begin + 4096] = bytes(len(data[begin : begin + 4096]))
    else:
        for _ in range(draw.choice((1, 10, 100))):
            data[draw.randrange(used)] ^= 1 << draw.randrange(8)
    path.write_bytes(data)


def command(*words: str) -> None:
    """Runs it. Raises `CalledProcessError`."""
    subprocess.run(words, check=True, capture_output=True)


def mounts() -> bool:
    """Whether file systems can be mounted here."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            command("mount", "-t", "tmpfs", "-o", "size=65536", "chaos", folder)
        except (OSError, subprocess.CalledProcessError):
            return False
        command("umount", folder)
        return True


def traces() -> bool:
    """Whether a process can be traced here."""
    try:
        return (
            STRACE is not None and not subprocess.run([STRACE, "-qq", "-o", os.devnull, "true"], check=False).returncode
        )
    except OSError:
        return False


def kinds(*, own_disk: bool) -> list[str]:
    """The kinds of harm that can be done here."""
    missing = {"disk read-only at start"} if not own_disk else set()
    missing |= set() if traces() else {"writes and syncs fail", "kill -9 in the middle of a write"}
    return [kind for kind in HARMS if kind not in missing]


def prepare(
    folder: Path, seed: int, trained: Path | None = None, formats: Sequence[str] = ("onnx_runtime",)
) -> tuple[Path, list[Recording]]:
    """Models to serve, with a trained one if its folder is named, and what they answer without a store and without harm."""
    repository, models = folder / "repository", {STATEFUL: FEATURES}
    chaos_clients.write(repository, formats)
    if trained:
        copied = repository / trained.name
        shutil.copytree(trained / "1", copied / "1")
        (copied / "config.pbtxt").write_text(chaos_clients.CONFIG_TEXT)
        inputs = json.loads((copied / "1" / "spec.json").read_text())["inputs"]
        models[trained.name] = next(each["shape"][-1] for each in inputs if each["name"] == "x")
    with LaunchedServer(repository, *FLAGS) as server:
        recordings = chaos_clients.record(server, models, seed)
    return repository, recordings


def run(
    order: Sequence[str],
    seed: int,
    prepared: tuple[Path, Sequence[Recording]],
    *,
    own_disk: bool,
    told: Callable[[str], None] = print,
    harms: Mapping[str, Callable[[Chaos], None]] | None = None,
) -> Mapping[str, Tally]:
    """Rounds of these kinds in this order; what was done, and what came. Raises `AssertionError` where a promise was broken."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        chaos = Chaos(Path(folder), *prepared, seed, own_disk=own_disk)
        try:
            for number, kind in enumerate(order, 1):
                began = time.monotonic()
                try:
                    chaos.round(kind, (harms or HARMS)[kind])
                except AssertionError as error:
                    log = chaos._server.log()[-5:] if chaos._server else ()
                    said = "\n".join(str(line["message"]) for line in log)
                    raise AssertionError(f"round {number} of seed {seed}, {kind}: {error}\n{said}") from error
                told(f"{number} of {len(order)}, {kind}: {time.monotonic() - began:.1f} s")
            chaos.crowd.finish()
        finally:
            chaos.close()
        return chaos.tallies


def main() -> int:
    parser = argparse.ArgumentParser(description="Does harm to a server with a store of sequences.")
    parser.add_argument("--rounds", type=int, default=100, help="kills under load; as many of the others (default 100)")
    parser.add_argument(
        "--seed", type=int, default=None, help="decides what is done, and when (default: another each time)"
    )
    parser.add_argument("--trained", type=Path, default=None, help="folder of a trained model that is asked, too")
    parser.add_argument("--kind", choices=list(HARMS), default=None, help="this one alone; writes nothing")
    parser.add_argument("--report", type=Path, default=None, help="the page whose table is replaced")
    asked = parser.parse_args()
    seed = secrets.randbits(31) if asked.seed is None else asked.seed
    print(f"seed {seed}", flush=True)
    tallies: dict[str, Tally] = {}
    with tempfile.TemporaryDirectory(prefix="models-") as folder:
        prepared = prepare(Path(folder), seed, asked.trained)
        places = (False, True) if mounts() else (False,)
        for own_disk in places:
            order = ordered(asked.rounds, seed, own_disk=own_disk, places=len(places), kind=asked.kind)
            for kind, tally in run(order, seed, prepared, own_disk=own_disk, told=_flushed).items():
                whole = tallies.setdefault(kind, Tally())
                whole.rounds += tally.rounds
                whole.done += tally.done
                whole.came += tally.came
                whole.starting += tally.starting
    power = power_loss.tried(seed) if traces() and not asked.kind else []
    page = chaos_page.render(seed, tallies, power, [kind for kind in HARMS if kind not in tallies])
    print(page)
    if asked.report:
        chaos_page.replace(asked.report, page)
    return 0


def ordered(rounds: int, seed: int, *, own_disk: bool, places: int, kind: str | None) -> list[str]:
    """What is done in one of these places: half of it kills under load, the rest as evenly as may be."""
    share = rounds // places + (rounds % places if not own_disk else 0)
    possible = kinds(own_disk=own_disk)
    if kind:
        return [kind] * share if kind in possible else []
    others = [each for each in possible if each != KILL]
    order = [KILL] * share + [others[place % len(others)] for place in range(share)]
    random.Random(seed).shuffle(order)
    return order


def _flushed(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
