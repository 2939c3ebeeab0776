"""The SQLite file: its tables, how it is opened and moved away, and what goes wrong with it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from typing import Final

from dualstream_lab.errors import StoreError

OFFSET_BITS: Final = 48
"""An event's key is its partition and its offset in one integer, which SQLite keeps its rows sorted by."""
FEEDERS_KEPT: Final = 3600.0
"""s that a processor is remembered after its last report."""
REBUILD: Final = (
    "`dualstream serve --rebuild-store` moves it away and fills a new one with what Kafka still has"
)
"""What helps where a store cannot be used as it is."""

_APPLICATION: Final = 0x6475616C  # "dual"
_VERSION: Final = 2
_PAGE: Final = 8192  # bytes
_BUSY: Final = 10.0  # s to wait for another process's transaction
_IN_USE: Final = 1.0  # s to wait for another process to close the file
_SCHEMA: Final = f"""
CREATE TABLE log (epoch TEXT NOT NULL);
CREATE TABLE partitions (
    id INTEGER PRIMARY KEY, position INTEGER NOT NULL, floor INTEGER NOT NULL,
    hole INTEGER NOT NULL DEFAULT 0, reason TEXT, events INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE sources (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
-- where each source's first event in a partition is
CREATE TABLE origins (
    source INTEGER NOT NULL, partition INTEGER NOT NULL, "offset" INTEGER NOT NULL,
    PRIMARY KEY (source, partition)
) WITHOUT ROWID;
-- unique in this order, so that an id alone is looked up, too
CREATE TABLE events (
    key INTEGER PRIMARY KEY, id TEXT NOT NULL, source INTEGER NOT NULL, type TEXT NOT NULL,
    ts INTEGER NOT NULL, value BLOB NOT NULL, UNIQUE (id, source)
);
-- SQLite appends the key to every index
CREATE INDEX events_of_source ON events (source);
CREATE TABLE feeders (
    name TEXT PRIMARY KEY, seen REAL NOT NULL, consumer_group TEXT NOT NULL, partitions TEXT NOT NULL,
    troubles TEXT NOT NULL
) WITHOUT ROWID;
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {_VERSION}
"""
_ADVICE: Final = {
    "SQLITE_NOTADB": "is not a SQLite database, or is damaged: move it away, or choose another --store",
    "SQLITE_CORRUPT": f"is damaged: {REBUILD}",
    "SQLITE_CANTOPEN": "cannot be opened: check that its directory exists and may be written to, or choose "
    "another --store",
    "SQLITE_READONLY": "may not be written to: check its permissions and its directory's, or choose another "
    "--store",
    "SQLITE_PERM": "may not be opened: check its permissions, or choose another --store",
    "SQLITE_FULL": "has no room left: free some of the disk, or keep fewer events (retention_bytes)",
    "SQLITE_BUSY": f"was locked by another process for {_BUSY:g} s",
}


def key_of(partition: int, offset: int) -> int:
    """Raises StoreError for a partition or an offset that no Kafka has."""
    if not (0 <= partition < 1 << 63 - OFFSET_BITS and 0 <= offset < 1 << OFFSET_BITS):
        raise StoreError(f"partition {partition}, offset {offset}: out of the store's range")
    return partition << OFFSET_BITS | offset


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Makes a StoreError, naming the file and what to do, of what SQLite raises."""
    try:
        yield
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", "")  # such as SQLITE_IOERR_WRITE
        advice = next((text for known, text in _ADVICE.items() if name.startswith(known)), "failed")
        raise StoreError(f"store {path} {advice} ({error})") from error


def connect(path: Path, pragmas: Sequence[str], *, read_only: bool) -> sqlite3.Connection:
    """A connection to a store, made if it is not there; ``read_only`` neither makes nor changes one.

    To be used by one thread at a time. Raises StoreError, and sqlite3.Error.
    """
    if read_only and not path.exists():
        raise StoreError(f"store {path} does not exist: start a processor on it first, or check --store")
    connection = _opened(path, "ro" if read_only else "rwc", _BUSY)
    try:
        _prepare(connection, path, read_only=read_only)
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}")
    except BaseException:
        connection.close()
        raise
    return connection


def _opened(path: Path, mode: str, timeout: float) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(uri, uri=True, timeout=timeout, isolation_level=None, check_same_thread=False)


def _prepare(connection: sqlite3.Connection, path: Path, *, read_only: bool) -> None:
    is_store = _is_ours(connection, path)
    if read_only:
        if not is_store:
            raise StoreError(f"store {path} is empty: start a processor on it first, or check --store")
        return
    if not is_store:
        connection.execute(f"PRAGMA page_size = {_PAGE}")
    _write_ahead(connection)
    if not is_store:
        _create(connection, path)


def _is_ours(connection: sqlite3.Connection, path: Path) -> bool:
    """Whether the file is a store; False if it is empty. Raises StoreError if it is anything else."""
    # in one statement: another process may be making it
    application, version, tables = connection.execute(
        "SELECT (SELECT application_id FROM pragma_application_id),"
        " (SELECT user_version FROM pragma_user_version), count(*) FROM sqlite_schema"
    ).fetchone()
    if application == _APPLICATION:
        if version != _VERSION:
            raise StoreError(
                f"store {path} has version {version} of the schema, and this program knows {_VERSION}: "
                f"{REBUILD}, or choose another --store"
            )
        return True
    if application or version or tables:
        raise StoreError(f"{path} is the database of another program: choose another --store")
    return False


def _create(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        if not _is_ours(connection, path):  # another process may have been quicker
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Switch to the write-ahead log, where readers never wait. SQLite itself does not wait for this lock."""
    deadline = time.monotonic() + _BUSY
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def move_away(path: Path) -> Path:
    """Move a store, of any version, out of the way: to ``NAME.before-1``, or -2, …, which is returned.

    What is in the write-ahead log is put into the file first, so that one whole file is moved. Raises
    StoreError, and moves nothing, where there is no store of ours, another process has it open, or the
    directory may not be written to.
    """
    if not path.is_file():
        raise StoreError(f"store {path} does not exist: there is nothing to move away")
    with storing(path), closing(_opened(path, "rw", _IN_USE)) as connection:
        if connection.execute("PRAGMA application_id").fetchone() != (_APPLICATION,):
            raise StoreError(f"{path} is no store of recent events: it is left where it is")
        _take(connection, path)
        names = (path.with_name(f"{path.name}.before-{number}") for number in count(1))
        target = next(name for name in names if not name.exists())
        try:
            path.rename(target)
        except OSError as error:
            raise StoreError(f"store {path} cannot be moved to {target}: {error.strerror}") from error
    return target


def _take(connection: sqlite3.Connection, path: Path) -> None:
    """Be the only one. Another one who closes it later would delete the new store's write-ahead log."""
    try:
        connection.execute("PRAGMA journal_mode = DELETE")  # which SQLite refuses while others are there
        connection.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
            raise
        raise StoreError(f"store {path} is open elsewhere: end every process that serves from it") from error
