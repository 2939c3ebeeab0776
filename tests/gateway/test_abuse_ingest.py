"""What is thrown at an ingester by whoever may and may not write: the others' events go on.

A real `dualstream serve --only ingester` each, over real sockets. Bounds are small there, so that little is
enough to reach them; it is said where.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import hmac
import json
import time
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self
from uuid import uuid4

import jwt
import psutil
import pytest

from dualstream_lab.stack import LocalStack
from tests.gateway.serving import SECRET, Delivery, Server, until

HUSH = "the secret of the webhook"
JSON, LINES = "application/json", "application/x-ndjson"
EVENT = b'{"type":"push","source_type":"repo","source_id":"o/r","data":1}'
GIB = 2**30
KIB = 1024
PATIENCE = 1.0  # s, where it is shortened


@pytest.fixture(scope="module")
def delivery(stack: LocalStack) -> Iterator[Delivery]:
    topic = f"abuse-{uuid4().hex[:12]}"
    stack.create_topic(topic)
    with Delivery(stack, topic) as made:
        yield made
        made.assert_no_traceback()


@pytest.fixture(scope="module")
def guarded(delivery: Delivery) -> Server:
    """Wants tokens. 320 KiB of bodies, of which 64 each; 64 KiB of unverified webhooks, of which 8 each."""
    return delivery.start(
        "ingester",
        constants={"ingest.body._PATIENCE": PATIENCE, "ingest.body._OVERHEAD": KIB},
        jwt_secret=SECRET,
        github_secret=HUSH,
        max_body_bytes=64 * KIB,
        buffer_bytes=320 * KIB,
        max_webhook_bytes=8 * KIB,
    )


@pytest.fixture(scope="module")
def plain(delivery: Delivery) -> Server:
    """As it is, without tokens."""
    return delivery.start("ingester", github_secret=HUSH)


def token(name: str = "writer", *, life: float = 60, **claims: Any) -> str:
    content = {"exp": time.time() + life, "write": ["repo:o/*"], "sub": name} | claims
    return jwt.encode({key: value for key, value in content.items() if value is not None}, SECRET)


def signature(body: bytes) -> str:
    return "sha256=" + hmac.digest(HUSH.encode(), body, hashlib.sha256).hex()


def webhook(body: bytes, sign: str | None = None) -> dict[str, str]:
    """The headers of a delivery."""
    return {
        "X-Hub-Signature-256": sign or signature(body),
        "X-GitHub-Event": "push",
        "X-GitHub-Delivery": uuid4().hex,
    }


class Answer(NamedTuple):
    """What came back, and how many interim answers came before."""

    status: int
    headers: dict[str, str]
    body: dict[str, Any]
    interim: int


def head_of(path: str, length: int | None, *, method: str = "POST", **headers: str) -> bytes:
    """The head of a request; ``length`` None: its body comes in chunks."""
    given = {"Host": "127.0.0.1", "Content-Type": LINES}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    given |= {"Transfer-Encoding": "chunked"} if length is None else {"Content-Length": str(length)}
    lines = "".join(f"{name}: {value}\r\n" for name, value in given.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1")


class Wire:
    """A connection, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def to(cls, server: Server) -> Self:
        return cls(*await asyncio.open_connection(*server.address))

    def head(self, path: str, length: int | None, **more: str) -> None:
        """Send the head of a request."""
        self.writer.write(head_of(path, length, **more))

    async def answer(self, timeout: float = 10) -> Answer:
        """The next one that is final."""
        interim = -1
        status = 100
        async with asyncio.timeout(timeout):
            while status == 100:
                interim += 1
                first, *lines = (
                    (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
                )
                status = int(first.split()[1])
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            body = await self.reader.readexactly(int(headers["content-length"]))
        return Answer(status, headers, json.loads(body), interim)

    async def ended(self, timeout: float = 60) -> bool:
        """Whether the server ends it in time."""
        try:
            async with asyncio.timeout(timeout):
                return await self.reader.read() == b""
        except ConnectionError:
            return True
        except TimeoutError:
            return False

    async def push(self, seconds: float, piece: bytes = bytes(64 * KIB)) -> int:
        """Bytes that the other side takes in so long."""
        sent = 0
        try:
            async with asyncio.timeout(seconds):
                while True:
                    self.writer.write(piece)
                    await self.writer.drain()
                    sent += len(piece)
        except (TimeoutError, ConnectionError):
            return sent

    def drop(self) -> None:
        self.writer.transport.abort()


@asynccontextmanager
async def wires(server: Server, count: int = 1) -> AsyncIterator[list[Wire]]:
    made = await asyncio.gather(*(Wire.to(server) for _ in range(count)))
    try:
        yield made
    finally:
        for wire in made:
            wire.drop()


async def post(server: Server, path: str, body: bytes, **headers: str) -> Answer:
    """A whole request on a connection of its own."""
    async with wires(server) as (wire,):
        wire.head(path, len(body), **headers)
        wire.writer.write(body)
        return await wire.answer(timeout=60)


class Peak:
    """The most that a server's memory grows by while it is open."""

    def __init__(self, server: Server) -> None:
        self._directory = Path(f"/proc/{server.process.pid}")
        self.bytes = 0

    def __enter__(self) -> Self:
        (self._directory / "clear_refs").write_text("5")  # the peak begins anew
        self._before = self._most()
        return self

    def __exit__(self, *_: object) -> None:
        self.bytes = self._most() - self._before

    def _most(self) -> int:
        (line,) = (
            line for line in (self._directory / "status").read_text().splitlines() if line.startswith("VmHWM")
        )
        return int(line.split()[1]) * KIB


def by(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


@asynccontextmanager
async def undisturbed(server: Server, *, within: float = 5.0) -> AsyncIterator[list[float]]:
    """Somebody beside whom others misbehave: each of its events, and of its webhooks, is taken in time."""
    times: list[float] = []
    ended = asyncio.Event()  # not by cancelling it, as asyncio loses a connection that is just made then

    async def go_on() -> None:
        while not ended.is_set():
            for path, body, headers in (
                ("/ingest", EVENT, by(token("bystander"))),
                ("/ingest/github", PUSH, webhook(PUSH)),
            ):
                began = time.monotonic()
                answer = await post(server, path, body, **headers, Content_Type=JSON)
                assert answer.status == 202, answer
                times.append(time.monotonic() - began)
            await asyncio.sleep(0.05)

    task = asyncio.create_task(go_on())
    await until(lambda: len(times) >= 2 or task.done())
    times.clear()
    try:
        yield times
        seen = len(times)
        await until(lambda: len(times) > seen + 2 or task.done())
    finally:
        ended.set()
        await task
    assert max(times) < within, f"{max(times):.2f} s"


PUSH = b'{"repository":{"full_name":"o/r"}}'

# --- Compressed bodies


def bomb(packed: int) -> bytes:
    """So many bytes, which stand for a thousand times as many."""
    return gzip.compress(bytes(packed * 1000))


@pytest.mark.parametrize(
    "coding", ["gzip", "deflate", "br", "zstd", "GZip", "identity", "gzip, gzip", "x", "\xff", ""]
)
async def test_an_encoded_body_is_415_unread(guarded, coding):
    body = zlib.compress(EVENT)
    for path, headers in (
        ("/ingest", by(token())),
        ("/ingest", {}),
        ("/ingest/github", webhook(body)),
        ("/ingest/github", {}),
        ("/nowhere", {}),
    ):
        async with wires(guarded) as (wire,):
            wire.head(path, len(body), Content_Encoding=coding, **({"Content_Type": JSON} | headers))
            answer = await wire.answer()  # before a byte of the body has been sent
            assert answer.status == 415, (path, answer)
            assert "Content-Encoding" in answer.body["error"]
            assert await wire.ended()


async def test_what_is_refused_is_not_unpacked(guarded):
    """Forty times 64 KiB that stand for 64 MiB: unpacked, they take seconds of this core."""
    packed = bomb(64 * KIB)
    process = psutil.Process(guarded.process.pid)
    async with undisturbed(guarded), wires(guarded, 40) as many:
        before = sum(process.cpu_times()[:2])
        for number, wire in enumerate(many):
            path = "/ingest/github" if number % 2 else "/ingest"
            wire.head(path, len(packed), Content_Encoding="gzip", Content_Type=JSON)
            wire.writer.write(packed)
        said = await asyncio.gather(*(wire.answer() for wire in many))
        assert {answer.status for answer in said} == {415}
        assert all(await asyncio.gather(*(wire.ended() for wire in many)))
        assert sum(process.cpu_times()[:2]) - before < 1.0


# --- Refused, and ended


REFUSED: list[tuple[int, str, dict[str, str]]] = [
    (401, "/ingest", {}),
    (401, "/ingest", by("forged")),
    (401, "/ingest", by(token(life=-1))),
    (403, "/ingest", by(token(life=3600, write=[]))),
    (403, "/ingest", by(token(life=3600, write=None))),
    (413, "/ingest", by(token(life=3600))),
    (415, "/ingest", by(token(life=3600)) | {"Content_Type": "text/plain"}),
    (415, "/ingest", by(token(life=3600)) | {"Content_Encoding": "gzip"}),
    (417, "/ingest", by(token(life=3600)) | {"Expect": "a miracle"}),
    (400, "/ingest", {"Host": "["}),
    (400, "/ingest", {"Origin": "http://["}),
    (403, "/ingest", {"Origin": "https://evil.example"}),
    (401, "/ingest/github", {"Content_Type": JSON}),
    (401, "/ingest/github", webhook(b"") | {"Content_Type": JSON, "X-Hub-Signature-256": "sha256=x"}),
    (400, "/ingest/github", webhook(b"") | {"Content_Type": JSON, "X-GitHub-Event": ""}),
    (400, "/ingest/github", webhook(b"") | {"Content_Type": JSON, "X-GitHub-Delivery": "a b"}),
    (413, "/ingest/github", webhook(b"") | {"Content_Type": JSON}),
    (404, "/nowhere", {}),
    (405, "/healthz", {}),
]


@pytest.mark.parametrize(("status", "path", "headers"), REFUSED)
async def test_after_a_refusal_not_a_byte_more_is_read(guarded, status, path, headers):
    """The kernels hold some megabytes; whoever reads what it has refused takes hundreds in this time."""
    async with wires(guarded) as (wire,):
        wire.head(path, GIB, **headers)
        answer = await wire.answer()
        assert (answer.status, answer.headers["connection"]) == (status, "close")
        assert answer.body["error"]
        assert await wire.push(2.5) < 16 * 2**20
        assert await wire.ended()


async def test_whoever_waits_for_a_word_gets_it_only_when_its_body_is_wanted(guarded):
    async with wires(guarded, 2) as (refused, taken):
        refused.head("/ingest", len(EVENT), Expect="100-continue", Content_Type=JSON)
        answer = await refused.answer()
        assert (answer.status, answer.interim) == (401, 0)
        taken.head("/ingest", len(EVENT), Expect="100-Continue", Content_Type=JSON, **by(token()))
        await taken.reader.readuntil(b"100 Continue\r\n\r\n")
        taken.writer.write(EVENT)
        assert (await taken.answer()).status == 202


async def test_a_body_in_chunks_is_refused_as_soon_as_it_is_too_long(guarded):
    async with wires(guarded) as (wire,):
        wire.head("/ingest", None, **by(token()))
        chunk = b"%x\r\n%b\r\n" % (16 * KIB, bytes(16 * KIB))
        pushing = asyncio.create_task(wire.push(2.5, chunk))
        assert (await wire.answer()).status == 413
        assert await pushing < 16 * 2**20
        assert await wire.ended()


async def test_a_good_connection_is_kept(guarded):
    async with wires(guarded) as (wire,):
        for _ in range(3):
            wire.head("/ingest", len(EVENT), Content_Type=JSON, **by(token()))
            wire.writer.write(EVENT)
            assert (await wire.answer()).status == 202


# --- Slow bodies


@pytest.mark.parametrize("piece", [b"", b" " * 100])
async def test_a_body_that_comes_too_slowly_is_cut_off(guarded, piece):
    """The least is 1 KiB/s; 100 bytes every 0.2 s are half of that."""
    async with wires(guarded) as (wire,):
        wire.head("/ingest", 64 * KIB, **by(token()))
        began = time.monotonic()
        answering = asyncio.create_task(wire.answer())
        while not answering.done():
            wire.writer.write(piece)
            await asyncio.wait([answering], timeout=0.2)
        answer = await answering
        assert answer.status == 408
        assert "DUALSTREAM_MIN_BODY_RATE" in answer.body["allowed"]
        assert PATIENCE * 0.9 < time.monotonic() - began < PATIENCE * 4
        assert await wire.ended()


async def test_a_body_that_comes_as_quickly_as_it_must_is_taken(guarded):
    """3 KiB in 2 s, longer than anybody's patience for one that does not come."""
    async with wires(guarded) as (wire,):
        wire.head("/ingest", 10 * 300 + len(EVENT), **by(token()))
        for _ in range(10):
            wire.writer.write(b" " * 299 + b"\n")
            await asyncio.sleep(0.2)
        wire.writer.write(EVENT)
        assert (await wire.answer()).status == 202


# --- Budgets


async def hold(wire: Wire, path: str, size: int, limit: int, **headers: str) -> None:
    """Send so much of a body, and then go on just quickly enough, until it is answered."""
    wire.head(path, limit, **headers)
    wire.writer.write(b" " * size)
    try:
        for _ in range((limit - size) // 120):
            await wire.writer.drain()
            await asyncio.sleep(0.1)
            wire.writer.write(b" " * 120)
    except ConnectionError:
        pass


async def answers(many: list[Wire], timeout: float) -> list[int]:
    """The statuses of those that are answered in time."""
    tasks = [asyncio.create_task(wire.answer(timeout)) for wire in many]
    await asyncio.wait(tasks)
    return [task.result().status for task in tasks if task.exception() is None]


@pytest.mark.parametrize(("count", "size"), [(30, 6 * KIB), (100, 0)])
async def test_whoever_has_no_signature_keeps_nobody_waiting(guarded, count, size):
    """Slow webhooks with a wrong signature, more than there is room for of the unverified: large, or many."""
    wrong = webhook(b"", "sha256=" + "0" * 64) | {"Content_Type": JSON}
    async with undisturbed(guarded), wires(guarded, count) as many:
        holding = [asyncio.create_task(hold(wire, "/ingest/github", size, 8 * KIB, **wrong)) for wire in many]
        cut = await answers(many, 8)
        await asyncio.gather(*holding)
    assert set(cut) <= {401, 408, 503}
    assert cut.count(503) >= count // 2, "the oldest give way"


@pytest.mark.parametrize(("count", "size"), [(12, 55 * KIB), (600, 0)])
async def test_whoever_holds_the_most_gives_way(guarded, count, size):
    """Three tokens that want more than there is for ever, and a fourth that wants a little at once."""
    async with undisturbed(guarded), wires(guarded, count) as many:
        holding = [
            asyncio.create_task(hold(wire, "/ingest", size, 62 * KIB, **by(token(f"greedy {number % 3}"))))
            for number, wire in enumerate(many)
        ]
        cut = await answers(many, 4)
        for task in holding:
            task.cancel()
    assert set(cut) == {503}
    assert len(cut) >= count // 2


async def test_one_client_cannot_have_all(guarded):
    """Half of it is what one token gets: the second half stays for others, who then have all their time."""
    async with wires(guarded, 6) as many:
        for wire in many:
            wire.head("/ingest", 62 * KIB, **by(token("greedy")))
            wire.writer.write(b" " * 60 * KIB)
            await asyncio.sleep(0.05)
        assert await answers(many[:4], 5) == [503] * 4
        for wire in many[4:]:
            wire.writer.write(EVENT.rjust(2 * KIB))
        assert await answers(many[4:], 5) == [202] * 2


async def test_a_client_that_leaves_takes_its_bytes_along(guarded):
    for _ in range(5):
        async with wires(guarded, 5) as many:
            for wire in many:
                wire.head("/ingest", 62 * KIB, **by(token("leaving")))
                wire.writer.write(b" " * 30 * KIB)
                await wire.writer.drain()
    async with undisturbed(guarded):
        pass


# --- What a body is made of


async def test_a_body_of_nothing_is_short_work(plain):
    """32 MiB of line ends: each takes as long as an event, if it is taken for one."""
    process = psutil.Process(plain.process.pid)
    before = sum(process.cpu_times()[:2])
    async with undisturbed(plain):
        answer = await post(plain, "/ingest", b"\n" * 32 * 2**20)
    assert answer.status == 413
    assert "empty lines" in answer.body["error"]
    assert sum(process.cpu_times()[:2]) - before < 3


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (JSON, b"[" + b"1," * (2**19 - 2) + b"1]"),
        (JSON, b"[" + (EVENT + b",") * 5000 + b"1," * 350_000 + b"1]"),
        (JSON, b"[" * 2**20),
        (JSON, b'{"type":' * 2**17),
        (JSON, b'{"type":"push","source_type":"repo","source_id":"o/r","data":' + b"[" * 2**20),
        (LINES, b"[" * 2**20),
    ],
    ids=["ones", "ones at the end", "deep", "deep objects", "deep data", "deep line"],
)
async def test_what_is_small_stays_small(plain, kind, body):
    """Ten that end in one moment, of a mebibyte each: as objects they take thirty times that."""
    with Peak(plain) as peak:
        async with undisturbed(plain), wires(plain, 10) as many:
            for wire in many:
                wire.head("/ingest", len(body), Content_Type=kind)
                wire.writer.write(body[:-1])
                await wire.writer.drain()
            await asyncio.sleep(0.2)
            for wire in many:
                wire.writer.write(body[-1:])
            said = await asyncio.gather(*(wire.answer() for wire in many))
    assert {answer.status for answer in said} <= {400, 422}
    assert peak.bytes < 100 * 2**20, f"{peak.bytes:,}"


async def test_many_events_of_many_sources_take_little_more_than_their_bytes(plain):
    """The smallest events, each of its own source; one is bad, so that none is sent."""
    lines = [b'{"type":"a","source_type":"a","source_id":"%d"}' % number for number in range(300_000)]
    body = b"\n".join([*lines, b"{"])
    with Peak(plain) as peak:
        answer = await post(plain, "/ingest", body)
    assert answer.status == 400, answer
    assert peak.bytes < 3 * len(body), f"{peak.bytes / len(body):.1f}"


# --- Rates


@pytest.fixture
async def limited(delivery: Delivery) -> AsyncIterator[Server]:
    """Five requests and fifty events a second for each token."""
    server = delivery.make("ingester", jwt_secret=SECRET, ingest_request_rate=5, ingest_event_rate=50)
    await server.start()
    yield server
    await server.end()


async def test_requests_and_events_of_a_token_have_their_rate(limited):
    async def send(name: str, count: int) -> Answer:
        return await post(limited, "/ingest", b"\n".join([EVENT] * count), **by(token(name)))

    several = [await send("quick", 1) for _ in range(20)]
    refused = [answer for answer in several if answer.status == 429]
    assert {answer.status for answer in several} == {202, 429}
    assert 4 <= several.index(refused[0]) <= 8, "a second's requests may come at once"
    assert "5 requests/s (DUALSTREAM_INGEST_REQUEST_RATE)" in refused[0].body["allowed"]
    assert int(refused[0].headers["retry-after"]) >= 1
    assert refused[0].headers["connection"] == "close"

    assert (await send("large", 200)).status == 202, "what was begun is not cut in two"
    answer = await send("large", 1)
    assert (answer.status, answer.headers["retry-after"]) == (429, "3")
    assert "50 events/s" in answer.body["allowed"]

    assert (await send("another", 1)).status == 202, "each token has its own"
    again = await post(limited, "/ingest", EVENT, **by(token("large", jti="2")))
    assert again.status == 429, "a new token of the same bearer has nothing of its own"
    await asyncio.sleep(int(answer.headers["retry-after"]))
    assert (await send("large", 1)).status == 202


async def test_a_refusal_for_the_rate_comes_before_the_body(limited):
    assert (await post(limited, "/ingest", b"\n".join([EVENT] * 500), **by(token("huge")))).status == 202
    async with wires(limited) as (wire,):
        wire.head("/ingest", 10 * 2**20, **by(token("huge")))
        assert (await wire.answer()).status == 429
        assert await wire.ended()


async def test_a_token_that_ends_while_its_body_comes_sends_nothing(guarded):
    async with wires(guarded) as (wire,):
        wire.head("/ingest", 4 * 300 + len(EVENT), **by(token(life=0.9)))
        for _ in range(4):
            wire.writer.write(b" " * 299 + b"\n")
            await asyncio.sleep(0.3)
        wire.writer.write(EVENT)
        answer = await wire.answer()
        assert (answer.status, answer.body["error"]) == (401, "the token has expired")


# --- Heads


async def test_heads_without_an_end_are_bounded(plain):
    """Four hundred that go on for ever, of nobody knows whom: 380 MiB, if all of it is kept."""
    head = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"".join(
        b"X-%d: %08000d\r\n" % (n, n) for n in range(60)
    )
    with Peak(plain) as peak:
        async with undisturbed(plain), wires(plain, 400) as many:
            for wire in many:
                wire.writer.write(head)
            assert all(await asyncio.gather(*(wire.ended() for wire in many)))
    assert peak.bytes < 120 * 2**20, f"{peak.bytes:,}"


async def test_heads_that_come_slowly_leave_room_for_others(plain):
    """A thousand that stop within 24 KiB: 16 MiB of them are kept, then only small ones."""
    head = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"".join(
        b"X-%d: %08000d\r\n" % (n, n) for n in range(3)
    )
    with Peak(plain) as peak:
        async with undisturbed(plain), wires(plain, 1000) as many:
            for wire in many:
                wire.writer.write(head)
            told = [asyncio.create_task(wire.reader.readline()) for wire in many]
            await until(lambda: sum(task.done() for task in told) > 200)
            assert {task.result()[:12] for task in told if task.done()} == {b"HTTP/1.1 431"}
            assert sum(task.done() for task in told) < 500
            answer = await post(plain, "/ingest", EVENT, Content_Type=JSON, X_Large="x" * 8000)
            assert answer.status == 202, "one that comes at once may be large"
            for task in told:
                task.cancel()
    assert peak.bytes < 80 * 2**20, f"{peak.bytes:,}"
    async with wires(plain) as (wire,):  # and all that were counted are forgotten
        wire.writer.write(head)
        wire.writer.write(b"Content-Length: 0\r\n\r\n")
        assert b" 404 " in await wire.reader.readuntil(b"\r\n")


async def test_a_head_in_many_pieces_is_taken(plain):
    head = head_of("/ingest", len(EVENT), Content_Type=JSON, **{f"X-{n}": "x" * 700 for n in range(30)})
    async with wires(plain) as (wire,):
        for _ in range(3):
            for at in range(0, len(head), 1000):
                wire.writer.write(head[at : at + 1000])
                await asyncio.sleep(0.01)
            wire.writer.write(EVENT)
            assert (await wire.answer()).status == 202


async def test_a_body_right_behind_its_head_is_no_head(plain):
    """However the two come: in one piece, a hundred times, of ten connections at once."""
    body = EVENT.rjust(300 * KIB)
    whole = head_of("/ingest", len(body), Content_Type=JSON) + body

    async def send(wire: Wire) -> None:
        for _ in range(10):
            wire.writer.write(whole)
            assert (await wire.answer()).status == 202

    async with wires(plain, 10) as many:
        await asyncio.gather(*map(send, many))


@pytest.mark.parametrize("before", [0, 1])
async def test_too_long_a_head_is_told_so(plain, before):
    """Of the first request of a connection as of the next ones, and however it is cut into pieces."""
    head = b"GET / HTTP/1.1\r\n" + b"".join(b"X: %07900d\r\n" % number for number in range(5))
    async with wires(plain, 20) as many:
        for number, wire in enumerate(many):
            for _ in range(before):
                wire.head("/ingest", len(EVENT), Content_Type=JSON)
                wire.writer.write(EVENT)
                assert (await wire.answer()).status == 202
            for at in range(0, len(head), 4000 + 1000 * number):
                wire.writer.write(head[at : at + 4000 + 1000 * number])
                await asyncio.sleep(0)
            assert b" 431 " in await wire.reader.readuntil(b"\r\n\r\n")
            assert await wire.ended()
