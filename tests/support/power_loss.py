"""What a store holds after the machine's power was lost: what was synced, and of the rest as much as the disk cared to write.

A server's own system calls are recorded by strace while clients ask it. From them follows what the files held at any moment
on a disk that keeps what was synced, and either nothing of the rest or some of it, in pieces of a sector. `tried` looks at
moments by chance: every step that a client had an answer to by then must be there, the last ones by asking a server.
"""

from __future__ import annotations

import dataclasses
import random
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from serving.launch import LaunchedServer
from serving.sequences import lost_writes, records
from serving.sequences.file_disk import DURABILITIES, FILE, LOCK, LOG, Durability, FileDisk
from tests.support import chaos_clients
from tests.support.chaos_clients import FEATURES, STATEFUL, Held, Recording
from tests.support.stepping import epoch
from tests.support.wire import RawClient

CALLS = "pwrite64,ftruncate,fsync,fdatasync"
LINE = re.compile(
    r"(?P<at>[\d.]+) (?P<call>\w+)\(\d+<(?P<path>[^>]*)>(?P<given>.*)\) += (?P<came>-?\d+).*<(?P<took>[\d.]+)>$"
)
WRITE = re.compile(r', "(?P<hex>(?:\\x[0-9a-f]{2})*)", (?P<count>\d+), (?P<place>\d+)$')
SECTOR = 512
SECONDS = 3.0  # for which clients ask
CLIENTS, EACH = 4, 3
MOMENTS = 40
ASKED = 3  # moments of these, after which a server is asked


class Call(NamedTuple):
    """A system call on one of the store's files: `content` is None where it syncs, and `size` that of a file that is cut."""

    began: float
    ended: float
    file: str
    place: int = 0
    content: bytes | None = None
    size: int | None = None


class Answer(NamedTuple):
    """A client had the answer to that message of a sequence at that time."""

    at: float
    held: Held
    number: int


@dataclasses.dataclass
class Found:
    """Of one durability: answers that were looked for over all moments, those that were not there, and moments with such."""

    durability: Durability
    moments: int = 0
    looked_for: int = 0
    lost: int = 0
    moments_with_loss: int = 0
    asked: int = 0  # steps that a server was asked for after it


class Run(NamedTuple):
    """What has happened: the files as they were at first, the calls, and the answers."""

    at_first: Mapping[str, bytes]
    calls: Sequence[Call]
    answers: Sequence[Answer]


def recorded(
    folder: Path, repository: Path, recordings: Sequence[Recording], durability: Durability, seconds: float = SECONDS
) -> Run:
    """Clients ask a server whose calls are recorded."""
    store, traced = folder / "store", folder / "calls"
    flags = ("--backend", "onnx_runtime", "--sequence-store", f"file:{store}", "--sequence-durability", durability)
    answers: list[Answer] = []
    with LaunchedServer(repository, *flags) as server:
        at_first = {name: (store / name).read_bytes() for name in (FILE, LOG, LOCK)}
        at_first[LOCK] = at_first[LOCK].replace(
            lost_writes.boot().encode(), b"before"
        )  # the machine has started anew since
        how = ("-ff", "-y", "-ttt", "-T", "-xx", "-s", "1000000", "-e", f"trace={CALLS}", "-e", "signal=none")
        command = ["strace", *how, "-o", str(traced), "-p", str(server.process.pid)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
            assert tracer.stderr
            assert "attached" in tracer.stderr.readline()
            clients = [
                threading.Thread(target=_ask, args=(server.address, number, recordings, answers, seconds))
                for number in range(CLIENTS)
            ]
            for client in clients:
                client.start()
            for client in clients:
                client.join()
            tracer.terminate()
            tracer.wait()
    calls = [call for file in folder.glob("calls.*") for call in _calls(file.read_text())]
    assert calls, "strace has seen no call on the store's files"
    return Run(at_first, sorted(calls), sorted(answers, key=lambda answer: answer.at))


def _ask(address: str, number: int, recordings: Sequence[Recording], answers: list[Answer], seconds: float) -> None:
    over = time.monotonic() + seconds
    with RawClient(address) as client:
        ask, turn = client.method("ModelInfer"), 0
        while time.monotonic() < over:
            turn += 1
            chosen = recordings[(number + turn) % len(recordings)]
            all_held = [Held(chosen, f"{number}, {turn}, {each}", turn, 0, 0) for each in range(EACH)]
            for place in range(len(chosen.messages)):
                for held in all_held:
                    answer = ask(held.message(place), timeout=60)
                    answers.append(Answer(time.time(), held, place))
                    held.epoch = epoch(answer)
                    assert answer.raw_output_contents[0] == chosen.answers[place]
                if time.monotonic() >= over:
                    break


def _calls(text: str) -> list[Call]:
    """The calls on the store's files of one thread."""
    calls = []
    for line in text.splitlines():
        found = LINE.match(line)
        if found is None or int(found["came"]) < 0:
            continue
        file = Path(
            bytes.fromhex(found["path"].replace("\\x", "")).decode() if "\\x" in found["path"] else found["path"]
        ).name
        if file not in (FILE, LOG):
            continue
        began = float(found["at"])
        ended = began + float(found["took"])
        if found["call"] == "pwrite64":
            wrote = WRITE.match(found["given"])
            assert wrote, f"not all of a write was recorded: {line[:200]}"
            content = bytes.fromhex(wrote["hex"].replace("\\x", ""))[: int(found["came"])]
            calls.append(Call(began, ended, file, int(wrote["place"]), content))
        elif found["call"] == "ftruncate":
            calls.append(Call(began, ended, file, size=int(found["given"].removeprefix(", "))))
        else:
            calls.append(Call(began, ended, file))
    return calls


def left(run: Run, moment: float, draw: random.Random | None = None) -> Mapping[str, bytes]:
    """What the files hold when the power is lost at that moment. Of what was not synced nothing is there, or what `draw` says."""
    files = {name: bytearray(content) for name, content in run.at_first.items()}
    waiting: dict[str, list[Call]] = {name: [] for name in files}
    for call in run.calls:
        if call.content is not None or call.size is not None:
            if call.began <= moment:
                waiting[call.file].append(call)
        elif call.ended <= moment:
            for earlier in waiting[call.file]:
                _do(files[call.file], earlier)
            waiting[call.file].clear()
    for name, calls in waiting.items():
        for call in calls if draw else ():
            assert draw
            if call.size is not None:
                if draw.random() < 0.5:
                    _do(files[name], call)
                continue
            assert call.content is not None
            for begin in range(0, len(call.content), SECTOR):
                if draw.random() < 0.5:
                    part = call.content[begin : begin + SECTOR]
                    _do(files[name], call._replace(place=call.place + begin, content=part))
    return {name: bytes(content) for name, content in files.items()}


def _do(file: bytearray, call: Call) -> None:
    if call.size is not None:
        del file[call.size :]
        file.extend(bytes(call.size - len(file)))
    else:
        assert call.content is not None
        file.extend(bytes(max(0, call.place - len(file))))
        file[call.place : call.place + len(call.content)] = call.content


def look(
    run: Run,
    folder: Path,
    durability: Durability,
    seed: int,
    repository: Path,
    moments: int = MOMENTS,
    asked: int = ASKED,
) -> Found:
    """Loses the power at moments by chance, and looks for every step that was answered before."""
    draw, found = random.Random(seed), Found(durability, moments)
    first, last = run.answers[0].at, run.answers[-1].at
    for turn in range(moments):
        moment = draw.uniform(first, last)
        store = folder / f"left {turn}"
        store.mkdir(mode=0o700)
        for name, content in left(run, moment, draw if turn % 2 else None).items():
            (store / name).write_bytes(content)
        answered = {answer.held: answer.number + 1 for answer in run.answers if answer.at <= moment}
        taken = _taken(store, durability)
        lost = sum(max(0, count - taken.get(held.id, 0)) for held, count in answered.items())
        found.looked_for += sum(answered.values())
        found.lost += lost
        found.moments_with_loss += lost > 0
        if turn < asked and not lost:
            found.asked += _go_on(store, repository, answered)
        shutil.rmtree(store)
    return found


def _taken(store: Path, durability: Durability) -> Mapping[int | str, int]:
    """How many steps of each sequence the store holds."""
    disk = FileDisk.open(store, durability)
    try:
        found = [records.unpack(record) for _, record in disk.scan(STATEFUL, -1, 1_000_000)]
    finally:
        disk.close()
    return {record.key[1]: record.taken for record in found}


def _go_on(store: Path, repository: Path, answered: Mapping[Held, int]) -> int:
    """A server answers the next step of each sequence that has one, as without interruption; how many."""
    asked = 0
    flags = ("--backend", "onnx_runtime", "--sequence-store", f"file:{store}")
    with LaunchedServer(repository, *flags) as server, RawClient(server.address) as client:
        for held, number in answered.items():
            if number < len(held.recording.messages):
                answer = client.method("ModelInfer")(held.message(number), timeout=60)
                assert answer.raw_output_contents[0] == held.recording.answers[number], "another answer than before"
                asked += 1
    return asked


def tried(seed: int) -> list[Found]:
    """Loses the power of a server of each durability."""
    found = []
    with tempfile.TemporaryDirectory(prefix="power-") as name:
        repository = Path(name) / "repository"
        chaos_clients.write(repository)
        with LaunchedServer(repository, "--backend", "onnx_runtime") as server:
            recordings = chaos_clients.record(server, {STATEFUL: FEATURES}, seed)
        for durability in DURABILITIES:
            folder = Path(name) / durability
            folder.mkdir()
            run = recorded(folder, repository, recordings, durability)
            found.append(look(run, folder, durability, seed, repository))
    return found
