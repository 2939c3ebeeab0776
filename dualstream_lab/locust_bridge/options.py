"""The command-line options, which Locust's web UI shows, too, and what they mean."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dualstream_lab.errors import ConfigError
from dualstream_lab.load.thresholds import Threshold
from dualstream_lab.workload import PAYLOADS, PLANS, Workload

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence

    from locust.argument_parser import LocustArgumentParser

    from dualstream_lab.config import Settings

__all__ = ["CHANNELS", "VIA", "Options", "add_arguments"]

CHANNELS = ("all", "hot", "uniform", "zipf")
VIA = ("redis", "ws", "sse")
_GATEWAY = "http://127.0.0.1:8080"
_DURATION = 60.0
_USERS = 50  # lanes: calls of the publisher that may be open at once


class _Show(argparse.Action):
    """Prints the options of this module: Locust answers ``--help`` before it reads the locustfile."""

    def __init__(self, option_strings: Sequence[str], dest: str, *, const: int, **more: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, const=const, **more)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        formatter = argparse.HelpFormatter(parser.prog)
        formatter.start_section("Options beside Locust's own (locust --help)")
        formatter.add_arguments(parser._actions[self.const :])  # noqa: SLF001
        formatter.end_section()
        sys.stdout.write(formatter.format_help())
        parser.exit()


def add_arguments(parser: LocustArgumentParser) -> None:
    """Locust's ``init_command_line_parser``."""
    parser.set_defaults(num_users=_USERS, spawn_rate=100)
    add = parser.add_argument
    add(
        "--options", action=_Show, const=len(parser._actions),  # noqa: SLF001
        include_in_web_ui=False, help="Show these options, and exit",
    )  # fmt: skip
    plan = Workload()
    add(
        "--rate",
        type=float,
        default=plan.rate,
        help="Events/s of all workers together, at the plan's highest",
    )
    add(
        "--plan",
        choices=PLANS,
        default=plan.plan,
        help="How the rate goes over time; closed: as fast as answers come",
    )
    add(
        "--duration", type=float, default=0.0, help=f"Seconds of the plan (0: --run-time, else {_DURATION:g})"
    )
    add("--batch-size", type=int, default=100, help="Events of one publish call")
    add("--sources", type=int, default=plan.sources, help="How many sources there are")
    add("--zipf", type=float, default=plan.zipf, help="Exponent of the sources' popularity; 0: uniform")
    add("--hot", type=float, default=0.0, help="Share of events that go to the hot sources")
    add("--hot-sources", type=int, default=1, help="How many hot sources there are")
    add("--payload", choices=PAYLOADS, default=plan.payload, help="Sizes: fixed, lognormal, or like GitHub's")
    add(
        "--payload-bytes",
        type=int,
        default=plan.payload_bytes,
        help="Bytes of a value (lognormal: the median)",
    )
    add(
        "--plan-low",
        type=float,
        default=plan.low,
        help="ramp, burst, sine: lowest rate, as a share of --rate",
    )
    add("--plan-period", type=float, default=plan.period, help="burst, sine: seconds")
    add("--plan-steps", type=int, default=plan.steps, help="step: how many")
    add("--seed", type=int, default=plan.seed, help="The same seed plans the same events")
    add("--connections-per-user", type=int, default=10, help="Connections of one subscribing user")
    add(
        "--channels",
        choices=CHANNELS,
        default="zipf",
        help="What a connection hears: all by a pattern (Redis only), or one source",
    )
    add(
        "--via",
        choices=VIA,
        default="redis",
        help="What subscribers connect to: Redis itself, or a gateway, by WebSocket or server-sent events",
    )
    add("--gateway", default=_GATEWAY, help="URL of the gateway that `dualstream serve` runs (--via ws, sse)")
    add("--slow", type=float, default=0.0, help="Share of connections that read slowly")
    add("--slow-seconds", type=float, default=0.5, help="How long a slow one pauses after every read")
    add(
        "--stay",
        type=float,
        default=0.0,
        help="Seconds after which a connection leaves and comes again; 0: never",
    )
    add(
        "--kafka",
        default="",
        help="Kafka URL; left out, it is the stack of `dualstream up`, or one that is started for the test",
    )
    add(
        "--redis", default="", help="Redis URL; left out beside --kafka, nothing is announced", is_secret=True
    )
    add("--topic", default="", help="Topic, which must exist")
    add(
        "--use-env", action="store_true", include_in_web_ui=False,
        help="What is left out is as DUALSTREAM_KAFKA_URL, _REDIS_URL and _TOPIC say",
    )  # fmt: skip
    add(
        "--yes", action="store_true", include_in_web_ui=False,
        help="Send load to brokers that are not the local stack without asking; where there is no terminal "
        "to ask on, and for those that are given in the web UI, they are refused without this",
    )  # fmt: skip
    add("--runs", default="runs", help="Where run directories go", include_in_web_ui=False)
    add(
        "--max-rows",
        type=int,
        default=5_000_000,
        help="Above so many events only a sample has rows; 0: no rows",
    )
    add(
        "--threshold", action="append", default=[], include_in_web_ui=False,
        help="A limit, such as live.latency.p99<5ms (may be repeated); a missed one gives exit code 99",
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The parsed options, checked. ``sample``: one event in so many has rows, 0: none.

    ``via``: what subscribers connect to; ``gateway``: where that is, if it is not Redis.
    """

    workload: Workload
    settings: Settings
    thresholds: tuple[Threshold, ...]
    root: Path
    sample: int
    connections: int
    channels: str
    via: Literal["redis", "ws", "sse"]
    gateway: str
    slow: float
    slow_seconds: float
    stay: float | None

    @classmethod
    def of(cls, given: Namespace, settings: Settings) -> Options:
        """Raises ConfigError naming the option."""
        workload = _workload(given)
        for name, low, high in (
            ("connections_per_user", 1, 10_000), ("slow", 0, 1), ("slow_seconds", 0, 60), ("stay", 0, 3600),
            ("max_rows", 0, 100_000_000),
        ):  # fmt: skip
            if not low <= getattr(given, name) <= high:
                option = f"--{name.replace('_', '-')}"
                raise ConfigError(f"{option}: must be from {low:,} to {high:,} (is {getattr(given, name)!r})")
        if given.via != "redis" and given.channels == "all":
            raise ConfigError("--channels all: needs --via redis, as a gateway has no patterns")
        expected = workload.expected or round(workload.duration * 200_000)
        return cls(
            workload=workload,
            settings=settings,
            thresholds=tuple(Threshold.parse(text) for text in given.threshold),
            root=Path(given.runs),
            sample=max(1, -(-expected // given.max_rows)) if given.max_rows else 0,
            connections=given.connections_per_user,
            channels=given.channels,
            via=given.via,
            gateway=given.gateway,
            slow=given.slow,
            slow_seconds=given.slow_seconds,
            stay=given.stay or None,
        )


_NAMES = {"batch": "batch_size", "low": "plan_low", "period": "plan_period", "steps": "plan_steps"}


def _workload(given: Namespace) -> Workload:
    values: dict[str, Any] = {}
    for name in Workload().as_dict():
        if name != "duration":
            values[name] = getattr(given, _NAMES.get(name, name))
    values["duration"] = float(given.duration or _run_time(given) or _DURATION)
    try:
        return Workload.load(values)
    except ConfigError as error:
        name, colon, rest = str(error).partition(":")
        raise ConfigError(f"--{_NAMES.get(name, name).replace('_', '-')}{colon}{rest}") from error


def _run_time(given: Namespace) -> float:
    """Seconds of Locust's --run-time, which its web UI gives as a text."""
    from locust.util.timespan import parse_timespan  # noqa: PLC0415

    value = getattr(given, "run_time", None)
    return float(parse_timespan(str(value)) if value else 0)
