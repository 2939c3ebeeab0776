"""Raw HTTP requests mutated by radamsa, run by ``fuzz`` where that is installed: HOST PORT REQUESTS."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections import Counter

import pyradamsa  # type: ignore[import-not-found]  # installed for this run alone

_AT_ONCE = 100
_LONGEST = 1.0  # s: who answers later waits for the rest of a request that the mutant cut short
_BIGGEST = 256 * 1024  # bytes of a mutant
_EVENT = b'{"type":"push","source_type":"repo","source_id":"fuzz/1","data":{"ref":"main"}}'
_GETS = (
    "/events?source=repo:fuzz/1&limit=10",
    "/events?source=repo:fuzz/1&since=earliest&limit=1000",
    "/events?source=repo:fuzz/1&since=0123456789ab:0:7~1:9",
    "/event?id=7&source=repo:fuzz/2",
    "/events/7?pos=0:7",
    "/events/a%2Fb?source=repo:fuzz/3",
    "/readyz",
    "/healthz",
    "/metrics",
    "/openapi.json",
    "/",
    "/ws?source=repo:fuzz/1&since=earliest",
    "/sse?source=repo:fuzz/1&source=repo:fuzz/2&since=earliest",
)


def _seeds(host: str) -> list[bytes]:
    github = "X-GitHub-Event: push\r\nX-GitHub-Delivery: 1\r\n"
    usual = f"Host: {host}\r\nAccept: */*\r\nOrigin: http://{host}\r\nAuthorization: Bearer a.b.c\r\n"
    shake = (
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    )
    end = "Connection: close\r\n\r\n"
    seeds = [
        f"GET {path} HTTP/1.1\r\n{usual}{shake if path.startswith('/ws') else ''}{end}".encode()
        for path in _GETS
    ]
    batch = b"[" + b",".join([_EVENT] * 3) + b"]"
    for path, kind, body in (
        ("/ingest", "application/json", _EVENT),
        ("/ingest", "application/json", batch),
        (
            "/ingest",
            "application/cloudevents+json",
            b'{"specversion":"1.0","id":"1","source":"s","type":"t"}',
        ),
        ("/ingest/github", "application/json", b'{"repository":{"full_name":"fuzz/1"}}'),
    ):
        head = f"POST {path} HTTP/1.1\r\n{usual}{github}Content-Type: {kind}\r\n"
        seeds.append(f"{head}Content-Length: {len(body)}\r\n{end}".encode() + body)
    return seeds


async def _status(host: str, port: int, request: bytes) -> str:
    """Of the answer. "closed": there was none; "waits": for more, which does not come."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        async with asyncio.timeout(_LONGEST):
            writer.write(request)
            line = await reader.readline()
    except TimeoutError:
        return "waits"
    except (ConnectionError, ValueError):
        return "closed"
    finally:
        writer.transport.abort()
    found = re.match(rb"HTTP/1\.[01] (\d{3})", line)
    return found[1].decode() if found else "closed"


async def _send(host: str, port: int, most: int) -> tuple[Counter[str], list[str]]:
    seeds, numbers = _seeds(f"{host}:{port}"), iter(range(most))
    mutate = pyradamsa.Radamsa().fuzz
    statuses: Counter[str] = Counter()
    bad: list[str] = []

    async def client() -> None:
        for number in numbers:
            request = mutate(seeds[number % len(seeds)], seed=number, max_mut=_BIGGEST)
            status = await _status(host, port, request)
            statuses[status] += 1
            if status.startswith("5") and status != "503":  # that is "not now", a hundred come at once
                bad.append(f"seed {number}: {status} for {request[:200]!r}")

    await asyncio.gather(*(client() for _ in range(_AT_ONCE)))
    return statuses, bad


def main() -> None:
    host, port, most = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    statuses, bad = asyncio.run(_send(host, port, most))
    print(
        json.dumps(
            {"requests": statuses.total(), "statuses": dict(sorted(statuses.items())), "bad": bad[:20]}
        )
    )


if __name__ == "__main__":
    main()
