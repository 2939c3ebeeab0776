"""Scenarios say what to run; a broken one names the line and the key. The search for a rate is robust."""

from __future__ import annotations

import random

import pytest

from dualstream_lab.errors import ConfigError
from dualstream_lab.lab.find_rate import Finding, Probe, Search, find_rate
from dualstream_lab.lab.scenario import Fault, Scenario, Users, shipped_scenarios


@pytest.mark.parametrize("name", shipped_scenarios())
def test_the_shipped_scenarios_are_valid(name):
    scenario = Scenario.read(name)
    assert scenario.name == name.removesuffix(".toml")
    assert scenario.thresholds
    assert shipped_scenarios()[name].startswith("# "), "its first line says what it is for"


def test_redis_down_is_shipped():
    (fault,) = Scenario.read("redis_down.toml").faults
    assert (fault.name, fault.at, fault.length) == ("redis.kill", 8, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rate = 5", "unknown key 'rate'; known: name, workload"),
        ("\n[workload]\nrat = 5", r", line 3: unknown key 'rat'; known: rate"),
        ("[workload]\nrate = 0", r", line 2: rate: must be from 0.1"),
        ("[workload]\nrate = 'fast'", r", line 2: rate: must be a number"),
        ("[workload]\nplan = 'zigzag'", r", line 2: plan: must be one of constant, poisson"),
        ("[workload\nrate = 1", r"at line 1"),
        ("workload = 3", r", line 1: workload: must be a table"),
        ("[users]\nconcurrency = 0", r", line 2: concurrency: must be from 1"),
        ("[users]\nlane = 1", r", line 2: unknown key 'lane'; known: concurrency, subscribers"),
        ("[[faults]]\nfault = 'redis.burn'\nat = 1", r", line 2: fault: must be one of redis.kill"),
        ("[[faults]]\nat = 1", r", line 1: faults: 'fault' is missing"),
        ("[[faults]]\nfault = 'redis.kill'\nat = 1", r"for: redis.kill needs `for`"),
        (
            "[[faults]]\nfault = 'redis.restart'\nat = 1\nfor = 2",
            r", line 4: for: redis.restart takes no `for`",
        ),
        ("[[faults]]\nfault = 'redis.kill'\nat = 'x'", r", line 3: at: must be a number from 0 to 86,400 s"),
        ("[[faults]]\nfault = 'redis.kill'\nat = 18\nfor = 4", r"is not within the run \(20 s\)"),
        (
            "[[faults]]\nfault = 'redis.kill'\nat=1\nfor=4\n[[faults]]\nfault = 'redis.stop'\nat=3\nfor=4",
            r"redis\.stop at 3 s overlaps with redis\.kill, 1 to 5 s: both break redis",
        ),
        (
            "[[faults]]\nfault = 'redis.slow'\nat = 1\nfor = 2\ndelay = 5",
            r", line 5: unknown key 'delay'; known for redis\.slow: fault, at, for, every, times, delay_ms",
        ),
        (
            "[[faults]]\nfault = 'redis.slow'\nat = 1\nfor = 2\ndelay_ms = 0",
            r", line 5: delay_ms: must be from 1 to 10,000 \(is 0\)",
        ),
        (
            "[[faults]]\nfault = 'redis.kill'\nat = 1\nfor = 1\nevery = 10\ntimes = 3",
            r"redis\.kill at 21 s for 1 s is not within the run \(20 s\)",
        ),
        ("[[faults]]\nfault = 'gateway.kill'\nat = 1\nfor = 1", "a run has no gateway for gateway.kill"),
        ("thresholds = ['live.latncy.p99<5ms']", r", line 1: threshold 'live.latncy.p99<5ms'"),
        ("thresholds = 'x'", r", line 1: thresholds: must be a list"),
        ("name = 'a b'", r", line 1: name: must be letters"),
        ("warm_up = -1", r", line 1: warm_up: must be from 0"),
        ("max_rows = 1", r", line 1: max_rows: must be from 1,000"),
        ("warm_up = true", r", line 1: warm_up: must be a number"),
        (
            "[[faults]]\nfault = 'redis.kill'\nat = 1\nfor = 1\nevery = 3\ntimes = 2.0",
            "times: must be a whole",
        ),
        ("x = " + "[" * 5000, "is nested too deep"),
        ("[workload]\nrate = " + "9" * 5000, "Exceeds the limit"),
        ("[workload]\nplan = '" + "x" * 10_000 + "'", r", line 2: plan: must be one of .* …$"),
    ],
)
def test_a_broken_file_names_the_line_and_the_key(tmp_path, text, message):
    path = tmp_path / "broken.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as error:
        Scenario.read(str(path))
    assert str(error.value).startswith(str(path))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("name = 'x'".encode("utf-16"), "is not UTF-8, which TOML is"),
        (b"# \xff", "is not UTF-8, which TOML is"),
        (b"#" * (2**20 + 1), "is larger than 1,048,576 bytes"),
        (None, "cannot be read: Is a directory"),
    ],
)
def test_what_is_no_toml_is_one_line(tmp_path, data, message):
    path = tmp_path / "broken.toml"
    path.mkdir() if data is None else path.write_bytes(data)
    with pytest.raises(ConfigError, match=message) as error:
        Scenario.read(str(path))
    assert "\n" not in str(error.value)


def test_a_scenario_with_a_byte_order_mark_is_read(tmp_path):
    path = tmp_path / "marked.toml"
    path.write_bytes(b"\xef\xbb\xbfname = 'x'\r\n")
    assert Scenario.read(str(path)).name == "x"


def test_a_scenario_that_never_ends_is_refused():
    with pytest.raises(ConfigError, match="is larger than"):
        Scenario.read("/dev/zero")


def test_a_missing_file_names_the_shipped_ones(tmp_path):
    with pytest.raises(ConfigError, match=r"shipped ones: burst\.toml"):
        Scenario.read(str(tmp_path / "no.toml"))


def test_long_runs_keep_a_sample(tmp_path):
    from dualstream_lab.workload import Workload

    assert Scenario(workload=Workload(rate=10_000, duration=20)).sample == 1
    hour = Scenario(workload=Workload(rate=10_000, duration=3600))
    assert hour.workload.expected / hour.sample <= hour.max_rows


def test_a_scenario_says_how_many_brokers_its_faults_need():
    assert Scenario().brokers == 1
    assert Scenario(faults=(Fault(name="kafka.leader-lost", at=1, length=2),)).brokers == 3


def test_faults_and_users_say_what_is_allowed():
    with pytest.raises(ConfigError, match="at: must be from 0 to 86,400 s"):
        Fault(name="redis.kill", at=-1, length=1)
    with pytest.raises(ConfigError, match="subscribers: must be"):
        Users(subscribers=True)


class Machine:
    """Holds up to ``capacity``, but for a share of measurements that fail for no reason."""

    def __init__(self, capacity: float, flukes: float = 0.0) -> None:
        self.capacity, self.flukes, self.random = capacity, flukes, random.Random(4)
        self.asked: list[float] = []

    async def __call__(self, rate: float) -> Probe:
        self.asked.append(rate)
        bad = rate > self.capacity or self.random.random() < self.flukes
        return Probe(rate=rate, publish_p99=1, live_p99=1, reason="too slow" if bad else "", limit="Kafka")


@pytest.mark.parametrize("flukes", [0.0, 0.15])
async def test_the_search_finds_the_rate_in_spite_of_flukes(flukes):
    finding = await find_rate(Search(repeats=5), Machine(23_000, flukes))
    assert 23_000 / 1.1 <= finding.rate <= 23_000
    assert len(finding.rates) == 5
    assert "too slow; Kafka" in finding.saturated


async def test_the_search_is_short():
    machine = Machine(23_000)
    await find_rate(Search(repeats=1), machine)
    assert len(machine.asked) <= 16


async def test_a_search_that_finds_nothing_or_no_end_says_so():
    nothing = await find_rate(Search(), Machine(100))
    assert nothing.rate == 0
    assert len(nothing.rates) == 1
    all_ = await find_rate(Search(high=5000, repeats=2), Machine(1e9))
    assert all_.rates == [5000, 5000]
    assert all_.rate == 5000
    assert "nothing" in all_.saturated
    assert isinstance(all_, Finding)


def test_a_search_is_checked():
    with pytest.raises(ConfigError, match="low: must be below high"):
        Search(low=5000, high=5000)
    with pytest.raises(ConfigError, match="publish_p99"):
        Search(publish_p99=0)
