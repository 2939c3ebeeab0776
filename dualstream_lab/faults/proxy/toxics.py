"""What a fault proxy can do to the bytes that pass it, and when it lets them go on."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Final, TypeAlias

EARLY: Final = 0.9
"""Of a delay, as it may be seen: a loop's timers may end a moment before their time."""

_FAR = 8 * 2**20  # bytes of one connection that may be on a long road
_NEAR = 64 * 2**10  # and on a narrow one, where more would only be a longer queue
_SLICE = 0.01  # s: the road is not given away for longer at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Delay:
    """Everything takes ``delay_ms`` longer each way, give or take ``jitter_ms``; the order is kept."""

    delay_ms: float
    jitter_ms: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bandwidth:
    """``rate_kib`` KiB/s each way, shared by all connections to one server."""

    rate_kib: float


@dataclass(frozen=True, slots=True)
class BlackHole:
    """Nothing passes, and nobody is told: bytes are swallowed, connections stay, new ones are mute."""


@dataclass(frozen=True, slots=True)
class Reset:
    """Every connection ends with RST, and so does each new one."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """Every connection ends with RST, and new ones are refused: nobody listens."""


Toxic: TypeAlias = Delay | Bandwidth | BlackHole | Reset | Refuse


class Road:
    """One direction of a proxy to one server: when bytes arrive at its end. Pure; times are in seconds."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)  # noqa: S311  (no secret)
        self._toxic: Toxic | None = None
        self._free = 0.0

    def become(self, toxic: Toxic | None) -> None:
        """Let what comes from now on go as this toxic says."""
        self._toxic, self._free = toxic, 0.0

    @property
    def open(self) -> bool:
        """Whether bytes go on at once."""
        return not isinstance(self._toxic, (Delay, Bandwidth))

    @property
    def room(self) -> int:
        """How many bytes of one connection may be on it before no more are taken."""
        return _FAR if isinstance(self._toxic, Delay) else _NEAR

    def slices(self, data: bytes) -> list[bytes]:
        """Cut the data into pieces that go on one by one."""
        if not isinstance(self._toxic, Bandwidth):
            return [data]
        size = max(1024, int(self._toxic.rate_kib * 1024 * _SLICE))
        return [data[at : at + size] for at in range(0, len(data), size)]

    def arrival(self, now: float, size: int, after: float) -> float:
        """When ``size`` bytes that come ``now`` go on, not before ``after``, when those before them do."""
        match self._toxic:
            case Delay(delay_ms=delay, jitter_ms=jitter):
                took = delay + self._random.uniform(-jitter, jitter)
                return max(after, now + max(0.0, took) / 1000)
            case Bandwidth(rate_kib=rate):
                self._free = max(self._free, now) + size / (rate * 1024)
                return self._free
        return max(after, now)
