"""Fuzzers that nobody here wrote, let loose on ``dualstream serve``: ``python -m benchmarks.fuzz``.

schemathesis makes a tenth of the requests, from our OpenAPI document (some 50 a second: it thinks long of
each); radamsa the others, by mutating the bytes of good ones; boofuzz makes WebSocket frames. They are
installed for the run alone, in a temporary directory. REQUESTS and FRAMES (100,000 each) may be given.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

from benchmarks.serving import fresh_settings, ours
from dualstream_lab import DualPublisher, Event
from dualstream_lab.config import Settings
from dualstream_lab.stack import LocalStack

_TOOLS = ("schemathesis==4.32.5", "pyradamsa==0.1.1", "boofuzz==0.4.2")
_OPERATIONS = 5  # with parameters or a body: of the others there is only one request
_ROUND = 5000  # requests of one run of schemathesis, each with a seed of its own
_STREAMS = ("/ws", "/sse")  # an answer that does not end is no use to a fuzzer of requests


async def _prepare(settings: Settings) -> None:
    async with DualPublisher(settings) as publisher:
        for number in range(200):
            await publisher.publish(
                Event(id=f"{number}", type="push", source_type="repo", source_id=f"fuzz/{number % 5}")
            )


async def _run(tools: Path, requests: int, frames: int, log: Path) -> bool:
    with LocalStack(directory=log / "stack") as stack:
        settings = fresh_settings(stack, str(log), max_subscriptions=1000)
        async with ours(settings) as server:
            await _prepare(settings)
            url = f"http://{server.address}"
            held = True
            if frames:
                held &= await asyncio.to_thread(_frames, tools, server.address, frames)
            if requests:
                held &= await asyncio.to_thread(_mutants, tools, server.address, requests * 9 // 10)
            for done in range(0, requests // 10, _ROUND):
                held &= await asyncio.to_thread(_requests, tools, url, min(_ROUND, requests // 10 - done))
            return held


def _requests(tools: Path, url: str, requests: int) -> bool:
    """A round: what it found is said when it ends, so that an end before the last is no loss."""
    skipped = [word for path in _STREAMS for word in ("--exclude-path", path)]
    done = subprocess.run(
        [
            *(tools / "st", "run", f"{url}/openapi.json", "--url", url, "--mode", "all", *skipped),
            *("--phases", "fuzzing", "--checks", "not_a_server_error", "--continue-on-failure"),
            *("--max-examples", str(requests // _OPERATIONS), "--request-timeout", "10", "--no-color"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    counted = re.search(r"(\d+) generated", done.stdout)
    print(f"schemathesis: {counted[1] if counted else 0} requests", flush=True)
    if done.returncode:
        print(done.stdout[-3000:], flush=True)
    return done.returncode == 0 and counted is not None


def _mutants(tools: Path, address: str, requests: int) -> bool:
    found = _program(tools, "fuzz_requests.py", address, requests)
    print(
        f"radamsa: {found['requests']:,} requests; answered with {found['statuses']}", *found["bad"], sep="\n"
    )
    return not found["bad"]


def _frames(tools: Path, address: str, frames: int) -> bool:
    found = _program(tools, "fuzz_frames.py", address, frames)
    print(f"boofuzz: {found['frames']:,} frames; closed with {found['closes']}", flush=True)
    return "1011" not in found["closes"]


def _program(tools: Path, name: str, address: str, count: int) -> dict[str, Any]:
    """What it prints last. Raises CalledProcessError."""
    host, _, port = address.rpartition(":")
    command = [tools / "python", Path(__file__).with_name(name), host, port, str(count)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(re.findall(r"^\{.*\}$", done.stdout, re.MULTILINE)[-1])
    return found


def main() -> int:
    given = [int(word) for word in sys.argv[1:3]]
    requests, frames = (given + [100_000] * 2)[:2] if given else (100_000, 100_000)
    with tempfile.TemporaryDirectory() as directory:
        tools = Path(directory) / "tools"
        venv.create(tools, with_pip=True)
        subprocess.run([tools / "bin/python", "-m", "pip", "install", "--quiet", *_TOOLS], check=True)
        held = asyncio.run(_run(tools / "bin", requests, frames, Path(directory)))
    print("held" if held else "did not hold")
    return 0 if held else 99


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what it started ends with it, as with Ctrl-C
    sys.exit(main())
