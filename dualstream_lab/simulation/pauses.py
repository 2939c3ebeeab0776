"""A broker's pauses, from requests that took far longer than others. Pure.

A pause has no memory (its length is exponential), so what is left of it beyond a limit is as long, on
average, as the whole. Those below the limit are not seen, and how many there are follows from the length.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dualstream_lab.simulation.equations import Equations

__all__ = ["Pauses", "pauses_of"]

_NORMAL: Final = 1.96


@dataclass(frozen=True, slots=True, kw_only=True)
class Pauses:
    """``rate`` (a second) and ``length`` (s): value and the ends of its 95 % interval. ``seen``: how many
    requests were caught in one; fewer than ``ENOUGH`` say nothing of their length, which is NaN for none.
    """

    ENOUGH: ClassVar[int] = 5

    seen: int
    rate: tuple[float, float, float]
    length: tuple[float, float, float]


def pauses_of(
    brokers: Sequence[tuple[Equations, float]], costs: Mapping[str, float], cut: float
) -> Pauses | None:
    """Of the equations of brokers, and the standard deviation of the logarithm of their noise, ``cut`` of
    which are far. None without any.
    """
    if not brokers:
        return None
    work = np.concatenate([its.work(costs) for its, _ in brokers])
    excess = np.concatenate([its.y - its.waits(costs) for its, _ in brokers]) - work
    idle = np.minimum(np.concatenate([its.idle for its, _ in brokers]), 1e3)
    limit = work * np.expm1(cut * np.concatenate([np.full(len(its.y), spread) for its, spread in brokers]))
    caught = excess > limit
    seen = int(caught.sum())
    length = float((excess - limit)[caught].mean()) if seen else float("nan")
    usual = length if seen else 1e-3
    # One that begins while the broker is idle is seen by the request that comes next, if it lasts until then.
    exposed = work - usual * np.expm1(-idle / usual)
    watched = float(exposed @ np.exp(-limit / usual))
    root = np.sqrt(seen)
    off = min(_NORMAL / root, 0.9) if seen else 0.0
    return Pauses(
        seen=seen,
        rate=(
            seen / watched,
            max(0.0, root - _NORMAL / 2) ** 2 / watched,
            (np.sqrt(seen + 1) + _NORMAL / 2) ** 2 / watched,
        ),
        length=(length, length / (1 + off), length / (1 - off)),
    )
