"""What a run was: enough to read its rows, and to run it again."""

from __future__ import annotations

import os
import platform
import re
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Self

import msgspec

from dualstream_lab import former_names
from dualstream_lab.errors import RecordingError
from dualstream_lab.recording.files import read_json, replace_json

if TYPE_CHECKING:
    from dualstream_lab.config import Settings

FORMAT = 2
_READ: Final = (1, FORMAT)

Nanoseconds = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
Text = Annotated[str, msgspec.Meta(max_length=10_000)]
Prefix = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f-]{24}$")]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**48)]

_DAY: Final = 86_400  # s: a plan is no longer
_LONGEST: Final = 8 * _DAY  # s: nor is a run that is behind its plan
_PACKAGES = (
    "dualstream-lab", "aiokafka", "redis", "hiredis", "locust", "msgspec", "numpy", "pyarrow", "uvloop",
)  # fmt: skip


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that the figures depend on."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def machine() -> dict[str, Any]:
    """The machine that the figures are measured on; no names of hosts or people."""
    host = os.uname()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "system": host.sysname, "release": host.release, "architecture": host.machine,
        "cores": os.cpu_count() or 0, "memory_bytes": memory,
    }  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """The same moment on two clocks, ns: turns the rows' monotonic times into times of day."""

    monotonic: Nanoseconds
    wall: Nanoseconds

    @classmethod
    def now(cls) -> Self:
        """Read both clocks."""
        return cls(monotonic=time.monotonic_ns(), wall=time.time_ns())


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultRecord:
    """What was done to a broker, and when it really was (ns, monotonic)."""

    name: Text
    begin: Nanoseconds
    end: Nanoseconds = 0  # 0 while it lasts
    bite: Text = ""  # the evidence that it bit
    over: Text = ""  # the evidence that it is over


@dataclass(slots=True, kw_only=True)
class Manifest:
    """What a run was: its plan, its settings, its clocks, its state. Times are ns of the monotonic clock."""

    name: Text
    run: Text
    ids: Prefix  # of the event ids
    clocks: Clocks
    workload: dict[str, Any]
    settings: dict[str, Any]
    users: dict[str, Count] = field(default_factory=dict)
    thresholds: list[Text] = field(default_factory=list)
    faults: list[FaultRecord] = field(default_factory=list)
    asked: dict[str, Any] = field(default_factory=dict)  # what else the scenario says, as in its file
    warm_up: Count = 0  # events that were sent before ``started``, with ids of another run
    sample: Annotated[int, msgspec.Meta(ge=1, le=2**48)] = 1  # one event in so many has rows
    started: Nanoseconds = 0  # the plan's zero; 0 before it
    ended: Nanoseconds = 0
    state: Text = "running"  # or finished, or interrupted; still running where the writer died
    pid: int = field(default_factory=os.getpid)
    engine: Text = "lab"
    versions: dict[str, Text] = field(default_factory=versions)
    machine: dict[str, Any] = field(default_factory=machine)
    format: int = FORMAT

    @property
    def simulated(self) -> bool:
        """Whether a model made it: nothing was measured."""
        return self.engine == "simulation"

    def write(self, directory: Path) -> None:
        """Replace ``manifest.json`` in one step."""
        replace_json(directory / "manifest.json", asdict(self))

    @classmethod
    def read(cls, directory: Path) -> Self:
        """Read ``manifest.json``. Raises RecordingError where there is none, or it cannot be true."""
        path = directory / "manifest.json"
        try:
            if (found := read_json(path, _Format).format) not in _READ:
                raise RecordingError(f"it has format {found!r}; this version reads 1 and {FORMAT}")  # noqa: TRY301
            values = former_names.renamed_manifest(read_json(path, dict[str, Any]))
            manifest: Self = msgspec.convert(values, cls)
            _check(manifest)
        except FileNotFoundError as error:
            there = directory.is_dir()
            what = "is not a run directory: it has no manifest.json" if there else "does not exist"
            raise RecordingError(
                f"{directory} {what}; `dualstream runs` lists those that there are"
            ) from error
        except (RecordingError, msgspec.ValidationError) as error:
            raise RecordingError(f"{path} cannot be read: {error}") from error
        return manifest


class _Format(msgspec.Struct):
    format: Any


_Number = int | float


def _check(manifest: Manifest) -> None:
    """Check what the types do not say, and readers rely on. Raises RecordingError, ValidationError."""
    for values, kind in (
        (manifest.workload, dict[str, _Number | str]),
        (manifest.machine, dict[str, _Number | str]),
        (manifest.asked, dict[str, _Number | list[dict[str, _Number | str]]]),
        (manifest.settings.get("buffer_events", 0), int),
        (manifest.machine.get("memory_bytes", 0), int),
        (manifest.machine.get("cores", 0), int),
    ):
        msgspec.convert(values, kind)
    for name, most in (("rate", 1e7), ("duration", _DAY)):
        value = manifest.workload.get(name)
        if not isinstance(value, _Number) or not 0 < value <= most:
            raise RecordingError(f"workload.{name} must be above 0 and at most {most:,.0f} (is {value!r})")
    if not isinstance(manifest.workload.get("batch", 1), int):
        raise RecordingError("workload.batch must be a whole number")
    times = [manifest.ended, *(at for fault in manifest.faults for at in (fault.begin, fault.end))]
    if not all(within_run(manifest, at, at) for at in times if at):
        raise RecordingError("it has a time that is more than days from the run's start")


def within_run(manifest: Manifest, earliest: int, latest: int) -> bool:
    """Whether such times (ns) can be of this run; those of one that has not started are anyone's."""
    started = manifest.started
    return not started or (started - _DAY * 10**9 <= earliest and latest <= started + _LONGEST * 10**9)


def safe_settings(settings: Settings) -> dict[str, Any]:
    """The settings without passwords."""
    return {name: _masked(value) for name, value in settings.model_dump().items()}


def _masked(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    # up to the last @ before the path, as a password may have an @ of its own; a scheme may be left out
    value = re.sub(r"^((?:[\w+.-]+://)?[^:/@]*):[^/]*@", r"\1:***@", value)
    return re.sub(r"([?&]password=)[^&]*", r"\1***", value)
