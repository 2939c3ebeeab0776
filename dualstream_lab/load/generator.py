"""The generator of a run, in a process of its own: a publisher, a driver and their records.

``python -m dualstream_lab.load.generator`` is not for people: see :mod:`dualstream_lab.load.child`.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from dualstream_lab.config import Settings
from dualstream_lab.load.child import Orders, say, serve, settle_memory
from dualstream_lab.load.driver import Driver, load_headers, warm_up
from dualstream_lab.load.recorder import PublishRecorder
from dualstream_lab.publisher import DualPublisher
from dualstream_lab.tasks import beside, end_tasks
from dualstream_lab.workload import RunIds, Workload


async def _main(task: dict[str, Any], orders: Orders) -> dict[str, Any]:
    workload = Workload(**task["workload"])
    settings = Settings(**task["settings"])
    directory = Path(task["directory"]) if task["directory"] else None
    async with DualPublisher(settings, headers=load_headers(task["run"])) as publisher:
        seconds = task["warm_up"]
        plan: Literal["closed", "constant"] = "closed" if workload.plan == "closed" else "constant"
        steady = replace(workload, duration=max(seconds, 0.1), seed=0, plan=plan)  # at its highest rate
        sent = await warm_up(publisher, steady, seconds, task["concurrency"])
        ids = RunIds(task["ids"])
        recorder = PublishRecorder(directory, "generator", ids=ids, every=task["sample"])
        recorder.watch(publisher)
        driver = Driver(publisher, workload, workload.catalogue(ids), recorder)
        settle_memory()
        say(ready={"warm_up": sent})
        if (at := await orders.started()) is None:
            recorder.close()
            return {}
        driver.start(at)
        recorder.started = at
        recording = asyncio.create_task(recorder.run())
        stopping = asyncio.create_task(orders.stopped.wait())
        stopping.add_done_callback(lambda _: driver.stop())
        await beside([recording], driver.run(task["concurrency"]))
        flushed = await publisher.flush()
        await end_tasks([recording, stopping])
        recorder.close()
        return {"flushed": flushed}


if __name__ == "__main__":
    serve(_main)
