"""What is counted of joined rows, against a slow count."""

from __future__ import annotations

import numpy as np
import pytest

from dualstream_lab.recording.joined import durable_lag


def naive_lag(acked, consumed, at):
    open_ = [a for a, c in zip(acked, consumed, strict=True) if a <= at and (c == 0 or c > at)]
    return (at - min(open_)) / 1e9 if open_ else 0.0


def test_lag_is_the_age_of_the_oldest_unread_record():
    rng = np.random.default_rng(3)
    acked = rng.integers(1, 10**9, 200)
    consumed = np.where(rng.random(200) < 0.1, 0, acked + rng.integers(-(10**6), 10**8, 200))
    at = np.arange(0, 2 * 10**9, 10**7)
    expected = [naive_lag(acked, consumed, t) for t in at]
    assert durable_lag(acked, consumed, at) == pytest.approx(expected)
    assert list(durable_lag(acked[:0], consumed[:0], at)) == [0.0] * len(at)
