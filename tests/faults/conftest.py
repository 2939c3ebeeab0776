"""What the tests of faults break, and how they see that it is whole again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from dualstream_lab.config import Settings
from dualstream_lab.faults.fault import Fault, Target
from dualstream_lab.faults.injector import open_target
from dualstream_lab.faults.redis.probe import WRITE, Link
from dualstream_lab.faults.spec import CATALOGUE
from dualstream_lab.stack import LocalStack

REDIS_FAULTS = [name for name in CATALOGUE if name.startswith("redis.")]
# Quick enough for a test.
PARAMETERS: dict[str, dict[str, float]] = {
    "redis.flap": {"up_ms": 60, "down_ms": 60},
    "redis.slow": {"delay_ms": 60},
    "redis.kill-clients": {"every_ms": 40},
    "redis.script-flush": {"every_ms": 40},
    "redis.busy": {"mute_ms": 60},
}

State = dict[str, Any]


async def bites_each_time(fault: Fault) -> None:
    """Of one that should not: a busy machine may look like it, once."""
    for _ in range(5):
        await fault.verify_active()


async def redis_state(url: str) -> State:
    """All that a fault may have changed on a Redis, as a client sees it."""
    async with Link(url) as link:
        settings = await link.ask("CONFIG", "GET", "*")
        state = dict(zip(settings[::2], settings[1::2], strict=True))
        state |= {"acl": await link.ask("ACL", "LIST"), "role": await link.info("role")}
        await link.ask(*WRITE)
        await link.ask("PUBLISH", "nobody", "hears")
        return state


@pytest.fixture
async def target(stack: LocalStack, settings: Callable[..., Settings]) -> AsyncIterator[Target]:
    """The stack, with the proxies that Redis faults need."""
    async with open_target(settings(), REDIS_FAULTS, stack=stack) as opened:
        yield opened


@pytest.fixture
def whole(target: Target) -> Callable[[], Awaitable[State]]:
    """Says what Redis is like, and fails where it does not work; also through the proxy."""

    async def look() -> State:
        assert target.direct.redis_url is not None
        assert target.settings.redis_url is not None
        assert target.stack is not None
        assert not target.stack.redis.paused
        return await redis_state(target.direct.redis_url) | await redis_state(target.settings.redis_url)

    return look
