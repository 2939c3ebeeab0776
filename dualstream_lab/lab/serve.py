"""``dualstream serve``: ingester, processor and gateway, together or each on its own."""

from __future__ import annotations

import asyncio
import logging
import resource
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from dualstream_lab.config import ServeSettings
from dualstream_lab.errors import ConfigError, DualStreamError
from dualstream_lab.gateway.access import Access, writer_of
from dualstream_lab.gateway.gateway import Gateway, application
from dualstream_lab.http_server import SERVER_OPTIONS, HttpProtocol, expect_nothing_else
from dualstream_lab.ingest.http import ingest_routes
from dualstream_lab.load.child import settle_memory
from dualstream_lab.processor import Processor
from dualstream_lab.publisher import DualPublisher
from dualstream_lab.store import SqliteStore, move_away

log = logging.getLogger(__name__)

PARTS: Final = ("ingester", "processor", "gateway")
_BACKLOG = 4096  # clients that may come in one moment
_GOODBYE = 5.0
_IDLE = 60.0  # s that a connection may be open without a (whole) request
_FILES = 65_536
_PAUSES: Final = (1.0, 30.0)  # s until a processor that has died is started again: first, and at most
# With 10,000 connections a collection that looks at all of them takes 0.3 s, in which nobody gets anything;
# and they leave no cycles behind for it. So it is seldom, and the younger ones are small.
_COLLECTIONS: Final = (1_000, 10, 10_000)
_STEADY: Final = 60.0  # s that it must have run for the first pause to be short again


def put_store_away(settings: ServeSettings, parts: Collection[str]) -> Path | None:
    """Move the store away, so that the processor fills a new one from Kafka. Returns where it is now.

    None where there is no store yet. Raises ConfigError where no processor is to run, StoreError where it
    cannot be moved.
    """
    if "processor" not in parts:
        raise ConfigError("--rebuild-store: only with the processor, which fills the new store")
    return move_away(settings.store) if settings.store.exists() else None


async def serve(
    settings: ServeSettings,
    parts: Collection[str] = PARTS,
    *,
    started: Callable[[str], None] = lambda _url: None,
    until: asyncio.Event | None = None,
) -> None:
    """Run the parts until ``until`` is set, or cancelled; then end them in order, within seconds.

    ``started`` is told the base URL once all serve (empty where no part speaks HTTP). A part that cannot
    start ends all, and its error is raised: ConfigError, StoreError, StackError, StreamUnavailable. A
    processor that dies later ends nobody else: it is started again, and ``/readyz`` says why it is not there.
    """
    if not parts or set(parts) - set(PARTS):
        raise ConfigError(f"parts: one or more of {', '.join(PARTS)} (is {', '.join(parts) or 'none'})")
    access = Access(settings)
    _allow_files()
    async with AsyncExitStack() as exits:
        made = _Parts(settings, access, exits)
        for part in PARTS:
            if part in parts:
                await getattr(made, part)()
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(work) for work in made.work]
                async with _listening(settings, access, made) as url:
                    settle_memory(_COLLECTIONS)
                    started(url)
                    await (until or asyncio.Event()).wait()
                for task in tasks:
                    task.cancel()
        except* DualStreamError as dead:
            error: BaseException = dead
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            raise error from dead


class _Parts:
    """The parts that were made: their routes, and their work."""

    def __init__(self, settings: ServeSettings, access: Access, exits: AsyncExitStack) -> None:
        self._settings = settings
        self._access = access
        self._exits = exits
        self._store: SqliteStore | None = None
        self._processor: Processor | None = None
        self._died = ""
        self.routes: list[web.RouteDef] = []
        self.work: list[Coroutine[Any, Any, None]] = []
        self.goodbye: Callable[[], Awaitable[None]] | None = None

    async def ingester(self) -> None:
        publisher = await self._exits.enter_async_context(DualPublisher(self._settings))
        self.routes += ingest_routes(
            publisher, settings=self._settings, authorize=lambda request: writer_of(request, self._access)
        )

    async def processor(self) -> None:
        store = await self._open(read_only=False)
        self._processor = Processor(self._settings, store)
        self._exits.push_async_callback(self._end_processor)
        await self._processor.start()
        self.work.append(self._keep_processor(store))

    async def _keep_processor(self, store: SqliteStore) -> None:
        """Keep the processor running: one that dies (a full disk, a topic made anew) is started again."""
        pause = _PAUSES[0]
        while True:
            began = time.monotonic()
            try:
                if self._processor is None:
                    processor = Processor(self._settings, store)
                    await processor.start()
                    self._processor, self._died = processor, ""
                await self._processor.run()
                reason = "it ended"
            except DualStreamError as error:
                reason = str(error)
            except Exception as error:
                log.exception("the processor died of what was not expected")
                reason = type(error).__name__
            await self._end_processor()
            if time.monotonic() - began > _STEADY:
                pause = _PAUSES[0]
            self._died = f"it has died: {reason}"
            log.error("the processor has died, and is started again in %g s: %s", pause, reason)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _PAUSES[1])

    def _processor_trouble(self) -> str:
        """What is wrong with the processor, which cannot always say so by its store: that may be wrong."""
        if self._died or self._processor is None:
            return self._died
        troubles = self._processor.stats().troubles
        return "; ".join(f"{part}: {reason}" for part, reason in troubles.items())

    def _hasten(self) -> None:
        if self._processor is not None:
            self._processor.hasten()

    async def _end_processor(self) -> None:
        if self._processor is not None:
            processor, self._processor = self._processor, None
            await processor.close()

    async def gateway(self) -> None:
        store = self._store or await self._open(read_only=True)
        gateway = await self._exits.enter_async_context(Gateway(self._settings, self._access, store))
        gateway.attach_processor(trouble=self._processor_trouble, hasten=self._hasten)
        self.work.append(gateway.run())
        self.routes += gateway.routes()
        self.goodbye = gateway.goodbye

    async def _open(self, *, read_only: bool) -> SqliteStore:
        self._store = await SqliteStore.open(self._settings.store, read_only=read_only)
        self._exits.push_async_callback(self._store.close)
        return self._store


@asynccontextmanager
async def _listening(settings: ServeSettings, access: Access, parts: _Parts) -> AsyncIterator[str]:
    """Run the HTTP server, where a part needs one; yields its URL, and tells its clients when it ends."""
    if not parts.routes:
        yield ""
        return
    runner = web.AppRunner(application(parts.routes, access), handler_cancellation=True, shutdown_timeout=2.0)
    await runner.setup()
    try:
        async with _server(settings, runner) as port:
            yield f"http://{settings.listen.rpartition(':')[0]}:{port}"
            if parts.goodbye is not None:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_GOODBYE):
                        await parts.goodbye()
    finally:
        await runner.cleanup()


@asynccontextmanager
async def _server(settings: ServeSettings, runner: web.AppRunner) -> AsyncIterator[int]:
    """Listen as ``settings`` say; yields the port. Raises ConfigError."""
    loop = asyncio.get_running_loop()
    manager = runner.server
    assert manager is not None  # noqa: S101
    expect_nothing_else(manager)

    def connection() -> HttpProtocol:
        return HttpProtocol(manager, loop=loop, keepalive_timeout=_IDLE, **SERVER_OPTIONS)

    host, _, port = settings.listen.rpartition(":")
    try:
        server = await loop.create_server(connection, host.strip("[]"), int(port), backlog=_BACKLOG)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"listen: {settings.listen} cannot be listened on: {reason}") from error
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def _allow_files() -> None:
    """Allow this process as many open files as it may have: every client is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < _FILES:
        most = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
