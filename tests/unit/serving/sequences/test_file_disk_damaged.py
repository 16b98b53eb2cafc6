"""Files that were cut off, or have flipped bits: what is read was written, or it is an error in words; never a crash."""

from __future__ import annotations

import functools
import os
import random
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from serving.errors import StoreFailed, StoreUnusable
from serving.sequences.disk import Row
from serving.sequences.file_disk import FILE, PAGE_BYTES, FileDisk

ROOT = Path(__file__).parents[4]
WAL = FILE + "-wal"
ROUNDS, COPIED = 5, 2  # after that round the log is copied into the file, and every other key is written no more
TRIALS = 30  # of each kind, in each of the files


@functools.cache
def record(model: str, key: int, number: int) -> bytes:
    """What is written in a round: its size and its bytes follow from these, and the sum of them stands in front."""
    rnd = random.Random(f"{model} {key} {number}")
    body = f"{model} {key} {number} ".encode() + rnd.randbytes(rnd.choice((100, 700, 2600, 9000)))
    return zlib.crc32(body).to_bytes(4, "big") + body


def whole(data: bytes) -> bool:
    """Whether a record's own sum agrees with it."""
    return zlib.crc32(data[4:]).to_bytes(4, "big") == data[:4]


KEYS = [key * key * 977 for key in range(60)]
WRITTEN = {"m": KEYS, "n": KEYS}
LAST = {
    key: ROUNDS - 1 if at % 2 else COPIED for at, key in enumerate(KEYS)
}  # the round in which each was written last
RECORDS = {
    (model, key): {record(model, key, number) for number in range(ROUNDS)}
    for model in WRITTEN
    for key in WRITTEN[model]
}
NOTES = {f"note {number}": f"{number}" * 50 for number in range(20)}


def write(folder: Path, closed: Path, killed: Path) -> None:
    """A store as it is after a close, and one as it is after a kill: with a log, of which some is in the file."""
    disk = FileDisk.open(folder, "process")
    for number in range(ROUNDS):
        for model, keys in WRITTEN.items():
            disk.write([Row(model, key, record(model, key, number)) for key in keys if number <= LAST[key]])
        for name, value in NOTES.items():
            disk.note(name, value)
        if number == COPIED:
            disk._connection.execute("pragma wal_checkpoint").fetchall()
    shutil.copytree(folder, killed)
    disk.close()
    shutil.copytree(folder, closed)


def damage(folder: Path, name: str, rnd: random.Random, kind: str) -> None:
    path = folder / name
    data = bytearray(path.read_bytes())
    used = len(data.rstrip(b"\0"))  # a log is longer
    if kind == "cut":
        del data[rnd.choice((rnd.randrange(used), rnd.randrange(0, used, PAGE_BYTES))) :]
    elif kind == "zeros":
        begin = rnd.randrange(used)
        data[begin : begin + PAGE_BYTES] = bytes(len(data[begin : begin + PAGE_BYTES]))
    else:
        heads = [
            page + rnd.randrange(100) for page in range(0, len(data), PAGE_BYTES)
        ]  # where the pages' own order stands
        for _ in range(rnd.choice((1, 1, 5, 50))):
            data[min(rnd.choice((rnd.randrange(used), rnd.choice(heads))), used - 1)] ^= 1 << rnd.randrange(8)
    path.write_bytes(data)


def looked_at(folder: Path) -> set[str]:
    """Everything is read and something written; what came of it. Any other error than ours ends the process."""
    try:
        disk = FileDisk.open(folder, "process")
    except StoreUnusable:
        return {"refused"}
    came = {"told that writes are lost"} if disk.lost else set()

    def tried(ask: object, *given: object) -> object:
        try:
            return ask(*given)  # type: ignore[operator]
        except StoreFailed:
            came.add("failed")
            return None

    def right(model: str, key: int, data: bytes) -> None:
        if not whole(data):
            came.add("seen by its sum")
        elif data not in RECORDS.get((model, key), ()):
            # A whole record of another key or model: the record says so itself.
            assert data[4:].split(b" ", 2)[:2] != [model.encode(), b"%d" % key], (model, key, data[:40])
            came.add("seen by its key")
        else:
            came.add("right" if data == record(model, key, LAST[key]) else "old")

    for model in tried(disk.models) or ():
        assert model in WRITTEN
        tried(disk.count, model)
        for key, data in tried(disk.scan, model, -1, 10_000) or ():
            right(model, key, data)
    for model, key in RECORDS:
        data = tried(disk.read, model, key)
        if data is not None:
            right(model, key, data)
    for name, value in NOTES.items():
        assert tried(disk.noted, name) in (None, value)
    tried(disk.write, [Row(model, key, record(model, key, 0)) for model, key in RECORDS])
    tried(disk.write, [Row("new", 1, b"new"), Row("m", 0, None)])
    assert disk.lost or "old" not in came, "what is old is told of"
    disk.close()
    return came


def run(pristine: Path, name: str, kind: str, work: Path) -> None:
    """All trials of a kind, in this process; says what came of them, so often each."""
    rnd = random.Random(f"{pristine.name} {name} {kind}")
    counts: dict[str, int] = {}
    for _ in range(TRIALS):
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(pristine, work)
        damage(work, name, rnd, kind)
        for what in looked_at(work):
            counts[what] = counts.get(what, 0) + 1
    print(sorted(counts.items()))


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stores")
    write(folder / "store", folder / "closed", folder / "killed")
    return folder


def test_undamaged_copies_hold_everything(stores: Path, tmp_path: Path) -> None:
    for name in ("closed", "killed"):
        shutil.copytree(stores / name, tmp_path / name)
        disk = FileDisk.open(tmp_path / name, "process")
        assert disk.lost is None
        last = {model: {key: record(model, key, LAST[key]) for key in KEYS} for model in WRITTEN}
        assert {model: dict(disk.scan(model, -1, 1000)) for model in disk.models()} == last
        assert {note: disk.noted(note) for note in NOTES} == NOTES
        disk.close()
    assert not (stores / "closed" / WAL).exists()
    assert (stores / "killed" / WAL).stat().st_size > 100_000


@pytest.mark.parametrize("kind", ["cut", "zeros", "flipped"])
@pytest.mark.parametrize(("state", "name"), [("closed", FILE), ("killed", FILE), ("killed", WAL)])
def test_what_is_damaged_is_an_error_or_right(state: str, name: str, kind: str, stores: Path, tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from tests.unit.serving.sequences import test_file_disk_damaged as t; p = pathlib.Path\n"
    )
    program += "t.run(p(sys.argv[1]), sys.argv[2], sys.argv[3], p(sys.argv[4]))"
    line = [sys.executable, "-c", program, stores / state, name, kind, tmp_path / "work"]
    ended = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=300, env=os.environ, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ("told that writes are lost" in ended.stdout) == (name == WAL)
    print(ended.stdout)
