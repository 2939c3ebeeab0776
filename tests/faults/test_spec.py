"""What a [[faults]] table may say; a wrong one names what is wrong and what is allowed."""

from __future__ import annotations

import pytest

from dualstream_lab.errors import ConfigError
from dualstream_lab.faults.spec import CATALOGUE, FaultSpec, check_overlaps, check_suits


def spec(what="redis.kill", at=1.0, length=2.0, **more):
    return FaultSpec(name=what, at=at, length=length, **more)


def test_a_table_is_read():
    table = {"fault": "redis.slow", "at": 3, "for": 2, "every": 5, "times": 3, "delay_ms": 50}
    read = FaultSpec.load(table)
    assert read == spec("redis.slow", 3, 2, every=5, times=3, parameters={"delay_ms": 50})
    assert read.spans == [(3, 5), (8, 10), (13, 15)]
    assert FaultSpec.load({"fault": "redis.restart", "at": 3}).spans == [(3, 3)]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("redis.kill", r"faults: must be tables: \[\[faults\]\]"),
        ({"at": 1}, "faults: 'fault' is missing"),
        ({"fault": "redis.kill"}, "faults: 'at' is missing"),
        ({"fault": "redis.burn", "at": 1}, r"fault: must be one of redis\.kill, .*\(is 'redis\.burn'\)"),
        ({"fault": 3, "at": 1}, r"fault: must be one of .*\(is 3\)"),
        ({"fault": "redis.kill", "at": -1, "for": 1}, "at: must be from 0 to 86,400 s"),
        ({"fault": "redis.kill", "at": "x", "for": 1}, r"at: must be a number from 0 to 86,400 s \(is 'x'\)"),
        ({"fault": "redis.kill", "at": True, "for": 1}, "at: must be a number from 0"),
        ({"fault": "redis.kill", "at": 1, "for": float("nan")}, "for: must be from 0"),
        ({"fault": "redis.kill", "at": 1}, "for: redis.kill needs `for`"),
        ({"fault": "redis.restart", "at": 1, "for": 2}, "for: redis.restart takes no `for`"),
        ({"fault": "redis.kill", "at": 1, "for": 2, "every": 2, "times": 2}, "every: .* above its `for`"),
        ({"fault": "redis.kill", "at": 1, "for": 2, "every": 3}, "every: .* times 1"),
        ({"fault": "redis.kill", "at": 1, "for": 2, "times": 2}, "every: .* needs `every`"),
        ({"fault": "redis.kill", "at": 1, "for": 2, "times": 0}, "times: must be from 1"),
        ({"fault": "redis.kill", "at": 1, "for": 2, "times": 1.5}, "times: must be a whole number from 1"),
        (
            {"fault": "redis.slow", "at": 1, "for": 2, "delay": 3},
            "unknown key 'delay'; known for redis.slow: fault, at, for, every, times, delay_ms",
        ),
        (
            {"fault": "redis.slow", "at": 1, "for": 2, "delay_ms": 0},
            r"delay_ms: must be from 1 to 10,000 \(is 0\)",
        ),
        (
            {"fault": "redis.slow", "at": 1, "for": 2, "delay_ms": "1s"},
            "delay_ms: must be a number from 1 to 10,000",
        ),
    ],
)
def test_a_wrong_table_says_what_is_allowed(table, message):
    with pytest.raises(ConfigError, match=message):
        FaultSpec.load(table)


@pytest.mark.parametrize(
    "specs",
    [
        (spec(at=1, length=4), spec("redis.stop", 3, 4)),
        (spec("redis.stop", 3, 4), spec(at=1, length=4)),
        (spec(at=1, length=4), spec(at=1, length=1)),
        (spec(at=0, length=9), spec("redis.restart", 4, 0)),
        (spec("redis.restart", 4, 0), spec("redis.restart", 4, 0)),
        (spec(at=1, length=1, every=10, times=3), spec("redis.stop", 20.5, 1)),
        (spec(at=1, length=1, every=10, times=3), spec("redis.stop", 2.5, 10)),
    ],
)
def test_faults_of_one_thing_at_once_are_refused_by_both_names(specs):
    with pytest.raises(
        ConfigError, match=r"faults: redis\.\w+ at .* overlaps with redis\.\w+, .*both break redis"
    ):
        check_overlaps(specs)


def test_faults_that_follow_each_other_or_break_different_things_are_fine():
    check_overlaps([spec(at=1, length=2), spec("redis.stop", 3, 2), spec("redis.restart", 5, 0)])
    check_overlaps([spec(at=1, length=2), spec("kafka.stop", 1, 2)])


def test_every_fault_says_what_it_does_and_what_it_takes():
    for name, kind in CATALOGUE.items():
        assert kind.name == name
        assert kind.says
        for one in kind.parameters:
            assert one.low <= one.default <= one.high, (name, one)
            assert one.says


def test_brokers_that_are_not_ours_are_left_alone():
    check_suits(["redis.kill", "redis.oom", "redis.slow"], local=True, owned=False)
    check_suits(["redis.oom", "redis.slow"], local=False, owned=True)
    check_suits(["redis.slow"], local=False, owned=False)
    with pytest.raises(ConfigError, match=r"redis\.kill: such faults need the local stack"):
        check_suits(["redis.slow", "redis.kill"], local=False, owned=True)
    with pytest.raises(ConfigError, match=r"redis\.oom: changes brokers.*--target-is-mine"):
        check_suits(["redis.oom"], local=False, owned=False)
