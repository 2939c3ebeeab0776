"""The processes of a run: each reads its task from its argument, and talks in lines of JSON.

A child says ``{"ready": …}``, then ``{"done": …}``, or ``{"error": …}`` and ends. It is told ``start NS``
and ``stop``; the end of its stdin, which is what a dead parent leaves behind, means ``stop``, too.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from dualstream_lab import errors
from dualstream_lab.errors import DualStreamError, StackError

_LINE = 1 << 20
_CHANNEL = sys.stdout  # kept: what a user's code prints may go elsewhere


class Child:
    """A process of a run, as its parent sees it. Leaving the ``async with`` block kills it.

    ``module``: what is run with ``python -m``; ``name``: for messages and for its log in ``directory``.
    """

    def __init__(self, module: str, name: str, task: dict[str, Any], directory: Path) -> None:
        self._module = module
        self._task = task
        self._log = directory / f"{name}.log"
        self.name = name
        self._process: asyncio.subprocess.Process

    async def __aenter__(self) -> Self:
        with self._log.open("ab") as log:
            # In a session of its own: Ctrl-C is for the parent, which then says `stop`.
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", self._module, json.dumps(self._task), stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE, stderr=log, limit=_LINE, start_new_session=True,
            )  # fmt: skip
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()
        await self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
            with suppress(OSError):
                await self._process.stdin.wait_closed()
        if not self._log.stat().st_size:
            self._log.unlink()

    @property
    def pid(self) -> int:
        """The process id of the child."""
        return self._process.pid

    def send(self, order: str) -> None:
        """Send an order to the child; nothing where it has ended."""
        if self._process.stdin is not None and self._process.returncode is None:
            with suppress(OSError):
                self._process.stdin.write(order.encode() + b"\n")

    async def expect(self, word: str, timeout: float) -> Any:
        """Wait for its message ``word``. Raises what it tells, or StackError if it ends or is late."""
        assert self._process.stdout is not None  # noqa: S101
        try:
            async with asyncio.timeout(timeout):
                line = await self._process.stdout.readline()
                code = None if line else await self._process.wait()
        except TimeoutError as error:
            silent = f"the {self.name} process said nothing for {timeout:g} s; see {self._log}"
            raise StackError(silent) from error
        if not line:
            raise StackError(f"the {self.name} process ended with exit code {code}; see {self._log}")
        message = json.loads(line)
        if "error" in message:
            kind = getattr(errors, message["type"], StackError)
            raise kind(message["error"])
        return message[word]


class Orders:
    """The orders that a child gets from its parent, by its stdin."""

    def __init__(self, stdin: asyncio.StreamReader) -> None:
        self._stdin = stdin
        self._reading: asyncio.Task[bytes] | None = None
        self.stopped = asyncio.Event()

    async def started(self) -> int | None:
        """Wait for ``start NS``; the time, or None when told to stop instead."""
        line = (await self._stdin.readline()).decode().split()
        if len(line) == 2 and line[0] == "start":
            self._reading = asyncio.create_task(self._stdin.readline())
            self._reading.add_done_callback(lambda _: self.stopped.set())
            return int(line[1])
        self.stopped.set()
        return None

    async def next(self) -> str:
        """Wait for an order of any kind, by a parent that gives many; empty when there is no more parent."""
        return (await self._stdin.readline()).decode().strip()


def say(**message: object) -> None:
    """Send a line of JSON to the parent process."""
    print(json.dumps(message), file=_CHANNEL, flush=True)


def serve(main: Callable[[dict[str, Any], Orders], Awaitable[dict[str, Any]]]) -> None:
    """Run a child: ``main(task, orders)`` returns what is said as ``done``."""
    import uvloop  # noqa: PLC0415

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # its retries in an outage are ours to count

    async def run() -> None:
        stdin = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
        say(done=await main(json.loads(sys.argv[1]), Orders(stdin)))

    try:
        uvloop.run(run())
    except DualStreamError as error:
        say(error=str(error), type=type(error).__name__)
    except OSError as error:
        say(error=f"{error.strerror or error}", type="StackError")


def settle_memory(collections: tuple[int, int, int] = (20_000, 20, 100)) -> None:
    """What was made so far lives as long as the run: keep the collector from walking it again and again.

    What is made for each event is gone soon, and has no cycles: looking through it after every 700 objects,
    as Python does, costs a tenth of the throughput. ``collections``: as :func:`gc.set_threshold` has them.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*collections)
