"""What to run: how often, for whom, how big. Pure: no clock, no I/O; every draw comes from the seed.

A :class:`Workload` says it in words; its :meth:`~Workload.slots` are the plan, in chunks of numpy arrays; its
:meth:`~Workload.catalogue` makes the events of the plan.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal

import numpy as np

from dualstream_lab.errors import ConfigError
from dualstream_lab.workload.arrivals import arrival_times
from dualstream_lab.workload.catalogue import Catalogue
from dualstream_lab.workload.ids import RunIds
from dualstream_lab.workload.payloads import EVENT_TYPES, TYPE_WEIGHTS, draw_sizes
from dualstream_lab.workload.popularity import cumulative_zipf, draw
from dualstream_lab.workload.slots import Slots

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ARRIVALS", "PAYLOADS", "Catalogue", "RunIds", "Slots", "Workload"]

ARRIVALS = ("constant", "poisson")
PAYLOADS = ("small", "github")

_CHUNK = 8192  # slots a chunk: 0.8 s of work at 10,000/s, 300 kB of arrays


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One run's traffic. Raises ConfigError naming the field that is out of bounds.

    ``rate``: events/s. ``duration``: seconds. ``arrivals``: ``constant`` (the n-th event at n/rate) or
    ``poisson`` (exponential gaps of mean 1/rate). ``sources``: how many there are. ``zipf``: the exponent of
    their popularity, 0 for uniform. ``payload``: ``small`` (the whole value has ``payload_bytes`` bytes) or
    ``github`` (data as big as GitHub's webhooks: median 7.7 kB). The same seed gives the same plan, and what
    is drawn for one field does not depend on the others.
    """

    rate: float = 10_000.0
    duration: float = 20.0
    arrivals: Literal["constant", "poisson"] = "constant"
    sources: int = 500
    zipf: float = 1.0
    payload: Literal["small", "github"] = "small"
    payload_bytes: int = 300
    seed: int = 1

    def __post_init__(self) -> None:
        for name, low, high in (
            ("rate", 0.1, 1e6),
            ("duration", 0.1, 86_400),
            ("sources", 1, 1_000_000),
            ("zipf", 0, 5),
            ("payload_bytes", 256, 1_000_000),
            ("seed", 0, 2**63 - 1),
        ):
            value = getattr(self, name)
            if not low <= value <= high:  # also refuses NaN
                raise ConfigError(f"{name}: must be from {low:,} to {high:,} (is {value!r})")
        for name, allowed in (("arrivals", ARRIVALS), ("payload", PAYLOADS)):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name}: must be one of {', '.join(allowed)} (is {getattr(self, name)!r})")

    @property
    def expected(self) -> int:
        """How many events the plan has; for Poisson arrivals, on average."""
        return math.ceil(round(self.rate * self.duration, 6))

    def as_dict(self) -> dict[str, object]:
        """The fields by name, for a manifest."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def slots(self, *, chunk: int = _CHUNK) -> Iterator[Slots]:
        """The plan, ``chunk`` events at a time, in the order of their intended times."""
        arriving, choosing, typing, sizing = np.random.default_rng(self.seed).spawn(4)
        sources = cumulative_zipf(self.sources, self.zipf)
        types = np.cumsum(TYPE_WEIGHTS) / np.sum(TYPE_WEIGHTS)
        first = 0
        for times in arrival_times(self.arrivals, self.rate, self.duration, rng=arriving, chunk=chunk):
            count = len(times)
            yield Slots(
                first=first,
                intended=times,
                source=draw(sources, count, rng=choosing),
                type=draw(types, count, rng=typing),
                size=draw_sizes(self.payload, self.payload_bytes, count, rng=sizing),
            )
            first += count

    def catalogue(self, ids: RunIds) -> Catalogue:
        """The maker of this workload's events, with the ids of one run."""
        return Catalogue(ids=ids, sources=self.sources, types=EVENT_TYPES, whole=self.payload == "small")
