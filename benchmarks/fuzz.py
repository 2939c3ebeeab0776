"""Fuzzers that nobody here wrote, let loose on ``dualstream serve``: ``python -m benchmarks.fuzz``.

schemathesis makes requests from our OpenAPI document, boofuzz WebSocket frames. Both are installed for the
run alone, in a temporary directory. REQUESTS and FRAMES (100,000 each) may be given.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from benchmarks.serving import fresh_settings, ours
from dualstream_lab import DualPublisher, Event
from dualstream_lab.config import Settings
from dualstream_lab.stack import LocalStack

_TOOLS = ("schemathesis==4.32.5", "boofuzz==0.4.2")
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
            for done in range(0, requests, _ROUND):
                held &= await asyncio.to_thread(_requests, tools, url, min(_ROUND, requests - done))
            return (frames == 0 or await asyncio.to_thread(_frames, tools, server.address, frames)) and held


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


def _frames(tools: Path, address: str, frames: int) -> bool:
    host, _, port = address.rpartition(":")
    program = Path(__file__).with_name("fuzz_frames.py")
    done = subprocess.run(
        [tools / "python", program, host, port, str(frames)],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    found = json.loads(re.findall(r"^\{.*\}$", done.stdout, re.MULTILINE)[-1])
    print(f"boofuzz: {found['frames']:,} frames; closed with {found['closes']}")
    return done.returncode == 0 and "1011" not in found["closes"]


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
    sys.exit(main())
