"""Whether other programs used the machine meanwhile: then a block says nothing about the publisher."""

from __future__ import annotations

import time
from contextlib import suppress

import psutil

__all__ = ["Others"]

_KINDS = 8  # of psutil's; what guests use is within what users use


class Others:
    """CPU of programs that are neither this one nor below it, in cores, since it was made."""

    def __init__(self) -> None:
        self._at = time.monotonic()
        self._busy = _busy()
        self._ours = _ours()

    def cores(self) -> float:
        """Until now. What processes of ours that have ended used counts as others': it is little."""
        ours = sum(used - self._ours.get(pid, 0.0) for pid, used in _ours().items())
        seconds = max(1e-3, time.monotonic() - self._at)
        return max(0.0, _busy() - self._busy - ours) / seconds


def _busy() -> float:
    """CPU seconds of all."""
    times = psutil.cpu_times()
    return float(sum(times[:_KINDS])) - times.idle - getattr(times, "iowait", 0.0)


def _ours() -> dict[int, float]:
    """CPU seconds of this process and all below it, by process id."""
    me = psutil.Process()
    found: dict[int, float] = {}
    for process in (me, *me.children(recursive=True)):
        with suppress(psutil.Error):
            times = process.cpu_times()
            found[process.pid] = times.user + times.system
    return found
