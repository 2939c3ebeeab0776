"""``dualstream up``, ``status`` and ``down``: this user's one local stack."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

import click

from dualstream_lab.cli.console import Duration, export_lines, say, stdout
from dualstream_lab.errors import StackError
from dualstream_lab.stack import LocalStack, StackInfo, running_stack
from dualstream_lab.stack.state import StateFile, state_path

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["down", "status", "up"]

_START_TIMEOUT = 300.0  # the first time, Kafka is downloaded
_STOP_TIMEOUT = 40.0
_VARIABLES = ("DUALSTREAM_KAFKA_URL", "DUALSTREAM_REDIS_URL", "DUALSTREAM_TOPIC")
_PORT = click.IntRange(1, 65_535)


@click.command(epilog="Next:  dualstream publish FILE,  dualstream tail --pattern '*',  dualstream down")
@click.option(
    "--brokers", type=click.Choice(["1", "3"]), default="1", help="3: replicated, two must have it."
)
@click.option("--detach", is_flag=True, help="Return when it serves; it runs until `down` or --ttl.")
@click.option(
    "--ttl", type=Duration(), default="8h", show_default=True, help="How long a detached one lives."
)
@click.option("--directory", type=click.Path(path_type=Path), help="Keep data and logs here.")
@click.option("--kafka-port", type=_PORT, help="Port of Kafka (of the first of three). Default: a free one.")
@click.option("--redis-port", type=_PORT, help="Port of Redis. Default: a free one.")
@click.option("--served", is_flag=True, hidden=True)
def up(
    brokers: str,
    detach: bool,
    ttl: float,
    directory: Path | None,
    kafka_port: int | None,
    redis_port: int | None,
    served: bool,
) -> int:
    """Start a real Apache Kafka and a real Valkey: no Docker, no root, no Java of your own.

    In the foreground until Ctrl-C, or --detach. Prints `export DUALSTREAM_…` lines on stdout:

        eval "$(dualstream up --detach)"
    """
    if (info := running_stack()) is not None:
        return _already(info, int(brokers))
    if detach:
        return _detach(_arguments(brokers, ttl, directory, kafka_port, redis_port))
    stack = LocalStack(
        brokers=int(brokers), directory=directory, progress=say, kafka_port=kafka_port, redis_port=redis_port
    )
    return _serve(stack, ttl if served else None)


@click.command()
def status() -> int:
    """Show the running local stack: addresses, age, `export` lines. Exit code 3 if none runs."""
    info = running_stack()
    if info is None:
        raise StackError("no local stack runs; start one with `dualstream up`")
    _show(info)
    return 0


@click.command()
def down() -> int:
    """End the local stack that `dualstream up` started, and wait until it is gone.

    Prints an `unset` line on stdout for what `up` told to export:

        eval "$(dualstream down)"
    """
    info = running_stack()
    if info is None:
        say("no local stack runs")
        return _unset()
    # The state file is locked for as long as this very process lives, so the pid is not another's.
    for number in (signal.SIGTERM, signal.SIGKILL):
        os.kill(info.pid, number)
        deadline = time.monotonic() + _STOP_TIMEOUT
        while time.monotonic() < deadline:
            if (now := running_stack()) is None or now.pid != info.pid:
                say("the local stack has ended")
                return _unset()
            time.sleep(0.05)
    raise StackError(f"process {info.pid} does not end")


def _unset() -> int:
    """What points to a stack that is gone must not point to whatever takes its ports."""
    stdout.print(f"unset {' '.join(_VARIABLES)}")
    return 0


def _already(info: StackInfo, brokers: int) -> int:
    running = len(info.kafka_url.split(","))
    if running != brokers:
        raise StackError(f"a stack of {running} broker(s) runs already; end it with `dualstream down` first")
    say("a local stack runs already:")
    _show(info)
    return 0


def _show(info: StackInfo) -> None:
    age = time.time() - info.started_at
    say(f"Kafka   {info.kafka_url}  (topic {info.topic})")
    say(f"Redis   {info.redis_url}")
    left = f", ends in {(info.expires_at - time.time()) / 60:.0f} min" if info.expires_at else ""
    say(f"up for {age / 60:.0f} min, process {info.pid}{left}; data and logs in {info.directory}")
    values = (info.kafka_url, info.redis_url, info.topic)
    stdout.print(export_lines(dict(zip(_VARIABLES, values, strict=True))))


def _serve(stack: LocalStack, ttl: float | None) -> int:
    """Run until a signal, the end of the ttl, or the death of a part."""
    state = StateFile.claim()
    ended = Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: ended.set())
    started = time.time()
    try:
        with stack:
            info = StackInfo(
                kafka_url=stack.kafka_url,
                redis_url=stack.redis_url,
                topic=stack.topic or "",
                pid=os.getpid(),
                directory=str(stack.directory),
                started_at=started,
                expires_at=None if ttl is None else started + ttl,
            )
            state.publish(info)
            _show(info)
            if ttl is None:
                say(
                    "Ctrl-C ends it. Elsewhere:  dualstream publish FILE   or   dualstream tail --pattern '*'"
                )
            while not ended.wait(0.5):
                if dead := [p.name for p in (*stack.brokers, stack.redis) if not p.running]:
                    raise StackError(f"{', '.join(dead)} ended by itself; see the logs in {stack.directory}")
                if ttl is not None and time.time() > started + ttl:
                    say("the time to live is over")
                    break
            say("ending …")
    finally:
        state.release()
    return 0


def _arguments(
    brokers: str, ttl: float, directory: Path | None, kafka_port: int | None, redis_port: int | None
) -> list[str]:
    given: list[tuple[str, object]] = [("--brokers", brokers), ("--ttl", f"{ttl}s")]
    if directory is not None:
        given.append(("--directory", directory.absolute()))
    given += [
        (name, port) for name, port in (("--kafka-port", kafka_port), ("--redis-port", redis_port)) if port
    ]
    return [str(word) for pair in given for word in pair]


def _detach(arguments: Sequence[str]) -> int:
    """Start the server in a session of its own and wait until it serves or fails."""
    log = state_path().with_name("stack.log")
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        output = log.open("wb")
    except OSError as error:
        raise StackError(f"{log.parent} cannot be written: {error.strerror}") from error
    with output:
        child = subprocess.Popen(
            [sys.executable, "-m", "dualstream_lab.cli", "up", "--served", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    deadline = time.monotonic() + _START_TIMEOUT
    told = 0
    try:
        while (info := running_stack()) is None or info.pid != child.pid:
            ended = child.poll() is not None
            told = _relay(log, told)
            if ended or time.monotonic() > deadline:
                break
            time.sleep(0.05)
    except BaseException:
        child.terminate()
        raise
    if info is None or info.pid != child.pid:
        child.terminate()
        raise StackError(f"the local stack did not start; {log} has the whole story")
    _show(info)
    say(
        "It runs until `dualstream down`. Next:  dualstream publish FILE   or   dualstream tail --pattern '*'"
    )
    return 0


def _relay(log: Path, told: int) -> int:
    """Pass on what the server has said since."""
    text = log.read_text(encoding="utf-8", errors="replace")
    lines = text[told:].splitlines(keepends=True)
    for line in lines:
        if line.endswith("\n"):
            if not line.startswith("export "):
                say(line.rstrip())
            told += len(line)
    return told
