"""A run directory: made for a run, read back afterwards, also when its writers died."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import pyarrow as pa
import pyarrow.parquet as pq

from dualstream_lab.errors import RecordingError
from dualstream_lab.former_names import COLUMNS, ROWS, before, renamed_counters, renamed_gauges
from dualstream_lab.recording.files import check_plain, read_lines, read_whole, replace_json
from dualstream_lab.recording.interval import Interval
from dualstream_lab.recording.manifest import FORMAT, Manifest, within_run
from dualstream_lab.recording.rows import KINDS, RANGES

_DENSEST: Final = 300  # bytes of rows in a byte of a file: LZ4 makes 255 of one
_HEADROOM: Final = 2**20
_NAMES: Final = 1000  # of counters, gauges and histograms


class Part(NamedTuple):
    """A file of rows, as one process wrote it. ``rows``: None where it is damaged or missing."""

    writer: str
    rows: pa.Table | None


class RunDirectory:
    """The files of one run. ``problems`` names whatever could not be read, file by file."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest
        self.problems: list[str] = []
        self._former = manifest.format < FORMAT

    @classmethod
    def create(cls, root: Path, name: str) -> Path:
        """A fresh directory ``<name>-<date>-<id>``. Raises RecordingError where it cannot be made."""
        path = root / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
        try:
            path.mkdir(parents=True)
        except OSError as error:
            why = f"{path} cannot be made: {error.strerror or error}; choose another directory"
            raise RecordingError(why) from error
        return path

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Read a run directory, less damaged parts. Raises RecordingError for what is none."""
        path = Path(path)
        return cls(path, Manifest.read(path))

    def save(self) -> None:
        """Write the manifest anew."""
        self.manifest.write(self.path)

    def rows(self, kind: str) -> pa.Table:
        """All rows of a kind (``KINDS``), by part; empty where there are none."""
        tables = [part.rows for part in self.parts(kind) if part.rows is not None]
        return pa.concat_tables(tables) if tables else _schema(kind).empty_table()

    def parts(self, kind: str, columns: Sequence[str] | None = None) -> Iterator[Part]:
        """The rows of a kind, part by part, as each process wrote them; all columns or some. Damaged and
        missing parts are named in ``problems``, and have no rows.
        """
        schema = _schema(kind, columns)
        names: list[str] = list(schema.names)
        if self._former:
            kind, names = before(ROWS, kind), [before(COLUMNS, name) for name in names]
        due: dict[str, int] = {}
        for path in sorted(self.path.glob(f"{kind}-*.parquet")):
            writer, _, number = path.stem.removeprefix(f"{kind}-").rpartition("-")
            first = due.get(writer, 1)
            due[writer] = int(number) + 1 if number.isdecimal() else first
            if due[writer] > first + 1:
                count = due[writer] - 1 - first
                self._problem(f"{path.name} comes after {count} that are missing")
                yield Part(writer, None)
            try:
                rows = _read_rows(path, names, schema)
                self._check_rows(rows)
                yield Part(writer, rows)
            except (OSError, pa.ArrowException, KeyError, ValueError, RecordingError) as error:
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                self._problem(f"{path.name} is damaged and was left out ({reason})")
                yield Part(writer, None)

    def columns(self, kind: str, names: Sequence[str]) -> Iterator[tuple[str, dict[str, Any] | None]]:
        """(writer, arrays by name; None where it is damaged or missing), part by part."""
        for writer, rows in self.parts(kind, names):
            yield writer, None if rows is None else {name: rows.column(name).to_numpy() for name in names}

    def _check_rows(self, rows: pa.Table) -> None:
        """Raise RecordingError for values that no writer of ours can have seen."""
        if not len(rows):
            return
        for name in rows.column_names:
            column = rows.column(name)
            if column.null_count:
                raise RecordingError(f"column {name} has holes")
            values = column.to_numpy()
            if name in RANGES:
                low, high = RANGES[name]
                if not low <= values.min() <= values.max() <= high:
                    raise RecordingError(f"column {name} has what is not from {low} to {high}")
            elif values.min() < 0 or not within_run(
                self.manifest, int(values[values > 0].min(initial=values.max())), int(values.max())
            ):
                raise RecordingError(f"column {name} has times that are not of this run")

    def intervals(self) -> Iterator[Interval]:
        """Every interval of every process, file by file."""
        for path in sorted(self.path.glob("intervals-*.jsonl")):
            damaged = 0
            names: set[str] = set()
            try:
                for number, line in enumerate(read_lines(path), 1):
                    try:
                        if line != b"\n":
                            yield self._interval(line, names)
                    except RecordingError as error:
                        damaged += 1
                        if damaged == 1:
                            self._problem(f"{path.name}, line {number} is damaged and was left out ({error})")
            except (OSError, RecordingError) as error:
                self._problem(f"{path.name} cannot be read ({error})")
            if damaged > 1:
                self._problem(f"{path.name}: {damaged - 1:,} more lines are damaged")

    def _interval(self, line: bytes | None, names: set[str]) -> Interval:
        interval = Interval.read(line)
        if self._former:
            interval.counters = renamed_counters(interval.counters, interval.gauges)
            interval.gauges = renamed_gauges(interval.gauges)
        seconds = interval.gauges.get("published.seconds", 0)  # from the start to the last answer
        last = max(interval.end, self.manifest.started + round(seconds * 1e9))
        if not within_run(self.manifest, interval.begin, last):
            raise RecordingError("it has times that are not of this run")
        names.update(interval.counters, interval.gauges, interval.histograms)
        if len(names) > _NAMES:  # of a table's columns
            raise RecordingError(f"with it there are more than {_NAMES:,} names")
        return interval

    def verdict(self) -> dict[str, Any] | None:
        """The verdict, if the run came to one."""
        try:
            value = json.loads(read_whole(self.path / "verdict.json"))
        except FileNotFoundError:
            return None
        except (RecordingError, ValueError, RecursionError) as error:
            self._problem(f"verdict.json is damaged ({error})")
            return None
        return value if isinstance(value, dict) else None

    def write_verdict(self, value: dict[str, Any]) -> None:
        """Replace the verdict in one step."""
        replace_json(self.path / "verdict.json", value)

    def _problem(self, text: str) -> None:
        if text not in self.problems:
            self.problems.append(text)


def _read_rows(path: Path, names: list[str], schema: pa.Schema) -> pa.Table:
    """The columns ``names``, called as in ``schema``. Raises OSError, ArrowException, KeyError,
    RecordingError.
    """
    check_plain(path)
    # not pq.read_table, which sets up a whole data set for each file
    with pq.ParquetFile(path) as file:
        size = file.metadata.num_rows * sum(kind.bit_width // 8 for kind in schema.types)
        if size > _DENSEST * path.stat().st_size + _HEADROOM:
            raise RecordingError(f"it says that it has {file.metadata.num_rows:,} rows")
        rows = file.read(names, use_threads=False)
    return rows.select(names).rename_columns(schema.names).cast(schema)


def _schema(kind: str, columns: Sequence[str] | None = None) -> pa.Schema:
    types = KINDS[kind]
    return pa.schema([(name, types[name]) for name in (types if columns is None else columns)])


def list_runs(root: Path) -> list[RunDirectory | RecordingError]:
    """The runs below ``root``, the oldest first; what claims to be one and cannot be read is an error."""

    def modified(path: Path) -> float:
        try:
            return path.stat().st_mtime
        except OSError:  # it has gone, or is a link to nowhere
            return 0.0

    found: list[RunDirectory | RecordingError] = []
    for path in sorted(root.glob("*/manifest.json"), key=modified):
        try:
            found.append(RunDirectory.open(path.parent))
        except RecordingError as error:
            found.append(error)
    return found
