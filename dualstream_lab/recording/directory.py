"""A run directory: made for a run, read back afterwards, also when its writers died."""

from __future__ import annotations

import json
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import pyarrow as pa
import pyarrow.parquet as pq

from dualstream_lab.errors import RecordingError
from dualstream_lab.recording.interval import Interval
from dualstream_lab.recording.manifest import Manifest
from dualstream_lab.recording.rows import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Part", "RunDirectory", "list_runs"]


class Part(NamedTuple):
    """A file of rows. ``rows``: None where it is damaged or missing."""

    writer: str
    rows: pa.Table | None


class RunDirectory:
    """The files of one run. ``problems`` names whatever could not be read, file by file."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest
        self.problems: list[str] = []

    @classmethod
    def create(cls, root: Path, name: str) -> Path:
        """A fresh directory ``<name>-<date>-<id>``. Raises RecordingError where it cannot be made."""
        path = root / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
        try:
            path.mkdir(parents=True)
        except OSError as error:
            reason = error.strerror or error
            raise RecordingError(f"{path} cannot be made: {reason}; choose another directory") from error
        return path

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Raises RecordingError for what is not a run directory. Parts that are damaged are left out."""
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
        """The same part by part, as each process wrote them, only some columns. Damaged and missing parts
        are named in ``problems``, and have no rows.
        """
        schema = _schema(kind, columns)
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
                # not pq.read_table, which sets up a whole data set for each file
                with pq.ParquetFile(path) as file:
                    rows = file.read(schema.names, use_threads=False)
                    yield Part(writer, rows.select(schema.names).cast(schema))
            except (OSError, pa.ArrowException, KeyError) as error:
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                self._problem(f"{path.name} is damaged and was left out ({reason})")
                yield Part(writer, None)

    def intervals(self) -> Iterator[Interval]:
        """Every interval of every process, file by file."""
        for path in sorted(self.path.glob("intervals-*.jsonl")):
            for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
                if not line:
                    continue
                try:
                    yield Interval.decode(json.loads(line))
                except (ValueError, RecordingError) as error:
                    self._problem(f"{path.name}, line {number} is damaged and was left out ({error})")

    def verdict(self) -> dict[str, Any] | None:
        """The verdict, if the run came to one."""
        try:
            value = json.loads((self.path / "verdict.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            self._problem(f"verdict.json is damaged ({error})")
            return None
        return value if isinstance(value, dict) else None

    def write_verdict(self, value: dict[str, Any]) -> None:
        """Replace the verdict in one step."""
        hidden = self.path / ".verdict.json"
        hidden.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
        hidden.replace(self.path / "verdict.json")

    def _problem(self, text: str) -> None:
        if text not in self.problems:
            self.problems.append(text)


def _schema(kind: str, columns: Sequence[str] | None = None) -> pa.Schema:
    types = KINDS[kind]
    return pa.schema([(name, types[name]) for name in (types if columns is None else columns)])


def list_runs(root: Path) -> list[RunDirectory | RecordingError]:
    """The runs below ``root``, the oldest first; what claims to be one and cannot be read is an error."""
    found: list[RunDirectory | RecordingError] = []
    for path in sorted(root.glob("*/manifest.json"), key=lambda path: path.stat().st_mtime):
        try:
            found.append(RunDirectory.open(path.parent))
        except RecordingError as error:
            found.append(error)
    return found
