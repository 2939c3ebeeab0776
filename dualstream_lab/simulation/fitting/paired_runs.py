"""Runs made on one broker at the same time: each is a publisher that the others had to share it with."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from dualstream_lab.simulation.fitting.observations import Observed

    Floats = npt.NDArray[np.float64]
    Integers = npt.NDArray[np.int64]

__all__ = ["side_by_side"]


def side_by_side(seen: Sequence[Observed]) -> list[Observed]:
    """Runs on the same broker at the same time are its publishers: each request knows the others' acks."""
    found = []
    for run in seen:
        others = [other for other in seen if other is not run and _at_once(run, other)]
        shown = run.requests
        if others and shown is not None:
            pool = [
                _monotonic(each, each.requests.acked) for each in (run, *others) if each.requests is not None
            ]
            acks = np.sort(np.concatenate(pool))
            place = np.searchsorted(acks, _monotonic(run, shown.acked)) - 1
            before = (acks[np.maximum(place, 0)] - run.directory.manifest.started) / 1e9
            shown = shown._replace(last=np.where(place >= 0, before, -np.inf))
        found.append(replace(run, requests=shown, beside=len(others)))
    return found


def _at_once(one: Observed, other: Observed) -> bool:
    """Whether both were made on the same broker, and at the same time of day."""
    spans = []
    for run in (one, other):
        its = run.directory.manifest
        begin = its.started + its.clocks.wall - its.clocks.monotonic
        spans.append((begin, begin + run.workload.duration * 1e9))
    brokers = [run.directory.manifest.settings.get("kafka_url") for run in (one, other)]
    together = max(begin for begin, _ in spans) < min(end for _, end in spans)
    return brokers[0] is not None and brokers[0] == brokers[1] and together


def _monotonic(run: Observed, at: Floats) -> Integers:
    """ns of the machine's clock."""
    return np.round(at * 1e9).astype(np.int64) + run.directory.manifest.started
