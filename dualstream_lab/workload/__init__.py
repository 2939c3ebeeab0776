"""What to run: how often, for whom, how big. Pure: no clock, no I/O; every draw comes from the seed.

A :class:`Workload` says it in words; its :meth:`~Workload.slots` are the plan, in chunks of numpy arrays; its
:meth:`~Workload.catalogue` makes the events of the plan.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Literal, Self

import numpy as np
from numpy.random import default_rng  # numpy's own lazy import would come while it measures

from dualstream_lab.bounds import within
from dualstream_lab.errors import ConfigError
from dualstream_lab.workload.arrivals import (
    PLANS,
    Curve,
    Floats,
    Integers,
    arrival_times,
    expected_count,
    intended_rate,
)
from dualstream_lab.workload.catalogue import Catalogue, RunIds
from dualstream_lab.workload.payloads import EVENT_TYPES, TYPE_WEIGHTS, draw_sizes
from dualstream_lab.workload.popularity import cumulative_popularity, draw, source_name

__all__ = ["PAYLOADS", "PLANS", "Catalogue", "RunIds", "Slots", "Workload", "source_name"]

PAYLOADS = ("fixed", "lognormal", "github")
"""Sizes of events: the whole value has ``payload_bytes`` bytes; that is its median (sigma 1); or its data is
as big as GitHub's webhooks (median 7.7 kB, p95 24.6 kB).
"""

_WHOLE = {"steps", "batch", "sources", "hot_sources", "payload_bytes", "seed"}
_CHUNK = 8192  # slots a chunk: 0.8 s of work at 10,000/s, 300 kB of arrays


@dataclass(frozen=True, slots=True, kw_only=True)
class Slots:
    """A stretch of a plan: one entry an event in every array."""

    seq: Integers  # the number of the event in the whole plan
    intended: Integers  # ns after the start, never falling; the same for events of one batch
    source: Integers  # its place in the catalogue
    type: Integers  # its place in the catalogue
    size: Integers  # bytes of the value, or of its data

    def __len__(self) -> int:
        return len(self.seq)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One run's traffic. Raises ConfigError naming the field that is out of bounds.

    The same seed gives the same plan, and what is drawn for one field does not depend on the others.
    """

    rate: float = 10_000.0  # events/s at the plan's highest
    duration: float = 20.0  # s
    plan: Literal["constant", "poisson", "ramp", "step", "burst", "sine", "closed"] = "constant"  # see PLANS
    low: float = 0.1  # the plan's lowest rate, as a share of ``rate``
    period: float = 10.0  # s
    steps: int = 5
    batch: int = 10  # events that fall due together and are published in one call
    sources: int = 500  # how many there are
    zipf: float = 1.0  # the exponent of their popularity, 0 for uniform
    hot: float = 0.0  # the share of events that go to the first ``hot_sources``
    hot_sources: int = 1
    payload: Literal["fixed", "lognormal", "github"] = "fixed"  # see PAYLOADS
    payload_bytes: int = 300
    seed: int = 1

    def __post_init__(self) -> None:
        for name, low, high in (
            ("rate", 0.1, 10_000_000), ("duration", 0.1, 86_400), ("low", 0, 1), ("period", 0.1, 86_400),
            ("steps", 1, 1000), ("batch", 1, 100_000), ("sources", 1, 1_000_000), ("zipf", 0, 5),
            ("hot", 0, 1), ("hot_sources", 1, 1_000_000), ("payload_bytes", 256, 900_000),
            ("seed", 0, 2**63 - 1),
        ):  # fmt: skip
            within(name, getattr(self, name), low, high, whole=name in _WHOLE)
        if self.hot_sources > self.sources:
            raise ConfigError(
                f"hot_sources: must be from 1 to {self.sources:,}, one a source (is {self.hot_sources!r})"
            )
        for name, allowed in (("plan", PLANS), ("payload", PAYLOADS)):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name}: must be one of {', '.join(allowed)} (is {getattr(self, name)!r})")

    @classmethod
    def load(cls, values: Mapping[str, object]) -> Self:
        """Make one from a table, such as a scenario file's. Raises ConfigError for an unknown key, too."""
        known = [field.name for field in fields(cls)]
        if unknown := [name for name in values if name not in known]:
            raise ConfigError(f"unknown key {unknown[0]!r}; known: {', '.join(known)}")
        return cls(**values)  # type: ignore[arg-type]

    @property
    def expected(self) -> int:
        """How many events the plan has; for Poisson arrivals, on average; 0 where nobody can know."""
        return expected_count(self._calls) * self.batch

    @property
    def _calls(self) -> Curve:
        same = {name: getattr(self, name) for name in ("plan", "duration", "low", "period", "steps")}
        return Curve(rate=self.rate / self.batch, **same)

    def intended_rate(self, seconds: Floats) -> Floats:
        """Events/s that the plan wants, at these seconds after the start."""
        return intended_rate(self._calls, seconds) * self.batch

    def as_dict(self) -> dict[str, object]:
        """The fields by name, for a manifest."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def popularity(self) -> Floats:
        """Cumulative shares of the events, by the rank of their source."""
        return cumulative_popularity(self.sources, self.zipf, hot=self.hot, hot_sources=self.hot_sources)

    def slots(self, *, chunk: int = _CHUNK, share: tuple[int, int] = (0, 1)) -> Iterator[Slots]:
        """The plan, ``chunk`` events at a time, in the order of their intended times.

        ``share``: (index, of): only every ``of``-th call, beginning with the ``index``-th. The shares of
        several workers have no event in common and together have all of them.
        """
        index, of = share
        if not 0 <= index < of:
            raise ValueError(f"share {index} of {of}: the index must be from 0 to {of - 1}")
        arriving, choosing, typing, sizing = default_rng(self.seed).spawn(4)
        sources = self.popularity()
        types = np.cumsum(TYPE_WEIGHTS) / np.sum(TYPE_WEIGHTS)
        first = 0
        for times in arrival_times(self._calls, rng=arriving, chunk=max(1, chunk // self.batch)):
            count = len(times) * self.batch
            seq = np.arange(first, first + count)
            columns = {
                "seq": seq, "intended": np.repeat(times, self.batch),
                "source": draw(sources, count, rng=choosing), "type": draw(types, count, rng=typing),
                "size": draw_sizes(self.payload, self.payload_bytes, count, rng=sizing),
            }  # fmt: skip
            first += count
            if of > 1:
                ours = seq // self.batch % of == index
                columns = {name: column[ours] for name, column in columns.items()}
            if len(columns["seq"]):
                yield Slots(**columns)

    def catalogue(self, ids: RunIds) -> Catalogue:
        """The maker of this workload's events, with the ids of one run."""
        return Catalogue(ids=ids, sources=self.sources, types=EVENT_TYPES, whole=self.payload != "github")
