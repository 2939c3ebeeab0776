"""At Redis meanwhile, as processes of their own: a subscriber that drains, and a PING every 2 ms.

Reads until its stdin ends, then prints one line of JSON. ``drain`` keeps what it received when told ``keep``.
"""

from __future__ import annotations

import json
import re
import select
import socket
import sys
import time
from urllib.parse import urlsplit

_TS = re.compile(rb'"ts":(\d+)')


def quantiles(values: list[float]) -> dict[str, float]:
    values.sort()
    if not values:
        return {"count": 0}
    at = lambda q: values[min(len(values) - 1, int(len(values) * q))]  # noqa: E731
    return {"count": len(values), "p50": at(0.5), "p99": at(0.99), "p999": at(0.999), "max": values[-1]}


def connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 6379))


def drain(url: str, *, keep: bool) -> dict[str, float]:
    connection = connect(url)
    connection.sendall(b"PSUBSCRIBE events:*\r\n")
    connection.recv(4096)
    print("ready", flush=True)
    chunks: list[tuple[int, bytes]] = []
    size = 0
    while True:
        readable, _, _ = select.select([connection, sys.stdin], [], [])
        if connection in readable:
            data = connection.recv(1 << 20)
            size += len(data)
            if keep:
                chunks.append((time.time_ns(), data))
            if not data:
                break
        elif sys.stdin in readable:
            break
    # ack (the publisher's clock) to receipt (ours): the same machine, the same clock
    lags = [(when - int(ts)) / 1e6 for when, data in chunks for ts in _TS.findall(data) if len(ts) == 19]
    return quantiles(lags) | {"bytes": size}


def ping(url: str) -> dict[str, float]:
    connection = connect(url)
    print("ready", flush=True)
    times: list[float] = []
    while True:
        started = time.perf_counter()
        connection.sendall(b"PING\r\n")
        connection.recv(64)
        times.append((time.perf_counter() - started) * 1000)
        if select.select([sys.stdin], [], [], 0.002)[0]:
            return quantiles(times)


if __name__ == "__main__":
    kind, where = sys.argv[1:3]
    print(json.dumps(ping(where) if kind == "ping" else drain(where, keep=kind == "keep")))
