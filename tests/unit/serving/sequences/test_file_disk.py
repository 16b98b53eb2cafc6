"""Rows and notes in a folder: what is written is there, all or nothing, and who may use which folder."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import stat
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.errors import StoreFailed, StoreUnusable
from serving.sequences import file_disk
from serving.sequences.disk import Row
from serving.sequences.file_disk import DURABILITIES, Durability, FileDisk, open_disk

ROOT = Path(__file__).parents[4]
LAST_KEY = 2**63 - 1
ODD = "m \udce9'\"; drop table notes"  # a folder may be called so


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def disk(folder: Path) -> Iterator[FileDisk]:
    made = FileDisk.open(folder, "process")
    yield made
    made.close()


def everything(disk: FileDisk) -> dict[str, dict[int, bytes]]:
    return {model: dict(disk.scan(model, -1, 10_000)) for model in disk.models()}


def in_child(program: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    """Another process, with its input and output as pipes."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), *map(str, arguments)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )


def said_by(child: subprocess.Popen[str]) -> str:
    out, err = child.communicate(timeout=60)
    assert child.returncode == 0, err
    return out


@pytest.mark.parametrize("durability", DURABILITIES)
def test_what_is_written_is_read_and_outlives_the_close(durability: Durability, folder: Path) -> None:
    disk = FileDisk.open(folder, durability)
    assert (disk.models(), disk.count("m"), disk.read("m", 1), disk.scan("m", -1, 5)) == ([], 0, None, [])
    disk.write([Row("m", 1, b"one"), Row("m", LAST_KEY, b""), Row(ODD, 0, b"\0" * 9000)])
    disk.note("epoch", "5")
    disk.note(ODD, "\udce9")
    for _ in range(2):
        assert everything(disk) == {"m": {1: b"one", LAST_KEY: b""}, ODD: {0: b"\0" * 9000}}
        assert [disk.read("m", 1), disk.read("m", LAST_KEY), disk.read("m", 2)] == [b"one", b"", None]
        assert (disk.count("m"), disk.count(ODD), disk.count("n")) == (2, 1, 0)
        assert (disk.noted("epoch"), disk.noted(ODD), disk.noted("other")) == ("5", "\udce9", None)
        disk.close()
        disk = FileDisk.open(folder, durability)
    disk.close()


@pytest.mark.parametrize("rows", [1, 2, 3, 63, 64, 65, 200])
def test_a_write_of_any_number_of_rows_in_either_direction(rows: int, disk: FileDisk) -> None:
    kept = {key * 7: b"%d" % key for key in range(rows)}
    disk.write([Row("m", key, record) for key, record in kept.items()])
    disk.write([Row("m", key, record + b"!") for key, record in kept.items()])
    assert everything(disk) == {"m": {key: record + b"!" for key, record in kept.items()}}
    disk.write([*(Row("m", key, None) for key in kept), Row("m", 5, None), Row("nobody's", 5, None)])
    assert (everything(disk), disk.count("m")) == ({}, 0)
    disk.write([])


def test_the_last_row_of_a_key_counts(disk: FileDisk) -> None:
    disk.write(
        [
            Row("m", 1, b"a"),
            Row("m", 2, None),
            Row("m", 1, None),
            Row("m", 2, b"b"),
            Row("n", 1, b"c"),
            Row("n", 1, b"d"),
        ]
    )
    assert everything(disk) == {"m": {2: b"b"}, "n": {1: b"d"}}


def test_keys_are_gone_through_in_their_order(disk: FileDisk) -> None:
    disk.write([Row("m", key, b"%d" % key) for key in (9, 3, 0, 2**62, 4)])
    pages, after = [], -1
    while page := disk.scan("m", after, 2):
        pages.append([key for key, _ in page])
        after = page[-1][0]
    assert pages == [[0, 3], [4, 9], [2**62]]


def broken(disk: FileDisk, sql: str) -> None:
    disk._connection.execute(sql)


@pytest.mark.parametrize("also", [[], [Row("n", 1, b"")], [Row("new", 1, b"")], [Row("m", 1, None)]])
def test_a_write_that_fails_has_written_nothing(also: list[Row], disk: FileDisk) -> None:
    disk.write([Row("m", 1, b"one"), Row("n", 7, b"seven")])
    broken(disk, "create trigger t before insert on rows_1 when new.key = 99 begin select raise(abort, 'no more'); end")
    many = [Row("m", key, b"new") for key in range(2, 101)]
    with pytest.raises(
        StoreFailed, match=r"cannot be written, and what was asked for has not been done: no more .*; send it again"
    ):
        disk.write([*also, *many])
    assert everything(disk) == {"m": {1: b"one"}, "n": {7: b"seven"}}
    broken(disk, "drop trigger t")
    disk.write([*also, *many])
    assert len(everything(disk)["m"]) == (99 if Row("m", 1, None) in also else 100)


def test_a_connection_that_cannot_be_mended_is_opened_anew(
    disk: FileDisk, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk.write([Row("m", 1, b"one")])

    class Stuck:
        in_transaction = True

        def __init__(self) -> None:
            self.closed = False

        def execute(self, *_: object) -> None:
            raise sqlite3.OperationalError("disk I/O error")

        def close(self) -> None:
            self.closed = True

    stuck, mended = Stuck(), disk._connection
    mended.close()
    disk._connection = stuck
    with pytest.raises(StoreFailed, match="disk I/O error"):
        disk.write([Row("m", 2, b"two")])
    assert stuck.closed
    (folder / file_disk.FILE).rename(folder / "away")
    with pytest.raises(StoreFailed, match="No such file"):
        disk.read("m", 1)
    (folder / "away").rename(folder / file_disk.FILE)
    disk.write([Row("m", 3, b"three")])
    assert everything(disk) == {"m": {1: b"one", 3: b"three"}}


def test_after_the_close_nothing_is_done(disk: FileDisk) -> None:
    disk.close()
    disk.close()
    with pytest.raises(StoreFailed, match="has been closed"):
        disk.write([Row("m", 1, b"")])


@pytest.mark.parametrize("wrong", [Row("m", 2**63, b""), Row("m", 1, "text")], ids=["key", "record"])  # type: ignore[arg-type]
def test_what_no_row_holds_is_a_fault_of_the_caller_and_changes_nothing(wrong: Row, disk: FileDisk) -> None:
    if wrong.key == 1:
        disk.write([wrong])
        with pytest.raises(StoreFailed, match="it holds str where bytes were written"):
            disk.read("m", 1)
    else:
        with pytest.raises(OverflowError):
            disk.write([Row("m", 1, b""), wrong])
        assert everything(disk) == {}


WRITER = """
    import os, random, sys
    from pathlib import Path
    from serving.sequences.disk import Row
    from serving.sequences.file_disk import FileDisk
    disk = FileDisk.open(Path(sys.argv[1]), sys.argv[2])
    rnd, number = random.Random(int(sys.argv[3])), int(sys.argv[3])
    while True:
        number += 1
        keys = rnd.sample(range(50), 20)
        rows = [Row(rnd.choice(("m", "n")), key, b"%d " % number + bytes(rnd.randrange(6000))) for key in keys]
        disk.write(rows)
        line = f"{number} " + " ".join(f"{row.model}{row.key}" for row in rows)
        os.write(1, f"{line}\\n".encode())  # at once: half a line would acknowledge half a write
"""


@pytest.mark.parametrize("durability", DURABILITIES)
def test_a_process_that_is_killed_has_lost_nothing_acknowledged(durability: Durability, folder: Path) -> None:
    expected: dict[str, int] = {}
    for begin in range(0, 4_000_000, 1_000_000):
        with in_child(WRITER, folder, durability, begin) as child:
            assert child.stdout
            assert child.stdin
            for _ in range(1 + begin // 20_000):  # 1 to 150: also where the log is copied into the file
                number, *keys = child.stdout.readline().split()
                expected |= dict.fromkeys(keys, int(number))
            child.kill()
            for line in child.stdout.read().splitlines(keepends=True):  # what it had said by then
                assert line.endswith("\n")
                number, *keys = line.split()
                expected |= dict.fromkeys(keys, int(number))
        disk = FileDisk.open(folder, durability)
        assert disk.lost is None
        got = {
            f"{model}{key}": int(record.split()[0])
            for model, some in everything(disk).items()
            for key, record in some.items()
        }
        disk.close()
        newest = max(expected.values())
        late = {key for key, number in got.items() if number != expected.get(key)}
        assert expected.keys() <= got.keys()
        assert {got[key] for key in late} <= {newest + 1}, "the write that it was killed in, whole or not at all"
        assert len(late) in (0, 20)
        expected = got


def test_a_second_server_is_refused_by_name(folder: Path) -> None:
    program = """
        import sys
        from pathlib import Path
        from serving.sequences.file_disk import FileDisk
        disk = FileDisk.open(Path(sys.argv[1]), "process")
        print("open", flush=True)
        sys.stdin.read()
    """
    with in_child(program, folder) as child:
        assert child.stdout
        assert child.stdin
        assert child.stdout.readline() == "open\n"
        with pytest.raises(
            StoreUnusable, match=rf"file:{folder} cannot be used: another server has it, process {child.pid} on "
        ):
            FileDisk.open(folder, "process")
        child.kill()
        child.wait()
    FileDisk.open(folder, "process").close()


def test_one_process_has_it_once(disk: FileDisk, folder: Path) -> None:
    with pytest.raises(StoreUnusable, match=f"another server has it, process {os.getpid()} on "):
        FileDisk.open(folder, "process")
    disk.write([Row("m", 1, b"one")])


def test_nobody_else_may_read_it_whatever_the_umask_is(tmp_path: Path) -> None:
    folder = tmp_path / "above" / "store"
    before = os.umask(0)
    try:
        for _ in range(2):
            disk = FileDisk.open(folder, "process")
            disk.write([Row("m", 1, b"secret")])
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
            assert modes == {"lock": 0o600, "sequences.sqlite": 0o600, "sequences.sqlite-wal": 0o600}
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            disk.close()
            for path in (folder, *folder.iterdir()):
                path.chmod(0o777)
    finally:
        os.umask(before)


def test_a_folder_that_is_there_and_empty_is_taken(folder: Path) -> None:
    folder.mkdir(0o755)
    FileDisk.open(folder, "process").close()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def a_file(path: Path) -> None:
    path.write_text("")


def other_content(path: Path) -> None:
    path.mkdir(0o755)
    (path / "thesis.txt").write_text("mine")


def a_link(path: Path) -> None:
    path.with_name("elsewhere").mkdir()
    path.symlink_to(path.with_name("elsewhere"))


def below_a_file(path: Path) -> None:
    path.parent.rmdir()
    path.parent.write_text("")


def a_link_in_it(path: Path) -> None:
    path.mkdir()
    path.with_name("target").write_text("of somebody")
    (path / "lock").symlink_to(path.with_name("target"))


def a_second_name_in_it(path: Path) -> None:
    path.mkdir()
    path.with_name("target").write_text("of somebody")
    (path / "lock").hardlink_to(path.with_name("target"))


def a_log_alone(path: Path) -> None:
    path.mkdir()
    (path / "sequences.sqlite-wal").write_bytes(b"1")


def another_file_of_sqlite(path: Path) -> None:
    path.mkdir()
    connection = sqlite3.connect(path / "sequences.sqlite")
    connection.execute("create table t (a)")
    connection.close()


def an_empty_one(path: Path) -> None:
    path.mkdir()
    (path / "sequences.sqlite").write_bytes(b"")


def no_sqlite(path: Path) -> None:
    path.mkdir()
    (path / "sequences.sqlite").write_bytes(b"text " * 5000)


def a_newer_format(path: Path) -> None:
    FileDisk.open(path, "process").close()
    connection = sqlite3.connect(path / "sequences.sqlite")
    connection.execute("pragma user_version=2")
    connection.close()


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (a_file, "it is no folder: name a folder"),
        (other_content, r"it holds something else \('thesis\.txt'\): name an empty folder, or one within it"),
        (a_link, "it is a symbolic link, and none is followed"),
        (below_a_file, "Not a directory: mend that"),
        (a_link_in_it, "lock in it is no plain file"),
        (a_second_name_in_it, "lock in it is no plain file, or has another name too"),
        (
            a_log_alone,
            r"it is damaged \(sequences\.sqlite-wal is there without sequences\.sqlite\): move the folder away",
        ),
        (another_file_of_sqlite, r"it is damaged \(sequences\.sqlite is no store of sequences\)"),
        (an_empty_one, r"it is damaged \(sequences\.sqlite has been cut off: it has 0 bytes\)"),
        (no_sqlite, r"it is damaged \(file is not a database \(SQLITE_NOTADB\)\)"),
        (a_newer_format, "it has format 2, and this server knows formats up to 1: start the newer server"),
    ],
)
def test_wrong_folders_are_refused_and_left_as_they_are(made: object, why: str, tmp_path: Path) -> None:
    folder = tmp_path / "above" / "store"
    folder.parent.mkdir()
    made(folder)  # type: ignore[operator]

    def found() -> dict[str, object]:
        paths = [path for path in tmp_path.rglob("*") if path.name != "lock" or path.is_symlink()]
        return {str(path): path.read_bytes() if path.is_file() else stat.S_IFMT(path.lstat().st_mode) for path in paths}

    before = found()
    with pytest.raises(StoreUnusable, match=f"^--sequence-store file:{folder} cannot be used: {why}"):
        FileDisk.open(folder, "process")
    assert found() == before
    if made is other_content:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o755


@pytest.mark.parametrize(
    ("mode", "owner", "why"),
    [
        (0o555, None, r"it cannot be written \(Permission denied\): let this server's user, \d+, write there"),
        (0o755, 0, "it belongs to user 0, and this server is user 65534: name a folder of its own"),
    ],
)
def test_a_folder_that_this_user_may_not_write(mode: int, owner: int | None, why: str, tmp_path: Path) -> None:
    program = """
        import os, sys, sqlite3
        from pathlib import Path
        from serving.errors import StoreUnusable
        from serving.sequences.file_disk import FileDisk
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        try:
            FileDisk.open(Path(sys.argv[1]), "process")
        except StoreUnusable as error:
            print(error)
    """
    if owner is not None and os.geteuid():
        pytest.skip("only root may have a folder of another user")
    with tempfile.TemporaryDirectory() as named:  # pytest's own folders are for root alone
        above = Path(named)
        if owner is not None:
            (above / "new").mkdir()
        above.chmod(mode)
        said = said_by(in_child(program, above / "new"))
        above.chmod(0o755)
    assert re.search(f"file:{named}/new cannot be used: {why}", said)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder that takes 2 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_full_fails_writes_until_there_is_room_again(small_disk: Path) -> None:
    disk = FileDisk.open(small_disk / "store", "process")
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(1024 * 1024))
    written: dict[int, bytes] = {}

    def fill() -> None:
        for number in range(1000):
            some = {key: os.urandom(5000) for key in range(number, number + 3)}
            disk.write([Row("m", key, record) for key, record in some.items()])
            written.update(some)

    with pytest.raises(StoreFailed, match=r"cannot be written, .*: database or disk is full \(SQLITE_FULL\); send it"):
        fill()
    assert everything(disk) == {"m": written}, "what was acknowledged can be read, and nothing else"
    with pytest.raises(StoreFailed):
        disk.write([Row("m", key, bytes(5000)) for key in range(20)])
    with pytest.raises(StoreFailed):
        disk.write([Row("new", key, bytes(5000)) for key in range(20)])
    assert everything(disk) == {"m": written}
    ballast.unlink()
    disk.write([Row("m", 5, b"again"), Row("new", 1, b"one")])
    disk.close()
    disk = FileDisk.open(small_disk / "store", "process")
    assert everything(disk) == {"m": written | {5: b"again"}, "new": {1: b"one"}}
    disk.close()


@pytest.mark.parametrize("begun", [False, True])
def test_a_disk_without_room_is_told_at_the_start(begun: bool, small_disk: Path) -> None:
    if begun:
        FileDisk.open(small_disk / "store", "process").close()
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    with pytest.raises(StoreUnusable, match=r"there is no room for it \(.*\): make some, 256 KiB at least"):
        FileDisk.open(small_disk / "store", "process")
    ballast.unlink()
    FileDisk.open(small_disk / "store", "process").close()


def test_a_file_that_may_not_grow_fails_writes_until_it_may(folder: Path) -> None:
    program = """
        import resource, sys
        from pathlib import Path
        from serving.errors import StoreFailed
        from serving.sequences.disk import Row
        from serving.sequences.file_disk import FileDisk
        disk = FileDisk.open(Path(sys.argv[1]), sys.argv[2])
        disk.write([Row("m", 1, b"one")])
        most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, most))
        done = 0
        try:
            for key in range(2, 100):
                disk.write([Row("m", key, bytes(5000))])
                done = key
        except StoreFailed as error:
            print(error)
        assert disk.count("m") == done and disk.read("m", 1) == b"one"
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        disk.write([Row("m", 1000, b"last")])
        print(done, disk.count("m"), disk.read("m", 1000))
        disk.close()
    """
    for durability in DURABILITIES:
        said, numbers = said_by(in_child(program, folder / durability, durability)).splitlines()
        assert said.startswith("the store of sequences cannot be written, ")
        assert said.endswith("; send it again")
        done, count, last = numbers.split()
        assert (int(count), last) == (int(done) + 1, "b'last'")
        disk = FileDisk.open(folder / durability, durability)
        assert disk.count("m") == int(count)
        disk.close()


def test_a_start_that_was_broken_off_is_begun_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken_off(path: Path, target: Path) -> Path:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", broken_off)
        with pytest.raises(StoreUnusable, match="Input/output error: mend that, or name another folder"):
            FileDisk.open(folder, "process")
    assert (folder / "new.sqlite").exists()
    FileDisk.open(folder, "process").close()
    assert sorted(path.name for path in folder.iterdir()) == ["lock", "sequences.sqlite"]


def test_another_program_that_has_the_file_open(folder: Path) -> None:
    FileDisk.open(folder, "process").close()
    connection = sqlite3.connect(folder / "sequences.sqlite")
    connection.execute("begin immediate")
    try:
        with pytest.raises(StoreUnusable, match=r"another program has sequences\.sqlite open \(database is locked\)"):
            FileDisk.open(folder, "process")
    finally:
        connection.close()


def test_a_python_without_sqlite(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sqlite3", None)
    with pytest.raises(StoreUnusable, match="this Python has no sqlite3"):
        FileDisk.open(folder, "process")


def test_what_the_flag_names(folder: Path) -> None:
    assert open_disk("memory", "process") is None
    disk = open_disk(f"file:{folder}", "disk")
    assert isinstance(disk, FileDisk)
    assert disk._connection.execute("pragma synchronous").fetchone() == (2,), "each write waits for the disk"
    disk.close()
    for wrong in ("file:", "file: ", "disk", "", "file:a\0b"):
        with pytest.raises(StoreUnusable, match="use memory or file:PATH"):
            open_disk(wrong, "process")
