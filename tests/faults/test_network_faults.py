"""Each fault of the way to Redis and to Kafka: that it bites where the load goes, and only there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dualstream_lab.errors import FaultInert, StackError
from dualstream_lab.faults import evidence
from dualstream_lab.faults.evidence import KAFKA, REDIS, Server, address_of
from dualstream_lab.faults.fault import Target
from dualstream_lab.faults.injector import broken, open_target
from dualstream_lab.faults.network import FAULTS, NetworkFault

from .conftest import bites_each_time

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from dualstream_lab.config import Settings
    from dualstream_lab.stack import LocalStack

PARAMETERS = {
    "delay": {"delay_ms": 100.0},
    "jitter": {"delay_ms": 30.0, "jitter_ms": 20.0},
    "bandwidth": {"rate_kib": 300.0},
}
each = pytest.mark.parametrize("kind", FAULTS, ids=lambda kind: kind.name)


@pytest.fixture
async def target(stack: LocalStack, settings: Callable[..., Settings]) -> AsyncIterator[Target]:
    async with open_target(settings(), [kind.name for kind in FAULTS], stack=stack) as opened:
        yield opened


def parameters(kind: type[NetworkFault]) -> dict[str, float]:
    return PARAMETERS.get(kind.word, {})


@each
async def test_each_bites_where_the_load_goes_and_is_over(target: Target, kind: type[NetworkFault]) -> None:
    redis = address_of((target.direct.redis_url or "").partition("//")[2])
    kafka = address_of(target.direct.kafka_url or "")
    other = REDIS if kind.breaks == "kafka" else KAFKA
    async with broken(target, kind.name, **parameters(kind)) as evidence:
        assert evidence
        assert await Server(redis, REDIS).answers(within=0.1)
        assert await Server(kafka, KAFKA).answers(within=0.1)
        healthy = {REDIS: target.proxies["redis"].address, KAFKA: target.proxies["kafka"].address}
        assert await Server(healthy[other], other).answers()


@each
async def test_without_it_there_is_no_evidence(
    target: Target, kind: type[NetworkFault], monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = kind(target, **parameters(kind))
    with pytest.raises(FaultInert):
        await bites_each_time(fault)
    await fault.end()
    assert await fault.verify_ended()
    # and while it lasts it is not over
    monkeypatch.setattr(evidence, "_LONG", 0.4)
    monkeypatch.setattr(evidence, "_TRIES", 1)
    await fault.begin()
    if kind.word != "jitter":  # which may be little, now and then
        with pytest.raises(FaultInert):
            await fault.verify_ended()
    monkeypatch.undo()
    await fault.end()
    await fault.end()
    assert await fault.verify_ended()


async def test_without_a_proxy_nothing_is_begun(settings: Callable[..., Settings]) -> None:
    with pytest.raises(StackError, match="no proxy was started before redis"):
        await FAULTS[0](Target(direct=settings(), settings=settings())).begin()
