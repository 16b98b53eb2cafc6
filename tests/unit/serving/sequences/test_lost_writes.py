"""Whether the end of a log has been lost: told where it has, and not where a write was broken off."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from serving.sequences import lost_writes
from serving.sequences.disk import Row
from serving.sequences.file_disk import CHECKPOINT_PAGES, LOG, PAGE_BYTES, Durability, FileDisk

WRITES = 10
FRAME = lost_writes.FRAME_HEAD + PAGE_BYTES


def killed(tmp_path: Path, durability: Durability = "process") -> Path:
    """A store as it is after a kill, with a log of some writes of one row."""
    disk = FileDisk.open(tmp_path / "store", durability)
    for number in range(WRITES):
        disk.write([Row("m", 1, b"%d" % number)])
    shutil.copytree(tmp_path / "store", tmp_path / "killed")
    disk.close()
    return tmp_path / "killed"


def reopened(folder: Path) -> tuple[str | None, bytes | None]:
    disk = FileDisk.open(folder, "process")
    try:
        return disk.lost, disk.read("m", 1)
    finally:
        disk.close()


def test_nothing_is_lost_by_a_kill_or_a_close(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = killed(tmp_path)
    assert reopened(folder) == (None, b"9")
    assert reopened(folder) == (None, b"9")
    assert caplog.messages == []


def last_frame(data: bytearray) -> int:
    """Where the last frame that was written begins."""
    used = len(data.rstrip(b"\0"))
    return lost_writes.HEAD + (used - lost_writes.HEAD - 1) // FRAME * FRAME


def cut(data: bytearray) -> None:
    del data[last_frame(data) :]


def emptied(data: bytearray) -> None:
    data.clear()


def flipped_early(data: bytearray) -> None:
    data[last_frame(data) - 2 * FRAME + 100] ^= 1


def flipped_head(data: bytearray) -> None:
    data[9] ^= 4


def flipped_salt(data: bytearray) -> None:
    data[17] ^= 4


@pytest.mark.parametrize(
    ("damaged", "why", "left"),
    [
        (cut, f"{LOG} has been cut off: it has ", b"8"),
        (emptied, f"{LOG} has been cut off: it has 0 bytes and had ", None),
        (flipped_early, "3 writes in its log cannot be read any more", b"6"),
        (flipped_head, "writes in its log cannot be read any more", None),
        (flipped_salt, "writes in its log cannot be read any more", None),
    ],
)
def test_a_log_whose_end_cannot_be_read(
    damaged: Callable[[bytearray], None], why: str, left: bytes | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = killed(tmp_path)
    data = bytearray((folder / LOG).read_bytes())
    damaged(data)
    (folder / LOG).write_bytes(data)
    lost, record = reopened(folder)
    assert (lost is not None and why in lost, record) == (True, left), lost
    assert f"file:{folder} may lack the last writes before its server ended: " in caplog.text
    assert reopened(folder) == (None, left), "it is told once"


def test_a_log_that_is_gone(tmp_path: Path) -> None:
    folder = killed(tmp_path)
    (folder / LOG).unlink()
    lost, record = reopened(folder)
    assert lost == f"{LOG} has been cut off: it has 0 bytes and had {32 + CHECKPOINT_PAGES * FRAME}"
    assert record is None


def test_a_write_that_was_broken_off_is_no_loss(tmp_path: Path) -> None:
    folder = killed(tmp_path)
    data = bytearray((folder / LOG).read_bytes())
    begin = last_frame(data) + lost_writes.FRAME_HEAD
    data[begin : begin + PAGE_BYTES] = bytes(PAGE_BYTES)  # of the last page its head alone was written
    (folder / LOG).write_bytes(data)
    assert reopened(folder) == (None, b"8")


@pytest.mark.parametrize(("durability", "told"), [("process", True), ("disk", False)])
def test_the_machine_has_started_anew(
    durability: Durability, told: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = killed(tmp_path, durability)
    monkeypatch.setattr(lost_writes, "boot", lambda: "another")
    why = "the machine has started anew, and the store was kept with --sequence-durability process"
    assert reopened(folder) == (why if told else None, b"9")
    assert reopened(folder) == (None, b"9"), "it was closed"


def test_what_is_no_log_has_no_writes(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert lost_writes.heads(log, PAGE_BYTES).commits() == []
    for content in (b"", b"short", bytes(lost_writes.HEAD), bytes(100_000), b"\xff" * 10):
        log.write_bytes(content)
        assert lost_writes.heads(log, PAGE_BYTES).commits() == []


def frames(*ends: bool, salt: bytes = b"saltsalt", mark: int = 0) -> lost_writes.Heads:
    return lost_writes.Heads(b"", [bytes((0, 0, 0, 1, 0, 0, 0, end)) + salt + bytes((mark,) * 8) for end in ends])


@pytest.mark.parametrize(("read", "behind"), [(0, 3), (1, 3), (2, 2), (3, 2), (4, 0), (5, 0)], ids=str)
def test_one_write_may_be_unread(read: int, behind: int) -> None:
    before = frames(False, True, False, True, True)
    after = lost_writes.Heads(b"", [*before.frames[:read], *frames(True, mark=1).frames, *before.frames[read + 1 :]])
    said = lost_writes.unread(before, after)
    assert said == (f"{behind} writes in its log cannot be read any more" if behind else None)
