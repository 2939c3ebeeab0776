"""A gateway of the run's own, killed and back: its clients connect again, and go on where they were."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dualstream_lab.errors import ConfigError
from dualstream_lab.faults.evidence import HTTP, answers, is_refused
from dualstream_lab.faults.fault import Fault
from dualstream_lab.tasks import in_thread

if TYPE_CHECKING:
    from dualstream_lab.faults.fault import ServedGateway

__all__ = ["FAULTS"]


class Kill(Fault):
    """What clients have not yet read is gone with it."""

    name = "gateway.kill"
    says = "the run's gateway is killed, and started again at the end"
    breaks = "gateway"
    needs_stack = True

    @property
    def _gateway(self) -> ServedGateway:
        if self.target.gateway is None:
            raise ConfigError("gateway.kill: this run has no gateway of its own")
        return self.target.gateway

    async def begin(self) -> None:
        """SIGKILL."""
        await in_thread(self._gateway.process.kill)

    async def bites(self) -> str:
        """A connection is refused."""
        return await is_refused(self._gateway.address)

    async def end(self) -> None:
        """Start it."""
        await in_thread(self._gateway.process.start)

    async def ended(self) -> str:
        """A page comes."""
        return await answers(self._gateway.address, HTTP)


FAULTS = (Kill,)
