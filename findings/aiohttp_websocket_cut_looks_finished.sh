#!/usr/bin/env bash
# aiohttp: `async for message in ws` ends in silence when the connection is reset or the server reports an error.
#
# One would expect: the loop ends when the server says goodbye, and raises when the connection breaks or the server
# closes with an error code, as aiohttp itself does for a body of HTTP that is cut off (ClientPayloadError), and
# `websockets` does here.
# What happens: a close with 1000, a close with 1011 (internal error), one with 1012 (restart) and a TCP reset all end
# the loop in the same way, with no exception and no message of type ERROR. What it was is only in ws.close_code (1006
# for the reset), if one looks. A message over the size limit does come as type ERROR, so a branch for that type is
# tested, and makes one believe that errors come there.
# Since: aiohttp 3.14.5, against websockets 17.4 on the same server.
# Why it matters: a recorder of a live stream, and a measurement of what was delivered, take a broken stream for a
# finished one: the counts are right for what came, and nobody knows that the rest did not.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet aiohttp==3.14.5 websockets==17.4

venv/bin/python - <<'PY'
import asyncio
import sys
from importlib.metadata import version

import aiohttp
import websockets
from aiohttp import web


async def stream(request):
    """Sends three events and ends as the query says."""
    ws = web.WebSocketResponse()
    await ws.prepare(request)
    for number in range(3):
        await ws.send_str(str(number))
    how = request.query["end"]
    await asyncio.sleep(0.1)  # the events are out
    if how == "reset":
        request.transport.abort()
    else:
        await ws.close(code=int(how))
    return ws


async def by_aiohttp(url):
    kinds = []
    try:
        async with aiohttp.ClientSession() as session, session.ws_connect(url) as ws:
            async for message in ws:
                kinds.append(message.type.name)
            return kinds, f"the loop ended (close_code {int(ws.close_code)}, if one asks)"
    except aiohttp.ClientError as error:
        return kinds, f"raised {type(error).__name__}"


async def by_websockets(url):
    kinds = []
    try:
        async with websockets.connect(url) as ws:
            async for _ in ws:
                kinds.append("TEXT")
            return kinds, "the loop ended"
    except websockets.ConnectionClosedError as error:
        return kinds, f"raised {type(error).__name__}"


async def main():
    app = web.Application()
    app.router.add_get("/", stream)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    print(f"aiohttp {version('aiohttp')}, websockets {version('websockets')}; three events, then the end")
    silent = raised = 0
    for end in ("1000", "1011", "1012", "reset"):
        query = f"127.0.0.1:{port}/?end={end}"
        kinds, how = await by_aiohttp(f"http://{query}")
        _, other = await by_websockets(f"ws://{query}")
        print(f"{end:<6} aiohttp: {len(kinds)} {set(kinds)}, {how:<52} websockets: {other}")
        silent += kinds == ["TEXT"] * 3 and how.startswith("the loop ended")
        raised += other.startswith("raised")
    await runner.cleanup()
    if (silent, raised) != (4, 3):
        sys.exit("no longer so: the ends differ in aiohttp, or do not in websockets")


asyncio.run(asyncio.wait_for(main(), 60))
PY
