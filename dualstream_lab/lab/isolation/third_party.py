"""The user's own publisher, from a Python file, as the driver wants one.

Its word is not trusted: what is durable, the topic itself says.
"""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from dualstream_lab.errors import ConfigError, OutcomeUnknown, PublishError, PublishRejected, StackError

if TYPE_CHECKING:
    from pathlib import Path

    from dualstream_lab.config import Settings
    from dualstream_lab.event import Event

__all__ = ["ThirdPartyPublisher", "load_maker"]

_NEED = (
    "it needs `async def make_publisher(kafka_url, redis_url, topic)` that returns an object with "
    "`async def publish_batch(self, events)` and, if there is something to close, `async def close(self)`"
)
_MODULE = "dualstream_publisher_under_proof"
Maker = Callable[[str | None, str | None, str], Awaitable[Any]]


def load_maker(path: Path) -> Maker:
    """``make_publisher`` of a Python file. Raises ConfigError naming the file, and what is needed."""
    spec = importlib.util.spec_from_file_location(_MODULE, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ConfigError(f"--publisher: {path} is not a Python file; {_NEED}")
    module = sys.modules[_MODULE] = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.resolve().parent))  # as `python FILE` does: it may import its neighbours
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise ConfigError(f"--publisher: {path} cannot be imported: {_located(error, path)}") from error
    maker = getattr(module, "make_publisher", None)
    if not callable(maker):
        raise ConfigError(f"--publisher: {path} has no make_publisher; {_NEED}")
    if not inspect.iscoroutinefunction(maker):
        raise ConfigError(f"--publisher: make_publisher of {path} is not `async def`; {_NEED}")
    try:
        inspect.signature(maker).bind("kafka_url", "redis_url", "topic")
    except TypeError as error:
        raise ConfigError(f"--publisher: make_publisher of {path}: {error}; {_NEED}") from error
    return maker  # type: ignore[no-any-return]


class ThirdPartyPublisher:
    """What ``make_publisher`` returned. Every call ends within ``delivery_timeout``, and so does closing."""

    def __init__(self, made: Any, timeout: float) -> None:
        self._made = made
        self._timeout = timeout

    @classmethod
    async def make(cls, maker: Maker, path: Path, settings: Settings) -> Self:
        """Raises ConfigError where it returns what is not needed, StackError where it fails."""
        limit = settings.start_timeout
        try:
            async with asyncio.timeout(limit):
                made = await maker(settings.kafka_url, settings.redis_url, settings.topic)
        except TimeoutError as error:
            raise StackError(f"make_publisher of {path} did not end within {limit:g} s") from error
        except Exception as error:
            raise StackError(f"make_publisher of {path} failed: {_located(error, path)}") from error
        if not inspect.iscoroutinefunction(getattr(made, "publish_batch", None)):
            raise ConfigError(
                f"--publisher: make_publisher of {path} returned {made!r}, which has no "
                f"async publish_batch; {_NEED}"
            )
        return cls(made, settings.delivery_timeout)

    async def publish(self, event: Event) -> None:
        """As a batch of one."""
        await self.publish_batch([event])

    async def publish_batch(self, events: Sequence[Event]) -> None:
        """Whatever it raises is a PublishError here."""
        try:
            async with asyncio.timeout(self._timeout) as deadline:
                await self._made.publish_batch(events)
        except Exception as error:
            if deadline.expired():
                raise OutcomeUnknown(f"publish_batch did not end within {self._timeout:g} s") from error
            if isinstance(error, PublishError):
                raise
            raise PublishRejected(f"{type(error).__name__}: {error}") from error

    async def flush(self) -> None:
        """Every call has been answered, so there is nothing to wait for."""

    async def close(self) -> None:
        """Let it close, for a bounded time. What it raises changes nothing any more."""
        close = getattr(self._made, "close", None)
        if close is None:
            return
        with suppress(Exception):
            async with asyncio.timeout(self._timeout):
                ended = close()
                if inspect.isawaitable(ended):
                    await ended


def _located(error: BaseException, path: Path) -> str:
    """What happened, and on which line of the file."""
    places = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError):
        places.append((error.filename or "", error.lineno))
    lines = [line for file, line in places if file == str(path) and line]
    at = f"line {lines[-1]}: " if lines else ""
    return f"{at}{type(error).__name__}: {error}"
