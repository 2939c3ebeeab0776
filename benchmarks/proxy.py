"""What the fault proxy costs while it does nothing: the same with it and without, one after the other.

As in a run, the proxy is a thread of this process, and whoever asks and sends is the main thread; the
publisher is a process of its own. Direct first in one round, proxied first in the next.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from urllib.parse import urlsplit
from uuid import uuid4

from benchmarks.peer import PEERS, NotRun
from benchmarks.redis_side import quantiles
from dualstream_lab.faults.proxy.proxy import KafkaProxy, Proxy
from dualstream_lab.stack import LocalStack

__all__ = ["proxy"]

_EVENTS = 400_000
_PINGS = 20_000
_BYTES = 512 * 2**20
_PIECE = bytes(256 * 1024)
_SINK = """
import socket
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
room = bytearray(2**20)
while True:
    client, _ = server.accept()
    while client.recv_into(room):
        pass
    client.close()
"""
_WAYS = ("direct", "proxied")
# (what, unit, form); the second of each pair is compared with the first
_FIGURES = {
    "publish": ("publish, batches of 1000 (300 B), Kafka and Redis", "events/s", ",.0f"),
    "bulk": ("one connection, one way", "MiB/s", ",.0f"),
    "ping p50": ("Redis PING, p50", "µs", ".0f"),
    "ping p99": ("Redis PING, p99", "µs", ".0f"),
}


@contextmanager
def _sink() -> Iterator[tuple[str, int]]:
    """A process that reads whatever comes; its address."""
    process = subprocess.Popen([sys.executable, "-c", _SINK], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield "127.0.0.1", int(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


def _publish(kafka: str, redis: str, topic: str, events: int) -> float:
    task: dict[str, object] = {
        "kafka": kafka, "redis": redis, "topic": topic, "batch": 1000, "in_flight": 4,
        "sources": 500, "size": 300, "events": events, "hot": False,
    }  # fmt: skip
    return PEERS["ours"].run(task).rate(events, redis=True)


def _push(address: tuple[str, int], size: int) -> float:
    """MiB/s until the other side has read all."""
    with socket.create_connection(address) as connection:
        began = time.perf_counter()
        for _ in range(0, size, len(_PIECE)):
            connection.sendall(_PIECE)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)
        return size / 2**20 / (time.perf_counter() - began)


def _ping(address: tuple[str, int], count: int) -> dict[str, float]:
    """µs, one after the other."""
    took = []
    with socket.create_connection(address) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(count):
            began = time.perf_counter_ns()
            connection.sendall(b"PING\r\n")
            connection.recv(64)
            took.append((time.perf_counter_ns() - began) / 1000)
    return quantiles(took[count // 10 :])


def proxy(stack: LocalStack, *, rounds: int, quick: bool) -> str:
    """The table; what was measured before Ctrl-C counts."""
    rounds, scale = (1, 0.1) if quick else (rounds, 1.0)
    parts = urlsplit(stack.redis_url)
    there = (parts.hostname or "", parts.port or 0)
    found: dict[tuple[str, str], list[float]] = {}
    with _sink() as sink, KafkaProxy(stack.kafka_url) as kafka, Proxy(there) as redis, Proxy(sink) as pipe:
        urls = {
            "direct": (stack.kafka_url, stack.redis_url),
            "proxied": (kafka.kafka_url, f"redis://{redis.address[0]}:{redis.address[1]}"),
        }
        bulk = {"direct": sink, "proxied": pipe.address}
        pings = {"direct": there, "proxied": redis.address}
        try:
            for turn in range(-1, rounds):  # the first warms the broker up and does not count
                for way in _WAYS if turn % 2 else reversed(_WAYS):
                    topic = f"bench-{uuid4().hex[:10]}"
                    stack.create_topic(topic)
                    figures = {"publish": _publish(*urls[way], topic, round(_EVENTS * scale))}
                    figures["bulk"] = _push(bulk[way], round(_BYTES * scale))
                    waits = _ping(pings[way], round(_PINGS * scale))
                    figures |= {"ping p50": waits["p50"], "ping p99": waits["p99"]}
                    line = "  ".join(f"{name} {value:,.0f}" for name, value in figures.items())
                    print(f"round {turn + 1}  {way:8} {line}", file=sys.stderr)
                    for name, value in figures.items():
                        if turn >= 0:
                            found.setdefault((name, way), []).append(value)
        except KeyboardInterrupt:
            print("interrupted: the table has what was measured", file=sys.stderr)
    return _markdown(found)


def _markdown(found: dict[tuple[str, str], list[float]]) -> str:
    lines = [
        "| figure, median | direct | through the idle proxy | proxied / direct (spread) |",
        "|---|---|---|---|",
    ]
    for name, (text, unit, form) in _FIGURES.items():
        direct, proxied = (found.get((name, way), []) for way in _WAYS)
        ratios = sorted(after / before for before, after in zip(direct, proxied, strict=False))
        if not ratios:
            raise NotRun(f"{text}: no round was whole")
        lines.append(
            f"| {text}, {unit} | {median(direct):{form}} | {median(proxied):{form}} | "
            f"**{median(ratios):.2f}** ({ratios[0]:.2f} to {ratios[-1]:.2f}) |"
        )
    return "\n".join(lines)
