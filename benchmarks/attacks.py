"""What is thrown at a gateway and an ingester, from a process of its own: ``python -m benchmarks.attacks``.

Everything goes to loopback, for a time that is given, with a number of connections that is given.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import random
import re
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import urlencode

from redis.asyncio import Redis

from dualstream_lab.load.subscriber import allow_connections

__all__ = ["ATTACKS", "Harvest", "Target", "ask_silently", "drop_at_random"]

_ANSWER = 10.0  # s
_PER_SECOND = 500
_COMING = 250  # clients of a crowd a second: of one in twenty the past is 10,000 events
_SMALL_BUFFER = 4096  # bytes of a socket that nobody reads
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3})")
_Address = tuple[str, int]


@dataclass(frozen=True)
class Target:
    """Whom to attack, for how long (s), and with what. ``token``: one that is valid, for ``repo:abuse/*``."""

    gateway: _Address
    ingester: _Address
    redis_url: str
    channel: str
    token: str
    seconds: float
    clients: int
    silent: int
    drops: int


@dataclass
class Harvest:
    """How much was thrown, and what came back."""

    connections: int = 0
    requests: int = 0
    frames: int = 0
    answers: Counter[str] = field(default_factory=Counter)

    def take(self, data: bytes) -> None:
        """Count the answers in what a server sent."""
        self.answers.update(found.decode() for found in _STATUS.findall(data))


_Attack = Callable[[Target, Harvest, float], Awaitable[None]]


async def _send(address: _Address, data: bytes, harvest: Harvest, *, wait: float = _ANSWER) -> bytes:
    """Bytes on a connection of their own, and what comes back until it ends or nothing comes for a while."""
    harvest.connections += 1
    answer = b""
    with suppress(OSError, TimeoutError):
        reader, writer = await asyncio.open_connection(*address)
        try:
            writer.write(data)
            async with asyncio.timeout(wait):
                while piece := await reader.read(2**16):
                    answer += piece
                    if b"\r\n\r\n" in answer:
                        break
        finally:
            writer.transport.abort()
    harvest.take(answer)
    return answer


def _socket(*, silent: bool) -> socket.socket:
    """For who asks by hand; ``silent``: little fits into what nobody reads."""
    raw = socket.socket()
    raw.setblocking(False)
    if silent:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BUFFER)
    return raw


async def ask_silently(address: _Address, path: str, token: str = "") -> socket.socket:
    """The connection of a client that asks for a WebSocket or a stream, and reads nothing."""
    raw = _socket(silent=True)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(raw, address)
    await loop.sock_sendall(raw, _upgrade(path, token))
    return raw


def _head(path: str, *, method: str = "GET", length: int | None = None, **headers: str) -> bytes:
    given = {"Host": "127.0.0.1"} | {name.replace("_", "-"): value for name, value in headers.items()}
    if length is not None:
        given |= {"Content-Length": str(length)}
    lines = "".join(f"{name}: {value}\r\n" for name, value in given.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1")


def _upgrade(path: str, token: str) -> bytes:
    return _head(
        path,
        Upgrade="websocket",
        Connection="Upgrade",
        Sec_WebSocket_Version="13",
        Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZQ==",
        Authorization=f"Bearer {token}",
    )


def _frame(body: bytes, *, first: int = 0x81) -> bytes:
    """A frame of a client's, masked with zeros."""
    if len(body) < 126:
        length = bytes([0x80 | len(body)])
    else:
        length = bytes([0x80 | 126]) + struct.pack(">H", len(body))
    return bytes([first]) + length + bytes(4) + body


def _mutated(data: bytes, chance: random.Random) -> bytes:
    """The bytes with some of them changed, left out, doubled or made many."""
    made = bytearray(data)
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(made)) if made else 0
        kind = chance.randrange(5)
        if kind == 0 and made:
            made[at] = chance.randrange(256)
        elif kind == 1:
            made[at:at] = bytes(chance.choices(range(256), k=chance.randint(1, 8)))
        elif kind == 2:
            del made[at : at + chance.randint(1, 20)]
        elif kind == 3:
            made[at:at] = made[at : at + 40]
        else:
            made[at:at] = chance.choice([b"\r\n", b"\0", b"\xff", b"9" * 300, b"%00", b"{", b"[" * 50])
    return bytes(made)


async def _many(count: int, until: float, one: Callable[[random.Random], Awaitable[object]]) -> None:
    """So many at once, again and again: some 500 a second at most.

    A flood that takes all of a core is for what stands before a gateway to stop: this gets through.
    """

    async def worker(seed: int) -> None:
        chance = random.Random(seed)
        while time.monotonic() < until:
            await one(chance)
            await asyncio.sleep(count / _PER_SECOND)

    await asyncio.gather(*map(worker, range(count)))


# --- one after the other


async def compressed(target: Target, harvest: Harvest, until: float) -> None:
    """Bodies that are small, and large when unpacked."""
    body = gzip.compress(bytes(64 * 2**20), 9)

    async def one(chance: random.Random) -> None:
        path = chance.choice(["/ingest", "/ingest/github"])
        coding = chance.choice(["gzip", "deflate", "br", "zstd", "x"])
        head = _head(path, method="POST", length=len(body), Content_Encoding=coding)
        harvest.requests += 1
        await _send(target.ingester, head + body, harvest)

    await _many(8, until, one)


async def slow_bodies(target: Target, harvest: Harvest, until: float) -> None:
    """Bodies of those who may not send any, and of one who may, byte by byte."""

    async def one(chance: random.Random) -> None:
        harvest.connections += 1
        harvest.requests += 1
        signature = {"X_Hub_Signature_256": "sha256=" + "0" * 64, "X_GitHub_Event": "push"}
        mine = {"Authorization": f"Bearer {target.token}", "Content_Type": "application/json"}
        path, headers = chance.choice([("/ingest/github", signature), ("/ingest", mine)])
        with suppress(OSError):
            reader, writer = await asyncio.open_connection(*target.ingester)
            writer.write(_head(path, method="POST", length=10**6, **headers))
            while time.monotonic() < until:
                writer.write(b" ")
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.5):
                        answer = await reader.read(2**16)
                        harvest.take(answer)
                        break
            writer.transport.abort()

    await _many(200, until, one)


async def slow_heads(target: Target, harvest: Harvest, until: float) -> None:
    """Requests that never come to the end of their head."""

    async def one(chance: random.Random) -> None:
        harvest.connections += 1
        harvest.requests += 1
        with suppress(OSError):
            address = chance.choice([target.gateway, target.ingester])
            reader, writer = await asyncio.open_connection(*address)
            writer.write(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n")
            while time.monotonic() < until:
                writer.write(b"X-Pad: %04000d\r\n" % chance.randrange(9))
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.5):
                        harvest.take(await reader.read(2**16))
                        break
            writer.transport.abort()

    await _many(300, until, one)


async def drop_at_random(
    address: _Address, seed: int, sources: list[str], *, token: str = "", longest: float = 0.2
) -> None:
    """Connect, ask for something, and be gone within some milliseconds."""
    chance = random.Random(seed)
    wanted = urlencode([("source", source) for source in sources])
    kind = chance.choice(["ws", "ws commands", "sse", "events"])
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with suppress(OSError):
        _reader, writer = await asyncio.open_connection(*address)
        if kind.startswith("ws"):
            writer.write(_upgrade("/ws" + (f"?{wanted}" if kind == "ws" else ""), token))
        elif kind == "sse":
            writer.write(_head(f"/sse?{wanted}&since=earliest", **headers))
        else:
            writer.write(_head(f"/events?source={sources[0]}", **headers))
        if kind == "ws commands":
            for source in sources:
                command = chance.choice(["subscribe", "subscribe", "unsubscribe"])
                writer.write(_frame(json.dumps({command: source}).encode()))
        await asyncio.sleep(chance.random() ** 4 * longest)
        if kind.startswith("ws") and chance.random() < 0.5:
            # It says goodbye, and is gone before the answer: its handler is cancelled while it ends.
            writer.write(_frame(b"\x03\xe8", first=0x88))
            await asyncio.sleep(chance.random() ** 4 * longest / 10)
        if chance.random() < 0.5:
            writer.transport.abort()
        else:
            writer.close()
        with suppress(Exception):
            await writer.wait_closed()


async def drops(target: Target, harvest: Harvest, _until: float) -> None:
    """Clients that connect, subscribe, and are gone: a number of them, however long it takes."""
    names = [f"repo:abuse/{number}" for number in range(50)]
    numbers = iter(range(target.drops))

    async def worker() -> None:
        for number in numbers:
            harvest.connections += 1
            sources = random.Random(number).sample(names, 3)
            await drop_at_random(target.gateway, number, sources, token=target.token)
            await asyncio.sleep(30 / _PER_SECOND)

    await asyncio.gather(*(worker() for _ in range(30)))


async def crowd(target: Target, harvest: Harvest, until: float) -> None:
    """As many clients as there are places; of these some want all of the past and more, and never read."""
    open_: list[socket.socket] = []
    loop = asyncio.get_running_loop()
    gate = asyncio.Semaphore(20)

    async def connect(number: int) -> None:
        silent = number % (target.clients // target.silent) == 0
        wanted = "source=repo:abuse/history&since=earliest" if silent else f"source=repo:abuse/{number % 50}"
        raw = _socket(silent=silent)
        open_.append(raw)
        path = f"/sse?{wanted}" if silent and number % 2 else f"/ws?{wanted}"
        async with gate:
            harvest.connections += 1
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(_ANSWER):
                    await loop.sock_connect(raw, target.gateway)
                    await loop.sock_sendall(raw, _upgrade(path, target.token))
                    if not silent:
                        harvest.take(await loop.sock_recv(raw, 2**12))

    try:
        for number in range(target.clients):
            if number % 10 == 0:
                await asyncio.sleep(10 / _COMING)
            if time.monotonic() > until:
                break
            await connect(number)
        await asyncio.sleep(max(0.0, until - time.monotonic()))
    finally:
        for raw in open_:
            raw.close()


async def crowd_again(target: Target, harvest: Harvest, until: float) -> None:
    """The same once more: what is still there of the first one would come on top."""
    await crowd(target, harvest, until)


async def large_pages(target: Target, harvest: Harvest, until: float) -> None:
    """Pages of megabytes, which are not read."""

    async def one(_chance: random.Random) -> None:
        harvest.connections += 1
        harvest.requests += 1
        raw = _socket(silent=True)
        loop = asyncio.get_running_loop()
        headers = {"Authorization": f"Bearer {target.token}"}
        query = "/events?source=repo:abuse/large&since=earliest&limit=1000"
        with suppress(OSError, TimeoutError):
            await loop.sock_connect(raw, target.gateway)
            await loop.sock_sendall(raw, _head(query, **headers))
            async with asyncio.timeout(3):
                harvest.take(await loop.sock_recv(raw, 2**10))
            await asyncio.sleep(1)
        raw.close()

    await _many(60, until, one)


_REQUESTS = (
    _head("/events?source=repo:abuse/1&since=earliest&limit=10"),
    _head("/events/abc?source=repo:abuse/1&pos=1:1"),
    _head("/sse?source=repo:abuse/1", Last_Event_ID="abc:1:2"),
    _head("/metrics", Origin="http://[", Authorization="Bearer abc"),
    _head("/ingest", method="POST", length=7, Content_Type="application/json") + b'{"a":1}',
    _head("/ingest", method="POST", Transfer_Encoding="chunked") + b'5\r\n{"a":\r\n0\r\n\r\n',
    _head("/ingest/github", method="POST", length=2, X_Hub_Signature_256="sha256=00") + b"{}",
    _head("/ws?source=repo:abuse/1&since=earliest", Upgrade="websocket", Connection="Upgrade"),
)


async def malformed_requests(target: Target, harvest: Harvest, until: float) -> None:
    """Requests with a few bytes wrong."""

    async def one(chance: random.Random) -> None:
        request = chance.choice(_REQUESTS)
        if chance.random() < 0.5:  # beyond the token
            request = request.replace(b"\r\n", b"\r\nAuthorization: Bearer %s\r\n" % target.token.encode(), 1)
        harvest.requests += 1
        address = target.ingester if b"/ingest" in request else target.gateway
        await _send(address, _mutated(request, chance), harvest, wait=0.3)

    await _many(10, until, one)


_COMMANDS = (
    b'{"subscribe":"repo:abuse/1","since":"earliest"}',
    b'{"unsubscribe":"repo:abuse/1"}',
    b'{"subscribe":"repo:abuse/2","since":"0123456789ab:0:1~1:2"}',
    b'{"token":"abc"}',
)


async def malformed_frames(target: Target, harvest: Harvest, until: float) -> None:
    """WebSocket frames with a few bytes wrong."""

    async def one(chance: random.Random) -> None:
        frames = [_frame(chance.choice(_COMMANDS)) for _ in range(20)]
        wrong = [_mutated(frame, chance) if chance.random() < 0.3 else frame for frame in frames]
        harvest.frames += len(frames)
        await _send(target.gateway, _upgrade("/ws", target.token) + b"".join(wrong), harvest)

    await _many(10, until, one)


async def forged_tokens(target: Target, harvest: Harvest, until: float) -> None:
    """Tokens that are none, or not the issuer's."""
    head, body, signature = target.token.split(".")

    def part(**claims: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")

    async def one(chance: random.Random) -> None:
        token = chance.choice(
            [
                f"{part(alg='none', typ='JWT')}.{body}.",
                f"{head}.{part(exp=10**400, read=['*'])}.{signature}",
                f"{part(alg='HS256', kid='../../x')}.{body}.{signature}",
                _mutated(target.token.encode(), chance).decode("latin-1").replace("\r", "").replace("\n", ""),
                "." * 3000,
            ]
        )
        path = chance.choice(["/events?source=repo:abuse/1", "/metrics", "/sse?source=repo:abuse/1"])
        harvest.requests += 1
        await _send(target.gateway, _head(path, Authorization=f"Bearer {token}"), harvest)

    await _many(10, until, one)


async def forged_notifications(target: Target, harvest: Harvest, until: float) -> None:
    """What anybody may say on Redis: of positions that do not exist, of other logs, or nothing at all."""
    async with Redis.from_url(target.redis_url) as redis:

        async def one(chance: random.Random) -> None:
            said: dict[str, object] = {
                "id": f"forged-{chance.randrange(10**9)}",
                "type": "push",
                "source_id": "abuse/1",
                "log": chance.choice(["0" * 12, "x", 7]),
                "pos": chance.choice(["0:1000000000000000", "99:1", "x", 5]),
                "pub": chance.randrange(10**6),
            }
            body = json.dumps(said).encode()
            with suppress(OSError):
                await redis.publish(target.channel, _mutated(body, chance) if chance.random() < 0.5 else body)
            harvest.requests += 1

        await _many(5, until, one)


async def subscriptions(target: Target, harvest: Harvest, until: float) -> None:
    """One bearer that follows, and does not follow, a hundred sources, as quickly as it can."""

    async def one(chance: random.Random) -> None:
        harvest.connections += 1
        commands = []
        for _ in range(200):
            command = chance.choice(["subscribe", "unsubscribe"])
            said = {command: f"repo:abuse/{chance.randrange(100)}"} | (
                {"since": "earliest"} if command == "subscribe" else {}
            )
            commands.append(_frame(json.dumps(said).encode()))
        harvest.frames += len(commands)
        await _send(target.gateway, _upgrade("/ws", target.token) + b"".join(commands), harvest)
        await asyncio.sleep(0.2)

    await _many(10, until, one)


ATTACKS: dict[str, _Attack] = {
    attack.__name__: attack
    for attack in (
        compressed,
        slow_bodies,
        slow_heads,
        drops,
        large_pages,
        malformed_requests,
        malformed_frames,
        forged_tokens,
        forged_notifications,
        subscriptions,
        crowd,
        crowd_again,
    )
}


async def _main(name: str, target: Target) -> None:
    harvest = Harvest()
    await ATTACKS[name](target, harvest, time.monotonic() + target.seconds)
    print(json.dumps(vars(harvest)))


if __name__ == "__main__":
    given = json.loads(sys.argv[2])
    given |= {name: tuple(given[name]) for name in ("gateway", "ingester")}
    target = Target(**given)
    allow_connections(target.clients)
    asyncio.run(_main(sys.argv[1], target))
