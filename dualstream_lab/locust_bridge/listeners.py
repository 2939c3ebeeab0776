"""The subscribers of one process: on Redis itself, or through a gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from dualstream_lab.errors import ConfigError
from dualstream_lab.event import channel_of
from dualstream_lab.kafka_log import log_identity
from dualstream_lab.load.gateway_subscriber import (
    SOURCES_EACH,
    GatewayHearing,
    GatewaySubscriber,
    checked_gateway,
)
from dualstream_lab.load.hearing import Hearing
from dualstream_lab.load.subscriber import RedisSubscriber, all_channels, all_ready, allow_connections
from dualstream_lab.workload import source_name
from dualstream_lab.workload.popularity import cumulative_popularity

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from yarl import URL

    from dualstream_lab.locust_bridge.options import Options

__all__ = ["JOIN_TIMEOUT", "Gateway", "Listeners", "find_gateway", "hearing_of"]

JOIN_TIMEOUT: Final = 30.0
"""Seconds for connections to be subscribed."""


def hearing_of(options: Options) -> type[Hearing]:
    """What records what subscribers hear."""
    return Hearing if options.via == "redis" else GatewayHearing


class Gateway(NamedTuple):
    """A gateway that is there, and the log that it should serve."""

    url: URL
    epoch: str


async def find_gateway(options: Options) -> Gateway | None:
    """Where ``--via`` leads, if not to Redis. Raises ConfigError, StreamUnavailable."""
    if options.via == "redis":
        return None
    url = await checked_gateway(options.gateway)
    return Gateway(url, (await log_identity(options.settings)).epoch)


class Listeners:
    """``everyone``: all of them, in the order of their numbers. ``keep`` runs each until the test ends."""

    def __init__(
        self,
        options: Options,
        gateway: Gateway | None,
        hearing: Hearing,
        keep: Callable[[str, Coroutine[Any, Any, None]], None],
    ) -> None:
        self._options = options
        self._hearing = hearing
        self._keep = keep
        self._gateway = gateway
        self.everyone: list[RedisSubscriber | GatewaySubscriber] = []
        hearing.subscribers = self.everyone

    async def hear_everything(self) -> None:
        """Every source's events, each once. Raises StreamUnavailable, ConfigError."""
        via = self._options.via
        if via == "redis":
            await self._join([None])
            return
        everything = range(self._options.workload.sources)
        each = SOURCES_EACH[via]
        await self._join([everything[first : first + each] for first in range(0, len(everything), each)])

    async def add(self, user: int) -> None:
        """The connections of one more subscribing user. Raises StreamUnavailable, ConfigError."""
        count = self._options.connections
        await self._join([self._heard_at(user * count + place) for place in range(count)])

    def _heard_at(self, place: int) -> list[int] | None:
        """The rank of one connection's source; None: everything."""
        work = self._options.workload
        match self._options.channels:
            case "all":
                return None
            case "hot":
                rank = 0
            case "uniform":
                rank = place % work.sources
            case _:
                shares = cumulative_popularity(
                    work.sources, work.zipf, hot=work.hot, hot_sources=work.hot_sources
                )
                rank = min(int(shares.searchsorted(_spread(place + 1))), work.sources - 1)
        return [rank]

    async def _join(self, wanted: Sequence[Sequence[int] | None]) -> None:
        """A connection for each: for the sources of some ranks, or for everything."""
        allow_connections(len(self.everyone) + len(wanted))
        made = []
        for ranks in wanted:
            number = len(self.everyone)
            one = self._make(ranks, number)
            self.everyone.append(one)
            self._keep(f"subscriber {number}", one.run())
            made.append(one)
        if self._gateway is None:
            await all_ready(made, JOIN_TIMEOUT)
            return
        await all_ready(made, JOIN_TIMEOUT, where="the gateway", option="--gateway")
        for one in made:
            if isinstance(one, GatewaySubscriber) and one.epoch not in {None, self._gateway.epoch}:
                raise ConfigError(
                    f"--gateway: {self._options.gateway} serves another log than topic "
                    f"{self._options.settings.topic} of --kafka: nothing would be heard"
                )

    def _make(self, ranks: Sequence[int] | None, number: int) -> RedisSubscriber | GatewaySubscriber:
        options, hearing = self._options, self._hearing
        slow = options.slow_seconds if _spread(number) < options.slow else 0.0
        if options.via != "redis" and self._gateway is not None and ranks is not None:
            return GatewaySubscriber(
                self._gateway.url, [":".join(source_name(rank)) for rank in ranks], hearing,
                via=options.via, number=number, slow=slow, stay=options.stay,
                listening=hearing.listening, ranks=ranks,
            )  # fmt: skip
        prefix = options.settings.channel_prefix
        channels = [all_channels(prefix)]
        if ranks is not None:
            channels = [channel_of(*source_name(rank), prefix) for rank in ranks]
        return RedisSubscriber(
            options.settings.redis_url or "", channels, hearing,
            number=number, pattern=ranks is None, slow=slow, stay=options.stay,
            listening=hearing.listening, sources=(-1,) if ranks is None else ranks,
        )  # fmt: skip


def _spread(number: int) -> float:
    """In [0, 1), evenly spread for any stretch of numbers (the golden ratio's multiples)."""
    return number * 0.618033988749895 % 1.0
