"""A Locust process's part in a test: a master orders and judges, a worker obeys, one alone does both."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import deque
from collections.abc import Coroutine
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

import gevent
from gevent.lock import RLock
from gevent.pool import Group
from locust.exception import StopUser
from locust.runners import MasterRunner, WorkerRunner

from dualstream_lab import errors
from dualstream_lab.config import Settings
from dualstream_lab.errors import ConfigError, DualStreamError, RecordingError, StackError, StreamUnavailable
from dualstream_lab.locust_bridge.bridge import Bridge
from dualstream_lab.locust_bridge.destination import Destinations
from dualstream_lab.locust_bridge.options import Options
from dualstream_lab.locust_bridge.record import Record, show
from dualstream_lab.locust_bridge.session import RunAssignment, Session, finish_limit, start_limit
from dualstream_lab.locust_bridge.statistics import add_interval
from dualstream_lab.locust_bridge.workers import Workers
from dualstream_lab.recording import Interval, Outcome
from dualstream_lab.stack.destination import with_origins
from dualstream_lab.verdict.measures import Totals

if TYPE_CHECKING:
    from locust.env import Environment


T = TypeVar("T")
log = logging.getLogger(__name__)

_ASSIGN, _FINISH, _FINISHED, _OVER, _FAILED = (
    f"dualstream-{word}" for word in ("assign", "finish", "finished", "over", "failed")
)
_PUMP = 0.5
USAGE, UNAVAILABLE, MISSED, INTERRUPTED = 2, 3, 99, 130


class Controller:
    """``environment.dualstream``. Its methods are for greenlets."""

    def __init__(self, environment: Environment, *, listens: bool, measures_delivery: bool) -> None:
        self._environment = environment
        self._listens, self._measures_delivery = listens, measures_delivery
        self._runner: Any = environment.runner
        self._is_worker = isinstance(self._runner, WorkerRunner)
        self._is_master = isinstance(self._runner, MasterRunner)
        self._bridge: Bridge | None = None
        self._session: Session | None = None
        self._assignment: RunAssignment | None = None
        self._record: Record | None = None
        self._workers = Workers(self._runner)
        self._unreported: deque[dict[str, Any]] = deque(maxlen=10_000)
        self._greenlets = Group()
        self._finishing = RLock()
        self._limits = (0.0, 0.0)
        self._users = 0
        self._destinations = Destinations()
        self._spawned = self._planned_end = self._ending = False
        self._failure: DualStreamError | None = None
        self.totals = Totals()
        self._register()
        if not self._is_worker:
            self._take_run_time()

    def _register(self) -> None:
        events: Any = self._environment.events
        events.test_start.add_listener(self._on_start)
        events.spawning_complete.add_listener(self._on_spawned)
        events.test_stopping.add_listener(self._on_stop)
        events.quitting.add_listener(self._on_quitting)
        receive: Any = getattr(self._runner, "register_message", None)
        if self._is_worker:
            receive(_ASSIGN, self._on_assignment)
            receive(_FINISH, self._on_finish, concurrent=True)
            events.report_to_master.add_listener(self._on_report)
        if self._is_master:
            receive(_FINISHED, lambda msg, **_: self._workers.finished(msg.node_id))
            receive(_OVER, lambda msg, **_: self._workers.over(msg.node_id))
            receive(_FAILED, self._on_failed)
            events.worker_report.add_listener(self._on_worker_report)

    def _take_run_time(self) -> None:
        """Check the options before anything starts; the plan's end, not a timer, ends a headless run."""
        given: Any = self._environment.parsed_options
        try:
            destination = self._destinations.find(given, may_ask=True)
            options = Options.of(given, destination.settings)
        except DualStreamError as error:
            self._destinations.close()
            _say_error(error)
            sys.exit(_exit_code(error))
        self._environment.host = destination.kafka  # what the web UI calls the host
        if given.headless:
            plan = options.workload
            given.duration, given.run_time = plan.duration, None
            rate = f"{plan.rate:,.0f}"
            log.info("%s plan, %s events/s for %g s: its end ends the test", plan.plan, rate, plan.duration)

    def _on_start(self, **_: object) -> None:
        self._users, self._failure = 0, None
        self._spawned = self._planned_end = self._ending = False
        try:
            options = self._options()
            self._limits = start_limit(options.settings), finish_limit(options.settings)
            if not self._is_worker:
                self._prepare(options)
            if not self._is_master:
                self._begin(options)
        except DualStreamError as error:
            self._fail(error)
        except Exception as error:
            log.exception("the test could not begin")  # whatever it is, nobody must wait for its end
            self._fail(DualStreamError(f"the test could not begin: {error!r}"))

    def _on_spawned(self, **_: object) -> None:
        self._spawned = True

    def _options(self) -> Options:
        given: Any = self._environment.parsed_options
        if not self._is_worker:
            return Options.of(given, self._destinations.find(given, may_ask=False).settings)
        if self._assignment is None:
            raise ConfigError(
                "this worker was given no order; do master and workers run the same locustfile?"
            )
        return Options.of(given, Settings(**self._assignment.settings))

    def _prepare(self, options: Options) -> None:
        workers = self._workers = Workers(self._runner)
        count = len(workers.members)
        lead = options.lead(listens=self._listens, measures_delivery=self._measures_delivery)
        record = Record(options, workers=count, lead=lead)
        self._record, self.totals = record, record.totals
        for index, member in enumerate(workers.members):
            assignment = record.assignment(index, count)
            if self._is_master:
                self._runner.send_message(_ASSIGN, asdict(assignment), client_id=member)
            else:
                self._assignment = assignment
        self._greenlets.spawn(self._wait_for_end)

    def _begin(self, options: Options) -> None:
        assert self._assignment is not None  # noqa: S101  (the worker's was looked at, its own was just made)
        self._bridge = self._bridge or Bridge()
        session = Session(
            options, self._assignment, listens=self._listens, measures_delivery=self._measures_delivery
        )
        limit = self._limits[0]
        try:
            self._bridge.call(session.start(), timeout=limit)
        except TimeoutError as error:
            raise StreamUnavailable(f"Kafka and Redis were not ready within {limit:g} s") from error
        except asyncio.CancelledError:  # the process is ending
            return
        self._session = session
        self._greenlets.spawn(self._pump)

    def _fail(self, error: DualStreamError) -> None:
        """Say why, and end. What was sent is kept."""
        if self._failure is not None:
            return
        self._failure = error
        if self._is_worker:
            self._runner.send_message(_FAILED, {"type": type(error).__name__, "text": str(error)})
            return
        _say_error(error)
        if not self._ending:
            gevent.spawn(self._end_test)

    def publish_next(self) -> tuple[int, Outcome] | None:
        """The next call of the plan, at its time; returns when it is settled, None when there are no more."""
        if self._session is None or self._bridge is None:
            raise StopUser
        return self._call(self._session.publish_next())

    def subscribe(self) -> None:
        """The connections of one more subscribing user, in place. Ends the test if they cannot be made."""
        if self._session is None or self._bridge is None:
            return  # it has failed already, and said why
        number, self._users = self._users, self._users + 1
        try:
            self._call(self._session.listeners.add(number))
        except DualStreamError as error:
            self._fail(error)

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        assert self._bridge is not None  # noqa: S101  (a session has one)
        try:
            return self._bridge.call(work)
        except asyncio.CancelledError:  # the process is ending
            raise StopUser from None

    def _pump(self) -> None:
        """Takes what the session recorded, for Locust's statistics and for the run directory."""
        session = self._session
        said_over = False
        while session is self._session and session is not None:
            self._drain(session)
            session.publishes = not self._spawned or self._has_publishers()
            if session.over and not said_over:
                said_over = True
                if self._is_worker:
                    self._runner.send_message(_OVER, {})
                else:
                    self._workers.over("local")
            gevent.sleep(_PUMP)

    def _has_publishers(self) -> bool:
        """Of a locustfile's users, a worker may have been given none that publishes."""
        count = self._runner.user_classes_count
        return any(count[u.__name__] for u in self._environment.user_classes if hasattr(u, "publish_next"))

    def _drain(self, session: Session) -> None:
        while session.intervals:
            interval = session.intervals.popleft()
            add_interval(self._environment.stats, interval)
            if self._is_worker:
                self._unreported.append(interval.encode())
            else:
                self._keep(interval)

    def _keep(self, interval: Interval) -> None:
        if self._record is None:
            return
        try:
            self._record.keep(interval)
        except OSError as error:
            self._fail(RecordingError(f"the run cannot be recorded: {error}"))

    def _wait_for_end(self) -> None:
        """The plan's end ends the test."""
        record = self._record
        while record is self._record and not self._ending:
            if self._workers.all_over:
                self._planned_end = True
                self._end_test()
                return
            gevent.sleep(0.1)

    def _end_test(self) -> None:
        end = self._runner.quit if self._environment.web_ui is None else self._runner.stop
        end()

    def _on_assignment(self, msg: Any, **_: object) -> None:
        self._assignment = RunAssignment(**msg.data)

    def _on_report(self, data: dict[str, Any], **_: object) -> None:
        data["dualstream"] = [self._unreported.popleft() for _ in range(len(self._unreported))]

    def _on_worker_report(self, data: dict[str, Any], **_: object) -> None:
        for value in data.get("dualstream", []):
            self._keep(Interval.decode(value))

    def _on_failed(self, msg: Any, **_: object) -> None:
        kind = getattr(errors, msg.data["type"], DualStreamError)
        self._fail(kind(msg.data["text"]))

    def _on_finish(self, **_: object) -> None:
        """Always answered, also by a worker that could not start: from then on it writes nothing."""
        self._finish_session()
        # Locust's own last report may come too late for the master, and then its counts do not add up.
        self._runner._send_stats()  # noqa: SLF001
        self._runner.send_message(_FINISHED, {})

    def _finish_session(self) -> None:
        with self._finishing:  # the second to come waits until it is done
            session, self._session, self._assignment = self._session, None, None
            if session is None or self._bridge is None:
                return
            limit = self._limits[1]
            try:
                self._bridge.call(session.finish(), timeout=limit)
            except TimeoutError:
                session.failed = f"the test did not end within {limit:g} s"
            self._drain(session)
            if session.failed:
                self._fail(RecordingError(session.failed))

    def _on_stop(self, **_: object) -> None:
        """Everything that is open is settled and recorded, before users are stopped.

        Whoever stopped it: without the web UI nobody can begin another, and Locust itself, when its workers
        do not answer, would wait for ever.
        """
        if not self._is_worker:
            self._finish()
            if self._environment.web_ui is None:
                gevent.spawn(self._runner.quit)

    def _finish(self) -> None:
        with self._finishing:
            self._ending = True
            record, workers = self._record, self._workers
            if record is None:
                return
            if self._is_master:
                self._runner.send_message(_FINISH, {})
                workers.wait_until_finished(sum(self._limits))
            else:
                self._finish_session()
                workers.finished("local")
            self._record = None
            if lost := len(workers.writing):
                part = f"{'its' if lost == 1 else 'their'} part of the run is missing"
                self._fail(
                    StackError(f"{lost} of {len(workers.members)} workers ended without a word: {part}")
                )
            try:
                self._conclude(record)
            except OSError as error:
                self._fail(RecordingError(f"the verdict cannot be written: {error}"))

    def _conclude(self, record: Record) -> None:
        if self._failure is not None and not record.sent and not self._workers.writing:
            record.discard()
            return
        complete = self._planned_end and self._failure is None
        verdict = record.conclude("finished" if complete else "interrupted")
        show(verdict, record.directory)
        if not complete:
            self._environment.process_exit_code = INTERRUPTED
        elif verdict.checks:
            self._environment.process_exit_code = 0 if verdict.held else MISSED

    def _on_quitting(self, **_: object) -> None:
        if self._is_worker:
            self._on_finish()
        else:
            self._finish()
        if self._failure is not None:
            self._environment.process_exit_code = _exit_code(self._failure)
        self._greenlets.kill(block=False)
        if self._bridge is not None:
            self._bridge.close()
            self._bridge = None
        self._destinations.close()


def _exit_code(error: DualStreamError) -> int:
    return USAGE if isinstance(error, ConfigError) else UNAVAILABLE


def _say_error(error: DualStreamError) -> None:
    print(f"error: {with_origins(str(error), sys.argv[1:])}", file=sys.stderr)
