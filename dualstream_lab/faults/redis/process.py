"""Redis gone, mute, slow, or coming and going: what is done to its process, and to the way there."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from dualstream_lab.errors import StreamUnavailable
from dualstream_lab.faults.evidence import REDIS, address_of
from dualstream_lab.faults.fault import Parameter
from dualstream_lab.faults.network import Delayed
from dualstream_lab.faults.process import Flap, Kill, Restart, ServerFault, Stop
from dualstream_lab.faults.redis.probe import delivers

if TYPE_CHECKING:
    from dualstream_lab.faults.evidence import Address
    from dualstream_lab.faults.fault import Fault
    from dualstream_lab.stack import ManagedProcess

__all__ = ["FAULTS", "RedisFault"]


class RedisFault(ServerFault):
    """A fault of Redis."""

    breaks = "redis"
    dialect = REDIS

    @property
    def url(self) -> str:
        """Of Redis itself, past any proxy. Raises StreamUnavailable where there is none."""
        if self.target.direct.redis_url is None:
            raise StreamUnavailable("no Redis was given")
        return self.target.direct.redis_url

    @property
    def process(self) -> ManagedProcess:
        """The stack's."""
        return self.stack.redis

    @property
    def address(self) -> Address:
        """The stack's."""
        return address_of(self.stack.redis_url.partition("//")[2])

    async def verify_ended(self) -> str:
        """A publish is delivered again."""
        return await delivers(self.url)


class _Kill(Kill, RedisFault):
    name = "redis.kill"
    says = "Redis is killed, and started again at the end: connections are refused"


class _Stop(Stop, RedisFault):
    name = "redis.stop"
    says = "Redis is stopped in place (SIGSTOP): connections stay, nothing answers"


class _Restart(Restart, RedisFault):
    name = "redis.restart"
    says = "Redis is killed and started at once: connections break, memory is empty"


class _Slow(Delayed):
    name = "redis.slow"
    says = "everything to and from Redis is late (through the fault proxy)"
    breaks = "redis"
    parameters: ClassVar = (Parameter("delay_ms", 200, 1, 10_000, "each way"),)


class _Flap(Flap, RedisFault):
    name = "redis.flap"
    says = "Redis is killed and comes back, again and again"


FAULTS: Final[tuple[type[Fault], ...]] = (_Kill, _Stop, _Restart, _Slow, _Flap)
