"""What the load engine costs under Locust, and how much it holds; beside the publisher and locust-plugins."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any
from uuid import uuid4

from benchmarks.peer import CACHE, HERE, PEERS, NotRun
from dualstream_lab import lab
from dualstream_lab.stack import LocalStack

__all__ = ["load"]

_FILES = HERE.parent / "locustfiles"
_SECONDS = 10
_EVENTS = 1_000_000


def _locust(stack: LocalStack, file: str, *options: str) -> dict[str, Any]:
    """The verdict of a headless run on a topic of its own. Raises NotRun where anything is missing."""
    topic = f"bench-{uuid4().hex[:10]}"
    stack.create_topic(topic, partitions=6)
    where = ["--kafka", stack.kafka_url, "--redis", stack.redis_url, "--topic", topic, "--yes"]
    with tempfile.TemporaryDirectory() as root:
        command = [sys.executable, "-m", "locust", "-f", str(_FILES / file), "--headless", "--only-summary"]
        done = subprocess.run(
            [*command, *where, *options, "--duration", str(_SECONDS), "--runs", root],
            capture_output=True, text=True, timeout=180, check=False,
        )  # fmt: skip
        found = list(Path(root).glob("*/verdict.json"))
        if done.returncode or not found:
            raise NotRun(done.stderr.strip().splitlines()[-1] if done.stderr else f"exit {done.returncode}")
        verdict: dict[str, Any] = json.loads(found[0].read_text(encoding="utf-8"))
    measures = verdict["measures"]
    if measures["publish.errors"] or measures["live.dropped"]:
        raise NotRun(f"void: {measures['publish.errors']} errors, {measures['live.dropped']} dropped")
    return measures


def _full_rate(stack: LocalStack, *options: str) -> float:
    closed = ("--plan", "closed", "--batch-size", "1000", "--users", "4")
    return float(_locust(stack, "batch_publish.py", *closed, *options)["publish.events_per_second"])


def _publisher(stack: LocalStack) -> float:
    topic = f"bench-{uuid4().hex[:10]}"
    stack.create_topic(topic, partitions=6)
    task: dict[str, object] = {
        "kafka": stack.kafka_url, "redis": stack.redis_url, "topic": topic, "batch": 1000, "in_flight": 4,
        "sources": 500, "size": 300, "events": _EVENTS, "hot": False,
    }  # fmt: skip
    return PEERS["ours"].run(task).rate(_EVENTS, redis=True)


def _plugins(stack: LocalStack) -> float:
    """locust-plugins in a virtual environment of its own, as it is no dependency of ours."""
    python = CACHE / "locust-plugins/bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", python.parent.parent], check=True, capture_output=True)
        pip = [
            str(python),
            "-m",
            "pip",
            "install",
            "-q",
            "-r",
            str(HERE / "peers/locust-plugins-requirements.txt"),
        ]
        if subprocess.run(pip, capture_output=True, check=False).returncode:
            raise NotRun("locust-plugins cannot be installed")
    topic = f"bench-{uuid4().hex[:10]}"
    stack.create_topic(topic, partitions=6)
    done = subprocess.run(
        [str(python), "-m", "locust", "-f", str(HERE / "peers/locust_plugins_file.py"), "--headless",
         "--users", "50", "--spawn-rate", "100", "--run-time", f"{_SECONDS}s", "--json", "--only-summary"],
        capture_output=True, text=True, timeout=120, check=False,
        env=os.environ | {"BENCH_KAFKA": stack.kafka_url, "BENCH_TOPIC": topic},
    )  # fmt: skip
    try:
        (entry,) = json.loads(done.stdout)
    except ValueError as error:
        raise NotRun(done.stderr.strip().splitlines()[-1]) from error
    return float(entry["num_requests"] / (entry["last_request_timestamp"] - entry["start_time"]))


def _slip(stack: LocalStack, file: str, *options: str) -> float:
    return float(_locust(stack, file, *options)["generator.slip.p99"])


def _generator_slip(stack: LocalStack) -> float:
    """Of `dualstream run` with 5,000 single events a second."""
    with tempfile.TemporaryDirectory() as root:
        run = asyncio.run(
            lab.run(rate=5_000, batch=1, duration=_SECONDS, warm_up=2, stack=stack, live=False, root=root)
        )
        return run.measures["generator.slip.p99"]


_SLIPS: Mapping[tuple[str, float], Callable[[LocalStack], float]] = {
    ("Locust, 10,000 events/s in batches of 100", 5): lambda stack: _slip(
        stack, "batch_publish.py", "--rate", "10000", "--batch-size", "100"
    ),
    ("Locust, 5,000 single events/s", 2): lambda stack: _slip(
        stack, "single_publish.py", "--rate", "5000", "--users", "200"
    ),
    ("`dualstream run`, 5,000 single events/s", 0.3): _generator_slip,
}
"""How late events are sent, p99, and what is allowed, ms."""


def load(stack: LocalStack, *, rounds: int) -> str:
    """Every figure, round by round."""
    rates: dict[str, Callable[[], float]] = {
        "publisher": lambda: _publisher(stack),
        "locust": lambda: _full_rate(stack),
        "locust, not recording": lambda: _full_rate(stack, "--max-rows", "0"),
        "locust-plugins": lambda: _plugins(stack),
    }
    found: dict[str, list[float]] = {name: [] for name in rates}
    slips: dict[tuple[str, float], list[float]] = {name: [] for name in _SLIPS}
    for turn in range(-1, rounds):  # the first round warms the broker and does not count
        for name, measure in rates.items():
            rate = measure()
            print(f"round {turn + 1}  {name:24} {rate:10,.0f} events/s", file=sys.stderr)
            if turn >= 0:
                found[name].append(rate)
        for which, ask in _SLIPS.items() if turn >= 0 else ():
            slips[which].append(ask(stack))
            print(f"round {turn + 1}  slip p99 {slips[which][-1]:.2f} ms  {which[0]}", file=sys.stderr)
    held = _locust(
        stack, "subscriber_fanout.py", "--users", "120", "--connections-per-user", "50", "--rate", "1000",
        "--batch-size", "10", "--channels", "uniform", "--zipf", "0", "--sources", "500",
    )  # fmt: skip
    lines = ["| figure | median | spread | target |", "|---|---|---|---|"]
    for text, upper, lower, target in (
        ("one Locust process, batches of 1000 / the publisher's own benchmark", "locust", "publisher", 0.7),
        ("the same, recording every row / recording none", "locust", "locust, not recording", 0.9),
        ("the same / locust-plugins' KafkaUser, events/s", "locust", "locust-plugins", 20),
    ):
        ratios = sorted(a / b for a, b in zip(found[upper], found[lower], strict=True))
        spread = f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
        lines.append(f"| {text} | **{median(ratios):.2f}** | {spread} | ≥ {target:g} |")
    for (text, allowed), late in slips.items():
        spread = f"{min(late):.2f} to {max(late):.2f}"
        lines.append(f"| slip p99, {text}, ms | **{median(late):.2f}** | {spread} | ≤ {allowed:g} |")
    expected = held["publish.durable"] * held["live.subscriptions"] / 500
    rate = held["live.delivered"] / _SECONDS
    lines.append(
        f"| Redis subscriptions of one process at {rate:,.0f} notifications/s; lost | "
        f"**{held['live.subscriptions']:,.0f}**; {expected - held['live.delivered']:,.0f} | live p99 "
        f"{held['live.latency.p99']:.1f} ms | ≥ 5,000; 0 |"
    )
    middle = {name: f"{median(values):,.0f}" for name, values in found.items()}
    lines.append(
        "\nEvents/s, medians: " + ", ".join(f"{name} {value}" for name, value in middle.items()) + "."
    )
    return "\n".join(lines)
