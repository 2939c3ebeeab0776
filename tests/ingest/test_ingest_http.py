"""Events over HTTP: from clients that nobody here wrote, into the real log, or a plain no."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from contextlib import asynccontextmanager
from typing import NamedTuple
from urllib.parse import quote_plus

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from dualstream_lab import DualPublisher
from dualstream_lab.config import ServeSettings
from dualstream_lab.http_server import HttpRefusal
from dualstream_lab.ingest.body import Bodies, LineSplitter
from dualstream_lab.ingest.http import _Events, ingest_routes
from tests.publisher.helpers import heard, ids_of, mute, read_log, until

SECRET = "It's a Secret to Everybody"
JSON, LINES, FORM = "application/json", "application/x-ndjson", "application/x-www-form-urlencoded"
EVENT = b'{"type":"push","source_type":"repo","source_id":"o/r","data":{ "n" : 1.50 }}'


class Writer(NamedTuple):
    """Whoever sends something, and to which sources it may."""

    source: str | None = None
    name: str = ""
    expires: float | None = None

    def may_write(self, source):
        return self.source in {None, source}


async def let_all(request):
    """Everybody may write everything."""
    return Writer()


async def by_bearer(request):
    """The bearer is the source that may be written."""
    bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
    if not bearer:
        raise web.HTTPUnauthorized(text="who are you?")
    return Writer(bearer, name=bearer)


@asynccontextmanager
async def serving(routes):
    """The base URL of a server with these routes."""
    app = web.Application()
    app.add_routes(routes)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        host, port = runner.addresses[0]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


@pytest.fixture
def server(settings):
    """Makes a server with a publisher; keyword arguments are settings."""

    @asynccontextmanager
    async def make(authorize=let_all, **values):
        where = ServeSettings.load(**(settings().model_dump(exclude_unset=True) | values))
        async with (
            DualPublisher(where) as publisher,
            serving(ingest_routes(publisher, settings=where, authorize=authorize)) as url,
        ):
            yield url

    return make


async def curl(url, *arguments, body=b"", kind=JSON):
    """(status, headers, JSON) as curl got them."""
    process = await asyncio.create_subprocess_exec(
        *("curl", "-sS", "--max-time", "60", "-o", "-", "-D", "/dev/stderr", "-H", f"Content-Type: {kind}"),
        *("--data-binary", "@-", *arguments, url),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, head = await process.communicate(body)
    assert process.returncode == 0, head.decode()
    # "100 Continue" comes before the answer where a body is long.
    status, *lines = head.decode().strip().split("\r\n\r\n")[-1].split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return int(status.split()[1]), headers, json.loads(out)


def jsonl(numbers, source="o/r", **fields) -> bytes:
    event = {"type": "push", "source_type": "repo", "source_id": source} | fields
    return b"".join(json.dumps(event | {"id": f"e{n}", "data": n}).encode() + b"\n" for n in numbers)


# Events


async def test_an_event_from_curl_is_in_the_log_as_it_was_and_announced(server, stack, topic):
    async with server() as url, heard(stack.redis_url, "events:repo:o/r") as messages:
        status, _, said = await curl(f"{url}/ingest", body=EVENT)
        assert status == 202
        assert said["accepted"] == 1
        await until(lambda: messages)
    (record,) = await read_log(stack.kafka_url, topic)
    (place,) = said["events"]
    assert place == {"id": ids_of([record])[0], "pos": f"{record.partition}:{record.offset}"}
    assert record.value.endswith(b'"data":{ "n" : 1.50 }}')
    assert json.loads(messages[0][1])["pos"] == place["pos"]


@pytest.mark.parametrize("kind", [LINES, "application/jsonl; charset=UTF-8"])
async def test_json_lines_are_published_in_order_and_empty_ones_left_out(server, stack, topic, kind):
    async with server() as url:
        body = b"\n\r\n" + jsonl(range(10)) + b"  \n" + jsonl(range(10, 20)).rstrip()
        status, _, said = await curl(f"{url}/ingest", body=body, kind=kind)
        assert (status, said["accepted"]) == (202, 20)
    log = await read_log(stack.kafka_url, topic)
    assert ids_of(log) == [place["id"] for place in said["events"]] == [f"e{n}" for n in range(20)]
    assert [place["pos"] for place in said["events"]] == [f"{r.partition}:{r.offset}" for r in log]


async def test_an_array_is_several_events(server, stack, topic):
    async with server() as url:
        events = b",\n".join(jsonl([n]).strip() for n in range(700))
        status, _, said = await curl(f"{url}/ingest", body=b" [" + events + b"]\n")
        assert (status, said["accepted"]) == (202, 700)
    assert ids_of(await read_log(stack.kafka_url, topic)) == [f"e{n}" for n in range(700)]


async def test_many_events_are_counted_and_all_in_the_log(server, stack, topic):
    async with server() as url:
        status, _, said = await curl(f"{url}/ingest", body=jsonl(range(25_000)), kind=LINES)
        assert (status, said) == (202, {"accepted": 25_000})
    assert ids_of(await read_log(stack.kafka_url, topic)) == [f"e{n}" for n in range(25_000)]


BAD = b'{"type":"push","source_type":"repo","source_id":"a b"}'


@pytest.mark.parametrize(
    ("kind", "body", "status", "told"),
    [
        (JSON, b"{broken", 400, "event 1: "),
        (JSON, b"", 400, "no event"),
        (JSON, b" \n", 400, "no event"),
        (JSON, b"[]", 400, "no event"),
        (JSON, b"[" + EVENT + b",", 400, "not JSON"),
        (JSON, b"[" * 100_000, 422, "event 1: Expected `object`, got `array`"),
        (JSON, b"[" + EVENT + b"}", 400, "not JSON"),
        (JSON, b"[" + EVENT + b',{"type":7}]', 422, "event 2: Expected `str`, got `int` - at `$.type`"),
        (JSON, b'{"type":"push"}', 422, "source_type"),
        (JSON, b"17", 422, "Expected `object`, got `int`"),
        (JSON, b"[" + EVENT + b",17]", 422, "event 2: "),
        (JSON, EVENT[:-1] + b',"id":"a b"}', 422, "id 'a b'"),
        (JSON, EVENT.replace(b"1.50", b'"\xff"'), 400, "utf-8"),
        (LINES, jsonl(range(5)) + b"\n{broken\n" + jsonl([6]), 400, "line 7: "),
        (LINES, jsonl(range(5_000)) + BAD, 422, "line 5001: source_id 'a b'"),
        (
            LINES,
            b"\n".join([BAD, EVENT, BAD, b"{"]),
            422,
            "line 1: source_id 'a b': only printable characters",
        ),
        (LINES, b"[" + EVENT + b"]", 422, "got `array`"),
    ],
)
async def test_a_bad_event_is_named_and_nothing_of_the_request_is_sent(
    server, stack, topic, kind, body, status, told
):
    async with server() as url:
        answered, _, said = await curl(f"{url}/ingest", body=body, kind=kind)
    assert answered == status, said
    assert told in said["error"]
    assert said["allowed"]
    assert await read_log(stack.kafka_url, topic) == []


async def test_every_bad_line_is_named_up_to_twenty(server):
    async with server() as url:
        body = b"\n".join([BAD, EVENT, BAD])
        _, _, said = await curl(f"{url}/ingest", body=body, kind=LINES)
        assert [entry["line"] for entry in said["invalid"]] == [1, 3]
        assert "a b" in said["invalid"][1]["reason"]
        _, _, said = await curl(f"{url}/ingest", body=b"\n".join([BAD] * 5_000), kind=LINES)
        assert [entry["line"] for entry in said["invalid"]] == list(range(1, 21))


@pytest.mark.parametrize(
    ("kind", "told"), [(FORM, FORM), ("text/plain", "text/plain"), (f"{JSON}; charset=latin-1", "latin-1")]
)
async def test_another_content_type_is_refused_with_those_allowed(server, kind, told):
    async with server() as url:
        status, _, said = await curl(f"{url}/ingest", body=EVENT, kind=kind)
    assert status == 415
    assert told in said["error"]
    assert said["allowed"] in {"application/json or application/x-ndjson or application/jsonl", "utf-8"}


@pytest.mark.parametrize("how", [(), ("-H", "Transfer-Encoding: chunked"), ("-H", "Expect:")])
async def test_a_body_above_the_limit_is_refused_however_it_comes(server, stack, topic, how):
    async with server(max_body_bytes=100_000) as url:
        status, _, said = await curl(f"{url}/ingest", *how, body=jsonl(range(2_000)), kind=LINES)
        assert status == 413
        assert "DUALSTREAM_MAX_BODY_BYTES" in said["allowed"]
        status, _, _ = await curl(f"{url}/ingest", body=EVENT)
        assert status == 202
    assert len(await read_log(stack.kafka_url, topic)) == 1


async def test_a_long_array_is_refused_with_the_form_that_is_allowed(server):
    async with server() as url:
        status, _, said = await curl(f"{url}/ingest", body=b"[" + b"1," * 600_000 + b"1]")
    assert status == 413
    assert "JSON Lines" in said["allowed"]


async def test_who_may_not_write_a_source_writes_nothing(server, stack, topic):
    mine = ("-H", "Authorization: Bearer repo:o/mine")
    async with server(authorize=by_bearer) as url:

        async def post(*arguments, body):
            process = await asyncio.create_subprocess_exec(
                *("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-H", f"Content-Type: {LINES}"),
                *("--data-binary", body.decode(), *arguments, f"{url}/ingest"),
                stdout=asyncio.subprocess.PIPE,
            )
            return int((await process.communicate())[0])

        assert await post(body=jsonl([1], "o/mine")) == 401
        assert await post(*mine, body=jsonl([1], "o/mine") + jsonl([2], "o/other")) == 403
        assert await read_log(stack.kafka_url, topic) == []
        assert await post(*mine, body=jsonl([1], "o/mine")) == 202


async def test_an_event_larger_than_the_topic_takes_is_named(server, stack, topic):
    large = jsonl([7], x="").replace(b'"data": 7', b'"data": "%b"' % (b"x" * 1_100_000))
    async with server() as url:
        status, _, said = await curl(f"{url}/ingest", body=jsonl(range(5)) + large, kind=LINES)
        assert status == 422
        assert "line 6: has 11" in said["error"]
        assert await read_log(stack.kafka_url, topic) == []
        status, _, said = await curl(f"{url}/ingest", body=jsonl(range(2_500)) + large, kind=LINES)
        assert (status, said["accepted"]) == (422, 2_000)
        assert said["invalid"][0]["line"] == 2_501
    assert ids_of(await read_log(stack.kafka_url, topic)) == [f"e{n}" for n in range(2_000)]


# Trouble


async def test_no_room_is_503_with_retry_after(settings, stack):
    where = ServeSettings.load(
        **settings(buffer_events=10, buffer_timeout=0.2).model_dump(exclude_unset=True)
    )
    async with (
        DualPublisher(where) as publisher,
        serving(ingest_routes(publisher, settings=where, authorize=let_all)) as url,
    ):
        await mute(stack.brokers[0])
        waiting = asyncio.create_task(curl(f"{url}/ingest", body=jsonl(range(10)), kind=LINES))
        await until(lambda: publisher.stats().buffered_events == 10)
        status, headers, said = await curl(f"{url}/ingest", body=jsonl([10], "o/other"), kind=LINES)
        assert (status, headers["retry-after"], said["accepted"]) == (503, "1", 0)
        assert "was not sent" in said["error"]
        stack.brokers[0].resume()
        assert (await waiting)[0] == 202
        assert (await curl(f"{url}/ingest", body=jsonl([10], "o/other"), kind=LINES))[0] == 202


async def test_kafka_away_is_answered_in_time_with_the_ids_and_the_retry_is_one_event(server, stack, topic):
    # Shorter than a broker's session (4 s): it must not be fenced when the next test begins.
    async with server(delivery_timeout=1) as url:
        await mute(stack.brokers[0])
        began = time.monotonic()
        status, headers, said = await curl(f"{url}/ingest", body=jsonl(range(3)), kind=LINES)
        assert time.monotonic() - began < 15
        assert (status, said["accepted"]) == (504, 0)
        assert headers["retry-after"]
        assert said["events"] == [{"id": f"e{n}", "unknown": True} for n in range(3)]
        # Another event for this partition has not been handed over: it is rejected for sure.
        status, headers, said = await curl(f"{url}/ingest", body=jsonl([9]), kind=LINES)
        assert status == 503
        assert said["events"][0]["id"] == "e9"
        assert said["events"][0]["rejected"]
        stack.brokers[0].resume()

        async def again():
            return (await curl(f"{url}/ingest", body=jsonl(range(3)), kind=LINES))[0] == 202

        async with asyncio.timeout(30):
            while not await again():
                pass
    assert {"e0", "e1", "e2"} == set(ids_of(await read_log(stack.kafka_url, topic)))


async def test_a_dead_kafka_is_answered_in_time(server, stack):
    async with server(delivery_timeout=2, close_timeout=1) as url:
        stack.brokers[0].kill()
        began = time.monotonic()
        status, headers, _ = await curl(f"{url}/ingest", body=EVENT)
        assert status in {503, 504}
        assert headers["retry-after"]
        assert time.monotonic() - began < 15


async def test_a_publisher_that_is_not_started_is_503(settings):
    where = ServeSettings.load(**settings().model_dump(exclude_unset=True))
    async with serving(ingest_routes(DualPublisher(where), settings=where, authorize=let_all)) as url:
        status, headers, said = await curl(f"{url}/ingest", body=EVENT)
    assert (status, headers["retry-after"]) == (503, "1")
    assert said["error"] == "Kafka cannot be used now"


def test_a_refusal_may_quote_bytes_that_are_no_text():
    """As aiohttp's parser does that is not compiled, of a chunk's size."""
    assert json.loads(HttpRefusal(400, "not a size: \udcff").body)["error"] == "not a size: \\udcff"


async def test_a_client_that_leaves_in_mid_body_sends_nothing_and_disturbs_nobody(server, stack, topic):
    async with server() as url:
        _, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        head = f"POST /ingest HTTP/1.1\r\nHost: a\r\nContent-Type: {LINES}\r\nContent-Length: 1000\r\n\r\n"
        writer.write(head.encode() + jsonl([1]))
        await writer.drain()
        status, _, _ = await curl(f"{url}/ingest", body=jsonl([2]), kind=LINES)
        assert status == 202
        writer.close()
        await writer.wait_closed()
        status, _, _ = await curl(f"{url}/ingest", body=jsonl([3]), kind=LINES)
        assert status == 202
    assert ids_of(await read_log(stack.kafka_url, topic)) == ["e2", "e3"]


class Accepting:
    """A publisher for what is about bodies, not brokers."""

    async def publish_batch(self, events):
        raise AssertionError("nothing should be sent")


def make_bodies(**limits):
    return Bodies(**({"max_bytes": 10_000, "max_held": 100_000, "min_rate": 0, "limit": "LIMIT"} | limits))


def events_route(bodies):
    handler = _Events(Accepting(), ServeSettings.load(), let_all, bodies)
    from dualstream_lab.ingest.http import _answered

    return [web.post("/ingest", _answered(handler.handle))]


async def slow_body(url, *, until_answered):
    """Send a little of a body and wait; the status."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    head = f"POST /ingest HTTP/1.1\r\nHost: a\r\nContent-Type: {LINES}\r\nContent-Length: 5000\r\n\r\n"
    writer.write(head.encode() + b" " * 1_000)
    try:
        await until_answered.wait()
        return int((await reader.readuntil(b"\r\n\r\n")).split()[1])
    finally:
        writer.close()
        await writer.wait_closed()


async def test_a_body_that_does_not_come_is_408_and_frees_what_it_held():
    bodies = make_bodies(timeout=0.3)
    async with serving(events_route(bodies)) as url:
        at_once = asyncio.Event()
        at_once.set()
        assert await slow_body(url, until_answered=at_once) == 408
        assert bodies.held == 0


@given(st.lists(st.binary(max_size=6).map(lambda part: part.replace(b"x", b"\n")), max_size=12))
def test_lines_are_the_same_in_whatever_pieces_they_come(pieces):
    splitter = LineSplitter()
    lines = [line for piece in pieces for line in splitter.feed(piece)]
    assert [*lines, splitter.rest()] == b"".join(pieces).split(b"\n")


# Webhooks

PUSH = b'{ "ref": "main", "repository": {"full_name": "octo/hello"},\n "n": 1.50 }'


def signed(body: bytes, secret: str = SECRET) -> str:
    """RFC 2104, by hand."""
    key = secret.encode().ljust(64, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in key) + body).digest()
    return "sha256=" + hashlib.sha256(bytes(byte ^ 0x5C for byte in key) + inner).hexdigest()


async def deliver(url, body, *, event="push", delivery="72d3162e-cc78-11e3-81ab-4c9367dc0958", **other):
    kind, signature = other.get("kind", JSON), other.get("signature", signed(body))
    given = {"X-GitHub-Event": event, "X-GitHub-Delivery": delivery, "X-Hub-Signature-256": signature}
    headers = [text for name, value in given.items() if value for text in ("-H", f"{name}: {value}")]
    return await curl(f"{url}/ingest/github", *headers, body=body, kind=kind)


async def test_a_delivery_becomes_one_event_with_its_id_byte_for_byte(server, stack, topic):
    async with server(authorize=by_bearer, github_secret=SECRET) as url:
        status, _, said = await deliver(url, PUSH)
        assert status == 202
        again, _, twice = await deliver(url, PUSH)
        assert (again, twice["id"]) == (202, said["id"]), "a redelivery has the same id"
    record, _ = await read_log(stack.kafka_url, topic)
    assert said == {
        "id": "72d3162e-cc78-11e3-81ab-4c9367dc0958",
        "pos": f"{record.partition}:{record.offset}",
    }
    stored = json.loads(record.value)
    assert (stored["id"], stored["type"], stored["source_id"]) == (said["id"], "push", "octo/hello")
    assert record.value.endswith(b'"data":' + PUSH + b"}")


async def test_a_form_carries_the_same_payload(server, stack, topic):
    payload = '{"action":"opened","organization":{"login":"octo"},"text":"a+b & c é"}'
    async with server(github_secret=SECRET) as url:
        form = f"other=1&payload={quote_plus(payload)}".encode()
        status, _, _ = await deliver(url, form, event="issues", kind=FORM)
        assert status == 202
        status, _, said = await deliver(url, b"other=1", kind=FORM)
        assert status == 400
        assert "payload" in said["error"]
    (record,) = await read_log(stack.kafka_url, topic)
    assert record.value.endswith(b'"data":' + payload.encode() + b"}")
    assert (json.loads(record.value)["type"], record.key) == ("issues.opened", b"octo")


@pytest.mark.parametrize(
    ("change", "status", "told"),
    [
        ({"signature": ""}, 401, "is missing"),
        ({"signature": "sha256=" + "0" * 64}, 401, "is wrong"),
        ({"signature": signed(PUSH, "another secret")}, 401, "is wrong"),
        ({"signature": signed(PUSH + b" ")}, 401, "is wrong"),
        ({"signature": signed(PUSH).removeprefix("sha256=")}, 401, "is wrong"),
        ({"signature": "sha1=" + hashlib.sha1(PUSH).hexdigest()}, 401, "is wrong"),
        ({"kind": "text/plain"}, 415, "text/plain"),
        ({"event": ""}, 400, "X-GitHub-Event"),
        ({"event": "a b"}, 422, "type 'a b'"),
        ({"delivery": ""}, 400, "X-GitHub-Delivery"),
        ({"delivery": "x" * 200}, 400, "X-GitHub-Delivery"),
        ({"body": b"{broken"}, 400, "not a GitHub webhook"),
        ({"body": b'{"sender":{"login":"a"},"n":"\xff"}'}, 400, "UTF-8"),
        ({"body": b"{} {}"}, 400, "trailing characters"),
        (
            {"body": b'{"action":"published"}'},
            422,
            "neither repository.full_name, organization.login nor sender",
        ),
        ({"body": b'{"repository":{"full_name":"a b"}}'}, 422, "a b"),
        ({"body": b'{"repository":"a"}'}, 422, "repository"),
    ],
)
async def test_a_bad_delivery_is_refused_with_the_reason(server, stack, topic, change, status, told):
    async with server(github_secret=SECRET) as url:
        answered, _, said = await deliver(url, change.pop("body", PUSH), **change)
    assert answered == status, said
    assert told in said["error"]
    assert await read_log(stack.kafka_url, topic) == []


async def test_the_signature_is_the_one_of_githubs_documentation(server):
    """Its example: this secret and this body."""
    known = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    async with server(github_secret=SECRET) as url:
        status, _, said = await deliver(url, b"Hello, World!", signature=known)
        assert (status, "not a GitHub webhook" in said["error"]) == (400, True), "past the signature"
        status, _, _ = await deliver(url, b"Hello, World?", signature=known)
        assert status == 401


async def test_a_ping_is_answered_and_not_published(server, stack, topic):
    async with server(github_secret=SECRET) as url:
        status, _, _ = await deliver(url, b'{"zen":"Keep it logically awesome."}', event="ping")
        assert status == 200
        status, _, _ = await deliver(url, b"{}", event="ping", signature="sha256=" + "0" * 64)
        assert status == 401
    assert await read_log(stack.kafka_url, topic) == []


async def test_without_a_secret_no_webhook_is_taken(server):
    async with server() as url:
        status, _, said = await deliver(url, PUSH)
    assert status == 403
    assert "DUALSTREAM_GITHUB_SECRET" in said["allowed"]


async def test_a_delivery_above_the_limit_is_refused(server):
    async with server(github_secret=SECRET, max_webhook_bytes=1024) as url:
        status, _, _ = await deliver(url, PUSH + b" " * 2_000)
    assert status == 413


async def test_a_delivery_while_kafka_is_away_is_answered_in_time(server, stack):
    async with server(github_secret=SECRET, delivery_timeout=1) as url:
        await mute(stack.brokers[0])
        began = time.monotonic()
        status, _, said = await deliver(url, PUSH, delivery="d1")
        assert time.monotonic() - began < 15
        assert (status, said["events"]) == (504, [{"id": "d1", "unknown": True}])
        stack.brokers[0].resume()
