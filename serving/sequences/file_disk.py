"""Rows and notes in a folder of files, by SQLite, which comes with Python.

The folder, 0700, holds `lock`, which the server that uses it keeps locked, and `sequences.sqlite` with its log of writes,
`sequences.sqlite-wal`, both 0600. What is damaged is an error here, never a crash: nothing of the files is mapped into memory.

A write is one statement wherever it can be. Each statement lets go of the interpreter's lock, and where other threads compute in
Python it takes some 5 ms to get it back: a statement for each row would take that for each row.
"""

from __future__ import annotations

import bisect
import contextlib
import errno
import fcntl
import logging
import os
import platform
import stat
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from serving.errors import StoreFailed, StoreUnusable
from serving.sequences import lost_writes
from serving.sequences.disk import Disk, Row

log = logging.getLogger(__name__)

FORMAT = 1  # of the tables; that of the records is theirs
LOCK, FILE, NEW = "lock", "sequences.sqlite", "new.sqlite"
LOG = FILE + "-wal"
LOGS = ("-wal", "-journal", "-shm")  # what SQLite may put beside a file
OURS = frozenset({LOCK, *(name + end for name in (FILE, NEW) for end in ("", *LOGS))})
APPLICATION = 0x6C73746D  # "lstm", in the file's header

PAGE_BYTES = 4096  # larger ones write more for a row, smaller ones need several pages for it
CACHE_KIB = 8192
CHECKPOINT_PAGES = 4000  # the log's length, 16 MB, at which it is copied into the file, which waits for the disk
LOG_BYTES = 64 * 1024 * 1024  # a log that has been longer is cut to this
NEEDED_BYTES = 256 * 1024  # with less room than this there is no start

AT_ONCE = (1, 2, 4, 8, 16, 32, 64)  # rows of a statement; of so few shapes each stays prepared

Durability = Literal["process", "disk"]
DURABILITIES: Final[Sequence[Durability]] = ("process", "disk")
SYNCHRONOUS = {"process": "normal", "disk": "full"}  # the log is synced when it is copied, or at each write
MEMORY, IN_FILE = "memory", "file:"


def open_disk(store: str, durability: Durability) -> Disk | None:
    """What `--sequence-store` names, `memory` or `file:PATH`; None for memory. Raises `StoreUnusable`."""
    if store == MEMORY:
        return None
    path = store.removeprefix(IN_FILE)
    if path == store or not path.strip() or "\0" in path:
        raise StoreUnusable(f"--sequence-store {store!r} is no store; use {MEMORY} or {IN_FILE}PATH")
    return FileDisk.open(Path(path), durability)


class FileDisk:
    """Keeps rows and notes in a folder that no other server uses meanwhile."""

    def __init__(
        self, folder: Path, lock: int, durability: Durability, connection: Any, lost: str | None = None
    ) -> None:
        """Takes over the descriptor `lock` and the `connection`; `open` makes one."""
        self.lost = (
            lost  # why acknowledged writes may be missing: then what is read may be older than what was written last
        )
        self._folder, self._lock, self._durability = folder, lock, durability
        self._connection = connection
        self._tables: dict[str, str] = {}  # by model
        self._closed = False

    @classmethod
    def open(cls, path: Path, durability: Durability) -> FileDisk:
        """Opens the store in the folder `path`, or begins one there. Raises `StoreUnusable`; nothing is lost by that."""
        try:
            import sqlite3  # noqa: F401 - here, since only a server with such a store needs it
        except ImportError as error:
            raise StoreUnusable(
                f"this Python has no sqlite3, which {_named(path)} needs ({error}); use another Python, or "
                f"--sequence-store {MEMORY}"
            ) from error
        path = path.absolute()
        lock = connection = None
        with _told_of(path):
            try:
                _prepare(path)
                lock, left = _locked(path)
                _begin(path)
                log_ = path / LOG
                lost = lost_writes.missing(log_, CHECKPOINT_PAGES, PAGE_BYTES) if left else None
                before = lost_writes.heads(log_, PAGE_BYTES) if left else None
                connection = _connected(path, durability)
                _probe(path, connection)
                if before is not None:
                    unread = lost_writes.unread(before, lost_writes.heads(log_, PAGE_BYTES))
                    lost = lost or unread or _lost_with_power(left)
                _mark(lock, f"{durability} {lost_writes.boot()}")
                disk, lock, connection = cls(path, lock, durability, connection, lost), None, None
                if lost:
                    log.warning("%s may lack the last writes before its server ended: %s", _named(path), lost)
                return disk
            finally:
                if connection is not None:
                    _let_go(connection)
                if lock is not None:
                    os.close(lock)

    def write(self, rows: Sequence[Row]) -> None:
        with self._working("written") as connection:
            model = rows[0].model if rows else ""
            if 0 < len(rows) <= AT_ONCE[-1] and self._table(connection, model):
                values = [
                    value for of, key, record in rows if of == model and record is not None for value in (key, record)
                ]
                if len(values) == 2 * len(rows):  # all to be kept, of one model: as nearly always
                    connection.execute(*next(iter(self._puts(model, values))))
                    return
            last = {(row.model, row.key): row.record for row in rows}
            kept: dict[str, list[Any]] = {}
            gone: dict[str, list[int]] = {}
            for (model, key), record in last.items():
                if record is None:
                    gone.setdefault(model, []).append(key)
                else:
                    kept.setdefault(model, []).extend((key, record))
            fresh = [model for model in kept if self._table(connection, model) is None]
            statements = [
                *(one for model, values in kept.items() if model not in fresh for one in self._puts(model, values)),
                *(
                    one
                    for model, keys in gone.items()
                    if self._table(connection, model)
                    for one in self._cuts(model, keys)
                ),
            ]
            if len(statements) == 1 and not fresh:
                connection.execute(*statements[0])
            elif statements or fresh:
                connection.execute("begin immediate")
                try:
                    for model in fresh:
                        self._tables[model] = _made_table(connection, model)
                        statements += self._puts(model, kept[model])
                    for one in statements:
                        connection.execute(*one)
                    connection.execute("commit")
                except BaseException:
                    for model in fresh:
                        self._tables.pop(model, None)
                    raise

    def read(self, model: str, key: int) -> bytes | None:
        with self._working("read") as connection:
            table = self._table(connection, model)
            found = table and connection.execute(f"select record from {table} where key = ?", (key,)).fetchone()
            return _blob(found[0]) if found else None

    def scan(self, model: str, after: int, most: int) -> list[tuple[int, bytes]]:
        with self._working("read") as connection:
            table = self._table(connection, model)
            if table is None:
                return []
            asked = f"select key, record from {table} where key > ? order by key limit ?"
            found = [(key, _blob(record)) for key, record in connection.execute(asked, (after, most))]
            if any(
                one >= other for one, other in zip([after, *(k for k, _ in found)], (k for k, _ in found), strict=False)
            ):
                raise _Damaged("its keys are out of order")
            return found

    def count(self, model: str) -> int:
        with self._working("read") as connection:
            table = self._table(connection, model)
            return connection.execute(f"select count(*) from {table}").fetchone()[0] if table else 0

    def models(self) -> list[str]:
        with self._working("read") as connection:
            tables = _tables(connection)
            return sorted(m for m, t in tables.items() if connection.execute(f"select 1 from {t} limit 1").fetchone())

    def note(self, name: str, value: str) -> None:
        with self._working("written") as connection:
            at, what = _text(name), _text(value)
            connection.execute("insert or replace into notes values (?, ?, ?)", (at, what, _check(at, what)))

    def noted(self, name: str) -> str | None:
        with self._working("read") as connection:
            at = _text(name)
            found = connection.execute("select value, checked from notes where name = ?", (at,)).fetchone()
            if found is None:
                return None
            if found[1] != _check(at, _blob(found[0])):
                raise _Damaged(f"the note {name!r} has changed since it was written")
            return _name(found[0])

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            connection, self._connection = self._connection, None
            if connection is not None:
                _let_go(connection)
            if not (self._folder / LOG).exists():
                _mark(self._lock, "")
            os.close(self._lock)

    @contextlib.contextmanager
    def _working(self, done: str) -> Iterator[Any]:
        """The connection; whatever fails is undone, and is a `StoreFailed`."""
        import sqlite3

        if self._closed:
            raise StoreFailed("the store of sequences has been closed: the server leaves")
        try:
            if self._connection is None:
                self._tables = {}
                self._connection = _connected(self._folder, self._durability)
            yield self._connection
        except (sqlite3.Error, MemoryError, _Damaged, StoreUnusable) as error:
            self._undo()
            raise StoreFailed(
                f"the store of sequences cannot be {done}, and what was asked for has not been done: {_why(error)}; send it again"
            ) from error
        except BaseException:
            self._undo()
            raise

    def _undo(self) -> None:
        """Ends a transaction that is open; a connection that cannot even do that is opened anew at the next call."""
        import sqlite3

        if self._connection is not None and self._connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("rollback")
            if self._connection.in_transaction:
                connection, self._connection = self._connection, None
                _let_go(connection)

    def _table(self, connection: Any, model: str) -> str | None:
        """The table of a model, if it has one."""
        if model not in self._tables:
            self._tables = _tables(connection)
        return self._tables.get(model)

    def _puts(self, model: str, values: list[Any]) -> Iterator[tuple[str, Sequence[Any]]]:
        """Statements with what they are given, for keys and records one after the other."""
        most = 2 * AT_ONCE[-1]
        for some in (values[at : at + most] for at in range(0, len(values), most)):
            rows = AT_ONCE[bisect.bisect_left(AT_ONCE, len(some) // 2)]
            places = ",".join(["(?,?)"] * rows)
            missing = 2 * rows - len(some)
            what = f"select * from (values {places}) where column1 is not null" if missing else f"values {places}"
            yield f"insert or replace into {self._tables[model]} {what}", [*some, *[None] * missing]

    def _cuts(self, model: str, keys: list[int]) -> Iterator[tuple[str, Sequence[Any]]]:
        """The same for keys whose records go."""
        for some in (keys[at : at + AT_ONCE[-1]] for at in range(0, len(keys), AT_ONCE[-1])):
            rows = AT_ONCE[bisect.bisect_left(AT_ONCE, len(some))]
            places = ",".join("?" * rows)
            yield f"delete from {self._tables[model]} where key in ({places})", [*some, *[None] * (rows - len(some))]


class _Damaged(Exception):
    """What was read is not what was written."""


def _named(path: Path) -> str:
    return f"--sequence-store {IN_FILE}{path}"


def _refused(path: Path, why: str) -> StoreUnusable:
    return StoreUnusable(f"{_named(path)} cannot be used: {why}")


@contextlib.contextmanager
def _told_of(path: Path) -> Iterator[None]:
    """Faults of the system and of SQLite as a sentence about the folder."""
    import sqlite3

    try:
        yield
    except OSError as error:
        raise _refused(path, _of_system(error)) from error
    except (sqlite3.Error, MemoryError, _Damaged) as error:
        raise _refused(path, _of_sqlite(error)) from error


def _of_system(error: OSError) -> str:
    said = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"there is no room for it ({said}): make some, {NEEDED_BYTES // 1024} KiB at least"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"it cannot be written ({said}): let this server's user, {os.geteuid()}, write there, or name another folder"
    return f"{said}: mend that, or name another folder"


def _of_sqlite(error: Exception) -> str:
    name = getattr(error, "sqlite_errorname", "")
    if name.startswith("SQLITE_FULL"):
        return f"there is no room for it ({error}): make some, {NEEDED_BYTES // 1024} KiB at least"
    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
        return f"it cannot be written ({error}): let this server's user, {os.geteuid()}, write there, or name another folder"
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return f"another program has {FILE} open ({error}): end that first"
    if name.startswith("SQLITE_IOERR"):
        return f"its disk fails, or has no room ({_why(error)}): look at the disk, or name another folder"
    return _damaged(_why(error))


def _damaged(why: str) -> str:
    return f"it is damaged ({why}): move the folder away, which begins without sequences, or put back a copy of it"


def _why(error: Exception) -> str:
    name = getattr(error, "sqlite_errorname", "")
    return f"{error or type(error).__name__}" + (f" ({name})" if name else "")


def _prepare(path: Path) -> None:
    """The folder is there, ours, 0700, and holds nothing that is not ours. Raises `StoreUnusable`, `OSError`."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        path.mkdir(0o700, parents=True)
        _sync(path.parent)
        status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        raise _refused(path, "it is a symbolic link, and none is followed: name the folder that it leads to")
    if not stat.S_ISDIR(status.st_mode):
        raise _refused(path, "it is no folder: name a folder, or a path where there is nothing yet")
    _only_ours(path, status, "it")
    _holds_only_ours(path)
    path.chmod(0o700)  # from here on nobody else can put anything there; so look again
    for name in _holds_only_ours(path):
        status = (path / name).lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            raise _refused(path, f"{name} in it is no plain file, or has another name too: name another folder")
        _only_ours(path, status, f"{name} in it")
        (path / name).chmod(0o600)


def _holds_only_ours(path: Path) -> list[str]:
    """The names in the folder, which are names of ours. Raises `StoreUnusable`, `OSError`."""
    names = sorted(one.name for one in path.iterdir())
    others = [name for name in names if name not in OURS]
    if others:
        few = ", ".join(f"{name!a}" for name in others[:3]) + (", ..." if others[3:] else "")
        raise _refused(path, f"it holds something else ({few}): name an empty folder, or one within it")
    return names


def _only_ours(path: Path, status: os.stat_result, what: str) -> None:
    if status.st_uid != os.geteuid():
        raise _refused(
            path,
            f"{what} belongs to user {status.st_uid}, and this server is user {os.geteuid()}: name a folder of its own, or "
            "one that is not there yet",
        )


def _locked(path: Path) -> tuple[int, str]:
    """A descriptor that keeps the folder's lock for as long as it is open, and what a server left there that was not closed.

    Raises `StoreUnusable`, `OSError`.
    """
    descriptor = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 300, 0).decode(errors="replace").partition("\n")[0]
            raise _refused(
                path,
                f"another server has it, process {holder or '(not known)'}: end that first, or name another folder",
            ) from None
        os.fchmod(descriptor, 0o600)  # whatever the umask is
        left = os.pread(descriptor, 1000, 0).decode(errors="replace").partition("\n")[2].strip()
        _mark(descriptor, left)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, left


def _mark(lock: int, used: str) -> None:
    """Who holds the lock, and how the store is being used, if it is. Raises `OSError`."""
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()} on {platform.node()}\n{used}\n".encode(errors="replace"), 0)


def _lost_with_power(left: str) -> str | None:
    """Why writes may be missing, if the machine has started anew since a server with this mark ran."""
    durability, _, boot = left.partition(" ")
    if durability == "process" and boot != lost_writes.boot():
        return "the machine has started anew, and the store was kept with --sequence-durability process"
    return None


def _begin(path: Path) -> None:
    """The file is there: a whole one, made beside its place and moved there, so that an empty or missing one is damage."""
    for end in ("", *LOGS):
        (path / (NEW + end)).unlink(missing_ok=True)  # a start that was broken off
    if (path / FILE).exists():
        return
    left = [FILE + end for end in LOGS if (path / (FILE + end)).exists()]
    if left:
        raise _refused(path, _damaged(f"{left[0]} is there without {FILE}"))
    os.close(os.open(path / NEW, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
    (path / NEW).chmod(0o600)  # whatever the umask is
    connection = _connection(path / NEW)
    try:
        connection.execute(f"pragma page_size={PAGE_BYTES}")
        connection.execute("pragma locking_mode=exclusive").fetchall()
        connection.execute("pragma journal_mode=wal").fetchall()
        connection.execute("begin immediate")
        connection.execute("create table notes (name blob primary key, value blob not null, checked integer not null)")
        connection.execute(
            "create table models (number integer primary key, name blob not null unique, checked integer not null)"
        )
        connection.execute(f"pragma application_id={APPLICATION}")
        connection.execute(f"pragma user_version={FORMAT}")
        connection.execute("commit")
    finally:
        connection.close()  # which copies the log into the file
    _sync(path / NEW)
    (path / NEW).rename(path / FILE)
    _sync(path)


def _connection(file: Path) -> Any:
    import sqlite3

    return sqlite3.connect(
        f"{file.as_uri()}?mode=rw",
        uri=True,
        timeout=0,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=512,
    )


def _connected(path: Path, durability: Durability) -> Any:
    """A connection to the folder's file. Raises `StoreUnusable`, `sqlite3.Error`, `_Damaged`."""
    with _told_of(path):
        size = (path / FILE).stat().st_size
        if size < PAGE_BYTES:
            raise _Damaged(f"{FILE} has been cut off: it has {size} bytes")
        connection = _connection(path / FILE)
        try:
            for setting in (
                "locking_mode=exclusive",  # before anything is read: then the log's index is memory of our own and no mapped file
                "mmap_size=0",
                "trusted_schema=off",
                "cell_size_check=on",
                "temp_store=memory",
                f"cache_size=-{CACHE_KIB}",
                f"synchronous={SYNCHRONOUS[durability]}",
                f"fullfsync={'on' if durability == 'disk' else 'off'}",
            ):
                connection.execute(f"pragma {setting}").fetchall()
            (application,) = connection.execute("pragma application_id").fetchone()
            (format_,) = connection.execute("pragma user_version").fetchone()
            if application != APPLICATION:
                raise _refused(path, _damaged(f"{FILE} is no store of sequences"))
            if format_ > FORMAT:
                raise _refused(
                    path,
                    f"it has format {format_}, and this server knows formats up to {FORMAT}: start the newer server, or name "
                    "another folder",
                )
            if format_ != FORMAT:
                raise _Damaged(f"its format is {format_}, which never was")
            (mode,) = connection.execute("pragma journal_mode=wal").fetchone()
            if mode != "wal":
                raise _refused(
                    path, f"its file system lets SQLite keep no log of writes (journal_mode is {mode}): name another"
                )
            connection.execute(f"pragma wal_autocheckpoint={CHECKPOINT_PAGES}").fetchall()
            connection.execute(f"pragma journal_size_limit={LOG_BYTES}").fetchall()
            lost_writes.make_long(path / LOG, CHECKPOINT_PAGES, PAGE_BYTES)
            _tables(connection)
        except BaseException:
            _let_go(connection)
            raise
        return connection


def _probe(path: Path, connection: Any) -> None:
    """It can be written, and has some room. Raises `OSError`, `sqlite3.Error`."""
    probe = path / NEW
    try:
        descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            left = NEEDED_BYTES
            while left:
                left -= os.write(descriptor, bytes(left))
        finally:
            os.close(descriptor)
    finally:
        probe.unlink(missing_ok=True)
    at, what = b"opened by", str(os.getpid()).encode()
    connection.execute("insert or replace into notes values (?, ?, ?)", (at, what, _check(at, what)))


def _tables(connection: Any) -> dict[str, str]:
    """The table of each model. Raises `sqlite3.Error`, `_Damaged`."""
    tables = {}
    for number, name, checked in connection.execute("select number, name, checked from models"):
        if checked != _check(b"%d" % number if isinstance(number, int) else b"", _blob(name)):
            raise _Damaged("the name of a model has changed since it was written")
        tables[_name(name)] = f"rows_{number}"
    return tables


def _made_table(connection: Any, model: str) -> str:
    """A new table for a model, within the transaction that is open."""
    (number,) = connection.execute("select coalesce(max(number), 0) + 1 from models").fetchone()
    name = _text(model)
    connection.execute("insert into models values (?, ?, ?)", (number, name, _check(b"%d" % number, name)))
    connection.execute(f"create table rows_{number} (key integer primary key, record blob not null)")
    return f"rows_{number}"


def _let_go(connection: Any) -> None:
    """Closes it; what it cannot copy out of its log is still there at the next start."""
    import sqlite3

    try:
        connection.close()
    except sqlite3.Error as error:
        log.warning(
            "the store of sequences could not be closed, and is read from its log at the next start: %s", _why(error)
        )


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _text(text: str) -> bytes:
    """Names of models come from folders, which may hold what is no text."""
    return text.encode(errors="surrogatepass")


def _name(data: bytes) -> str:
    try:
        return data.decode(errors="surrogatepass")
    except UnicodeDecodeError as error:
        raise _Damaged("it holds a name that is no text") from error


def _blob(value: object) -> bytes:
    if not isinstance(value, bytes):
        raise _Damaged(f"it holds {type(value).__name__} where bytes were written")
    return value


def _check(name: bytes, value: bytes) -> int:
    return zlib.crc32(value, zlib.crc32(name + b"\0"))
