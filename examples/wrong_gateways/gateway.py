"""What both wrong gateways have in common: the wire, and the past and the announcements that they tell.

The past comes from a right gateway's `GET /events`, the rest from the same Redis; the wire is the same. How a
client's past and what comes are put together is ``follow``, which each does in its own wrong way.
"""

import asyncio
import json
import sys
from contextlib import contextmanager, suppress

import aiohttp
from aiohttp import web
from redis.asyncio import Redis


class Gateway:
    """Speaks the wire of a right one, but keeps its clients' streams with holes."""

    def __init__(self, api, redis_url):
        self.api, self.redis_url = api, redis_url
        self.listeners = {}  # source: the queues of the clients that follow it

    async def follow(self, source, since, tell):
        """A client's way: its past, and what comes."""
        raise NotImplementedError

    async def tell_past(self, source, past, tell):
        """The events of before; their ids."""
        for event in past:
            await tell(source, {"kind": "event", "id": event["id"], "type": event["type"], "old": True})
        return {event["id"] for event in past}

    async def tell_on(self, source, cursor, told, queue, tell):
        """What comes, but what was told."""
        await tell(source, {"kind": "subscribed", "cursor": cursor, "recovered": True})
        while True:
            event = await queue.get()
            if event["id"] not in told:
                live = {"id": event["id"], "type": event["type"], "pos": event["pos"]}
                cursor = f"{cursor.partition(':')[0]}:{event['pos']}"
                await tell(source, {"kind": "event", "cursor": cursor, **live})

    @contextmanager
    def subscribed(self, source):
        """A queue of what is announced of the source, from now on."""
        queue = asyncio.Queue()
        self.listeners.setdefault(source, set()).add(queue)
        try:
            yield queue
        finally:
            self.listeners[source].discard(queue)

    async def read(self, source, since):
        """The cursor behind all that the store has, and the events after ``since``."""
        if since == "latest":
            return (await self.page(source, limit=1))["cursor"], []
        events, page = [], {"cursor": since, "more": True}
        while page["more"]:
            page = await self.page(source, limit=1000, since=page["cursor"])
            events += page["events"]
        return page["cursor"], events

    async def page(self, source, **query):
        """Of the right gateway."""
        async with self.session.get(f"{self.api}/events", params={"source": source, **query}) as answer:
            return await answer.json()

    async def listen(self, _app):
        """One subscription on Redis for all."""
        async with aiohttp.ClientSession() as self.session, Redis.from_url(self.redis_url).pubsub() as pubsub:
            await pubsub.psubscribe("events:*")
            task = asyncio.create_task(self.receive(pubsub))
            yield
            task.cancel()

    async def receive(self, pubsub):
        """Announcements, to those who follow their source."""
        async for message in pubsub.listen():
            source = message["channel"].decode().partition(":")[2]
            for queue in self.listeners.get(source, ()):
                queue.put_nowait(json.loads(message["data"]))

    async def websocket(self, request):
        """`GET /ws`."""
        socket = web.WebSocketResponse(heartbeat=15)
        await socket.prepare(request)
        tasks = []

        async def tell(source, message):
            with suppress(ConnectionError):  # who has left is noticed below
                await socket.send_json({"source": source, **message})

        async for message in socket:
            command = json.loads(message.data)
            follow = self.follow(command["subscribe"], command.get("since", "latest"), tell)
            tasks.append(asyncio.create_task(follow))
        for task in tasks:
            task.cancel()
        return socket

    async def sse(self, request):
        """`GET /sse`."""
        sources = request.query.getall("source")
        places = request.headers.get("Last-Event-ID") or ",".join(["latest"] * len(sources))
        cursors = dict(zip(sources, places.split(","), strict=True))
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})

        async def tell(source, message):
            cursors[source] = message.get("cursor", cursors[source])
            head = f"event: {message['kind']}\nid: {','.join(cursors.values())}\n"
            await stream.write(f"{head}data: {json.dumps({'source': source, **message})}\n\n".encode())

        with suppress(ConnectionError):
            await stream.prepare(request)
            await asyncio.gather(*(self.follow(*one, tell) for one in list(cursors.items())))
        return stream


def serve(kind):
    """Serve this kind of gateway: PORT API REDIS_URL."""
    port, *where = sys.argv[1:]
    gateway = kind(*where)
    app = web.Application()
    app.add_routes([web.get("/ws", gateway.websocket), web.get("/sse", gateway.sse)])
    app.cleanup_ctx.append(gateway.listen)
    web.run_app(app, host="127.0.0.1", port=int(port), print=None, handler_cancellation=True)
