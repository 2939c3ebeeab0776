"""What was measured of a machine: costs, how sure they are, and for which loads. From and to JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, Self

from dualstream_lab import former_names
from dualstream_lab.errors import ConfigError
from dualstream_lab.recording.files import replace_json
from dualstream_lab.simulation.parameters import Costs, Deployment
from dualstream_lab.units import count
from dualstream_lab.workload import Workload

COSTS: Final = tuple(each.name for each in fields(Costs))  # their names, in order
UNKNOWN: Final = 10.0  # a cost that no run tells is taken to be within so many times its default, either way
_RANGES: Final = (
    "batch", "sources", "payload_bytes", "brokers", "partitions", "replication_factor", "shards",
    "subscribers", "consumers", "publishers",
)  # fmt: skip
_ASSUMED: Final = (
    "costs are defaults that nobody measured: each may be a tenth or ten times as much. "
    "`dualstream calibrate RUN…` measures yours."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Costs of one machine.

    ``ranges``: lowest and highest of what was measured: ``rate`` (events/s of one publisher), ``partitions``,
    ``batch`` … (as the fields of Workload and Deployment); beyond them a figure is extrapolated.
    """

    costs: Costs
    low: Costs  # the low ends of the 95 % intervals
    high: Costs  # the high ends
    machine: str  # what was measured, in words
    date: str  # when
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    observed: frozenset[str] = frozenset()  # costs that runs showed; the others are defaults

    def __post_init__(self) -> None:
        for name in COSTS:
            low, value, high = (getattr(one, name) for one in (self.low, self.costs, self.high))
            if not low <= value <= high:
                raise ConfigError(f"{name}: must be within its interval, {low:g} to {high:g} (is {value:g})")
        if unknown := sorted(self.observed - set(COSTS)):
            raise ConfigError(f"observed: unknown cost {unknown[0]!r}; known: {', '.join(COSTS)}")

    @property
    def measured(self) -> bool:
        """Whether any cost was learned from a run; else all are defaults."""
        return bool(self.observed)

    def covers(self, name: str, value: float) -> bool:
        """Whether runs had such a value; where they had not, what follows from it is extrapolated."""
        low, high = self.ranges.get(name, (math.inf, -math.inf))
        return low <= value <= high

    def beyond(self, values: Mapping[str, float]) -> dict[str, float]:
        """The values that no run had, by the names of ``ranges``."""
        return {name: value for name, value in values.items() if not self.covers(name, value)}

    def caveats(self, values: Mapping[str, float]) -> list[str]:
        """Sentences for figures that follow from it at such a load: where it is from, and what no run had."""
        if not self.measured:
            return [_ASSUMED]
        found = [f"costs of {self.machine}, {self.date}"]
        for name, value in self.beyond(values).items():
            low, high = self.ranges.get(name, (0.0, 0.0))
            measured = f"measured: {count(low)} to {count(high)}" if high else "not measured"
            found.append(f"extrapolated to {name.replace('_', ' ')} {count(value)} ({measured})")
        return found

    @classmethod
    def shipped(cls) -> Self:
        """Read the calibration that comes with the package."""
        path = files("dualstream_lab.simulation").joinpath("calibrated.json")
        return cls._decode(json.loads(path.read_text(encoding="utf-8")))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file that :meth:`save` wrote. Raises ConfigError for anything else."""
        try:
            return cls._decode(json.loads(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"{path} is not a calibration ({error!r}); `dualstream calibrate RUN… --save FILE` writes one"
            ) from error

    def save(self, path: Path) -> None:
        """Replace the file in one step. Raises ConfigError where it cannot be written."""
        values = {
            "machine": self.machine, "date": self.date, "observed": sorted(self.observed),
            "ranges": {name: list(ends) for name, ends in sorted(self.ranges.items())},
            **{name: asdict(getattr(self, name)) for name in ("costs", "low", "high")},
        }  # fmt: skip
        try:
            replace_json(path, values)
        except OSError as error:
            raise ConfigError(f"{path} cannot be written: {error.strerror}") from error

    @classmethod
    def _decode(cls, values: dict[str, Any]) -> Self:
        values = former_names.renamed_calibration(values)
        return cls(
            **{name: Costs(**values[name]) for name in ("costs", "low", "high")},
            machine=str(values["machine"]), date=str(values["date"]),
            ranges={str(n): (float(low), float(high)) for n, (low, high) in values["ranges"].items()},
            observed=frozenset(map(str, values["observed"])),
        )  # fmt: skip


def load_of(workload: Workload, deployment: Deployment) -> dict[str, float]:
    """What a run says for ``Calibration.ranges``: its load, and its parts. ``rate``: of one publisher."""
    values = asdict(deployment) | workload.as_dict()
    found = {name: float(values[name]) for name in _RANGES}
    return found | {"rate": workload.rate / deployment.publishers}
