"""``dualstream up``, ``status`` and ``down``: this user's one local stack."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import click

from dualstream_lab.cli.console import say, stdout
from dualstream_lab.cli.options import assignment, duration, path, topic_size
from dualstream_lab.errors import StackError
from dualstream_lab.stack import LocalStack, StackInfo, running_stack
from dualstream_lab.stack.settings import node_settings
from dualstream_lab.stack.state import StateFile, state_path
from dualstream_lab.units import quantity

_START_TIMEOUT = 300.0  # the first time, Kafka is downloaded
_STOP_TIMEOUT = 40.0
_VARIABLES = ("DUALSTREAM_KAFKA_URL", "DUALSTREAM_REDIS_URL", "DUALSTREAM_TOPIC")
_NEXT = "dualstream publish FILE   or   dualstream tail --pattern '*'"
_PORT = click.IntRange(1, 65_535)
# What the stack itself sets, so that it finds what it has started.
_RESERVED = {
    *node_settings(1, controllers=(), listeners="", advertised="", protocols="", data=""),
    *("port", "bind", "dir", "daemonize", "logfile"),
}


def _unreserved(_ctx: click.Context, _param: click.Parameter, pairs: Any) -> Any:
    if taken := _RESERVED & dict(pairs).keys():
        options = "there are --kafka-port, --redis-port and --directory"
        raise click.BadParameter(f"the stack itself sets {taken.pop()}; {options}")
    return pairs


_settings = partial(click.option, type=assignment, multiple=True, metavar="NAME=VALUE", callback=_unreserved)


@click.command(epilog="Next:  dualstream publish FILE,  dualstream tail --pattern '*',  dualstream down")
@click.option(
    "--brokers", type=click.Choice(["1", "3"]), default="1", show_default=False,
    help="Start so many brokers; 3: replicated, two must have a record.",
)  # fmt: skip
@click.option("--detach", is_flag=True, help="Return when it serves; it runs until `down` or --ttl.")
@click.option("--ttl", type=duration, default="8h", help="End a detached stack after so long.")
@path("--directory", help="Keep data and logs here.")
@click.option(
    "--kafka-port", type=_PORT, help="Serve Kafka (the first of three) on this port. Default: a free one."
)
@click.option("--redis-port", type=_PORT, help="Serve Redis on this port. Default: a free one.")
@click.option("--topic", "topics", type=topic_size, multiple=True, metavar="NAME:PARTITIONS",
              help="Create this topic, too; may be repeated.")  # fmt: skip
@_settings("--kafka-setting", help="Start each broker with this setting; may be repeated.")
@_settings("--redis-setting", help="Start Redis with this setting; may be repeated.")
@click.option("--served", is_flag=True, hidden=True)
def up(
    brokers: str, detach: bool, ttl: float, directory: Path | None, kafka_port: int | None,
    redis_port: int | None, served: bool, topics: tuple[tuple[str, int], ...],
    **repeated: tuple[tuple[str, str], ...],
) -> int:  # fmt: skip
    """Start a real Apache Kafka and a real Valkey: no Docker, no root, no Java of your own.

    In the foreground until Ctrl-C, or --detach. Prints `export DUALSTREAM_…` lines on stdout:

        eval "$(dualstream up --detach)"
    """
    if (info := running_stack()) is not None:
        if (running := len(info.kafka_url.split(","))) != int(brokers):
            kind = quantity(running, "broker")
            raise StackError(f"a stack of {kind} runs already; end it with `dualstream down` first")
        if topics or any(repeated.values()):
            raise StackError(
                "a stack runs already, which stays as it is: `dualstream topic create` makes topics on it; "
                "for other settings end it with `dualstream down` first"
            )
        say("a local stack runs already:")
        return _show(info)
    if detach:
        values = {
            "brokers": brokers, "ttl": f"{ttl}s", "directory": directory and directory.absolute(),
            "kafka-port": kafka_port, "redis-port": redis_port,
        }  # fmt: skip
        given = [f"--{name}={value}" for name, value in values.items() if value is not None]
        given += [f"--topic={name}:{partitions}" for name, partitions in topics]
        for option, pairs in repeated.items():
            given += [f"--{option.replace('_', '-')}={name}={value}" for name, value in pairs]
        return _detach(given)
    stack = LocalStack(
        brokers=int(brokers), directory=directory, progress=say, kafka_port=kafka_port, redis_port=redis_port,
        topics=dict(topics), kafka_settings=dict(repeated["kafka_setting"]),
        valkey_settings=[word for name, value in repeated["redis_setting"] for word in (f"--{name}", value)],
    )  # fmt: skip
    return _serve(stack, ttl if served else None)


@click.command()
def status() -> int:
    """Show the running local stack: addresses, age, `export` lines. Exit code 3 if none runs."""
    info = running_stack()
    if info is None:
        raise StackError("no local stack runs; start one with `dualstream up`")
    return _show(info)


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
    """Print what unsets the variables: they must not point to whatever takes the stack's ports."""
    stdout.print(f"unset {' '.join(_VARIABLES)}")
    return 0


def _show(info: StackInfo) -> int:
    age = time.time() - info.started_at
    say(f"Kafka   {info.kafka_url}  (topic {info.topic})")
    say(f"Redis   {info.redis_url}")
    left = f", ends in {(info.expires_at - time.time()) / 60:.0f} min" if info.expires_at else ""
    say(f"up for {age / 60:.0f} min, process {info.pid}{left}; data and logs in {info.directory}")
    from dualstream_lab.publisher.core import NAME  # noqa: PLC0415  (0.4 s that `down` need not wait)

    say(f"publishers here encode with the {NAME} core")
    for name, value in zip(_VARIABLES, (info.kafka_url, info.redis_url, info.topic), strict=True):
        stdout.print(f"export {name}='{value}'")
    return 0


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
                kafka_url=stack.kafka_url, redis_url=stack.redis_url, topic=stack.topic or "",
                pid=os.getpid(), directory=str(stack.directory), started_at=started,
                expires_at=None if ttl is None else started + ttl,
            )  # fmt: skip
            state.publish(info)
            _show(info)
            if ttl is None:
                say(f"Ctrl-C ends it. Elsewhere:  {_NEXT}")
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
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    deadline = time.monotonic() + _START_TIMEOUT
    done = 0
    try:
        while (info := running_stack()) is None or info.pid != child.pid:
            ended = child.poll() is not None
            done = _relay(log, done)
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
    say(f"It runs until `dualstream down`. Next:  {_NEXT}")
    return 0


def _relay(log: Path, done: int) -> int:
    """Pass on what the server has said beyond ``done``; return how much that makes."""
    whole = log.read_text(encoding="utf-8", errors="replace").rpartition("\n")[0]
    for line in whole[done:].splitlines():
        if line and not line.startswith("export "):
            say(line)
    return len(whole)
