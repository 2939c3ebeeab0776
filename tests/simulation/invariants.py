"""What must be true of every simulated run; and a calibration of which nothing is."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np

from dualstream_lab.recording import Outcome as Said
from dualstream_lab.simulation import Costs, Deployment, Outcome
from dualstream_lab.simulation.calibration import UNKNOWN, Calibration


def check(outcome: Outcome) -> None:
    """Every event ends in exactly one way, and its times are in order."""
    durable = outcome.outcome == Said.DURABLE
    no_room = outcome.outcome == Said.NO_ROOM
    rejected = outcome.outcome == Said.REJECTED
    unknown = outcome.outcome == Said.UNKNOWN
    logged, delivered, dropped = (
        ~np.isnan(one) for one in (outcome.logged, outcome.delivered, outcome.dropped)
    )

    assert (durable | no_room | rejected | unknown).all()
    assert not np.isnan(outcome.settled).any()
    assert np.array_equal(durable, ~np.isnan(outcome.acked))
    assert np.array_equal(no_room, np.isnan(outcome.entered))
    assert logged[durable].all()
    assert not logged[no_room | rejected].any()
    assert not (delivered | dropped)[~durable].any()
    assert np.array_equal(dropped, outcome.reason >= 0)
    assert delivered[outcome.recovered].all()

    for earlier, later in (
        (outcome.intended, outcome.sent), (outcome.sent, outcome.entered), (outcome.entered, outcome.logged),
        (outcome.logged, outcome.acked), (outcome.acked, outcome.delivered), (outcome.acked, outcome.dropped),
        (outcome.logged, outcome.consumed), (outcome.sent, outcome.settled),
    ):  # fmt: skip
        assert not (earlier > later + 1e-9).any()
    _check_log(outcome)


def _check_log(outcome: Outcome) -> None:
    """Offsets are without a gap, in the order of coming in; a publisher's events of a source keep theirs."""
    for partition in np.unique(outcome.partition):
        inside = np.flatnonzero((outcome.partition == partition) & (outcome.offset >= 0))
        inside = inside[np.argsort(outcome.offset[inside])]
        assert np.array_equal(outcome.offset[inside], np.arange(len(inside)))
        assert (np.diff(outcome.logged[inside]) >= 0).all()


def check_publishers(outcome: Outcome, deployment: Deployment, *, batch: int) -> None:
    """No buffer has more than its bound, and what one sent for a source is in the log in this order."""
    publisher = outcome.seq // batch % deployment.publishers
    inside = outcome.offset >= 0
    for one in range(deployment.publishers):
        accepted = (publisher == one) & ~np.isnan(outcome.entered)
        # A moment's settlements make room for that moment's calls.
        times = np.concatenate([outcome.settled[accepted], outcome.entered[accepted]])
        steps = np.repeat([-1, 1], accepted.sum())
        level = np.cumsum(steps[np.argsort(times, kind="stable")])
        assert level.max(initial=0) <= deployment.buffer_events
        for source in np.unique(outcome.source):
            offsets = outcome.offset[inside & (publisher == one) & (outcome.source == source)]
            assert (np.diff(offsets) > 0).all()


def unmeasured() -> Calibration:
    """The defaults, of which nothing is known."""
    defaults = asdict(Costs())
    return Calibration(
        costs=Costs(), machine="not measured", date="",
        low=Costs(**{name: value / UNKNOWN for name, value in defaults.items()}),
        high=Costs(**{name: value * UNKNOWN for name, value in defaults.items()}),
    )  # fmt: skip
