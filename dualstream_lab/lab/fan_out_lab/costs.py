"""What the servers spend: Redis's CPU, memory and its slowest subscriber's buffer; a gateway's metrics."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import aiohttp
from prometheus_client.parser import text_string_to_metric_families
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from dualstream_lab.errors import StreamUnavailable
from dualstream_lab.tasks import end_tasks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["RedisCosts", "gateway_metrics"]

_ANSWER: Final = 10.0  # s; it may be in the middle of a storm
_LOOK: Final = 0.02  # s between looks at Redis's clients' buffers


async def gateway_metrics(url: str) -> dict[str, float]:
    """Those without labels, by name, of the gateway at this base URL. Raises StreamUnavailable."""
    timeout = aiohttp.ClientTimeout(total=_ANSWER)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(f"{url}/metrics") as answer:
            text = await answer.text()
    except (aiohttp.ClientError, OSError) as error:
        raise StreamUnavailable(f"the gateway does not give its metrics: {error}") from error
    families = text_string_to_metric_families(text)
    return {sample.name: sample.value for family in families for sample in family.samples}


class _Spent(NamedTuple):
    """``cpu``: seconds so far, of user and system; ``memory``: bytes that are in use now."""

    cpu: float
    memory: int


class RedisCosts:
    """Asks one Redis. Raises StreamUnavailable when it does not answer."""

    def __init__(self, url: str) -> None:
        # Bounded here: redis-py's own timeout is asyncio.wait_for, which can swallow the cancellation.
        self._client = Redis.from_url(url, retry=Retry(NoBackoff(), 0), socket_timeout=None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def spent(self) -> _Spent:
        """Now."""
        cpu, memory = await self._ask("INFO", "cpu"), await self._ask("INFO", "memory")
        return _Spent(float(cpu["used_cpu_user"]) + float(cpu["used_cpu_sys"]), int(memory["used_memory"]))

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[list[int]]:
        """The bytes that the subscriber which is furthest behind has waiting, look by look."""
        seen = [0]

        async def watch() -> None:
            while True:
                clients = await self._ask("CLIENT LIST", "TYPE", "PUBSUB")
                seen.append(max((int(client["omem"]) for client in clients), default=0))
                await asyncio.sleep(_LOOK)

        watching = asyncio.create_task(watch())
        try:
            yield seen
        finally:
            died = watching.done()
            await end_tasks([watching])
        if died:
            watching.result()

    async def _ask(self, *command: str) -> Any:
        try:
            async with asyncio.timeout(_ANSWER):
                return await self._client.execute_command(*command)  # type: ignore[no-untyped-call]
        except (RedisError, OSError, TimeoutError) as error:
            reason = str(error) or f"no answer within {_ANSWER:g} s"
            raise StreamUnavailable(f"Redis cannot be asked what it spends: {reason}") from error
