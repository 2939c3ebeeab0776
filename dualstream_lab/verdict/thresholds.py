"""Thresholds on measures: ``live.latency.p99<5ms``. Pure."""

from __future__ import annotations

import difflib
import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from dualstream_lab import former_names
from dualstream_lab.errors import ConfigError
from dualstream_lab.units import milliseconds
from dualstream_lab.verdict.measures import MEASURES, unit_of

_COMPARE: Final[Mapping[str, Callable[[float, float], bool]]] = {
    "<=": operator.le, ">=": operator.ge, "==": operator.eq, "<": operator.lt, ">": operator.gt,
}  # fmt: skip
_UNITS: Final = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}
_FORM = re.compile(r"\s*([A-Za-z0-9_.]+)\s*(<=|>=|==|<|>)\s*(-?\d+(?:\.\d+)?(?:e-?\d+)?)\s*([a-z%]*)\s*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What became of a threshold. ``value``: None where the run has no such measure, which is a miss."""

    threshold: Threshold
    value: float | None

    @property
    def held(self) -> bool:
        """Whether it held."""
        compare = _COMPARE[self.threshold.comparison]
        return self.value is not None and compare(self.value, self.threshold.limit)

    @property
    def text(self) -> str:
        """The value that was found, and by how much it misses the limit."""
        name, limit = self.threshold.measure, self.threshold.limit
        if self.value is None:
            return "not measured in this run"
        found = format_measure(name, self.value)
        if self.held or math.isnan(self.value):
            return found
        if math.isinf(self.value):
            return f"{found} (more than allowed are missing)"
        return f"{found} (by {format_measure(name, abs(self.value - limit))})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """A measure, a comparison and a limit (ms for times)."""

    text: str
    measure: str
    comparison: str
    limit: float

    @classmethod
    def parse(cls, text: str) -> Threshold:
        """Read a threshold's text. Raises ConfigError saying what is wrong and what is allowed."""
        wrong = f"threshold {text!r}:"
        match = _FORM.fullmatch(text)
        if match is None:
            raise ConfigError(
                f"{wrong} must be a measure, one of < <= == >= >, and a number with its unit: "
                "live.latency.p99<5ms"
            )
        name, comparison, number, unit = match.groups()
        name = former_names.MEASURES.get(name, name)
        if name not in MEASURES:
            hint = f"{nearest(name, MEASURES)}`dualstream run --measures` lists them"
            raise ConfigError(f"{wrong} there is no measure {name!r}; {hint}")
        if unit_of(name) == "ms":
            if unit not in _UNITS:
                raise ConfigError(f"{wrong} {name} is a time: give it a unit, one of us, ms, s, m")
            factor = _UNITS[unit]
        elif unit == "%":
            factor = 0.01
        elif unit:
            raise ConfigError(f"{wrong} {name} is a number without a unit (or a share in %)")
        else:
            factor = 1.0
        return cls(text=text.strip(), measure=name, comparison=comparison, limit=float(number) * factor)

    def check(self, measures: Mapping[str, float]) -> Check:
        """Hold the threshold against the measures of a run."""
        return Check(threshold=self, value=measures.get(self.measure))


def nearest(name: str, known: Iterable[str]) -> str:
    """``did you mean this or that? ``, of a name that is not known; empty where none is like it."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}? " if near else ""


def format_measure(name: str, value: float) -> str:
    """A measure's value as a short text, with its unit."""
    match unit_of(name):
        case "ms":
            return milliseconds(value)
        case "share":
            return f"{value:.4f}"
        case "cores":
            return f"{value:.2f} cores"
        case _:
            return f"{value:,.0f}"
