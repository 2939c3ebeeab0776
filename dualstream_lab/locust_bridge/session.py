"""One process's part of a Locust test: a publisher, its share of the plan, subscribers, and their records.

Everything here runs in the bridge's loop; only ``intervals`` is read from the hub.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dualstream_lab.config import Settings
from dualstream_lab.errors import DualStreamError, RecordingError
from dualstream_lab.kafka_log import log_identity
from dualstream_lab.load.child import settle_memory
from dualstream_lab.load.driver import Call, Driver, load_headers, time_limit
from dualstream_lab.load.gateway_subscriber import GatewayReceiveRecorder, checked_gateway
from dualstream_lab.load.probes import probe_kafka, probe_redis
from dualstream_lab.load.receive_recorder import ReceiveRecorder
from dualstream_lab.load.recorder import PublishRecorder
from dualstream_lab.locust_bridge.bridge import start_thread
from dualstream_lab.locust_bridge.listeners import JOIN_TIMEOUT, Listeners
from dualstream_lab.locust_bridge.options import Options
from dualstream_lab.publisher import DualPublisher
from dualstream_lab.recording import Interval, Outcome
from dualstream_lab.tasks import end_tasks
from dualstream_lab.workload import RunIds

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


log = logging.getLogger(__name__)

_PERIOD = 0.5
_KEPT = 1200  # intervals that may wait for a report to the master: five minutes
_QUIET, _DRAIN = 0.3, 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunAssignment:
    """What a process is told: the run, where its rows and its events go, the plan's zero (wall clock, ns),
    and its share.
    """

    directory: str
    run: str
    ids: str
    settings: dict[str, Any]
    zero: int
    index: int
    of: int


class _Sink(PublishRecorder):
    """Tells the subscribers of this process what they are to receive."""

    receiver: ReceiveRecorder | None = None

    def sending(self, seq: npt.NDArray[np.int64], intended: int, in_flight: int) -> None:
        if self.receiver is not None:
            self.receiver.expect(seq.tolist(), intended, time.monotonic_ns())
        super().sending(seq, intended, in_flight)

    def settled(self, call: Call) -> None:
        if not call.acked and self.receiver is not None:
            self.receiver.forget(call.seq.tolist())
        super().settled(call)


def start_limit(settings: Settings) -> float:
    """Seconds within which :meth:`Session.start` has connected, or failed."""
    return 4 * settings.start_timeout + 5 * settings.redis_timeout + JOIN_TIMEOUT + 10


def finish_limit(settings: Settings) -> float:
    """Seconds within which :meth:`Session.finish` has ended, also when brokers and disk are slow."""
    return _open_limit(settings) + 3 * settings.close_timeout + _DRAIN + 90


def _open_limit(settings: Settings) -> float:
    """Seconds that a call of the publisher can be open."""
    return settings.buffer_timeout + settings.delivery_timeout + 5


class Session:
    """``intervals``: what was recorded and not yet taken, oldest first; bounded.

    ``listeners``: its subscribers. ``publishes``: false once all users are here and none of them publishes.
    ``over``: the plan is done, or there is no going on. ``failed``: why, if something broke on the way.
    """

    def __init__(
        self, options: Options, assignment: RunAssignment, *, listens: bool, measures_delivery: bool
    ) -> None:
        self._options = options
        self._assignment = assignment
        self._listens = listens or measures_delivery
        self._measures_delivery = measures_delivery
        self._tasks: list[asyncio.Task[None]] = []
        self.intervals: deque[Interval] = deque(maxlen=_KEPT)
        self.publishes = True
        self.over = False
        self.failed: str | None = None

    async def start(self) -> None:
        """Connect, and then make what is written. Raises ConfigError, StreamUnavailable or RecordingError.

        A process that cannot start leaves nothing behind: the directory may already be removed.
        """
        self._publisher = DualPublisher(self._options.settings, headers=load_headers(self._assignment.run))
        await self._publisher.start()
        try:
            await self._record()
        except DualStreamError:
            await self._publisher.close()
            raise
        except OSError as error:
            await self._publisher.close()
            raise RecordingError(f"{self._assignment.directory} cannot be written: {error}") from error
        try:
            await self._begin()
        except BaseException:
            await self._close()
            raise
        settle_memory()
        if (late := (time.time_ns() - self._assignment.zero) / 1e9) > 0:
            log.warning(
                "this process was ready %.1f s after the plan began: it is behind from the start, and its "
                "subscribers got nothing of what was published until then",
                late,
            )

    async def _record(self) -> None:
        """The recorders, and their directory."""
        assignment, options, every = self._assignment, self._options, self._options.sample
        direct = options.via == "redis"
        gateway = None if direct or not self._listens else await checked_gateway(options.gateway)
        epoch = (await log_identity(options.settings)).epoch if self._listens else None
        directory = Path(assignment.directory) if every else None
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True)  # a worker may be on another machine
        common: dict[str, Any] = {
            "every": max(1, every), "period": _PERIOD, "deliver": self.intervals.append,
            "start_thread": start_thread,
        }  # fmt: skip
        ids = RunIds(assignment.ids)
        self._sink = _Sink(directory, f"worker{assignment.index}", ids=ids, **common)
        self._receiver = (ReceiveRecorder if direct else GatewayReceiveRecorder)(
            directory if self._listens else None, f"worker{assignment.index}", ids,
            details=not self._measures_delivery, complete=self._measures_delivery, epoch=epoch, **common,
        )  # fmt: skip
        self.listeners = Listeners(options, gateway, epoch, self._receiver, self._keep)
        self._sink.receiver = self._receiver if self._listens else None
        self._sink.watch(self._publisher)

    async def _begin(self) -> None:
        """The driver, and what goes on beside it."""
        workload, assignment, settings = self._options.workload, self._assignment, self._options.settings
        events = workload.catalogue(RunIds(assignment.ids))
        self._driver = Driver(
            self._publisher, workload, events, self._sink, share=(assignment.index, assignment.of)
        )
        self._driver.start(time.monotonic_ns() + assignment.zero - time.time_ns())
        self._sink.started = self._driver.started
        self._keep("the record of publishing", self._sink.run())
        if self._measures_delivery:
            await self.listeners.subscribe_to_all()
        if self._listens:
            self._keep("the record of what is received", self._receiver.run())
        self._keep("the watch for the end", self._watch())
        if assignment.index == 0:  # one process asks for all
            self._keep("the probe of Kafka", probe_kafka(settings, self._sink.meter))
            if settings.redis_url is not None:
                self._keep("the probe of Redis", probe_redis(settings.redis_url, self._sink.meter))

    def _keep(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Run it until the end; nothing here should end before."""
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._ended)
        self._tasks.append(task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            self._broke(f"{task.get_name()} failed: {error!r}")

    def _broke(self, why: str) -> None:
        self.failed = self.failed or why
        self.over = True

    async def publish_next(self) -> tuple[int, Outcome] | None:
        """One call of this process's share: (events, outcome); None when there are no more."""
        call = await self._driver.call()
        return None if call is None else (len(call), call.outcome)

    async def _watch(self) -> None:
        """Notes when the plan is over: its time is up, and every call that was made is settled.

        A plan that cannot be kept is given up in the end; what was due counts as unsent then.
        """
        driver, work = self._driver, self._options.workload
        ahead = (driver.started - time.monotonic_ns()) / 1e9
        await asyncio.sleep(max(0, ahead + work.duration))
        patience = time_limit(work, self._options.settings) - work.duration
        await _wait(lambda: not driver.in_flight and (driver.exhausted or not self.publishes), patience)
        self.over = True

    async def finish(self) -> None:
        """Stop, wait for what is open, and record the rest; within :func:`finish_limit`."""
        driver, settings = self._driver, self._options.settings
        driver.stop()
        await _wait(lambda: not driver.in_flight, _open_limit(settings))
        await self._publisher.flush()
        if self._listens:
            await _wait(lambda: self._receiver.quiet > _QUIET, _DRAIN)
        await self._close()

    async def _close(self) -> None:
        if left := await end_tasks(self._tasks):
            self._broke(f"{next(iter(left)).get_name()} did not end")
        for recorder in (self._sink, self._receiver):
            try:
                recorder.close()
            except OSError as error:
                self._broke(str(error))
        with suppress(TimeoutError):
            async with asyncio.timeout(2 * self._options.settings.close_timeout + 5):
                await self._publisher.close()


async def _wait(done: Callable[[], bool], timeout: float) -> None:
    """Until it is so, at most ``timeout`` s."""
    deadline = time.monotonic() + timeout
    while not done() and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
