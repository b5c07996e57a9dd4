"""The SQLite file of a local index: connections, transactions, and its errors in our words."""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

from ..errors import Damaged, IndexMismatch, StoreError
from .checksums import checksum
from .locks import locked
from .migrations import APPLICATION, MIGRATIONS, migrate
from .segments import size_of_file, sync_folder

BUSY_SECONDS = 60.0
FULL = "the disk is full: make room and run again; nothing that was committed is lost"
LOCK = "index.lock"  # held while the index is opened to be written, and while it is repaired
OURS = ("generations", "page_texts", "page_vectors")  # tables by which an index is told from what others made
VERSIONS = 1000  # no format has a greater number
SHARED = 32768  # bytes of the file by which SQLite's connections agree; a full disk may have room for a part
LEAST = 65536  # bytes that SQLite's log and its index need to begin
CURE = "restore the index from a copy; else visrag check --repair makes good what it can"
NETWORK = (
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "fuse.sshfs",
    "fuse.glusterfs",
    "fuse.s3fs",
    "fuse.rclone",
    "afs",
    "ceph",
    "lustre",
)


class Database:
    """``index.db``: any number of reading connections and one that writes. For use from several threads."""

    def __init__(self, path: Path, create: bool, held: bool = False) -> None:
        """Open, and bring to the newest form. Raises StoreError, Damaged, and IndexMismatch for an index of a newer
        version. ``version``: the form that it is in. ``held``: that the caller is in ``alone``."""
        self.path = path
        self._held = held
        self.version = 0
        self._process = os.getpid()
        self._idle: list[sqlite3.Connection] = []
        self._all: list[sqlite3.Connection] = []
        self._stamp: tuple[int, ...] | None = None  # of the file, where the idle connections take no locks
        self._pool = threading.Lock()
        self._writing = threading.RLock()
        self._writer: sqlite3.Connection | None = None
        self.writable = False
        self._cure = "give this user the right to, or copy the index elsewhere"
        with mapped(path):
            try:
                try:
                    self._prepare(create)
                except StoreError as error:
                    if not (no_room(error, path) and path.exists()):
                        raise
                    self._only_read()
            except BaseException:
                self.close()
                raise

    def _prepare(self, create: bool) -> None:
        refuse_network(self.path.parent)
        kept = [] if self._exists() else self._remains()
        if not self._exists():  # nor has another process made it since
            self._refuse_remains(kept)
            if not create:
                raise StoreError(
                    f"{self.path.parent} is not an index; make one with: visrag ingest PATH --index {self.path.parent}"
                )
            self.path.parent.mkdir(parents=True, exist_ok=True)
        self.writable = os.access(self.path.parent, os.W_OK) and (
            not self.path.exists() or os.access(self.path, os.W_OK)
        )
        if not self.writable:
            self.version = self._version(new=False)
            return
        with nullcontext() if self._held else locked(self.path.parent / LOCK):
            put_in_place(self.path)
            if self._version(new=create) < len(MIGRATIONS):
                self._migrate()
            self.version = len(MIGRATIONS)

    def _only_read(self) -> None:
        """On a disk without room for even the 32 kB by which SQLite's connections agree."""
        self.close()
        self.writable, self._cure = False, FULL
        self.version = self._version(new=False)

    def _migrate(self) -> None:
        connection = self._connect()
        connection.execute("PRAGMA journal_mode = WAL").fetchall()
        try:
            migrate(connection)
        except sqlite3.OperationalError as error:
            if "already exists" in str(error) or "duplicate column" in str(error):
                raise Damaged(f"{self.path} is damaged: its format is not what it says: {CURE}") from error
            raise
        self._idle.append(connection)

    def _exists(self) -> bool:
        return self.path.exists() or new_database(self.path).exists()

    def _refuse_remains(self, kept: list[str]) -> None:
        """Raise Damaged where there is no database, but folders with files that one was kept of."""
        if kept:
            raise Damaged(
                f"{self.path} is missing or empty, but {' and '.join(kept)} beside it not: restore it from a copy; "
                "else visrag check --repair makes a new one of the documents there"
            )

    def _remains(self) -> list[str]:
        """The folders beside the database in which files of an index lie."""
        return [folder for folder in ("originals", "vectors") if any((self.path.parent / folder).glob("*"))]

    def _version(self, new: bool) -> int:
        """The file's format, 0 for an empty file where a ``new`` one is wanted. StoreError if it is no index."""
        with self.read() as connection:
            version = int(connection.execute("PRAGMA user_version").fetchone()[0])
            application = connection.execute("PRAGMA application_id").fetchone()[0]
            empty = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
            ours = connection.execute(f"SELECT 1 FROM sqlite_master WHERE name IN {OURS}").fetchone()
        if empty and application in (0, APPLICATION):
            self._refuse_remains(self._remains())
        if ours and (application != APPLICATION or not 0 < version < VERSIONS):
            raise Damaged(f"{self.path} is damaged: it does not say what it is: {CURE}")
        if application != APPLICATION and not (empty and new):
            raise StoreError(
                f"{self.path.parent} is not an index: its index.db was made by something else; choose another folder"
            )
        if version > len(MIGRATIONS):
            raise IndexMismatch(
                f"{self.path.parent} was made by a newer version of visrag (format {version}, this one reads "
                f"{len(MIGRATIONS)}): upgrade visrag, or make another index"
            )
        return version

    def _connect(self, locks: bool = True) -> sqlite3.Connection:
        uri = self.path.absolute().as_uri()
        if not self.writable:
            uri += "?mode=ro" if locks else "?immutable=1"
        connection = sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        self._all.append(connection)
        connection.create_function("checksum", -1, lambda *values: checksum(values), deterministic=True)
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA journal_size_limit = 67108864")
        return connection

    def _locks(self) -> bool:
        """Whether SQLite can lock the file. Where it cannot be written, only while the files are there that whoever
        writes keeps beside it: then it stays so as long as a connection is open."""
        log, shared = (size_of_file(self.path.with_name(f"{self.path.name}-{suffix}")) for suffix in ("wal", "shm"))
        return self.writable or log > 0 or shared >= SHARED

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """A connection in a transaction of its own, which sees one state of the index throughout."""
        with mapped(self.path):
            with self._pool:
                self._check_process()
                stamp = None if self._locks() else _stamp(self.path)
                if stamp != self._stamp:
                    self._forget(self._idle)
                    self._idle, self._stamp = [], stamp
                connection = self._idle.pop() if self._idle else self._connect(stamp is None)
            try:
                connection.execute("BEGIN")
                yield connection
            finally:
                connection.rollback()
                with self._pool:
                    if stamp == self._stamp:
                        self._idle.append(connection)
                    else:
                        self._forget([connection])
                if stamp is not None and stamp != _stamp(self.path):
                    raise StoreError(f"{self.path} was written while it was read without a lock: run again")

    def _forget(self, connections: Iterable[sqlite3.Connection]) -> None:
        for connection in connections:
            self._all.remove(connection)
            connection.close()

    @contextmanager
    def write(self, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """A connection in a transaction that commits at the end, and is undone by any error.

        One that isn't ``durable`` survives the death of this process, but reaches the disk with the next that is.
        """
        with mapped(self.path), self._writing:
            self._check_process()
            if not self.writable:
                raise StoreError(f"{self.path.parent} cannot be written: {self._cure}")
            if self._writer is None:
                with self._pool:
                    self._writer = self._connect()
            self._writer.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                self._writer.rollback()
                raise

    def vacuum(self, dead_share: float) -> None:
        """Give dead space of the file back to the disk, if it is more than this share of it."""
        with self.read() as connection:
            free = connection.execute("PRAGMA freelist_count").fetchone()[0]
            pages = connection.execute("PRAGMA page_count").fetchone()[0]
        if free <= dead_share * pages:
            return
        with self.write() as connection:
            connection.execute("INSERT INTO fulltext (fulltext) VALUES ('optimize')")
        with mapped(self.path), self._writing:
            assert self._writer is not None
            self._writer.execute("VACUUM")
            self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise StoreError(f"{self.path.parent} was opened before this process was forked: open it again here")

    def close(self) -> None:
        """Close every connection. Nothing may be read or written any more."""
        with self._pool:
            connections, self._all, self._idle, self._writer = self._all, [], [], None
        if os.getpid() == self._process:
            for connection in connections:
                connection.close()


def _stamp(path: Path) -> tuple[int, ...]:
    """What is another once a file was written."""
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


@contextmanager
def mapped(path: Path) -> Iterator[None]:
    """Turn errors of SQLite and of the file system into a StoreError, or Damaged, that names the path and the cure."""
    try:
        yield
    except sqlite3.Error as error:
        if is_damage(error):
            stranger = getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_NOTADB
            what = "is not an index, or is damaged" if stranger else "is damaged"
            raise Damaged(f"{path}: {what}: {CURE} ({error})") from error
        raise StoreError(f"{path}: {_reason(error, path)}") from error
    except UnicodeEncodeError as error:
        raise StoreError(f"{path}: a text that is not valid Unicode cannot be stored ({error})") from error
    except OSError as error:
        raise StoreError(f"{error.filename or path}: {_os_reason(error)}") from error


def is_damage(error: sqlite3.Error) -> bool:
    """Whether SQLite says that what it reads is not what was written. No text of ours is without being UTF-8."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or str(error).startswith("Could not decode")


def in_use(path: Path) -> bool:
    """Whether another process has an SQLite file open: in WAL mode each connection holds a shared lock on it for as
    long as it lives (sqlite.org/walformat.html, 2.3.1; the bytes: SHARED_FIRST and SHARED_SIZE of os_unix.c).

    Not while this process has it open: closing a file lets go of all of a process's locks on it.
    """
    with path.open("r+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 510, 0x40000002)
        except (BlockingIOError, PermissionError):
            return True
    return False


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep others from opening an index to write to it, who wait. Raises StoreError where another process has it open.

    Not while this process has it open.
    """
    path = folder / "index.db"
    with ExitStack() as stack:
        with mapped(path):
            stack.enter_context(locked(folder / LOCK))
            if path.exists() and in_use(path):
                raise StoreError(f"{path} is open in another process: end what uses the index, then run this again")
        yield


def new_database(path: Path) -> Path:
    """Where one that was made anew lies, whole, until it is put in the place of the damaged one at ``path``."""
    return path.parent / "rebuild" / "whole.db"


def put_in_place(path: Path) -> None:
    """Put a database that was made anew in its place, if there is one; also where a process died as it did. What it
    replaces has been kept elsewhere. The caller holds the index's lock."""
    new = new_database(path)
    if new.exists():
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        sync_folder(path.parent)
        new.replace(path)
        sync_folder(path.parent)


def no_room(error: StoreError, path: Path) -> bool:
    """Whether an error means that the disk is full."""
    cause = error.__cause__
    if isinstance(cause, OSError):
        return cause.errno in (errno.ENOSPC, errno.EDQUOT)
    return isinstance(cause, sqlite3.Error) and _is_full(cause, path)


def _is_full(error: sqlite3.Error, path: Path) -> bool:
    """Whether there is no room; of SQLite's log and its index that is told as an error of input and output."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code != sqlite3.SQLITE_IOERR:
        return code == sqlite3.SQLITE_FULL
    disk = os.statvfs(path if path.is_dir() else path.parent)
    return disk.f_bavail * disk.f_frsize < LEAST


def _reason(error: sqlite3.Error, path: Path) -> str:
    if _is_full(error, path):
        return f"{FULL} ({error})"
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    reasons = {
        sqlite3.SQLITE_READONLY: "cannot be written: give this user the right to, or copy the index elsewhere",
        sqlite3.SQLITE_CANTOPEN: "cannot be opened: check that this user may read and write it and its folder",
        sqlite3.SQLITE_BUSY: f"another process has been writing for over {BUSY_SECONDS:.0f} s: wait for it, or stop it",
        sqlite3.SQLITE_IOERR: "could not be read or written: check the disk and its free space",
    }
    return f"{reasons.get(code, 'the index could not be read or written')} ({error})"


def _os_reason(error: OSError) -> str:
    reasons = {
        errno.ENOSPC: FULL,
        errno.EDQUOT: "the quota of the disk is used up: make room and run again; nothing that was committed is lost",
        errno.EROFS: "cannot be written, the file system is read-only: copy the index elsewhere",
        errno.EACCES: "may not be read or written by this user: give it the right to",
        errno.EPERM: "may not be read or written by this user: give it the right to",
        errno.ENOTDIR: "is not a folder: choose another path for the index",
        errno.EEXIST: "is a file, not a folder: choose another path for the index",
        errno.EFBIG: "has reached the greatest size a file may have here: raise the limit (ulimit -f)",
    }
    return f"{reasons.get(error.errno or 0, 'could not be read or written')} ({error.strerror or error})"


def refuse_network(folder: Path, mounts: Path = Path("/proc/mounts")) -> None:
    """Raise StoreError where the folder lies on a network file system, as far as the system tells.

    SQLite's log and our locks hold between the processes of one host only.
    """
    try:
        lines = mounts.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return
    where, kind = "", ""
    resolved = folder.resolve()
    for line in lines:
        _, point, found, *_ = line.split(" ")
        point = point.encode("utf-8", "surrogateescape").decode("unicode_escape") if "\\" in point else point
        if len(point) >= len(where) and resolved.is_relative_to(point):
            where, kind = point, found
    if kind in NETWORK:
        raise StoreError(
            f"{folder} lies on a network file system ({kind} at {where}), where a local index would be damaged: "
            "keep it on a disk of this machine, or use a Qdrant store"
        )
