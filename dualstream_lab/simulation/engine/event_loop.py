"""A publisher's loop: one call after the other, as many open as it has callers. Kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dualstream_lab.simulation.kernels import kernel

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Integers = npt.NDArray[np.int64]
    Flags = npt.NDArray[np.bool_]

__all__ = ["Loops", "begin", "encoded", "following", "loops", "work"]


class Loops(NamedTuple):
    """Call k belongs to publisher k mod ``publishers``. Times in s.

    ``intended``: by call, never falling. ``service``: of a call; ``turn``: of requests that leave together,
    and of an answer; ``callers``: calls of a publisher that may be open. By call, NaN until then: ``sent``,
    when its service began; ``ready``, when its events were encoded. ``asked``: calls as they became ready,
    ``number`` of them. By publisher: ``next``, its first call that is not ready; ``free``, when its loop is;
    ``full``, whether that call waits for another one to end; ``turned``, when requests left last. ``busy``:
    (publishers, seconds).
    """

    intended: Floats
    service: float
    turn: float
    callers: int
    sent: Floats
    ready: Floats
    asked: Integers
    number: Integers
    next: Integers
    free: Floats
    full: Flags
    turned: Floats
    busy: Floats


def loops(
    intended: Floats, publishers: int, *, service: float, turn: float, callers: int, busy: Floats
) -> Loops:
    """Nothing yet."""
    calls = len(intended)
    return Loops(
        intended=intended, service=service, turn=turn, callers=callers, sent=np.full(calls, np.nan),
        ready=np.full(calls, np.nan), asked=np.full(calls, -1, np.int64), number=np.zeros(1, np.int64),
        next=np.arange(publishers), free=np.zeros(publishers), full=np.zeros(publishers, np.bool_),
        turned=np.full(publishers, -1.0), busy=busy,
    )  # fmt: skip


@kernel
def following(loops: Loops, publisher: int, calling: int, now: float) -> float:
    """When the next call can be served, with ``calling`` open ones; inf for not before one of these ends."""
    call = loops.next[publisher]
    left = call < len(loops.intended)
    loops.full[publisher] = left and calling >= loops.callers
    if not left or loops.full[publisher]:
        return np.inf
    at: float = max(now, loops.intended[call], loops.free[publisher])
    return at


@kernel
def work(loops: Loops, publisher: int, seconds: float, now: float) -> None:
    """For so long it has something to do, besides what it has."""
    loops.free[publisher] = max(loops.free[publisher], now) + seconds
    second = int(now)
    if second < loops.busy.shape[1]:
        loops.busy[publisher, second] += seconds


@kernel
def begin(loops: Loops, publisher: int, now: float) -> float:
    """The service of its next call begins: when that is done."""
    loops.sent[loops.next[publisher]] = now
    work(loops, publisher, loops.service, now)
    return now + loops.service


@kernel
def encoded(loops: Loops, publisher: int, now: float) -> int:
    """It is done: of which call."""
    call: int = loops.next[publisher]
    loops.ready[call] = now
    loops.asked[loops.number[0]] = call
    loops.number[0] += 1
    loops.next[publisher] += len(loops.next)
    return call
