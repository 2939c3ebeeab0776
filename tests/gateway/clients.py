"""Clients that nobody here wrote, and what they were told: `websockets`, and `curl`."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

Message = dict[str, Any]


class ReceivedMessages:
    """What a client was told, in order, and how it ended."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.ended = False
        self._received: defaultdict[str | None, list[str]] = defaultdict(list)
        self._news = asyncio.Event()

    def add(self, message: Message) -> None:
        self.messages.append(message)
        if message["kind"] == "event":
            for source in (None, message["source"]):
                self._received[source].append(message["id"])
        self._news.set()

    def end(self) -> None:
        self.ended = True
        self._news.set()

    async def until(self, condition: Callable[[], Any], *, timeout: float = 60) -> None:
        """Until it holds; it is asked whenever there is news."""
        try:
            async with asyncio.timeout(timeout):
                while not condition():
                    assert not self.ended, f"the connection ended after {self.messages[-3:]}"
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"not within {timeout} s; last: {self.messages[-3:]}") from None

    async def see(
        self, kind: str, source: str | None = None, *, count: int = 1, timeout: float = 60
    ) -> Message:
        """The ``count``-th message of a kind (about a source), now or later."""

        def found() -> list[Message]:
            return list(self.of(kind, source))

        await self.until(lambda: len(found()) >= count, timeout=timeout)
        return found()[count - 1]

    async def receive(self, count: int, source: str | None = None, *, timeout: float = 60) -> list[str]:
        """The ids of the events so far, once there are so many."""
        await self.until(lambda: len(self._received[source]) >= count, timeout=timeout)
        return self.ids(source)

    def of(self, kind: str, source: str | None = None) -> Iterator[Message]:
        return (
            message
            for message in self.messages
            if message["kind"] == kind and source in {None, message.get("source")}
        )

    def ids(self, source: str | None = None) -> list[str]:
        return list(self._received[source])

    @property
    def cursor(self) -> str:
        """The last that was given."""
        return next(message["cursor"] for message in reversed(self.messages) if "cursor" in message)


class Socket(ReceivedMessages):
    """A connection of the `websockets` package."""

    def __init__(self, socket: ClientConnection) -> None:
        super().__init__()
        self.socket = socket

    async def say(self, **message: object) -> None:
        await self.socket.send(json.dumps(message))

    async def listen(self) -> None:
        try:
            async for text in self.socket:
                self.add(json.loads(text))
        except ConnectionClosed:
            pass
        self.end()

    async def closed(self, *, timeout: float = 60) -> tuple[int | None, str | None]:
        """Code and reason, once it is closed."""
        async with asyncio.timeout(timeout):
            await self.socket.wait_closed()
        return self.socket.close_code, self.socket.close_reason

    def drop(self) -> None:
        """Be gone without a word."""
        self.socket.transport.abort()


@asynccontextmanager
async def joined(
    url: str, *sources: str, since: str | None = None, wait: bool = True, **options: Any
) -> AsyncIterator[Socket]:
    """A WebSocket client of these sources; ``wait``: until it is told that it is subscribed to all."""
    query = [("source", source) for source in sources] + ([("since", since)] if since else [])
    options = {"max_queue": None, "compression": None, "proxy": None} | options
    async with connect(f"{url}?{urlencode(query)}" if query else url, **options) as made:
        socket = Socket(made)
        task = asyncio.create_task(socket.listen())
        try:
            for source in sources if wait else ():
                await socket.see("subscribed", source)
            yield socket
        finally:
            made.transport.abort()
            await asyncio.wait([task])


class Answer(NamedTuple):
    """What `curl` got."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def curl(url: str, *arguments: str) -> Answer:
    """One request; its answer must be whole and valid HTTP."""
    process = await asyncio.create_subprocess_exec(
        *("curl", "-sS", "--max-time", "30", "-o", "-", "-D", "/dev/stderr", *arguments, url),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    body, head = await process.communicate()
    assert process.returncode == 0, (process.returncode, head)
    status, *lines = head.decode().strip().split("\r\n\r\n")[-1].split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return Answer(int(status.split()[1]), headers, body)


class Stream(ReceivedMessages):
    """`curl -N` on /sse. ``heads``: (event, id) of each message. ``comments``: their count."""

    def __init__(self) -> None:
        super().__init__()
        self.heads: list[tuple[str, str | None]] = []
        self.comments = 0

    async def listen(self, lines: asyncio.StreamReader) -> None:
        fields: dict[str, str] = {}
        async for raw in lines:
            line = raw.decode().rstrip("\n")
            if line.startswith(":"):
                self.comments += 1
                self._news.set()
            elif line:
                name, _, value = line.partition(": ")
                assert name not in fields, f"{name} twice in one event"
                fields[name] = value
            elif "data" in fields:
                self.heads.append((fields["event"], fields.get("id")))
                self.add(json.loads(fields["data"]))
                fields = {}
            else:
                fields = {}
        self.end()

    @property
    def last_id(self) -> str:
        """What an EventSource would send as Last-Event-ID."""
        return next(name for _, name in reversed(self.heads) if name is not None)


@asynccontextmanager
async def streaming(
    url: str, *sources: str, since: str | None = None, wait: bool = True, options: tuple[str, ...] = ()
) -> AsyncIterator[Stream]:
    """`curl -N` on these sources."""
    query = [("source", source) for source in sources] + ([("since", since)] if since else [])
    process = await asyncio.create_subprocess_exec(
        *("curl", "-sSN", "--max-time", "100", *options, f"{url}/sse?{urlencode(query)}"),
        stdout=asyncio.subprocess.PIPE,
        limit=2**24,
    )
    assert process.stdout is not None
    stream = Stream()
    task = asyncio.create_task(stream.listen(process.stdout))
    try:
        for source in sources if wait else ():
            await stream.see("subscribed", source)
        yield stream
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await asyncio.wait([task])


def escaped(text: str | bytes) -> str:
    """For a URL's query."""
    return quote(text, safe="")


async def until_status(url: str, status: int) -> Answer:
    """The answer, which has this status."""
    answer = await curl(url)
    assert answer.status == status, answer
    return answer
