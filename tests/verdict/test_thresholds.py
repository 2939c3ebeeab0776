"""A threshold is on a measure, in its unit; a bad one says what is allowed."""

from __future__ import annotations

import pytest

from dualstream_lab.errors import ConfigError
from dualstream_lab.verdict.measures import MEASURES, unit_of
from dualstream_lab.verdict.thresholds import Threshold, format_measure


@pytest.mark.parametrize("name", MEASURES)
def test_every_measure_can_be_a_threshold(name):
    limit = "5ms" if unit_of(name) == "ms" else "5"
    threshold = Threshold.parse(f"{name} <= {limit}")
    assert threshold.check({name: 5.0}).held
    missed = threshold.check({name: 7.0})
    assert not missed.held
    assert format_measure(name, 7.0) in missed.text


@pytest.mark.parametrize(
    ("text", "limit"),
    [("live.latency.p99<5ms", 5), ("durable.lag.max<2s", 2000), ("publish.latency.p50 >= 250us", 0.25),
     ("publish.rate>=0.99", 0.99), ("live.missing<1%", 0.01), ("publish.errors==0", 0),
     ("redis.cpu<1e-1", 0.1)],
)  # fmt: skip
def test_units(text, limit):
    assert Threshold.parse(text).limit == pytest.approx(limit)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("live.latency.p99", "must be a measure, one of"),
        ("live.latncy.p99<5ms", "did you mean live.latency.p99"),
        ("live.latency.p99<5", "is a time: give it a unit"),
        ("publish.errors<5ms", "is a number without a unit"),
        ("publish.errors=0", "must be a measure, one of"),
    ],
)
def test_bad_thresholds_say_what_is_allowed(text, message):
    with pytest.raises(ConfigError, match=message):
        Threshold.parse(text)


def test_a_threshold_on_what_was_not_measured_is_missed():
    check = Threshold.parse("live.latency.p99<5ms").check({})
    assert not check.held
    assert check.text == "not measured in this run"
