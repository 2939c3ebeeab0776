"""A gateway of our own: ``dualstream serve`` on a local stack, and faults meanwhile."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from dualstream_lab.config import Settings
from dualstream_lab.faults.fault import ServedGateway
from dualstream_lab.faults.injector import broken, open_target
from dualstream_lab.faults.spec import fault_named
from dualstream_lab.lab.gateway_check.check import Check, Plan, Progress, check_gateway
from dualstream_lab.stack import LocalStack, ManagedProcess
from dualstream_lab.stack.destination import Destination
from dualstream_lab.stack.ports import HOST, free_ports
from dualstream_lab.tasks import in_thread

_CHECK_INTERVAL: Final = 2  # s between looks for what was lost: the check waits for one at its end
_BROKEN: Final = 0.4  # of a fault's share of the time


async def check_local(
    stack: LocalStack,
    plan: Plan,
    *,
    faults: Sequence[str] = (),
    show: Callable[[Progress], None] = lambda _progress: None,
    say: Callable[[str], None] = lambda _line: None,
) -> Check:
    """Check `dualstream serve` on a started stack. ``faults`` of the catalogue break it meanwhile, in turn.

    ``say`` gets their evidence. As :func:`check_gateway`; raises StackError and FaultInert, too.
    """
    async with open_target(Destination.of(stack).settings, faults, stack=stack) as target:
        settings = target.settings
        interval = _CHECK_INTERVAL
        async with serving(settings, stack.directory, DUALSTREAM_CHECK_INTERVAL=interval) as gateway:
            target.gateway = gateway

            async def disturb() -> None:
                share = plan.seconds / (len(faults) + 0.5)
                for what in faults:
                    await asyncio.sleep((1 - _BROKEN) * share)
                    length = 0.0 if fault_named(what).instant else _BROKEN * share
                    async with broken(target, what, length=length) as evidence:
                        say(f"{what} bites: {evidence}")
                    say(f"{what} is over")

            return await check_gateway(url_of(gateway), settings, plan, disturb=disturb, show=show)


@asynccontextmanager
async def serving(settings: Settings, directory: Path, **environment: float) -> AsyncIterator[ServedGateway]:
    """Run `dualstream serve` on these brokers, with its store in ``directory``. Raises StackError."""
    (port,) = free_ports(1)
    process = ManagedProcess(
        name="dualstream serve",
        command=[
            *("env", *(f"{name}={value}" for name, value in environment.items())),
            *(sys.executable, "-m", "dualstream_lab.cli", "serve", "--listen", f"{HOST}:{port}"),
            *("--kafka", str(settings.kafka_url), "--redis", str(settings.redis_url)),
            *("--topic", settings.topic, "--store", str(directory / "check.db")),
        ],
        log=directory / "serve.log",
        ready=lambda text: "Ctrl-C ends it" in text,
        explain=lambda text: text[-1000:].strip() or "it said nothing",
    )
    try:
        await in_thread(process.start)
        yield ServedGateway(process=process, address=(HOST, port))
    finally:
        await in_thread(process.stop)


def url_of(gateway: ServedGateway) -> str:
    """The base URL of a gateway that serves."""
    host, port = gateway.address
    return f"http://{host}:{port}"
