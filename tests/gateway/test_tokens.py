"""Tokens, pages and names: what is malformed is told so in a line; keys may change; headers are everywhere.

Real processes, raw requests, and an issuer of keys that is a real HTTP server.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import product
from typing import Any
from uuid import uuid4

import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from dualstream_lab.config import ServeSettings
from dualstream_lab.errors import ConfigError, StoreError, StreamUnavailable
from dualstream_lab.gateway import issuer_keys
from dualstream_lab.gateway.access import Access, Denied, Grant
from dualstream_lab.gateway.gateway import application
from dualstream_lab.gateway.issuer_keys import KeysUnavailable
from dualstream_lab.stack import LocalStack
from tests.gateway.clients import curl, joined, streaming
from tests.gateway.published import new_source
from tests.gateway.serving import SECRET, Delivery, Server, until

EVENT = {"type": "push", "source_type": "repo", "source_id": "o/r"}


@pytest.fixture(scope="module")
def delivery(stack: LocalStack) -> Iterator[Delivery]:
    topic = f"tokens-{uuid4().hex[:12]}"
    stack.create_topic(topic)
    with Delivery(stack, topic) as made:
        yield made
        made.assert_no_traceback()


@pytest.fixture(scope="module")
def guarded(delivery: Delivery, _processor: Server) -> Server:
    return delivery.start("ingester", "gateway", jwt_secret=SECRET, jwt_audience="here")


@pytest.fixture(scope="module")
def plain(delivery: Delivery, _processor: Server) -> Server:
    return delivery.start("ingester", "gateway", allowed_origins="*", github_secret="hush")


@pytest.fixture(scope="module")
def interpreted(delivery: Delivery, _processor: Server) -> Iterator[Server]:
    """Where aiohttp has no compiled parser of HTTP: its other one takes other bytes for text."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AIOHTTP_NO_EXTENSIONS", "1")
        yield delivery.start("ingester", "gateway", github_secret="hush")


def segment(content: bytes) -> bytes:
    return base64.urlsafe_b64encode(content).rstrip(b"=")


def signed(payload: bytes, head: bytes = b'{"alg":"HS256","typ":"JWT"}') -> str:
    """A token of whatever bytes, with the right signature."""
    text = segment(head) + b"." + segment(payload)
    return (text + b"." + segment(hmac.digest(SECRET.encode(), text, hashlib.sha256))).decode()


def token(key: Any = SECRET, *, algorithm: str = "HS256", kid: str | None = None, **claims: Any) -> str:
    content = {"exp": time.time() + 60, "read": ["repo:o/*"], "write": ["repo:o/*"], "aud": "here"} | claims
    content = {name: value for name, value in content.items() if value is not None}
    return jwt.encode(content, key, algorithm, headers={"kid": kid} if kid else None)


def good(text: bytes) -> bytes:
    """Claims that would do, if not for this."""
    return b'{"read":["*"],"write":["*"],"aud":"here",%b}' % text


MALFORMED = {
    "exp is endless": signed(good(b'"exp":1' + b"0" * 400)),
    "exp is huge": signed(good(b'"exp":1e300')),
    "exp overflows": signed(good(b'"exp":1e999')),
    "exp is infinite": signed(good(b'"exp":Infinity')),
    "exp is NaN": signed(good(b'"exp":NaN')),
    "exp is milliseconds": signed(good(b'"exp":%d' % (2e9 * 1000))),
    "exp is a list": signed(good(b'"exp":[1]')),
    "exp is many digits": signed(good(b'"exp":"' + b"9" * 4400 + b'"')),
    "exp is true": signed(good(b'"exp":true')),
    "exp is null": signed(good(b'"exp":null')),
    "nbf is infinite": signed(good(b'"exp":4e9,"nbf":Infinity')),
    "iat is a list": signed(good(b'"exp":4e9,"iat":[]')),
    "sub is a number": signed(good(b'"exp":4e9,"sub":1')),
    "deep payload": signed(good(b'"exp":4e9,"x":' + b"[" * 2900)),
    "deep head": signed(good(b'"exp":4e9'), b'{"alg":"HS256","x":' + b"[" * 2900),
    "alg is a list": signed(good(b'"exp":4e9'), b'{"alg":["HS256"]}'),
    "alg is a number": signed(good(b'"exp":4e9'), b'{"alg":1}'),
    "kid is a list": signed(good(b'"exp":4e9'), b'{"alg":"HS256","kid":[]}'),
    "crit": signed(good(b'"exp":4e9'), b'{"alg":"HS256","crit":["\\n\\u001b[2J"]}'),
    "detached": signed(b"", b'{"alg":"HS256","b64":false}'),
    "head is a list": signed(good(b'"exp":4e9'), b"[]"),
    "payload is a list": signed(b"[]"),
    "payload is no text": signed(b"\xff\xfe"),
    "payload is empty": signed(b""),
    "surrogates": signed(good(b'"exp":4e9,"sub":"\\ud800","aud":"\\ud800"')),
    "aud is an object": signed(b'{"exp":4e9,"aud":{"here":1}}'),
    "another aud": token(aud="there"),
    "no aud": token(aud=None),
}


async def raw(server: Server, *data: bytes, timeout: float = 10) -> bytes:
    """All that comes back until the server ends the connection."""
    reader, writer = await asyncio.open_connection(*server.address)
    try:
        writer.writelines(data)
        async with asyncio.timeout(timeout):
            return await reader.read()
    finally:
        writer.transport.abort()


def request(
    path: bytes = b"/events?source=repo:o/x",
    *lines: bytes,
    host: bytes = b"127.0.0.1",
    method: bytes = b"GET",
) -> bytes:
    heads = [b"%b %b HTTP/1.1" % (method, path), b"Host: " + host, b"Connection: close", *lines]
    return b"\r\n".join([*heads, b"", b""])


def status(answer: bytes) -> int:
    assert answer.startswith(b"HTTP/1."), answer[:100]
    return int(answer[9:12])


class Lines:
    """What a server logs while it is open."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def __enter__(self) -> Callable[[], list[str]]:
        self._before = len(self._server.process.log_text())
        return self.read

    def __exit__(self, *_: object) -> None:
        pass

    def read(self) -> list[str]:
        return self._server.process.log_text()[self._before :].splitlines()


# --- Malformed


@pytest.mark.parametrize("name", MALFORMED)
async def test_a_malformed_token_is_401_and_one_line(guarded, name):
    text = MALFORMED[name]
    for path in (b"/events?source=repo:o/x", b"/sse?source=repo:o/x", b"/event?id=x", b"/metrics"):
        with Lines(guarded) as lines:
            answer = await raw(guarded, request(path, b"Authorization: Bearer " + text.encode()))
            assert status(answer) == 401
            await until(lines, timeout=2)
            assert len(lines()) == 1
            assert "refused 127.0.0.1: the token" in lines()[0]
            assert lines()[0].isprintable()
        await asyncio.sleep(0.2)  # at most ten lines a second
    assert status(await raw(guarded, request(b"/sse?source=repo:o/x&access_token=" + text.encode()))) == 401
    lines_of_json = b"Content-Type: application/json\r\nContent-Length: 1000"
    ingest = request(b"/ingest", b"Authorization: Bearer " + text.encode(), lines_of_json, method=b"POST")
    assert status(await raw(guarded, ingest)) == 401
    async with joined(guarded.ws, "repo:o/x", wait=False) as ear:
        await ear.say(token=text)
        code, reason = await ear.closed()
        assert (code, bool(reason)) == (4401, True)
        assert ear.messages == []


ODD_BYTES = [bytes([byte]) for byte in (*range(0x80, 0x100, 9), 0xFF)] + [b"\xc3\xa9", b"\xed\xa0\x80"]


@pytest.mark.parametrize(
    "origin",
    [b"http://[", b"http://]", b"http://[::1", b"http://[x]/", b"//[", "http://\u2100".encode(), *ODD_BYTES],
    ids=repr,
)
async def test_a_malformed_origin_is_400_and_one_line(plain, origin):
    for path, more in (
        (b"/events?source=repo:o/x", b"X: x"),
        (b"/", b"X: x"),
        (b"/ws", UPGRADE),
        (b"/no", b"X: x"),
    ):
        with Lines(plain) as lines:
            answer = await raw(plain, request(path, b"Origin: " + origin, more))
            assert status(answer) == 400, path
            assert b"Access-Control" not in answer
            await until(lines, timeout=2)
            assert len(lines()) == 1
            assert "Origin is malformed" in lines()[0]
        await asyncio.sleep(0.1)


UPGRADE = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
)


@pytest.mark.parametrize(
    "host",
    [b"[", b"]", b"[::1", b"[::1]x", b"a b", b"a,b", b"a@b", b"a/b", b"", b"127.0.0.1:x", *ODD_BYTES],
    ids=repr,
)
async def test_a_malformed_host_is_400_and_one_line(plain, guarded, host):
    for server in (plain, guarded):
        with Lines(server) as lines:
            assert status(await raw(server, request(host=host))) == 400
            await until(lines, timeout=2)
            assert len(lines()) == 1
            assert "Host is malformed" in lines()[0]
        await asyncio.sleep(0.1)


@pytest.mark.parametrize("byte", ODD_BYTES, ids=repr)
async def test_bytes_that_are_no_text_are_refused_wherever_they_stand(plain, interpreted, byte):
    requests = [
        request(b"/" + byte),
        request(b"/events?source=" + byte),
        request(b"/events?source=repo:o/x&since=" + byte),
        request(b"/events?source=repo:o/x&limit=" + byte),
        request(b"/events/" + byte),
        request(b"/event?id=" + byte),
        request(b"/event?id=x&pos=" + byte),
        request(b"/event?id=x&source=" + byte),
        request(b"/sse?source=" + byte),
        request(b"/sse?source=repo:o/x", b"Last-Event-ID: " + byte),
        request(b"/ws?source=" + byte, UPGRADE.replace(b"Key: ", b"Key: " + byte)),
        request(b"/healthz", method=b"POST" + byte),
        *(request(path, b"Expect: " + byte) for path in (b"/", b"/healthz", b"/events", b"/sse", b"/no")),
        *(request(path, b"Expect: " + byte, method=b"CONNECT") for path in (b"x:1", b"/")),
        request(b"/ingest", b"Content-Length: 5", b"Content-Type: " + byte, method=b"POST"),
        request(
            b"/ingest",
            b"Content-Length: 5",
            b"Content-Type: application/json; charset=" + byte,
            method=b"POST",
        ),
        request(b"/ingest", b"Content-Length: 5", b"Content-Type: text/" + byte, method=b"POST"),
        request(
            b"/ingest",
            *(b"Content-Length: 5", b'Content-Type: application/json; charset="' + byte + b'"'),
            method=b"POST",
        ),
        request(b"/ingest", b"Content-Length: " + byte, method=b"POST"),
        request(b"/ingest", b"Transfer-Encoding: " + byte, method=b"POST"),
        request(
            b"/ingest",
            *(b"Transfer-Encoding: chunked", b"Content-Type: application/json", b"\r\n" + byte),
            method=b"POST",
        ),
        request(b"/ingest", b"Expect: " + byte, method=b"POST"),
        *(
            request(
                b"/ingest/github",
                *(b"Content-Length: 2", b"Content-Type: application/json"),
                *(b"%b: %b" % (name, byte if name == odd else value) for name, value in HOOK.items()),
                b"\r\n{}",
                method=b"POST",
            )
            for odd in HOOK
        ),
    ]
    for server in (plain, interpreted):
        for number, sent in enumerate(requests):
            answer = await raw(server, sent)
            assert 400 <= status(answer) < 500, (number, answer[:200])
            assert isinstance(json.loads(answer.partition(b"\r\n\r\n")[2])["error"], str)


HOOK = {
    b"X-Hub-Signature-256": b"sha256=" + hmac.new(b"hush", b"{}", hashlib.sha256).hexdigest().encode(),
    b"X-GitHub-Event": b"push",
    b"X-GitHub-Delivery": b"d1",
}


async def test_a_close_reason_is_whole_characters(plain):
    """A client breaks off at half a character, and learns nothing."""
    for source in ("\u20ac" * 60, "x" + "\u20ac" * 60, "xx" + "\u20ac" * 60):
        async with joined(plain.ws, source, wait=False) as ear:
            code, reason = await ear.closed()
            assert (code, bool(reason)) == (4400, True)


async def test_lines_of_refusals_are_limited(plain):
    with Lines(plain) as lines:
        began = time.monotonic()
        for _ in range(100):
            await asyncio.gather(*(raw(plain, request(host=b"[")) for _ in range(5)))
        most = 11 + 10 * (time.monotonic() - began)
        assert 1 <= len(lines()) <= most


async def test_no_token_is_logged(guarded):
    """Not even of a request that nobody can read."""
    text = token(exp=1)
    with Lines(guarded) as lines:
        for path in (
            b"/sse?access_token=" + text.encode(),
            b"/sse?access_token=" + text.encode() + b"x" * 9000,
        ):
            for method in (b"GET", b"G\xffT", b"GET "):
                await raw(guarded, request(path, b"Authorization: Bearer\x00" + text.encode(), method=method))
                await raw(guarded, request(path, b"Authorization : Bearer " + text.encode(), method=method))
                await raw(guarded, request(path, b"Authorization: Bearer " + text.encode(), method=method))
        assert len(lines()) >= 10
        assert not any(text[20:60] in line for line in lines())


# --- Headers


async def test_every_answer_has_the_headers_and_names_nothing_of_ours(plain, guarded):
    requests = {
        200: request(b"/healthz"),
        404: request(b"/nowhere"),
        405: request(b"/healthz", method=b"DELETE"),
        400: request(b"/events"),
        403: request(b"/", host=b"evil.example"),
        204: request(
            b"/", b"Origin: https://a.example", b"Access-Control-Request-Method: GET", method=b"OPTIONS"
        ),
        101: request(b"/ws", UPGRADE).replace(b"Connection: close\r\n", b"") + CLOSE,
    }
    answers = {number: await raw(plain, sent) for number, sent in requests.items()}
    answers[415] = await raw(plain, request(b"/ingest", b"Content-Length: 5", method=b"POST"))
    answers[401] = await raw(guarded, request())
    answers[400.1] = await raw(plain, b"\x00\x01\r\n\r\n")
    answers[400.2] = await raw(plain, request(b"/", b"X: " + b"x" * 9000))
    answers[400.3] = await raw(plain, request(b"/", *(b"X%d: x" % number for number in range(100))))
    for number, answer in answers.items():
        assert status(answer) == int(number), answer[:300]
        head = answer.partition(b"\r\n\r\n")[0].decode("latin-1").lower()
        assert "x-content-type-options: nosniff" in head, number
        assert "frame-ancestors 'none'" in head, number
        assert "referrer-policy: no-referrer" in head, number
        assert "aiohttp" not in head
        assert "python" not in head


CLOSE = b"\x88\x82\x00\x00\x00\x00\x03\xe8"  # ends a WebSocket


async def test_the_page_may_speak_with_its_own_server_alone_and_is_nobodys_frame(plain):
    answer = await curl(f"{plain.url}/")
    policy = dict(
        part.strip().partition(" ")[::2] for part in answer.headers["content-security-policy"].split(";")
    )
    assert policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == "'none'"
    scripts = re.findall(rb"<script[^>]*>(.*?)</script>", answer.body, re.DOTALL)
    allowed = [base64.b64encode(hashlib.sha256(script).digest()).decode() for script in scripts]
    assert policy["script-src"].split() == [f"'sha256-{one}'" for one in allowed]


async def test_an_answer_names_no_file_server_or_user(caplog):
    """Routes that fail as the real ones do, in an application as the real one is."""

    async def store(_request: web.Request) -> web.Response:
        raise StoreError("/srv/secret/dualstream.db: disk I/O error")

    async def kafka(_request: web.Request) -> web.Response:
        raise StreamUnavailable("kafka.internal:9092 refused the log-in of user alice")

    access = Access(ServeSettings.load(kafka_url="127.0.0.1:1"))
    runner = web.AppRunner(application([web.get("/store", store), web.get("/kafka", kafka)], access))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        for path, hidden in (("store", "secret"), ("kafka", "alice")):
            answer = await curl(f"http://127.0.0.1:{runner.addresses[0][1]}/{path}")
            assert answer.status == 503
            assert hidden not in answer.body.decode()
            assert "internal" not in answer.body.decode()
            assert sum(hidden in record.getMessage() for record in caplog.records) == 1
    finally:
        await runner.cleanup()


# --- The end of a token


@pytest.mark.parametrize("life", [1.0, 2.5])
async def test_a_connection_ends_with_its_token(guarded, life):
    """At its moment, of which PyJWT knows whole seconds only when a connection begins."""
    source = new_source()
    ends = int(time.time()) + 1 + life
    text = token(exp=ends)
    options = ("-H", f"Authorization: Bearer {text}")
    async with (
        joined(guarded.ws, source, additional_headers=bearer(text)) as ear,
        streaming(guarded.url, source, options=options) as stream,
        joined(guarded.ws, source, wait=False) as late,
    ):
        await late.say(token=text)
        await asyncio.sleep(ends - time.time() - 0.3)
        assert not any(one.ended for one in (ear, stream, late))
        for one in (ear, late):
            code, reason = await one.closed(timeout=1.5)
            assert (code, reason) == (4401, "the token has expired")
        await until(lambda: stream.ended, timeout=1.5)


@pytest.mark.parametrize("way", ["ws", "sse"])
async def test_whoever_does_not_read_gets_nothing_of_after_its_token(guarded, publish, way):
    """It has a window's room, which is full: it reads on when its token has ended."""
    source = new_source()
    ends = int(time.time()) + 8
    more = UPGRADE if way == "ws" else b"Connection: close"
    path = b"/%b?source=%b" % (way.encode(), source.encode())
    head = b"GET %b HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n" % (path, token(exp=ends).encode())
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slow.connect(guarded.address)
    slow.settimeout(5)
    with slow:
        slow.sendall(head + more + b"\r\n\r\n")
        data = b""
        while b'"subscribed"' not in data:
            data += await asyncio.to_thread(slow.recv, 1000)
        async with joined(guarded.ws, source, additional_headers=bearer(token())) as witness:
            before = await publish(source, 1500)  # more than its kernel and ours hold
            await witness.receive(1500)
            assert time.time() < ends
            await asyncio.sleep(ends - time.time() + 0.3)
            after = await publish(source, 10)
            await witness.receive(1510)
        data += await asyncio.to_thread(rest_of, slow)
    assert data.count(b'"kind":"event"') >= 10
    assert before[0].id.encode() in data
    assert not any(place.id.encode() in data for place in after)


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def rest_of(connection: socket.socket) -> bytes:
    """All that still comes. TimeoutError if it does not end."""
    data = b""
    with suppress(ConnectionError):
        while piece := connection.recv(2**20):
            data += piece
    return data


# --- Claims


def access(**values: object) -> Access:
    return Access(ServeSettings.load(kafka_url="127.0.0.1:1", **values))


async def test_aud_and_iss_are_checked_where_they_are_set():
    for audience in ("here", ["there", "here"]):
        await access(jwt_secret=SECRET, jwt_audience="here").grant(token(aud=audience))
    await access(jwt_secret=SECRET, jwt_issuer="https://me").grant(token(iss="https://me", aud=None))
    await access(jwt_secret=SECRET).grant(token(aud="anything", iss="anybody"))
    for settings, claims in (
        ({"jwt_audience": "here"}, {"aud": "there"}),
        ({"jwt_audience": "here"}, {"aud": ["there"]}),
        ({"jwt_audience": "here"}, {"aud": None}),
        ({"jwt_audience": "here"}, {"aud": []}),
        ({"jwt_issuer": "https://me"}, {"iss": "https://you"}),
        ({"jwt_issuer": "https://me"}, {"iss": None}),
        ({"jwt_issuer": "https://me"}, {"iss": "https://m"}),
        ({"jwt_issuer": "https://me", "jwt_audience": "here"}, {"iss": "https://me", "aud": "there"}),
    ):
        with pytest.raises(Denied, match="not valid"):
            await access(jwt_secret=SECRET, **settings).grant(token(**claims))
    with pytest.raises(ConfigError, match="jwt_audience"):
        access(jwt_audience="here")


async def test_a_token_that_was_checked_before_still_expires():
    checks = access(jwt_secret=SECRET)
    short = token(exp=int(time.time()) + 2)
    assert (await checks.grant(short)) == (await checks.grant(short))
    await asyncio.sleep(max(0.0, jwt.decode(short, options={"verify_signature": False})["exp"] - time.time()))
    with pytest.raises(Denied, match="has expired"):
        await checks.grant(short)


async def test_a_bearer_has_the_same_name_with_every_token():
    checks = access(jwt_secret=SECRET)
    named = [await checks.grant(token(sub="me", jti=str(number))) for number in range(2)]
    assert named[0].name == named[1].name
    nameless = [await checks.grant(token(jti=str(number))) for number in range(2)]
    assert len({grant.name for grant in (*named, *nameless)}) == 3
    assert SECRET not in nameless[0].name


def test_a_pattern_is_what_its_stars_say():
    """All short ones, of all short sources."""

    def texts(letters: str, most: int) -> list[str]:
        return ["".join(text) for size in range(most + 1) for text in product(letters, repeat=size)]

    for pattern in texts("ab*", 5):
        grant = Grant(read=(pattern,), write=(), expires=None)
        wanted = re.compile(".*".join(map(re.escape, pattern.split("*"))))
        for source in texts("ab", 5):
            assert grant.may_read(source) is (wanted.fullmatch(source) is not None), (pattern, source)
            assert not grant.may_write(source)


def test_a_pattern_of_many_stars_takes_no_longer():
    grant = Grant(read=("*a" * 100 + "b",), write=(), expires=None)
    began = time.perf_counter()
    assert not grant.may_read("a" * 5000)
    assert time.perf_counter() - began < 0.1


# --- The issuer's keys


class Issuer:
    """Publishes keys over HTTP. ``keys``: by their ids; ``delay``: s until it answers; ``asked``: times."""

    def __init__(self) -> None:
        self.keys: dict[str, Any] = {}
        self.more: list[Any] = []
        self.delay = 0.0
        self.endless = False
        self.asked = 0
        self.broken: bytes | None = None
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked += 1
                time.sleep(issuer.delay)
                body = issuer.broken if issuer.broken is not None else issuer.document()
                self.send_response(200)
                self.end_headers()
                with suppress(OSError):
                    while issuer.endless:
                        self.wfile.write(b" ")
                        time.sleep(0.2)
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/keys"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def document(self) -> bytes:
        keys = []
        for kid, private in self.keys.items():
            algorithm = {"rsa": "RS256", "ec": "ES256", "ed": "EdDSA"}[kid[:2] if kid[:3] != "rsa" else "rsa"]
            keys.append(jwt.get_algorithm_by_name(algorithm).to_jwk(private.public_key(), as_dict=True))
            keys[-1] |= {"kid": kid, "alg": algorithm, "use": "sig"}
        return json.dumps({"keys": [*keys, *self.more]}).encode()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


PRIVATE = {
    "rsa": rsa.generate_private_key(65_537, 2048),
    "ec": ec.generate_private_key(ec.SECP256R1()),
    "ed": ed25519.Ed25519PrivateKey.generate(),
    "ec2": ec.generate_private_key(ec.SECP256R1()),
}


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    made = Issuer()
    made.keys = {kid: PRIVATE[kid] for kid in ("rsa", "ec", "ed")}
    yield made
    made.close()


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys may be fetched ten times a second."""
    monkeypatch.setattr(issuer_keys, "_PAUSE", 0.1)


def by(kid: str, *, algorithm: str | None = None, **claims: Any) -> str:
    """A token of this key's."""
    names = {"rsa": "RS256", "ec": "ES256", "ed": "EdDSA", "ec2": "ES256"}
    return token(PRIVATE[kid], algorithm=algorithm or names[kid], kid=kid, **claims)


async def test_tokens_of_any_of_the_issuers_keys_are_taken_and_fetched_once(issuer):
    checks = access(jwks_url=issuer.url)
    grants = await asyncio.gather(*(checks.grant(by(kid)) for kid in ("rsa", "ec", "ed") * 10))
    assert all(grant.may_read("repo:o/x") for grant in grants)
    assert issuer.asked == 1


async def test_what_the_issuer_did_not_sign_is_refused(issuer):
    issuer.more = [
        {"kty": "oct", "kid": "oct", "k": segment(SECRET.encode()).decode(), "alg": "HS256"},
        {"kty": "RSA", "kid": "broken", "n": "x", "e": "AQAB"},
        {"kty": "EC", "kid": []},
        {"kid": "nothing"},
        jwt.get_algorithm_by_name("ES256").to_jwk(PRIVATE["ec2"].public_key(), as_dict=True)
        | {"kid": "ec2", "use": "enc"},
        7,
    ]
    checks = access(jwks_url=issuer.url)
    public = jwt.get_algorithm_by_name("RS256").to_jwk(PRIVATE["rsa"].public_key(), as_dict=True)
    head, body, signature = by("ec").split(".")
    stronger = segment(good(b'"exp":4e9')).decode()
    for bad in (
        token(SECRET, kid="oct"),  # whoever reads the keys could sign so
        token(public["n"], kid="rsa"),
        token(None, algorithm="none", kid="ec"),
        token(PRIVATE["ec2"], algorithm="ES256", kid="ec"),
        token(PRIVATE["ec"], algorithm="ES256", kid="rsa"),
        token(PRIVATE["ec"], algorithm="ES256", kid="nobody's"),
        token(PRIVATE["ec"], algorithm="ES256"),
        by("ec2"),
        by("rsa", algorithm="RS512"),
        by("ec", exp=1),
        f"{head}.{body}.",
        f"{head}.{stronger}.{signature}",
        "x",
        "..",
    ):
        with pytest.raises(Denied):
            await checks.grant(bad)
    assert await checks.grant(by("ec"))
    assert issuer.asked == 1, "ids that nobody knows do not make it ask"


async def test_a_new_key_is_known_at_its_first_token_and_a_withdrawn_one_is_forgotten(
    issuer, eager, monkeypatch
):
    checks = access(jwks_url=issuer.url)
    assert await checks.grant(by("ec"))
    await asyncio.sleep(0.15)
    issuer.keys = {"ec2": PRIVATE["ec2"]}
    assert await checks.grant(by("ec2"))
    with pytest.raises(Denied):
        await checks.grant(by("ec"))
    issuer.keys = {"ed": PRIVATE["ed"]}
    assert await checks.grant(by("ec2")), "for five minutes"
    monkeypatch.setattr(issuer_keys, "_LIFESPAN", 0.1)
    await asyncio.sleep(0.15)
    with pytest.raises(Denied):
        await checks.grant(by("ec2"))


async def test_an_issuer_that_is_away_is_no_fault_of_the_token(issuer, eager, monkeypatch, caplog):
    checks = access(jwks_url=issuer.url)
    for broken in (b"", b"[]", b"{}", b'{"keys":7}', b"[" * 100_000, b"\xff", b'{"keys":[]}'):
        issuer.broken = broken
        with pytest.raises(KeysUnavailable):
            await checks.grant(by("ec"))
        await asyncio.sleep(0.15)
    assert len(caplog.records) == 7, [record.getMessage() for record in caplog.records]
    issuer.broken = None
    assert await checks.grant(by("ec"))
    issuer.broken = b""
    monkeypatch.setattr(issuer_keys, "_LIFESPAN", 0.0)
    await asyncio.sleep(0.15)
    assert await checks.grant(by("ec")), "the last keys count"
    with pytest.raises(KeysUnavailable):
        await checks.grant(by("ec2"))
    monkeypatch.setattr(issuer_keys, "_STALE", 0.0)
    with pytest.raises(KeysUnavailable):
        await checks.grant(by("ec"))


async def test_a_silent_issuer_keeps_nobody_waiting_for_long(issuer, monkeypatch):
    monkeypatch.setattr(issuer_keys, "_TIMEOUT", 0.5)
    issuer.delay = 3.0
    checks = access(jwks_url=issuer.url)
    began = time.monotonic()
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0.01)
            turns += 1

    task = asyncio.create_task(others())
    answers = await asyncio.gather(*(checks.grant(by("ec")) for _ in range(20)), return_exceptions=True)
    task.cancel()
    assert {type(answer) for answer in answers} == {KeysUnavailable}
    assert time.monotonic() - began < 2
    assert turns > 5, "the loop goes on"
    with pytest.raises(KeysUnavailable):  # and it is not asked again at once
        await checks.grant(by("ec"))
    assert issuer.asked == 1


@pytest.mark.usefixtures("_processor")
async def test_a_gateway_takes_tokens_of_an_issuer_and_says_when_it_cannot(delivery, issuer):
    server = delivery.make(
        "gateway", constants={"gateway.issuer_keys._PAUSE": 0.2}, jwks_url=issuer.url, jwt_issuer="https://me"
    )
    issuer.broken = b"no keys"
    await server.start()

    async def ask(text: str) -> tuple[int, dict[str, str]]:
        answer = await curl(f"{server.url}/events?source=repo:o/x", "-H", f"Authorization: Bearer {text}")
        return answer.status, answer.headers

    code, headers = await ask(by("ec", iss="https://me"))
    assert (code, headers["retry-after"]) == (503, "2")
    async with joined(server.ws, "repo:o/x", wait=False) as ear:
        await ear.say(token=by("ec", iss="https://me"))
        assert (await ear.closed())[0] == 1013
    issuer.broken = None
    await asyncio.sleep(0.3)
    assert (await ask(by("ec", iss="https://me")))[0] == 200
    assert (await ask(by("ec", iss="https://you")))[0] == 401
    async with joined(server.ws, "repo:o/x", wait=False) as ear:
        await ear.say(token=by("rsa", iss="https://me"))
        await ear.see("subscribed", "repo:o/x")
    issuer.endless = True  # a server that never ends its answer does not keep this one from ending
    await asyncio.sleep(0.3)
    asking = asyncio.create_task(ask(by("ec2", iss="https://me")))
    await until(lambda: issuer.asked >= 3)
    began = time.monotonic()
    await server.end()
    assert time.monotonic() - began < 10
    await asyncio.wait([asking])
    asking.exception()
    issuer.endless = False


def test_only_one_kind_of_key_may_be_given(issuer):
    with pytest.raises(ConfigError, match="jwt_secret and jwks_url exclude each other"):
        access(jwt_secret=SECRET, jwks_url=issuer.url)
    assert access(jwks_url=issuer.url, listen="0.0.0.0:8080").required
