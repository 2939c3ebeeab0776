"""What can be broken, and a ``[[faults]]`` table of a scenario: what to break, when, and for how long."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final, Self

from dualstream_lab import former_names
from dualstream_lab.bounds import within
from dualstream_lab.errors import ConfigError
from dualstream_lab.faults import network, process
from dualstream_lab.faults.fault import Fault
from dualstream_lab.faults.kafka import cluster
from dualstream_lab.faults.redis import commands

_KEYS: Final = {"fault": "name", "at": "at", "for": "length", "every": "every", "times": "times"}
_LONGEST: Final = 86_400  # s

_FAMILIES: Final = ("redis", "kafka", "net", "gateway")
_ALL = [kind for module in (process, commands, cluster, network) for kind in module.FAULTS]
CATALOGUE: Final[Mapping[str, type[Fault]]] = {
    kind.name: kind for family in _FAMILIES for kind in _ALL if kind.name.startswith(f"{family}.")
}
"""Every fault by its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultSpec:
    """The fault ``name`` of the catalogue happens ``at`` a second of the run and lasts ``length`` s (0 for
    one that is over at once); ``times`` times, ``every`` so many s. ``parameters``: the fault's own.
    """

    name: str
    at: float
    length: float = 0.0
    every: float = 0.0
    times: int = 1
    parameters: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        kind = fault_named(self.name)
        checked(kind, self.parameters)
        for key, value in (("at", self.at), ("for", self.length), ("every", self.every)):
            within(key, value, 0, _LONGEST, " s")
        if kind.instant == bool(self.length):
            need = "takes no `for`: it is over at once" if kind.instant else "needs `for`, seconds above 0"
            raise ConfigError(f"for: {self.name} {need} (is {self.length!r})")
        within("times", self.times, 1, 10_000, whole=True)
        if (self.times > 1) != bool(self.every) or (self.every and self.every <= self.length):
            raise ConfigError(
                f"every: a fault that happens `times` above 1 needs `every`, seconds above its `for` "
                f"({self.length:g}), and no other has it (every is {self.every!r}, times {self.times!r})"
            )

    @property
    def spans(self) -> list[tuple[float, float]]:
        """The begin and the end of each time, in seconds of the run."""
        begins = (self.at + number * self.every for number in range(self.times))
        return [(begin, begin + self.length) for begin in begins]

    @classmethod
    def load(cls, values: Any) -> Self:
        """Read a TOML table. Raises ConfigError."""
        if not isinstance(values, dict):
            raise ConfigError(f"faults: must be tables: [[faults]] (is {values!r})")
        values = former_names.renamed(values, former_names.FAULTS)
        if missing := [key for key in ("fault", "at") if key not in values]:
            raise ConfigError(f"faults: {missing[0]!r} is missing")
        given = dict(values)
        named = {name: given.pop(key) for key, name in _KEYS.items() if key in given}
        return cls(**named, parameters=given)

    def as_dict(self) -> dict[str, Any]:
        """The table that :meth:`load` reads."""
        more = {"for": self.length, "every": self.every, "times": self.times if self.every else 0}
        given = {key: value for key, value in more.items() if value}
        return {"fault": self.name, "at": self.at, **given, **self.parameters}


def fault_named(name: Any) -> type[Fault]:
    """Find a fault of the catalogue. Raises ConfigError naming those that there are."""
    if not isinstance(name, str) or name not in CATALOGUE:
        raise ConfigError(f"fault: must be one of {', '.join(CATALOGUE)} (is {name!r})")
    return CATALOGUE[name]


def brokers_needed(names: Iterable[str]) -> int:
    """How many brokers the cluster must have for these faults."""
    return max((fault_named(name).brokers for name in names), default=1)


def check_suits(names: Iterable[str], *, local: bool, owned: bool) -> None:
    """Check that all can be injected. ``local``: on the local stack; ``owned``: else, may we administer?

    Raises ConfigError that names the fault and says what it needs.
    """
    for kind in map(fault_named, names):
        if kind.needs_stack and not local:
            raise ConfigError(
                f"{kind.name}: such faults need the local stack, whose processes are the run's own: leave "
                "--kafka, --redis and --use-env out"
            )
        if not (local or owned or kind.needs_proxy):
            raise ConfigError(
                f"{kind.name}: changes brokers that are not of the local stack; if nobody else needs them, "
                "say so: dualstream chaos … --target-is-mine"
            )


def checked(kind: type[Fault], parameters: Mapping[str, Any]) -> dict[str, float]:
    """Check that the fault has these parameters, and that they are within its bounds. Raises ConfigError."""
    known = {one.name: one for one in kind.parameters}
    for name, value in parameters.items():
        if name not in known:
            allowed = ", ".join((*_KEYS, *known))
            raise ConfigError(f"unknown key {name!r}; known for {kind.name}: {allowed}")
        within(name, value, known[name].low, known[name].high)
    return {name: float(value) for name, value in parameters.items()}


def check_overlaps(specs: Iterable[FaultSpec]) -> None:
    """Check that no two faults break the same thing at one time: neither could be proved.

    Raises ConfigError naming both.
    """
    spans: dict[str, list[tuple[float, float, str]]] = {}
    for spec in specs:
        spans.setdefault(fault_named(spec.name).breaks, []).extend((*span, spec.name) for span in spec.spans)
    for broken, spans_of_it in spans.items():
        for (begin, end, first), (next_, _, second) in pairwise(sorted(spans_of_it)):
            if next_ < end or next_ == begin:
                raise ConfigError(
                    f"faults: {second} at {next_:g} s overlaps with {first}, {begin:g} to {end:g} s: "
                    f"both break {broken}, which only one may do at a time"
                )
