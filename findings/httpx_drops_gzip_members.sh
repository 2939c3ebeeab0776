#!/usr/bin/env bash
# httpx: of a gzip body of several members only the first is read; the rest of the events is gone without an error.
#
# One would expect: RFC 1952 says that a gzip file is a series of members, and Content-Encoding: gzip is that format.
# So `cat a.gz b.gz`, bgzip's output, or a server that compresses batch by batch reads as the whole, as with gzip(1),
# Python's gzip, urllib3, requests and aiohttp.
# What happens: httpx answers with the first member and drops the others: no exception, no warning, and the status and
# Content-Length are those of the whole. aiter_lines() on a stream of batches ends after the first batch in the same
# way. With zstd httpx does read frame after frame, but only where two frames come in one chunk of the network: where
# they come in two, the same bytes raise DecodingError.
# Since: httpx 0.28.1 (with zstandard 0.25.0); requests 2.34.2 and aiohttp 3.14.5 read all.
# Why it matters: archives of events are appended to (one member an hour, or a flush), and NDJSON that ends early is
# still NDJSON: a count that is too small is all one sees.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet httpx==0.28.1 requests==2.34.2 urllib3==2.8.0 aiohttp==3.14.5 zstandard==0.25.0

venv/bin/python - <<'PY'
import asyncio
import gzip
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version

import aiohttp
import httpx
import requests
import zstandard

HOURS = [b'{"event": 1}\n{"event": 2}\n', b'{"event": 3}\n{"event": 4}\n']
MEMBERS = {"gzip": [gzip.compress(hour) for hour in HOURS], "zstd": [zstandard.compress(hour) for hour in HOURS]}
assert gzip.decompress(b"".join(MEMBERS["gzip"])) == b"".join(HOURS)


class Archive(BaseHTTPRequestHandler):
    """GET /gzip and /zstd: in one piece; /gzip/slow and /zstd/slow: a member at a time."""

    def do_GET(self):
        _, encoding, *slow = self.path.split("/")
        members = MEMBERS[encoding]
        self.send_response(200)
        self.send_header("Content-Encoding", encoding)
        self.send_header("Content-Length", str(sum(map(len, members))))
        self.end_headers()
        for member in members if slow else [b"".join(members)]:
            self.wfile.write(member)
            time.sleep(0.2 if slow else 0)

    def log_message(self, *arguments):
        pass


async def by_aiohttp(url):
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return await response.read()


def events(read):
    try:
        return f"{read().count(b'event')} of 4"
    except httpx.DecodingError as error:
        return f"DecodingError: {error}"


server = ThreadingHTTPServer(("127.0.0.1", 0), Archive)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}"
print(", ".join(f"{name} {version(name)}" for name in ("httpx", "requests", "aiohttp", "zstandard")))
seen = {}
for path in ("/gzip", "/gzip/slow", "/zstd", "/zstd/slow"):
    seen[path] = events(lambda: httpx.get(url + path).content)
    print(f"{path:<11} httpx: {seen[path]}", end="")
    if path.startswith("/gzip"):
        others = events(lambda: requests.get(url + path).content), events(lambda: asyncio.run(by_aiohttp(url + path)))
        print("   requests: {}   aiohttp: {}".format(*others), end="")
        if others != ("4 of 4", "4 of 4"):
            sys.exit("\nno longer so: the others do not read all members")
    print()
server.shutdown()
if not (seen["/gzip"] == seen["/gzip/slow"] == "2 of 4" and seen["/zstd"] == "4 of 4" and "Error" in seen["/zstd/slow"]):
    sys.exit("no longer so: httpx treats members and frames alike")
PY
