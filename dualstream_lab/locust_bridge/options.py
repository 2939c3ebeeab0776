"""The command-line options, which Locust's web UI shows, too, and what they mean."""

from __future__ import annotations

import argparse
import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dualstream_lab.bounds import within
from dualstream_lab.config import Settings
from dualstream_lab.errors import ConfigError
from dualstream_lab.verdict.thresholds import Threshold
from dualstream_lab.workload import PAYLOADS, PLANS, Workload

if TYPE_CHECKING:
    from locust.argument_parser import LocustArgumentParser


CHANNELS = ("all", "hot", "uniform", "zipf")
VIA = ("redis", "ws", "sse")
_GATEWAY = "http://127.0.0.1:8080"
_DURATION = 60.0
_USERS = 50  # calls of the publisher that may be open at once
# s from the start of a test to the plan's zero: publishers connect, users spawn, subscribers join
_LEAD, _LONGEST_SPAWN = 1.5, 10.0
_JOINS = (800.0, 400.0)  # subscriptions/s: on Redis itself, through a gateway


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
    plan = Workload()
    hidden = {"include_in_web_ui": False}
    show = {"action": _Show, "const": len(parser._actions)}  # noqa: SLF001
    flag = {"action": "store_true"} | hidden
    rows: tuple[tuple[str, object, dict[str, Any], str], ...] = (
        ("options", None, show | hidden, "Show these options, and exit"),
        ("rate", plan.rate, {}, "Events/s of all workers together, at the plan's highest"),
        ("plan", plan.plan, {"choices": PLANS},
         "How the rate goes over time; closed: as fast as answers come"),
        ("duration", 0.0, {}, f"Seconds of the plan (0: --run-time, else {_DURATION:g})"),
        ("batch-size", 100, {}, "Events of one publish call"),
        ("sources", plan.sources, {}, "How many sources there are"),
        ("zipf", plan.zipf, {}, "Exponent of the sources' popularity; 0: uniform"),
        ("hot", 0.0, {}, "Share of events that go to the hot sources"),
        ("hot-sources", 1, {}, "How many hot sources there are"),
        ("payload", plan.payload, {"choices": PAYLOADS}, "Sizes: fixed, lognormal, or like GitHub's"),
        ("payload-bytes", plan.payload_bytes, {}, "Bytes of a value (lognormal: the median)"),
        ("plan-low", plan.low, {}, "ramp, burst, sine: lowest rate, as a share of --rate"),
        ("plan-period", plan.period, {}, "burst, sine: seconds"),
        ("plan-steps", plan.steps, {}, "step: how many"),
        ("seed", plan.seed, {}, "The same seed plans the same events"),
        ("connections-per-user", 10, {}, "Connections of one subscribing user"),
        ("channels", "zipf", {"choices": CHANNELS},
         "What a connection subscribes to: all by a pattern (Redis only), or one source"),
        ("via", "redis", {"choices": VIA},
         "What subscribers connect to: Redis itself, or a gateway, by WebSocket or server-sent events"),
        ("gateway", _GATEWAY, {}, "URL of the gateway that `dualstream serve` runs (--via ws, sse)"),
        ("slow", 0.0, {}, "Share of connections that read slowly"),
        ("slow-seconds", 0.5, {}, "How long a slow one pauses after every read"),
        ("stay", 0.0, {}, "Seconds after which a connection leaves and comes again; 0: never"),
        ("kafka", "", {},
         "Kafka URL; left out, it is the stack of `dualstream up`, or one that is started for the test"),
        ("redis", "", {"is_secret": True}, "Redis URL; left out beside --kafka, nothing is announced"),
        ("topic", "", {}, "Topic, which must exist"),
        ("use-env", None, flag, "What is left out is as DUALSTREAM_KAFKA_URL, _REDIS_URL and _TOPIC say"),
        ("yes", None, flag,
         ("Send load to brokers that are not the local stack without asking; where there is no terminal "
          "to ask on, and for those that are given in the web UI, they are refused without this")),
        ("runs", "runs", hidden, "Where run directories go"),
        ("max-rows", 5_000_000, {}, "Above so many events only a sample has rows; 0: no rows"),
        ("threshold", [], {"action": "append"} | hidden,
         "A limit, such as live.latency.p99<5ms (may be repeated); a missed one gives exit code 99"),
    )  # fmt: skip
    for name, default, more, text in rows:
        if isinstance(default, (int, float)):
            more["type"] = type(default)
        if default is not None:
            more["default"] = default
        parser.add_argument(f"--{name}", help=text, **more)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The parsed options, checked. ``sample``: one event in so many has rows, 0: none.

    ``via``: what subscribers connect to; ``gateway``: where that is, if it is not Redis.
    """

    workload: Workload
    settings: Settings
    thresholds: tuple[Threshold, ...]
    root: Path
    users: int
    spawn_rate: float
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
            within(f"--{name.replace('_', '-')}", getattr(given, name), low, high)
        if given.via != "redis" and given.channels == "all":
            raise ConfigError("--channels all: needs --via redis, as a gateway has no patterns")
        expected = workload.expected or round(workload.duration * 200_000)
        same = ("channels", "via", "gateway", "slow", "slow_seconds")
        return cls(
            workload=workload, settings=settings,
            thresholds=tuple(Threshold.parse(text) for text in given.threshold), root=Path(given.runs),
            sample=max(1, -(-expected // given.max_rows)) if given.max_rows else 0,
            users=int(getattr(given, "num_users", None) or 1),
            spawn_rate=getattr(given, "spawn_rate", None) or 1, connections=given.connections_per_user,
            stay=given.stay or None, **{name: getattr(given, name) for name in same},
        )  # fmt: skip

    def lead(self, *, listens: bool, measures_delivery: bool) -> float:
        """Seconds from the start of a test to the plan's zero."""
        through = self.via != "redis"
        joins = self.users * self.connections if listens else 0
        joins += self.workload.sources if measures_delivery and through else 0
        return _LEAD + min(self.users / self.spawn_rate, _LONGEST_SPAWN) + joins / _JOINS[through]


_NAMES = {"batch": "batch_size", "low": "plan_low", "period": "plan_period", "steps": "plan_steps"}


def _workload(given: Namespace) -> Workload:
    values = {name: getattr(given, _NAMES.get(name, name)) for name in Workload().as_dict()}
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
