from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualstream_lab.errors import ConfigError
from dualstream_lab.faults.spec import CATALOGUE, FaultSpec
from dualstream_lab.simulation import Deployment
from dualstream_lab.simulation.outages import Outages, outages, united

THREE = Deployment(brokers=3, replication_factor=3)


def broken(what: str, at: float = 10.0, length: float = 4.0, **parameters: float) -> Outages:
    spec = FaultSpec(
        name=what, at=at, length=0.0 if CATALOGUE[what].instant else length, parameters=parameters
    )
    return outages([spec], THREE)


def modes(found: Outages) -> dict[str, list[list[float]]]:
    """Those that are there at all."""
    named = {
        f"{server} {mode}": getattr(getattr(found, server), mode).tolist()
        for server in ("redis", "first_broker", "brokers")
        for mode in ("down", "mute", "slow", "refusing")
    }
    named["moved"] = found.moved.tolist()
    return {name: spans for name, spans in named.items() if spans}


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("redis.kill", {"redis down": [[10, 14]]}),
        ("redis.restart", {"redis down": [[10, 10.1]]}),
        ("redis.flap", {"redis down": [[10, 10.5], [11, 11.5], [12, 12.5], [13, 13.5]]}),
        ("net.redis.reset", {"redis down": [[10, 14]]}),
        ("net.redis.refuse", {"redis down": [[10, 14]]}),
        ("redis.kill-clients", {"redis down": [[10 + k / 5, 10 + k / 5 + 1e-3] for k in range(20)]}),
        ("redis.stop", {"redis mute": [[10, 14]]}),
        ("redis.busy", {"redis mute": [[10, 14]]}),
        ("net.redis.blackhole", {"redis mute": [[10, 14]]}),
        ("redis.slow", {"redis slow": [[10, 14, 0.2]]}),
        ("net.redis.jitter", {"redis slow": [[10, 14, 0.05]]}),
        ("redis.no-permission", {"redis refusing": [[10, 14]]}),
        ("redis.oom", {}),
        ("net.redis.delay", {"redis slow": [[10, 14, 0.1]]}),
        ("kafka.kill", {"first_broker down": [[10, 14]]}),
        ("kafka.restart", {"first_broker down": [[10, 16]]}),
        ("kafka.stop", {"first_broker mute": [[10, 14]]}),
        ("kafka.slow", {"first_broker slow": [[10, 14, 0.2]], "brokers slow": [[10, 14, 0.2]]}),
        ("net.kafka.delay", {"first_broker slow": [[10, 14, 0.1]], "brokers slow": [[10, 14, 0.1]]}),
        ("net.kafka.blackhole", {"first_broker down": [[10, 14]], "brokers down": [[10, 14]]}),
        ("net.kafka.reset", {"first_broker down": [[10, 14]], "brokers down": [[10, 14]]}),
        ("net.kafka.refuse", {"first_broker down": [[10, 14]], "brokers down": [[10, 14]]}),
        ("kafka.not-enough-replicas", {"first_broker down": [[10, 14]], "brokers down": [[10, 14]]}),
        ("kafka.leader-lost", {"first_broker down": [[10, 14]]}),
    ],
)
def test_what_a_fault_is_to_the_model(what: str, expected: dict[str, list[list[float]]]) -> None:
    found = modes(broken(what))
    assert found.keys() == expected.keys()
    for name, spans in found.items():
        np.testing.assert_allclose(spans, expected[name])


def test_a_lost_leaders_partitions_are_another_ones_after_six_seconds() -> None:
    assert modes(broken("kafka.leader-lost", length=20)) == {
        "first_broker down": [[10, 16]],
        "moved": [[16, 30]],
    }


def test_a_fault_has_the_parameters_that_it_is_given() -> None:
    assert broken("redis.slow", delay_ms=30).redis.slow.tolist() == [[10, 14, 0.03]]
    flapping = broken("redis.flap", up_ms=1000, down_ms=2500).redis.down
    assert flapping.tolist() == [[10, 12.5], [13.5, 14]]


def test_a_fault_that_is_repeated_has_a_span_each_time() -> None:
    spec = FaultSpec(name="redis.kill", at=1, length=2, every=10, times=3)
    assert outages([spec], THREE).redis.down.tolist() == [[1, 3], [11, 13], [21, 23]]


def test_faults_of_several_servers_are_there_together() -> None:
    specs = [FaultSpec(name="redis.kill", at=1, length=2), FaultSpec(name="kafka.stop", at=2, length=2)]
    assert modes(outages(specs, THREE)) == {"redis down": [[1, 3]], "first_broker mute": [[2, 4]]}


@pytest.mark.parametrize(
    "what", ["gateway.kill", "kafka.throttled", "net.kafka.bandwidth", "redis.output-buffer"]
)
def test_what_is_not_modelled_is_refused_with_what_is(what: str) -> None:
    with pytest.raises(ConfigError, match=rf"{what} is not simulated.*kafka\.leader-lost.*redis\.kill"):
        broken(what)


def test_two_faults_at_once_on_a_server_are_refused() -> None:
    specs = [FaultSpec(name="redis.kill", at=1, length=2), FaultSpec(name="redis.stop", at=2, length=2)]
    with pytest.raises(ConfigError, match="overlaps"):
        outages(specs, THREE)


def test_a_leader_without_a_copy_cannot_be_lost() -> None:
    with pytest.raises(ConfigError, match=r"replication_factor: .* needs 2"):
        outages([FaultSpec(name="kafka.leader-lost", at=1, length=2)], Deployment(brokers=3))


SPANS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 10)).map(lambda one: (one[0], sum(one))))


@given(spans=SPANS)
def test_united_spans_are_the_same_time_in_order_and_apart(spans: list[tuple[int, int]]) -> None:
    merged = united(spans)
    for moment in np.arange(-0.5, 60, 0.5):
        assert any(begin <= moment < end for begin, end in spans) == any(
            begin <= moment < end for begin, end in merged
        )
    assert (merged[:, 1] > merged[:, 0]).all()
    assert (merged[1:, 0] > merged[:-1, 1]).all()
