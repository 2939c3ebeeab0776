"""The API's description against the application that it describes: its routes, answers and messages."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import io
import json
import time
from uuid import uuid4

import aiohttp
import jwt
import pytest
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import validate

from dualstream_lab.config import ServeSettings
from dualstream_lab.gateway.access import Access
from dualstream_lab.gateway.endpoints import BAD_MESSAGE, SLOW, UNAUTHENTICATED
from dualstream_lab.gateway.gateway import Gateway, application
from dualstream_lab.gateway.openapi import openapi_document
from dualstream_lab.ingest.http import ingest_routes
from dualstream_lab.store import SqliteStore

from .serving import Delivery, until_so

SECRET = "a secret of at least thirty-two bytes"
SOURCE = "repo:octo/hello"
EVENT = {"type": "push", "source_type": "repo", "source_id": "octo/hello", "data": {"n": 1}}


@pytest.fixture(scope="module")
def document():
    return json.loads(openapi_document())


def test_the_document_is_valid(document):
    validate(document)


def test_its_own_examples_and_defaults_are_valid(document):
    schemas = document["components"]["schemas"]
    shown = [(schema, value) for schema in schemas.values() for value in schema.get("examples", ())]
    for operations in document["paths"].values():
        for operation in operations.values():
            taken = [parameter["schema"] for parameter in operation.get("parameters", ())]
            shown += [(schema, schema["default"]) for schema in taken if "default" in schema]
            bodies = operation.get("requestBody", {"content": {}})["content"].values()
            shown += [(body["schema"], body["example"]) for body in bodies if "example" in body]
    assert len(shown) > 5
    for schema, value in shown:
        check(document, schema, value)


def check(document, schema, value):
    """The value is what the schema says, and has no property of which it says nothing."""
    schema = schema | {"components": document["components"]}
    errors = [error.message for error in OAS31Validator(schema).iter_errors(value)]
    assert errors == [], value
    if isinstance(value, dict):
        assert set(value) <= set(properties(document, schema, value)), value


def properties(document, schema, value):
    """Those of the schema, or of the one of its alternatives that the value is."""
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    for one in schema.get("oneOf", ()):
        if OAS31Validator(one | {"components": document["components"]}).is_valid(value):
            return properties(document, one, value)
    return schema.get("properties", value)  # an object of any kind


class Asking:
    """Asks the server, and holds every answer against the document."""

    def __init__(self, document, session, url):
        self._document = document
        self._session = session
        self._url = url

    async def __call__(self, method, path, status, *, template=None, **request):
        """The answer's JSON, or its text."""
        async with self._session.request(method, self._url + path, **request) as answer:
            assert answer.status == status, await answer.text()
            described = self._document["paths"][template or path.partition("?")[0]][method.lower()]
            response = described["responses"][str(status)]
            schema = response["content"][answer.content_type]["schema"]
            said = await (answer.json if answer.content_type == "application/json" else answer.text)()
            check(self._document, schema, said)
            for name, header in response.get("headers", {}).items():
                if name in answer.headers:
                    text = answer.headers[name]
                    wants = header["schema"]
                    check(self._document, wants, int(text) if wants.get("type") == "integer" else text)
            return said


@pytest.fixture
async def session():
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
        yield session


async def test_every_route_is_described_and_nothing_else(document, settings, tmp_path):
    where = settings().model_dump(exclude_unset=True) | {"store": tmp_path / "store.db"}
    where = ServeSettings.load(**where)
    store, access = await SqliteStore.open(where.store), Access(where)
    async with Gateway(where, access, store) as gateway:
        ingester = ingest_routes(None, settings=where, authorize=lambda request, source: None)
        router = application([*gateway.routes(), *ingester], access).router
    await store.close()
    routes = {(route.method, route.resource.canonical) for route in router.routes() if route.method != "HEAD"}
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert routes == described


@pytest.fixture(scope="module")
def delivery(stack):
    """A topic and a store of its own."""
    topic = f"api-{uuid4().hex[:8]}"
    stack.create_topic(topic)
    with Delivery(stack, topic, check_interval=0.2) as delivery:
        yield delivery


@pytest.fixture(scope="module")
def server(delivery):
    """All parts, without tokens."""
    return delivery.start("ingester", "processor", "gateway", github_secret="hush", max_body_bytes=2**20)


async def test_every_answer_is_as_described(document, session, server):
    ask = Asking(document, session, server.url)
    accepted = await ask("POST", "/ingest", 202, json=EVENT)
    (receipt,) = accepted["events"]
    await ask("POST", "/ingest", 202, json=[EVENT, EVENT])
    lines = "\n".join([json.dumps(EVENT)] * 1001)
    assert "events" not in await ask(
        "POST", "/ingest", 202, data=lines, headers={"Content-Type": "application/x-ndjson"}
    )
    await ask("POST", "/ingest", 400, data="{", headers={"Content-Type": "application/json"})
    await ask(
        "POST",
        "/ingest",
        413,
        data=io.BytesIO(bytes(2**20 + 1)),
        headers={"Content-Type": "application/json"},
    )
    await ask("POST", "/ingest", 415, data="x", headers={"Content-Type": "text/plain"})
    await ask("POST", "/ingest", 422, json=[EVENT, EVENT | {"source_id": "*"}])

    await ask("POST", "/ingest/github", 200, **webhook(b"{}", "ping"))
    await ask("POST", "/ingest/github", 202, **webhook(b'{"repository":{"full_name":"o/r"}}', "push"))
    await ask("POST", "/ingest/github", 400, **webhook(b"{", "push"))
    await ask("POST", "/ingest/github", 401, **webhook(b"{}", "push", secret=b"wrong"))
    await ask("POST", "/ingest/github", 422, **webhook(b"{}", "push"))

    for whole, template in (("/events/{id}?", "/events/{id}"), ("/event?id={id}&", "/event")):
        its = whole.format(id=receipt["id"])
        await ask("GET", f"{its}pos={receipt['pos']}", 200, template=template)
        await ask("GET", f"{its}source={SOURCE}", 200, template=template)
        await ask("GET", f"{its}pos=nowhere", 400, template=template)
        await ask("GET", whole.format(id="none"), 404, template=template)
    page = await ask("GET", f"/events?source={SOURCE}&limit=1", 200)
    assert len(page["events"]) == 1
    await ask("GET", f"/events?source={SOURCE}&since=earliest", 200)
    lost = await ask("GET", f"/events?source={SOURCE}&since=z{page['cursor'][1:]}", 200)
    assert lost["recovered"] is False
    await ask("GET", "/events", 400)
    await ask("GET", "/sse", 400)
    await ready(session, server.url)
    for path in ("/", "/healthz", "/readyz", "/metrics", "/openapi.json"):
        await ask("GET", path, 200)


async def ready(session, url):
    """Until the processor has its partitions, and has said so."""

    async def status():
        async with session.get(f"{url}/readyz") as answer:
            return answer.status

    await until_so(status, 200)


async def test_refusals_for_want_of_a_token_are_as_described(document, session, server, delivery):
    claims = {"exp": time.time() + 60, "read": ["repo:other/*"], "write": []}
    bearer = {"Authorization": f"Bearer {jwt.encode(claims, SECRET, 'HS256')}"}
    closed = delivery.make("ingester", "gateway", jwt_secret=SECRET)
    await closed.start()
    ask = Asking(document, session, closed.url)
    for path in (f"/events?source={SOURCE}", f"/sse?source={SOURCE}", "/metrics"):
        await ask("GET", path, 401)
    await ask("GET", "/events/x", 401, template="/events/{id}")
    await ask("POST", "/ingest", 401, json=EVENT)
    for path in (f"/events?source={SOURCE}", f"/sse?source={SOURCE}"):
        await ask("GET", path, 403, headers=bearer)
    await ask("GET", "/ws", 401, headers={"Authorization": "Bearer forged"})
    await ask("POST", "/ingest", 403, json=EVENT, headers=bearer)
    await ask("POST", "/ingest/github", 403, json={})


def webhook(body, name, *, secret=b"hush"):
    """A webhook's request, signed."""
    signature = "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest()
    headers = {"Content-Type": "application/json", "X-Hub-Signature-256": signature}
    return {"data": body, "headers": headers | {"X-GitHub-Event": name, "X-GitHub-Delivery": "d1"}}


async def test_every_message_is_as_described(document, session, stack, server):
    url = server.url
    seen = {}

    async def until(socket, kind, **fields):
        while True:
            message = await socket.receive_json()
            check(document, {"$ref": "#/components/schemas/Message"}, message)
            seen.setdefault(message["kind"], []).append(message)
            if message["kind"] == kind and fields.items() <= message.items():
                return message

    async def publish():
        async with session.post(f"{url}/ingest", json=EVENT) as answer:
            assert answer.status == 202

    async with session.ws_connect(f"{url}/ws?source={SOURCE}") as socket:
        await until(socket, "subscribed")
        await publish()
        await until(socket, "event")
        await until(socket, "sync")
        await say(document, socket, {"unsubscribe": SOURCE})
        await until(socket, "unsubscribed")
        await say(document, socket, {"subscribe": SOURCE, "since": "earliest"})
        await until(socket, "event", old=True)
        stack.redis.kill()
        await until(socket, "degraded")
        await publish()
        await until(socket, "event", late=True)
        await asyncio.to_thread(stack.redis.launch)
        await asyncio.to_thread(stack.redis.wait_ready)
        await until(socket, "live")
        await say(document, socket, {"subscribe": "nonsense"})
        await until(socket, "error")
        await say(document, socket, {"unsubscribe": SOURCE})
        await say(document, socket, {"subscribe": SOURCE, "since": "0:0:0"})
        await until(socket, "subscribed", recovered=False)
    described = document["components"]["schemas"]["Message"]["discriminator"]["mapping"]
    assert set(seen) == set(described)

    async with session.get(f"{url}/sse?source={SOURCE}&since=earliest") as stream:
        kind = place = None
        while kind != "subscribed":
            line = (await stream.content.readline()).decode().rstrip("\n")
            name, _, text = line.partition(": ")
            if name == "event":
                kind = text
            elif name == "id":
                place = text
            elif name == "data":
                message = json.loads(text)
                check(document, {"$ref": "#/components/schemas/Message"}, message)
                assert (kind, place) == (message["kind"], message["cursor"])


async def say(document, socket, command):
    check(document, {"$ref": "#/components/schemas/Command"}, command)
    await socket.send_json(command)


def test_the_close_codes_are_those_of_the_gateway(document):
    described = document["paths"]["/ws"]["get"]["x-websocket"]["closeCodes"]
    codes = {
        BAD_MESSAGE,
        SLOW,
        UNAUTHENTICATED,
        aiohttp.WSCloseCode.GOING_AWAY,
        aiohttp.WSCloseCode.UNSUPPORTED_DATA,
    }
    assert {str(int(code)) for code in codes} <= set(described)
