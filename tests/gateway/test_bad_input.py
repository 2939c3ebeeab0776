"""What is thrown at a gateway: it says no, clearly, and a healthy client beside it notices nothing.

Everything runs in real processes on the real stack. Some constants are shortened there; it is said where.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import time
from contextlib import AsyncExitStack
from typing import Any
from uuid import uuid4

import jwt
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from dualstream_lab.config import ServeSettings
from dualstream_lab.errors import ConfigError
from dualstream_lab.gateway.access import Access, Denied
from tests.gateway.clients import Socket, curl, escaped, joined, streaming, until_status
from tests.gateway.published import Place, Published, at, ids, new_source, place_of, undisturbed
from tests.gateway.serving import SECRET, Server, command, until, until_so

# --- Bad names

ILLEGAL = [
    "*",
    "repo:*",
    "_resync",
    "events:_resync",
    "repo:_resync",
    "repo:_shard1",
    "",
    ":",
    "repo",
    "repo:",
    ":o/x",
    "Repo:o/x",
    "re po:o/x",
    "repo:" + "x" * 300,
    "x" * 300 + ":o/x",
    "repo:" + "\N{LATIN SMALL LETTER E WITH ACUTE}" * 129,
    "repo:a b",
    "repo:a\nb",
    "repo:a\x00b",
    "repo:a\x7fb",
    "repo:a?b",
    "repo:a\\b",
    "repo:a*",
    "repo:e\N{COMBINING ACUTE ACCENT}",
    "repo:\N{RIGHT-TO-LEFT OVERRIDE}x",
    "repo:\N{NO-BREAK SPACE}",
]


async def test_illegal_sources_are_refused_everywhere(plain, publish):
    async with undisturbed(plain, publish):
        async with joined(plain.ws) as ear:
            for number, name in enumerate(ILLEGAL[:18], 1):
                await ear.say(subscribe=name)
                said = await ear.see("error", count=number)
                assert said.get("source", "") == name
                assert "source" in said["error"]
            source = new_source()
            await ear.say(subscribe=source)
            await ear.see("subscribed", source)
            (place,) = await publish(source)
            assert await ear.receive(1) == [place.id]
        for name in ILLEGAL:
            async with joined(plain.ws, name, wait=False) as ear:
                code, reason = await ear.closed()
                assert (code, bool(reason)) == (4400, True), name
                assert not list(ear.of("subscribed"))
            for path in ("/sse", "/events"):
                answer = await curl(f"{plain.url}{path}?source={escaped(name)}")
                assert answer.status == 400, (path, name)
                assert "source" in answer.json["error"]
        for path in ("/sse", "/events"):
            assert (await curl(f"{plain.url}{path}")).status == 400


async def test_a_client_that_only_makes_mistakes_is_closed(plain, publish):
    async with undisturbed(plain, publish), joined(plain.ws) as ear:
        for _ in range(100):
            await ear.say(subscribe="*")
        code, _ = await ear.closed()
        assert code == 4400


CURSORS = [
    "x",
    "1:2",
    "a:b:c",
    "0123456789ab:0:",
    "0123456789ab:0:1:2",
    "0123456789ab:-1:1",
    "0123456789ab:0:-2",
    "0123456789ab:0:1.5",
    "0123456789ab:0:" + "9" * 40,
    "0123456789ab:0:٣",
    "0123456789ab:0:1\n",
    "Latest",
    "\x00",
    "9" * 3000,
]


async def test_malformed_cursors_are_refused_everywhere(plain, publish, source):
    async with undisturbed(plain, publish):
        async with joined(plain.ws) as ear:
            for number, cursor in enumerate(CURSORS, 1):
                await ear.say(subscribe=source, since=cursor)
                assert "since" in (await ear.see("error", source, count=number))["error"]
            await ear.say(subscribe=source)
            await ear.see("subscribed", source)
        for cursor in CURSORS:
            async with joined(plain.ws, source, since=cursor, wait=False) as ear:
                code, reason = await ear.closed()
                assert (code, bool(reason)) == (4400, True), cursor
            for path in ("/sse", "/events"):
                url = f"{plain.url}{path}?source={source}&since={escaped(cursor)}"
                assert (await curl(url)).status == 400
        for last in ("x", "a,b", ",", "x" * 3000):
            header = ("-H", f"Last-Event-ID: {last}")
            assert (await curl(f"{plain.url}/sse?source={source}", *header)).status == 400


# --- Bad messages


@pytest.mark.parametrize(
    "message",
    [
        "",
        "x",
        "null",
        "[]",
        "{}",
        '{"subscribe":1}',
        '{"subscribe":null}',
        '{"subscribe":"repo:o/x","unsubscribe":"repo:o/x"}',
        '{"subscribe":"repo:o/x","sinse":"latest"}',
        '{"since":"latest"}',
        '{"publish":"repo:o/x"}',
        "[" * 60_000,
        '{"subscribe":' * 4000,
        '{"subscribe":"repo:o/x"} trailing',
        '{"subscribe":"repo:\\ud800"}',
        '{"unsubscribe":"\\ud800"}',
        '{"subscribe":"repo:o/x","since":"\\udfff"}',
    ],
    ids=lambda text: text[:40],
)
async def test_what_is_no_command_is_told_and_closed(plain, publish, message):
    async with undisturbed(plain, publish), joined(plain.ws) as ear:
        await ear.socket.send(message)
        code, reason = await ear.closed()
        assert (code, bool(reason)) == (4400, True)


async def test_too_long_and_binary_messages_are_told_and_closed(plain, small, publish, source):
    async with undisturbed(plain, publish):
        for server, limit in ((plain, 65_536), (small, 1024)):
            async with joined(server.ws) as ear:
                await ear.socket.send(json.dumps({"unsubscribe": source}).ljust(limit - 50))
                await ear.see("error", source)
                await ear.socket.send("x" * (limit + 1))
                assert (await ear.closed())[0] == 1009
            async with joined(server.ws) as ear:  # in pieces, none of them too long
                await ear.socket.send("x" * (limit // 4 + 1) for _ in range(4))
                assert (await ear.closed())[0] == 1009
            async with joined(server.ws) as ear:
                await ear.socket.send(os.urandom(300))
                assert (await ear.closed())[0] == 1003


async def raw(server: Server, *data: bytes, timeout: float = 5, patience: float = 0.0) -> bytes:
    """What comes back until the server ends the connection. AssertionError if it does not."""
    reader, writer = await asyncio.open_connection(*server.address)
    try:
        for piece in data:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(patience)
        async with asyncio.timeout(timeout):
            return await reader.read()
    except ConnectionError:
        return b""
    except TimeoutError:
        raise AssertionError(f"still open after {data!r:.80}") from None
    finally:
        writer.transport.abort()


UPGRADE = (
    b"GET /ws?source=repo:o/x HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


async def test_garbage_instead_of_http_is_refused(plain, publish):
    async with undisturbed(plain, publish):
        noise = [
            os.urandom(2000) + b"\r\n\r\n",
            b"\x00" * 100 + b"\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(500),  # TLS
            b"GET\r\n\r\n",
            b"GET /ws HTTP/9.9\r\n\r\n",
            b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
            b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
            b"GET /ws HTTP/1.1\r\n" + b"".join(b"X%d: x\r\n" % n for n in range(100_000)) + b"\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"*3\r\n$9\r\nSUBSCRIBE\r\n$1\r\n*\r\n",
        ]
        for garbage in noise:
            answer = await raw(plain, garbage)
            assert answer[:12] in {b"HTTP/1.1 400", b"HTTP/1.0 400", b""}, garbage[:50]
        broken = [
            UPGRADE.replace(b"Version: 13", b"Version: 99"),
            UPGRADE.replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"short"),
            UPGRADE.replace(b"Upgrade: websocket", b"Upgrade: h2c"),
        ]
        for handshake in broken:
            answer = await raw(plain, handshake.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            assert answer[:10] == b"HTTP/1.1 4", handshake


async def test_clients_that_leave_at_once_are_no_news(plain, publish):
    """Of the log, too: see the fixture."""
    async with undisturbed(plain, publish):
        requests = [UPGRADE, UPGRADE[:50], b"GET /sse?source=repo:o/x HTTP/1.1\r\nHost: localhost\r\n\r\n"]
        requests.append(UPGRADE.replace(b"repo:o/x", b"repo:o/x&since=earliest"))
        for number in range(300):
            _, writer = await asyncio.open_connection(*plain.address)
            writer.write(requests[number % len(requests)])
            await asyncio.sleep(number % 7 / 1000)
            writer.transport.abort()


@pytest.mark.parametrize(
    "garbage",
    [
        b"\xff" * 100,
        b"\x81\x85abcd" + b"\xff" * 5,  # a text that is not UTF-8 once unmasked
        b"\x83\x80abcd",  # no such opcode
        b"\xc1\x80abcd",  # a reserved bit
        b"\x80\x80abcd",  # goes on with nothing
        b"\x89\xfe\x00\xffabcd" + b"x" * 255,  # a ping that is too long
        b"\x81\xff" + struct.pack(">Q", 2**62) + b"abcd",  # four exabytes, it says
        b"\x88\x81abcdx",  # a close with half a code
        bytes(range(256)) * 40,
        b"GET / HTTP/1.1\r\n\r\n",
    ],
    ids=lambda data: data[:6].hex(),
)
async def test_garbage_in_a_websocket_ends_it(plain, publish, garbage):
    async with undisturbed(plain, publish):
        answer = await raw(plain, UPGRADE, garbage, patience=0.05)
        assert answer.startswith(b"HTTP/1.1 101")
        # Its last words are a close frame with a reason why.
        frames = answer.partition(b"\r\n\r\n")[2]
        assert b"\x88" in frames
        code = int.from_bytes(frames[frames.rindex(b"\x88") + 2 :][:2])
        assert code in {1002, 1003, 1007, 1009, 4400}


async def test_clients_that_answer_no_ping_or_begin_and_say_nothing_are_gone(plain, publish):
    """`_HEARTBEAT` is 4 s there and not 15, which takes 6 s and not 22.5; `_IDLE` is 3 s, not 60."""
    beginnings = (
        b"",
        b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    )
    async with undisturbed(plain, publish):
        began = time.monotonic()
        # One that answers stays, however quiet it is.
        async with joined(plain.ws) as ear:
            answer, *_ = await asyncio.gather(
                *(raw(plain, first, timeout=20) for first in (UPGRADE, *beginnings))
            )
            assert 4 < time.monotonic() - began < 18
            assert b"\x89\x00" in answer
            await asyncio.sleep(1)
            assert not ear.ended


async def test_many_commands_in_a_burst_disturb_nobody(plain, publish):
    async with undisturbed(plain, publish), joined(plain.ws) as ear:
        sources = [new_source() for _ in range(50)]
        for _ in range(10):
            for source in sources:
                await ear.say(subscribe=source)
            for source in sources:
                await ear.say(unsubscribe=source)
        await ear.until(lambda: sum(1 for _ in ear.of("unsubscribed")) == 500)
        after = len(ear.messages)
        for source in sources:
            await ear.say(subscribe=source)
        await ear.until(lambda: sum(m["kind"] == "subscribed" for m in ear.messages[after:]) == 50)
        sent = [place for source in sources for place in await publish(source)]
        await ear.until(lambda: {*ids(sent)} <= {*ear.ids()})
        assert len(ear.ids()) == 50


# --- Tokens


def token(key: Any = SECRET, *, algorithm: str = "HS256", life: float = 60, **claims: Any) -> str:
    content = {"exp": time.time() + life, "read": ["repo:o/*"], "write": []} | claims
    return jwt.encode({name: value for name, value in content.items() if value is not None}, key, algorithm)


def bearer(text: str) -> dict[str, Any]:
    return {"additional_headers": {"Authorization": f"Bearer {text}"}}


async def test_a_token_is_taken_by_header_first_message_or_query(guarded, publish, source):
    good = token()
    async with (
        joined(guarded.ws, source, **bearer(good)) as by_header,
        joined(guarded.ws, source, wait=False) as by_message,
        joined(f"{guarded.ws}?access_token={good}&source={source}") as by_query,
    ):
        await by_message.say(token=good)
        for ear in (by_message, by_query):
            await ear.see("subscribed", source)
        (place,) = await publish(source)
        for ear in (by_header, by_message, by_query):
            assert await ear.receive(1) == [place.id]
    async with streaming(guarded.url, source, options=("-H", f"Authorization: bearer {good}")) as stream:
        (place,) = await publish(source)
        assert await stream.receive(1) == [place.id]
    await until_status(f"{guarded.url}/events/{place.id}?pos={place.pos}&access_token={good}", 200)
    assert (await curl(f"{guarded.url}/events?source={source}&access_token={good}")).status == 200


def bad_tokens() -> dict[str, str]:
    from cryptography.hazmat.primitives.asymmetric import ec

    head, body, signature = token().split(".")
    stronger = jwt.utils.base64url_encode(json.dumps({"exp": 9e9, "read": ["*"]}).encode()).decode()
    other = ec.generate_private_key(ec.SECP256R1())
    return {
        "expired": token(life=-1),
        "no exp": token(exp=None),
        "exp is no number": token(exp="tomorrow"),
        "alg none": token(None, algorithm="none"),
        "another secret": token("another-secret-that-is-long-enough-too"),
        "another algorithm": token(algorithm="HS512"),
        "a public key's": token(other, algorithm="ES256"),
        "other claims": f"{head}.{stronger}.{signature}",
        "no signature": f"{head}.{body}.",
        "not yet": token(nbf=time.time() + 3600),
        "read is no list": token(read="*"),
        "read holds no texts": token(read=[1]),
        "not a token": "x",
        "dots": "..",
        "long": "x" * 5000,
    }


async def test_bad_tokens_are_refused_everywhere(guarded, publish, source):
    async with undisturbed(guarded, publish, **bearer(token())):
        for name, text in bad_tokens().items():
            with pytest.raises(InvalidStatus) as refusal:
                await connect(f"{guarded.ws}?source={source}", proxy=None, **bearer(text))
            assert refusal.value.response.status_code == 401, name
            async with joined(guarded.ws, source, wait=False) as ear:
                await ear.say(token=text)
                code, reason = await ear.closed()
                assert (code, bool(reason)) == (4401, True), name
                assert ear.messages == []
            for path in (f"/sse?source={source}", f"/events?source={source}", "/events/x", "/metrics"):
                answer = await curl(guarded.url + path, "-H", f"Authorization: Bearer {text}")
                assert answer.status == 401, (name, path)
                assert "www-authenticate" in answer.headers
                assert "error" in answer.json
        # Bytes that are not even text.
        for header in (b"Authorization: Bearer \xff\xfe", b"Authorization: \xff", b"Authorization: Bearer"):
            request = b"GET /events?source=repo:o/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + header
            assert (await raw(guarded, request + b"\r\n\r\n"))[9:12] == b"401", header
        answer = await curl(f"{guarded.url}/events?source={source}&access_token=%ff%fe")
        assert answer.status == 401


async def test_without_a_token_nothing_is_heard_and_the_time_is_limited(guarded, publish, source):
    async with undisturbed(guarded, publish, **bearer(token())):
        for path in (f"/sse?source={source}", f"/events?source={source}", "/events/x", "/metrics"):
            assert (await curl(guarded.url + path)).status == 401, path
        began = time.monotonic()
        async with joined(guarded.ws, source, wait=False) as ear:
            code, reason = await ear.closed()
            assert (code, bool(reason)) == (4401, True)
            assert 2.5 < time.monotonic() - began < 15
            assert ear.messages == []
        for first in ('{"subscribe":"repo:o/x"}', "x", b"\x00\x01", '{"token":""}', '{"token":"\\ud800"}'):
            async with joined(guarded.ws, source, wait=False) as ear:
                await ear.socket.send(first)
                assert (await ear.closed())[0] == 4401
                assert ear.messages == []


async def test_a_token_for_other_sources_is_of_no_use(guarded, publish, source):
    other = token(read=["repo:other/*", f"{source}x", "rep"])
    (place,) = await publish(source)
    async with undisturbed(guarded, publish, **bearer(token())):
        async with joined(guarded.ws, source, wait=False, **bearer(other)) as ear:
            assert (await ear.closed())[0] == 4403
            assert not ear.messages
        async with joined(guarded.ws, "repo:other/x", **bearer(other)) as ear:
            await ear.say(subscribe=source)
            assert (await ear.closed())[0] == 4403
        header = ("-H", f"Authorization: Bearer {other}")
        for path in ("/sse", "/events"):
            assert (await curl(f"{guarded.url}{path}?source={source}", *header)).status == 403
            assert (
                await curl(f"{guarded.url}/sse?source=repo:other/x&source={source}", *header)
            ).status == 403
        # Not even that it exists.
        there = await curl(f"{guarded.url}/events/{place.id}?pos={place.pos}", *header)
        missing = await curl(f"{guarded.url}/events/{uuid4()}?pos={place.pos}", *header)
        assert (
            (there.status, set(there.headers))
            == (missing.status, set(missing.headers))
            == (404, set(missing.headers))
        )
    async with joined(guarded.ws, wait=False, **bearer(token(read=[]))) as ear:
        await ear.say(subscribe=source)
        assert (await ear.closed())[0] == 4403


async def test_expiry_ends_what_is_open(guarded, publish, source):
    short = token(life=4)
    async with (
        undisturbed(guarded, publish, **bearer(token())),
        joined(guarded.ws, source, **bearer(short)) as ear,
        streaming(guarded.url, source, options=("-H", f"Authorization: Bearer {short}")) as stream,
    ):
        code, reason = await ear.closed()
        assert (code, bool(reason)) == (4401, True)
        await until(lambda: stream.ended)
        (place,) = await publish(source)
        assert place.id not in ear.ids() + stream.ids()


async def test_keys_and_algorithms_cannot_be_mixed(tmp_path):
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    def access(**values: object) -> Access:
        return Access(ServeSettings.load(kafka_url="127.0.0.1:1", **values))

    private = {
        "RS256": rsa.generate_private_key(65_537, 2048),
        "ES256": ec.generate_private_key(ec.SECP256R1()),
        "EdDSA": ed25519.Ed25519PrivateKey.generate(),
    }
    for algorithm, key in private.items():
        pem = key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
        path = tmp_path / f"{algorithm}.pem"
        path.write_bytes(pem)
        checks = access(jwt_public_key=path)
        assert (await checks.grant(token(key, algorithm=algorithm))).may_read("repo:o/x")
        # The public key is no secret: whoever knows it must not be able to sign with it.
        body = token("x" * 32).split(".")[1]
        head = jwt.utils.base64url_encode(b'{"alg":"HS256","typ":"JWT"}').decode()
        import hashlib
        import hmac

        signed = hmac.digest(pem, f"{head}.{body}".encode(), hashlib.sha256)
        forged = f"{head}.{body}.{jwt.utils.base64url_encode(signed).decode()}"
        others = [token(other, algorithm=name) for name, other in private.items() if name != algorithm]
        for bad in (forged, token(None, algorithm="none"), token(), *others):
            with pytest.raises(Denied):
                await checks.grant(bad)
    for bad_settings in (
        {"jwt_secret": "short"},
        {"jwt_public_key": tmp_path / "nothing.pem"},
        {"jwt_public_key": __file__},
        {"jwt_secret": SECRET, "jwt_public_key": tmp_path / "RS256.pem"},
    ):
        with pytest.raises(ConfigError, match="jwt_"):
            access(**bad_settings)


# --- Pages, names and addresses


async def test_pages_of_strangers_may_not_connect(plain, guarded, publish, source):
    host = plain.url.partition("//")[2]
    async with undisturbed(plain, publish):
        for origin in (
            "https://evil.example",
            "null",
            f"http://{host}.evil.example",
            "http://127.0.0.1:1",
            "x",
            "",
        ):
            with pytest.raises(InvalidStatus) as refusal:
                await connect(plain.ws, additional_headers={"Origin": origin}, proxy=None)
            assert refusal.value.response.status_code == 403, origin
            for path in ("/sse", "/events"):
                answer = await curl(f"{plain.url}{path}?source={source}", "-H", f"Origin: {origin or ';'}")
                assert answer.status == 403 or not origin
                assert "access-control-allow-origin" not in answer.headers
        async with joined(plain.ws, source, additional_headers={"Origin": f"http://{host}"}):
            pass
    header = {"Origin": "https://friend.example", "Authorization": f"Bearer {token()}"}
    async with joined(guarded.ws, source, additional_headers=header):
        pass
    arguments = [word for name, value in header.items() for word in ("-H", f"{name}: {value}")]
    answer = await curl(f"{guarded.url}/events?source={source}", *arguments)
    assert answer.headers["access-control-allow-origin"] == "https://friend.example"
    preflight = ("-X", "OPTIONS", "-H", "Access-Control-Request-Method: GET")
    answer = await curl(
        f"{guarded.url}/events?source={source}", *preflight, "-H", "Origin: https://friend.example"
    )
    assert answer.status in {200, 204}
    assert "authorization" in answer.headers["access-control-allow-headers"].lower()
    answer = await curl(
        f"{guarded.url}/events?source={source}", *preflight, "-H", "Origin: https://evil.example"
    )
    assert answer.status == 403


async def test_a_page_that_gave_itself_our_address_may_not_connect(plain, guarded, source):
    """DNS rebinding: the browser believes that evil.example is at 127.0.0.1, and sends no foreign origin."""
    for host in (
        "evil.example",
        "evil.example:80",
        "127.0.0.1.evil.example",
        "localhost.evil.example:80",
        "",
    ):
        for path in (f"/events?source={source}", f"/sse?source={source}", "/", "/metrics"):
            answer = await curl(plain.url + path, "-H", f"Host: {host}" if host else "Host;")
            assert answer.status in {400, 403}, (host, path)
    port = plain.address[1]
    for host in (f"localhost:{port}", f"127.0.0.1:{port}", "[::1]:80", "localhost", "127.0.0.1"):
        assert (await curl(f"{plain.url}/events?source={source}", "-H", f"Host: {host}")).status == 200, host
    # With tokens a page of a stranger has none, and the server may have any name.
    header = ("-H", "Host: gateway.example", "-H", f"Authorization: Bearer {token()}")
    assert (await curl(f"{guarded.url}/events?source={source}", *header)).status == 200


async def test_it_listens_to_the_world_with_tokens_only(tmp_path):
    async def serve(listen: str) -> None:
        program = command(
            "serve", "--listen", listen, kafka_url="127.0.0.1:1", redis_url="redis://127.0.0.1:1"
        )
        process = await asyncio.create_subprocess_exec(
            *program, cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        out, _ = await process.communicate()
        assert process.returncode == 2, out
        assert b"listen" in out
        assert b"JWT_SECRET" in out

    addresses = ["0.0.0.0:0", "[::]:0", "gateway.example:80"]
    await asyncio.gather(*map(serve, addresses))
    for listen in addresses:
        assert Access(ServeSettings.load(kafka_url="127.0.0.1:1", listen=listen, jwt_secret=SECRET)).required


# --- Limits


async def test_no_more_sources_than_allowed(small, publish):
    sources = [new_source() for _ in range(4)]
    async with undisturbed(small, publish):
        async with joined(small.ws, *sources[:3]) as ear:
            await ear.say(unsubscribe=sources[0])
            await ear.say(subscribe=sources[3])
            await ear.see("subscribed", sources[3])
            await ear.say(subscribe=sources[0])
            code, reason = await ear.closed()
            assert (code, bool(reason)) == (4429, True)
        async with joined(small.ws, *sources, wait=False) as ear:
            assert (await ear.closed())[0] == 4429
        query = "&".join(f"source={source}" for source in sources)
        answer = await curl(f"{small.url}/sse?{query}")
        assert 400 <= answer.status < 500
        assert "3" in answer.json["error"]


async def test_no_more_connections_than_allowed(small, publish, source):
    async with undisturbed(small, publish), AsyncExitStack() as clients:
        ears = [await clients.enter_async_context(joined(small.ws, source)) for _ in range(4)]
        async with streaming(small.url, source):
            with pytest.raises(InvalidStatus) as refusal:
                await connect(small.ws, proxy=None)
            assert refusal.value.response.status_code in {429, 503}
            answer = await curl(f"{small.url}/sse?source={source}")
            assert answer.status in {429, 503}
            assert "retry-after" in answer.headers
            assert (await curl(f"{small.url}/events?source={source}")).status == 200
            ears[0].drop()
            await until(lambda: ears[0].ended)
            for _ in range(50):
                try:
                    await clients.enter_async_context(joined(small.ws, source))
                    break
                except InvalidStatus:
                    await asyncio.sleep(0.05)
            else:
                pytest.fail("its place is not free after it left")


# --- Slow clients


def small_socket(server: Server) -> socket.socket:
    """Connected, with next to no room for what it does not read."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.connect(server.address)
    return made


@pytest.mark.parametrize("way", ["ws", "sse"])
async def test_who_does_not_read_is_closed_and_resumes_and_slows_nobody(plain, publish, source, way):
    """Ten of them, at 1 MiB each (the default) and the kernel's share."""
    request = UPGRADE if way == "ws" else b"GET /sse?source=repo:o/x HTTP/1.1\r\nHost: localhost\r\n\r\n"
    slow = [small_socket(plain) for _ in range(10)]
    began = plain.memory
    gone = (await metrics(plain))["dualstream_slow_clients_total"] + len(slow)
    async with undisturbed(plain, publish), joined(plain.ws, source) as quick, AsyncExitStack() as sockets:
        cursor = quick.cursor
        for one in slow:
            sockets.callback(one.close)
            one.sendall(request.replace(b"repo:o/x", source.encode()))
        await until_clients(plain, 12)
        sent, longest = await flood(plain, publish, source, quick, gone)
        codes = await asyncio.gather(*(asyncio.to_thread(rest_of, one) for one in slow))
        assert longest < 10
        assert plain.memory - began < len(slow) * 3 * 2**20 + 40 * 2**20
        # Whoever reads again at once is told; the others were broken off.
        assert set(codes) <= {4408, None} if way == "ws" else set(codes) == {None}
        assert 4408 in codes or way == "sse"
        await until_clients(plain, 2)
        for known in (place_of(cursor), sent[-5000].offset):
            after = [place.id for place in sent if place.offset > known]
            assert (await pages(plain, source, at(cursor, known), len(after))) == after
        recent = sent[-9001:]  # 10,000 may be caught up
        async with joined(plain.ws, source, since=at(cursor, recent[0].offset)) as back:
            assert back.ids() == ids(recent[1:])


async def flood(
    server: Server, publish: Published, source: str, quick: Socket, gone: float
) -> tuple[list[Place], float]:
    """Until so many slow clients were closed: what was published, and how long a quick one waited at most."""
    sent: list[Place] = []
    longest = 0.0
    async with asyncio.timeout(60):
        while (await metrics(server))["dualstream_slow_clients_total"] < gone:
            for _ in range(4):
                began = time.monotonic()
                sent += await publish(source, 500)
                await quick.receive(len(sent))
                longest = max(longest, time.monotonic() - began)
    assert sorted(quick.ids()) == sorted(ids(sent))
    return sent, longest


async def pages(server: Server, source: str, since: str, count: int) -> list[str]:
    """The ids of so many events after a cursor."""
    found: list[str] = []
    async with asyncio.timeout(30):
        while len(found) < count:
            page = (await curl(f"{server.url}/events?source={source}&since={since}&limit=1000")).json
            found += [event["id"] for event in page["events"]]
            since = page["cursor"]
    return found[:count]


def rest_of(one: socket.socket) -> int | None:
    """The close code at the end of a stream; None when it was broken off."""
    one.settimeout(10)
    data = b""
    try:
        while piece := one.recv(2**20):
            data += piece
    except ConnectionError:
        return None
    frames = data.partition(b"\r\n\r\n")[2]
    code = None
    while len(frames) >= 2:
        size, start = frames[1], 2
        if size == 126:
            size, start = int.from_bytes(frames[2:4]), 4
        body = frames[start : start + size]
        if frames[0] == 0x88:
            code = int.from_bytes(body[:2])
        frames = frames[start + size :]
    return code


async def metrics(server: Server) -> dict[str, float]:
    text = (await curl(f"{server.url}/metrics")).body.decode()
    return {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if not line.startswith("#")
    }


async def until_clients(server: Server, count: int) -> None:
    async def clients() -> float:
        return (await metrics(server))["dualstream_clients"]

    await until_so(clients, count)


async def test_the_past_does_not_fill_the_memory_for_who_does_not_read(plain, publish):
    """Eight sources, each with much to catch up with, for ten clients that never read a word of it."""
    sources = [new_source() for _ in range(8)]
    for source in sources:
        places = await publish(source, 4000)
    await until_status(f"{plain.url}/events/{places[-1].id}?pos={places[-1].pos}", 200)
    query = "&".join(f"source={source}" for source in sources).encode()
    request = UPGRADE.replace(b"source=repo:o/x", query + b"&since=earliest")
    began = plain.memory
    slow = [small_socket(plain) for _ in range(10)]
    try:
        async with undisturbed(plain, publish):
            for one in slow:
                one.sendall(request)
            most = 0
            for _ in range(20):
                await asyncio.sleep(0.1)
                most = max(most, plain.memory - began)
        # All of it would be 14 MB for each client: the limit, and one source's past, may wait.
        assert most < 60 * 2**20, f"{most / 2**20:.0f} MiB"
    finally:
        for one in slow:
            one.close()
