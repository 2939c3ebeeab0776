"""`dualstream serve` in processes of its own: started, paused, killed, and always ended."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from dualstream_lab.config import ServeSettings
from dualstream_lab.lab.serve import serve
from dualstream_lab.stack import LocalStack, ManagedProcess
from dualstream_lab.stack.ports import HOST, free_ports
from dualstream_lab.store import SqliteStore

SECRET = "a secret of the tests, long enough for every algorithm that signs with one"
CHECK = 1.0  # s: check_interval of the gateways of most tests
# Set in the process before it serves, where a test would wait too long: {"gateway.endpoints._KEEP_ALIVE": 1}.
Constants = Mapping[str, float]

_PROGRAM = """
import sys
from importlib import import_module
for constant in sys.argv.pop(1).split():
    name, _, value = constant.partition("=")
    module, _, attribute = name.rpartition(".")
    module = import_module(f"dualstream_lab.{module}")
    assert hasattr(module, attribute), name
    setattr(module, attribute, float(value))
from dualstream_lab.cli import main
main()
"""


def command(*arguments: str, constants: Constants | None = None, **settings: object) -> list[str]:
    """What runs `dualstream` with these arguments and settings, and no others."""
    environment = [f"DUALSTREAM_{name.upper()}={value}" for name, value in settings.items()]
    patches = " ".join(f"{name}={value}" for name, value in (constants or {}).items())
    return [
        *("env", *environment, "PYTHONFAULTHANDLER=1"),
        *(sys.executable, "-c", _PROGRAM, patches, *arguments),
    ]


class Server:
    """Some parts of the delivery side in one process. ``url`` is empty where none of them speaks HTTP."""

    def __init__(self, process: ManagedProcess, url: str) -> None:
        self.process = process
        self.url = url

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        host, _, port = self.url.rpartition("/")[2].rpartition(":")
        return host, int(port)

    @property
    def ws(self) -> str:
        """Where WebSockets connect."""
        return self.url.replace("http", "ws", 1) + "/ws"

    @property
    def memory(self) -> int:
        """Resident bytes."""
        return int(psutil.Process(self.process.pid).memory_info().rss)

    async def start(self) -> None:
        """(Again), on the same port."""
        self.process.launch()
        await asyncio.to_thread(self.process.wait_ready)

    def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        self.process.kill()

    async def pause(self) -> None:
        """SIGSTOP; returns when it stands still."""
        self.process.pause()
        await until(lambda: psutil.Process(self.process.pid).status() == psutil.STATUS_STOPPED)

    async def end(self) -> None:
        """SIGTERM; returns when it is gone."""
        await asyncio.to_thread(self.process.stop)


class Delivery:
    """The processes of one topic and store. ``common``: settings of all. As a context: all end with it."""

    def __init__(self, stack: LocalStack, topic: str, **common: object) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="dualstream-serving-"))
        self.where: dict[str, object] = {
            "kafka_url": stack.kafka_url,
            "redis_url": stack.redis_url,
            "topic": topic,
            "group": topic,
            "store": self.directory / "store.db",
        }
        self._common = common
        self._servers: list[Server] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self._servers:
            server.process.kill()
        if error is not None:
            for server in self._servers:
                print(f"--- {server.process.name}\n{server.process.log_text()[-3000:]}")
        shutil.rmtree(self.directory, ignore_errors=True)

    def assert_no_traceback(self) -> None:
        """Whatever was done to gateways, nothing surprised them. (Processors have aiokafka's own words.)"""
        for server in filter(lambda server: server.url, self._servers):
            text = server.process.log_text()
            assert "Traceback" not in text, f"{server.process.name}: {text[-3000:]}"

    def make(
        self, *parts: str, constants: Constants | None = None, flags: Sequence[str] = (), **settings: object
    ) -> Server:
        """Parts that are not started yet."""
        (port,) = free_ports(1)
        number = len(self._servers)
        http = {"gateway", "ingester"} & set(parts)
        only = [word for part in parts for word in ("--only", part)]
        process = ManagedProcess(
            name=f"{'+'.join(parts)} {number}",
            command=command(
                *("serve", *only, *flags, "--listen", f"{HOST}:{port}"),
                constants=constants,
                **(self.where | self._common | settings),
            ),
            log=self.directory / f"{number}.log",
            ready=lambda text: "\nCtrl-C ends it" in text,
            explain=lambda text: text[-2000:],
        )
        server = Server(process, f"http://{HOST}:{port}" if http else "")
        self._servers.append(server)
        return server

    def start(
        self, *parts: str, constants: Constants | None = None, flags: Sequence[str] = (), **settings: object
    ) -> Server:
        """Parts that serve. Blocks."""
        server = self.make(*parts, constants=constants, flags=flags, **settings)
        server.process.start()
        return server

    def launch(self, *servers: Server) -> None:
        """Start them side by side. Blocks."""
        for server in servers:
            server.process.launch()
        for server in servers:
            server.process.wait_ready()


async def until(condition: Callable[[], Any], *, timeout: float = 60) -> None:
    """Poll for what cannot be awaited."""
    async with asyncio.timeout(timeout):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def until_so(ask: Callable[[], Awaitable[object]], wanted: object, *, timeout: float = 60) -> None:
    """Ask until the answer is this."""
    answer: object = None
    try:
        async with asyncio.timeout(timeout):
            while (answer := await ask()) != wanted:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"{answer!r}, not {wanted!r}, after {timeout} s") from None


def serve_settings(stack: LocalStack, topic: str, directory: Path, **more: object) -> ServeSettings:
    """For :func:`served`: a port and a store of its own, on the stack."""
    (port,) = free_ports(1)
    return ServeSettings.load(
        kafka_url=stack.kafka_url,
        redis_url=stack.redis_url,
        topic=topic,
        store=directory / "store.db",
        listen=f"{HOST}:{port}",
        **more,
    )


@asynccontextmanager
async def served(settings: ServeSettings, *parts: str) -> AsyncIterator[str]:
    """Parts in this very loop, which can be looked into; its URL."""
    store = await SqliteStore.open(settings.store)
    await store.close()
    url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    running = asyncio.create_task(serve(settings, parts, started=url.set_result, until=stop))
    try:
        await asyncio.wait([running, url], return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
        yield await url
    finally:
        stop.set()
        await asyncio.wait([running])
