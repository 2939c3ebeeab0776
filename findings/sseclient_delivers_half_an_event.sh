#!/usr/bin/env bash
# sseclient-py: when the connection ends in the middle of an event, the half that came is delivered as an event.
#
# One would expect: the standard says it outright: "If the file ends in the middle of an event, before the final empty
# line, the incomplete event is not dispatched", and its id does not become the last event id.
# What happens: what was received is parsed and yielded like any other event: "data: 2000" that arrives as "data: 20"
# is 20, and a data of two lines is one. The event has its full id, so a client that reconnects with it as
# Last-Event-ID is told what came after, and the whole event is never seen. httpx-sse on the same bytes drops it.
# Since: sseclient-py 1.9.0 (the newest); httpx-sse 0.4.3 is right.
# Why it matters: where data is JSON the parser mostly notices; counters, ids, positions and plain lines of a log do
# not. It takes only a server that is restarted, or a proxy that closes after its time limit: the usual end of a
# stream.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet sseclient-py==1.9.0 requests==2.34.2 httpx==0.28.1 httpx-sse==0.4.3

venv/bin/python - <<'PY'
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version

import httpx
import requests
import sseclient
from httpx_sse import connect_sse


class Stream(BaseHTTPRequestHandler):
    """Sends one event and a half, and ends the connection as a server does that is stopped."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self.wfile.write(b"id: 41\ndata: 1000\n\n" b"id: 42\ndata: 20")  # of "data: 2000\n\n"

    def log_message(self, *arguments):
        pass


def by_sseclient(url):
    with requests.get(url, stream=True, timeout=5) as response:
        return [(event.id, event.data) for event in sseclient.SSEClient(response).events()]


def by_httpx_sse(url):
    with httpx.Client() as client, connect_sse(client, "GET", url) as source:
        return [(event.id, event.data) for event in source.iter_sse()]


server = ThreadingHTTPServer(("127.0.0.1", 0), Stream)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}/"
halves, whole = by_sseclient(url), by_httpx_sse(url)
server.shutdown()
print("sent: 41 = 1000, whole; 42 = 2000, cut off behind 20")
print("sseclient-py", version("sseclient-py"), "delivers", halves)
print("httpx-sse", version("httpx-sse"), "delivers", whole)
if not (halves == [("41", "1000"), ("42", "20")] and whole == [("41", "1000")]):
    sys.exit("no longer so: sseclient-py drops an unfinished event")
PY
