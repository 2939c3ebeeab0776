"""The peers: how each is prepared and run. One that cannot be is "not run", with the reason."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from dualstream_lab.stack.jars import KAFKA_VERSION, resolved

__all__ = ["PEERS", "NotRun", "Peer", "Result"]

HERE = Path(__file__).parent
CACHE = HERE / ".cache"
_TIMEOUT = 120
_JAVA_LOGS = "org.slf4j:slf4j-simple:1.7.36"


class NotRun(Exception):
    """Why a peer has no figure."""


@dataclass(frozen=True)
class Result:
    """One run: counts of events, seconds until the last ack and the last PUBLISH answer, and CPU seconds."""

    acked: int
    notified: int
    dropped: int
    seconds: float
    cpu: float

    def rate(self, events: int, *, redis: bool) -> float:
        """Events/s. Raises NotRun for a run in which anything is missing."""
        if self.acked != events or self.dropped or (redis and self.notified != events):
            raise NotRun(
                f"void: {self.acked} acked, {self.notified} notified, {self.dropped} dropped of {events}"
            )
        return events / self.seconds


@dataclass(frozen=True)
class Peer:
    """``scale``: the share of a shape's events that it is given, so that slow ones end in time.

    ``single``: whether it has a form that waits for each event.
    """

    name: str
    command: Callable[[], list[str]]
    redis: bool = True
    tuned: bool = False
    scale: float = 1.0
    single_scale: float = 1.0
    single: bool = True

    def run(self, task: dict[str, object]) -> Result:
        """Raises NotRun."""
        try:
            done = subprocess.run(
                [*self.command(), json.dumps(task | {"tuned": self.tuned})],
                capture_output=True,
                timeout=_TIMEOUT,
                check=False,
                cwd=HERE.parent,
                env=os.environ | {"PYTHONPATH": str(HERE.parent)},
            )
        except subprocess.TimeoutExpired as error:
            raise NotRun(f"not done in {_TIMEOUT} s") from error
        if done.returncode:
            raise NotRun(
                done.stderr.decode().strip().splitlines()[-1] if done.stderr else f"exit {done.returncode}"
            )
        return Result(**json.loads(done.stdout.splitlines()[-1]))


def _python(name: str) -> Callable[[], list[str]]:
    return lambda: [sys.executable, "-m", f"benchmarks.peers.{name}"]


@cache
def _librdkafka() -> list[str]:
    """In a virtual environment of its own, as it is no dependency of ours."""
    home = CACHE / "librdkafka"
    python = home / "bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", home], check=True, capture_output=True)
        requirements = str(HERE / "peers/librdkafka-requirements.txt")
        pip = [str(python), "-m", "pip", "install", "-q", "-r", requirements]
        if subprocess.run(pip, capture_output=True, check=False).returncode:
            shutil.rmtree(home)
            raise NotRun("confluent-kafka cannot be installed")
    return [str(python), "-m", "benchmarks.peers.librdkafka"]


@cache
def _go() -> list[str]:
    go = shutil.which("go")
    if go is None:
        raise NotRun("there is no Go compiler")
    binary = CACHE / "gopeer"
    CACHE.mkdir(exist_ok=True)
    source = HERE / "peers/gopeer"
    if not binary.exists() or binary.stat().st_mtime < (source / "main.go").stat().st_mtime:
        done = subprocess.run([go, "build", "-o", binary, "."], cwd=source, capture_output=True, check=False)
        if done.returncode:
            raise NotRun("it cannot be built: " + done.stderr.decode().strip().splitlines()[-1])
    return [str(binary)]


@cache
def _perf_test() -> list[str]:
    """Kafka's tool, which is not among the broker's jars."""
    try:
        jars = resolved(f"org.apache.kafka:kafka-tools:{KAFKA_VERSION}+{_JAVA_LOGS}", CACHE / "jgo")
    except Exception as error:
        raise NotRun(f"kafka-tools cannot be fetched: {error}") from error
    return [*_python("perf_test")(), ":".join(map(str, jars))]


PEERS = {
    peer.name: peer
    for peer in (
        Peer("ours", _python("ours")),
        Peer("ours without Redis", _python("ours"), redis=False),
        Peer("bound", _python("bound"), single=False),
        Peer("bound without Redis", _python("bound"), redis=False, single=False),
        Peer("naive Python", _python("naive"), scale=0.25, single_scale=0.5),
        Peer("Go, tuned", _go, tuned=True),
        Peer("Go, default", _go, scale=0.02, single_scale=0.01),
        Peer("librdkafka, no Redis", _librdkafka, redis=False),
        Peer("kafka-producer-perf-test", _perf_test, redis=False, scale=2.0, single=False),
    )
}
