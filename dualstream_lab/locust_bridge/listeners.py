"""The subscribers of one process: on Redis itself, or through a gateway."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Final

from dualstream_lab.errors import ConfigError
from dualstream_lab.event import channel_of
from dualstream_lab.load.gateway_subscriber import SOURCES_EACH, GatewaySubscriber
from dualstream_lab.load.receive_recorder import ReceiveRecorder
from dualstream_lab.load.subscriber import RedisSubscriber, all_channels, all_ready, allow_connections
from dualstream_lab.locust_bridge.options import Options
from dualstream_lab.workload import source_name

if TYPE_CHECKING:
    from yarl import URL


JOIN_TIMEOUT: Final = 30.0
"""Seconds for connections to be subscribed."""


class Listeners:
    """``everyone``: all of them, in the order of their numbers. ``keep`` runs each until the test ends.

    ``gateway``: where it is, if they are not on Redis itself; ``epoch``: which log it should serve.
    """

    def __init__(
        self, options: Options, gateway: URL | None, epoch: str | None, receiver: ReceiveRecorder,
        keep: Callable[[str, Coroutine[Any, Any, None]], None],
    ) -> None:  # fmt: skip
        self._options, self._gateway, self._epoch = options, gateway, epoch
        self._receiver, self._keep = receiver, keep
        self.everyone: list[RedisSubscriber | GatewaySubscriber] = []
        receiver.subscribers = self.everyone

    async def subscribe_to_all(self) -> None:
        """Every source's events, each once. Raises StreamUnavailable, ConfigError."""
        via, sources = self._options.via, range(self._options.workload.sources)
        if via == "redis":
            await self._join([None])
        else:
            each = SOURCES_EACH[via]
            await self._join([sources[first : first + each] for first in range(0, len(sources), each)])

    async def add(self, user: int) -> None:
        """The connections of one more subscribing user. Raises StreamUnavailable, ConfigError."""
        count = self._options.connections
        await self._join([self._ranks(number) for number in range(user * count, (user + 1) * count)])

    def _ranks(self, number: int) -> list[int] | None:
        """The rank of one connection's source; None: everything."""
        work = self._options.workload
        match self._options.channels:
            case "all":
                return None
            case "hot":
                rank = 0
            case "uniform":
                rank = number % work.sources
            case _:
                shares = work.popularity()
                rank = min(int(shares.searchsorted(_spread(number + 1))), work.sources - 1)
        return [rank]

    async def _join(self, wanted: Sequence[Sequence[int] | None]) -> None:
        """A connection for each: for the sources of some ranks, or for everything."""
        allow_connections(len(self.everyone) + len(wanted))
        first = len(self.everyone)
        for number, ranks in enumerate(wanted, first):
            one = self._subscriber(ranks, number)
            self.everyone.append(one)
            self._keep(f"subscriber {number}", one.run())
        joined = self.everyone[first:]
        if self._gateway is None:
            await all_ready(joined, JOIN_TIMEOUT)
            return
        await all_ready(joined, JOIN_TIMEOUT, server="the gateway", option="--gateway")
        for one in joined:
            if isinstance(one, GatewaySubscriber) and one.epoch not in {None, self._epoch}:
                raise ConfigError(
                    f"--gateway: {self._options.gateway} serves another log than topic "
                    f"{self._options.settings.topic} of --kafka: nothing would be received"
                )

    def _subscriber(self, ranks: Sequence[int] | None, number: int) -> RedisSubscriber | GatewaySubscriber:
        options, receiver = self._options, self._receiver
        slow = options.slow_seconds if _spread(number) < options.slow else 0.0
        if options.via != "redis" and self._gateway is not None and ranks is not None:
            return GatewaySubscriber(
                self._gateway, [":".join(source_name(rank)) for rank in ranks], receiver,
                via=options.via, number=number, slow=slow, stay=options.stay,
                listening=receiver.listening, ranks=ranks,
            )  # fmt: skip
        prefix = options.settings.channel_prefix
        channels = [all_channels(prefix)]
        if ranks is not None:
            channels = [channel_of(*source_name(rank), prefix) for rank in ranks]
        return RedisSubscriber(
            options.settings.redis_url or "", channels, receiver,
            number=number, pattern=ranks is None, slow=slow, stay=options.stay,
            listening=receiver.listening, sources=(-1,) if ranks is None else ranks,
        )  # fmt: skip


def _spread(number: int) -> float:
    """In [0, 1), evenly spread for any stretch of numbers (the golden ratio's multiples)."""
    return number * 0.618033988749895 % 1.0
