"""What a run was: enough to read its rows, and to run it again."""

from __future__ import annotations

import json
import os
import platform
import re
import time
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Self

from dualstream_lab.errors import RecordingError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from dualstream_lab.config import Settings

__all__ = ["Clocks", "FaultRecord", "Manifest", "machine", "safe_settings", "versions"]

FORMAT = 1
_PACKAGES = (
    "dualstream-lab", "aiokafka", "redis", "hiredis", "locust", "msgspec", "numpy", "pyarrow", "uvloop",
)  # fmt: skip


def versions() -> dict[str, str]:
    """Of Python and of the packages that the figures depend on."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """What the figures were measured on; no names of hosts or people."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "system": platform.system(),
        "release": platform.release(),
        "architecture": platform.machine(),
        "cores": os.cpu_count() or 0,
        "memory_bytes": memory,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """The same moment on two clocks, ns: turns the rows' monotonic times into times of day."""

    monotonic: int
    wall: int

    @classmethod
    def now(cls) -> Self:
        """Read both."""
        return cls(monotonic=time.monotonic_ns(), wall=time.time_ns())


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultRecord:
    """What was done to a broker, and when it really was (ns, monotonic). ``end`` is 0 while it lasts.

    ``bite`` and ``over``: the evidence that it bit, and that it is over.
    """

    what: str
    begin: int
    end: int = 0
    bite: str = ""
    over: str = ""


@dataclass(slots=True, kw_only=True)
class Manifest:
    """A run's facts. ``started``: the plan's zero, ns of the monotonic clock, 0 before it.

    ``sample``: one event in so many has rows. ``ids``: the prefix of the event ids. ``state``: ``running``,
    ``finished`` or ``interrupted``; still ``running`` in a directory whose writer died. ``asked``: what else
    the scenario says, as in its file: ``warm_up``, ``max_rows``, ``faults``.
    """

    name: str
    run: str
    ids: str
    clocks: Clocks
    workload: dict[str, Any]
    settings: dict[str, Any]
    users: dict[str, int] = field(default_factory=dict)
    thresholds: list[str] = field(default_factory=list)
    faults: list[FaultRecord] = field(default_factory=list)
    asked: dict[str, Any] = field(default_factory=dict)
    sample: int = 1
    started: int = 0
    ended: int = 0
    state: str = "running"
    pid: int = field(default_factory=os.getpid)
    engine: str = "lab"
    versions: dict[str, str] = field(default_factory=versions)
    machine: dict[str, Any] = field(default_factory=machine)
    format: int = FORMAT

    @property
    def simulated(self) -> bool:
        """Whether a model made it: nothing was measured."""
        return self.engine == "simulation"

    def write(self, directory: Path) -> None:
        """Replace ``manifest.json`` in one step."""
        hidden = directory / ".manifest.json"
        hidden.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
        hidden.replace(directory / "manifest.json")

    @classmethod
    def read(cls, directory: Path) -> Self:
        """Raises RecordingError where there is none, or one of another make."""
        path = directory / "manifest.json"
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if values["format"] != FORMAT:
                raise RecordingError(
                    f"{path} has format {values['format']!r}; this version reads format {FORMAT}"
                )
            known = {entry.name for entry in fields(cls)}
            kept = {name: value for name, value in values.items() if name in known}
            kept["clocks"] = Clocks(**values["clocks"])
            kept["faults"] = [FaultRecord(**fault) for fault in values["faults"]]
            return cls(**kept)
        except FileNotFoundError as error:
            what = (
                "is not a run directory: it has no manifest.json" if directory.is_dir() else "does not exist"
            )
            raise RecordingError(
                f"{directory} {what}; `dualstream runs` lists those that there are"
            ) from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise RecordingError(f"{path} cannot be read: {error!r}") from error


def safe_settings(settings: Settings) -> dict[str, Any]:
    """The settings without passwords."""
    return {name: _masked(value) for name, value in _items(settings.model_dump())}


def _items(values: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return list(values.items())


def _masked(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    # up to the last @ before the path: a password may have an @ of its own
    return re.sub(r"(?<=://)([^:/@]*):[^/]*@", r"\1:***@", value)
