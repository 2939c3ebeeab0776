"""WebSocket clients of a gateway that all follow one source, in a process of their own.

``python -m dualstream_lab.lab.fan_out_lab.clients`` is not for people: see :mod:`dualstream_lab.load.child`.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Final

from dualstream_lab.load.child import Orders, say, serve, settle_memory
from dualstream_lab.load.gateway_subscriber import GatewayReceiveRecorder, GatewaySubscriber, checked_gateway
from dualstream_lab.load.subscriber import all_ready, allow_connections
from dualstream_lab.tasks import beside, end_tasks
from dualstream_lab.workload import RunIds, source_name

_JOIN: Final = 30.0  # s


async def _main(task: dict[str, Any], orders: Orders) -> dict[str, Any]:
    base = await checked_gateway(task["gateway"])
    directory, ids = Path(task["directory"]), RunIds(task["ids"])
    recorder = GatewayReceiveRecorder(directory, "clients", ids, details=True, every=task["sample"])
    allow_connections(task["clients"])
    clients = [
        GatewaySubscriber(
            base, [":".join(source_name(0))], recorder,
            via="ws", number=number, listening=recorder.listening, ranks=(0,),
        )
        for number in range(task["clients"])
    ]  # fmt: skip
    running = [asyncio.create_task(client.run()) for client in clients]
    try:
        await all_ready(clients, _JOIN, where="the gateway", option="the gateway")
        recorder.subscribers = clients
        settle_memory()
        say(ready=True)
        if await beside(running, orders.started()) is None:
            return {}
        recording = asyncio.create_task(recorder.run())
        await beside([*running, recording], orders.stopped.wait())
        await end_tasks([recording])
        await recorder.drain(0.3)
        recorder.close()
    finally:
        await end_tasks(running)
    return {}


if __name__ == "__main__":
    serve(_main)
