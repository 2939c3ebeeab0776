"""A scenario: what to run, for whom, what to break on the way, and what must hold. Read from TOML."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import Any, Self

from dualstream_lab.bounds import within
from dualstream_lab.errors import ConfigError
from dualstream_lab.faults.spec import FaultSpec as Fault
from dualstream_lab.faults.spec import brokers_needed, check_overlaps, fault_named
from dualstream_lab.former_names import FAULTS, USERS, before, renamed
from dualstream_lab.verdict.thresholds import Threshold
from dualstream_lab.workload import Workload

_MOST = 2**20  # bytes of a file
_SHORT = 500  # characters of a message: it shows the value, which may be of any size


@dataclass(frozen=True, slots=True, kw_only=True)
class Users:
    """Who uses the two streams. ``concurrency``: calls of the publisher that may be open at once.
    ``subscribers``: Redis connections, each of which receives everything.
    """

    concurrency: int = 256
    subscribers: int = 1

    def __post_init__(self) -> None:
        for name, low, high in (("concurrency", 1, 100_000), ("subscribers", 0, 10_000)):
            within(name, getattr(self, name), low, high, whole=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Everything that is to be known of a run but its brokers. ``warm_up``: s before it that are not
    recorded. ``max_rows``: above so many events, only one in some has rows (the counters and publish
    histograms have all).
    """

    name: str = "run"
    workload: Workload = field(default_factory=Workload)
    users: Users = field(default_factory=Users)
    faults: tuple[Fault, ...] = ()
    thresholds: tuple[Threshold, ...] = ()
    warm_up: float = 5.0
    max_rows: int = 5_000_000

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,60}", self.name):
            raise ConfigError(f"name: must be letters, digits, - and _ (is {self.name!r})")
        within("warm_up", self.warm_up, 0, 600, " s")
        within("max_rows", self.max_rows, 1000, 100_000_000)
        for fault in self.faults:
            if fault_named(fault.name).breaks == "gateway":
                raise ConfigError(
                    f"faults: a run has no gateway for {fault.name}; `dualstream check-gateway` has one"
                )
            begin, end = fault.spans[-1]
            if end > self.workload.duration:
                raise ConfigError(
                    f"faults: {fault.name} at {begin:g} s for {fault.length:g} s is not within the run "
                    f"({self.workload.duration:g} s)"
                )
        check_overlaps(self.faults)

    @property
    def brokers(self) -> int:
        """How many Kafka brokers its faults need: 1 or 3."""
        return brokers_needed(fault.name for fault in self.faults)

    @property
    def sample(self) -> int:
        """One event in so many gets rows."""
        expected = self.workload.expected or round(self.workload.duration * 200_000)
        return max(1, -(-expected // self.max_rows))

    @classmethod
    def read(cls, source: str) -> Self:
        """Read a file, or a shipped scenario by its name. Raises ConfigError naming the line and the key."""
        shipped = shipped_scenarios()
        text = shipped[source] if source in shipped else _text(source)
        try:
            return cls._from(tomllib.loads(text), Path(source).stem)
        except RecursionError as error:
            raise ConfigError(f"{source}: is nested too deep") from error
        except ConfigError as error:
            said = str(error)
            short = said if len(said) <= _SHORT else f"{said[:_SHORT]} …"
            raise ConfigError(f"{source}{_line_of(text, said)}: {short}") from error
        except ValueError as error:  # what tomllib raises, also of a number with too many digits
            raise ConfigError(f"{source}: {error}") from error

    @classmethod
    def _from(cls, values: dict[str, Any], name: str) -> Self:
        _check_keys(cls, values)
        for key, kind, what in (
            ("workload", dict, "a table"), ("users", dict, "a table"), ("faults", list, "tables: [[faults]]"),
            ("thresholds", list, "a list of texts"), ("warm_up", (int, float), "a number"),
            ("max_rows", int, "a whole number"), ("name", str, "a text"),
        ):  # fmt: skip
            if key in values and (not isinstance(values[key], kind) or isinstance(values[key], bool)):
                raise ConfigError(f"{key}: must be {what} (is {values[key]!r})")
        users = values.get("users", {})
        if twice := [then for then, now in USERS.items() if {then, now} <= users.keys()]:
            raise ConfigError(f"{twice[0]}: is called {USERS[twice[0]]} now: give one of them")
        users = renamed(users, USERS)
        _check_keys(Users, users)
        parsed = {
            "workload": Workload.load(values.get("workload", {})),
            "users": Users(**users),
            "faults": tuple(Fault.load(fault) for fault in values.get("faults", [])),
            "thresholds": tuple(Threshold.parse(str(text)) for text in values.get("thresholds", [])),
        }
        return cls(**({"name": name} | values | parsed))


def _text(source: str) -> str:
    """The text of a scenario file. Raises ConfigError where it cannot be read."""
    try:
        with Path(source).open("rb") as file:
            data = file.read(_MOST + 1)
    except FileNotFoundError as error:
        names = ", ".join(shipped_scenarios())
        raise ConfigError(f"there is no scenario file {source}; shipped ones: {names}") from error
    except OSError as error:
        raise ConfigError(f"{source} cannot be read: {error.strerror}") from error
    if len(data) > _MOST:
        raise ConfigError(f"{source} is larger than {_MOST:,} bytes: it is no scenario")
    try:
        return data.decode("utf-8-sig")
    except UnicodeError as error:
        raise ConfigError(f"{source} is not UTF-8, which TOML is: {error}") from error


def _check_keys(kind: type[Any], values: dict[str, Any]) -> None:
    known = [entry.name for entry in fields(kind)]
    if unknown := [key for key in values if key not in known]:
        raise ConfigError(f"unknown key {unknown[0]!r}; known: {', '.join(known)}")


def _line_of(text: str, message: str) -> str:
    """``, line 7``: the line that the key or text at the message's beginning is on, if it can be told."""
    key = re.match(r"unknown key '([^']+)'|threshold '([^']+)'|(\w+):", message)
    if key is None:
        return ""
    name = next(part for part in key.groups() if part)
    spelled = "|".join({re.escape(name), *(before(names, name) for names in (USERS, FAULTS))})
    for number, line in enumerate(text.splitlines(), 1):
        if re.match(rf"\s*(\[+\s*)?({spelled})\b", line) or (key[2] and name in line):
            return f", line {number}"
    return ""


def shipped_scenarios() -> dict[str, str]:
    """Name (``redis_down.toml``) and text of every scenario that comes with the package."""
    directory = resources.files("dualstream_lab.lab") / "scenarios"
    files = sorted(directory.iterdir(), key=lambda file: file.name)
    return {file.name: file.read_text(encoding="utf-8") for file in files if file.name.endswith(".toml")}
