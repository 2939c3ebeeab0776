"""A gateway of the lab's own: ``dualstream serve`` with another tick, and what it says of itself."""

from __future__ import annotations

import sys
import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from dualstream_lab.errors import StreamUnavailable
from dualstream_lab.stack import ManagedProcess
from dualstream_lab.stack.ports import HOST, free_ports
from dualstream_lab.tasks import in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from dualstream_lab.config import Settings

__all__ = ["Served", "served"]

_ANSWER: Final = 10.0  # s


@dataclass(frozen=True, slots=True)
class Served:
    """``url``: its base URL."""

    process: ManagedProcess
    url: str

    async def counters(self) -> dict[str, float]:
        """Its metrics without labels, by name. Raises StreamUnavailable."""
        timeout = aiohttp.ClientTimeout(total=_ANSWER)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.get(f"{self.url}/metrics") as answer,
            ):
                text = await answer.text()
        except (aiohttp.ClientError, OSError) as error:
            raise StreamUnavailable(f"the gateway does not give its metrics: {error}") from error
        families = text_string_to_metric_families(text)
        return {sample.name: sample.value for family in families for sample in family.samples}


@asynccontextmanager
async def served(settings: Settings, *, tick: float) -> AsyncIterator[Served]:
    """Ingester, processor and gateway in one process, until the block is left. Raises StackError."""
    (port,) = free_ports(1)
    with tempfile.TemporaryDirectory(prefix="dualstream-", ignore_cleanup_errors=True) as directory:
        process = ManagedProcess(
            name="dualstream serve",
            command=[
                *("env", f"DUALSTREAM_TICK={tick}"),
                *(sys.executable, "-m", "dualstream_lab.cli", "serve", "--listen", f"{HOST}:{port}"),
                *("--kafka", str(settings.kafka_url), "--redis", str(settings.redis_url)),
                *("--topic", settings.topic, "--store", str(Path(directory) / "events.db")),
            ],
            log=Path(directory) / "serve.log",
            ready=lambda text: "Ctrl-C ends it" in text,
            explain=lambda text: text[-1000:].strip() or "it said nothing",
        )
        try:
            await in_thread(process.start)
            yield Served(process, f"http://{HOST}:{port}")
        finally:
            await in_thread(process.stop)
