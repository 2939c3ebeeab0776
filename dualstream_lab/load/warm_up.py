"""Load before the load: a fresh JVM answers slowly for some seconds. And the mark that all load carries."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol
from uuid import uuid4

from dualstream_lab.load.driver import Driver, Publisher, Unrecorded
from dualstream_lab.workload import RunIds

if TYPE_CHECKING:
    from dualstream_lab.workload import Workload

__all__ = ["load_headers", "warm_up"]


def load_headers(run: str) -> list[tuple[str, bytes]]:
    """A publisher's ``headers`` for load: ``dualstream_load`` and the run, so that consumers can tell it."""
    return [("dualstream_load", run.encode())]


class _Flushed(Publisher, Protocol):
    async def flush(self) -> Any:
        """Returns when nothing waits any more."""


async def warm_up(publisher: _Flushed, workload: Workload, seconds: float, lanes: int) -> int:
    """The workload for so long, with ids of another run, recorded by nobody. Returns how many events."""
    if not seconds:
        return 0
    sent = Unrecorded()
    driver = Driver(publisher, workload, workload.catalogue(RunIds.of_run(uuid4())), sent)
    driver.start()
    # Also where the plan asks for more than can be sent: it is no part of the plan.
    ending = asyncio.get_running_loop().call_later(seconds, driver.stop)
    try:
        await driver.run(lanes)
    finally:
        ending.cancel()
    await publisher.flush()
    return sent.events
